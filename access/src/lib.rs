//! Attachments over TLS on TCP, for where UDP is blocked: what QUIC would carry as datagrams and a control stream, as
//! frames of one stream of bytes ([`overway_wire::access::stream`]). Both ends have the same connection.
//!
//! ```text
//!   send --> Queue (by class, 32 KiB) --writer--+   one frame at a time
//!                                               +-- TLS == TCP ==
//!   control stream (8 KiB) ---------------------+
//!   receive <-- 128 datagrams <-------reader----+
//! ```
//!
//! TCP hands nothing on behind a byte that is missing, so little is given to it at a time: what the system has not sent
//! yet is bounded by 16 KiB (`TCP_NOTSENT_LOWAT`), and realtime frames that waited longer than they are worth are dropped, not sent. An end that does
//! not read has the other's frames wait, where the other's policy decides.
//!
//! Tasks: two for each connection, which end with it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use overway_wire::RelayId;
use overway_wire::access::stream::{CONTROL_BYTES_MAX, HEAD_BYTES, StreamFrame};
use overway_wire::access::{CloseCode, EXPORTER_BYTES, EXPORTER_LABEL};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ConnectionCommon, ServerConfig};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::{CancellationToken, DropGuard};

mod queue;

use queue::Queue;

/// A silent connection is gone by then, as over QUIC: three heartbeats of an idle attachment, and some time.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// How long the other is given to take the last words.
const CLOSE_MAX: Duration = Duration::from_millis(300);
/// Datagrams that have come and that nobody has looked at; then nothing more is read.
const RECEIVED_MAX: usize = 128;
/// Bytes of the control stream that wait, either way.
const CONTROL_WAITING_BYTES: usize = 2 * CONTROL_BYTES_MAX;
/// Bytes that the system may hold unsent: they wait in no order of classes.
const UNSENT_BYTES: u32 = 16 << 10;

/// Either end of the control stream.
pub type Control = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

/// A connection between an edge and its access relay. Clones are the same; with the last one it is closed without a word.
#[derive(Clone)]
pub struct StreamConnection {
    shared: Arc<Shared>,
    /// Ends the tasks, which have the rest.
    _closes: Arc<DropGuard>,
}

struct Shared {
    remote: SocketAddr,
    relay: RelayId,
    exporter: [u8; EXPORTER_BYTES],
    queue: Queue,
    received: Mutex<mpsc::Receiver<Bytes>>,
    control: Mutex<Option<Control>>,
    /// What the other is told when this end closes.
    code: OnceLock<CloseCode>,
    why: OnceLock<String>,
    /// What the other end said when it closed.
    said: OnceLock<u32>,
    /// It is closed, by either.
    closed: CancellationToken,
    /// Nothing more is written.
    finished: CancellationToken,
}

