//! What a link costs a class: every formula, with its reason and source.
//!
//! A cost is a sum of non-negative integer terms in microsecond equivalents: how much longer a path
//! might be and still be as good. A path costs the sum of its links.
//!
//! | term | realtime | interactive | bulk |
//! | --- | --- | --- | --- |
//! | delay | 1 | 1 | 1 |
//! | hop: a relay's work | 0.2 ms | 0.2 ms | 0.2 ms |
//! | loss, 1 % | 10 ms | 8 recoveries x 1 % | 2 ms |
//! | jitter above 3 ms | x 4 | x 1 | none |
//! | load (Fortz-Thorup) x | 0.5 ms | 1 ms | 5 ms |
//! | price, 1 cent per GB | 0.01 ms | 0.05 ms | 10 ms |
//! | spread: by lot | up to 0.13 ms | up to 0.13 ms | up to 0.13 ms |
//!
//! In a clean mesh that jitters lightly a cost is therefore the delay and 0.2 to 0.33 ms per link, whatever the
//! class. Each term grows with what it is made of; a link that cannot be used has no cost at all.

use std::ops::Add;

use overway_wire::{Class, LinkId, LossPpm, Micros, Permille, PricePerGb};

use crate::{LinkDelay, LinkMeasure, WindowSample};

/// The dearest that a usable link can be: 268 seconds. Three of them still sum without overflow, below
/// what stands for "no path".
pub(crate) const LINK_COST_MAX: u32 = 1 << 28;

/// Each link's share in a relay's work: receiving, queueing and sending a frame take about this long on
/// a busy core. It also prefers the path of fewer hops among near-equals, as each hop may fail.
const HOP: Micros = Micros(200);

/// What the lot adds to a link at most, in microseconds: a few noisy measurements, not felt by anyone.
const SPREAD_MAX: u64 = 127;

/// By how much the fast window may exceed the slow one before it counts. On an idle link it holds one
/// packet, whose jitter would else count as delay, at every hop, and only upwards.
const FAST_DELAY_GUARD: Micros = Micros(2_000);

/// By how much the slow window may exceed the fast one. A queue of seconds, long drained, would else keep a link
/// dear for minutes.
const SLOW_DELAY_EXCESS: Micros = Micros(4_000);
const SLOW_JITTER_EXCESS: Micros = Micros(1_000);

/// Clean packets that are supposed before the first is counted: what a link is before it is known.
const LOSS_PRIOR_SAMPLES: u32 = 100;
/// Lost packets in a window that count as chance. One alone says nothing of the next, yet the upper bound
/// would make 13 ms of it.
const LOSS_BY_CHANCE: u32 = 1;

/// Jitter that costs nothing: playout buffers hold at least a frame of 10 to 20 ms, and the jitter of
/// several links does not add up linearly.
const JITTER_FREE: Micros = Micros(3_000);
/// Samples below which a window's jitter says nothing.
const JITTER_SAMPLES_MIN: u32 = 8;

/// What a link or a path costs, in microsecond equivalents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(pub u32);

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The terms of a link's cost for one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTerms {
    /// One-way delay.
    pub delay: Cost,
    /// A relay's work.
    pub hop: Cost,
    /// Loss, beyond what ignorance explains.
    pub loss: Cost,
    /// Jitter, beyond what buffers hide.
    pub jitter: Cost,
    /// Queueing to come.
    pub load: Cost,
    /// Money.
    pub price: Cost,
    /// By lot, from the link's ends: what decides between near-equals, so that pairs do not all take the same
    /// relay of several that are as good.
    pub spread: Cost,
}

impl LinkTerms {
    /// The terms of a link with these measurements and delays, or `None` if it is not usable.
    pub fn of(class: Class, id: LinkId, measure: &LinkMeasure, delay: LinkDelay) -> Option<Self> {
        measure.usable.then(|| Self {
            delay: Cost(delay.effective().0),
            hop: Cost(HOP.0),
            loss: loss(class, measure),
            jitter: jitter(class, measure),
            load: load(class, measure.load),
            price: price(class, measure.price),
            spread: spread(id),
        })
    }

