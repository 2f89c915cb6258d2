//! Which numbers of a lane are missing, when to ask for them, and which came already.
//!
//! A number goes through these states:
//!
//! ```text
//!                           arrives by itself           arrives, asked for
//!   expected -----> here <---------------------+ <-----------------------------+
//!      |                                       |                               |
//!      | a greater one arrives   window passes |     pause passes              | pause passes
//!      +----------------------> missing ----> asked 1 ----> asked 2 ... ---------> given up
//! ```
//!
//! The numbers that are missing stand as runs in one queue for each state, in order of number and of the time when
//! they move on; a number that arrived stays in its run, and its bit says that it is here. So a frame in order
//! costs a bit and no look at any queue, and a timer looks at the fronts of a few.
//!
//! Numbers of which only the neighbour's word tells (a heartbeat's or a tail probe's) are not missing while others of
//! the lane keep arriving: those are ahead of them in the same connection's queue.
//!
//! What never happens: a number taken twice, as long as it is among the last [`WINDOW`], and older ones are
//! not taken; more than [`CHASED_MAX`] numbers missing at a time, for then the oldest are given up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::lateness::Lateness;
use super::quota::Quota;
use super::stats::RecoveryStats;
use super::{Manner, Pause};
use crate::ring::is_before;

mod asking;
mod bits;

use bits::{Bits, WINDOW};

/// Numbers that may be missing at a time: what a gigabit a second brings in forty milliseconds, an outage
/// that nobody suspects yet.
const CHASED_MAX: u32 = 4_096;
/// A jump of more numbers than this, either way, is a neighbour that counts anew: as in the probe's reading
/// of loss.
const JUMP_MAX: u32 = 1_000_000;
/// A lane whose first number is below this lost those before it; a greater one means that the lane is older than
/// what is known of it.
const FIRST_MAX: u32 = 64;
/// One number is asked for, for every two that arrive,
const ASK_SHARE: u64 = 2;
/// and so many besides: a neighbour that jumps ahead with every frame is not answered with a flood of questions.
const ASK_BURST: u64 = CHASED_MAX as u64;

/// What a number is that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The next, or one beyond.
    New,
    /// It was overtaken, and came by itself.
    Late,
    /// It was missing, and came because it was asked for.
    Recovered,
    /// It was missing, and was given up or never sought.
    Forgotten,
    /// It was overtaken, by a second copy of it or by what it could be computed from.
    Overtaken,
    /// It came before, or is too old to tell.
    Duplicate,
}

/// How a number came that was neither sent first nor asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    /// By a second copy.
    Twin,
    /// It was computed from repairs.
    Rebuilt,
}

/// Numbers in a row, some of which may have arrived since.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    count: u32,
    /// When it moves on.
    due: Instant,
    /// Since when it has been missing.
    since: Instant,
    /// When it was first asked for, if it was.
    asked: Instant,
    /// Only the neighbour's word told of it.
    told: bool,
}

