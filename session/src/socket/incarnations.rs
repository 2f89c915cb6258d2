//! Which incarnation of a far end lives.
//!
//! ```text
//!                 another is heard                    1 s, 3 hails, not a word
//!   established ------------------> challenged ------------------------------> the other is established,
//!        ^                              |                                      strays of the old one
//!        +------------------------------+                                      are dropped for 2 s
//!              heard again: the other is dropped
//! ```
//!
//! One frame proves nothing: whoever carries frames can forge its incarnation, and one of an earlier
//! incarnation may be replayed late. So both are heard, and the established one is hailed; if it lives, it
//! answers. That the challenge is against the established one, whoever the newcomer is, means that
//! newcomers which alternate neither multiply nor put the end off.

use std::time::{Duration, Instant};

use overway_wire::FlowId;

/// Silence that ends an incarnation while another is heard: two round trips of the longest path, and a
/// hail's wait before them.
const SILENCE: Duration = Duration::from_secs(1);
/// Hails that went unanswered before. A process that was stopped has sent none, and ends nobody.
const HAILS_MIN: u32 = 3;
/// No newcomer is heard for so long: it was a stray.
const LAPSE: Duration = Duration::from_secs(2);
/// Frames of an incarnation that ended are under way for their budget at most.
const STRAYS: Duration = super::BUDGET;

/// What a frame's incarnation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// One of the two that were known.
    Known,
    /// The newcomer came, was replaced or went: only [`Incarnations::lives`] tells whose lanes are left.
    Changed,
    /// This one ended; the frame's own is established.
    Ended(FlowId),
    /// It ended before; the frame is to be dropped.
    Stray,
}

/// The incarnations of one far end.
#[derive(Debug)]
pub(super) struct Incarnations {
    established: FlowId,
    newcomer: Option<FlowId>,
    challenge: Option<Challenge>,
    ended: Option<(FlowId, Instant)>,
}

#[derive(Debug)]
struct Challenge {
    since: Instant,
    /// When a newcomer was heard.
    heard: Instant,
    hails: u32,
}

impl Incarnations {
    pub(super) fn new(established: FlowId) -> Self {
        Self { established, newcomer: None, challenge: None, ended: None }
    }

    /// Whether frames of this incarnation are taken.
    pub(super) fn lives(&self, flow: FlowId) -> bool {
        self.established == flow || self.newcomer == Some(flow)
    }

    /// Takes notice of a frame.
    pub(super) fn handle_frame(&mut self, flow: FlowId, now: Instant) -> Heard {
        if flow == self.established {
            self.challenge = None;
            return if self.newcomer.take().is_some() { Heard::Changed } else { Heard::Known };
        }
        if let Some((ended, at)) = self.ended
            && ended == flow
            && now.saturating_duration_since(at) < STRAYS
        {
            return Heard::Stray;
        }
        let replaced = self.newcomer.replace(flow);
        if self.challenge.as_ref().is_none_or(|challenge| challenge.has_lapsed(now)) {
            self.challenge = Some(Challenge { since: now, heard: now, hails: 0 });
        }
        if let Some(challenge) = &mut self.challenge {
            challenge.heard = now;
            let silent = now.saturating_duration_since(challenge.since);
            if silent >= SILENCE && challenge.hails >= HAILS_MIN {
                return self.end(flow, now);
            }
        }
        if replaced == Some(flow) { Heard::Known } else { Heard::Changed }
    }

    /// Whether the established incarnation should be hailed.
    pub(super) fn is_challenged(&self, now: Instant) -> bool {
        self.challenge.as_ref().is_some_and(|challenge| !challenge.has_lapsed(now))
    }

    /// Takes notice of a hail that was sent.
    pub(super) fn handle_hail(&mut self) {
        if let Some(challenge) = &mut self.challenge {
            challenge.hails = challenge.hails.saturating_add(1);
        }
    }

