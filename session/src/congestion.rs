//! How much a session may have in flight: by measured rate and delay, hardly by loss.
//!
//! # Model
//!
//! Under a session lies a fabric that changes its paths and loses in bursts when a relay dies, and whose
//! bottleneck is mostly a relay's CPU or a kernel's socket buffer, seldom a shaped line. Hence:
//!
//! - Time is cut into **rounds**: a round ends when a packet sent after its start is acknowledged. Each round
//!   gives one rate (bytes acknowledged over its length) and one share of loss.
//!   All decisions are taken at the end of a round, one each.
//! - **Order delay**: relays recover what their hops lose, and the far end's socket puts frames back in order. Where 1 %
//!   is lost on each of four hops, at some thousand frames a second, some frame is always missing, and all behind it
//!   wait, packets and acknowledgements: the RTT is eighty milliseconds above a base of 120, though nothing stands in a
//!   queue. Each end's socket knows how long it held what it passed on, and tells the other
//!   ([`order_delay`](crate::order_delay)). A round's order delay is the mean of what packets waited there, and of what
//!   acknowledgements waited here.
//! - **Way**: a round's mean RTT without its order delay, of which a quarter more is taken off: what is released at once
//!   is worked off one after the other, and what was recovered came late itself. RTT and order delay are not of quite
//!   the same packets, so that it is too short in one round and too long in another.
//! - **Path RTT**: the least RTT of a round's later half, or the way if that is shorter. **Base RTT**: the least in the
//!   last 5 to 10 s of path RTTs, the longest way of three rounds in the way's place. **Queue delay**: the
//!   lesser of two rounds' path RTTs, above the base. **Target**: the greater of 10 ms (scheduling noise of a busy
//!   machine) and a quarter of the base.
//! - **Held**: what was taken off for order, the middle one of three rounds. It is in nobody's queue, and has to be in
//!   flight all the same. **Spread**: by how much the way is above the path RTT, the least of three rounds.
//!   **Fill**: what the greatest recent rate fills in base, spread, what is held, and half the target.
//! - The window **grows** in a round that was limited by it and has less than half the target of queue: by
//!   a step, which is 100 % in *startup* (50 % from 2 MiB on, 4 MiB at most); later it starts at 3 %, doubles with every such
//!   round up to 50 %, to twice the fill at most and 4 MiB above it, and halves in one with more queue; eight packets
//!   besides. So a lot of new room is found in a few round trips, little is overshot else, and of sessions on one queue
//!   the lesser gain on the greater.
//! - In startup the rate is to grow by a quarter of the step each round, by half of it where the delay is above the target.
//!   Startup **ends** with a cut, a mark, a queue in the second round in which it has not, or when it has not for
//!   three; then the window becomes the fill. (In a short window one lost frame may delay all others of a round.)
//! - Queue above the target: the window **shrinks** to the fill at the latest rate, by 30 % at most.
//! - A queue of ours drains at the bottleneck's rate, whatever the window. If instead, after three rounds of
//!   shrinking, the rate has fallen with the window, there is no queue: the **path changed**, or others fill it. The
//!   base becomes the RTT of these rounds, and the window the fill at the greatest rate of 5 to 10 s, which others have
//!   made less. The same after 2 s in any case.
//! - **Contest**: if no relay has marked in the last three of these rounds either, others may be filling a line, and who yields to
//!   them is left with nothing. From then on delay shrinks nothing, the window grows by the eight packets in a round with
//!   more than half the target of queue, and nothing is drained: the share of the line is for the hop's controller to hold,
//!   and its relay marks what is too much for it. A contest lasts for 10 s, and for 10 s after each mark, for where nobody
//!   marks there is no relay in front of the queue; it ends when the queue has been short for 2 s.
//! - **Loss** alone shrinks nothing. Only more than 5 % of a round, twice in a row, makes a *trial cut* to what
//!   was delivered, by 30 % at most. If three rounds later the loss is much the same, it does not come
//!   from us: the cut is undone and that share is taken for the path's own (it is forgotten as it
//!   falls). So a burst that dies with a relay costs nothing, and random loss one cut of a few rounds.
//! - **Marks** (ECN-CE) shrink the window by a tenth, every other round at most: what a cut did shows a round later. In
//!   between, delay may shrink it.
//! - A flow that always fills its window would never see the base RTT again; so every 5 s, and when the base
//!   has just fallen (a shorter path, whose own base is hidden by what is still in flight), the window is
//!   lowered to what the rate fills in three quarters of base and spread and in what is held, for three rounds (**drain**).
//!   Not every 5 s where the base that the last drain found was seen without one; but also when delay has forbidden to
//!   grow for four rounds, and for twice as many from one time to the next, while drains find no lesser base.
//!
//! Queues within the fabric are mostly short before they show here: each hop's controller keeps the line's queue short,
//! what waits in front of it is marked, and marks shrink the window whatever the delay.
//!
//! Rounds that are limited by the application shrink by neither delay nor rate: their RTT holds the far end's
//! delay of acknowledgements, their rate is the application's.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use crate::order_delay::OrderDelays;

