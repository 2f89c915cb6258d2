//! The controller against a toy line.

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

/// Senders on a line, in steps of half a millisecond: packets queue at its bottleneck as long as there is room, cross it in
/// order, and are acknowledged, or found lost, one RTT later.
struct Toy {
    now: Instant,
    rate: u64,
    rtt: Duration,
    /// One packet of this many is lost, zero for none.
    loses_one_of: u64,
    /// The longest queue.
    room: Duration,
    senders: Vec<Sender>,
    free: Instant,
    count: u64,
}

/// The flow of somebody else: cubic (RFC 9438), without the Reno-friendly region.
#[derive(Debug)]
struct Cubic {
    packets: f64,
    packets_max: f64,
    /// When the window was last cut.
    cut: Option<Instant>,
}

#[derive(Debug)]
enum Control {
    Hop(Box<HopController>),
    Cubic(Cubic),
}

impl Cubic {
    fn handle_ack(&mut self, now: Instant) {
        let Some(cut) = self.cut else {
            self.packets += 1.0;
            return;
        };
        let k = (self.packets_max * 0.3 / 0.4).cbrt();
        let target = 0.4 * ((now - cut).as_secs_f64() - k).powi(3) + self.packets_max;
        self.packets += ((target - self.packets) / self.packets).clamp(0.0, 0.5);
    }

    fn handle_loss(&mut self, sent: Instant, now: Instant) {
        if self.cut.is_none_or(|cut| sent > cut) {
            self.packets_max = self.packets;
            self.packets *= 0.7;
            self.cut = Some(now);
        }
    }
}

impl Control {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few megabytes")]
    fn window(&self) -> u64 {
        match self {
            Self::Hop(hop) => hop.window(),
            Self::Cubic(cubic) => (cubic.packets * PACKET as f64) as u64,
        }
    }
}

