//! The socket of a QUIC endpoint, with faults on what it receives.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::queue::{FaultStats, Lines};
use super::table::FaultTable;
use super::timer::Timer;

/// Batches read from the inner socket before other tasks get a turn. A batch is up to 32 receives; this
/// many empty the largest kernel buffer in a few turns.
const BATCHES_MAX: usize = 16;

/// A UDP socket that treats what it receives by the rules of a [`FaultTable`]. Sending is untouched.
///
/// All that is readable is read and stamped at once, and queued until it is due; datagrams from a source
/// without a rule pass with no copy.
pub struct FaultSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    table: Arc<FaultTable>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lines: Lines,
    timer: Timer,
}

impl FaultSocket {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// If the system has no timer left.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(inner: Arc<dyn AsyncUdpSocket>, table: Arc<FaultTable>) -> io::Result<Arc<Self>> {
        let lines = Lines::new(table.seed(), table.snapshot());
        let state = Mutex::new(State { lines, timer: Timer::new()? });
        Ok(Arc::new(Self { inner, table, state }))
    }

    /// What became of the datagrams from sources that have a rule.
    pub fn stats(&self) -> FaultStats {
        self.lock().lines.stats()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only counters and queues: still of use after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for FaultSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        state.lines.handle_rules(self.table.snapshot());
        // Before reading, or a flood from a source without a rule would hold up what is due.
        let released = state.release(bufs, metas);
        if released > 0 {
            return Poll::Ready(Ok(released));
        }
        for _ in 0..BATCHES_MAX {
            let ready = match self.inner.poll_recv(cx, bufs, metas) {
                Poll::Ready(read) => match state.admit(read?, bufs, metas) {
                    0 => state.release(bufs, metas),
                    passed => passed,
                },
                Poll::Pending => match state.lines.poll_timeout() {
                    None => return Poll::Pending,
                    Some(at) => match state.timer.poll(cx, at)? {
                        Poll::Ready(()) => state.release(bufs, metas),
                        Poll::Pending => return Poll::Pending,
                    },
                },
            };
            if ready > 0 {
                return Poll::Ready(Ok(ready));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl State {
    /// Queues what the inner socket gave, except for sources without a line, whose buffers are moved to
    /// the front. Returns how many those are.
    fn admit(
        &mut self,
        count: usize,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let now = Instant::now();
        let mut passed = 0;
        for index in 0..count {
            let meta = metas[index];
            if self.lines.has_line(meta.addr) {
                self.lines.handle_received(&meta, &bufs[index][..meta.len], now);
            } else {
                bufs.swap(passed, index);
                metas.swap(passed, index);
                passed += 1;
            }
        }
        passed
    }

    /// Fills buffers with what is due, and returns how many.
    fn release(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        if self.lines.poll_timeout().is_none() {
            return 0;
        }
        let now = Instant::now();
        let mut filled = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some(run) = self.lines.poll_run(now, buf) else { break };
            *meta = run;
            filled += 1;
        }
        filled
    }
}

impl fmt::Debug for FaultSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FaultConfig, Rule, Rules};
    use super::*;
    use quinn::Runtime;
    use quinn::udp::BATCH_SIZE;
    use std::future::poll_fn;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    /// A plain sender and where it sends from.
    fn sender() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn receiver(rules: Rules) -> (Arc<FaultSocket>, Arc<FaultTable>, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let inner = quinn::TokioRuntime.wrap_udp_socket(socket).unwrap();
        let table = FaultTable::new(&FaultConfig { seed: 7, rules, ..FaultConfig::default() });
        (FaultSocket::new(inner, Arc::clone(&table)).unwrap(), table, address)
    }

    /// Receives until `count` datagrams are there, or for ever.
    async fn receive(socket: &FaultSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut buffers = vec![vec![0; 64 * 1_500]; BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut received = Vec::new();
        while received.len() < count {
            let mut slices: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            let filled = poll_fn(|cx| socket.poll_recv(cx, &mut slices, &mut metas)).await.unwrap();
            for (slice, meta) in slices.iter().zip(&metas).take(filled) {
                for datagram in slice[..meta.len].chunks(meta.stride) {
                    received.push((meta.addr, datagram.to_vec()));
                }
            }
        }
        received
    }

    fn numbers(count: u32) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|number| number.to_be_bytes().to_vec())
    }

    #[tokio::test]
    async fn datagrams_of_a_source_without_a_rule_pass() {
        let (socket, _, to) = receiver(Rules::new());
        let (from, from_address) = sender();

        for payload in numbers(20) {
            from.send_to(&payload, to).unwrap();
        }

        let expected: Vec<_> = numbers(20).map(|payload| (from_address, payload)).collect();
        assert_eq!(receive(&socket, 20).await, expected);
        assert_eq!(socket.stats(), FaultStats::default());
    }

    #[tokio::test]
    async fn delayed_datagrams_all_arrive_in_order_and_not_early() {
        let (from, from_address) = sender();
        let delay = Duration::from_millis(20);
        let rule = Rule { delay, jitter: Duration::from_millis(5), ..Rule::default() };
        let (socket, _, to) = receiver([(from_address, rule)].into());

        let start = Instant::now();
        for payload in numbers(100) {
            from.send_to(&payload, to).unwrap();
        }

        let expected: Vec<_> = numbers(100).map(|payload| (from_address, payload)).collect();
        assert_eq!(receive(&socket, 100).await, expected);
        assert!(start.elapsed() >= delay);
        assert_eq!(socket.stats().delivered, 100);
    }

    #[tokio::test]
    async fn a_cut_source_is_silent_and_others_are_not() {
        let (cut, cut_address) = sender();
        let (whole, whole_address) = sender();
        let (socket, table, to) = receiver(Rules::new());
        table.set(cut_address, Rule { cut: true, ..Rule::default() }).unwrap();

        for payload in numbers(10) {
            cut.send_to(&payload, to).unwrap();
        }
        whole.send_to(b"still here", to).unwrap();

        // Loopback keeps the order of these sends, so what was cut has been read by now.
        assert_eq!(receive(&socket, 1).await, [(whole_address, b"still here".to_vec())]);
        assert_eq!(socket.stats().cut, 10);

        table.restore(cut_address);
        cut.send_to(b"back", to).unwrap();
        assert_eq!(receive(&socket, 1).await, [(cut_address, b"back".to_vec())]);
    }

    #[tokio::test]
    async fn a_burst_sent_as_one_is_treated_datagram_by_datagram() {
        let (from, from_address) = sender();
        let from = quinn::TokioRuntime.wrap_udp_socket(from).unwrap();
        let rule = Rule { loss: 0.5, ..Rule::default() };
        let (socket, _, to) = receiver([(from_address, rule)].into());

        let segments = from.max_transmit_segments().min(10);
        let mut poller = Arc::clone(&from).create_io_poller();
        for first in 0..10 {
            let contents: Vec<u8> = (0..segments).flat_map(|_| [first; 100]).collect();
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: &contents,
                segment_size: Some(100),
                src_ip: None,
            };
            poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
            from.try_send(&transmit).unwrap();
        }
        let (last, last_address) = sender();
        last.send_to(b"end", to).unwrap();

        // Once it is there all others have been judged; those that are not lost may still come.
        let mut received = Vec::new();
        let is_last = |(from, _): &(SocketAddr, Vec<u8>)| *from == last_address;
        let judged = |stats: FaultStats| stats.delivered + stats.lost;
        while !received.iter().any(is_last) || judged(socket.stats()) < 10 * segments as u64 {
            received.append(&mut receive(&socket, 1).await);
        }

        let stats = socket.stats();
        assert!(stats.lost > 0 && stats.delivered > 0, "{stats:?}");
        assert_eq!(received.len() as u64, stats.delivered + 1);
        received.retain(|datagram| !is_last(datagram));
        assert!(received.iter().all(|(_, payload)| payload.len() == 100));
        assert!(received.is_sorted(), "the first byte counts the bursts");
    }

    #[tokio::test]
    async fn a_delayed_datagram_wakes_the_task_by_itself() {
        let (from, from_address) = sender();
        let rule = Rule { delay: Duration::from_millis(30), ..Rule::default() };
        let (socket, _, to) = receiver([(from_address, rule)].into());

        // Waiting before anything was sent, so that only the socket's own wakers can end it.
        let waiting = tokio::spawn(async move { receive(&socket, 2).await });
        tokio::task::yield_now().await;
        from.send_to(b"one", to).unwrap();
        from.send_to(b"two", to).unwrap();

        let received = waiting.await.unwrap();
        assert_eq!(received[1], (from_address, b"two".to_vec()));
    }
}
