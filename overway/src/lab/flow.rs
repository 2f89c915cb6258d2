//! Measuring flows: datagrams sent into forwards at a steady pace, and a sink that notes when each comes out.
//!
//! ```text
//! sender thread --UDP--> forward of the entry relay ==mesh==> service of the exit relay --UDP--> sink thread
//! ```
//!
//! Both threads are in this process and share its clock, so that a datagram's age is its path's delay.
//! They do nothing else: the sender sleeps until the next datagram is due, the sink blocks in a read.
//! When the sender itself was late by more than [`STALL`], the moment is noted as a stall of the
//! measuring process; figures name such stalls, and do not subtract them.
//!
//! | thread | ends when |
//! | --- | --- |
//! | sink | its [`Sink`] is dropped |
//! | sender | its [`Flows`] are dropped |

mod felt;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use felt::{Arrival, Felt, felt, percentile};

/// Lateness of the sender that is noted: a tenth of what the promise allows would hide in it.
pub const STALL: Duration = Duration::from_millis(5);
/// Interval of 50 datagrams a second, a voice codec's.
pub const SPACING: Duration = Duration::from_millis(20);
/// Bytes of a voice frame with its headers.
pub const FRAME_BYTES: usize = 160;

/// What a measuring datagram starts with.
const MAGIC: [u8; 4] = *b"OVWL";
/// Magic, flow u32, sequence u64, sent u64 in nanoseconds; big-endian. Zeros follow.
const HEADER_BYTES: usize = 24;
/// Above it stands a sink's number in its flows' numbers.
const NUMBER_SHIFT: u32 = 24;
/// Arrivals kept of each flow, the oldest go: an hour and a half at 50 a second, 24 MB.
const ARRIVALS_MAX: usize = 1 << 18;
/// Sequences that are remembered to tell duplicates: 80 seconds at 50 a second. A power of two.
const SEEN: usize = 1 << 12;
/// Stalls kept, the oldest go.
const STALLS_MAX: usize = 4_096;
/// How often threads look whether they are to end.
const END_CHECK: Duration = Duration::from_millis(100);
/// Kernel buffer asked for at the sink: bursts of a loaded flow while the thread is not running.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Receives the datagrams of all flows of a lab, or of one tenant's.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    base: Instant,
    next_flow: AtomicU32,
    shared: Arc<SinkShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct SinkShared {
    records: Mutex<BTreeMap<u32, Record>>,
    /// Datagrams of other sinks' flows.
    foreign: AtomicU64,
    ending: AtomicBool,
}

#[derive(Debug)]
struct Record {
    arrivals: VecDeque<Arrival>,
    /// By sequence modulo [`SEEN`]: the sequence plus one.
    seen: Vec<u64>,
    duplicates: u64,
}

/// What a flow sends, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// The relay whose forward it uses.
    pub entry: usize,
    /// The relay whose service is behind it.
    pub exit: usize,
    /// The forward.
    pub forward: SocketAddr,
    /// Time between two datagrams.
    pub spacing: Duration,
    /// Bytes of each, at least 24.
    pub bytes: usize,
}

/// Flows that are being sent.
#[derive(Debug)]
pub struct Flows {
    sink: Arc<Sink>,
    specs: Vec<FlowSpec>,
    first_flow: u32,
    shared: Arc<SenderShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct SenderShared {
    stalls: Mutex<VecDeque<(u64, Duration)>>,
    ending: AtomicBool,
}

impl Sink {
    /// Binds a loopback port and starts the thread.
    ///
    /// # Errors
    /// There is no port or no thread to be had.
    pub fn start() -> io::Result<Arc<Self>> {
        Self::start_numbered(0)
    }

