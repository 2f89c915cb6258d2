//! A stream's two halves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use overway_session::{self as session, GivenUp, Measured, Peer};
use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the far end of an aborted stream is told, beside that it is.
const CODE_ABORTED: VarInt = VarInt::from_u32(1);

/// A stream with another edge: bytes in order both ways, each way ended or aborted by itself. Writing waits while the far
/// end does not read. When its endpoint is gone or unwell while another is well, reading and writing fail, and what is
/// opened then goes to the other. Dropping it ends both ways: what was written still goes out while the edge lives.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
    peer: Option<Peer>,
}

impl Stream {
    pub(super) fn new(stream: session::Stream) -> Self {
        let session::Stream { send, recv, peer, measured } = stream;
        let measured = Arc::new(measured);
        let given_up = (measured.given_up(), measured.given_up());
        let recv = RecvHalf { recv, given_up: given_up.0, _measured: Arc::clone(&measured) };
        let send = SendHalf { send, given_up: given_up.1, _measured: measured };
        Self { send, recv, peer }
    }

    /// Who is at the far end, by key and verified token.
    ///
    /// # Panics
    /// Never: edges have streams with edges only.
    pub fn peer(&self) -> &Peer {
        self.peer.as_ref().expect("edges have streams with edges only")
    }

    /// The two ways, for two tasks.
    pub fn into_split(self) -> (RecvHalf, SendHalf) {
        (self.recv, self.send)
    }
}

/// The way to the far end.
#[derive(Debug)]
pub struct SendHalf {
    send: quinn::SendStream,
    given_up: GivenUp,
    /// What the stream feels like is reported until both halves are gone.
    _measured: Arc<Measured>,
}

impl SendHalf {
    /// Ends this way, and waits until the far end has everything that was written.
    ///
    /// # Errors
    /// The far end reads no more, or the connection with it is lost: it may not have had everything.
    pub async fn finish(mut self) -> io::Result<()> {
        // Fails only if the far end has stopped reading, which is looked at next.
        let _ = self.send.finish();
        let stopped = tokio::select! {
            stopped = self.send.stopped() => stopped,
            () = &mut self.given_up => return Err(gone()),
        };
        match stopped {
            Ok(None) => Ok(()),
            Ok(Some(code)) => {
                let message = format!("the far end reads no more (code {code})");
                Err(io::Error::new(io::ErrorKind::ConnectionReset, message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Aborts this way: the far end's next read fails, and what it has not read yet is lost.
    pub fn abort(mut self) {
        // Fails only if it has ended already.
        let _ = self.send.reset(CODE_ABORTED);
    }
}

/// The way from the far end.
#[derive(Debug)]
pub struct RecvHalf {
    recv: quinn::RecvStream,
    given_up: GivenUp,
    _measured: Arc<Measured>,
}

impl RecvHalf {
    /// Reads no more: the far end's next write fails.
    pub fn abort(mut self) {
        // Fails only if it has ended already.
        let _ = self.recv.stop(CODE_ABORTED);
    }
}

fn gone() -> io::Error {
    let message = "the endpoint is gone or unwell, and another is well: open the stream again";
    io::Error::new(io::ErrorKind::ConnectionReset, message)
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buffer) {
            Poll::Pending => Pin::new(&mut self.given_up).poll(cx).map(|()| Err(gone())),
            done => done,
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes) {
            Poll::Pending => Pin::new(&mut self.given_up).poll(cx).map(|()| Err(gone())),
            done => done,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
