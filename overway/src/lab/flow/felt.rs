//! What a flow felt of a failure: arithmetic on arrivals, without clocks or sockets.
//!
//! The *gap* is the longest time between two receptions around the failure. It holds what no routing can
//! avoid: the spacing of the frames, the growth of the path's delay if the detour is longer, and what was
//! on its way to the failed relay, up to one round trip of the link in front of it. *Excess* is the gap
//! less these three: what noticing and switching took.
//!
//! The detour is the path of the frames that end the gap. The relay in front of the failure chooses it;
//! the source moves to a better one a round trip later. Its delay is the least of the frames that come
//! right after the gap, because those sent again from a relay's memory waited there besides. The delay
//! after the source has moved is told as well, and *settled excess* takes that one's growth instead: it
//! also holds what the detour is longer than the path that follows it.

use std::time::Duration;

/// For how long after the gap arrivals tell the detour's delay. A frame of a voice flow that did not wait
/// is among them, and the source's new path is rarely.
const DETOUR: u64 = 100_000_000;
/// For how long after the gap arrivals tell the delay that follows; most are of the source's new path.
const SETTLED: u64 = 1_000_000_000;

/// One reception. Times are nanoseconds of the sink's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The datagram's number in its flow.
    pub sequence: u64,
    /// When it was sent.
    pub sent: u64,
    /// When it came.
    pub received: u64,
    /// Whether it had come before.
    pub duplicate: bool,
}

/// What a flow felt between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Felt {
    /// Longest time between two receptions.
    pub gap: Duration,
    /// Datagrams that never came.
    pub lost: u64,
    /// Receptions of what had come before.
    pub duplicates: u64,
    /// Median path delay before the failure.
    pub delay_before: Duration,
    /// Least path delay right after the gap.
    pub delay_detour: Duration,
    /// Median path delay in the second after the gap.
    pub delay_settled: Duration,
    /// Whether anything came after the gap.
    pub recovered: bool,
}

impl Felt {
    /// The gap in milliseconds.
    pub fn gap_ms(&self) -> f64 {
        self.gap.as_secs_f64() * 1e3
    }

    /// The excess in milliseconds; below zero if the failure cost less than the paths alone explain.
    pub fn excess_ms(&self, spacing: Duration, link_round_trip: Duration) -> f64 {
        self.beyond_ms(self.delay_detour, spacing + link_round_trip)
    }

    /// The settled excess in milliseconds.
    pub fn settled_excess_ms(&self, spacing: Duration, link_round_trip: Duration) -> f64 {
        self.beyond_ms(self.delay_settled, spacing + link_round_trip)
    }

    fn beyond_ms(&self, delay_after: Duration, explained: Duration) -> f64 {
        let growth = delay_after.saturating_sub(self.delay_before);
        (self.gap.as_secs_f64() - (explained + growth).as_secs_f64()) * 1e3
    }
}

/// What a flow felt of a failure at `start`, from its arrivals in order of reception: some from before
/// the failure, and all from then to `end`. `None` without any from before.
///
/// Loss is counted among the datagrams from the first arrival to the last, so that what is under way at
/// the end is not taken for lost.
pub fn felt(arrivals: &[Arrival], start: u64, end: u64) -> Option<Felt> {
    let split = arrivals.partition_point(|arrival| arrival.received < start);
    let (before, after) = arrivals.split_at(split);
    let mut last = before.last()?.received;
    let (mut gap, mut gap_end) = (0, start);
    for arrival in after {
        if arrival.received.saturating_sub(last) > gap {
            (gap, gap_end) = (arrival.received - last, arrival.received);
        }
        last = arrival.received;
    }
    // Silence that the end cut short counts as far as it went.
    let open = end.saturating_sub(last);
    let recovered = open <= gap;
    if !recovered {
        (gap, gap_end) = (open, end);
    }
    let within = |span: u64| {
        let times = gap_end..gap_end.saturating_add(span);
        sorted_delays(after.iter().filter(move |arrival| times.contains(&arrival.received)))
    };
    Some(Felt {
        gap: Duration::from_nanos(gap),
        lost: lost(arrivals),
        duplicates: after.iter().filter(|arrival| arrival.duplicate).count() as u64,
        delay_before: median(&sorted_delays(before.iter())),
        delay_detour: Duration::from_nanos(within(DETOUR).first().copied().unwrap_or(0)),
        delay_settled: median(&within(SETTLED)),
        recovered,
    })
}

fn lost(arrivals: &[Arrival]) -> u64 {
    let mut sequences: Vec<u64> = arrivals.iter().map(|arrival| arrival.sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    match (sequences.first(), sequences.last()) {
        (Some(first), Some(last)) => last - first + 1 - sequences.len() as u64,
        _ => 0,
    }
}

fn sorted_delays<'a>(arrivals: impl Iterator<Item = &'a Arrival>) -> Vec<u64> {
    let mut delays: Vec<u64> = arrivals
        .filter(|arrival| !arrival.duplicate)
        .map(|arrival| arrival.received.saturating_sub(arrival.sent))
        .collect();
    delays.sort_unstable();
    delays
}

