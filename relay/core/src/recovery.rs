//! Recovery of frames that a hop lost, between the two relays at its ends.
//!
//! ```text
//!  sender                                            receiver
//!  number, ring --- frames (realtime, bulk lane) --> gaps: new, late or duplicate --> handed on as they come
//!    |                                                | window passes
//!    +--- tail probe, heartbeat (light lane) -------->|
//!  resends: ring, budget <------ NACK (light lane) ---+ again after a round trip, or given up
//!    |
//!    +--- the same number again --------------------> recovered: handed on; or a duplicate: dropped
//!    +--- twin, 3 ms later, on lossy lines ---------> spared: handed on; mostly it came before: dropped
//!    +--- repairs of a block, on lossy lines -------> rebuilt: handed on; mostly nothing is missing: dropped
//! ```
//!
//! The receiver knows which numbers are missing ([`gaps`]) and asks for them once they have been so for longer than
//! reordering lasts here ([`lateness`]). The sender keeps what it sent in its ring until the neighbour's heartbeat
//! says that it will not be asked for, and sends it again within a budget ([`resends`]). On the realtime lane
//! question and answer are sent twice, milliseconds apart, since a round trip more is what realtime frames cannot
//! wait for. On a long line that loses more than now and then even one round trip is too much: there realtime frames
//! are sent twice without a question ([`twins`]), unless they are marked as copies; or, where there are many, and on the
//! bulk lane, in blocks with repairs, from which lost ones are computed ([`coding`]). Twins and repairs take no more of a
//! line than copies may ([`crate::budget`]), and leave half of what is saved up to those. Nothing waits for a frame
//! that is missing.
//!
//! Late by how much: a frame that was lost once comes a reorder window and a round trip after the frame behind it, or
//! after the tail probe, which is 5 ms behind (2 on the realtime lane). One that is lost over and over is given up
//! three pauses after the window (two on the realtime lane), a pause being five quarters of a round trip, the window, or
//! 10 ms, whichever is most.
//!
//! A neighbour whose heartbeats do not say what is complete is of a version that recovers nothing: it is asked for
//! nothing and sent no tail probes.

mod coding;
mod driving;
mod gaps;
mod lateness;
mod quota;
mod repairing;
mod resends;
mod stats;
mod tail;
mod twins;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use overway_wire::hop::Lane;

pub use coding::Fec;
pub(crate) use coding::Written;
use coding::{Coder, Rebuilder};
pub(crate) use gaps::Arrival;
use gaps::Gaps;
use resends::Resends;
pub use stats::RecoveryStats;
use tail::Tail;
pub(crate) use twins::{Twins, lost_share};

/// After a sleep of this process what waits to be read is read by then.
const READING_MAX: Duration = Duration::from_millis(50);
/// Interactive and bulk frames are asked for three times. Long paths reorder more, and there a window of an eighth of
/// the round trip delays recovery by little.
const PATIENT: Manner = Manner {
    pauses: &[Pause::Answer; 3],
    window_part: 8,
    tail_after: Duration::from_millis(5),
    answers_twice: false,
};
/// Realtime frames twice, each time twice. Their sender answers while their time budget lasts. A question too many
/// costs less than a millisecond: tail probes come after the frames of one tick of an application, and the
/// window is as narrow as reordering allows.
const HASTY: Manner = Manner {
    pauses: &[Pause::Twin, Pause::Answer, Pause::Twin, Pause::Answer],
    window_part: 32,
    tail_after: Duration::from_millis(2),
    answers_twice: true,
};

/// How a lane recovers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// What follows each question for a number.
    pauses: &'static [Pause],
    /// The least reorder window is this part of the round trip.
    window_part: u32,
    /// A tail probe follows the last frame after this long.
    tail_after: Duration,
    /// Whether each answer is sent twice.
    answers_twice: bool,
}

/// The pause after a number was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The question is put again at once, in case it is lost.
    Twin,
    /// For an answer.
    Answer,
}

/// Both ends of one lane's recovery, as one relay has them.
#[derive(Debug)]
pub(crate) struct LaneRecovery {
    pub(crate) gaps: Gaps,
    pub(crate) resends: Resends,
    pub(crate) tail: Tail,
    pub(crate) coder: Coder,
    pub(crate) rebuilder: Rebuilder,
    /// Messages, which neither of the above sees.
    pub(crate) messages: RecoveryStats,
}

impl LaneRecovery {
    pub(crate) fn new(lane: Lane, now: Instant) -> Self {
        let manner = match lane {
            Lane::Realtime => HASTY,
            Lane::Light | Lane::Bulk => PATIENT,
        };
        Self {
            gaps: Gaps::new(&manner, now),
            resends: Resends::new(manner.answers_twice, now),
            tail: Tail::new(manner.tail_after),
            coder: Coder::new(lane, now),
            rebuilder: Rebuilder::default(),
            messages: RecoveryStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> RecoveryStats {
        let mut sum = self.messages;
        sum.add(self.gaps.stats());
        sum.add(self.resends.stats());
        sum.add(self.coder.stats());
        sum.add(self.rebuilder.stats());
        sum
    }

    /// When anything of it is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let answers = earlier(self.resends.due(), self.tail.due());
        let repairs = earlier(self.coder.due(), self.rebuilder.due());
        earlier(self.gaps.due(), earlier(answers, repairs))
    }

    /// This process slept, and has to read before it knows what is missing.
    pub(crate) fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.gaps.hold(now + late_by.min(READING_MAX));
    }
}

/// The earlier of two times, of which there may be none. Asked after every batch of datagrams.
#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

/// Takes the first if it is wanted.
fn pop_if<T>(queue: &mut VecDeque<T>, is_wanted: impl FnOnce(&T) -> bool) -> Option<T> {
    queue.front().is_some_and(is_wanted).then(|| queue.pop_front())?
}
