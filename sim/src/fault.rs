//! Faults: which, how long, and on what.
//!
//! The seed draws a list of faults with their times before the storm; on what each falls is drawn when it
//! begins, half of them on what traffic uses at that moment. Every fault ends with the storm at the latest.

use std::time::Duration;

use overway_wire::{LinkId, RelayId};

use crate::rng::Rng;

/// A sort of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A link loses everything, both ways.
    Cut,
    /// A link loses everything, one way.
    OneWayCut,
    /// All links of a relay lose everything, both ways.
    Isolation,
    /// A relay's process gets no time.
    Freeze,
    /// A relay's process dies, and starts anew.
    Kill,
    /// A link loses some, both ways.
    Loss,
    /// A link takes longer, one way.
    Slowdown,
    /// The scheduler dies, and another of the next term takes its place.
    SchedulerDeath,
    /// The scheduler's process gets no time.
    SchedulerFreeze,
    /// A relay and the scheduler do not reach one another.
    ControlCut,
    /// A relay's control connection breaks.
    ControlBreak,
    /// A cell is cut off from all other relays and from the scheduler. Where there are cells, once in each storm.
    CutOff,
}

/// A fault to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    pub(crate) kind: Kind,
}

/// What is to be undone at a fault's end.
#[derive(Clone, Debug)]
pub(crate) enum Applied {
    Cut(Vec<LinkId>),
    Frozen(RelayId),
    Killed(RelayId),
    Lossy(Vec<LinkId>),
    Slowed(LinkId, Duration),
    SchedulerDead,
    SchedulerFrozen,
    ControlCut(RelayId),
    CutOff { links: Vec<LinkId>, relays: Vec<RelayId> },
}

impl Kind {
    /// Each with how often it comes, relatively, and how long it lasts.
    const PROFILE: [(Self, u64, Duration, Duration); 11] = [
        (Self::Cut, 16, ms(20), ms(14_000)),
        (Self::OneWayCut, 14, ms(20), ms(14_000)),
        (Self::Isolation, 5, ms(50), ms(12_000)),
        (Self::Freeze, 18, ms(16), ms(12_500)),
        (Self::Kill, 8, ms(300), ms(8_000)),
        (Self::Loss, 14, ms(500), ms(9_000)),
        (Self::Slowdown, 8, ms(200), ms(9_000)),
        (Self::SchedulerDeath, 4, ms(100), ms(9_000)),
        (Self::SchedulerFreeze, 2, ms(50), ms(9_500)),
        (Self::ControlCut, 7, ms(100), ms(11_000)),
        (Self::ControlBreak, 4, ms(1), ms(2)),
    ];

    fn draw(rng: &mut Rng) -> (Self, Duration) {
        let total = Self::PROFILE.iter().map(|(_, weight, ..)| weight).sum();
        let mut left = rng.below(total);
        for (kind, weight, low, high) in Self::PROFILE {
            if left < weight {
                return (kind, rng.scale(low, high));
            }
            left -= weight;
        }
        (Self::ControlBreak, ms(1))
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Draws the faults of a storm, in order of their beginning.
pub(crate) fn storm(length: Duration, spacing: Duration, rng: &mut Rng) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut begin = Duration::ZERO;
    loop {
        begin += rng.span(Duration::from_millis(1), spacing * 2);
        if begin >= length {
            return planned;
        }
        let (kind, lasts) = Kind::draw(rng);
        planned.push(Planned { begin, end: (begin + lasts).min(length), kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_has_faults_of_every_kind_and_ends() {
        let length = Duration::from_secs(400);
        let planned = storm(length, Duration::from_millis(500), &mut Rng::new(1));

        for (kind, ..) in Kind::PROFILE {
            assert!(planned.iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
        assert!(planned.iter().all(|fault| fault.begin < fault.end && fault.end <= length));
        assert!((600..1_000).contains(&planned.len()), "{} faults", planned.len());
    }
}
