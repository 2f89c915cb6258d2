//! One TCP connection and one session stream, joined so that neither end can tell it from a plain
//! connection between them.
//!
//! ```text
//! TCP                              stream                           TCP at the far gateway
//! bytes                     --->   bytes                     --->   bytes
//! FIN  (read gives 0)       --->   finish                    --->   FIN  (shutdown of the write side)
//! RST  (read or write fails) -->   reset of what is sent,    --->   RST  (close with a linger of zero)
//!                                  stop of what is received
//! ```
//!
//! Both directions run at once in one task, each with its own end; the connection is over when both are.
//! Four rules make resets as faithful as the rest:
//!
//! - A reset of either direction ends both at once, as in TCP.
//! - A *stop* means that the far socket takes no more. If it comes without a reset, the far end had
//!   already finished its own direction; those bytes are delivered first, then the connection is reset.
//! - The socket's error is watched also while nothing is read or written, so that a client that resets
//!   a silent connection is noticed.
//! - Linux says `EPIPE` where a reset follows a FIN: then what was sent before the FIN still counts, is
//!   read to its end and delivered.
//!
//! A connection on which neither direction moves a byte for the idle time-out, if there is one, is reset to both
//! ends.
//!
//! A direction that has finished waits until the far end acknowledges every byte, so that stopping the
//! process after the last connection loses nothing.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use overway_session::Stream;
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::idle::Activity;
use crate::open::Shared;
use crate::socket::prepare_tcp;
use crate::stats::Counters;

/// Bytes read from a socket at once: big enough that the system call is not what costs.
const READ_BYTES: usize = 64 * 1024;
/// Reads below this are copied to a buffer of their own size, so that a few bytes which wait for their
/// acknowledgement do not hold a whole read buffer.
const COPY_BYTES: usize = 16 * 1024;
/// Pieces written to a socket at once. A piece is what one packet brought, about 1,150 bytes, so this is
/// about [`READ_BYTES`].
const PIECES: usize = 64;

/// Code of a stream's reset or stop: the TCP connection was reset.
const CODE_RESET: VarInt = VarInt::from_u32(1);

/// How a joined connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both directions were carried to their end.
    Finished,
    /// One end reset it.
    Reset,
    /// The session ended under it, or its far end was given up.
    Lost,
    /// Nothing was sent for the idle time-out.
    Idle,
    /// The gateway ended it.
    Stopped,
}

/// Why one direction ended early.
#[derive(Debug)]
enum Broken {
    /// The socket failed.
    Socket(io::Error),
    /// The far end takes no more of what is sent.
    Stopped,
    /// The far end reset what is received.
    Reset,
    /// The session ended.
    Session,
}

/// Where moved bytes are noted.
#[derive(Clone, Copy)]
struct Moved<'a> {
    counters: &'a Counters,
    activity: &'a Activity,
}

impl Moved<'_> {
    fn add_to_mesh(self, bytes: usize) {
        self.counters.stream_bytes_to_mesh.add(bytes);
        self.activity.touch();
    }

    fn add_from_mesh(self, bytes: usize) {
        self.counters.stream_bytes_from_mesh.add(bytes);
        self.activity.touch();
    }
}

/// Carries bytes, ends and resets both ways until both directions are over, the connection is idle for `idle`, or
/// the gateway ends.
pub(crate) async fn splice(
    shared: &Shared,
    tcp: TcpStream,
    stream: Stream,
    idle: Option<Duration>,
) -> End {
    let Stream { mut send, mut recv, measured, .. } = stream;
    let (counters, activity) = (&shared.counters, Activity::new());
    let moved = Moved { counters, activity: &activity };
    if let Err(error) = prepare_tcp(&tcp) {
        // The connection is gone, which the first read or write will tell too.
        tracing::debug!(%error, "cannot set options of a connection");
    }
    let end = tokio::select! {
        end = both_ways(&tcp, &mut send, &mut recv, moved) => end,
        () = activity.expired(idle) => End::Idle,
        () = measured.given_up() => End::Lost,
        () = shared.ending.cancelled() => End::Stopped,
    };
    match end {
        End::Finished => return end,
        End::Reset => counters.connections_reset.increment(),
        End::Lost => counters.connections_lost.increment(),
        End::Idle => counters.connections_expired.increment(),
        End::Stopped => {}
    }
    // Each of the two fails where that direction is over already, which is as good.
    let _ = send.reset(CODE_RESET);
    let _ = recv.stop(CODE_RESET);
    reset(tcp);
    end
}

/// Closes a TCP connection so that its peer sees RST.
pub(crate) fn reset(tcp: TcpStream) {
    // Fails only if the connection is gone already.
    let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    drop(tcp);
}

/// Waits until the socket is in error, whether or not anything is read or written.
pub(crate) async fn socket_error(tcp: &TcpStream) -> io::Error {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => match tcp.take_error() {
            Ok(Some(error)) | Err(error) => error,
            // A read or a write was told before us, and acts on it.
            Ok(None) => std::future::pending().await,
        },
        Err(error) => error,
    }
}