/// The neighbour's word that everything before `next` was sent, which is more than arrived.
#[derive(Clone, Copy, Debug)]
struct Told {
    next: u32,
    since: Instant,
    due: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gaps {
    /// One more than the greatest number that arrived or is missing.
    end: Option<u32>,
    bits: Bits,
    /// Which of them came another way, not asked for, and have not come by themselves.
    spared: Bits,
    pauses: &'static [Pause],
    /// What was not asked for yet, what was once, and so on; the last is given up when due.
    stages: Vec<VecDeque<Run>>,
    /// How many numbers in the runs are missing.
    chased: u32,
    told: Option<Told>,
    round_trip: Duration,
    /// Of numbers overtaken by greater ones.
    lateness: Lateness,
    /// Of numbers overtaken by word of them.
    lateness_told: Lateness,
    /// Until when repairs are expected, and how long after a frame they come.
    repairs: Option<(Instant, Duration)>,
    /// Nothing is asked for before.
    held_until: Option<Instant>,
    asks: Quota,
    stats: RecoveryStats,
}

impl Gaps {
    /// A lane of which nothing came. A number is asked for once before each pause, and given up after the last.
    pub(crate) fn new(manner: &Manner, now: Instant) -> Self {
        let Manner { pauses, window_part, .. } = *manner;
        Self {
            end: None,
            bits: Bits::default(),
            spared: Bits::default(),
            pauses,
            stages: (0..=pauses.len()).map(|_| VecDeque::new()).collect(),
            chased: 0,
            told: None,
            round_trip: Duration::ZERO,
            lateness: Lateness::new(window_part),
            lateness_told: Lateness::new(window_part),
            repairs: None,
            held_until: None,
            asks: Quota::new(ASK_SHARE, ASK_BURST, now),
            stats: RecoveryStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> &RecoveryStats {
        &self.stats
    }

    /// The link's round trip, zero if not known.
    pub(crate) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Takes a number that arrived. What it shows to be missing is asked for if `chasing`.
    pub(crate) fn handle_number(&mut self, number: u32, chasing: bool, now: Instant) -> Arrival {
        let end = self.end_before(number, chasing);
        let ahead = number.wrapping_sub(end).cast_signed();
        if ahead >= 0 {
            self.asks.earn(1, now);
            let found = (chasing && ahead > 0).then(|| {
                let due = now + self.patience(&self.lateness, now);
                Told { next: number, since: now, due }
            });
            self.advance(number.wrapping_add(1), found, false);
            self.bits.set(number);
            self.put_off_told(number.wrapping_add(1), now);
            return Arrival::New;
        }
        if ahead.unsigned_abs() > WINDOW || self.bits.has(number) {
            self.stats.duplicates += 1;
            let overtaken = ahead.unsigned_abs() <= WINDOW && self.spared.has(number);
            self.spared.clear(number, u32::from(overtaken));
            return if overtaken { Arrival::Overtaken } else { Arrival::Duplicate };
        }
        self.bits.set(number);
        self.fill(number, None, now)
    }

    /// Takes the next number and so many after it that arrived together, if they are the next and no more than
    /// [`WINDOW`]; says whether they are, for otherwise each has to be looked at.
    #[inline]
    pub(crate) fn handle_next(&mut self, first: u32, count: u32, now: Instant) -> bool {
        if self.end != Some(first) || !(1..=WINDOW).contains(&count) {
            return false;
        }
        let next = first.wrapping_add(count);
        self.asks.earn(count.into(), now);
        self.drop_before(next.wrapping_sub(WINDOW));
        self.bits.set_all(first, count);
        self.spared.clear(first, count);
        self.end = Some(next);
        self.put_off_told(next, now);
        true
    }

    /// Takes a number that came another way, not asked for. That it came before is no surprise.
    pub(crate) fn handle_spare(
        &mut self,
        number: u32,
        spare: Spare,
        chasing: bool,
        now: Instant,
    ) -> Arrival {
        let end = self.end_before(number, chasing);
        let ahead = number.wrapping_sub(end).cast_signed();
        if ahead >= 0 {
            self.count_spare(spare);
            let arrival = self.handle_number(number, chasing, now);
            self.spared.set(number);
            return arrival;
        }
        if ahead.unsigned_abs() > WINDOW || self.bits.has(number) {
            return Arrival::Duplicate;
        }
        self.bits.set(number);
        self.fill(number, Some(spare), now)
    }

    fn count_spare(&mut self, spare: Spare) {
        match spare {
            Spare::Twin => self.stats.spared += 1,
            Spare::Rebuilt => self.stats.rebuilt += 1,
        }
    }

    /// Until then repairs are expected, so long after a frame.
    pub(crate) fn expect_repairs(&mut self, until: Instant, wait: Duration) {
        self.repairs = Some((until, wait));
    }

    /// Whether a number came, or is so far back that it counts as such.
    pub(crate) fn is_here(&self, number: u32) -> bool {
        let behind = self.end.map(|end| end.wrapping_sub(number).cast_signed());
        behind.is_some_and(|behind| {
            behind > 0 && (behind.unsigned_abs() > WINDOW || self.bits.has(number))
        })
    }

    /// Whether a number that comes now comes as it was sent first: it was not asked for.
    pub(crate) fn is_first(&self, number: u32) -> bool {
        let is_next = self.end.is_none_or(|end| !is_before(number, end));
        is_next || find(&self.stages[0], number).is_some()
    }

    /// How long a number has been missing, zero if nobody knew.
    pub(crate) fn missing_for(&self, number: u32, now: Instant) -> Duration {
        let run = self.stages.iter().find_map(|runs| find(runs, number));
        run.map_or(Duration::ZERO, |run| now.saturating_duration_since(run.since))
    }

    /// How long a number may be missing before it is asked for: as long as it may be late, and as its repair takes.
    fn patience(&self, lateness: &Lateness, now: Instant) -> Duration {
        let repair = self.repairs.filter(|(until, _)| now < *until);
        lateness.window(self.round_trip, now) + repair.map_or(Duration::ZERO, |(_, wait)| wait)
    }

    /// Takes the neighbour's word that all numbers before `next` were sent.
    pub(crate) fn handle_told(&mut self, next: u32, chasing: bool, now: Instant) {
        let end = self.end_before(next, chasing);
        if !is_before(end, next) {
            return;
        }
        if !chasing {
            self.told = None;
            return self.advance(next, None, true);
        }
        let due = now + self.patience(&self.lateness_told, now);
        let told = self.told.get_or_insert(Told { next, since: now, due });
        if is_before(told.next, next) {
            told.next = next;
        }
    }

    /// The end as it is, or as it must have been for this number to make sense.
    fn end_before(&mut self, number: u32, chasing: bool) -> u32 {
        let is_jump = |end| number.wrapping_sub(end).cast_signed().unsigned_abs() > JUMP_MAX;
        match self.end {
            Some(end) if !is_jump(end) => end,
            Some(_) | None => {
                self.forget();
                let first = if chasing && number < FIRST_MAX { 0 } else { number };
                self.end = Some(first);
                first
            }
        }
    }

    /// While numbers arrive, those that were only told of are behind them.
    fn put_off_told(&mut self, end: u32, now: Instant) {
        if self.told.is_none() {
            return;
        }
        let due = self.told.map(|_| now + self.patience(&self.lateness_told, now));
        let (Some(told), Some(due)) = (&mut self.told, due) else { return };
        if is_before(end, told.next) {
            (told.since, told.due) = (now, due);
        } else {
            self.told = None;
        }
    }

    /// Moves the end on to `next`; `found` says up to which number there is a gap, since when, and until
    /// when it may be mere reordering.
    fn advance(&mut self, next: u32, found: Option<Told>, told: bool) {
        let end = self.end.expect("callers have set it");
        self.drop_before(next.wrapping_sub(WINDOW));
        self.bits.clear(end, next.wrapping_sub(end));
        self.spared.clear(end, next.wrapping_sub(end));
        self.end = Some(next);
        let Some(Told { next: to, since, due }) = found.filter(|found| found.next != end) else {
            return;
        };
        let missing = to.wrapping_sub(end);
        let count = missing.min(CHASED_MAX);
        self.stats.missing += u64::from(missing - count);
        self.stats.given_up += u64::from(missing - count);
        while self.chased + count > CHASED_MAX && self.give_up_oldest() {}
        self.chased += count;
        let first = to.wrapping_sub(count);
        self.stages[0].push_back(Run { first, count, due, since, asked: since, told });
    }

    /// A number that is not here, at or before the greatest.
    fn fill(&mut self, number: u32, spare: Option<Spare>, now: Instant) -> Arrival {
        let mut stages = self.stages.iter().enumerate();
        let Some((stage, run)) = stages.find_map(|(at, runs)| Some((at, find(runs, number)?)))
        else {
            return Arrival::Forgotten;
        };
        self.chased -= 1;
        // An answer takes a round trip; what came much sooner was under way already.
        let answered = now.saturating_duration_since(run.asked) >= self.round_trip * 3 / 4;
        if stage > 0 && answered && spare.is_none() {
            self.stats.recovered += 1;
            return Arrival::Recovered;
        }
        // A twin that is due soon is worth waiting for, too; repairs say themselves how long.
        if spare != Some(Spare::Rebuilt) {
            let lateness = if run.told { &mut self.lateness_told } else { &mut self.lateness };
            lateness.note(now.saturating_duration_since(run.since), now);
        }
        let Some(spare) = spare else {
            self.stats.late += 1;
            return Arrival::Late;
        };
        self.count_spare(spare);
        if stage == 0 {
            self.spared.set(number);
        }
        Arrival::Recovered
    }

    /// The neighbour counts anew: nothing is known of its numbers.
    pub(crate) fn forget(&mut self) {
        self.forgive();
        self.end = None;
        self.repairs = None;
        self.bits = Bits::default();
        self.spared = Bits::default();
    }

    /// Whatever is missing now is not asked for.
    pub(crate) fn forgive(&mut self) {
        self.stages.iter_mut().for_each(VecDeque::clear);
        self.chased = 0;
        self.told = None;
    }

    /// Asks for nothing before: what seems to be missing may wait to be read.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.held_until = Some(until);
    }

    /// The first number that may still be asked for.
    pub(crate) fn complete_next(&mut self) -> u32 {
        let Some(mut oldest) = self.end else { return 0 };
        for stage in &mut self.stages {
            while let Some(run) = stage.front() {
                if let Some((first, _)) = self.bits.missing(run.first, run.count).next() {
                    oldest = if is_before(first, oldest) { first } else { oldest };
                    break;
                }
                stage.pop_front();
            }
        }
        oldest
    }

    /// When [`Self::ask`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let runs = self.stages.iter().filter_map(|stage| stage.front().map(|run| run.due));
        let due = runs.chain(self.told.map(|told| told.due)).min()?;
        Some(self.held_until.map_or(due, |until| due.max(until)))
    }
}

/// The run that a number is in.
fn find(runs: &VecDeque<Run>, number: u32) -> Option<Run> {
    let at = runs.partition_point(|run| !is_before(number, run.first.wrapping_add(run.count)));
    runs.get(at).copied().filter(|run| !is_before(number, run.first))
}

#[cfg(test)]
mod tests;
