use std::time::{Duration, Instant};

use overway_probe::{LinkProbe, LocalClock, ProbeConfig, Rate};
use overway_wire::hop::{Heard, Heartbeat, Lane};
use overway_wire::{BootId, Micros, Millis, Ticks};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Call {
    Heartbeat(Heartbeat),
    Frame(Lane, u32, usize),
    Rate(Rate),
    Stall(Duration),
    Timeout,
}

fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..3_u64, (u64::MAX - 3)..=u64::MAX, 0..10_000_000_u64]
}

fn edgy_u32() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0..50_u32, (u32::MAX - 50)..=u32::MAX]
}

fn heartbeats() -> impl Strategy<Value = Heartbeat> {
    let heard = (edgy(), edgy_u32(), edgy_u32()).prop_map(|(echo, held, silence)| Heard {
        echo: Ticks(echo),
        held: Micros(held),
        silence: Micros(silence),
    });
    let rates = (any::<u16>(), any::<u16>());
    let counts = ([edgy_u32(), edgy_u32()], [edgy_u32(), edgy_u32()]);
    (0_u32..3, edgy_u32(), edgy(), proptest::option::of(heard), rates, counts).prop_map(
        |(boot, number, sent, heard, (interval, wanted), (sent_next, received_next))| Heartbeat {
            boot: BootId(boot),
            number,
            sent: Ticks(sent),
            heard,
            interval: Millis(interval),
            wanted: Millis(wanted),
            sent_next,
            received_next,
            complete_next: (boot > 0).then_some(received_next),
            lost: None,
            repairs: false,
        },
    )
}

fn calls() -> impl Strategy<Value = Call> {
    let lane = prop_oneof![Just(Lane::Light), Just(Lane::Realtime), Just(Lane::Bulk)];
    let rate = prop_oneof![Just(Rate::Active), Just(Rate::Backup), Just(Rate::Idle)];
    prop_oneof![
        4 => heartbeats().prop_map(Call::Heartbeat),
        4 => (lane, edgy_u32(), any::<usize>()).prop_map(|(l, n, b)| Call::Frame(l, n, b)),
        1 => rate.prop_map(Call::Rate),
        1 => any::<u64>().prop_map(|micros| Call::Stall(Duration::from_micros(micros))),
        2 => Just(Call::Timeout),
    ]
}

fn probe(now: Instant) -> LinkProbe {
    let clock = LocalClock::new(now, Ticks(1_000), 0);
    LinkProbe::new(ProbeConfig::default(), BootId(77), clock, now)
}

fn heartbeat(number: u32) -> Heartbeat {
    Heartbeat {
        boot: BootId(1),
        number,
        sent: Ticks(u64::from(number) * 30_000),
        heard: None,
        interval: Millis(30),
        wanted: Millis(30),
        sent_next: [0, 0],
        received_next: [0, 0],
        complete_next: None,
        lost: None,
        repairs: false,
    }
}

proptest! {
    #[test]
    fn no_neighbour_can_make_it_panic_or_wake_without_end(
        calls in proptest::collection::vec((calls(), 0_u64..200), 1..150),
    ) {
        let mut now = Instant::now();
        let mut probe = probe(now);
        for (call, wait) in calls {
            now += Duration::from_millis(wait);
            match call {
                Call::Heartbeat(heartbeat) => probe.handle_heartbeat(&heartbeat, now),
                Call::Frame(lane, number, bytes) => probe.handle_frame(lane, number, bytes, now),
                Call::Rate(rate) => probe.set_rate(rate, now),
                Call::Stall(late_by) => probe.handle_stall(late_by, now),
                Call::Timeout => {}
            }
            probe.handle_timeout(now);
            let sent = std::iter::from_fn(|| probe.poll_transmit(now)).count();
            prop_assert!(sent <= 1);
            prop_assert!(std::iter::from_fn(|| probe.poll_event()).count() <= 3);
            prop_assert!(probe.poll_timeout().is_some_and(|next| next > now));
            let (fast, slow) = probe.windows(now);
            prop_assert!(fast.lost <= fast.samples && slow.lost <= slow.samples);
            probe.received_bps(now);
            for lane in Lane::ALL {
                prop_assert_eq!(probe.acknowledged(lane), 0, "nothing was sent");
                prop_assert_eq!(probe.complete(lane), 0, "nothing was sent");
            }
        }
    }
}

#[test]
fn absurd_round_trips_are_ignored_and_counted() {
    let now = Instant::now() + Duration::from_secs(100);
    let mut probe = probe(now - Duration::from_secs(100));
    let heard = |echo, held| Heard { echo: Ticks(echo), held: Micros(held), silence: Micros(0) };
    let cases = [
        heard(u64::MAX, 0),
        heard(0, 0),
        heard(100_000_000, 2_000_000),
        heard(200_000_000, 0),
        heard(0, u32::MAX),
    ];
    for (number, heard) in (0..).zip(cases) {
        probe.handle_heartbeat(&Heartbeat { heard: Some(heard), ..heartbeat(number) }, now);
    }
    assert_eq!(probe.stats().rtt_ignored, 5);
    assert_eq!(probe.windows(now).0.rtt, Micros(0));

    let heard = Some(heard(99_001_000, 900_000));
    probe.handle_heartbeat(&Heartbeat { heard, ..heartbeat(9) }, now);
    assert_eq!(probe.windows(now).0.rtt, Micros(100_000));
}

