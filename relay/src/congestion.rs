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
//! the line is not ours: the path has become longer, or others fill it. Then base is measured anew and the
//! window gets back what it gave. Against others' standing queues it thus holds its share, within the cap.
//!
//! What never happens: a halving for a lost packet; a start from ten packets; a queue of its own that
//! stands at more than the target, if the line's rate is at least an eighth of the configured capacity.
//!
//! quinn paces all packets, datagrams included, at 1.25 windows per smoothed RTT, so the window is also the
//! rate. Acknowledgements of sparse packets come up to 25 ms late, so the base of an idle hop is that much
//! too long; the first dense burst mends it. Ignoring loss departs from RFC 9002 section 7: the sessions
//! inside answer to the losses that reach them, and a hop that halved as well would answer twice.

mod base;

use std::any::Any;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_wire::BitsPerSec;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use self::base::{BASE_WINDOW, BaseRtt};

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
/// Losses below this share of a round, one in ten, are not congestion.
const LOSS_SHARE: u64 = 10;
/// Nor are fewer than this many packets: a sparse round would call one of five heavy.
const LOSS_PACKETS_MIN: u64 = 8;

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
    /// Bytes acknowledged since the last batch of acknowledgements ended.
    batch_bytes: u64,
    /// The last change does not show yet.
    settling: bool,
    /// The window to return to when a drain is over.
    draining: Option<u64>,
    /// Loss, not a queue, brought the window below its floor.
    regaining: bool,
    /// When loss or a mark was last answered; packets sent before say nothing new.
    reduced: Option<Instant>,
    suspicion: Option<Suspicion>,
    last_used: Instant,
}

