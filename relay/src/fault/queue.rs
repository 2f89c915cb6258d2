//! Which datagrams are lost, and when the others are due: no sockets, no timers, no clock of its own.
//!
//! Every source with a rule has a *line*: its generator, its loss state, the time at which its bottleneck
//! is free again, and a first-in first-out queue of datagrams with their release times, which never
//! decrease. The heads of the non-empty queues are ordered by release, so that the next timeout is
//! known at once. A line whose rule was taken away lives on until its queue is empty.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_wire::BitsPerSec;
use quinn::udp::{EcnCodepoint, RecvMeta};

use super::random::Random;
use super::table::{Rule, Rules};

/// The most bytes under way from one source, each datagram's bookkeeping included: 250 ms at 1 Gbit/s.
/// Above it the newest datagram is dropped.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;

/// What a queued datagram costs besides its payload, so that empty ones are bounded as well.
const PACKET_OVERHEAD_BYTES: usize = 96;

/// Counts of the datagrams from sources that have a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Handed on, sooner or later.
    pub delivered: u64,
    /// Dropped by a cut.
    pub cut: u64,
    /// Dropped because it was longer than the line's MTU.
    pub too_long: u64,
    /// Dropped by random loss.
    pub lost: u64,
    /// Dropped by the bottleneck's full queue.
    pub overflowed: u64,
    /// Dropped because more than [`QUEUE_BYTES_MAX`] were under way.
    pub crowded: u64,
    /// Dropped because the reader's buffer could not hold it.
    pub oversize: u64,
}

impl FaultStats {
    /// Adds what became of another socket's datagrams.
    pub fn add(&mut self, other: Self) {
        // Destructured, so that none is forgotten.
        let Self { delivered, cut, too_long, lost, overflowed, crowded, oversize } = other;
        self.delivered += delivered;
        self.cut += cut;
        self.too_long += too_long;
        self.lost += lost;
        self.overflowed += overflowed;
        self.crowded += crowded;
        self.oversize += oversize;
    }
}

/// The lines of one socket.
#[derive(Debug)]
pub(super) struct Lines {
    seed: u64,
    rules: Arc<Rules>,
    lines: BTreeMap<SocketAddr, Line>,
    /// The release time of the first datagram of each non-empty line.
    heads: BTreeSet<(Instant, SocketAddr)>,
    stats: FaultStats,
}

#[derive(Debug)]
struct Line {
    /// `None` if the rule was taken away and what is queued is to be delivered still.
    rule: Option<Rule>,
    random: Random,
    losing: bool,
    bottleneck_free: Option<Instant>,
    last_release: Option<Instant>,
    queue: VecDeque<(Instant, Packet)>,
    queued_bytes: usize,
}

#[derive(Debug)]
struct Packet {
    payload: Bytes,
    ecn: Option<EcnCodepoint>,
    local_ip: Option<IpAddr>,
}

/// What becomes of a datagram.
enum Verdict {
    Release(Instant),
    Cut,
    TooLong,
    Lost,
    Overflowed,
}

impl Lines {
    pub(super) fn new(seed: u64, rules: Arc<Rules>) -> Self {
        let mut lines = Self {
            seed,
            rules: Arc::default(),
            lines: BTreeMap::new(),
            heads: BTreeSet::new(),
            stats: FaultStats::default(),
        };
        lines.handle_rules(rules);
        lines
    }

    /// Follows the table; cheap if it did not change. A cut empties the queues of the lines it hits.
    pub(super) fn handle_rules(&mut self, rules: Arc<Rules>) {
        if Arc::ptr_eq(&self.rules, &rules) {
            return;
        }
        for (source, line) in &mut self.lines {
            line.rule = rules.get(source).copied();
            if line.rule.is_some_and(|rule| rule.cut)
                && let Some(&(release, _)) = line.queue.front()
            {
                self.heads.remove(&(release, *source));
                self.stats.cut += line.queue.len() as u64;
                line.queue.clear();
                line.queued_bytes = 0;
            }
        }
        self.lines.retain(|_, line| !line.is_over());
        for (&source, &rule) in rules.iter() {
            self.lines
                .entry(source)
                .or_insert_with(|| Line::new(rule, Random::new(self.seed, source)));
        }
        self.rules = rules;
    }

    /// Whether datagrams of `source` have to go through here.
    pub(super) fn has_line(&self, source: SocketAddr) -> bool {
        self.lines.contains_key(&source)
    }

    /// Takes what one receive gave: one datagram, or several of `meta.stride` bytes that the kernel
    /// joined. Does nothing for a source without a line.
    pub(super) fn handle_received(&mut self, meta: &RecvMeta, received: &[u8], now: Instant) {
        let Some(line) = self.lines.get_mut(&meta.addr) else { return };
        let head_before = line.head();

        let joined = Bytes::copy_from_slice(received);
        let stride = meta.stride.max(1);
        for start in (0..joined.len()).step_by(stride) {
            let payload = joined.slice(start..joined.len().min(start + stride));
            let packet = Packet { payload, ecn: meta.ecn, local_ip: meta.dst_ip };
            line.admit(packet, now, &mut self.stats);
        }

        if head_before.is_none()
            && let Some(release) = line.head()
        {
            self.heads.insert((release, meta.addr));
        }
    }

