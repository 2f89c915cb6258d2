//! Congestion control of a hop: the QUIC connections between two neighbouring relays.
//!
//! A hop carries the datagrams of many sessions, whose own controllers answer to what the whole path does.
//! The hop's controller has a smaller office: it keeps a lane from standing in the line's queue, it does
//! not mistake a random loss for congestion, and it lets an idle link take over another's load at once.
//!
//! **Model.** The window lies between a floor and a cap, both from the hop's configured capacity `C`
//! ([`UNKNOWN_CAPACITY`] if that is not known) and its base RTT, the least of the last ten seconds:
//!
//! ```text
//! floor = max(32 packets, C x base / 2)      where a window starts, and what an idle one returns to
//! cap   = 2 x C x base + max(64 packets, C x target)
//! least = floor / 4                          below this not even loss pushes it
//! ```
//!
//! Half of the capacity, because a hop has two lanes that fill: their floors together are the line's
//! content, so that floors alone build no queue, and a detour at half load runs without a ramp. The cap is
//! twice the capacity as configured, for that number is often too careful, and a margin for the queue
//! that the target allows, which on a short hop is all there is.
//!
//! It changes once a *round*, the time until a packet sent in the round is acknowledged, by the queue's
//! delay: the least RTT in the round less base, compared with a target of `max(5 ms, base / 8)`.
//!
//! - Above the target the window shrinks to what leaves just the target: by `(base + target) / RTT`.
//! - Below it a window that is in use grows, fast (a quarter) while there is no queue, then by half of what
//!   is missing. The next round only shows packets of the old window, so it is not judged (Vegas changes
//!   every other round for the same reason: Brakmo and Peterson 1995).
//! - A window that is not in use is left alone, and after ten seconds returns to the floor, or to what
//!   is used if that is more.
//!
//! *In use* means that three quarters of it were in flight. quinn's own sign, `app_limited`, says little
//! here: its datagram buffer is kept so short that it is empty most of the time.
//!
//! **Loss** below a tenth of a round is the line's, not the queue's, and merely slows growth. A tenth or more
//! shrinks the window to 0.7, once a round; a CE mark to 0.85 (RFC 8511); persistent congestion to the least.
//! After loss a window below the floor regains it at half as much again per round, unless a queue shows.
//!
//! **Whose queue?** The least of ten seconds drifts upwards when a queue stands all that time. A lane in
//! use that has not seen its base for eight seconds therefore drains once, for two rounds, a little below
//! what empties its own queue. And a delay that stays when the window has become smaller than
//! the line is not ours: the path has become longer, or others fill it. Then base is measured anew, the
//! window gets back what it gave, and a *contest* begins.
//!
//! **Contest.** Whoever yields to a standing queue is left with nothing by those who fill it until it drops (cubic, Reno). But
//! a rate that the line exceeds builds no queue of its own. So no delay lowers the window below what carries, at the
//! RTT as it is, a part of what the line is known to carry:
//!
//! ```text
//! held = half of the greatest rate of 10 to 20 s, C at most          else
//!        three fifths of min(C, line rate if known)                  in a contest
//! ```
//!
//! A contest begins when a queue stands although the window is no more than what is held, or the least, or four fifths of what
//! the line held; for 25 s, and longer when it is found again. While the RTT rises and falls in it, as no path's
//! does, the window is what is held and does not grow. It ends when the queue has been empty for two seconds, as it
//! soon is when the others leave. In case the line carries less than is configured, a drain tries every ten
//! seconds whose queue it is: one that empties with our window was ours, and the rate that arrived then is the line's, unless
//! a contest begins anew within five seconds. Copa changes its manners likewise when a queue never empties (Arun and
//! Balakrishnan 2018); here the capacity is known, so there is a number to hold instead of an increase to imitate.
//!
//! What this comes to against one cubic flow: a third to four fifths of the line, mostly half, where the line's queue holds at
//! least a round trip; of a shorter queue, which cubic itself empties again and again, cubic keeps at least a seventh.
//!
//! What never happens: a halving for a lost packet; a start from ten packets; a queue of its own that
//! stands at more than the target, if the line's rate is at least an eighth of the configured capacity, but for the ten
//! seconds of a contest that was none, and the twenty after a line has lost more than half of its rate.
//!
//! The cap is in bytes, for the sake of RTTs that others have doubled; the *rate* is kept to the configured capacity by the
//! shaper in front of all lanes of a link (`overway_relay_core`), where a capacity is configured.
//!
//! quinn paces all packets, datagrams included, at 1.25 windows per smoothed RTT, so the window is also the
//! rate. Acknowledgements of sparse packets come up to 25 ms late, so the base of an idle hop is that much
//! too long; the first dense burst mends it. Ignoring loss departs from RFC 9002 section 7: the sessions
//! inside answer to the losses that reach them, and a hop that halved as well would answer twice.

mod base;
mod contest;
mod judge;
mod round;

use std::any::Any;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_wire::BitsPerSec;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use self::base::BaseRtt;
use self::contest::{Contest, LineRate};
use self::round::{PeakRate, Round};

/// Capacity assumed of a hop whose own is not known: a small virtual machine's share of its uplink.
pub const UNKNOWN_CAPACITY: BitsPerSec = BitsPerSec(200_000_000);