use contest::Contest;
use path::PathRtt;
use round::{PeakRate, Round};
use state::{Drain, Finding, Risen, Trial};

mod contest;
mod growth;
mod path;
mod round;
mod state;
#[cfg(test)]
mod tests;
mod trials;

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
/// Rounds in which delay forbids to grow until the base is looked for: at first, and when it always was what it was.
const DOUBT_LEAST: u32 = 4;
const DOUBT_MOST: u32 = 64;
/// Above the path's own share, loss of more than this is taken for congestion.
const LOSS_SHARE_MAX: f64 = 0.05;
/// Fewer packets lost than this in a round say nothing about a share.
const LOSS_PACKETS_MIN: u64 = 4;
/// The most that one round takes off the window.
const CUT: f64 = 0.7;
const STEP_STARTUP: f64 = 1.0;
/// From here on startup, too, grows by half only: what it overshoots by shows a round trip late, and must find room in the
/// queue of the first relay, 8 MiB.
const CAUTIOUS_BYTES: u64 = 2 << 20;
const STEP_LEAST: f64 = 1.0 / 32.0;
const STEP_MOST: f64 = 0.5;
/// And so many packets in each round: among sessions that share a queue the lesser ones gain on the greater.
const STEP_PACKETS: u64 = 8;
/// From here on growth is no longer by a half. What it overshoots by shows a round later, in which it has been added
/// once more; both must find room in the queue of the first relay, 8 MiB.
const STEP_BYTES_MAX: u64 = 4 << 20;
/// The part of the base that a drain leaves.
const DRAIN: f64 = 0.75;

/// Makes the controller of a connection.
#[derive(Debug)]
pub(crate) struct ControllerConfig {
    /// What its ends hold for order.
    pub(crate) delays: Arc<OrderDelays>,
}

impl ControllerFactory for ControllerConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(RateDelay::new(now, current_mtu, Arc::clone(&self.delays)))
    }
}

/// What a connection's controller knows of order at its ends; `None` if it has another controller.
pub(crate) fn order_delays(connection: &Connection) -> Option<Arc<OrderDelays>> {
    let controller = connection.congestion_state().into_any().downcast::<RateDelay>().ok()?;
    Some(controller.path.delays())
}

/// The controller of one connection.
#[derive(Clone, Debug)]
pub(crate) struct RateDelay {
    mtu: u64,
    window: u64,
    step: f64,
    path: PathRtt,
    /// Bytes per second of the last rounds, the newest at `rates_at`: each the lesser of that round's and
    /// the one's before, for a path that gets shorter delivers twice at once for a moment.
    rates: [f64; RATE_ROUNDS],
    rates_at: usize,
    last_rate: f64,
    peak: PeakRate,
    drain_due: bool,
    /// Rounds since the last drain in which delay forbade to grow, and how many of them are borne until the next.
    stuck: u32,
    doubt: u32,
    /// The last round ended with a cut for a mark.
    was_cut: bool,
    /// Startup: the greatest rate, and rounds since it last grew by a quarter.
    plateau: (f64, u32),
    /// The path's own share of lost packets.
    path_loss: f64,
    lossy_rounds: u32,
    trial: Option<Trial>,
    risen: Option<Risen>,
    contest: Option<Contest>,
    /// Rounds since the last mark.
    unmarked: u32,
    drain: Option<Drain>,
    round: Round,
}

