//! A worker's socket on a line: keeps what is the worker's, and gives the rest to those whose it is.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::ids::Ids;
use super::worker_of;

/// Runs of datagrams that wait for a worker at most; beyond it the newest is dropped, as by a kernel whose buffer is
/// full. Each is what one receive brought, a packet as a rule: 5 MB at most where all come this way.
const RUNS_MAX: usize = 4_096;
/// Batches read in a row of which nothing is this worker's, before other tasks get a turn.
const BATCHES_MAX: usize = 16;

/// What sockets found at the wrong worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SteerStats {
    /// Datagrams given to another worker.
    pub(crate) moved: u64,
    /// Datagrams dropped because that worker did not keep up.
    pub(crate) dropped: u64,
}

/// Datagrams of no known connection that are shown to all workers in a second at most: as many as neighbours of a large
/// mesh answer with resets. Others stay where the kernel put them.
const SHOWN_PER_SEC_MAX: u32 = 1_000;

/// A line's workers, as their sockets know each other.
#[derive(Debug)]
pub(crate) struct Line {
    ids: Ids,
    shown: Mutex<(Instant, u32)>,
    boxes: Vec<Mailbox>,
    moved: AtomicU64,
    dropped: AtomicU64,
}

/// What others received for one worker.
#[derive(Debug, Default)]
struct Mailbox {
    runs: Mutex<VecDeque<Run>>,
    /// How many these are, to be read without the lock.
    count: AtomicUsize,
    waker: AtomicWaker,
}

/// Datagrams that were received together, all of one length but the last.
#[derive(Clone, Debug)]
struct Run {
    meta: RecvMeta,
    bytes: Vec<u8>,
}

impl Line {
    /// A line that so many workers share, with the key of its connection ids.
    pub(crate) fn new(workers: usize, id_key: u64) -> Arc<Self> {
        let boxes = (0..workers).map(|_| Mailbox::default()).collect();
        let shown = Mutex::new((Instant::now(), 0));
        let (moved, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { ids: Ids::new(0, id_key), shown, boxes, moved, dropped })
    }

    /// The worker's socket, on top of the one that it has in the kernel.
    pub(crate) fn socket(
        self: &Arc<Self>,
        worker: usize,
        inner: Arc<dyn AsyncUdpSocket>,
    ) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(SteeredSocket { line: Arc::clone(self), worker, inner })
    }

    /// What was found at the wrong worker.
    pub(crate) fn stats(&self) -> SteerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SteerStats { moved: read(&self.moved), dropped: read(&self.dropped) }
    }

    /// Shows all other workers a datagram that may be a stateless reset of a connection of theirs: it bears no id of
    /// ours, and so comes to anyone.
    fn show(&self, from: usize, run: &Run) {
        {
            // Only numbers.
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.0.elapsed() >= Duration::from_secs(1) {
                *shown = (Instant::now(), 0);
            }
            if shown.1 >= SHOWN_PER_SEC_MAX {
                return;
            }
            shown.1 += 1;
        }
        for worker in (0..self.boxes.len()).filter(|&worker| worker != from) {
            self.give(worker, run.clone());
        }
    }

    fn give(&self, worker: usize, run: Run) {
        let datagrams = run.bytes.len().div_ceil(run.meta.stride.max(1)) as u64;
        let given = self.boxes[worker].put(run);
        let counter = if given { &self.moved } else { &self.dropped };
        counter.fetch_add(datagrams, Ordering::Relaxed);
    }
}

impl Mailbox {
    fn put(&self, run: Run) -> bool {
        let mut runs = self.lock();
        if runs.len() >= RUNS_MAX {
            return false;
        }
        runs.push_back(run);
        self.count.store(runs.len(), Ordering::Release);
        drop(runs);
        self.waker.wake();
        true
    }

