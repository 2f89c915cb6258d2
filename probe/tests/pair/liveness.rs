use std::time::Duration;

use overway_probe::{Direction, LinkProbe, ProbeEvent, Rate, State};
use overway_wire::hop::Lane;
use proptest::prelude::*;

use crate::world::{Pair, Wire, ms, secs};

fn symmetric(delay: Duration) -> [Wire; 2] {
    [Wire::with_delay(delay), Wire::with_delay(delay)]
}

fn active(wires: [Wire; 2], seed: u64) -> Pair {
    let mut pair = Pair::new(wires, seed);
    pair.both(|probe, now| probe.set_rate(Rate::Active, now));
    pair.run_for(secs(5));
    for end in &pair.ends {
        assert_eq!((end.probe.inbound(), end.probe.outbound()), (State::Up, State::Up));
    }
    pair
}

#[test]
fn a_link_is_up_both_ways_within_a_round_trip_and_a_half() {
    let mut pair = Pair::new(symmetric(ms(40)), 1);

    pair.run_for(ms(121));

    for end in &pair.ends {
        assert_eq!((end.probe.inbound(), end.probe.outbound()), (State::Up, State::Up));
    }
    assert!(pair.alarms(0, pair.base).is_empty() && pair.alarms(1, pair.base).is_empty());
}

#[test]
fn a_silent_neighbour_is_suspect_and_down_at_these_times() {
    // Rate, jitter, and after the last arrival: suspect from, to; down from, to.
    let cases = [
        (Rate::Active, 0, (46, 47), (95, 97)),
        (Rate::Active, 4, (46, 57), (95, 115)),
        (Rate::Active, 30, (46, 58), (95, 121)),
        (Rate::Backup, 0, (301, 302), (634, 635)),
        (Rate::Backup, 30, (301, 381), (634, 801)),
        (Rate::Idle, 0, (1_501, 1_502), (3_170, 3_171)),
    ];
    for (rate, jitter, suspect, down) in cases {
        let mut wires = symmetric(ms(20));
        wires[0].jitter = ms(jitter);
        let mut pair = Pair::new(wires, 3);
        pair.both(|probe, now| probe.set_rate(rate, now));
        pair.run_for(secs(60));
        pair.freeze(0);
        // What is in flight still arrives; the silence counts from its arrival.
        let last_sent = *pair.ends[0].heartbeat_times.last().unwrap();
        let frozen_at = pair.now;
        pair.run_for(secs(10));

        let at = |state| pair.first(1, Direction::Inbound, state, frozen_at).unwrap();
        let earliest = (last_sent + ms(20)).saturating_duration_since(frozen_at);
        let before = frozen_at.saturating_duration_since(last_sent + ms(20));
        for (state, (from, to)) in [(State::Suspect, suspect), (State::Down, down)] {
            let silence = at(state) + before - earliest;
            let expected = ms(from)..ms(to + jitter);
            assert!(
                expected.contains(&silence),
                "{rate:?}, jitter {jitter}, {state:?}: {silence:?}"
            );
        }
        assert_eq!(pair.ends[1].probe.outbound(), State::Down);
    }
}

#[test]
fn a_neighbour_that_died_while_nobody_asked_is_found_out_in_a_round_trip_and_half_an_interval() {
    for (rate, jitter) in [(Rate::Idle, 0), (Rate::Backup, 0), (Rate::Backup, 4)] {
        let mut wires = symmetric(ms(20));
        wires[0].jitter = ms(jitter);
        let mut pair = Pair::new(wires, 5);
        pair.both(|probe, now| probe.set_rate(rate, now));
        pair.run_for(secs(30));
        pair.freeze(0);
        pair.run_for(ms(30));
        assert_eq!(pair.ends[1].probe.inbound(), State::Up, "{rate:?}");

        let asked_at = pair.now;
        pair.ends[1].probe.set_rate(Rate::Active, asked_at);
        assert!(pair.ends[1].probe.is_asking());
        pair.run_for(secs(1));

        let after = |state| pair.first(1, Direction::Inbound, state, asked_at).unwrap();
        let (suspect, down) = (after(State::Suspect), after(State::Down));
        assert!((ms(55)..=ms(70 + 4 * jitter)).contains(&suspect), "{rate:?}: {suspect:?}");
        assert!((ms(140)..=ms(190 + 4 * jitter)).contains(&down), "{rate:?}: {down:?}");
        assert!(!pair.ends[1].probe.is_asking());
    }
}

