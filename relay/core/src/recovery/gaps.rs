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

use overway_wire::hop::{NACK_NUMBERS_MAX, NackRange};

use super::lateness::Lateness;
use super::quota::Quota;
use super::stats::RecoveryStats;
use super::{Manner, Pause, pop_if};
use crate::ring::is_before;

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
/// A question is put again this soon where its loss would cost too much time: beyond most bursts of loss, and
/// well within a round trip.
const TWIN_AFTER: Duration = Duration::from_millis(4);
/// Least pause for an answer: a neighbour on the same machine may still be a timer's grain late at either end.
const ANSWER_MIN: Duration = Duration::from_millis(10);

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
    /// It came before, or is too old to tell.
    Duplicate,
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
            pauses,
            stages: (0..=pauses.len()).map(|_| VecDeque::new()).collect(),
            chased: 0,
            told: None,
            round_trip: Duration::ZERO,
            lateness: Lateness::new(window_part),
            lateness_told: Lateness::new(window_part),
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
                let due = now + self.lateness.window(self.round_trip, now);
                Told { next: number, since: now, due }
            });
            self.advance(number.wrapping_add(1), found, false);
            self.bits.set(number);
            self.put_off_told(number.wrapping_add(1), now);
            return Arrival::New;
        }
        if ahead.unsigned_abs() > WINDOW || self.bits.has(number) {
            self.stats.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.bits.set(number);
        self.fill(number, false, now)
    }

    /// Takes a second copy of a number, which was not asked for. That it came before is no surprise.
    pub(crate) fn handle_twin(&mut self, number: u32, chasing: bool, now: Instant) -> Arrival {
        let end = self.end_before(number, chasing);
        let ahead = number.wrapping_sub(end).cast_signed();
        if ahead >= 0 {
            self.stats.spared += 1;
            return self.handle_number(number, chasing, now);
        }
        if ahead.unsigned_abs() > WINDOW || self.bits.has(number) {
            return Arrival::Duplicate;
        }
        self.bits.set(number);
        self.fill(number, true, now)
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
        let due = now + self.lateness_told.window(self.round_trip, now);
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
        let Some(told) = &mut self.told else { return };
        if is_before(end, told.next) {
            told.since = now;
            told.due = now + self.lateness_told.window(self.round_trip, now);
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
    fn fill(&mut self, number: u32, twin: bool, now: Instant) -> Arrival {
        let mut stages = self.stages.iter().enumerate();
        let Some((stage, run)) = stages.find_map(|(at, runs)| Some((at, find(runs, number)?)))
        else {
            return Arrival::Forgotten;
        };
        self.chased -= 1;
        // An answer takes a round trip; what came much sooner was under way already.
        let answered = now.saturating_duration_since(run.asked) >= self.round_trip * 3 / 4;
        if stage > 0 && answered && !twin {
            self.stats.recovered += 1;
            return Arrival::Recovered;
        }
        // A twin that is due soon is worth waiting for, too.
        let lateness = if run.told { &mut self.lateness_told } else { &mut self.lateness };
        lateness.note(now.saturating_duration_since(run.since), now);
        if twin {
            self.stats.spared += 1;
            return Arrival::Recovered;
        }
        self.stats.late += 1;
        Arrival::Late
    }

    /// The neighbour counts anew: nothing is known of its numbers.
    pub(crate) fn forget(&mut self) {
        self.forgive();
        self.end = None;
        self.bits = Bits::default();
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

    /// Adds to `ranges` what is to be asked for now, and gives up what was asked for often enough.
    pub(crate) fn ask(&mut self, now: Instant, ranges: &mut Vec<NackRange>) {
        if self.held_until.is_some_and(|until| now < until) {
            return;
        }
        self.held_until = None;
        if let Some(told) = self.told.take_if(|told| told.due <= now) {
            self.advance(told.next, Some(told), true);
        }
        // The last stage first, so that nothing moves on twice.
        for stage in (0..self.stages.len()).rev() {
            while let Some(run) = pop_if(&mut self.stages[stage], |run| run.due <= now) {
                match self.pauses.get(stage) {
                    Some(&pause) => self.ask_for(run, stage, pause, now, ranges),
                    None => {
                        self.give_up(run);
                    }
                }
            }
        }
    }

    fn ask_for(
        &mut self,
        run: Run,
        stage: usize,
        pause: Pause,
        now: Instant,
        ranges: &mut Vec<NackRange>,
    ) {
        let due = now + self.length(pause, now);
        let asked = if stage == 0 { now } else { run.asked };
        for (mut first, mut count) in self.bits.missing(run.first, run.count) {
            self.stages[stage + 1].push_back(Run { first, count, due, asked, ..run });
            self.stats.missing += if stage == 0 { u64::from(count) } else { 0 };
            while count > 0 {
                let part = count.min(NACK_NUMBERS_MAX);
                if self.asks.take(u64::from(part), now) {
                    let count = u16::try_from(part).expect("at most 512");
                    ranges.push(NackRange { first, count });
                    self.stats.asked += u64::from(part);
                } else {
                    self.stats.asks_over_budget += u64::from(part);
                }
                (first, count) = (first.wrapping_add(part), count - part);
            }
        }
    }

    fn length(&self, pause: Pause, now: Instant) -> Duration {
        match pause {
            Pause::Twin => TWIN_AFTER,
            Pause::Answer => {
                let answer = self.round_trip * 5 / 4;
                answer.max(self.lateness.window(self.round_trip, now)).max(ANSWER_MIN)
            }
        }
    }

    /// Gives up what is to leave the bits.
    fn drop_before(&mut self, number: u32) {
        if self.chased == 0 {
            return;
        }
        for stage in 0..self.stages.len() {
            while let Some(run) =
                pop_if(&mut self.stages[stage], |run| is_before(run.first, number))
            {
                self.give_up_unasked(run, stage);
            }
        }
    }

    fn give_up_oldest(&mut self) -> bool {
        let oldest = (0..self.stages.len()).rev().find(|&at| !self.stages[at].is_empty());
        let Some(stage) = oldest else { return false };
        if let Some(run) = self.stages[stage].pop_front() {
            self.give_up_unasked(run, stage);
        }
        true
    }

    fn give_up_unasked(&mut self, run: Run, stage: usize) {
        let missing = self.give_up(run);
        self.stats.missing += if stage == 0 { u64::from(missing) } else { 0 };
    }

    fn give_up(&mut self, run: Run) -> u32 {
        let missing = self.bits.missing(run.first, run.count).map(|(_, count)| count).sum();
        self.chased -= missing;
        self.stats.given_up += u64::from(missing);
        missing
    }
}

/// The run that a number is in.
fn find(runs: &VecDeque<Run>, number: u32) -> Option<Run> {
    let at = runs.partition_point(|run| !is_before(number, run.first.wrapping_add(run.count)));
    runs.get(at).copied().filter(|run| !is_before(number, run.first))
}

#[cfg(test)]
mod tests;
