//! What is asked for when, and given up.

use std::time::{Duration, Instant};

use overway_wire::hop::{NACK_NUMBERS_MAX, NackRange};

use super::{Gaps, Run};
use crate::recovery::{Pause, pop_if};
use crate::ring::is_before;

/// A question is put again this soon where its loss would cost too much time: beyond most bursts of loss, and
/// well within a round trip.
const TWIN_AFTER: Duration = Duration::from_millis(4);
/// Least pause for an answer: a neighbour on the same machine may still be a timer's grain late at either end.
const ANSWER_MIN: Duration = Duration::from_millis(10);

impl Gaps {
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
        let joins = self.joins(now);
        for stage in (0..self.stages.len()).rev() {
            let is_due = |run: &Run| run.due <= now || (stage == 0 && joins(run));
            while let Some(run) = pop_if(&mut self.stages[stage], is_due) {
                match self.pauses.get(stage) {
                    Some(&pause) => self.ask_for(run, stage, pause, now, ranges),
                    None => {
                        self.give_up(run);
                    }
                }
            }
        }
    }

    /// What is asked for together with what is due: gaps that have waited for as long as anything was late of late, and are
    /// not due only because the window is never less than a part of the round trip. Where many frames are lost, a question
    /// is for several losses.
    fn joins(&self, now: Instant) -> impl Fn(&Run) -> bool + use<> {
        let asks = self.stages[0].front().is_some_and(|run| run.due <= now);
        let repairs = self.repairs.is_some_and(|(until, _)| now < until);
        let since = now.checked_sub(self.lateness.needed(now)).filter(|_| asks && !repairs);
        move |run| !run.told && since.is_some_and(|since| run.since <= since)
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
    pub(super) fn drop_before(&mut self, number: u32) {
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

    pub(super) fn give_up_oldest(&mut self) -> bool {
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