#[test]
fn a_neighbour_that_answers_is_never_suspect_for_having_been_asked() {
    let mut suspects = 0;
    for seed in 0..50 {
        let mut wires = symmetric(ms(40));
        for wire in &mut wires {
            wire.jitter = ms(8);
        }
        let mut pair = Pair::new(wires, seed);
        pair.run_for(secs(40));
        let asked_at = pair.now;
        pair.ends[1].probe.set_rate(Rate::Active, asked_at);
        pair.run_for(secs(1));
        assert!(!pair.ends[1].probe.is_asking());
        suspects += pair.alarms(1, asked_at).len() + pair.alarms(0, asked_at).len();
    }
    assert_eq!(suspects, 0);
}

#[test]
fn an_hour_of_jitter_and_one_percent_loss_brings_hardly_a_down() {
    let mut downs = 0;
    for seed in 0..3 {
        let mut wires = symmetric(ms(40));
        for wire in &mut wires {
            (wire.jitter, wire.loss) = (ms(10), 0.01);
        }
        let mut pair = active(wires, seed);
        pair.run_for(secs(3_600));
        downs += pair.ends[0].probe.stats().downs + pair.ends[1].probe.stats().downs;
    }

    // Three heartbeats in a row are lost 0.12 times an hour: 0.7 times in six hours of one direction.
    assert!(downs <= 3, "{downs} times down");
}

#[test]
fn jitter_alone_raises_no_alarm() {
    let mut wires = symmetric(ms(40));
    for wire in &mut wires {
        wire.jitter = ms(12);
    }
    let mut pair = active(wires, 9);
    let since = pair.now;

    pair.run_for(secs(3_600));

    for end in [0, 1] {
        assert!(pair.alarms(end, since).is_empty(), "{:?}", pair.alarms(end, since));
    }
}

#[test]
fn data_alone_keeps_a_direction_up() {
    let mut pair = active(symmetric(ms(40)), 2);
    pair.send_every(0, Some(ms(20)));
    pair.run_for(ms(100));
    pair.wires[0].light_lane_cut = true;
    let cut = pair.now;

    pair.run_for(secs(5));

    assert_eq!(pair.ends[1].probe.inbound(), State::Up);
    // Without heartbeats end 1 cannot know whether it is heard.
    assert_eq!(pair.ends[1].probe.outbound(), State::Down);
    let down = pair.first(1, Direction::Outbound, State::Down, cut).unwrap();
    assert!((ms(180)..ms(240)).contains(&down), "{down:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_one_way_failure_is_seen_from_both_sides(
        there in 1_u64..150, back in 1_u64..150, jitter in 0_u64..6, phase in 0_u64..1_000,
        seed in any::<u64>(),
    ) {
        let mut wires = [Wire::with_delay(ms(there)), Wire::with_delay(ms(back))];
        for wire in &mut wires {
            wire.jitter = ms(jitter);
        }
        let mut pair = active(wires, seed);
        pair.run_for(ms(phase));
        pair.wires[0].cut = true;
        let cut = pair.now;
        pair.run_for(secs(5));

        // Until the last arrival, the widest limit, and for end 0 the flight of the word of it.
        let flight = ms(there + jitter);
        let word = ms(back + jitter);
        for (state, limit) in [(State::Suspect, ms(58)), (State::Down, ms(121))] {
            let far = pair.first(1, Direction::Inbound, state, cut).unwrap();
            prop_assert!(far <= flight + limit, "{state:?} at the far end after {far:?}");
            let near = pair.first(0, Direction::Outbound, state, cut).unwrap();
            prop_assert!(near <= flight + limit + word, "{state:?} here after {near:?}");
        }
        prop_assert_eq!(pair.ends[0].probe.inbound(), State::Up);
        prop_assert_eq!(pair.ends[0].probe.outbound(), State::Down);
        prop_assert_eq!(pair.ends[1].probe.inbound(), State::Down);

        pair.wires[0].cut = false;
        let mended = pair.now;
        pair.run_for(secs(2));
        let up = pair.first(1, Direction::Inbound, State::Up, mended).unwrap();
        prop_assert!(up >= ms(there + 30) && up <= ms(there + jitter) + ms(91), "up after {up:?}");
        prop_assert_eq!(pair.ends[0].probe.outbound(), State::Up);
    }

    #[test]
    fn changes_of_rate_raise_no_alarm(
        delay in 1_u64..200,
        changes in proptest::collection::vec((0_usize..2, 0_usize..3, 1_u64..3_000), 1..20),
        seed in any::<u64>(),
    ) {
        let mut wires = symmetric(ms(delay));
        for wire in &mut wires {
            wire.jitter = ms(4);
        }
        let mut pair = Pair::new(wires, seed);
        pair.run_for(secs(3));
        for (end, rate, wait) in changes {
            let now = pair.now;
            let rate = [Rate::Active, Rate::Backup, Rate::Idle][rate];
            pair.ends[end].probe.set_rate(rate, now);
            pair.run_for(ms(wait));
        }
        pair.run_for(secs(5));
        for end in [0, 1] {
            let alarms = pair.alarms(end, pair.base);
            prop_assert!(alarms.is_empty(), "{:?}", alarms);
        }
    }

    #[test]
    fn a_late_process_blames_itself(
        asleep in 20_u64..20_000, phase in 0_u64..1_000, delay in 1_u64..100, seed in any::<u64>(),
    ) {
        let mut pair = active(symmetric(ms(delay)), seed);
        pair.send_every(0, Some(ms(20)));
        pair.send_every(1, Some(ms(20)));
        pair.run_for(ms(1_000 + phase));
        let measured = pair.ends[0].probe.windows(pair.now).1;
        pair.freeze(0);
        let since = pair.now;
        pair.run_for(ms(asleep));
        pair.thaw(0);
        pair.run_for(secs(3));

        let alarms = pair.alarms(0, since);
        prop_assert!(alarms.is_empty(), "{:?}", alarms);
        let (_, after) = pair.ends[0].probe.windows(pair.now);
        // What a sleep too short to be noticed adds is under half a heartbeat, for one sample.
        prop_assert!(after.one_way_diff.0.abs_diff(measured.one_way_diff.0) < 200, "{after:?}");
        prop_assert_eq!(after.lost, 0);
        prop_assert_eq!(pair.ends[1].probe.stats().lost, 0);
        if asleep > 60 {
            prop_assert_eq!(pair.ends[0].probe.stats().stalls, 1);
        }
        if asleep > 150 {
            prop_assert_eq!(pair.ends[1].probe.stats().downs, 1);
            prop_assert_eq!(pair.ends[1].probe.inbound(), State::Up);
        }
    }
}