    /// When the next datagram is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.heads.first().map(|&(release, _)| release)
    }

    /// Writes a run of due datagrams into `buffer`, described as a receive of the kernel's would be: of
    /// one source, of one length except for a shorter last one. Returns `None` if nothing is due.
    ///
    /// A datagram longer than the whole buffer is dropped; the kernel would cut it short.
    pub(super) fn poll_run(&mut self, now: Instant, buffer: &mut [u8]) -> Option<RecvMeta> {
        loop {
            let &(release, source) = self.heads.first()?;
            if release > now {
                return None;
            }
            self.heads.pop_first();
            let line = self.lines.get_mut(&source).expect("a head is removed with its line");
            let run = line.take_run(now, source, buffer, &mut self.stats);
            match line.head() {
                Some(next) => {
                    self.heads.insert((next, source));
                }
                None if line.is_over() => {
                    self.lines.remove(&source);
                }
                None => {}
            }
            if run.is_some() {
                return run;
            }
        }
    }

    pub(super) fn stats(&self) -> FaultStats {
        self.stats
    }
}

impl Line {
    fn new(rule: Rule, random: Random) -> Self {
        Self {
            rule: Some(rule),
            random,
            losing: false,
            bottleneck_free: None,
            last_release: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.rule.is_none() && self.queue.is_empty()
    }

    fn head(&self) -> Option<Instant> {
        self.queue.front().map(|&(release, _)| release)
    }

    fn admit(&mut self, packet: Packet, now: Instant, stats: &mut FaultStats) {
        let cost = packet.payload.len() + PACKET_OVERHEAD_BYTES;
        match self.judge(packet.payload.len(), now) {
            Verdict::Release(_) if self.queued_bytes + cost > QUEUE_BYTES_MAX => stats.crowded += 1,
            Verdict::Release(release) => {
                self.last_release = Some(release);
                self.queued_bytes += cost;
                self.queue.push_back((release, packet));
            }
            Verdict::Cut => stats.cut += 1,
            Verdict::TooLong => stats.too_long += 1,
            Verdict::Lost => stats.lost += 1,
            Verdict::Overflowed => stats.overflowed += 1,
        }
    }

    fn judge(&mut self, bytes: usize, arrival: Instant) -> Verdict {
        let rule = self.rule.unwrap_or_default();
        // Drawn for every datagram whatever its rule, so that the n-th one meets the same decisions
        // before and after a rule changed.
        let (loss_draw, jitter_draw) = (self.random.unit(), self.random.unit());
        self.losing = loses(&rule, self.losing, loss_draw);
        if rule.cut {
            return Verdict::Cut;
        }
        if rule.mtu.is_some_and(|mtu| bytes > usize::from(mtu)) {
            return Verdict::TooLong;
        }
        if self.losing {
            return Verdict::Lost;
        }
        let departure = match rule.rate {
            None => arrival,
            Some(rate) => {
                let start = self.bottleneck_free.map_or(arrival, |free| free.max(arrival));
                if start - arrival > rule.queue {
                    return Verdict::Overflowed;
                }
                let departure = start + serialization(bytes, rate);
                self.bottleneck_free = Some(departure);
                departure
            }
        };
        let release = departure + rule.delay + rule.jitter.mul_f64(jitter_draw);
        Verdict::Release(self.last_release.map_or(release, |last| last.max(release)))
    }

    fn take_run(
        &mut self,
        now: Instant,
        source: SocketAddr,
        buffer: &mut [u8],
        stats: &mut FaultStats,
    ) -> Option<RecvMeta> {
        let mut run: Option<RecvMeta> = None;
        while let Some((release, packet)) = self.queue.front() {
            let length = packet.payload.len();
            let start = run.map_or(0, |run| run.len);
            let joins = run.is_none_or(|run| {
                // A datagram shorter than the stride was the last that could join.
                run.len % run.stride == 0
                    && length <= run.stride
                    && packet.ecn == run.ecn
                    && packet.local_ip == run.dst_ip
                    && buffer.len() - start >= length
            });
            if *release > now || !joins {
                break;
            }
            if length > buffer.len() {
                stats.oversize += 1;
            } else {
                buffer[start..start + length].copy_from_slice(&packet.payload);
                let stride = run.map_or(length, |run| run.stride);
                let (ecn, dst_ip) = (packet.ecn, packet.local_ip);
                run = Some(RecvMeta { addr: source, len: start + length, stride, ecn, dst_ip });
                stats.delivered += 1;
            }
            self.queued_bytes -= length + PACKET_OVERHEAD_BYTES;
            self.queue.pop_front();
        }
        run
    }
}

/// Gilbert's model: the next state from `losing`, by a draw from 0 to 1. The chance to leave the losing
/// state sets the mean burst, and the chance to enter it follows from the share.
fn loses(rule: &Rule, losing: bool, draw: f64) -> bool {
    if rule.loss <= 0.0 || rule.loss >= 1.0 {
        return rule.loss >= 1.0;
    }
    let leave = (1.0 / rule.loss_burst).min(1.0 - rule.loss);
    let enter = leave * rule.loss / (1.0 - rule.loss);
    if losing { draw >= leave } else { draw < enter }
}

fn serialization(bytes: usize, rate: BitsPerSec) -> Duration {
    let bits = bytes as u64 * 8;
    Duration::from_nanos(bits.saturating_mul(1_000_000_000) / rate.0.max(1))
}

#[cfg(test)]
mod tests;
