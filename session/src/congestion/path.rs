//! What packets take on their way and what they wait for order, told apart; and the least of the former.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::round::Round;
use crate::order_delay::{OrderDelay, OrderDelays};

/// Half of what the base is taken over, and the time between drains.
const BASE_PERIOD: Duration = Duration::from_secs(5);
/// Rounds of which the longest way says what the base may be, the middle one what is held (on a path that has just become
/// shorter all wait once for what still comes over the longer one), and the least what the spread is.
const ROUNDS: usize = 3;

/// The path's RTT; see the model.
#[derive(Clone, Debug)]
pub(super) struct PathRtt {
    delays: Arc<OrderDelays>,
    /// The same when the round began.
    before: [OrderDelay; 2],
    /// Mean RTTs of the last rounds without their order delay, the newest first.
    ways: [Duration; ROUNDS],
    /// Path RTTs, what ways were above them, and what was taken off for order.
    rtts: [Duration; 2],
    spreads: [Duration; ROUNDS],
    held: [Duration; ROUNDS],
    base: BaseRtt,
}

impl PathRtt {
    pub(super) fn new(delays: Arc<OrderDelays>, now: Instant) -> Self {
        Self {
            before: delays.both(),
            delays,
            ways: [Duration::ZERO; ROUNDS],
            rtts: [Duration::ZERO; 2],
            spreads: [Duration::ZERO; ROUNDS],
            held: [Duration::ZERO; ROUNDS],
            base: BaseRtt::new(now),
        }
    }

    /// Tells apart what the packets of a round, of this mean RTT, took on their way and for order. Whether the base is to be
    /// looked for; a base that falls by less than `fall` is as it was.
    pub(super) fn handle_round(
        &mut self,
        round: &Round,
        rtt: Duration,
        fall: Duration,
        now: Instant,
    ) -> bool {
        let both = self.delays.both();
        let [here, there] = [0, 1].map(|end| both[end].since(self.before[end]));
        self.before = both;
        // What passed while nothing was held the far end has not told.
        let held = ((here.mean(1) + there.mean(round.packets())) * 5 / 4).min(rtt);
        let (way, late) = (rtt - held, round.rtt_late().unwrap_or(rtt));
        let path = way.min(late);
        let spread = way - path;
        if self.rtts[0].is_zero() {
            (self.ways, self.rtts) = ([way; ROUNDS], [path; 2]);
            (self.spreads, self.held) = ([spread; ROUNDS], [held; ROUNDS]);
        }
        self.rtts = [path, self.rtts[0]];
        for (kept, new) in
            [(&mut self.ways, way), (&mut self.spreads, spread), (&mut self.held, held)]
        {
            kept.rotate_right(1);
            kept[0] = new;
        }
        let longest = self.ways.iter().copied().max().unwrap_or(way);
        self.base.handle_rtt(longest.min(late), now, fall)
    }

    pub(super) fn delays(&self) -> Arc<OrderDelays> {
        Arc::clone(&self.delays)
    }

    /// The last round's path RTT.
    pub(super) fn latest(&self) -> Duration {
        self.rtts[0]
    }

    /// What packets and acknowledgements wait for order.
    pub(super) fn held(&self) -> Duration {
        let mut held = self.held;
        held.sort_unstable();
        held[ROUNDS / 2]
    }

    /// How much longer than the path's RTT packets take on the mean, without that.
    pub(super) fn spread(&self) -> Duration {
        self.spreads.into_iter().min().unwrap_or_default()
    }

    /// What stands in queues: the lesser of two rounds'.
    pub(super) fn queue(&self) -> Duration {
        self.rtts[0].min(self.rtts[1]).saturating_sub(self.base())
    }

    pub(super) fn base(&self) -> Duration {
        self.base.get()
    }

    /// Forgets the base for this one.
    pub(super) fn reset_base(&mut self, base: Duration, now: Instant) {
        self.base.reset(base, now);
    }

    /// The window was low enough, and long enough, for the base to be seen. Whether it was less than the last time.
    pub(super) fn handle_drained(&mut self) -> bool {
        let base = self.base();
        self.base.trusted.replace(base).is_some_and(|before| base < before)
    }
}

/// The least of the rounds' path RTTs in this period of 5 s and the one before.
#[derive(Clone, Copy, Debug)]
struct BaseRtt {
    period_start: Instant,
    current: Option<Duration>,
    previous: Option<Duration>,
    /// The base when it was last sure to be seen.
    trusted: Option<Duration>,
}

impl BaseRtt {
    fn new(now: Instant) -> Self {
        Self { period_start: now, current: None, previous: None, trusted: None }
    }