#[test]
fn the_backlog_of_a_long_stall_is_life_and_nothing_else() {
    for (asleep, reading) in
        [(ms(700), ms(0)), (ms(700), ms(250)), (secs(20), ms(0)), (secs(20), ms(250))]
    {
        let mut pair = active(symmetric(ms(2)), 11);
        let (_, measured) = pair.ends[0].probe.windows(pair.now);
        pair.freeze(0);
        let since = pair.now;
        pair.run_for(asleep);
        pair.thaw_reading_for(0, reading);

        let probe = &pair.ends[0].probe;
        assert_eq!((probe.inbound(), probe.outbound()), (State::Up, State::Up));
        let (fast, slow) = probe.windows(pair.now);
        for window in [fast, slow] {
            let diff = (window.one_way_diff, window.rtt, window.jitter, window.lost);
            let before = (measured.one_way_diff, measured.rtt, measured.jitter, 0);
            assert_eq!(diff, before, "{asleep:?} read in {reading:?}");
        }
        pair.run_for(secs(3));
        let alarms = pair.alarms(0, since);
        assert!(alarms.is_empty(), "{asleep:?} read in {reading:?}: {alarms:?}");
        let probe = &pair.ends[0].probe;
        assert_eq!((probe.stats().lost, probe.stats().timings_ignored), (0, 0));
        let (fast, _) = probe.windows(pair.now);
        assert_eq!((fast.one_way_diff, fast.jitter), (measured.one_way_diff, measured.jitter));
        assert_eq!(pair.ends[1].probe.inbound(), State::Up);
    }
}

#[test]
fn a_neighbour_that_died_during_a_long_stall_is_found_out() {
    let mut pair = active(symmetric(ms(2)), 12);
    pair.freeze(0);
    pair.run_for(ms(500));
    pair.wires[1].cut = true;
    pair.run_for(ms(500));
    pair.thaw(0);
    let since = pair.now;
    pair.run_for(secs(1));

    let down = pair.first(0, Direction::Inbound, State::Down, since).unwrap();
    assert!(down < ms(100), "{down:?}");
}

#[test]
fn the_greater_need_sets_the_rate_of_both() {
    let mut pair = Pair::new(symmetric(ms(40)), 4);
    pair.run_for(ms(3_500));
    let sent_during = |pair: &mut Pair, span| {
        let before = [0, 1].map(|end: usize| pair.ends[end].heartbeat_times.len());
        pair.run_for(span);
        [0, 1].map(|end: usize| pair.ends[end].heartbeat_times.len() - before[end])
    };
    assert_eq!(sent_during(&mut pair, secs(10)), [10, 10]);

    let now = pair.now;
    pair.ends[0].probe.set_rate(Rate::Active, now);
    let asked = sent_during(&mut pair, ms(300));
    assert_eq!(asked, [10, 9], "at once here, after the flight there");
    let fast = sent_during(&mut pair, secs(3));
    assert!(fast.iter().all(|sent| (99..=101).contains(sent)), "{fast:?}");

    let now = pair.now;
    pair.ends[0].probe.set_rate(Rate::Idle, now);
    sent_during(&mut pair, secs(2));
    assert_eq!(sent_during(&mut pair, secs(10)), [10, 10]);
}

