//! Whether messages are coded, how long a block may take, and how many repairs it has.

use std::time::Duration;

use overway_wire::LossPpm;
use overway_wire::hop::{Lane, REPAIR_MESSAGES_MAX, REPAIRS_MAX};

/// At and above this share a hop's congestion controller takes loss for congestion.
const LOST_MAX: LossPpm = LossPpm::new(100_000);
/// It must fall below this before blocks begin anew.
const LOST_BEARABLE: LossPpm = LossPpm::new(80_000);
/// Of what is lost, one part in so many may stay so,
const REMAINDER: f64 = 50.0;
/// or this share of all messages.
const LOST_AFTER: f64 = 0.000_2;
/// The least time of a block: timers go off at milliseconds.
const TIME_MIN: Duration = Duration::from_millis(2);
/// The most: what an end can wait for beside half a path's delay.
const TIME_MAX: Duration = Duration::from_millis(20);
/// A block's time is this part of the round trip, which is what it saves.
const TIME_PART: u32 = 4;

/// Where a lane's messages are worth coding.
#[derive(Clone, Copy, Debug)]
struct Worth {
    lost_on: LossPpm,
    lost_off: LossPpm,
    round_trip_min: Duration,
}

/// As for twins.
const REALTIME: Worth = Worth {
    lost_on: LossPpm::new(2_000),
    lost_off: LossPpm::new(1_500),
    round_trip_min: Duration::from_millis(8),
};
/// A stream waits for a lost frame by a round trip and a reorder window of an eighth. Below this that is no
/// more than what its end bears from a queue.
const BULK: Worth = Worth {
    lost_on: LossPpm::new(5_000),
    lost_off: LossPpm::new(3_500),
    round_trip_min: Duration::from_millis(40),
};

/// The decision for one lane of one link, which changes with each heartbeat at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    worth: Worth,
    on: bool,
    /// Too much is lost, and has been since it was more than may be.
    drowned: bool,
    lost: f64,
    time: Duration,
    messages: usize,
}

impl Plan {
    pub(super) fn new(lane: Lane) -> Self {
        let worth = match lane {
            Lane::Realtime => REALTIME,
            Lane::Light | Lane::Bulk => BULK,
        };
        Self { worth, on: false, drowned: false, lost: 0.0, time: TIME_MIN, messages: 0 }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// How long a block may take.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// How many messages it may have.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// How many repairs are enough for a block of so many messages; as many as these at most, which costs what
    /// sending them twice would.
    pub(super) fn repairs(&self, messages: usize) -> usize {
        let enough = |&repairs: &usize| is_enough(self.lost, messages, repairs);
        (1..REPAIRS_MAX).find(enough).unwrap_or(REPAIRS_MAX).min(messages)
    }

    /// Takes the share of ours that the neighbour finds lost, if it makes use of repairs and says so, and the
    /// link's round trip.
    pub(super) fn handle_lost(&mut self, lost: Option<LossPpm>, round_trip: Duration) {
        let Some(lost) = lost else {
            self.on = false;
            return;
        };
        self.drowned = lost >= if self.drowned { LOST_BEARABLE } else { LOST_MAX };
        let least = if self.on { self.worth.lost_off } else { self.worth.lost_on };
        self.on = lost >= least && !self.drowned && round_trip >= self.worth.round_trip_min;
        self.lost = f64::from(lost.ppm()) / 1e6;
        self.time = (round_trip / TIME_PART).clamp(TIME_MIN, TIME_MAX);
        let borne = |&messages: &usize| is_enough(self.lost, messages, REPAIRS_MAX);
        self.messages = (1..=REPAIR_MESSAGES_MAX).rev().find(borne).unwrap_or(1);
    }
}

/// Whether of a block with so many repairs no more stays lost than may be, where each datagram is lost by itself.
fn is_enough(lost: f64, messages: usize, repairs: usize) -> bool {
    // A message stays lost if as many of the others are lost as there are repairs.
    let others = messages - 1 + repairs;
    let mut exactly = (0..others).fold(1.0, |all, _| all * (1.0 - lost));
    let mut fewer = 0.0;
    for count in 0..repairs {
        fewer += exactly;
        let (left, next) = (f64_of(others - count), f64_of(count + 1));
        exactly *= left / next * lost / (1.0 - lost);
    }
    let stays = lost * (1.0 - fewer);
    stays <= LOST_AFTER.max(lost / REMAINDER)
}

fn f64_of(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("no more than a block and its repairs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ppm: u32, millis: u64) -> Plan {
        let mut plan = Plan::new(Lane::Realtime);
        plan.handle_lost(Some(LossPpm::new(ppm)), Duration::from_millis(millis));
        plan
    }

    #[test]
    fn blocks_begin_and_end_with_the_loss_that_the_neighbour_finds() {
        let mut plan = Plan::new(Lane::Bulk);
        let mut after = |ppm: Option<u32>, millis| {
            plan.handle_lost(ppm.map(LossPpm::new), Duration::from_millis(millis));
            plan.is_on()
        };

        assert!(!after(Some(4_999), 150) && after(Some(5_000), 150));
        assert!(after(Some(3_500), 150) && !after(Some(3_499), 150) && !after(Some(4_999), 150));
        assert!(!after(Some(20_000), 39) && after(Some(20_000), 40));
        assert!(after(Some(99_999), 150) && !after(Some(100_000), 150));
        assert!(!after(Some(80_000), 150) && after(Some(79_999), 150));
        assert!(!after(None, 150), "a neighbour that makes no use of repairs");
    }

    #[test]
    fn more_loss_has_more_repairs_and_then_shorter_blocks() {
        let figures = |ppm| {
            let plan = plan(ppm, 150);
            (plan.messages(), plan.repairs(plan.messages()))
        };
        assert_eq!(figures(2_000), (16, 1));
        assert_eq!(figures(10_000), (16, 2));
        assert_eq!(figures(20_000), (16, 3));
        assert_eq!(figures(50_000), (10, 3));
        assert_eq!(figures(99_999), (4, 3));
        assert_eq!([1, 2, 6, 16].map(|messages| plan(25_000, 150).repairs(messages)), [1, 2, 2, 3]);
    }

    #[test]
    fn a_block_takes_a_quarter_of_the_round_trip_within_bounds() {
        for (millis, expected) in [(0, 2), (8, 2), (40, 10), (150, 20)] {
            assert_eq!(plan(20_000, millis).time(), Duration::from_millis(expected));
        }
    }
}
