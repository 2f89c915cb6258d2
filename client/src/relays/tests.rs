use super::*;

fn addresses(count: u16) -> Vec<SocketAddr> {
    (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

#[test]
fn two_places_never_use_one_relay() {
    let now = Instant::now();
    let list = addresses(3);
    let mut relays = Relays::new(&list, now);
    assert_eq!(relays.next(0, now), Next::Dial(list[0]));
    assert!(relays.answered(0, RelayId(7)));
    relays.succeeded(0);
    assert_eq!(relays.next(1, now), Next::Dial(list[1]));
    // Another address of the same relay.
    assert!(!relays.answered(1, RelayId(7)));
    relays.passed_over(1);

    assert_eq!(relays.next(1, now), Next::Dial(list[2]));
    assert!(relays.answered(1, RelayId(8)));
    relays.failed(1, None, 0.0, now);
    assert_eq!(relays.next(1, now), Next::Wait(now + PAUSE_MIN / 2));
    relays.failed(0, None, 1.0, now);
    assert_eq!(relays.next(1, now), Next::Dial(list[1]), "free again");
}

#[test]
fn relays_that_are_no_longer_given_are_left_when_their_attachment_ends() {
    let now = Instant::now();
    let list = addresses(4);
    let mut relays = Relays::new(&list[..2], now);
    assert_eq!(relays.next(0, now), Next::Dial(list[0]));
    assert_eq!(relays.next(1, now), Next::Dial(list[1]));

    relays.give(&list[1..3], now);

    assert_eq!(relays.to_measure(9).len(), 3, "the first is in use");
    relays.failed(0, None, 0.0, now);
    assert_eq!(relays.next(0, now), Next::Dial(list[2]));
    assert_eq!(relays.to_measure(9).len(), 2);
}

#[test]
fn one_relay_leaves_nothing_for_the_second_place() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    assert!(matches!(relays.next(0, now), Next::Dial(_)));
    assert_eq!(relays.next(1, now), Next::Nowhere);
}

#[test]
fn pauses_double_up_to_half_a_minute_and_refusals_are_obeyed() {
    let mut now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    let mut pause = |refused| {
        assert!(matches!(relays.next(0, now), Next::Dial(_)));
        relays.failed(0, refused, 1.0, now);
        let Next::Wait(until) = relays.next(0, now) else { panic!("no pause") };
        let pause = until - now;
        now = until;
        pause
    };
    let pauses: Vec<_> = (0..9).map(|_| pause(None).as_millis()).collect();
    assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    let after = Some(Duration::from_secs(5));
    assert_eq!(pause(Some(Refused { retry_after: after })).as_secs(), 5);
    assert_eq!(pause(Some(Refused { retry_after: None })).as_secs(), 60);

    assert!(matches!(relays.next(0, now), Next::Dial(_)));
    relays.failed(0, None, 1.0, now);
    relays.forgive(now);
    assert!(matches!(relays.next(0, now), Next::Dial(_)));
}

fn learned(relay: u16, rtt_ms: u64) -> Learned {
    Learned {
        relay: RelayId(relay),
        addresses: vec![SocketAddr::from(([127, 0, 1, 1], relay))],
        tcp_addresses: Vec::new(),
        region: format!("region-{relay}"),
        provider: format!("provider-{relay}"),
        rtt: (rtt_ms > 0).then(|| Duration::from_millis(rtt_ms)),
        standing: Standing::Open,
    }
}

fn dial(relays: &mut Relays, place: usize, now: Instant) -> u16 {
    let Next::Dial(address) = relays.next(place, now) else { panic!("nothing to dial") };
    address.port()
}

#[test]
fn the_nearest_that_was_told_of_or_measured_is_taken_before_what_was_given() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    relays.learn(&[learned(20, 50), learned(21, 20), learned(22, 80)], now);
    assert_eq!(dial(&mut relays, 0, now), 21);
    relays.measured(learned(22, 0).addresses[0], RelayId(22), Duration::from_millis(9), now);
    assert_eq!(dial(&mut relays, 1, now), 22);
    relays.failed(0, None, 1.0, now);
    assert_eq!(dial(&mut relays, 0, now), 20, "the next without a failure");
    relays.failed(0, None, 1.0, now);
    assert_eq!(dial(&mut relays, 0, now), 1, "what was given stays");
}

#[test]
fn of_those_about_as_near_the_second_is_of_another_provider_and_region() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    let same = |relay| Learned { provider: "p".into(), ..learned(relay, 20) };
    relays.learn(&[same(20), same(21), Learned { provider: "q".into(), ..same(22) }], now);
    assert_eq!(dial(&mut relays, 0, now), 20);
    assert_eq!(dial(&mut relays, 1, now), 22);

    // One that is far is not taken for that.
    let mut relays = Relays::new(&addresses(1), now);
    relays.learn(&[same(20), same(21), learned(22, 90)], now);
    assert_eq!((dial(&mut relays, 0, now), dial(&mut relays, 1, now)), (20, 21));
}