    /// Fills buffers, and returns how many.
    fn take(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        if self.count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let mut runs = self.lock();
        let mut filled = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some(run) = runs.pop_front() else { break };
            // All workers' buffers are of one size, so that this never cuts.
            let len = run.bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&run.bytes[..len]);
            *meta = RecvMeta { len, ..run.meta };
            filled += 1;
        }
        self.count.store(runs.len(), Ordering::Release);
        filled
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Run>> {
        // A queue is whole after a panic elsewhere.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
struct SteeredSocket {
    line: Arc<Line>,
    worker: usize,
    inner: Arc<dyn AsyncUdpSocket>,
}

impl SteeredSocket {
    /// Gives away what is not this worker's, and moves what is to the front. Returns how many buffers those are.
    fn sort(&self, count: usize, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut kept = 0;
        for at in 0..count {
            let len = self.sift(&mut bufs[at], metas[at]);
            if len > 0 {
                metas[at].len = len;
                bufs.swap(kept, at);
                metas.swap(kept, at);
                kept += 1;
            }
        }
        kept
    }

    /// The same with the datagrams of one buffer; returns the bytes that are left.
    fn sift(&self, buf: &mut [u8], meta: RecvMeta) -> usize {
        let workers = self.line.boxes.len();
        let stride = meta.stride.max(1);
        let ours = |datagram: &[u8]| {
            worker_of(datagram, workers) == self.worker && self.line.ids.knows(datagram)
        };
        if buf[..meta.len].chunks(stride).all(ours) {
            return meta.len;
        }
        let mut kept = 0;
        for start in (0..meta.len).step_by(stride) {
            let end = (start + stride).min(meta.len);
            let (worker, known) =
                (worker_of(&buf[start..end], workers), self.line.ids.knows(&buf[start..end]));
            if worker != self.worker || !known {
                let bytes = buf[start..end].to_vec();
                let meta = RecvMeta { len: bytes.len(), stride: bytes.len(), ..meta };
                let run = Run { meta, bytes };
                if known {
                    self.line.give(worker, run);
                    continue;
                }
                self.line.show(self.worker, &run);
            }
            buf.copy_within(start..end, kept);
            kept += end - start;
        }
        kept
    }
}

impl AsyncUdpSocket for SteeredSocket {
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
        let mailbox = &self.line.boxes[self.worker];
        let taken = mailbox.take(bufs, metas);
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        for _ in 0..BATCHES_MAX {
            let Poll::Ready(read) = self.inner.poll_recv(cx, bufs, metas) else {
                mailbox.waker.register(cx.waker());
                // What came between the look and the waker would wait for the next.
                return match mailbox.take(bufs, metas) {
                    0 => Poll::Pending,
                    taken => Poll::Ready(Ok(taken)),
                };
            };
            let kept = self.sort(read?, bufs, metas);
            if kept > 0 {
                return Poll::Ready(Ok(kept));
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

impl fmt::Debug for SteeredSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteeredSocket").field("worker", &self.worker).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::OnceLock;

    use quinn::udp::BATCH_SIZE;
    use quinn::{ConnectionId, ConnectionIdGenerator as _, Runtime as _};

    const WORKERS: usize = 3;

    const KEY: u64 = 7;

    /// A short header with an id that begins with this.
    fn packet(worker: u8, mark: u8) -> Vec<u8> {
        // The same each time, to be compared.
        static IDS: OnceLock<Vec<ConnectionId>> = OnceLock::new();
        let ids = IDS.get_or_init(|| (0..12).map(|id| Ids::new(id, KEY).generate_cid()).collect());
        [&[0x40], &ids[usize::from(worker)][..], &[mark; 30]].concat()
    }

    async fn receive(socket: &dyn AsyncUdpSocket) -> Vec<Vec<u8>> {
        let mut buffers = vec![vec![0; 64 * 1_500]; BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let filled = poll_fn(|cx| socket.poll_recv(cx, &mut slices, &mut metas)).await.unwrap();
        let filled = slices.iter().zip(&metas).take(filled);
        filled
            .flat_map(|(slice, meta)| slice[..meta.len].chunks(meta.stride))
            .map(<[u8]>::to_vec)
            .collect()
    }

    fn line(steered: bool) -> (Arc<Line>, Vec<Arc<dyn AsyncUdpSocket>>, SocketAddr) {
        let opened = crate::socket::open_shared((Ipv4Addr::LOCALHOST, 0).into(), WORKERS).unwrap();
        let address = opened[0].0.local_addr().unwrap();
        if steered {
            super::super::attach(&opened[0].0, WORKERS).unwrap();
        }
        let line = Line::new(WORKERS, KEY);
        let socket = |(worker, (udp, _))| {
            line.socket(worker, quinn::TokioRuntime.wrap_udp_socket(udp).unwrap())
        };
        let sockets = opened.into_iter().enumerate().map(socket).collect();
        (line, sockets, address)
    }

    #[tokio::test]
    async fn each_worker_gets_what_is_its_own() {
        for steered in [cfg!(target_os = "linux"), false] {
            let (line, sockets, address) = line(steered);
            let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            for id in 0..12 {
                sender.send_to(&packet(id, id), address).unwrap();
            }

            let mut received = vec![Vec::new(); WORKERS];
            while received.iter().map(Vec::len).sum::<usize>() < 12 {
                // A worker that has all of its own waits for ever, but passes on what is others'.
                let mut all = sockets
                    .iter()
                    .zip(&mut received)
                    .map(|(socket, received)| {
                        Box::pin(async move { received.extend(receive(&**socket).await) })
                    })
                    .collect::<Vec<_>>();
                poll_fn(|cx| {
                    let polled = all.iter_mut().map(|one| one.as_mut().poll(cx).is_ready());
                    if polled.filter(|&ready| ready).count() > 0 {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }

            for (worker, mut received) in received.into_iter().enumerate() {
                received.sort();
                let own = (0..12).filter(|id| usize::from(*id) % WORKERS == worker);
                assert_eq!(received, own.map(|id| packet(id, id)).collect::<Vec<_>>());
            }
            // Without the program all come to one socket, for they have one source.
            let moved = if steered { 0 } else { 8 };
            assert_eq!(line.stats(), SteerStats { moved, dropped: 0 });
        }
    }

    #[tokio::test]
    async fn datagrams_that_were_received_as_one_are_told_apart() {
        let (line, sockets, _) = line(false);
        let socket =
            SteeredSocket { line: Arc::clone(&line), worker: 1, inner: Arc::clone(&sockets[1]) };
        let mut joined =
            [packet(0, 1), packet(1, 2), packet(2, 3), packet(4, 4), packet(1, 5)].concat();
        joined.truncate(joined.len() - 5);
        let stride = packet(0, 0).len();
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let meta = RecvMeta { addr: from, len: joined.len(), stride, ..RecvMeta::default() };

        let left = socket.sift(&mut joined, meta);

        let short = &packet(1, 5)[..stride - 5];
        assert_eq!(joined[..left], [&packet(1, 2), &packet(4, 4), short].concat());
        assert_eq!(receive(&*sockets[0]).await, [packet(0, 1)]);
        assert_eq!(receive(&*sockets[2]).await, [packet(2, 3)]);
        assert_eq!(line.stats().moved, 2);
    }

    #[tokio::test]
    async fn a_reset_is_shown_to_every_worker_and_a_flood_of_such_is_not() {
        let (line, sockets, _) = line(false);
        let inner = Arc::clone(&sockets[1]);
        let socket = SteeredSocket { line: Arc::clone(&line), worker: 1, inner };
        let mut reset = vec![0x41; 60];
        let meta = RecvMeta { len: reset.len(), stride: reset.len(), ..RecvMeta::default() };

        assert_eq!(socket.sift(&mut reset, meta), 60);

        for worker in [0, 2] {
            assert_eq!(receive(&*sockets[worker]).await, [vec![0x41; 60]]);
        }
        for _ in 0..2 * SHOWN_PER_SEC_MAX {
            assert_eq!(socket.sift(&mut reset, meta), 60);
        }
        // A machine that takes seconds for that has begun another.
        assert!(line.stats().moved < 4 * u64::from(SHOWN_PER_SEC_MAX));
    }

    #[test]
    fn a_worker_that_does_not_keep_up_loses_the_newest() {
        let line = Line::new(2, KEY);
        for _ in 0..RUNS_MAX + 3 {
            let bytes = packet(1, 0);
            let meta = RecvMeta { len: bytes.len(), stride: bytes.len(), ..RecvMeta::default() };
            line.give(1, Run { meta, bytes });
        }
        assert_eq!(line.stats(), SteerStats { moved: RUNS_MAX as u64, dropped: 3 });
    }
}