    /// The same with a number, which no other sink of the lab has: its flows are told from theirs.
    ///
    /// # Errors
    /// There is no port or no thread to be had.
    pub fn start_numbered(number: u8) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        // A smaller buffer than asked for shows as loss of loaded flows only.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
        socket.set_read_timeout(Some(END_CHECK))?;
        let (address, base) = (socket.local_addr()?, Instant::now());
        let shared = Arc::new(SinkShared::default());
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("lab-sink".into())
            .spawn(move || inner.receive(&socket, number, base))?;
        let next_flow = AtomicU32::new((u32::from(number) << NUMBER_SHIFT) + 1);
        Ok(Arc::new(Self { address, base, next_flow, shared, thread: Some(thread) }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams that came here and were of flows to other sinks.
    pub fn foreign(&self) -> u64 {
        self.shared.foreign.load(Ordering::Relaxed)
    }

    /// The clock of all arrivals: nanoseconds since the sink was started.
    pub fn now(&self) -> u64 {
        nanos_since(self.base)
    }
}

impl SinkShared {
    fn receive(&self, socket: &UdpSocket, number: u8, base: Instant) {
        let mut buffer = [0; 2_048];
        while !self.ending.load(Ordering::Relaxed) {
            // Time-outs look at the flag; other errors belong to datagrams that others sent.
            let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
            let received = nanos_since(base);
            let Some((flow, sequence, sent)) = decode(&buffer[..length]) else { continue };
            if flow >> NUMBER_SHIFT != u32::from(number) {
                self.foreign.fetch_add(1, Ordering::Relaxed);
            } else if let Some(record) = self.lock().get_mut(&flow) {
                record.add(sequence, sent, received);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn new() -> Self {
        Self { arrivals: VecDeque::new(), seen: vec![0; SEEN], duplicates: 0 }
    }

    fn add(&mut self, sequence: u64, sent: u64, received: u64) {
        let slot = &mut self.seen[usize::try_from(sequence).unwrap_or(0) & (SEEN - 1)];
        let duplicate = *slot == sequence + 1;
        *slot = (*slot).max(sequence + 1);
        self.duplicates += u64::from(duplicate);
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(Arrival { sequence, sent, received, duplicate });
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked; that was printed.
            let _ = thread.join();
        }
    }
}

impl FlowSpec {
    /// A flow of 50 frames a second.
    pub fn voice(entry: usize, exit: usize, forward: SocketAddr) -> Self {
        Self { entry, exit, forward, spacing: SPACING, bytes: FRAME_BYTES }
    }
}

impl Flows {
    /// Starts sending, each flow from a socket of its own, evenly apart in time.
    ///
    /// # Errors
    /// There are no sockets or no thread to be had.
    pub fn start(sink: &Arc<Sink>, specs: Vec<FlowSpec>) -> io::Result<Self> {
        let count = u32::try_from(specs.len()).map_err(io::Error::other)?;
        let first_flow = sink.next_flow.fetch_add(count, Ordering::Relaxed);
        let mut senders = Vec::with_capacity(specs.len());
        let now = Instant::now() + END_CHECK;
        for (at, spec) in (0..count).zip(&specs) {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(spec.forward)?;
            let due = now + spec.spacing * at / count;
            let flow = first_flow + at;
            let frame = vec![0; spec.bytes.max(HEADER_BYTES)];
            senders.push(Sender { socket, flow, spacing: spec.spacing, due, sequence: 0, frame });
            sink.shared.lock().insert(flow, Record::new());
        }
        let shared = Arc::new(SenderShared::default());
        let (inner, base) = (Arc::clone(&shared), sink.base);
        let thread = std::thread::Builder::new()
            .name("lab-sender".into())
            .spawn(move || inner.send_all(senders, base))?;
        Ok(Self { sink: Arc::clone(sink), specs, first_flow, shared, thread: Some(thread) })
    }

    /// What is sent, flow by flow.
    pub fn specs(&self) -> &[FlowSpec] {
        &self.specs
    }

    /// What arrived of a flow between two moments of the sink's clock, in order of arrival, and the last
    /// before.
    pub fn arrivals(&self, flow: usize, from: u64, to: u64) -> Vec<Arrival> {
        let records = self.sink.shared.lock();
        let Some(record) = records.get(&self.id(flow)) else { return Vec::new() };
        let start = record.arrivals.partition_point(|arrival| arrival.received < from);
        let end = record.arrivals.partition_point(|arrival| arrival.received < to);
        record.arrivals.range(start.saturating_sub(1)..end.max(start)).copied().collect()
    }

    /// Datagrams of a flow that came more than once, since its start.
    pub fn duplicates(&self, flow: usize) -> u64 {
        self.sink.shared.lock().get(&self.id(flow)).map_or(0, |record| record.duplicates)
    }

    /// The sender's worst lateness between two moments, zero if it was never later than [`STALL`].
    pub fn own_stall(&self, from: u64, to: u64) -> Duration {
        let stalls = self.shared.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let within = stalls.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|&(_, late)| late).max().unwrap_or_default()
    }

    /// The sink's clock.
    pub fn now(&self) -> u64 {
        self.sink.now()
    }

    fn id(&self, flow: usize) -> u32 {
        self.first_flow.saturating_add(u32::try_from(flow).unwrap_or(u32::MAX))
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked; that was printed.
            let _ = thread.join();
        }
        let mut records = self.sink.shared.lock();
        for flow in 0..self.specs.len() {
            records.remove(&self.id(flow));
        }
    }
}

/// One flow's sending end.
struct Sender {
    socket: UdpSocket,
    flow: u32,
    spacing: Duration,
    due: Instant,
    sequence: u64,
    frame: Vec<u8>,
}

impl SenderShared {
    fn send_all(&self, mut senders: Vec<Sender>, base: Instant) {
        while !self.ending.load(Ordering::Relaxed) {
            let Some(next) = senders.iter_mut().min_by_key(|sender| sender.due) else { return };
            let wait = next.due.saturating_duration_since(Instant::now());
            if wait > END_CHECK {
                std::thread::sleep(END_CHECK);
                continue;
            }
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
            let late = next.due.elapsed();
            if late > STALL {
                self.note(nanos_since(base), late);
            }
            next.send(base);
        }
    }

    fn note(&self, at: u64, late: Duration) {
        let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        if stalls.len() == STALLS_MAX {
            stalls.pop_front();
        }
        stalls.push_back((at, late));
    }
}

impl Sender {
    fn send(&mut self, base: Instant) {
        encode(&mut self.frame, self.flow, self.sequence, nanos_since(base));
        // The forward is not there while its relay restarts; the datagram counts as lost.
        let _ = self.socket.send(&self.frame);
        self.sequence += 1;
        // After a long stop of this process, flows go on from now rather than catch up in a burst.
        let next = self.due + self.spacing;
        let now = Instant::now();
        self.due = if now.saturating_duration_since(next) > 10 * self.spacing { now } else { next };
    }
}

fn encode(frame: &mut [u8], flow: u32, sequence: u64, sent: u64) {
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&flow.to_be_bytes());
    frame[8..16].copy_from_slice(&sequence.to_be_bytes());
    frame[16..24].copy_from_slice(&sent.to_be_bytes());
}

fn decode(frame: &[u8]) -> Option<(u32, u64, u64)> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let (flow, rest) = rest.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (sent, _) = rest.split_first_chunk()?;
    let sequence = u64::from_be_bytes(*sequence);
    (*magic == MAGIC && sequence < u64::MAX)
        .then(|| (u32::from_be_bytes(*flow), sequence, u64::from_be_bytes(*sent)))
}

fn nanos_since(base: Instant) -> u64 {
    u64::try_from(base.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_says_what_it_was_given() {
        let mut frame = [0; FRAME_BYTES];
        encode(&mut frame, 7, 8, 9);

        assert_eq!(decode(&frame), Some((7, 8, 9)));
        assert_eq!(decode(&frame[..20]), None);
        assert_eq!(decode(&[0; FRAME_BYTES]), None);
    }

    #[test]
    fn a_sequence_that_comes_again_is_a_duplicate() {
        let mut record = Record::new();
        for sequence in [0, 1, 3, 2, 3, 4] {
            record.add(sequence, 0, 0);
        }

        let duplicates: Vec<bool> = record.arrivals.iter().map(|a| a.duplicate).collect();
        assert_eq!(duplicates, [false, false, false, false, true, false]);
        assert_eq!(record.duplicates, 1);
    }

    #[test]
    fn a_sink_counts_what_is_of_another_sinks_flow() {
        let [own, other] = [1, 2].map(|number| Sink::start_numbered(number).unwrap());
        let spacing = Duration::from_millis(1);
        let spec = FlowSpec { spacing, ..FlowSpec::voice(0, 1, own.address()) };
        let own_flows = Flows::start(&own, vec![spec]).unwrap();
        assert_eq!(own.foreign(), 0);
        let _astray = Flows::start(&other, vec![spec]).unwrap();

        while own.foreign() < 3 || own_flows.arrivals(0, 0, u64::MAX).len() < 3 {
            std::thread::yield_now();
        }

        assert_eq!((own_flows.duplicates(0), other.foreign()), (0, 0));
    }

    #[test]
    fn flows_reach_the_sink_in_order() {
        let sink = Sink::start().unwrap();
        let spacing = Duration::from_millis(1);
        let spec = FlowSpec { spacing, ..FlowSpec::voice(0, 1, sink.address()) };
        let flows = Flows::start(&sink, vec![spec, spec]).unwrap();
        let all = |flow| flows.arrivals(flow, 0, u64::MAX);
        while (0..2).any(|flow| all(flow).len() < 20) {
            std::thread::yield_now();
        }

        for flow in 0..2 {
            let sequences: Vec<u64> = all(flow).iter().map(|a| a.sequence).take(20).collect();
            assert_eq!(sequences, (0..20).collect::<Vec<u64>>());
            assert_eq!(flows.duplicates(flow), 0);
        }
    }
}