impl StreamConnection {
    /// Dials a relay, of which `relay_of` says which one it is by its certificates. The configuration's ALPN is
    /// [`ALPN_ACCESS_TCP`](overway_wire::access::stream::ALPN_ACCESS_TCP).
    ///
    /// # Errors
    /// No connection, or the other end is not what the configuration and `relay_of` take.
    pub async fn dial(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        remote: SocketAddr,
        relay_of: impl FnOnce(&[CertificateDer<'static>]) -> io::Result<RelayId>,
    ) -> io::Result<Self> {
        let tcp = TcpStream::connect(remote).await?;
        tune(&tcp);
        let tls = TlsConnector::from(config).connect(name, tcp).await?;
        let (_, state) = tls.get_ref();
        let relay = relay_of(state.peer_certificates().unwrap_or_default())?;
        let exporter = exporter(state, relay)?;
        Ok(Self::start(tls, remote, relay, exporter))
    }

    /// Takes an edge's connection to this relay as far as TLS goes.
    ///
    /// # Errors
    /// The edge speaks something else, or went away.
    pub async fn accept(
        config: Arc<ServerConfig>,
        tcp: TcpStream,
        remote: SocketAddr,
        relay: RelayId,
    ) -> io::Result<Self> {
        tune(&tcp);
        let tls = TlsAcceptor::from(config).accept(tcp).await?;
        let exporter = exporter(tls.get_ref().1, relay)?;
        Ok(Self::start(tls, remote, relay, exporter))
    }

    fn start(
        tls: impl AsyncRead + AsyncWrite + Send + 'static,
        remote: SocketAddr,
        relay: RelayId,
        exporter: [u8; EXPORTER_BYTES],
    ) -> Self {
        let (near, far) = tokio::io::duplex(CONTROL_WAITING_BYTES);
        let (deliver, received) = mpsc::channel(RECEIVED_MAX);
        let shared = Arc::new(Shared {
            remote,
            relay,
            exporter,
            queue: Queue::default(),
            received: Mutex::new(received),
            control: Mutex::new(Some(tokio::io::split(near))),
            code: OnceLock::new(),
            why: OnceLock::new(),
            said: OnceLock::new(),
            closed: CancellationToken::new(),
            finished: CancellationToken::new(),
        });
        let (tls_read, tls_write) = tokio::io::split(tls);
        let (control_read, control_write) = tokio::io::split(far);
        tokio::spawn(Arc::clone(&shared).read(tls_read, control_write, deliver));
        tokio::spawn(Arc::clone(&shared).write(tls_write, control_read));
        let closes = Arc::new(shared.closed.clone().drop_guard());
        Self { shared, _closes: closes }
    }

    /// Where the other end is.
    pub fn remote(&self) -> SocketAddr {
        self.shared.remote
    }

    /// The relay whose connection it is.
    pub fn relay(&self) -> RelayId {
        self.shared.relay
    }

    /// What both ends of this connection alone can compute; see [`EXPORTER_LABEL`].
    pub fn exporter(&self) -> [u8; EXPORTER_BYTES] {
        self.shared.exporter
    }

    /// The control stream, the first time.
    pub fn control(&self) -> Option<Control> {
        self.shared.control.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Bytes of datagrams that may be handed over now.
    pub fn room(&self) -> usize {
        self.shared.queue.room()
    }

    /// Sends a datagram; where there is no room for it, the oldest of the lowest class is dropped.
    pub fn send(&self, datagram: Bytes) {
        self.shared.queue.put(datagram, Instant::now());
    }

    /// Sends a datagram when there is room. Cancelled, it is not sent.
    pub async fn send_when_free(&self, datagram: Bytes) {
        self.shared.queue.has_room(datagram.len()).await;
        self.send(datagram);
    }

    /// The next datagram; `None` once the connection is closed. Safe to cancel.
    pub async fn receive(&self) -> Option<Bytes> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// A datagram that has arrived already.
    pub fn receive_now(&self) -> Option<Bytes> {
        match self.poll_receive(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(datagram) => datagram,
            Poll::Pending => None,
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx)
    }

    /// Realtime frames that were dropped because they waited longer than they are worth.
    pub fn late(&self) -> u64 {
        self.shared.queue.late()
    }

    /// Closes once all that waits has been written, and has the other told why; returns at once. Nothing more is taken to be
    /// sent. Whoever does not read keeps it open, until [`Self::close`].
    pub fn end(&self, code: CloseCode) {
        self.shared.code.get_or_init(|| code);
        self.shared.queue.end();
    }

    /// Closes, throws away what waits, and has the other told why; returns at once.
    pub fn close(&self, code: CloseCode) {
        self.shared.code.get_or_init(|| code);
        self.shared.over("closed here".to_owned());
    }

    /// Waits until the connection is closed, by either end.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Waits until nothing more is written: after [`Self::close`], a moment.
    pub async fn finished(&self) {
        self.shared.finished.cancelled().await;
    }

    /// Whether the other end closed it, for that reason.
    pub fn is_closed_by_other(&self, code: CloseCode) -> bool {
        self.shared.said.get() == Some(&(code as u32))
    }

    /// Why the connection is closed, for people; empty while it is not.
    pub fn closed_because(&self) -> String {
        self.shared.why.get().cloned().unwrap_or_default()
    }
}

impl fmt::Debug for StreamConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamConnection")
            .field("remote", &self.shared.remote)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The first reason counts.
    fn over(&self, why: String) {
        self.why.get_or_init(|| why);
        self.queue.close();
        self.closed.cancel();
    }

    async fn read(
        self: Arc<Self>,
        tls: impl AsyncRead + Unpin,
        control: impl AsyncWrite + Unpin,
        deliver: mpsc::Sender<Bytes>,
    ) {
        let reading = self.read_all(tls, control, deliver);
        if let Some(why) = self.closed.run_until_cancelled(reading).await {
            tracing::debug!(remote = %self.remote, why, "an access connection over TCP ends");
            self.over(why);
        }
    }

    /// Reads until there is a reason to end; returns it.
    async fn read_all(
        &self,
        mut tls: impl AsyncRead + Unpin,
        mut control: impl AsyncWrite + Unpin,
        deliver: mpsc::Sender<Bytes>,
    ) -> String {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + CONTROL_BYTES_MAX);
        loop {
            let frame = match StreamFrame::take(&mut bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    // Room for the longest frame, so that what is kept stays bounded.
                    bytes.reserve(HEAD_BYTES + CONTROL_BYTES_MAX);
                    match timeout(IDLE_MAX, tls.read_buf(&mut bytes)).await {
                        Ok(Ok(0)) => return "the other end closed the connection".to_owned(),
                        Ok(Ok(_)) => continue,
                        Ok(Err(error)) => return error.to_string(),
                        Err(_elapsed) => return format!("silent for {IDLE_MAX:?}"),
                    }
                }
                Err(error) => {
                    self.code.get_or_init(|| CloseCode::Malformed);
                    return error.to_string();
                }
            };
            match frame {
                StreamFrame::Control(bytes) => {
                    // Fails when nobody reads the control stream any more, who will close.
                    let _ = control.write_all(&bytes).await;
                }
                StreamFrame::Datagram(datagram) => {
                    // Never fails: the other end of the channel lives as long as this task.
                    let _ = deliver.send(datagram).await;
                }
                StreamFrame::Close(code) => {
                    self.said.get_or_init(|| code);
                    return format!("closed by the other end (code {code})");
                }
            }
        }
    }

