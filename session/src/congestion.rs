//! How much a session may have in flight: by measured rate and delay, hardly by loss.
//!
//! # Model
//!
//! Under a session lies a fabric that changes its paths and loses in bursts when a relay dies, and whose
//! bottleneck is mostly a relay's CPU or a kernel's socket buffer, seldom a shaped line. Hence:
//!
//! - Time is cut into **rounds**: a round ends when a packet sent after its start is acknowledged. Each round
//!   gives one rate (bytes acknowledged over its length), one RTT (its least), and one share of loss.
//!   All decisions are taken at the end of a round, one each.
//! - **Base RTT**: the least of the rounds' mean RTTs of the last 5 to 10 s; means, for one lucky packet on
//!   a jittery path is no base. **Queue delay**: the least RTT of the round's later half above it; the least,
//!   for one that was held back to restore order is no queue. **Target**: the greater of 10 ms (scheduling noise of a busy machine) and a quarter of the base.
//!   **Fill**: what the greatest recent rate fills in base RTT and half the target.
//! - The window **grows** in a round that was limited by it and has less than half the target of queue: by
//!   a step, which is 100 % in *startup*; later it starts at 3 % and doubles with every such round up to
//!   50 %, to twice the fill at most, so that a lot of new room is found in a few round trips and little is
//!   overshot else.
//! - Startup **ends** with the first queue, cut or mark, or when the rate has not grown by a quarter for three
//!   rounds; then the window becomes the fill.
//! - Queue above the target: the window **shrinks** to what the rate fills in base RTT and half the target,
//!   by 30 % at most.
//! - A queue of ours drains at the bottleneck's rate, whatever the window. If instead, after three rounds of
//!   shrinking, the rate has fallen with the window, there is no queue: the **path changed**. The base becomes
//!   the RTT of these rounds, and the window the fill. The same after 2 s in any case.
//! - **Loss** alone shrinks nothing. Only more than 5 % of a round, twice in a row, makes a *trial cut* to what
//!   was delivered, by 30 % at most. If three rounds later the loss is much the same, it does not come
//!   from us: the cut is undone and that share is taken for the path's own (it is forgotten as it
//!   falls). So a burst that dies with a relay costs nothing, and random loss one cut of a few rounds.
//! - **Marks** (ECN-CE) shrink the window by a tenth, once a round.
//! - A flow that always fills its window would never see the base RTT again; so every 5 s, and when the base
//!   has just fallen (a shorter path, whose own base is hidden by what is still in flight), the window is
//!   lowered to three quarters of rate times base for three rounds (**drain**).
//!
//! Rounds that are limited by the application shrink by neither delay nor rate: their RTT holds the far end's
//! delay of acknowledgements, their rate is the application's.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use round::{BaseRtt, Round};
use state::{Drain, Finding, Risen, Trial};

mod round;
mod state;
#[cfg(test)]
mod tests;

/// The window never goes below: enough packets that every acknowledgement (each 10 packets) comes at once.
const FLOOR_PACKETS: u64 = 16;
/// Before anything is known: a burst that every socket buffer holds, 48 KB.
const INITIAL_PACKETS: u64 = 40;
/// The window never goes above: the connection's flow control stops there anyway.
const WINDOW_BYTES_MAX: u64 = 64 << 20;
/// See the model.
const TARGET_MIN: Duration = Duration::from_millis(10);
/// A queue that stays this long is the path.
const RISEN_MAX: Duration = Duration::from_secs(2);
/// Rounds that a change of the window needs to show in RTT and loss: one to send, one to hear, one spare.
const ROUNDS_TO_SHOW: u32 = 3;
/// Rounds whose greatest rate counts.
const RATE_ROUNDS: usize = 10;
/// Above the path's own share, loss of more than this is taken for congestion.
const LOSS_SHARE_MAX: f64 = 0.05;
/// Fewer packets lost than this in a round say nothing about a share.
const LOSS_PACKETS_MIN: u64 = 4;
/// The most that one round takes off the window.
const CUT: f64 = 0.7;
const STEP_STARTUP: f64 = 1.0;
const STEP_LEAST: f64 = 1.0 / 32.0;
const STEP_MOST: f64 = 0.5;
/// Growth outside startup stops at this many fills.
const FILLS_MAX: f64 = 2.0;
/// The part of rate times base that a drain leaves.
const DRAIN: f64 = 0.75;

/// Makes a controller for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControllerConfig;

impl ControllerFactory for ControllerConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(RateDelay::new(now, current_mtu))
    }
}