    fn end(&mut self, successor: FlowId, now: Instant) -> Heard {
        let ended = std::mem::replace(&mut self.established, successor);
        self.ended = Some((ended, now));
        self.newcomer = None;
        self.challenge = None;
        Heard::Ended(ended)
    }
}

impl Challenge {
    fn has_lapsed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= LAPSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: FlowId = FlowId(1);
    const NEW: FlowId = FlowId(2);
    const FORGED: FlowId = FlowId(3);
    const STEP: Duration = Duration::from_millis(250);

    /// Steps of a quarter of a second, each with a hail and then a frame of `flows` in turn.
    fn hear(
        far: &mut Incarnations,
        now: &mut Instant,
        steps: usize,
        flows: &[FlowId],
    ) -> Vec<Heard> {
        let step = |at: usize| {
            *now += STEP;
            far.handle_hail();
            far.handle_frame(flows[at % flows.len()], *now)
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn one_frame_of_another_incarnation_ends_nothing() {
        let (mut far, now) = (Incarnations::new(OLD), Instant::now());

        assert_eq!(far.handle_frame(FORGED, now), Heard::Changed);
        assert!(far.lives(OLD) && far.lives(FORGED) && far.is_challenged(now));

        assert_eq!(far.handle_frame(OLD, now + STEP), Heard::Changed);
        assert!(far.lives(OLD) && !far.lives(FORGED) && !far.is_challenged(now + STEP));
    }

    #[test]
    fn an_incarnation_that_answers_outlives_any_number_of_forged_frames() {
        let (mut far, mut now) = (Incarnations::new(OLD), Instant::now());

        let heard = hear(&mut far, &mut now, 100, &[FORGED, NEW, FORGED, OLD]);

        assert!(!heard.contains(&Heard::Ended(OLD)) && far.lives(OLD), "{heard:?}");
    }

    #[test]
    fn an_incarnation_that_is_silent_for_a_second_has_ended() {
        let (mut far, mut now) = (Incarnations::new(OLD), Instant::now());

        let heard = hear(&mut far, &mut now, 5, &[NEW]);

        assert_eq!(heard[..4], [Heard::Changed, Heard::Known, Heard::Known, Heard::Known]);
        assert_eq!(heard[4], Heard::Ended(OLD));
        assert!(far.lives(NEW) && !far.lives(OLD));
    }

    #[test]
    fn newcomers_in_turn_do_not_put_the_end_off() {
        let (mut far, mut now) = (Incarnations::new(OLD), Instant::now());

        let heard = hear(&mut far, &mut now, 5, &[FORGED, NEW]);

        assert_eq!(heard[4], Heard::Ended(OLD));
    }

    #[test]
    fn who_was_not_hailed_has_not_ended() {
        let (mut far, mut now) = (Incarnations::new(OLD), Instant::now());
        for _ in 0..20 {
            now += STEP;
            assert_ne!(far.handle_frame(NEW, now), Heard::Ended(OLD));
        }
    }

    #[test]
    fn a_stray_and_another_much_later_are_not_a_second_of_silence() {
        let (mut far, mut now) = (Incarnations::new(OLD), Instant::now());
        hear(&mut far, &mut now, 4, &[FORGED]);
        now += LAPSE;
        assert!(!far.is_challenged(now));

        assert_eq!(far.handle_frame(FORGED, now), Heard::Known);
        assert!(far.is_challenged(now));
    }

    #[test]
    fn strays_of_an_ended_incarnation_are_dropped_until_none_can_be_left() {
        let (mut far, mut now) = (Incarnations::new(OLD), Instant::now());
        hear(&mut far, &mut now, 5, &[NEW]);

        assert_eq!(far.handle_frame(OLD, now + STEP), Heard::Stray);
        assert!(!far.is_challenged(now + STEP));
        assert_eq!(far.handle_frame(OLD, now + STRAYS), Heard::Changed);
    }
}