#[test]
fn losing_the_word_of_a_slower_rate_is_not_silence() {
    let mut pair = active(symmetric(ms(40)), 5);
    let since = pair.now;
    pair.both(|probe, now| probe.set_rate(Rate::Idle, now));
    pair.wires[0].cut = true;
    // The word sent at once, and one repetition.
    pair.run_for(ms(35));
    pair.wires[0].cut = false;

    pair.run_for(secs(5));

    assert_eq!(pair.first(1, Direction::Inbound, State::Down, since), None);
    assert_eq!(pair.ends[1].probe.inbound(), State::Up);
}

#[test]
fn a_restarted_neighbour_is_known_and_its_old_life_ignored() {
    let mut pair = active(symmetric(ms(40)), 6);
    pair.send_every(1, Some(ms(20)));
    pair.run_for(secs(1));
    pair.restart(1, 1);
    let since = pair.now;
    pair.run_for(secs(3));

    let restarts = |pair: &Pair| {
        pair.told.iter().filter(|t| t.end == 0 && t.event == ProbeEvent::PeerRestarted).count()
    };
    assert_eq!(restarts(&pair), 1);
    assert!(pair.told.iter().all(|told| told.end == 0 || told.event != ProbeEvent::PeerRestarted));
    let probe = &pair.ends[0].probe;
    assert_eq!((probe.inbound(), probe.outbound()), (State::Up, State::Up));
    assert_eq!(pair.first(0, Direction::Inbound, State::Down, since), None);
    assert_eq!((probe.stats().lost, probe.stats().peer_restarts), (0, 1));

    // A heartbeat of the old process comes late.
    let mut old = old_life(&mut pair);
    let heartbeat = old.poll_transmit(pair.now).unwrap();
    let now = pair.now;
    pair.ends[0].probe.handle_heartbeat(&heartbeat, now);
    assert_eq!(pair.ends[0].probe.stats().heartbeats_old_boot, 1);
    assert_eq!(restarts(&pair), 1);
}

fn old_life(pair: &mut Pair) -> LinkProbe {
    let clock =
        overway_probe::LocalClock::new(pair.base, overway_wire::Ticks(1_000_000_000_000), 0);
    LinkProbe::new(Default::default(), crate::world::boot(1, 0), clock, pair.now)
}

#[test]
fn an_outage_is_not_loss() {
    let mut pair = active(symmetric(ms(40)), 7);
    pair.send_every(0, Some(ms(1)));
    pair.run_for(secs(10));
    let before = *pair.ends[1].probe.stats();
    pair.wires[0].cut = true;
    pair.run_for(secs(30));
    pair.wires[0].cut = false;
    pair.run_for(secs(10));

    let probe = &pair.ends[1].probe;
    assert_eq!((probe.stats().downs, probe.inbound()), (1, State::Up));
    assert_eq!(probe.stats().lost, before.lost);
    let (fast, slow) = probe.windows(pair.now);
    assert_eq!((fast.lost, slow.lost), (0, 0));
    assert!(fast.samples > 900, "counting goes on after the outage: {fast:?}");
}

#[test]
fn a_short_break_is_loss() {
    let mut pair = active(symmetric(ms(40)), 8);
    pair.send_every(0, Some(ms(1)));
    pair.run_for(secs(10));
    pair.wires[0].cut = true;
    pair.run_for(ms(40));
    pair.wires[0].cut = false;
    pair.run_for(secs(1));

    let stats = pair.ends[1].probe.stats();
    assert_eq!(stats.downs, 0);
    assert!((39..=43).contains(&stats.lost), "{stats:?}");
}

#[test]
fn what_arrived_is_acknowledged() {
    let mut pair = active(symmetric(ms(40)), 10);
    pair.send_every(0, Some(ms(10)));
    pair.run_for(ms(501));
    pair.send_every(0, None);
    pair.run_for(secs(1));

    assert_eq!(pair.ends[0].probe.acknowledged(Lane::Realtime), 51);
    assert_eq!(pair.ends[0].probe.acknowledged(Lane::Bulk), 0);
    assert_eq!(pair.ends[0].probe.acknowledged(Lane::Light), 0);
}