impl RateDelay {
    fn new(now: Instant, mtu: u16, delays: Arc<OrderDelays>) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: INITIAL_PACKETS * mtu,
            step: STEP_STARTUP,
            path: PathRtt::new(delays, now),
            rates: [0.0; RATE_ROUNDS],
            rates_at: 0,
            last_rate: 0.0,
            peak: PeakRate::new(now),
            drain_due: false,
            stuck: 0,
            doubt: DOUBT_LEAST,
            was_cut: false,
            plateau: (0.0, 0),
            path_loss: 0.0,
            lossy_rounds: 0,
            trial: None,
            risen: None,
            contest: None,
            unmarked: 0,
            drain: None,
            round: Round::new(now),
        }
    }

    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        self.round.handle_ack(now, sent, bytes, app_limited, self.path.base());
    }

    fn end_acks(&mut self, now: Instant, in_flight: u64) {
        let batch = std::mem::take(&mut self.round.batch);
        self.round.in_flight_peak = self.round.in_flight_peak.max(in_flight + batch);
        if self.round.over {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            let Some(rtt) = round.rtt_mean() else { return };
            let fall = self.target() / 4;
            self.drain_due |= self.path.handle_round(&round, rtt, fall, now);
            let finding = self.find(&round, rtt, now);
            self.judge(finding, now);
        }
    }

    fn find(&self, round: &Round, rtt: Duration, now: Instant) -> Finding {
        let seconds = now.saturating_duration_since(round.start).as_secs_f64();
        let (acked, lost) = (round.acked as f64, round.lost as f64);
        let share = lost / (acked + lost);
        Finding {
            rate: acked / seconds,
            rtt,
            queue: self.path.queue(),
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
        self.note_rate(finding, now);
        self.path_loss = self.path_loss.min(finding.share.max(self.path_loss * 7.0 / 8.0));
        self.lossy_rounds = if finding.lossy { self.lossy_rounds + 1 } else { 0 };
        let grew = self.judge_startup(finding);
        let contested = self.judge_contest(finding, now);
        let too_long = finding.limited && self.doubted() && finding.queue > self.target();
        let queued = too_long && !grew && !contested;

        // What a cut did shows a round later.
        let cut = finding.marked && !self.was_cut;
        self.was_cut = cut;
        if cut {
            self.leave_startup();
            self.shrink_to(self.window as f64 * 0.9);
        } else if finding.marked && !queued || self.judge_drain() {
            // Let it show.
        } else if queued {
            self.trial = None;
            self.judge_queue(finding, now);
        } else if self.judge_trial(finding) {
            self.risen = None;
        } else if self.lossy_rounds >= 2 {
            self.try_cut(finding);
        } else {
            self.risen = None;
            self.judge_room(finding, grew);
            if std::mem::take(&mut self.drain_due) && finding.limited && self.step < STEP_STARTUP {
                self.drain_to(self.window, self.path.base());
            }
        }
    }

    fn note_rate(&mut self, finding: Finding, now: Instant) {
        let rate = finding.rate.min(self.last_rate);
        self.last_rate = finding.rate;
        self.peak.handle_rate(rate, now);
        if finding.limited || rate > self.rate() {
            self.rates_at = (self.rates_at + 1) % RATE_ROUNDS;
            self.rates[self.rates_at] = rate;
        }
    }

    /// There is more queue than the target: shrink, or see that it is none of ours.
    fn judge_queue(&mut self, finding: Finding, now: Instant) {
        let (rate, path) = (finding.rate, self.path.latest());
        let window = self.window;
        let first = Risen { since: now, rounds: 0, window, rate, rtt_least: path };
        let risen = self.risen.get_or_insert(first);
        risen.rounds += 1;
        if risen.rounds <= 2 {
            (risen.window, risen.rate) = (window, rate);
        }
        risen.rtt_least = risen.rtt_least.min(path);
        let Risen { since, rounds, rtt_least, .. } = *risen;
        let shrunk = 1.0 - window as f64 / risen.window as f64;
        let fallen = 1.0 - rate / risen.rate;
        let with_the_window = shrunk >= 0.1 && fallen >= shrunk / 2.0;
        if rounds > ROUNDS_TO_SHOW && with_the_window
            || now.saturating_duration_since(since) >= RISEN_MAX
        {
            self.risen = None;
            self.suspect_others(now);
            self.path.reset_base(rtt_least, now);
            // At what came before others made it less.
            self.set_window(self.rate().max(self.peak.get()) * self.span().as_secs_f64());
            return;
        }
        self.leave_startup();
        let recent = finding.rate.max(self.rates[(self.rates_at + RATE_ROUNDS - 1) % RATE_ROUNDS]);
        self.shrink_to(recent * self.span().as_secs_f64());
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

    /// What the greatest recent rate fills without a queue, and in half the target.
    fn fill(&self) -> f64 {
        self.rate() * self.span().as_secs_f64()
    }

    fn span(&self) -> Duration {
        self.path.base() + self.path.spread() + self.path.held() + self.target() / 2
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// Whether the last round had more than half the target of queue.
    fn is_queued(&self) -> bool {
        self.path.latest().saturating_sub(self.path.base()) > self.target() / 2
    }

    fn target(&self) -> Duration {
        TARGET_MIN.max(self.path.base() / 4)
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