/// The controller of one connection.
#[derive(Clone, Debug)]
pub(crate) struct RateDelay {
    mtu: u64,
    window: u64,
    step: f64,
    base: BaseRtt,
    /// Bytes per second of the last rounds, the newest at `rates_at`: each the lesser of that round's and
    /// the one's before, for a path that gets shorter delivers twice at once for a moment.
    rates: [f64; RATE_ROUNDS],
    rates_at: usize,
    last_rate: f64,
    drain_due: bool,
    /// Startup: the greatest rate, and rounds since it last grew by a quarter.
    plateau: (f64, u32),
    /// The path's own share of lost packets.
    path_loss: f64,
    lossy_rounds: u32,
    trial: Option<Trial>,
    risen: Option<Risen>,
    drain: Option<Drain>,
    round: Round,
}

impl RateDelay {
    fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: INITIAL_PACKETS * mtu,
            step: STEP_STARTUP,
            base: BaseRtt::new(now),
            rates: [0.0; RATE_ROUNDS],
            rates_at: 0,
            last_rate: 0.0,
            drain_due: false,
            plateau: (0.0, 0),
            path_loss: 0.0,
            lossy_rounds: 0,
            trial: None,
            risen: None,
            drain: None,
            round: Round::new(now),
        }
    }

    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        self.round.handle_ack(now, sent, bytes, app_limited, self.base.get());
    }

    fn end_acks(&mut self, now: Instant, in_flight: u64) {
        let batch = std::mem::take(&mut self.round.batch);
        self.round.in_flight_peak = self.round.in_flight_peak.max(in_flight + batch);
        if self.round.over {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            let Some(rtt) = round.rtt_mean() else { return };
            self.drain_due |= self.base.handle_rtt(rtt, now, self.target() / 2);
            let finding = self.find(&round, rtt, now);
            self.judge(finding, now);
        }
    }

    fn find(&self, round: &Round, rtt: Duration, now: Instant) -> Finding {
        let seconds = now.saturating_duration_since(round.start).as_secs_f64();
        let (acked, lost) = (round.acked as f64, round.lost as f64);
        let share = lost / (acked + lost);
        let rtt_late = round.rtt_late.unwrap_or(rtt);
        Finding {
            rate: acked / seconds,
            rtt,
            queue: rtt_late.saturating_sub(self.base.get()),
            share,
            lossy: share > self.path_loss + LOSS_SHARE_MAX
                && round.lost >= LOSS_PACKETS_MIN * self.mtu,
            limited: round.in_flight_peak >= self.window * 2 / 3
                && round.acked_idle * 2 <= round.acked,
            marked: round.marked,
        }
    }

    /// One decision for a finished round; see the model.
    fn judge(&mut self, finding: Finding, now: Instant) {
        self.note_rate(finding);
        self.path_loss = self.path_loss.min(finding.share.max(self.path_loss * 7.0 / 8.0));
        self.lossy_rounds = if finding.lossy { self.lossy_rounds + 1 } else { 0 };

        if finding.marked {
            self.leave_startup();
            self.shrink_to(self.window as f64 * 0.9);
        } else if self.judge_drain() {
            // Let it show.
        } else if finding.limited && finding.queue > self.target() {
            self.trial = None;
            self.judge_queue(finding, now);
        } else if self.judge_trial(finding) {
            self.risen = None;
        } else if self.lossy_rounds >= 2 {
            self.try_cut(finding);
        } else {
            self.risen = None;
            self.judge_room(finding);
            if std::mem::take(&mut self.drain_due) && finding.limited && self.step < STEP_STARTUP {
                self.start_drain();
            }
        }
    }

    fn note_rate(&mut self, finding: Finding) {
        let rate = finding.rate.min(self.last_rate);
        self.last_rate = finding.rate;
        if finding.limited || rate > self.rate() {
            self.rates_at = (self.rates_at + 1) % RATE_ROUNDS;
            self.rates[self.rates_at] = rate;
        }
    }

    /// Whether a trial is under way. At its end the cut is kept or undone.
    fn judge_trial(&mut self, finding: Finding) -> bool {
        let Some(trial) = &mut self.trial else { return false };
        trial.rounds += 1;
        if trial.rounds < ROUNDS_TO_SHOW {
            return true;
        }
        let Trial { window_before, share, .. } = *trial;
        self.trial = None;
        self.lossy_rounds = 0;
        if finding.share >= share * 0.75 {
            self.path_loss = finding.share;
            self.set_window(window_before as f64);
        }
        true
    }

    fn try_cut(&mut self, finding: Finding) {
        let window_before = self.window;
        self.trial = Some(Trial { window_before, share: finding.share, rounds: 0 });
        self.leave_startup();
        self.shrink_to(finding.rate * finding.rtt.as_secs_f64() * 0.95);
    }

    /// Whether a drain is under way. At its end the window is what it was, or the fill if that is less now.
    fn judge_drain(&mut self) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        drain.rounds += 1;
        if drain.rounds >= ROUNDS_TO_SHOW {
            let window = drain.window_before as f64;
            self.drain = None;
            self.set_window(window.min(self.fill()));
        }
        true
    }

    fn start_drain(&mut self) {
        let window_before = self.window;
        self.drain = Some(Drain { window_before, rounds: 0 });
        let drained = self.rate() * self.base.get().as_secs_f64() * DRAIN;
        self.set_window(drained.min(window_before as f64));
    }

    /// There is more queue than the target: shrink, or see that the path changed.
    fn judge_queue(&mut self, finding: Finding, now: Instant) {
        let Finding { rtt, rate, .. } = finding;
        let window = self.window;
        let first = Risen { since: now, rounds: 0, window, rate, rtt_least: rtt };
        let risen = self.risen.get_or_insert(first);
        risen.rounds += 1;
        risen.rtt_least = risen.rtt_least.min(rtt);
        if risen.rounds <= 2 {
            (risen.window, risen.rate) = (window, rate);
        }
        let Risen { since, rounds, rtt_least, .. } = *risen;
        let shrunk = 1.0 - window as f64 / risen.window as f64;
        let fallen = 1.0 - rate / risen.rate;
        let with_the_window = shrunk >= 0.1 && fallen >= shrunk / 2.0;
        if rounds > ROUNDS_TO_SHOW && with_the_window
            || now.saturating_duration_since(since) >= RISEN_MAX
        {
            self.risen = None;
            self.base.reset(rtt_least, now);
            self.set_window(self.fill());
            return;
        }
        self.leave_startup();
        let recent = finding.rate.max(self.rates[(self.rates_at + RATE_ROUNDS - 1) % RATE_ROUNDS]);
        let span = self.base.get() + self.target() / 2;
        self.shrink_to(recent * span.as_secs_f64());
    }

    /// There is no more queue than the target: grow if there is use for it.
    fn judge_room(&mut self, finding: Finding) {
        if !finding.limited || finding.lossy {
            return;
        }
        let startup = self.step >= STEP_STARTUP;
        let queued = finding.queue > self.target() / 2;
        if startup && (queued || self.plateau_reached(finding.rate)) {
            self.leave_startup();
            self.shrink_to(self.fill());
        } else if !queued {
            let grown = self.window as f64 * (1.0 + self.step);
            if startup {
                self.set_window(grown);
            } else {
                self.set_window(grown.min(self.fill() * FILLS_MAX).max(self.window as f64));
                self.step = (self.step * 2.0).min(STEP_MOST);
            }
        }
    }

    /// Whether the rate has not grown by a quarter for three rounds.
    fn plateau_reached(&mut self, rate: f64) -> bool {
        let (greatest, rounds) = self.plateau;
        self.plateau = if rate >= greatest * 1.25 { (rate, 0) } else { (greatest, rounds + 1) };
        self.plateau.1 >= ROUNDS_TO_SHOW
    }

    fn leave_startup(&mut self) {
        self.plateau = (0.0, 0);
        self.step = STEP_LEAST;
    }

    /// Lowers the window to `bytes`, by 30 % at most; never raises it.
    fn shrink_to(&mut self, bytes: f64) {
        let window = self.window as f64;
        self.step = self.step.min(STEP_LEAST);
        self.set_window(bytes.clamp(window * CUT, window));
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest integer in range, and is then clamped"
    )]
    fn set_window(&mut self, bytes: f64) {
        self.window = (bytes as u64).clamp(FLOOR_PACKETS * self.mtu, WINDOW_BYTES_MAX);
    }

    /// What the greatest recent rate fills in the base RTT and half the target.
    fn fill(&self) -> f64 {
        self.rate() * (self.base.get() + self.target() / 2).as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn target(&self) -> Duration {
        TARGET_MIN.max(self.base.get() / 4)
    }
}

impl Controller for RateDelay {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.acked(now, sent, bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.end_acks(now, in_flight);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if lost_bytes == 0 {
            self.round.marked = true;
            return;
        }
        self.round.lost += lost_bytes;
        if is_persistent_congestion {
            // Nothing got through for several round trips: who knows what comes after. Half, and look anew.
            self.set_window(self.window as f64 / 2.0);
            self.plateau = (0.0, 0);
            self.step = STEP_STARTUP;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.set_window(self.window as f64);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
