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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUFFER_BYTES: usize = 64 * 1_500;

    fn source(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn lines(rule: Rule) -> Lines {
        Lines::new(7, Arc::new([(source(1), rule)].into()))
    }

    fn meta(from: SocketAddr, len: usize, stride: usize) -> RecvMeta {
        RecvMeta { addr: from, len, stride, ecn: None, dst_ip: None }
    }

    /// Hands in one datagram which holds `number`.
    fn receive(lines: &mut Lines, from: SocketAddr, number: u32, now: Instant) {
        lines.handle_received(&meta(from, 4, 4), &number.to_be_bytes(), now);
    }

    /// Takes out all that is due, as the numbers it holds by source.
    fn due(lines: &mut Lines, now: Instant) -> Vec<(SocketAddr, u32)> {
        let mut buffer = [0; BUFFER_BYTES];
        let mut taken = Vec::new();
        while let Some(run) = lines.poll_run(now, &mut buffer) {
            for number in buffer[..run.len].chunks(run.stride) {
                taken.push((run.addr, u32::from_be_bytes(number.try_into().unwrap())));
            }
        }
        taken
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_datagram_is_due_after_its_delay_and_not_before() {
        let now = Instant::now();
        let mut lines = lines(Rule { delay: millis(40), ..Rule::default() });

        receive(&mut lines, source(1), 5, now);

        assert_eq!(lines.poll_timeout(), Some(now + millis(40)));
        assert_eq!(due(&mut lines, now + millis(40) - Duration::from_nanos(1)), []);
        assert_eq!(due(&mut lines, now + millis(40)), [(source(1), 5)]);
        assert_eq!(lines.poll_timeout(), None);
    }

    #[test]
    fn jitter_stays_within_its_bounds_on_a_sparse_flow() {
        let mut now = Instant::now();
        let mut lines = lines(Rule { delay: millis(40), jitter: millis(10), ..Rule::default() });
        let mut total = Duration::ZERO;

        for number in 0..1_000 {
            receive(&mut lines, source(1), number, now);
            let delay = lines.poll_timeout().unwrap() - now;
            assert!((millis(40)..millis(50)).contains(&delay), "{delay:?}");
            total += delay;
            now += millis(100);
            assert_eq!(due(&mut lines, now).len(), 1);
        }

        let mean = total / 1_000;
        assert!((millis(44)..millis(46)).contains(&mean), "{mean:?}");
    }

    fn losses(rule: Rule, count: usize) -> Vec<bool> {
        let now = Instant::now();
        let mut lines = lines(rule);
        (0..count)
            .map(|_| {
                receive(&mut lines, source(1), 0, now);
                due(&mut lines, now).is_empty()
            })
            .collect()
    }

    fn share_and_mean_burst(losses: &[bool]) -> (f64, f64) {
        let lost = losses.iter().filter(|&&lost| lost).count() as f64;
        let bursts = losses.chunk_by(|a, b| a == b).filter(|run| run[0]).count() as f64;
        (lost / losses.len() as f64, lost / bursts)
    }

    #[test]
    fn losses_have_the_configured_share_and_mean_burst() {
        for (loss, loss_burst) in [(0.01, 1.0), (0.15, 1.0), (0.03, 4.0), (0.3, 10.0)] {
            let rule = Rule { loss, loss_burst, ..Rule::default() };

            let (share, burst) = share_and_mean_burst(&losses(rule, 200_000));

            assert!((share / loss - 1.0).abs() < 0.1, "share {share} of {loss}");
            let wanted = loss_burst.max(1.0 / (1.0 - loss));
            assert!((burst / wanted - 1.0).abs() < 0.1, "burst {burst} of {wanted}");
        }
    }

    #[test]
    fn a_share_of_one_loses_everything_and_none_loses_nothing() {
        let all = Rule { loss: 1.0, ..Rule::default() };
        assert!(losses(all, 100).into_iter().all(|lost| lost));
        assert!(!losses(Rule::default(), 100).into_iter().any(|lost| lost));
    }

    #[test]
    fn the_same_seed_meets_the_same_losses_whatever_other_sources_do() {
        let rule = Rule { loss: 0.5, ..Rule::default() };
        let alone = losses(rule, 200);

        let now = Instant::now();
        let rules: Rules = [(source(1), rule), (source(2), rule)].into();
        let mut both = Lines::new(7, Arc::new(rules));
        let together: Vec<bool> = (0..200)
            .map(|number| {
                receive(&mut both, source(2), number, now);
                receive(&mut both, source(1), number, now);
                !due(&mut both, now).contains(&(source(1), number))
            })
            .collect();

        assert_eq!(alone, together);
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_its_tail() {
        let now = Instant::now();
        // 125 bytes take 1 ms at 1 Mbit/s.
        let rate = Some(BitsPerSec(1_000_000));
        let mut lines = lines(Rule { rate, queue: millis(10), ..Rule::default() });

        lines.handle_received(&meta(source(1), 2_500, 125), &[0; 2_500], now);

        // The one in service, ten waiting up to 10 ms; the other nine of twenty find the queue full.
        assert_eq!(lines.stats().overflowed, 9);
        for served in 1..=11 {
            assert_eq!(lines.poll_timeout(), Some(now + millis(served)));
            let mut buffer = [0; BUFFER_BYTES];
            assert_eq!(lines.poll_run(now + millis(served), &mut buffer).unwrap().len, 125);
        }
        assert_eq!(lines.poll_timeout(), None);
    }

    #[test]
    fn what_is_under_way_from_one_source_is_bounded() {
        let now = Instant::now();
        let mut lines = lines(Rule { delay: millis(1_000), ..Rule::default() });
        let burst = vec![0; 64 * 1_200];

        let bursts = 2 * QUEUE_BYTES_MAX / burst.len();
        for _ in 0..bursts {
            lines.handle_received(&meta(source(1), burst.len(), 1_200), &burst, now);
        }

        let held = lines.lines[&source(1)].queued_bytes;
        assert!(held <= QUEUE_BYTES_MAX && held > QUEUE_BYTES_MAX - 2_000, "{held}");
        let queued = (held / (1_200 + PACKET_OVERHEAD_BYTES)) as u64;
        assert_eq!(lines.stats().crowded, bursts as u64 * 64 - queued);
    }

    #[test]
    fn a_run_joins_equal_lengths_and_ends_with_a_shorter_one() {
        let now = Instant::now();
        let mut lines = lines(Rule::default());
        for length in [100, 100, 60, 100, 120] {
            lines.handle_received(&meta(source(1), length, length), &vec![1; length], now);
        }
        let marked = RecvMeta { ecn: Some(EcnCodepoint::Ce), ..meta(source(1), 120, 120) };
        lines.handle_received(&marked, &[1; 120], now);

        let mut buffer = [0; BUFFER_BYTES];
        let runs = std::iter::from_fn(|| lines.poll_run(now, &mut buffer));
        let shapes: Vec<_> = runs.map(|run| (run.len, run.stride, run.ecn)).collect();

        let ce = Some(EcnCodepoint::Ce);
        assert_eq!(shapes, [(260, 100, None), (100, 100, None), (120, 120, None), (120, 120, ce)]);
    }

    #[test]
    fn a_run_fills_the_buffer_and_no_more() {
        let now = Instant::now();
        let mut lines = lines(Rule::default());
        lines.handle_received(&meta(source(1), 900, 100), &[1; 900], now);
        lines.handle_received(&meta(source(1), 500, 500), &[1; 500], now);

        let mut buffer = [0; 450];
        let runs = std::iter::from_fn(|| lines.poll_run(now, &mut buffer));

        assert_eq!(runs.map(|run| run.len).collect::<Vec<_>>(), [400, 400, 100]);
        assert_eq!(lines.stats().oversize, 1);
    }

    #[test]
    fn a_cut_drops_what_is_under_way_and_all_that_comes() {
        let now = Instant::now();
        let rule = Rule { delay: millis(40), ..Rule::default() };
        let mut lines = lines(rule);
        receive(&mut lines, source(1), 1, now);

        lines.handle_rules(Arc::new([(source(1), Rule { cut: true, ..rule })].into()));
        assert_eq!(lines.poll_timeout(), None);
        receive(&mut lines, source(1), 2, now);
        assert_eq!(due(&mut lines, now + millis(100)), []);
        assert_eq!(lines.stats().cut, 2);

        lines.handle_rules(Arc::new([(source(1), rule)].into()));
        receive(&mut lines, source(1), 3, now);
        assert_eq!(due(&mut lines, now + millis(40)), [(source(1), 3)]);
    }

    #[test]
    fn a_line_without_its_rule_delivers_what_it_holds_and_ends() {
        let now = Instant::now();
        let mut lines = lines(Rule { delay: millis(40), ..Rule::default() });
        receive(&mut lines, source(1), 1, now);

        lines.handle_rules(Arc::default());
        receive(&mut lines, source(1), 2, now);
        assert!(lines.has_line(source(1)), "or 2 would overtake 1");

        assert_eq!(due(&mut lines, now + millis(40)), [(source(1), 1), (source(1), 2)]);
        assert!(!lines.has_line(source(1)));
    }

    fn arb_rule() -> impl Strategy<Value = Rule> {
        let times = (0..50_u64, 0..20_u64, 0..20_u64);
        (times, 0.0..0.6, 1.0..5.0, proptest::option::of(1_000..10_000_000_u64)).prop_map(
            |((delay, jitter, queue), loss, loss_burst, rate)| Rule {
                delay: millis(delay),
                jitter: millis(jitter),
                loss,
                loss_burst,
                rate: rate.map(BitsPerSec),
                queue: millis(queue),
                mtu: None,
                cut: false,
            },
        )
    }

    proptest! {
        #[test]
        fn each_source_keeps_its_order_and_every_datagram_is_accounted_for(
            seed: u64,
            rules in proptest::collection::vec(arb_rule(), 2..5),
            arrivals in proptest::collection::vec((0..3_u64, 0..2_u16), 1..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let in_force = |index: usize| -> Rules {
                (0..2).map(|port| (source(port), rules[(index + usize::from(port)) % rules.len()])).collect()
            };
            let mut lines = Lines::new(seed, Arc::new(in_force(0)));
            let mut delivered: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
            let mut take = |lines: &mut Lines, now| {
                for (from, number) in due(lines, now) {
                    delivered.entry(from).or_default().push(number);
                }
            };

            for (number, &(pause, port)) in (0..).zip(&arrivals) {
                now += millis(pause);
                take(&mut lines, now);
                if number % 50 == 49 {
                    lines.handle_rules(Arc::new(in_force(number as usize / 50)));
                }
                receive(&mut lines, source(port), number, now);
            }
            while let Some(next) = lines.poll_timeout() {
                prop_assert!(next < now + Duration::from_secs(60));
                take(&mut lines, next);
            }

            let count: usize = delivered.values().map(Vec::len).sum();
            let stats = lines.stats();
            prop_assert!(delivered.values().all(|numbers| numbers.is_sorted()));
            prop_assert_eq!(stats.delivered, count as u64);
            prop_assert_eq!(stats.delivered + stats.lost + stats.overflowed, arrivals.len() as u64);
        }
    }
}