fn median(sorted: &[u64]) -> Duration {
    Duration::from_nanos(sorted.get(sorted.len() / 2).copied().unwrap_or(0))
}

/// The value that a share of all values does not exceed (nearest rank); `None` without values.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within a vector's length"
    )]
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Frames every 20 ms over a path of `delay_ms`, numbered from `first`.
    fn frames(first: u64, count: u64, delay_ms: u64) -> Vec<Arrival> {
        let arrival = |sequence: u64| {
            let sent = sequence * 20 * MS;
            Arrival { sequence, sent, received: sent + delay_ms * MS, duplicate: false }
        };
        (first..first + count).map(arrival).collect()
    }

    #[test]
    fn an_undisturbed_flow_feels_its_spacing_and_nothing_else() {
        let felt = felt(&frames(0, 100, 40), 1_000 * MS, 2_039 * MS).unwrap();

        assert_eq!(felt.gap, Duration::from_millis(20));
        assert_eq!((felt.lost, felt.duplicates, felt.recovered), (0, 0, true));
        assert!(felt.excess_ms(Duration::from_millis(20), Duration::ZERO).abs() < 1e-9);
    }

    #[test]
    fn the_excess_is_the_gap_less_what_the_paths_explain() {
        // Frames 0 to 49 come after 40 ms; 50 to 54 never; from 55 on after 65 ms.
        let mut arrivals = frames(0, 50, 40);
        arrivals.extend(frames(55, 100, 65));

        let felt = felt(&arrivals, 1_025 * MS, 3_100 * MS).unwrap();

        assert_eq!(felt.gap, Duration::from_millis(55 * 20 + 65 - (49 * 20 + 40)));
        assert_eq!(felt.lost, 5);
        assert_eq!(felt.delay_before, Duration::from_millis(40));
        assert_eq!(felt.delay_detour, Duration::from_millis(65));
        assert_eq!(felt.delay_settled, Duration::from_millis(65));
        // 145 of gap, less 20 of spacing, 25 of growth and 30 of round trip.
        let excess = felt.excess_ms(Duration::from_millis(20), Duration::from_millis(30));
        assert!((excess - 70.0).abs() < 1e-9);
    }

    #[test]
    fn frames_that_waited_do_not_lengthen_the_detour() {
        // From frame 50 on the path fails. 50 to 53 are sent again together, 54 to 59 take the detour of
        // 70 ms, and from 60 on the source has a path of 50 ms.
        let mut arrivals = frames(0, 50, 40);
        let again = frames(50, 4, 0);
        arrivals.extend(again.iter().map(|a| Arrival { received: 1_140 * MS, ..*a }));
        arrivals.extend(frames(54, 6, 70));
        arrivals.extend(frames(60, 100, 50));

        let felt = felt(&arrivals, 1_021 * MS, 3_000 * MS).unwrap();

        assert_eq!(felt.gap, Duration::from_millis(1_140 - 1_020));
        assert_eq!(felt.delay_detour, Duration::from_millis(70));
        assert_eq!(felt.delay_settled, Duration::from_millis(50));
        let spacing = Duration::from_millis(20);
        assert!((felt.excess_ms(spacing, Duration::ZERO) - 70.0).abs() < 1e-9);
        assert!((felt.settled_excess_ms(spacing, Duration::ZERO) - 90.0).abs() < 1e-9);
    }

    #[test]
    fn a_path_that_became_shorter_is_no_credit() {
        let mut arrivals = frames(0, 50, 40);
        arrivals.extend(frames(52, 100, 30));

        let felt = felt(&arrivals, 1_021 * MS, 3_000 * MS).unwrap();

        let excess = felt.excess_ms(Duration::from_millis(20), Duration::ZERO);
        assert!((excess - 30.0).abs() < 1e-9, "{excess}");
    }

    #[test]
    fn silence_until_the_end_is_a_gap_without_recovery() {
        let felt = felt(&frames(0, 50, 40), 1_000 * MS, 3_020 * MS).unwrap();

        assert!(!felt.recovered);
        assert_eq!(felt.gap, Duration::from_millis(2_000));
    }

    #[test]
    fn repeated_and_reordered_frames_are_neither_lost_nor_new() {
        let mut arrivals = frames(0, 60, 40);
        arrivals.swap(55, 56);
        let again = Arrival { duplicate: true, ..arrivals[58] };
        arrivals.push(again);

        let felt = felt(&arrivals, 1_000 * MS, 1_225 * MS).unwrap();

        assert_eq!((felt.lost, felt.duplicates), (0, 1));
    }

    #[test]
    fn a_flow_that_never_came_felt_nothing_that_can_be_told() {
        assert_eq!(felt(&frames(100, 10, 40), 0, 5_000 * MS), None);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();

        assert_eq!(percentile(&values, 0.5), Some(100.0));
        assert_eq!(percentile(&values, 0.99), Some(198.0));
        assert_eq!(percentile(&values, 1.0), Some(200.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