    /// Their sum, at most 268 seconds.
    pub fn total(self) -> Cost {
        let Self { delay, hop, loss, jitter, load, price, spread } = self;
        Cost((delay + hop + loss + jitter + load + price + spread).0.min(LINK_COST_MAX))
    }

    /// The sum of two links, term by term.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            delay: self.delay + other.delay,
            hop: self.hop + other.hop,
            loss: self.loss + other.loss,
            jitter: self.jitter + other.jitter,
            load: self.load + other.load,
            price: self.price + other.price,
            spread: self.spread + other.spread,
        }
    }
}

/// The lot of a link: the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014) over its ends and index.
fn spread(id: LinkId) -> Cost {
    let LinkId { from, to, index } = id;
    let ends = u64::from(from.0) << 24 | u64::from(to.0) << 8 | u64::from(index.value());
    let mut z = ends.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    saturating((z ^ z >> 31) & SPREAD_MAX)
}

/// What a class needs of a path to be of use. Routes do not depend on it: they are the best there are; it says
/// where that is not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// One-way delay at most.
    pub(crate) deadline: Micros,
    /// Loss at most, before links recover.
    pub(crate) loss: LossPpm,
}

impl Needs {
    /// - *Realtime*: 400 ms one way, which ITU-T G.114 (05/2003) gives as the upper limit for planning; recovery
    ///   leaves a fifteenth of the loss, of which 1 % is what codecs conceal.
    /// - *Interactive*: a second, up to which a user's train of thought holds (R. B. Miller, "Response time in
    ///   man-computer conversational transactions", 1968); streams recover from more loss than this, slowly.
    /// - *Bulk*: ten seconds, and loss that still leaves most of the capacity.
    pub(crate) fn of(class: Class) -> Self {
        let (deadline, loss) = match class {
            Class::Realtime => (Micros(400_000), 150_000),
            Class::Interactive => (Micros(1_000_000), 150_000),
            Class::Bulk => (Micros(10_000_000), 300_000),
        };
        Self { deadline, loss: LossPpm::new(loss) }
    }
}

impl LinkDelay {
    /// The delay that counts: the slow window's, or the fast one's where it is clearly worse. Bad news
    /// counts within a second, good news within thirty, but for what exceeds 4 ms, of which a second's
    /// packets leave no doubt.
    pub fn effective(self) -> Micros {
        let slow = self.slow.0.min(self.fast.0.saturating_add(SLOW_DELAY_EXCESS.0));
        Micros(slow.max(self.fast.0.saturating_sub(FAST_DELAY_GUARD.0)))
    }
}

/// Loss beyond what ignorance explains.
///
/// - *Realtime*: 10 ms per cent. By the E-model (ITU-T G.107; Cole and Rosenbluth, "Voice over IP
///   performance monitoring", 2001) one per cent takes 3.6 points of a call's rating, as much as 150 ms of
///   delay; hop recovery mends all but about a fifteenth of it in time.
/// - *Interactive*: in a stream the packets behind a lost one wait for its recovery, a round trip of
///   the link and 20 ms until it is asked for; at a message stream's rates eight of them.
/// - *Bulk*: a resent packet only takes capacity; 2 ms per cent keep it off links that lose much.
fn loss(class: Class, measure: &LinkMeasure) -> Cost {
    const RECOVERY_ASK: Micros = Micros(20_000);
    const PACKETS_WAITING: u64 = 8;
    let ppm = loss_of(measure).ppm();
    match class {
        Class::Realtime => Cost(ppm),
        Class::Interactive => {
            let rtt = measure.fast.rtt.max(measure.slow.rtt);
            let recovery = u64::from(rtt.0) + u64::from(RECOVERY_ASK.0);
            saturating(u64::from(ppm) * recovery * PACKETS_WAITING / 1_000_000)
        }
        Class::Bulk => Cost(ppm / 5),
    }
}

/// The loss that counts: the worse window's, but of the slow one no more than the fast one leaves possible.
fn loss_of(measure: &LinkMeasure) -> LossPpm {
    let LinkMeasure { fast, slow, .. } = measure;
    let possible = match u64::from(fast.samples) {
        0 => 1_000_000,
        samples => wilson_upper_ppm(u64::from(fast.lost.min(fast.samples)), samples),
    };
    excess_loss(fast).max(LossPpm::new(excess_loss(slow).ppm().min(possible)))
}

