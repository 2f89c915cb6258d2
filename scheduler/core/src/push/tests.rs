use std::collections::BTreeMap;

use super::*;
use overway_wire::RelayId;
use overway_wire::control::Node;

const EPOCH: Epoch = Epoch { term: 3, sequence: 1 };

/// A relay's push, and the state that it is to have.
struct Fixture {
    push: Push,
    names: BTreeMap<u16, String>,
}

impl Fixture {
    fn new(term: u64) -> Self {
        let mut push = Push::new(term);
        push.begin();
        Self { push, names: BTreeMap::new() }
    }

    fn put(&mut self, relay: u16, name: &str) {
        self.names.insert(relay, name.into());
        self.push.touch(ItemKey::node(RelayId(relay)));
    }

    fn remove(&mut self, relay: u16) {
        self.names.remove(&relay);
        self.push.touch(ItemKey::node(RelayId(relay)));
    }

    fn next(&mut self, now: Instant) -> Update {
        let names = &self.names;
        let all = || names.keys().map(|&relay| ItemKey::node(RelayId(relay))).collect();
        let make = |key: ItemKey| {
            let Named::Node(relay) = key.named() else { panic!("not a node") };
            let name = names.get(&relay.0).cloned();
            let node = name
                .map(|name| Item::from(Node { relay: relay.0.into(), name, ..Node::default() }));
            node.ok_or_else(|| key.to_wire(|_| Default::default()))
        };
        self.push.next(EPOCH, now, all, make)
    }
}

#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn the_first_update_is_whole_and_the_next_holds_what_changed() {
    let now = start();
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    fixture.put(2, "b");
    assert!(fixture.push.commit(2));
    let full = fixture.next(now);
    assert_eq!((full.base, full.put.len()), (0, 2));
    assert_eq!(fixture.push.ack(full.revision), Acked::InFlight);

    fixture.put(2, "c");
    fixture.remove(1);
    assert!(fixture.push.commit(2));
    let delta = fixture.next(now);

    assert_eq!(delta.base, full.revision);
    assert_eq!((delta.put.len(), delta.remove.len()), (1, 1));
}

#[test]
fn a_change_while_an_update_is_in_flight_goes_with_the_next() {
    let now = start();
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    fixture.push.commit(1);
    let first = fixture.next(now);
    fixture.put(2, "b");
    fixture.push.commit(2);
    assert_eq!(fixture.push.due(now), None);
    fixture.push.ack(first.revision);

    assert_eq!(fixture.push.due(now), Some(now));
    let second = fixture.next(now);
    assert_eq!((second.base, second.put.len()), (first.revision, 1));
}

#[test]
fn without_a_touch_there_is_no_revision() {
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    assert!(fixture.push.commit(1));
    assert!(!fixture.push.commit(1));
}

#[test]
fn a_relay_that_has_the_update_in_flight_goes_on_from_there() {
    let now = start();
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    fixture.push.commit(1);
    let lost_ack = fixture.next(now).revision;

    assert!(fixture.push.resume(lost_ack, EPOCH));
    assert_eq!(fixture.push.acked(), lost_ack);
    assert!(fixture.push.resume(lost_ack, EPOCH));
    assert!(!fixture.push.resume(lost_ack - 1, EPOCH));
    assert_eq!(fixture.push.acked(), 0);
}

#[test]
fn an_update_that_was_lost_is_made_again_from_the_revision_before() {
    let now = start();
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    fixture.push.commit(1);
    let had = fixture.next(now).revision;
    fixture.push.ack(had);
    fixture.put(2, "b");
    fixture.push.commit(2);
    let lost = fixture.next(now);
    fixture.put(3, "c");
    fixture.push.commit(3);

    assert!(fixture.push.resume(had, EPOCH));
    let again = fixture.next(now);

    assert_eq!((lost.put.len(), again.put.len(), again.base), (1, 2, had));
}

#[test]
fn revisions_of_different_terms_differ() {
    let (mut old, mut new) = (Fixture::new(3), Fixture::new(4));
    for fixture in [&mut old, &mut new] {
        fixture.put(1, "a");
        fixture.push.commit(1);
    }
    assert_ne!(old.push.current(), new.push.current());
    assert!(!new.push.resume(old.push.current(), EPOCH));
}

#[test]
fn whole_states_keep_their_distance() {
    let now = start();
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    fixture.push.commit(1);
    fixture.next(now);
    fixture.push.forget();

    assert_eq!(fixture.push.due(now), Some(now + FULL_SPACING));
}

#[test]
fn a_state_beyond_one_message_comes_in_a_row_of_updates() {
    let now = start();
    let mut fixture = Fixture::new(3);
    let name = "x".repeat(UPDATE_BYTES_MAX / 3);
    for relay in 1..=8 {
        fixture.put(relay, &name);
    }
    fixture.push.commit(8);
    let mut had = BTreeSet::new();
    let mut base = 0;

    for part in 0..3 {
        assert_eq!(fixture.push.due(now), Some(now), "part {part}");
        let update = fixture.next(now);
        assert_eq!(update.base, base);
        assert!(update.encoded_len() < overway_wire::control::MESSAGE_BYTES_MAX);
        had.extend(update.put.iter().filter_map(Item::key));
        base = update.revision;
        assert_eq!(fixture.push.ack(base), Acked::InFlight);
    }

    assert_eq!((had.len(), fixture.push.due(now)), (8, None));
}

#[test]
fn an_update_waits_longer_for_its_acknowledgement_if_nobody_looked_meanwhile() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let now = start();
    let mut fixture = Fixture::new(3);
    fixture.put(1, "a");
    fixture.push.commit(1);
    fixture.next(now);

    fixture.push.handle_stall(8 * TIMEOUT, now + TIMEOUT);

    assert_eq!(fixture.push.ack_deadline(TIMEOUT), Some(now + 2 * TIMEOUT));
}