/// Runs both directions to the end that they have together.
async fn both_ways(
    tcp: &TcpStream,
    send: &mut SendStream,
    recv: &mut RecvStream,
    moved: Moved<'_>,
) -> End {
    let mut upload = pin!(upload(tcp, send, moved));
    let mut download = pin!(download(tcp, recv, moved));
    let (mut uploading, mut downloading) = (true, true);
    let mut half_reset = false;
    while uploading || downloading {
        let result = tokio::select! {
            result = &mut upload, if uploading => {
                uploading = false;
                result
            }
            result = &mut download, if downloading => {
                downloading = false;
                result
            }
        };
        match result {
            Ok(()) => {}
            Err(Broken::Stopped) => half_reset = true,
            Err(Broken::Socket(error)) if follows_fin(&error) => half_reset = true,
            Err(Broken::Socket(_) | Broken::Reset) => return End::Reset,
            Err(Broken::Session) => return End::Lost,
        }
    }
    if half_reset { End::Reset } else { End::Finished }
}

/// Whether a socket's error is a reset after the peer's FIN.
fn follows_fin(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// From the socket to the stream.
async fn upload(tcp: &TcpStream, send: &mut SendStream, moved: Moved<'_>) -> Result<(), Broken> {
    let mut stopped = pin!(send.stopped());
    loop {
        let bytes = tokio::select! {
            read = read_some(tcp) => read.map_err(Broken::Socket)?,
            verdict = &mut stopped => return judge(&verdict),
        };
        if bytes.is_empty() {
            break;
        }
        let count = bytes.len();
        tokio::select! {
            biased;
            written = send.write_chunk(bytes) => written?,
            error = hard_error(tcp) => return Err(Broken::Socket(error)),
        }
        moved.add_to_mesh(count);
    }
    // Fails only if the stream was stopped, which the next line tells.
    let _ = send.finish();
    judge(&stopped.await)
}

/// Reads what there is, at most [`READ_BYTES`]; nothing means FIN. Holds no buffer while it waits.
async fn read_some(tcp: &TcpStream) -> io::Result<Bytes> {
    loop {
        tcp.readable().await?;
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        match tcp.try_read_buf(&mut buffer) {
            Ok(count) if count < COPY_BYTES => return Ok(Bytes::copy_from_slice(&buffer)),
            Ok(_) => return Ok(buffer.freeze()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for an error of the socket after which nothing more can be read.
async fn hard_error(tcp: &TcpStream) -> io::Error {
    let error = socket_error(tcp).await;
    if follows_fin(&error) { std::future::pending().await } else { error }
}

/// What it means that a stream's sending side is over, stopped or lost.
fn judge(verdict: &Result<Option<VarInt>, StoppedError>) -> Result<(), Broken> {
    match verdict {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Broken::Stopped),
        Err(StoppedError::ConnectionLost(_) | StoppedError::ZeroRttRejected) => {
            Err(Broken::Session)
        }
    }
}

/// From the stream to the socket.
async fn download(tcp: &TcpStream, recv: &mut RecvStream, moved: Moved<'_>) -> Result<(), Broken> {
    let result = download_all(tcp, recv, moved).await;
    if let Err(Broken::Socket(_)) = &result {
        // The far end is told at once, even if the other direction goes on for a while.
        let _ = recv.stop(CODE_RESET);
    }
    result
}

async fn download_all(
    tcp: &TcpStream,
    recv: &mut RecvStream,
    moved: Moved<'_>,
) -> Result<(), Broken> {
    let mut pieces = [const { Bytes::new() }; PIECES];
    let mut failed = pin!(socket_error(tcp));
    loop {
        let count = tokio::select! {
            read = recv.read_chunks(&mut pieces) => match read? {
                Some(count) => count,
                None => break,
            },
            error = &mut failed => return Err(Broken::Socket(error)),
        };
        write_pieces(tcp, recv, &pieces[..count], moved).await?;
        pieces[..count].fill(Bytes::new());
    }
    // Fails only if the socket is closed already, and then what reads from it is told why.
    let _ = SockRef::from(tcp).shutdown(Shutdown::Write);
    Ok(())
}

/// Writes all pieces. A reset of the stream does not wait for a socket
/// that takes nothing.
async fn write_pieces(
    tcp: &TcpStream,
    recv: &mut RecvStream,
    pieces: &[Bytes],
    moved: Moved<'_>,
) -> Result<(), Broken> {
    let mut slices = [IoSlice::new(&[]); PIECES];
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    let mut left = &mut slices[..pieces.len()];
    let mut watching = true;
    while !left.is_empty() {
        tokio::select! {
            biased;
            ready = tcp.writable() => ready.map_err(Broken::Socket)?,
            reset = recv.received_reset(), if watching => match reset {
                Ok(Some(_)) => return Err(Broken::Reset),
                Ok(None) => {
                    // All of the stream is here already.
                    watching = false;
                    continue;
                }
                Err(_) => return Err(Broken::Session),
            },
        }
        match tcp.try_write_vectored(left) {
            Ok(count) => {
                moved.add_from_mesh(count);
                IoSlice::advance_slices(&mut left, count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Broken::Socket(error)),
        }
    }
    Ok(())
}

impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(_) => Self::Stopped,
            WriteError::ConnectionLost(_)
            | WriteError::ClosedStream
            | WriteError::ZeroRttRejected => Self::Session,
        }
    }
}

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(_) => Self::Reset,
            ReadError::ConnectionLost(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Session,
        }
    }
}