/// Whether a link loses so much that a path which was left for it is to stay so for long: 2 %, from which the
/// overlay network Spines (Johns Hopkins University) takes a link for lossy too.
pub(crate) fn is_lossy(measure: &LinkMeasure) -> bool {
    loss_of(measure).ppm() >= 20_000
}

/// The upper bound of a window's loss, less the same bound had nothing been lost: ignorance is not
/// loss, or an idle link could never beat a busy one.
fn excess_loss(window: &WindowSample) -> LossPpm {
    let samples = u64::from(window.samples) + u64::from(LOSS_PRIOR_SAMPLES);
    let lost = window.lost.min(window.samples).saturating_sub(LOSS_BY_CHANCE);
    if lost == 0 {
        return LossPpm::default();
    }
    let bound = wilson_upper_ppm(u64::from(lost), samples);
    LossPpm::new(bound.saturating_sub(wilson_upper_ppm(0, samples)))
}

/// One-sided 95 % upper bound of a share (E. B. Wilson, "Probable inference", JASA 22, 1927), in parts per
/// million: (k + z²/2 + z sqrt(k(n-k)/n + z²/4)) / (n + z²), with z = 1.645. `samples` is not zero.
fn wilson_upper_ppm(lost: u64, samples: u64) -> u32 {
    let (lost, samples) = (u128::from(lost), u128::from(samples));
    let variance_micro = 1_000_000 * lost * (samples - lost) / samples + 676_506;
    let upper_milli = 1_000 * lost + 1_353 + 1_645 * variance_micro.isqrt() / 1_000;
    let ppm = upper_milli * 1_000_000 / (1_000 * samples + 2_706);
    u32::try_from(ppm).unwrap_or(u32::MAX)
}

/// Jitter beyond [`JITTER_FREE`], times as many mean deviations as the class waits for: four for
/// realtime, as RFC 6298 takes for "late"; one for interactive, where a late packet delays only its
/// answer; none for bulk.
fn jitter(class: Class, measure: &LinkMeasure) -> Cost {
    let known = |window: &WindowSample| {
        if window.samples < JITTER_SAMPLES_MIN { 0 } else { window.jitter.0 }
    };
    let fast = known(&measure.fast);
    let bound = if measure.fast.samples < JITTER_SAMPLES_MIN {
        u32::MAX
    } else {
        fast.saturating_add(SLOW_JITTER_EXCESS.0)
    };
    let excess = fast.max(known(&measure.slow).min(bound)).saturating_sub(JITTER_FREE.0);
    match class {
        Class::Realtime => Cost(excess.saturating_mul(4)),
        Class::Interactive => Cost(excess),
        Class::Bulk => Cost(0),
    }
}

/// Queueing to come, by the convex function of Fortz and Thorup ("Internet traffic engineering by
/// optimizing OSPF weights", INFOCOM 2000): next to nothing at a third of the capacity, a third at half,
/// 10 2/3 when full, and prohibitive above. One unit is worth 0.5 ms to realtime, which goes before the
/// others in queues, 1 ms to interactive, and 5 ms to bulk, which makes the queues.
fn load(class: Class, load: Permille) -> Cost {
    let unit_us: u64 = match class {
        Class::Realtime => 500,
        Class::Interactive => 1_000,
        Class::Bulk => 5_000,
    };
    saturating(fortz_thorup_milli(u64::from(load.0)) * unit_us / 1_000)
}

/// Fortz and Thorup's function in thousandths, of a load in thousandths.
fn fortz_thorup_milli(load: u64) -> u64 {
    /// Where each segment starts, and its slope.
    const SEGMENTS: [(u64, u64); 6] =
        [(0, 1), (333, 3), (667, 10), (900, 70), (1_000, 500), (1_100, 5_000)];
    let mut sum = 0;
    for (at, &(start, slope)) in SEGMENTS.iter().enumerate() {
        let end = SEGMENTS.get(at + 1).map_or(u64::MAX, |next| next.0);
        sum += slope * load.min(end).saturating_sub(start);
    }
    sum
}

