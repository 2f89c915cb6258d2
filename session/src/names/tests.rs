use proptest::prelude::*;

use super::*;

const EDGE: EdgeId = EdgeId([1; 32]);
const OTHER: EdgeId = EdgeId([2; 32]);
const HOME: Whereabouts = Whereabouts { first: at(1), second: Some(at(2)) };

const fn at(relay: u16) -> Address {
    Address::new(RelayId(relay), AttachmentId(7))
}

const fn revision(number: u64) -> Revision {
    Revision { boot: 5, number }
}

fn answer_to(far: &Far) -> FlowId {
    FlowId(far.own_incarnation().0 | ACCEPTED)
}

fn known(heard: Heard) -> (Address, From) {
    let Heard::Name { name, from } = heard else { panic!("nobody's") };
    (name, from)
}

#[test]
fn both_addresses_and_both_ways_are_one_name() {
    let (names, now) = (Names::default(), Instant::now());
    let far = names.dial(HOME, now).unwrap();
    assert_eq!(far.name().relay, RelayId(0));

    for source in [at(1), at(2)] {
        assert_eq!(known(names.hear(source, answer_to(&far), now)), (far.name(), From::Home));
    }
    assert_eq!(names.hear(at(1), FlowId(answer_to(&far).0 ^ 1), now), Heard::Nobody);
}

#[test]
fn an_incarnation_that_nobody_knows_is_a_strangers_and_is_answered_likewise() {
    let (names, now) = (Names::default(), Instant::now());

    let (name, from) = known(names.hear(at(3), FlowId(9), now));

    let far = names.find(name).unwrap();
    assert_eq!(from, From::Home);
    assert_eq!(far.own_incarnation(), FlowId(9 | ACCEPTED));
    assert_eq!(far.whereabouts(), Whereabouts::at(at(3)));
}

#[test]
fn answers_follow_until_there_is_a_proof_and_then_the_edges_word_alone() {
    let (names, now) = (Names::default(), Instant::now());
    let (name, _) = known(names.hear(at(3), FlowId(9), now));
    let far = names.find(name).unwrap();
    assert_eq!(known(names.hear(at(4), FlowId(9), now)), (name, From::Home));
    let followed = Whereabouts { first: at(4), second: Some(at(3)) };
    assert_eq!(far.whereabouts(), followed);

    far.prove(EDGE, revision(1), Some(HOME)).unwrap();
    assert_eq!(known(names.hear(at(4), FlowId(9), now)), (name, From::Elsewhere));
    assert_eq!(far.whereabouts(), HOME);

    let moved = Whereabouts::at(at(4));
    far.prove(EDGE, revision(3), Some(moved)).unwrap();
    far.prove(EDGE, revision(2), Some(HOME)).unwrap();
    assert_eq!(far.whereabouts(), moved);
    assert_eq!(far.prove(OTHER, revision(4), Some(HOME)), Err(OtherEdge));
    assert_eq!(far.whereabouts(), moved);

    // What came from there before went past the order, once.
    assert_eq!(known(names.hear(at(4), FlowId(9), now)), (name, From::NewHome));
    assert_eq!(known(names.hear(at(4), FlowId(9), now)), (name, From::Home));

    // Started anew, it counts from the beginning.
    far.prove(EDGE, Revision { boot: 6, number: 0 }, Some(HOME)).unwrap();
    assert_eq!(far.whereabouts(), HOME);
}

#[test]
fn a_silent_edge_is_sought_where_frames_come_from_until_it_says_where_it_is() {
    let (names, start) = (Names::default(), Instant::now());
    let far = names.dial(HOME, start).unwrap();
    let (answer, later) = (answer_to(&far), start + Duration::from_secs(2));
    assert!(!far.seek(Whereabouts::at(at(5)), later), "not proven");
    far.prove(EDGE, revision(1), Some(HOME)).unwrap();
    assert!(!far.seek(Whereabouts { first: at(2), second: Some(at(1)) }, later), "known");

    assert_eq!(known(names.hear(at(4), answer, later)), (far.name(), From::Sought));
    assert_eq!(known(names.hear(at(4), answer, later)), (far.name(), From::Elsewhere));
    let there = Whereabouts::at(at(4));
    assert_eq!((far.whereabouts(), far.sought_at(later)), (HOME, Some(there)));

    far.prove(EDGE, revision(2), Some(there)).unwrap();
    assert_eq!((far.whereabouts(), far.sought_at(later)), (there, None));
    assert_eq!(known(names.hear(at(4), answer, later)), (far.name(), From::NewHome));
    assert_eq!(known(names.hear(at(5), answer, later)), (far.name(), From::Elsewhere), "heard");
}

#[test]
fn an_edge_that_is_nowhere_is_sought_where_it_was() {
    let (names, now) = (Names::default(), Instant::now());
    let far = names.dial(HOME, now).unwrap();

    far.prove(EDGE, revision(1), None).unwrap();

    assert_eq!(far.whereabouts(), HOME);
}

#[test]
fn two_addresses_at_one_relay_are_one() {
    let there = Address::new(RelayId(1), AttachmentId(8));
    let far = Names::default()
        .dial(Whereabouts { first: at(1), second: Some(there) }, Instant::now())
        .unwrap();

    assert_eq!(far.whereabouts(), Whereabouts::at(at(1)));
}

