//! The controller against a toy link: a bottleneck of constant rate with a buffer, a base RTT that may
//! change, random loss, and blackouts. One sender or several that always have data, paced as quinn paces. Everything
//! is computed; the only randomness is a seeded generator.

use std::collections::VecDeque;

use super::*;
use crate::order_delay::{OrderDelay, TELL_EVERY};

const PACKET: u64 = 1_200;
const TICK: Duration = Duration::from_micros(100);
/// Packets per acknowledgement.
const ACK_EVERY: u32 = 10;

struct Link {
    bytes_per_second: f64,
    base: Duration,
    buffer_bytes: f64,
    loss: f64,
    /// Added to the base, drawn anew every few milliseconds.
    jitter: Duration,
    /// The share that hops lose and recover, which makes these and all behind them so much later, once for each loss.
    recovered: (f64, Duration),
    dead: bool,
    marks: bool,
}

struct Packet {
    sent: Instant,
    marked: bool,
    /// When its acknowledgement comes, if it was not lost.
    acked_at: Option<Instant>,
    /// What it and its acknowledgement wait for order.
    held: [Duration; 2],
}

struct Sender {
    controller: RateDelay,
    /// What the controller knows of order, what the far end will say, and when it does.
    delays: Arc<OrderDelays>,
    to_say: OrderDelay,
    said: Instant,
    in_flight: VecDeque<Packet>,
    bytes_in_flight: u64,
    tokens: f64,
    srtt: f64,
    delivered: u64,
    unacked_ticks: u32,
    /// Frames are put back in order at either end, so neither packets nor acknowledgements overtake.
    last_arrival: Instant,
    last_ack: Instant,
}

struct Toy {
    senders: Vec<Sender>,
    link: Link,
    start: Instant,
    now: Instant,
    link_free: Instant,
    /// When the queue will have been long for a tenth of a second, or the next mark is due, and the marks since.
    mark: Option<(Instant, u32)>,
    random: u64,
    extra: Duration,
}

impl Toy {
    fn new(megabits: f64, base_ms: u64, seed: u64) -> Self {
        let now = Instant::now();
        let link = Link {
            bytes_per_second: megabits * 1e6 / 8.0,
            base: Duration::from_millis(base_ms),
            buffer_bytes: 4e6,
            loss: 0.0,
            jitter: Duration::ZERO,
            recovered: (0.0, Duration::ZERO),
            dead: false,
            marks: true,
        };
        Self {
            senders: vec![Sender::new(now)],
            link,
            start: now,
            now,
            link_free: now,
            mark: None,
            random: seed,
            extra: Duration::ZERO,
        }
    }

    fn controller(&mut self) -> &mut RateDelay {
        &mut self.senders[0].controller
    }

