//! A line that several share: a rate, and one queue for everybody that drops its tail.
//!
//! A *crossing* joins two addresses over it by a pair of sockets: to the one end the first socket is the other end, and the other way
//! round. What the near end sends goes through the queue, what the far end sends goes out at once.
//!
//! Threads: one for each socket reads, one puts out what is due. All end with the line.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a reading thread looks whether the line is gone.
const END_CHECK: Duration = Duration::from_millis(100);
/// How often the queue is looked at: what is due by then goes out together. Far below what a queue is to be.
const TICK: Duration = Duration::from_micros(200);
/// Kernel buffers: bursts while a thread is not running.
const BUFFER_BYTES: usize = 4 << 20;
/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 2_048;
/// Waits kept; later ones are not.
const WAITS_MAX: usize = 4 << 20;

/// The line, until it is dropped.
#[derive(Debug)]
pub(crate) struct Bottleneck {
    shared: Arc<Shared>,
}

/// What waited since it was asked for last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Waits {
    /// How long each datagram waited, in milliseconds.
    pub(crate) ms: Vec<f64>,
    /// Datagrams that found the queue full.
    pub(crate) dropped: u64,
}

#[derive(Debug)]
struct Shared {
    bits_per_s: f64,
    queue_max: Duration,
    state: Mutex<State>,
    ending: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Waiting>,
    free: Option<Instant>,
    waits: Waits,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    bytes: Vec<u8>,
    out: Arc<UdpSocket>,
    to: SocketAddr,
}

impl Bottleneck {
    /// Starts a line of this rate; a datagram that would wait longer than `queue_max` is dropped.
    pub(crate) fn start(rate_mbps: f64, queue_max: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bits_per_s: rate_mbps * 1e6,
            queue_max,
            state: Mutex::default(),
            ending: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        spawn("bench-line", move || inner.put_out())?;
        Ok(Self { shared })
    }

    /// Joins two addresses. Returns what the near one is to take for the far one, and the far one for the near one.
    pub(crate) fn cross(&self, near: SocketAddr, far: SocketAddr) -> io::Result<[SocketAddr; 2]> {
        let [to_near, to_far] = [socket()?, socket()?];
        let addresses = [to_near.local_addr()?, to_far.local_addr()?];
        let (shared, input, out) =
            (Arc::clone(&self.shared), Arc::clone(&to_near), Arc::clone(&to_far));
        spawn("bench-line-in", move || {
            shared.read(&input, |bytes| shared.queue(bytes, &out, far));
        })?;
        let shared = Arc::clone(&self.shared);
        spawn("bench-line-back", move || {
            // A full kernel buffer at the other end: lost, as anywhere.
            shared.read(&to_far, |bytes| drop(to_near.send_to(bytes, near)));
        })?;
        Ok(addresses)
    }

    /// Takes what waited so far.
    pub(crate) fn take_waits(&self) -> Waits {
        std::mem::take(&mut self.shared.state().waits)
    }
}

impl Drop for Bottleneck {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn read(&self, input: &UdpSocket, mut take: impl FnMut(&[u8])) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while !self.ending.load(Ordering::Relaxed) {
            // Time-outs look at the flag; other errors are of datagrams that found nobody.
            if let Ok((length, _)) = input.recv_from(&mut buffer) {
                take(&buffer[..length]);
            }
        }
    }

    fn queue(&self, bytes: &[u8], out: &Arc<UdpSocket>, to: SocketAddr) {
        let now = Instant::now();
        let state = &mut *self.state();
        let start = state.free.map_or(now, |free| free.max(now));
        let wait = start - now;
        if wait > self.queue_max {
            state.waits.dropped += 1;
            return;
        }
        if state.waits.ms.len() < WAITS_MAX {
            state.waits.ms.push(wait.as_secs_f64() * 1e3);
        }
        let due = start + Duration::from_secs_f64(bytes.len() as f64 * 8.0 / self.bits_per_s);
        state.free = Some(due);
        state.queue.push_back(Waiting { due, bytes: bytes.to_vec(), out: Arc::clone(out), to });
    }

    fn put_out(&self) {
        while !self.ending.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            let now = Instant::now();
            let due: Vec<Waiting> = {
                let state = &mut *self.state();
                let count = state.queue.partition_point(|waiting| waiting.due <= now);
                state.queue.drain(..count).collect()
            };
            for waiting in due {
                // A full kernel buffer at the other end: lost, as anywhere.
                let _ = waiting.out.send_to(&waiting.bytes, waiting.to);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // Ends by the flag.
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn socket() -> io::Result<Arc<UdpSocket>> {
    use rustix::net::sockopt;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Beyond the system's limit only for the privileged; else up to it, or as it is.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES));
    socket.set_read_timeout(Some(END_CHECK))?;
    Ok(Arc::new(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_cross_both_ways_and_those_that_find_no_room_are_dropped() {
        let line = Bottleneck::start(1.0, Duration::from_millis(50)).unwrap();
        let ends = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [near, far] = [0, 1].map(|end| ends[end].local_addr().unwrap());
        let [to_far, to_near] = line.cross(near, far).unwrap();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];

        // 8 ms each at 1 Mbit/s: the eighth finds more than 50 ms of queue.
        for number in 0..20 {
            ends[0].send_to(&[number; 1_000], to_far).unwrap();
        }
        for number in 0..7 {
            let (length, from) = ends[1].recv_from(&mut buffer).unwrap();
            assert_eq!((length, buffer[0], from), (1_000, number, to_near));
        }
        ends[1].send_to(b"back", to_near).unwrap();
        let (length, from) = ends[0].recv_from(&mut buffer).unwrap();

        assert_eq!((&buffer[..length], from), (&b"back"[..], to_far));
        let waits = line.take_waits();
        assert_eq!(waits.ms.len() as u64 + waits.dropped, 20);
        assert!(waits.dropped > 0);
    }
}