/// What a round has shown so far.
#[derive(Clone, Debug)]
struct Round {
    started: Instant,
    /// A packet sent in this round was acknowledged.
    seen: bool,
    rtt: Option<Duration>,
    acked_bytes: u64,
    lost_bytes: u64,
    in_flight_max: u64,
    marked: bool,
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
            settling: false,
            draining: None,
            regaining: false,
            reduced: None,
            suspicion: None,
            last_used: now,
        };
        controller.window = controller.initial_window();
        controller
    }

    fn handle_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent);
        let first = self.base.value().is_none();
        self.base.handle_sample(now, rtt);
        if first {
            self.window = self.floor();
        }
        self.batch_bytes += bytes;
        self.round.acked_bytes += bytes;
        self.round.rtt = Some(self.round.rtt.map_or(rtt, |least| least.min(rtt)));
        self.round.seen |= sent >= self.round.started;
    }

    fn handle_acks_end(&mut self, now: Instant, in_flight: u64) {
        // What was in flight just before these acknowledgements came.
        let before = in_flight + mem::take(&mut self.batch_bytes);
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

    /// Changes the window by what a round has shown.
    fn judge(&mut self, round: &Round, now: Instant) {
        let (Some(base), Some(rtt)) = (self.base.value(), round.rtt) else { return };
        let queue = rtt.saturating_sub(base);
        let target = target(base);
        let is_used = round.in_flight_max >= self.window / 4 * 3;
        if is_used {
            self.last_used = now;
        }

        if round.is_lossy(self.packet_bytes) {
            self.reduce(70, now);
        } else if round.marked {
            self.reduce(85, now);
        } else if self.settling {
            self.settling = false;
        } else if self.regaining && self.window < self.floor() && queue <= target {
            self.window = (self.window / 2 * 3).min(self.floor());
        } else if self.end_drain() {
            self.base.confirm(now);
            self.settling = true;
        } else if !is_used {
            self.rest(round, now);
        } else if queue > target {
            self.shrink(base, rtt, now);
        } else if self.base.unconfirmed(now) >= DRAIN_AFTER {
            self.draining = Some(self.window);
            self.window = scale(self.window, base, rtt) / 4 * 3;
            self.settling = true;
        } else {
            self.grow(base, rtt, round);
        }
        self.window = self.window.clamp(self.least(), self.cap());
    }

    /// Answers loss or a mark, whose packets were sent with the window as it was.
    fn reduce(&mut self, percent: u64, now: Instant) {
        self.end_drain();
        self.window = self.window / 100 * percent;
        self.regaining = true;
        self.settling = true;
        self.reduced = Some(now);
    }

    fn grow(&mut self, base: Duration, rtt: Duration, round: &Round) {
        self.suspicion = None;
        let (queue, target) = (rtt.saturating_sub(base), target(base));
        let step = if queue < target / 4 {
            self.window / 4
        } else {
            // Half of what is missing: the whole would overshoot by what others add meanwhile.
            scale(self.window, target - queue, rtt) / 2
        };
        let step = step.min(self.window / 4);
        // The nearer the losses of the round to what counts as congestion, the smaller.
        let tolerated = (round.acked_bytes + round.lost_bytes) / LOSS_SHARE;
        let spared = tolerated.saturating_sub(round.lost_bytes);
        let step = u128::from(step) * u128::from(spared) / u128::from(tolerated.max(1));
        self.window += u64::try_from(step).expect("it did not grow");
        self.settling = true;
    }

    fn shrink(&mut self, base: Duration, rtt: Duration, now: Instant) {
        self.regaining = false;
        let queue = rtt.saturating_sub(base);
        let suspicion = match self.suspicion {
            None => Suspicion { window: self.window, queue },
            Some(known) => Suspicion { queue: known.queue.max(queue), ..known },
        };
        // A window of four fifths of the line's content cannot make a queue.
        let harmless = scale(suspicion.window, base, base + suspicion.queue) / 5 * 4;
        if self.window <= harmless && queue >= suspicion.queue / 4 * 3 {
            self.base.rebase(now, rtt);
            self.window = suspicion.window;
            self.regaining = true;
            self.suspicion = None;
        } else {
            self.suspicion = Some(suspicion);
            self.window = scale(self.window, base + target(base), rtt).max(self.window / 2);
        }
        self.settling = true;
    }

    /// A window that has long not been filled says nothing about the line any more.
    fn rest(&mut self, round: &Round, now: Instant) {
        if now.saturating_duration_since(self.last_used) >= BASE_WINDOW {
            self.window = self.window.min(2 * round.in_flight_max).max(self.floor());
            self.suspicion = None;
        }
    }

    /// Gives back what a drain took; false if there was none.
    fn end_drain(&mut self) -> bool {
        let before = self.draining.take();
        self.window = before.unwrap_or(self.window);
        before.is_some()
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

impl Round {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            seen: false,
            rtt: None,
            acked_bytes: 0,
            lost_bytes: 0,
            in_flight_max: 0,
            marked: false,
        }
    }

    fn is_lossy(&self, packet_bytes: u64) -> bool {
        self.lost_bytes >= LOSS_PACKETS_MIN * packet_bytes
            && self.lost_bytes * LOSS_SHARE >= self.acked_bytes + self.lost_bytes
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
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const PACKET: u64 = 1_200;
    const MBIT: u64 = 1_000_000;
    const STEP: Duration = Duration::from_micros(500);

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[derive(Clone, Copy)]
    struct Flight {
        sent: Instant,
        acked: Instant,
        lost: bool,
    }

    /// Senders on a line, in steps of half a millisecond: packets queue at its bottleneck without bound, cross it in order, and are
    /// acknowledged, or found lost, one RTT later.
    struct Toy {
        now: Instant,
        rate: u64,
        rtt: Duration,
        /// One packet of this many is lost, zero for none.
        loses_one_of: u64,
        senders: Vec<Sender>,
        free: Instant,
        count: u64,
    }

    struct Sender {
        controller: HopController,
        flights: VecDeque<Flight>,
        /// Bits per second that there are to send.
        demand: u64,
        credit: u64,
        smoothed: Duration,
        delivered: u64,
    }

    impl Toy {
        fn new(capacity: u64, rate: u64, rtt: Duration, senders: usize) -> Self {
            let now = Instant::now();
            let sender = || Sender {
                controller: HopController::new(BitsPerSec(capacity), 1_200, now),
                flights: VecDeque::new(),
                demand: 10_000 * MBIT,
                credit: 0,
                smoothed: rtt,
                delivered: 0,
            };
            let senders = (0..senders).map(|_| sender()).collect();
            Self { now, rate, rtt, loses_one_of: 0, senders, free: now, count: 0 }
        }

        fn controller(&self) -> &HopController {
            &self.senders[0].controller
        }

        /// Lets time pass; returns the mean rate of all senders and the least and greatest queue.
        fn run(&mut self, time: Duration) -> (u64, Duration, Duration) {
            let before: u64 = self.senders.iter().map(|sender| sender.delivered).sum();
            let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
            let end = self.now + time;
            while self.now < end {
                self.now += STEP;
                for index in 0..self.senders.len() {
                    self.senders[index].take_acks(self.now);
                    self.send(index);
                }
                let queue = self.free.saturating_duration_since(self.now);
                (least, most) = (least.min(queue), most.max(queue));
            }
            let after: u64 = self.senders.iter().map(|sender| sender.delivered).sum();
            (scale((after - before) * 8, Duration::from_secs(1), time), least, most)
        }

        /// As quinn: within the window, paced at 1.25 windows per RTT.
        fn send(&mut self, index: usize) {
            let sender = &mut self.senders[index];
            let window = sender.controller.window();
            let pace = scale(window * 5 / 4, STEP, sender.smoothed);
            let demand = scale(sender.demand / 8, STEP, Duration::from_secs(1));
            // At most two milliseconds' worth is made up for, as by quinn's pacer.
            sender.credit = (sender.credit + pace.min(demand)).min(4 * pace + 10 * PACKET);
            let transmission =
                scale(PACKET * 8, Duration::from_secs(1), Duration::from_nanos(self.rate));
            while sender.credit >= PACKET && sender.in_flight() + PACKET <= window {
                sender.credit -= PACKET;
                self.count += 1;
                self.free = self.free.max(self.now) + Duration::from_nanos(transmission);
                let lost = self.loses_one_of > 0 && self.count.is_multiple_of(self.loses_one_of);
                let acked = self.free + self.rtt;
                sender.flights.push_back(Flight { sent: self.now, acked, lost });
            }
        }
    }

    impl Sender {
        fn in_flight(&self) -> u64 {
            self.flights.len() as u64 * PACKET
        }

        fn take_acks(&mut self, now: Instant) {
            let (mut acked, mut lost) = (0, 0);
            let mut lost_sent = now;
            while let Some(flight) = self.flights.pop_front_if(|flight| flight.acked <= now) {
                if flight.lost {
                    lost += PACKET;
                    lost_sent = flight.sent;
                    continue;
                }
                acked += PACKET;
                self.controller.handle_ack(now, flight.sent, PACKET);
                let rtt = now - flight.sent;
                self.smoothed = (7 * self.smoothed + rtt) / 8;
            }
            self.delivered += acked;
            if acked > 0 {
                self.controller.handle_acks_end(now, self.in_flight());
            }
            if lost > 0 {
                self.controller.handle_congestion(lost_sent, false, lost);
            }
        }
    }

    #[test]
    fn the_first_window_is_the_floor_of_an_assumed_rtt_and_then_of_the_measured_one() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(40), 1);
        assert_eq!(toy.controller().window(), 100 * MBIT / 8 / 10);
        assert_eq!(HopController::new(BitsPerSec(u64::MAX), 1_200, toy.now).window(), 4 << 20);

        toy.senders[0].demand = MBIT;
        toy.run(millis(200));

        let line = 100 * MBIT / 8 / 25;
        let window = toy.controller().window();
        assert!(window >= line / 2 && window < line / 2 * 11 / 10, "{window}");
    }

    #[test]
    fn an_unknown_capacity_is_assumed() {
        assert_eq!(HopConfig::new(0).capacity, UNKNOWN_CAPACITY);
    }

    #[test]
    fn a_line_of_the_configured_capacity_is_filled() {
        for rtt in [1, 5, 40, 200].map(millis) {
            let mut toy = Toy::new(200 * MBIT, 200 * MBIT, rtt, 1);
            toy.run(Duration::from_secs(4));
            let (rate, _, _) = toy.run(Duration::from_secs(10));
            assert!(rate > 190 * MBIT, "{rtt:?}: {rate}");
        }
    }

    #[test]
    fn three_per_cent_of_loss_do_not_collapse_the_rate() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(50), 1);
        toy.loses_one_of = 33;

        toy.run(Duration::from_secs(2));
        let (rate, _, _) = toy.run(Duration::from_secs(20));

        assert!(rate > 90 * MBIT, "{rate}");
    }

    #[test]
    fn no_queue_stands_at_a_bottleneck_below_the_configured_capacity() {
        for (rate, rtt) in [(30, 40), (60, 5), (60, 120), (100, 40)] {
            let (rate, rtt) = (rate * MBIT, millis(rtt));
            let mut toy = Toy::new(200 * MBIT, rate, rtt, 1);
            toy.run(Duration::from_secs(5));
            let before = toy.senders[0].delivered;
            // Three base windows, or a base that drifts with the queue would not show.
            for second in 0..30 {
                let (_, standing, most) = toy.run(Duration::from_secs(1));
                let case = format!("{rate} {rtt:?} {second}: {standing:?} {most:?}");
                assert!(standing <= target(rtt) + 2 * STEP, "{case}");
                assert!(most <= 2 * target(rtt) + rtt / 2, "{case}");
            }
            let carried = (toy.senders[0].delivered - before) * 8 / 30;
            assert!(carried > rate / 100 * 85, "{rate} {rtt:?}: {carried}");
        }
    }

    #[test]
    fn two_lanes_share_a_bottleneck_without_a_standing_queue() {
        let mut toy = Toy::new(200 * MBIT, 100 * MBIT, millis(40), 2);
        toy.run(Duration::from_secs(5));
        for second in 0..30 {
            let (_, standing, _) = toy.run(Duration::from_secs(1));
            assert!(standing <= 3 * target(millis(40)), "{second}: {standing:?}");
        }

        let before: Vec<u64> = toy.senders.iter().map(|sender| sender.delivered).collect();
        let (rate, _, _) = toy.run(Duration::from_secs(20));
        let shares =
            toy.senders.iter().zip(before).map(|(sender, before)| sender.delivered - before);

        assert!(rate > 85 * MBIT, "{rate}");
        assert!(shares.clone().min() > shares.max().map(|most| most / 4), "one starves the other");
    }

    #[test]
    fn an_idle_link_takes_a_burst_at_once() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(80), 1);
        toy.senders[0].demand = MBIT / 10;
        toy.run(Duration::from_secs(30));

        toy.senders[0].demand = 50 * MBIT;
        let (_, _, most) = toy.run(millis(80));
        let (rate, _, _) = toy.run(Duration::from_secs(1));

        assert!(rate > 48 * MBIT, "{rate}");
        assert!(most < millis(10), "{most:?}");
    }

    #[test]
    fn a_window_that_is_not_used_returns_to_the_floor() {
        let mut toy = Toy::new(100 * MBIT, 150 * MBIT, millis(40), 1);
        toy.run(Duration::from_secs(5));
        assert!(toy.controller().window() > 2 * toy.controller().floor());

        toy.senders[0].demand = MBIT;
        toy.run(Duration::from_secs(15));

        assert_eq!(toy.controller().window(), toy.controller().floor());
    }

    #[test]
    fn a_longer_path_is_recognised_and_filled() {
        for longer in [49, 80, 250].map(millis) {
            let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(40), 1);
            toy.run(Duration::from_secs(5));

            toy.rtt = longer;
            toy.run(Duration::from_secs(4));
            let (rate, _, _) = toy.run(Duration::from_secs(2));

            assert!(rate > 80 * MBIT, "{longer:?}: {rate}");
        }
    }

    #[test]
    fn a_shorter_path_leaves_no_queue() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(120), 1);
        toy.run(Duration::from_secs(5));

        toy.rtt = millis(30);
        // The first samples have the old window's queue in them; the next drain shows the true base.
        toy.run(Duration::from_secs(12));
        let (rate, standing, _) = toy.run(Duration::from_secs(2));

        assert!(standing <= target(millis(30)) + 2 * STEP, "{standing:?}");
        assert!(rate > 85 * MBIT, "{rate}");
    }

    #[test]
    fn heavy_loss_pushes_no_lower_than_the_least_and_the_floor_is_soon_regained() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(40), 1);
        toy.run(Duration::from_secs(2));

        toy.loses_one_of = 4;
        toy.run(Duration::from_secs(3));
        assert_eq!(toy.controller().window(), toy.controller().least());

        toy.loses_one_of = 0;
        toy.run(9 * millis(40));
        assert!(toy.controller().window() >= toy.controller().floor());
    }

    #[test]
    fn persistent_congestion_leaves_the_least_and_the_floor_is_soon_regained() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(40), 1);
        toy.run(Duration::from_secs(2));

        toy.senders[0].controller.handle_congestion(toy.now, true, 100 * PACKET);
        assert_eq!(toy.controller().window(), toy.controller().least());

        toy.run(7 * millis(40));
        assert!(toy.controller().window() >= toy.controller().floor());
    }

    #[test]
    fn a_mark_shrinks_a_little_and_once_a_round() {
        let mut toy = Toy::new(100 * MBIT, 200 * MBIT, millis(40), 1);
        toy.run(Duration::from_secs(3));
        let before = toy.controller().window();

        for _ in 0..5 {
            toy.senders[0].controller.handle_congestion(toy.now, false, 0);
        }
        toy.run(millis(100));

        let after = toy.controller().window();
        assert!(after < before && after >= before / 100 * 84, "{before} {after}");
    }

    #[test]
    fn a_few_lost_heartbeats_change_nothing() {
        let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(40), 1);
        toy.senders[0].demand = MBIT / 10;
        toy.run(Duration::from_secs(2));
        let before = toy.controller().window();

        toy.loses_one_of = 3;
        toy.run(Duration::from_secs(5));

        assert_eq!(toy.controller().window(), before);
    }
}