    /// Numerical Recipes' 64-bit linear congruential generator; from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 40) as f64 / (1_u64 << 24) as f64
    }

    fn send(&mut self, index: usize) {
        let sender = &mut self.senders[index];
        let window = sender.controller.window();
        let refill = window as f64 * 1.25 * TICK.as_secs_f64() / sender.srtt;
        sender.tokens = (sender.tokens + refill).min(refill.max(20.0 * PACKET as f64));
        loop {
            let sender = &self.senders[index];
            if sender.bytes_in_flight + PACKET >= window || sender.tokens < PACKET as f64 {
                return;
            }
            let marked = self.marks();
            let (acked_at, held) = self.carry(index);
            let sender = &mut self.senders[index];
            sender.tokens -= PACKET as f64;
            sender.in_flight.push_back(Packet { sent: self.now, marked, acked_at, held });
            sender.bytes_in_flight += PACKET;
        }
    }

    /// Whether a relay would mark this packet (RFC 8289).
    fn marks(&mut self) -> bool {
        let backlog = self.link_free.saturating_duration_since(self.now);
        if !self.link.marks || backlog < Duration::from_millis(5) {
            self.mark = None;
            return false;
        }
        let interval = Duration::from_millis(100);
        let (at, count) = *self.mark.get_or_insert((self.now + interval, 0));
        let due = at <= self.now;
        if due {
            self.mark = Some((at + interval.div_f64(f64::from(count + 1).sqrt()), count + 1));
        }
        due
    }

    /// Carries a packet over the link. Returns when its acknowledgement comes, and what both waited for order.
    fn carry(&mut self, index: usize) -> (Option<Instant>, [Duration; 2]) {
        let random_loss = self.draw() < self.link.loss;
        let backlog = self.link_free.saturating_duration_since(self.now).as_secs_f64();
        let overflow = backlog * self.link.bytes_per_second > self.link.buffer_bytes;
        let lost = random_loss || overflow || self.link.dead;
        let held = self.held();
        // Every so many packets are one acknowledgement, which may be lost as well.
        let answered = self.draw() * f64::from(ACK_EVERY) < 1.0;
        let held_back = if answered { self.held() } else { Duration::ZERO };
        let mut waits = [Duration::ZERO; 2];
        let acked_at = (!lost).then(|| {
            let service = Duration::from_secs_f64(PACKET as f64 / self.link.bytes_per_second);
            self.link_free = self.link_free.max(self.now) + service;
            let sender = &mut self.senders[index];
            let due = self.link_free + self.link.base + self.extra + held;
            sender.last_arrival = sender.last_arrival.max(due);
            let answer = sender.last_arrival + held_back;
            sender.last_ack = sender.last_ack.max(answer);
            waits = [sender.last_arrival - due, sender.last_ack - answer];
            sender.last_ack
        });
        (acked_at, waits)
    }

    /// How long the recovery of a packet takes: nothing for most.
    fn held(&mut self) -> Duration {
        let (share, pause) = self.link.recovered;
        let mut held = Duration::ZERO;
        while share > 0.0 && self.draw() < share {
            held += pause;
        }
        held
    }

    /// Runs for a while; returns the goodput in Mbit/s and the mean queue in milliseconds.
    fn run(&mut self, seconds: f64) -> (f64, f64) {
        let delivered = self.delivered();
        let end = self.now + Duration::from_secs_f64(seconds);
        let mut queue = 0.0;
        while self.now < end {
            self.now += TICK;
            if self.draw() < 0.03 {
                self.extra = self.link.jitter.mul_f64(self.draw());
            }
            for index in 0..self.senders.len() {
                self.senders[index].probe(self.now, &self.link);
                self.send(index);
                self.senders[index].hear(self.now);
                assert!(self.senders[index].controller.window() >= FLOOR_PACKETS * PACKET);
            }
            queue += self.link_free.saturating_duration_since(self.now).as_secs_f64();
        }
        let megabits = (self.delivered() - delivered) as f64 * 8.0 / 1e6 / seconds;
        (megabits, queue * TICK.as_secs_f64() / seconds * 1e3)
    }

    fn delivered(&self) -> u64 {
        self.senders.iter().map(|sender| sender.delivered).sum()
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

impl Sender {
    fn new(now: Instant) -> Self {
        let delays = Arc::<OrderDelays>::default();
        Self {
            controller: RateDelay::new(now, 1_200, Arc::clone(&delays)),
            delays,
            to_say: OrderDelay::default(),
            said: now,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            tokens: 0.0,
            srtt: 0.15,
            delivered: 0,
            unacked_ticks: 0,
            last_arrival: now,
            last_ack: now,
        }
    }

    fn hear(&mut self, now: Instant) {
        if now - self.said >= TELL_EVERY {
            self.delays.hear(self.to_say);
            self.said = now;
        }
        // Acknowledgements keep their order, so what is due or lost before it stands in front.
        let passed = self.in_flight.iter().take_while(|packet| packet.acked_at <= Some(now));
        let (mut due, mut last_acked) = (0, 0);
        for (at, packet) in passed.enumerate() {
            if packet.acked_at.is_some() {
                (due, last_acked) = (due + 1, at);
            }
        }
        if due < ACK_EVERY && self.unacked_ticks < 250 {
            // An incomplete group waits for at most 25 ms, as at quinn's far end.
            self.unacked_ticks = if due == 0 { 0 } else { self.unacked_ticks + 1 };
            return;
        }
        self.unacked_ticks = 0;
        let (mut kept, mut lost, mut marked) = (Vec::new(), 0, false);
        for (at, packet) in self.in_flight.drain(..=last_acked).enumerate() {
            let age = now.saturating_duration_since(packet.sent);
            if packet.acked_at.is_some() {
                self.bytes_in_flight -= PACKET;
                self.delivered += PACKET;
                let [there, here] = packet.held;
                self.to_say.add(there);
                let mut held_here = OrderDelay::default();
                held_here.add(here);
                self.delays.here.pass(held_here);
                self.srtt += (age.as_secs_f64() - self.srtt) / 8.0;
                self.controller.acked(now, packet.sent, PACKET, false);
                marked |= packet.marked;
            } else if at + 128 < last_acked || age.as_secs_f64() > 1.5 * self.srtt {
                self.bytes_in_flight -= PACKET;
                lost += PACKET;
            } else {
                kept.push(packet);
            }
        }
        for packet in kept.into_iter().rev() {
            self.in_flight.push_front(packet);
        }
        self.controller.end_acks(now, self.bytes_in_flight);
        if marked {
            self.controller.on_congestion_event(now, now, false, 0);
        }
        if lost > 0 {
            self.controller.on_congestion_event(now, now, false, lost);
        }
    }

    /// The probe time-out: two packets go although the window is full of what was lost.
    fn probe(&mut self, now: Instant, link: &Link) {
        let silent = self.in_flight.iter().all(|packet| packet.acked_at.is_none());
        let last = self.in_flight.back().map(|packet| packet.sent);
        if silent && last.is_some_and(|sent| (now - sent).as_secs_f64() > 2.0 * self.srtt) {
            let acked_at = (!link.dead).then(|| {
                self.last_ack = self.last_ack.max(now + link.base);
                self.last_ack
            });
            self.in_flight.push_back(Packet {
                sent: now,
                marked: false,
                acked_at,
                held: [Duration::ZERO; 2],
            });
            self.bytes_in_flight += PACKET;
            self.unacked_ticks = 240;
        }
    }
}

#[test]
fn fills_a_link_of_any_length_without_a_long_queue() {
    for base_ms in [1, 20, 50, 150] {
        let mut toy = Toy::new(300.0, base_ms, 1);
        toy.run(2.5);
        let (megabits, queue_ms) = toy.run(10.0);
        assert!(megabits > 270.0, "{base_ms} ms: {megabits} Mbit/s");
        let target = (base_ms as f64 / 4.0).max(10.0);
        assert!(queue_ms < 1.25 * target, "{base_ms} ms: queue of {queue_ms} ms");
    }
}

#[test]
fn random_loss_costs_little_more_than_itself() {
    for (loss, least) in [(0.01, 260.0), (0.03, 250.0), (0.1, 200.0)] {
        let mut toy = Toy::new(300.0, 50, 2);
        toy.link.loss = loss;
        toy.run(3.0);
        let (megabits, _) = toy.run(10.0);
        assert!(megabits > least, "{loss}: {megabits} Mbit/s");
    }
}

#[test]
fn loss_that_sets_in_later_does_not_collapse_the_window() {
    let mut toy = Toy::new(300.0, 50, 3);
    toy.run(3.0);
    toy.link.loss = 0.1;
    toy.run(1.0);
    let (megabits, _) = toy.run(3.0);
    assert!(megabits > 200.0, "{megabits} Mbit/s");
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    for jitter_ms in [5, 10, 20] {
        let mut toy = Toy::new(300.0, 40, 10);
        toy.link.jitter = Duration::from_millis(jitter_ms);
        toy.run(3.0);
        let (megabits, _) = toy.run(10.0);
        assert!(megabits > 240.0, "{jitter_ms} ms: {megabits} Mbit/s");
    }
}

#[test]
fn frames_that_wait_for_a_recovered_one_are_not_taken_for_a_queue() {
    for (megabits, loss, least, queue_most_ms) in [
        (100.0, 0.001, 85.0, 45.0),
        (300.0, 0.004, 240.0, 45.0),
        (300.0, 0.04, 210.0, 45.0),
        (800.0, 0.04, 500.0, 45.0),
        (800.0, 0.12, 200.0, 45.0),
    ] {
        // One draw's queue may be a quarter longer than another's.
        let runs: Vec<(f64, f64)> = (11..17)
            .map(|seed| {
                let mut toy = Toy::new(megabits, 120, seed);
                toy.link.recovered = (loss, Duration::from_millis(36));
                toy.run(3.0);
                toy.run(10.0)
            })
            .collect();
        let mean =
            |of: fn(&(f64, f64)) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        let (rate, queue_ms) = (mean(|run| run.0), mean(|run| run.1));
        assert!(rate > least, "{loss}: {rate} Mbit/s of {megabits}");
        assert!(queue_ms < queue_most_ms, "{loss}: queue of {queue_ms} ms at {megabits} Mbit/s");
    }
}

#[test]
fn recovered_frames_do_not_end_startup() {
    for seed in 20..28 {
        let mut toy = Toy::new(800.0, 120, seed);
        toy.link.recovered = (0.04, Duration::from_millis(36));
        toy.run(2.0);
        let (rate, _) = toy.run(1.0);
        assert!(rate > 400.0, "seed {seed}: {rate} Mbit/s of 800 after 16 to 25 round trips");
    }
}

/// The least that a sender has got of its part, the rate in Mbit/s of all, and the mean queue in milliseconds.
fn shares(toy: &mut Toy, run: impl FnOnce(&mut Toy) -> (f64, f64)) -> (f64, f64, f64) {
    let before: Vec<u64> = toy.senders.iter().map(|sender| sender.delivered).collect();
    let (megabits, queue_ms) = run(toy);
    let after = toy.senders.iter().map(|sender| sender.delivered);
    let got: Vec<u64> = after.zip(&before).map(|(after, before)| after - before).collect();
    let part = got.iter().sum::<u64>() as f64 / got.len() as f64;
    (got.into_iter().min().unwrap_or(0) as f64 / part, megabits, queue_ms)
}

#[test]
fn sessions_share_a_link_and_build_no_queue_of_one_anothers_delay() {
    for (base_ms, loss, count, marks, queue_most_ms) in [
        (40, 0.0, 2, true, 15.0),
        (40, 0.0, 4, true, 15.0),
        (120, 0.0, 2, true, 30.0),
        (40, 0.01, 2, true, 25.0),
        (40, 0.0, 2, false, 20.0),
        (120, 0.0, 4, false, 45.0),
    ] {
        let mut toy = Toy::new(300.0, base_ms, 12);
        toy.link.recovered = (loss, Duration::from_millis(36));
        toy.link.marks = marks;
        for _ in 1..count {
            toy.run(2.3);
            let now = toy.now;
            toy.senders.push(Sender::new(now));
        }
        toy.run(10.0);
        let (share, megabits, queue_ms) = shares(&mut toy, |toy| toy.run(20.0));
        let case = format!("{count} over {base_ms} ms, {loss}, {marks}");
        assert!(megabits > 240.0, "{case}: {megabits} Mbit/s");
        assert!(share > 1.0 / 2.0, "{case}: the least has {share} of its part");
        assert!(queue_ms < queue_most_ms, "{case}: queue of {queue_ms} ms");
    }
}

#[test]
fn a_queue_that_others_keep_filling_is_not_yielded_to() {
    for (base_ms, others_ms) in [(60, 80), (30, 60), (120, 60)] {
        // What a hop holds of a line that a loss-based flow fills and, for four seconds each time, fills again.
        let mut toy = Toy::new(50.0, base_ms, 13);
        let now = toy.now;
        toy.senders.push(Sender::new(now));
        let beside_others = |toy: &mut Toy, seconds: u32| {
            let (mut megabits, mut queue_ms) = (0.0, 0.0);
            for tenth in 0..seconds * 10 {
                let filled = f64::from(tenth % 40) / 40.0;
                toy.link.base = Duration::from_millis(base_ms)
                    + Duration::from_millis(others_ms).mul_f64(filled);
                let (rate, queue) = toy.run(0.1);
                megabits += rate / f64::from(seconds * 10);
                queue_ms += queue / f64::from(seconds * 10);
            }
            (megabits, queue_ms)
        };
        toy.run(5.0);
        beside_others(&mut toy, 10);
        let (share, megabits, queue_ms) = shares(&mut toy, |toy| beside_others(toy, 30));
        let case = format!("{others_ms} ms above {base_ms}");
        assert!(megabits > 47.0, "{case}: {megabits} Mbit/s of 50");
        assert!(share > 0.8, "{case}: the lesser has {share} of its part");
        assert!(queue_ms < 25.0, "{case}: queue of {queue_ms} ms");
    }
}

#[test]
fn a_blackout_of_a_tenth_of_a_second_is_over_when_it_is_over() {
    for base_ms in [20, 50, 150] {
        let mut toy = Toy::new(300.0, base_ms, 4);
        toy.run(3.0);
        toy.link.dead = true;
        toy.run(0.1);
        toy.link.dead = false;
        toy.run(10.0 * base_ms as f64 / 1e3);
        let (megabits, _) = toy.run(2.0);
        assert!(megabits > 255.0, "{base_ms} ms: {megabits} Mbit/s");
    }
}

#[test]
fn a_longer_or_a_shorter_path_is_filled_within_ten_round_trips() {
    for (before, after) in [(40, 80), (80, 40), (20, 150), (150, 20)] {
        let mut toy = Toy::new(300.0, before, 5);
        toy.run(3.0);
        toy.link.base = Duration::from_millis(after);
        toy.run(10.0 * after as f64 / 1e3);
        let (megabits, queue_ms) = toy.run(2.0);
        assert!(megabits > 255.0, "{before} to {after} ms: {megabits} Mbit/s");
        let target = (after as f64 / 4.0).max(10.0);
        assert!(queue_ms < 1.25 * target, "{before} to {after} ms: queue of {queue_ms} ms");
    }
}

#[test]
fn a_buffer_of_a_few_milliseconds_is_enough() {
    let mut toy = Toy::new(300.0, 20, 6);
    toy.link.buffer_bytes = 150e3;
    toy.run(3.0);
    let (megabits, _) = toy.run(10.0);
    assert!(megabits > 250.0, "{megabits} Mbit/s");
}

#[test]
fn more_room_is_found_and_less_room_is_respected() {
    let mut toy = Toy::new(100.0, 40, 7);
    toy.run(3.0);
    toy.link.bytes_per_second *= 4.0;
    toy.run(1.0);
    let (megabits, _) = toy.run(2.0);
    assert!(megabits > 340.0, "{megabits} Mbit/s of 400");

    toy.link.bytes_per_second /= 4.0;
    toy.run(2.0);
    let (megabits, queue_ms) = toy.run(2.0);
    assert!(megabits > 90.0, "{megabits} Mbit/s of 100");
    assert!(queue_ms < 12.0, "queue of {queue_ms} ms");
}

#[test]
fn the_base_is_seen_again_by_a_flow_that_never_pauses() {
    let mut toy = Toy::new(300.0, 40, 8);
    toy.run(60.0);
    assert!(toy.elapsed() >= Duration::from_secs(59));
    let base = toy.controller().path.base();
    assert!(base < Duration::from_millis(43), "base drifted to {base:?}");
}

#[test]
fn marks_of_one_round_take_a_tenth() {
    let mut toy = Toy::new(300.0, 40, 9);
    toy.run(3.0);
    let before = toy.controller().window();
    for _ in 0..50 {
        let now = toy.now;
        toy.controller().on_congestion_event(now, now, false, 0);
    }
    toy.run(0.06);
    let after = toy.controller().window();
    assert!(after < before * 92 / 100 && after > before * 80 / 100, "{before} to {after}");
}

#[test]
fn growth_leaves_room_in_a_relays_queue() {
    let rtt = Duration::from_millis(120);
    let room = Finding {
        rate: 0.0,
        rtt,
        queue: Duration::ZERO,
        share: 0.0,
        lossy: false,
        limited: true,
        marked: false,
    };
    for (bytes_per_second, fills) in [(1e6, 2.0), (112.5e6, 1.3)] {
        let mut controller = RateDelay::new(Instant::now(), 1_200, Arc::default());
        controller.path.reset_base(rtt, Instant::now());
        controller.rates = [bytes_per_second; RATE_ROUNDS];
        controller.step = STEP_MOST;
        let fill = controller.fill();
        controller.set_window(fill);
        (0..10).for_each(|_| controller.judge_room(room, false));
        let grown = controller.window as f64 / fill;
        assert!((grown - fills).abs() < 0.05, "{grown} fills at {bytes_per_second} bytes a second");
    }
    let mut controller = RateDelay::new(Instant::now(), 1_200, Arc::default());
    controller.set_window(16e6);
    controller.judge_room(room, true);
    assert_eq!(controller.window, 16_000_000 + STEP_BYTES_MAX);
}

#[test]
fn marks_in_every_round_are_answered_in_every_other() {
    let mut toy = Toy::new(300.0, 40, 9);
    toy.run(3.0);
    let before = toy.controller().window();
    for _ in 0..400 {
        let now = toy.now;
        toy.controller().on_congestion_event(now, now, false, 0);
        toy.run(0.001);
    }
    // Some ten rounds of 40 ms or a little more.
    let cuts = (toy.controller().window() as f64 / before as f64).ln() / 0.9_f64.ln();
    assert!((3.5..=5.5).contains(&cuts), "{cuts} cuts");
}

#[test]
fn an_application_that_sends_little_does_not_blow_the_window_up() {
    let now = Instant::now();
    let mut controller = RateDelay::new(now, 1_200, Arc::default());
    for number in 0..1_000 {
        let sent = now + Duration::from_millis(number * 20);
        let heard = sent + Duration::from_millis(50);
        controller.acked(heard, sent, PACKET, true);
        controller.end_acks(heard, 0);
    }
    assert_eq!(controller.window(), INITIAL_PACKETS * PACKET);
}