    /// Whether this RTT is below the base by more than `fall`, or a period ends in which the base was not seen.
    fn handle_rtt(&mut self, rtt: Duration, now: Instant, fall: Duration) -> bool {
        let fallen = self.current.is_some() && rtt + fall < self.get();
        let turn = now.saturating_duration_since(self.period_start) >= BASE_PERIOD;
        let seen = self.current.zip(self.trusted).is_some_and(|(least, base)| least <= base + fall);
        if turn {
            self.period_start = now;
            self.previous = self.current.take();
        }
        self.current = Some(self.current.map_or(rtt, |least| least.min(rtt)));
        fallen || turn && !seen
    }

    /// Forgets all but this RTT.
    fn reset(&mut self, rtt: Duration, now: Instant) {
        let (current, trusted) = (Some(rtt), None);
        *self = Self { period_start: now, current, previous: None, trusted };
    }

    /// The base RTT; zero before the first.
    fn get(&self) -> Duration {
        self.current.into_iter().chain(self.previous).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FALL: Duration = Duration::from_millis(5);
    const PACKETS: u64 = 100;

    struct Bench {
        path: PathRtt,
        delays: Arc<OrderDelays>,
        told: OrderDelay,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let (delays, now) = (Arc::<OrderDelays>::default(), Instant::now());
            let path = PathRtt::new(Arc::clone(&delays), now);
            Self { path, delays, told: OrderDelay::default(), now }
        }

        /// A round whose packets take so long, and of which the far end says that it held them so long on the mean. Whether the
        /// base is to be looked for.
        fn round(&mut self, rtt_ms: u32, held_ms: u32) -> bool {
            let start = self.now;
            self.now += MS * rtt_ms;
            let mut round = Round::new(start);
            for _ in 0..PACKETS {
                round.handle_ack(self.now, start, 1_200, false, self.path.base());
                self.told.add(MS * held_ms);
            }
            self.delays.hear(self.told);
            self.path.handle_round(&round, MS * rtt_ms, FALL, self.now)
        }

        fn rounds(&mut self, count: u32, rtt_ms: u32, held_ms: u32) -> bool {
            (0..count).any(|_| self.round(rtt_ms, held_ms))
        }
    }

    #[test]
    fn what_the_far_end_holds_for_order_is_not_of_the_path() {
        let mut bench = Bench::new();
        bench.rounds(3, 120, 0);
        bench.rounds(3, 200, 64);
        assert_eq!((bench.path.base(), bench.path.latest()), (120 * MS, 120 * MS));
        assert_eq!((bench.path.queue(), bench.path.held()), (Duration::ZERO, 80 * MS));

        bench.rounds(3, 230, 64);
        assert_eq!(bench.path.queue(), 30 * MS, "what is not told is a queue");
    }

    #[test]
    fn what_is_held_here_counts_as_well() {
        let mut bench = Bench::new();
        bench.rounds(3, 120, 0);
        for _ in 0..3 {
            bench.delays.here.pass(OrderDelay { micros: 10 * 40_000, frames: 10 });
            bench.round(170, 0);
        }
        assert_eq!((bench.path.queue(), bench.path.held()), (Duration::ZERO, 50 * MS));
    }

    #[test]
    fn a_round_whose_order_delay_is_told_too_soon_lowers_no_base() {
        let mut bench = Bench::new();
        bench.rounds(3, 200, 64);
        bench.round(200, 96);
        bench.round(200, 32);
        bench.round(200, 64);
        assert_eq!(bench.path.base(), 120 * MS);
    }

    #[test]
    fn a_far_end_that_claims_to_hold_everything_for_ever_leaves_no_path() {
        let mut bench = Bench::new();
        bench.rounds(3, 120, 0);
        for micros in [u64::MAX / 2, u64::MAX] {
            bench.told.micros = micros;
            bench.round(120, 0);
        }
        assert_eq!((bench.path.latest(), bench.path.held()), (Duration::ZERO, 120 * MS));
    }

    #[test]
    fn a_base_that_is_seen_anyway_is_not_looked_for() {
        let mut bench = Bench::new();
        assert!(bench.rounds(60, 100, 0), "never looked for yet");
        assert!(!bench.path.handle_drained());
        assert!(!bench.rounds(60, 102, 0));
        assert!(bench.rounds(120, 110, 0));
    }

    #[test]
    fn a_path_that_becomes_shorter_is_looked_at_at_once_and_a_drain_says_so() {
        let mut bench = Bench::new();
        bench.rounds(3, 120, 0);
        assert!(!bench.path.handle_drained());
        assert!(!bench.round(117, 0));
        assert!(bench.round(90, 0));
        assert!(bench.path.handle_drained(), "the base is less than at the last drain");
        assert!(!bench.path.handle_drained());
    }
}