struct Sender {
    controller: Control,
    /// Added to the line's RTT.
    farther: Duration,
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
            controller: Control::Hop(Box::new(HopController::new(
                BitsPerSec(capacity),
                1_200,
                now,
            ))),
            farther: Duration::ZERO,
            flights: VecDeque::new(),
            demand: 10_000 * MBIT,
            credit: 0,
            smoothed: rtt,
            delivered: 0,
        };
        let senders = (0..senders).map(|_| sender()).collect();
        let room = Duration::MAX;
        Self { now, rate, rtt, loses_one_of: 0, room, senders, free: now, count: 0 }
    }

    /// Somebody else begins to send, with more RTT by so much.
    fn add_cubic(&mut self, farther: Duration) {
        let controller = Control::Cubic(Cubic { packets: 10.0, packets_max: 10.0, cut: None });
        self.senders.push(Sender {
            controller,
            farther,
            flights: VecDeque::new(),
            demand: 10_000 * MBIT,
            credit: 0,
            smoothed: self.rtt + farther,
            delivered: 0,
        });
    }

    fn controller(&self) -> &HopController {
        match &self.senders[0].controller {
            Control::Hop(hop) => hop,
            Control::Cubic(_) => panic!("the first sender is a hop"),
        }
    }

    fn hop(&mut self) -> &mut HopController {
        match &mut self.senders[0].controller {
            Control::Hop(hop) => hop,
            Control::Cubic(_) => panic!("the first sender is a hop"),
        }
    }

    /// Lets time pass; returns the rates of all senders.
    fn rates(&mut self, time: Duration) -> Vec<u64> {
        let before: Vec<u64> = self.senders.iter().map(|sender| sender.delivered).collect();
        self.run(time);
        let after = self.senders.iter().map(|sender| sender.delivered);
        let bytes = after.zip(before).map(|(after, before)| after - before);
        bytes.map(|bytes| scale(bytes * 8, Duration::from_secs(1), time)).collect()
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
            let overflow = self.free.saturating_duration_since(self.now) > self.room;
            if !overflow {
                self.free = self.free.max(self.now) + Duration::from_nanos(transmission);
            }
            let lost =
                overflow || self.loses_one_of > 0 && self.count.is_multiple_of(self.loses_one_of);
            let acked = self.free + self.rtt + sender.farther;
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
            match &mut self.controller {
                Control::Hop(hop) => hop.handle_ack(now, flight.sent, PACKET),
                Control::Cubic(cubic) => cubic.handle_ack(now),
            }
            let rtt = now - flight.sent;
            self.smoothed = (7 * self.smoothed + rtt) / 8;
        }
        self.delivered += acked;
        let in_flight = self.in_flight();
        match &mut self.controller {
            Control::Hop(hop) => {
                if acked > 0 {
                    hop.handle_acks_end(now, in_flight);
                }
                if lost > 0 {
                    hop.handle_congestion(lost_sent, false, lost);
                }
            }
            Control::Cubic(cubic) if lost > 0 => cubic.handle_loss(lost_sent, now),
            Control::Cubic(_) => {}
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
    let shares = toy.senders.iter().zip(before).map(|(sender, before)| sender.delivered - before);

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

    let now = toy.now;
    toy.hop().handle_congestion(now, true, 100 * PACKET);
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
        let now = toy.now;
        toy.hop().handle_congestion(now, false, 0);
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

/// A hop alone for eight seconds, then for 25 s against cubic, whose RTT is so much longer, then alone again. Returns the
/// rates of the last 20 s of sharing, and the rate and the queue's bounds in the last five seconds alone.
fn share_with_cubic(
    (capacity, rtt): (u64, Duration),
    farther: Duration,
    room: Duration,
) -> (Vec<u64>, (u64, Duration, Duration)) {
    let mut toy = Toy::new(capacity * MBIT, 100 * MBIT, rtt, 1);
    toy.room = room;
    toy.run(Duration::from_secs(8));
    toy.add_cubic(farther);
    toy.run(Duration::from_secs(25));
    let rates = toy.rates(Duration::from_secs(20));
    toy.senders.truncate(1);
    toy.run(Duration::from_secs(15));
    (rates, toy.run(Duration::from_secs(5)))
}

#[test]
fn against_cubic_a_hop_holds_half_of_the_line_and_takes_little_more() {
    for (capacity, rtt, farther, room) in
        [(100, 30, 30, 80), (100, 10, 50, 100), (200, 30, 30, 80), (100, 60, 0, 120)]
    {
        let (rtt, farther, room) = (millis(rtt), millis(farther), millis(room));
        let (rates, (alone, standing, most)) = share_with_cubic((capacity, rtt), farther, room);
        let case = format!("{capacity} {rtt:?} {farther:?} {room:?}: {rates:?}");
        assert!(rates[0] > 40 * MBIT && rates[1] > 35 * MBIT, "{case}");
        assert!(alone > 90 * MBIT, "{case}: {alone} alone");
        assert!(standing <= target(rtt) + 2 * STEP, "{case}: {standing:?}");
        assert!(most <= target(rtt) + rtt / 2, "{case}: {most:?}");
    }
}

#[test]
fn where_cubic_itself_empties_the_queue_a_hop_keeps_a_seventh_of_the_line() {
    for (rtt, room) in [(30, 20), (30, 40), (100, 40), (100, 80)] {
        let (rates, (alone, ..)) =
            share_with_cubic((100, millis(rtt)), Duration::ZERO, millis(room));
        assert!(rates[0] > 14 * MBIT && rates[1] > 14 * MBIT, "{rtt} {room}: {rates:?}");
        assert!(alone > 90 * MBIT, "{rtt} {room}: {alone} alone");
    }
}

#[test]
fn three_per_cent_of_loss_do_not_end_what_is_held_against_cubic() {
    let mut toy = Toy::new(100 * MBIT, 100 * MBIT, millis(30), 1);
    toy.room = millis(80);
    toy.run(Duration::from_secs(5));
    toy.add_cubic(millis(30));
    toy.run(Duration::from_secs(10));
    toy.loses_one_of = 33;
    let rates = toy.rates(Duration::from_secs(10));
    assert!(rates[0] > 40 * MBIT, "{rates:?}");
}