/// RTT assumed before the first sample: an ocean. Handshakes measure before any datagram is sent.
const INITIAL_RTT: Duration = Duration::from_millis(200);
/// Bounds the first window, so that a large configured capacity is not believed before a sample.
const INITIAL_WINDOW_BYTES_MAX: u64 = 4 << 20;
/// What a floor is at least: on a short hop the machine's scheduling takes longer than the line.
const FLOOR_PACKETS: u64 = 32;
/// The cap's margin at least, for the same reason.
const MARGIN_PACKETS: u64 = 64;
/// Least target: what relays' scheduling makes of an empty queue.
const TARGET_MIN: Duration = Duration::from_millis(5);
/// When a lane in use drains to see its base again: soon enough that the sample comes before the old
/// one is forgotten.
const DRAIN_AFTER: Duration = Duration::from_secs(8);
/// Least length of a round, so that on a short hop one late wake-up is not a round of its own.
const ROUND_MIN: Duration = Duration::from_millis(10);

/// Builds a [`HopController`] for each connection of a hop.
#[derive(Clone, Copy, Debug)]
pub struct HopConfig {
    capacity: BitsPerSec,
}

/// The congestion controller of one lane of a hop.
#[derive(Clone, Debug)]
pub struct HopController {
    capacity: BitsPerSec,
    packet_bytes: u64,
    window: u64,
    base: BaseRtt,
    round: Round,
    /// Bytes acknowledged since the last batch of acknowledgements ended, and the least RTT of it.
    batch_bytes: u64,
    batch_rtt: Option<Duration>,
    /// The last change does not show yet.
    settling: bool,
    /// The window to return to when a drain is over.
    draining: Option<u64>,
    /// Loss, not a queue, brought the window below its floor.
    regaining: bool,
    /// When loss or a mark was last answered; packets sent before say nothing new.
    reduced: Option<Instant>,
    suspicion: Option<Suspicion>,
    contest: Option<Contest>,
    peak: PeakRate,
    /// What the line carries, once a queue was found to be our own.
    line_rate: Option<LineRate>,
    last_used: Instant,
}

/// A delay that may not be our own queue: its greatest extent, and the window before it showed.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    window: u64,
    queue: Duration,
}

impl HopConfig {
    /// Makes the configuration of a hop with this capacity in bits per second, zero if unknown.
    pub fn new(capacity_bps: u64) -> Self {
        let capacity = BitsPerSec(capacity_bps);
        Self { capacity: if capacity == BitsPerSec(0) { UNKNOWN_CAPACITY } else { capacity } }
    }
}

impl ControllerFactory for HopConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(HopController::new(self.capacity, current_mtu, now))
    }
}

impl Controller for HopController {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.handle_ack(now, sent, bytes);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.handle_acks_end(now, in_flight);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.handle_congestion(sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet_bytes = u64::from(new_mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.floor().min(INITIAL_WINDOW_BYTES_MAX)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl HopController {
    fn new(capacity: BitsPerSec, mtu: u16, now: Instant) -> Self {
        let mut controller = Self {
            capacity,
            packet_bytes: u64::from(mtu),
            window: 0,
            base: BaseRtt::new(now),
            round: Round::new(now),
            batch_bytes: 0,
            batch_rtt: None,
            settling: false,
            draining: None,
            regaining: false,
            reduced: None,
            suspicion: None,
            contest: None,
            peak: PeakRate::new(now),
            line_rate: None,
            last_used: now,
        };
        controller.window = controller.initial_window();
        controller
    }

    fn handle_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent);
        self.batch_bytes += bytes;
        self.batch_rtt = Some(self.batch_rtt.map_or(rtt, |least| least.min(rtt)));
        self.round.seen |= sent >= self.round.started;
    }

    fn handle_acks_end(&mut self, now: Instant, in_flight: u64) {
        let acked = mem::take(&mut self.batch_bytes);
        if let Some(rtt) = self.batch_rtt.take() {
            let first = self.base.value().is_none();
            self.base.handle_sample(now, rtt);
            if first {
                self.window = self.floor();
            }
            self.round.acked_bytes += acked;
            self.round.rtt = Some(self.round.rtt.map_or(rtt, |least| least.min(rtt)));
        }
        // What was in flight just before these acknowledgements came.
        let before = in_flight + acked;
        self.round.in_flight_max = self.round.in_flight_max.max(before);
        if self.round.seen && now.saturating_duration_since(self.round.started) >= ROUND_MIN {
            let round = mem::replace(&mut self.round, Round::new(now));
            self.judge(&round, now);
        }
    }

    /// `sent` is when the latest packet lost or marked was sent.
    fn handle_congestion(&mut self, sent: Instant, persistent: bool, lost_bytes: u64) {
        if persistent {
            // At once, for while nothing is acknowledged no round ends.
            self.end_drain();
            self.window = self.least();
            self.regaining = true;
            self.settling = true;
            self.reduced = Some(sent);
        } else if self.reduced.is_none_or(|reduced| sent > reduced) {
            self.round.lost_bytes += lost_bytes;
            self.round.marked |= lost_bytes == 0;
        }
    }

    fn floor(&self) -> u64 {
        (self.line(self.base.value().unwrap_or(INITIAL_RTT)) / 2)
            .max(FLOOR_PACKETS * self.packet_bytes)
    }

    fn least(&self) -> u64 {
        self.floor() / 4
    }

    fn cap(&self) -> u64 {
        let base = self.base.value().unwrap_or(INITIAL_RTT);
        2 * self.line(base) + self.line(target(base)).max(MARGIN_PACKETS * self.packet_bytes)
    }

    /// Bytes that the configured capacity carries in `time`.
    fn line(&self, time: Duration) -> u64 {
        scale(self.capacity.0 / 8, time, Duration::from_secs(1))
    }
}

/// The queue's delay that is aimed at: an eighth of the way keeps the line full while the window breathes.
fn target(base: Duration) -> Duration {
    TARGET_MIN.max(base / 8)
}

/// `value x numerator / denominator`.
fn scale(value: u64, numerator: Duration, denominator: Duration) -> u64 {
    let product = u128::from(value) * numerator.as_nanos();
    u64::try_from(product / denominator.as_nanos().max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