#[test]
fn one_that_fills_up_comes_after_its_equals_and_one_that_drains_after_all() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    let standing = |relay, standing| Learned { standing, ..learned(relay, 20) };
    let answer =
        [standing(20, Standing::Filling), standing(21, Standing::Draining), learned(22, 21)];
    relays.learn(&answer, now);
    assert_eq!(dial(&mut relays, 0, now), 22);
    assert_eq!(dial(&mut relays, 1, now), 20);
    relays.failed(1, None, 1.0, now);
    assert_eq!(dial(&mut relays, 1, now), 1, "rather one of which nothing is known");
}

#[test]
fn what_is_learnt_is_bounded_and_forgotten_while_what_is_given_or_used_stays() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(2), now);
    let many: Vec<Learned> = (100..300).map(|relay| learned(relay, 20)).collect();
    relays.learn(&many, now);
    assert_eq!(relays.known.len(), RELAYS_MAX);
    assert_eq!(dial(&mut relays, 0, now), 100);
    assert_eq!(dial(&mut relays, 1, now), 101);

    relays.learn(&[learned(9, 20), learned(101, 20)], now);
    let ports: Vec<u16> = relays.known.iter().map(|known| known.address.port()).collect();
    assert_eq!(ports, [1, 2, 100, 101, 9]);
    let used = relays.used.map(|used| relays.known[used.unwrap().at].address.port());
    assert_eq!(used, [100, 101], "places keep what they use");
}

#[test]
fn a_relay_that_has_another_address_is_dialled_there() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    relays.learn(&[learned(20, 5)], now);
    assert_eq!(dial(&mut relays, 0, now), 20);
    let moved = Learned { addresses: vec![([127, 0, 2, 1], 99).into()], ..learned(20, 5) };
    relays.learn(std::slice::from_ref(&moved), now);
    assert_eq!(relays.known[1].address.port(), 20, "not while it is in use");
    relays.failed(0, None, 1.0, now);
    relays.learn(&[moved], now);
    assert_eq!(dial(&mut relays, 0, now), 99, "as one that has not failed");
    assert_eq!(relays.known.len(), 2);
}

#[test]
fn a_relay_that_was_given_and_is_learnt_is_one() {
    let now = Instant::now();
    let mut relays = Relays::new(&addresses(1), now);
    let same = Learned { addresses: addresses(1), ..learned(5, 20) };
    relays.learn(&[same.clone(), learned(6, 20)], now);
    assert_eq!(relays.known.len(), 2);
    relays.learn(&[Learned { addresses: vec![], ..same }], now);
    assert_eq!(relays.known.len(), 1, "by its id, too");
}

#[test]
fn a_place_moves_when_another_was_clearly_nearer_for_a_minute_and_not_for_one_measurement() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut relays = Relays::new(&addresses(1), start);
    relays.learn(&[learned(20, 0), learned(21, 0)], start);
    assert_eq!(dial(&mut relays, 0, start), 20);
    let (ms, old) = (Duration::from_millis, Duration::from_secs(600));
    let other = learned(21, 0).addresses[0];
    let measured = |relays: &mut Relays, rtt, now| {
        relays.measured(other, RelayId(21), ms(rtt), now);
    };
    measured(&mut relays, 30, at(0));
    assert!(!relays.is_bettered(0, ms(80), old, at(1)));
    assert!(!relays.is_bettered(0, ms(80), old, at(90)), "measured once");
    measured(&mut relays, 72, at(95));
    assert!(!relays.is_bettered(0, ms(80), old, at(96)), "8 ms are nothing");
    measured(&mut relays, 30, at(100));
    assert!(!relays.is_bettered(0, ms(80), old, at(101)), "it begins anew");
    measured(&mut relays, 30, at(160));
    assert!(!relays.is_bettered(0, ms(80), old, at(160)));
    assert!(relays.is_bettered(0, ms(80), old, at(161)));
    // One that is used by the other place is none to move to.
    relays.used[1] = Some(Used { at: 2, relay: Some(RelayId(21)) });
    assert!(!relays.is_bettered(0, ms(80), old, at(162)));
}

#[test]
fn a_new_attachment_moves_at_once_and_nobody_moves_to_and_fro() {
    let start = Instant::now();
    let mut relays = Relays::new(&addresses(1), start);
    relays.learn(&[learned(20, 0), learned(21, 0)], start);
    assert_eq!(dial(&mut relays, 0, start), 20);
    let rtt = |relay: u16, seconds: u64| {
        // Both swing by half, one against the other.
        let swing = (seconds / 20) % 2 == u64::from(relay % 2);
        Duration::from_millis(if swing { 60 } else { 40 })
    };
    let address = |relay| learned(relay, 0).addresses[0];
    relays.measured(address(21), RelayId(21), Duration::from_millis(5), start);
    let young = Duration::from_secs(2);
    assert!(relays.is_bettered(0, Duration::from_millis(40), young, start));

    for seconds in 0..3_600 {
        let now = start + Duration::from_secs(seconds);
        relays.measured(address(21), RelayId(21), rtt(21, seconds), now);
        let age = Duration::from_secs(100 + seconds);
        assert!(!relays.is_bettered(0, rtt(20, seconds), age, now), "at {seconds} s");
    }
}