#[test]
fn strangers_of_one_address_take_only_one_anothers_place() {
    let (names, now) = (Names::default(), Instant::now());
    let (honest, _) = known(names.hear(at(1), FlowId(1), now));
    for flow in 10..10_000 {
        names.hear(at(2), FlowId(flow), now);
    }

    assert!(names.find(honest).is_some());
    assert_eq!(names.table().entries.len(), 1 + STRANGERS_AT_MAX);
    assert_eq!(names.take_dropped().len(), 9_990 - STRANGERS_AT_MAX);
}

#[test]
fn strangers_of_many_addresses_take_bounded_room_and_none_that_is_held() {
    let (names, now) = (Names::default(), Instant::now());
    let (name, _) = known(names.hear(at(1), FlowId(1), now));
    let held = names.find(name).unwrap();
    for flow in 10..5_000 {
        let relay = u16::try_from(flow).unwrap();
        names.hear(at(relay), FlowId(flow), now);
    }

    assert_eq!(names.table().entries.len(), STRANGERS_MAX);
    assert_eq!(known(names.hear(at(1), FlowId(1), now)), (held.name(), From::Home));
}

#[test]
fn names_that_are_all_held_are_not_given_to_others() {
    let (names, now) = (Names::default(), Instant::now());
    let mut held: Vec<_> = (0..NAMES_MAX).map(|_| names.dial(HOME, now).unwrap()).collect();

    assert!(names.dial(HOME, now).is_none());

    let gone = held.pop().map(|far| far.name());
    assert!(names.dial(HOME, now).is_some());
    assert_eq!(names.take_dropped(), Vec::from_iter(gone));
}

#[test]
fn idle_names_go_and_their_numbers_rest() {
    let (names, now) = (Names::default(), Instant::now());
    let first = names.dial(HOME, now).unwrap();
    let (name, answer) = (first.name(), answer_to(&first));
    names.sweep(now + IDLE_MAX);
    assert_eq!(known(names.hear(at(1), answer, now)), (name, From::Home));

    drop(first);
    names.sweep(now + IDLE_MAX);

    assert_eq!(names.hear(at(1), answer, now), Heard::Nobody);
    assert_ne!(names.dial(HOME, now).unwrap().name(), name);
}

#[test]
fn handshakes_of_a_name_have_a_bound_and_hold_it() {
    let (names, now) = (Names::default(), Instant::now());
    let (name, _) = known(names.hear(at(1), FlowId(1), now));
    let mut under_way: Vec<_> = (0..HANDSHAKES_MAX).map(|_| names.begin_handshake(name)).collect();
    assert!(under_way.iter().all(Option::is_some));

    for _ in 0..2 {
        assert!(names.begin_handshake(name).is_none());
    }
    names.sweep(now + IDLE_MAX);
    under_way.pop();
    assert!(names.begin_handshake(name).is_some());

    drop(under_way);
    names.sweep(now + IDLE_MAX);
    assert!(names.begin_handshake(name).is_none());
}

#[test]
fn a_name_made_later_counts_on_from_above() {
    let (names, now) = (Names::default(), Instant::now());
    let (name, _) = known(names.hear(at(1), FlowId(1), now));
    let last =
        (0..1_000).map(|_| names.find(name).unwrap().next_sequence(Class::Bulk.into())).max();
    std::thread::sleep(Duration::from_micros(10));
    names.sweep(now + IDLE_MAX);

    let (again, _) = known(names.hear(at(1), FlowId(1), now));

    assert!(names.find(again).unwrap().next_sequence(Class::Bulk.into()) > last.unwrap());
}

proptest! {
    /// Few sources and incarnations, those of the name among them, so that they meet.
    #[test]
    fn no_frame_changes_where_a_proven_edge_is(
        frames in proptest::collection::vec((1_u16..6, 0_u32..4, any::<bool>(), 0_u64..1_500), 0..200),
    ) {
        let (names, mut now) = (Names::default(), Instant::now());
        let far = names.dial(HOME, now).unwrap();
        far.prove(EDGE, revision(0), Some(HOME)).unwrap();
        for (relay, flow, accepted, millis) in frames {
            now += Duration::from_millis(millis);
            let own = far.own_incarnation().0;
            let flow = if flow == 0 { own } else { own ^ flow };
            let flow = FlowId(if accepted { flow | ACCEPTED } else { flow });
            let heard = names.hear(at(relay), flow, now);

            prop_assert_eq!(far.whereabouts(), HOME);
            let is_its = flow == answer_to(&far);
            let name = match heard {
                Heard::Name { name, .. } => Some(name),
                Heard::Nobody => None,
            };
            prop_assert_eq!(name == Some(far.name()), is_its);
            prop_assert_eq!(name.is_none(), accepted && !is_its);
        }
    }

    #[test]
    fn whereabouts_survive_packing(first: (u16, u16), second: Option<(u16, u16)>) {
        let address = |(relay, attachment)| Address::new(RelayId(relay), AttachmentId(attachment));
        let (first, second) = (address(first), second.map(address));

        let back = unpacked(packed(Whereabouts { first, second }));

        let is_other = |at: &Address| at.relay != first.relay && at.relay != RelayId(0);
        prop_assert_eq!(back, Whereabouts { first, second: second.filter(is_other) });
    }
}