/// Money, by what the class would pay: bulk goes 10 ms further to save a cent per gigabyte; for the
/// others price decides between near-equals only.
fn price(class: Class, price: PricePerGb) -> Cost {
    match class {
        Class::Realtime => Cost(price.0 / 100),
        Class::Interactive => Cost(price.0 / 20),
        Class::Bulk => Cost(price.0.saturating_mul(10)),
    }
}

fn saturating(cost_us: u64) -> Cost {
    Cost(u32::try_from(cost_us).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{LinkIndex, RelayId};
    use proptest::prelude::*;

    fn window(samples: u32, lost: u32) -> WindowSample {
        let rtt = Micros(60_000);
        WindowSample { rtt, samples, lost, ..WindowSample::default() }
    }

    fn measure(fast: WindowSample, slow: WindowSample) -> LinkMeasure {
        LinkMeasure { usable: true, fast, slow, ..LinkMeasure::default() }
    }

    fn delay(us: u32) -> LinkDelay {
        LinkDelay { fast: Micros(us), slow: Micros(us) }
    }

    const ID: LinkId = LinkId::new(RelayId(1), RelayId(2), LinkIndex::new(0).unwrap());

    /// Without the lot.
    fn total(class: Class, measure: &LinkMeasure, delay: LinkDelay) -> u32 {
        let terms = LinkTerms::of(class, ID, measure, delay).unwrap();
        LinkTerms { spread: Cost(0), ..terms }.total().0
    }

    #[test]
    fn a_clean_link_costs_its_delay_and_a_fifth_of_a_millisecond() {
        let jittery = |samples| WindowSample { jitter: Micros(2_900), ..window(samples, 0) };
        let clean = measure(jittery(33), jittery(1_000));

        for class in Class::ALL {
            assert_eq!(total(class, &clean, delay(40_000)), 40_200);
        }
    }

    #[test]
    fn a_link_that_is_not_usable_has_no_cost() {
        assert_eq!(
            LinkTerms::of(Class::Bulk, ID, &LinkMeasure::default(), LinkDelay::default()),
            None
        );
    }

    #[test]
    fn delay_rises_with_the_fast_window_and_falls_with_the_slow_one() {
        let of = |fast, slow| LinkDelay { fast: Micros(fast), slow: Micros(slow) }.effective().0;

        assert_eq!(of(90_000, 40_000), 88_000);
        assert_eq!(of(40_000, 43_000), 43_000);
        assert_eq!(of(40_000, 90_000), 44_000);
        assert_eq!(of(41_900, 40_000), 40_000);
    }

    #[test]
    fn wilsons_bound_has_the_values_of_floating_point() {
        // (k, n) -> upper end of the one-sided 95 % interval.
        assert!(wilson_upper_ppm(0, 100).abs_diff(26_347) < 50);
        assert!(wilson_upper_ppm(10, 100).abs_diff(160_360) < 50);
        assert!(wilson_upper_ppm(500, 1_000).abs_diff(525_980) < 50);
    }

    #[test]
    fn an_idle_link_is_not_dearer_than_a_busy_one() {
        let idle = measure(window(0, 0), window(30, 0));
        let busy = measure(window(100, 0), window(3_000, 0));

        for class in Class::ALL {
            assert_eq!(total(class, &idle, delay(1_000)), total(class, &busy, delay(1_000)));
        }
    }

    #[test]
    fn one_lost_packet_is_chance() {
        let once = measure(window(1, 1), window(30, 1));
        assert_eq!(loss(Class::Realtime, &once), Cost(0));
    }

    #[test]
    fn fifteen_per_cent_of_a_second_on_an_active_link_outweigh_tens_of_milliseconds() {
        let lossy = measure(window(33, 5), window(1_000, 5));

        assert!((40_000..60_000).contains(&loss(Class::Realtime, &lossy).0));
        assert!((20_000..40_000).contains(&loss(Class::Interactive, &lossy).0));
        assert!((5_000..15_000).contains(&loss(Class::Bulk, &lossy).0));
    }

    #[test]
    fn loss_of_long_standing_counts_as_about_what_it_is() {
        let lossy = measure(window(33, 0), window(1_000, 10));

        assert!((10_000..14_000).contains(&loss(Class::Realtime, &lossy).0));
    }

    #[test]
    fn jitter_counts_above_what_buffers_hide_and_only_when_known() {
        let of = |samples| WindowSample { jitter: Micros(5_000), ..window(samples, 0) };

        assert_eq!(jitter(Class::Realtime, &measure(of(33), of(0))), Cost(8_000));
        assert_eq!(jitter(Class::Interactive, &measure(of(33), of(0))), Cost(2_000));
        assert_eq!(jitter(Class::Bulk, &measure(of(33), of(33))), Cost(0));
        assert_eq!(jitter(Class::Realtime, &measure(of(7), of(7))), Cost(0));
    }

    #[test]
    fn load_has_the_shape_of_fortz_and_thorup() {
        assert_eq!(load(Class::Interactive, Permille(0)), Cost(0));
        assert_eq!(load(Class::Interactive, Permille(333)), Cost(333));
        assert_eq!(load(Class::Interactive, Permille(667)), Cost(1_335));
        assert_eq!(load(Class::Interactive, Permille(900)), Cost(3_665));
        assert_eq!(load(Class::Interactive, Permille(1_000)), Cost(10_665));
        assert_eq!(load(Class::Interactive, Permille(1_100)), Cost(60_665));
        assert_eq!(load(Class::Bulk, Permille(1_000)), Cost(53_325));
    }

    #[test]
    fn price_leads_bulk_and_only_breaks_ties_elsewhere() {
        let nine_cents = PricePerGb(9_000);

        assert_eq!(price(Class::Realtime, nine_cents), Cost(90));
        assert_eq!(price(Class::Interactive, nine_cents), Cost(450));
        assert_eq!(price(Class::Bulk, nine_cents), Cost(90_000));
    }

    #[test]
    fn the_worst_of_everything_saturates() {
        let worst = WindowSample {
            rtt: Micros::MAX,
            jitter: Micros::MAX,
            samples: u32::MAX,
            lost: u32::MAX,
            ..WindowSample::default()
        };
        let load = Permille(u16::MAX);
        let worst = LinkMeasure { load, price: PricePerGb(u32::MAX), ..measure(worst, worst) };

        for class in Class::ALL {
            assert_eq!(total(class, &worst, delay(u32::MAX)), LINK_COST_MAX);
        }
    }

    fn any_window() -> impl Strategy<Value = WindowSample> {
        (0..400_000_u32, 0..50_000_u32, 0..2_000_u32, 0..2_000_u32).prop_map(
            |(rtt, jitter, samples, lost)| WindowSample {
                rtt: Micros(rtt),
                jitter: Micros(jitter),
                samples,
                lost: lost.min(samples),
                ..WindowSample::default()
            },
        )
    }

    proptest! {
        #[test]
        fn a_cost_never_falls_when_something_gets_worse(
            (fast, slow) in (any_window(), any_window()),
            (load, price, us) in (0..2_000_u16, 0..20_000_u32, 0..400_000_u32),
            (which, by) in (0..8_u8, 0..1_000_u32),
        ) {
            let before = LinkMeasure {
                load: Permille(load), price: PricePerGb(price), ..measure(fast, slow)
            };
            let (mut after, mut later) = (before, delay(us));
            match which {
                0 => later.fast.0 += by * 100,
                1 => later.slow.0 += by * 100,
                2 => after.fast.lost = (after.fast.lost + by).min(after.fast.samples),
                3 => after.slow.lost = (after.slow.lost + by).min(after.slow.samples),
                4 => after.slow.jitter.0 += by * 10,
                5 => after.fast.rtt.0 += by * 100,
                6 => after.load.0 += u16::try_from(by).unwrap(),
                _ => after.price.0 += by,
            }

            for class in Class::ALL {
                prop_assert!(total(class, &after, later) >= total(class, &before, delay(us)));
            }
        }
    }
}