    async fn write(
        self: Arc<Self>,
        mut tls: impl AsyncWrite + Unpin,
        mut control: impl AsyncRead + Unpin,
    ) {
        let writing = self.write_all(&mut tls, &mut control);
        if let Some(Err(error)) = self.closed.run_until_cancelled(writing).await {
            self.over(error.to_string());
        }
        if let Some(&code) = self.code.get() {
            let _ = timeout(CLOSE_MAX, last_words(&mut tls, &mut control, code)).await;
        }
        self.over("closed here".to_owned());
        self.finished.cancel();
    }

    /// Writes until that fails, or nothing more is to be written. Each frame has left for the system before the next is
    /// taken: TLS would take in more than the queue holds, in the order in which it came.
    async fn write_all(
        &self,
        tls: &mut (impl AsyncWrite + Unpin),
        control: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<()> {
        let mut said = [0; CONTROL_BYTES_MAX];
        let mut is_open = true;
        loop {
            let frame = tokio::select! {
                biased;
                read = control.read(&mut said), if is_open => match read {
                    Ok(length @ 1..) => {
                        StreamFrame::Control(Bytes::copy_from_slice(&said[..length]))
                    }
                    // This end says no more; datagrams still go.
                    Ok(_) | Err(_) => {
                        is_open = false;
                        continue;
                    }
                },
                datagram = self.queue.next() => match datagram {
                    Some(datagram) => StreamFrame::Datagram(datagram),
                    None => return Ok(()),
                },
            };
            write_frame(tls, &frame).await?;
            tls.flush().await?;
        }
    }
}

async fn write_frame(tls: &mut (impl AsyncWrite + Unpin), frame: &StreamFrame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.put(&mut bytes);
    tls.write_all(&bytes).await
}

/// What is left of the control stream, and why this end closes.
async fn last_words(
    tls: &mut (impl AsyncWrite + Unpin),
    control: &mut (impl AsyncRead + Unpin),
    code: CloseCode,
) -> io::Result<()> {
    let mut said = [0; CONTROL_BYTES_MAX];
    // What was said already is there at once.
    while let Ok(Ok(length @ 1..)) = timeout(Duration::ZERO, control.read(&mut said)).await {
        let said = Bytes::copy_from_slice(&said[..length]);
        write_frame(tls, &StreamFrame::Control(said)).await?;
    }
    write_frame(tls, &StreamFrame::Close(code as u32)).await?;
    tls.shutdown().await
}

/// The exporter's output, if both ends have agreed to speak of access.
fn exporter<Data>(
    state: &ConnectionCommon<Data>,
    relay: RelayId,
) -> io::Result<[u8; EXPORTER_BYTES]> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if state.alpn_protocol().is_none() {
        return Err(invalid("the other end does not speak of access".to_owned()));
    }
    let context = relay.0.to_be_bytes();
    let output = [0; EXPORTER_BYTES];
    let output = state.export_keying_material(output, EXPORTER_LABEL, Some(&context));
    output.map_err(|error| invalid(error.to_string()))
}