#[test]
fn a_neighbour_whose_clock_leaps_stays_within_what_a_scheduler_takes() {
    let base = Instant::now();
    let mut probe = probe(base);
    let leaps = [0, 120_000_000, 1 << 40, 1 << 61, 1 << 63];
    for number in 0..2_000 {
        let now = base + Duration::from_millis(30) * number;
        let sent = Ticks(u64::from(number) * 30_000 + leaps[number as usize % 5]);
        probe.handle_heartbeat(&Heartbeat { sent, ..heartbeat(number) }, now);
        let (fast, slow) = probe.windows(now);
        for window in [fast, slow] {
            assert!(window.jitter <= Micros(60_000_000), "{window:?}");
            assert!(window.one_way_diff.0.unsigned_abs() <= 1 << 59, "{window:?}");
        }
    }
    assert!(probe.stats().timings_ignored > 1_000);
}

#[test]
fn a_neighbour_cannot_demand_a_flood() {
    let base = Instant::now();
    let mut probe = probe(base);
    probe.handle_heartbeat(&Heartbeat { wanted: Millis(0), ..heartbeat(0) }, base);

    let mut sent = 0;
    while let Some(next) = probe.poll_timeout().filter(|next| *next < base + Duration::from_secs(1))
    {
        let next = next.max(base);
        // It goes on being heard, so that its wish stays in force.
        probe.handle_frame(Lane::Light, sent, 60, next);
        probe.handle_timeout(next);
        sent += u32::from(probe.poll_transmit(next).is_some());
    }

    assert!((99..=102).contains(&sent), "{sent} heartbeats in a second");
}

#[test]
fn a_late_heartbeat_is_life_and_no_more() {
    let base = Instant::now();
    let mut probe = probe(base);
    probe.handle_heartbeat(&heartbeat(5), base);
    let measured = probe.windows(base);

    let late = Heartbeat { interval: Millis(5_000), ..heartbeat(4) };
    probe.handle_heartbeat(&late, base + Duration::from_millis(20));

    assert_eq!(probe.windows(base).0.one_way_diff, measured.0.one_way_diff);
    assert_eq!(probe.stats().heartbeats_late, 1);
    let suspect = base + Duration::from_millis(66);
    assert!(probe.poll_timeout().is_some_and(|next| next <= suspect));
}

#[test]
fn what_is_complete_moves_forward_and_never_beyond_what_was_sent() {
    let base = Instant::now();
    let mut probe = probe(base);
    (0..10).for_each(|_| {
        probe.handle_sent(Lane::Bulk);
    });
    let mut complete = Vec::new();
    for (number, said) in (0..).zip([None, Some(3), Some(2), Some(11), Some(7), None]) {
        let complete_next = said.map(|said| [0, said]);
        let said = Heartbeat { received_next: [0, 9], complete_next, ..heartbeat(number) };
        probe.handle_heartbeat(&said, base);
        complete.push((probe.recovers(), probe.complete(Lane::Bulk)));
    }

    // Without a word of its own, what was received is taken for complete.
    let expected = [(false, 9), (true, 3), (true, 3), (true, 3), (true, 7), (false, 9)];
    assert_eq!(complete, expected);
    assert_eq!(probe.acknowledged(Lane::Bulk), 9);
}

#[test]
fn a_neighbour_that_counts_anew_without_a_restart_loses_nothing() {
    let base = Instant::now();
    let mut probe = probe(base);
    for number in 0..20 {
        let now = base + Duration::from_millis(30) * number;
        probe.handle_heartbeat(&Heartbeat { sent_next: [500, 0], ..heartbeat(number) }, now);
        probe.handle_frame(Lane::Realtime, 500 + number, 100, now);
    }
    for number in 0..20 {
        let now = base + Duration::from_millis(30) * (20 + number);
        let sent = Ticks(u64::from(20 + number) * 30_000);
        let sent_next = [number, 0];
        probe.handle_heartbeat(&Heartbeat { sent, sent_next, ..heartbeat(number) }, now);
        probe.handle_frame(Lane::Realtime, number, 100, now);
    }
    let now = base + Duration::from_secs(2);
    probe.set_rate(Rate::Active, now);

    assert!(probe.take_renumbered() && !probe.take_renumbered());
    assert_eq!(probe.stats().lost, 0);
    assert_eq!(probe.stats().stale, 0);
    assert_eq!(probe.poll_transmit(now).unwrap().received_next, [20, 0]);
}