/// Frames go at once, and little waits in the system.
fn tune(tcp: &TcpStream) {
    // Without them it is slower, and works.
    let _ = tcp.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_BYTES);
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::io::ReadBuf;

    use super::*;

    const REMOTE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn end(stream: DuplexStream) -> StreamConnection {
        StreamConnection::start(stream, REMOTE, RelayId(1), [0; EXPORTER_BYTES])
    }

    #[tokio::test]
    async fn datagrams_and_words_cross_and_the_last_words_too() {
        let (near, far) = tokio::io::duplex(1_000);
        let (near, far) = (end(near), end(far));
        let (mut near_read, mut near_write) = near.control().unwrap();
        let (mut far_read, mut far_write) = far.control().unwrap();
        assert!(near.control().is_none());
        let datagrams: Vec<Bytes> = (100..120_u8).map(|at| Bytes::from(vec![at; 1_000])).collect();

        let sending = async {
            for datagram in &datagrams {
                near.send_when_free(datagram.clone()).await;
            }
            near_write.write_all(&[9; 20_000]).await.unwrap();
        };
        let receiving = async {
            for datagram in &datagrams {
                assert_eq!(far.receive().await.as_ref(), Some(datagram));
            }
            let mut said = vec![0; 20_000];
            far_read.read_exact(&mut said).await.unwrap();
            assert!(said.iter().all(|&byte| byte == 9));
        };
        tokio::join!(sending, receiving);

        far_write.write_all(b"no").await.unwrap();
        far.close(CloseCode::Refused);
        let mut last = Vec::new();
        near_read.read_to_end(&mut last).await.unwrap();
        assert_eq!(last, b"no");
        assert_eq!(near.receive().await, None);
        near.closed().await;
        assert_eq!(near.closed_because(), "closed by the other end (code 2)");
        far.finished().await;
        near.finished().await;
    }

    #[tokio::test]
    async fn bytes_that_are_no_frames_end_the_connection_at_once() {
        for bytes in [&[0xff, 0xff, 1][..], &[0, 0], &[0, 2, 7], &[0, 5, 1]] {
            let (near, mut far) = tokio::io::duplex(1_000);
            let near = end(near);
            far.write_all(bytes).await.unwrap();
            if bytes.len() == 3 && bytes[1] == 5 {
                // The head of a frame that never comes whole: the end of the stream ends it.
                far.shutdown().await.unwrap();
            }
            assert_eq!(near.receive().await, None);
            near.closed().await;
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            let malformed = [0, 5, 2, 0, 0, 0, CloseCode::Malformed as u8];
            assert!(answer.is_empty() || answer == malformed, "{answer:?}");
        }
    }

    /// Takes in whatever is written, as TLS does, and is never done with it.
    struct Swallowing(Arc<Mutex<Vec<u8>>>);

    impl AsyncRead for Swallowing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Swallowing {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_leave_waits_in_the_order_of_classes_and_not_in_tls() {
        let swallowed = Arc::<Mutex<Vec<u8>>>::default();
        let tls = Swallowing(Arc::clone(&swallowed));
        let near = StreamConnection::start(tls, REMOTE, RelayId(1), [0; EXPORTER_BYTES]);
        for _ in 0..20 {
            near.send(Bytes::from(vec![1; 1_000]));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        assert_eq!(near.room(), queue::QUEUE_BYTES_MAX - 19_000);
        assert_eq!(swallowed.lock().unwrap().len(), HEAD_BYTES + 1_000);
    }

    #[tokio::test]
    async fn what_waits_is_written_before_a_connection_ends_and_none_of_it_when_it_is_closed() {
        for (is_gentle, expected) in [(true, 20), (false, 0)] {
            let (near, far) = tokio::io::duplex(1_000);
            let near = end(near);
            for _ in 0..20 {
                near.send(Bytes::from(vec![1; 1_000]));
            }
            match is_gentle {
                true => near.end(CloseCode::Replaced),
                false => near.close(CloseCode::Replaced),
            }
            near.send(Bytes::from_static(b"too late"));
            let far = end(far);

            let mut came = 0;
            while let Some(datagram) = far.receive().await {
                assert_eq!(datagram.len(), 1_000);
                came += 1;
            }
            assert_eq!(came, expected);
            assert_eq!(far.closed_because(), "closed by the other end (code 1)");
            assert!(far.is_closed_by_other(CloseCode::Replaced));
            assert!(!far.is_closed_by_other(CloseCode::Unused));
            near.finished().await;
            near.closed().await;
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_has_any_more_is_closed() {
        let (near, mut far) = tokio::io::duplex(1_000);
        drop(end(near));
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        assert!(said.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_does_not_read_holds_no_more_than_the_bounds() {
        let (near, _silent) = tokio::io::duplex(1_000);
        let near = end(near);
        while near.room() >= 1_000 {
            near.send(Bytes::from(vec![1; 1_000]));
        }
        // Nobody reads: there is never room again, and whoever waits for it is told when the connection ends.
        let start = tokio::time::Instant::now();
        near.send_when_free(Bytes::from(vec![1; queue::QUEUE_BYTES_MAX])).await;
        assert!(start.elapsed() >= IDLE_MAX);
        assert!(near.closed_because().contains("silent"), "{}", near.closed_because());
    }
}
