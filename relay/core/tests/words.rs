//! The word of what was received that goes back between two heartbeats.

mod chain;

use std::time::Duration;

use overway_relay_core::{DropReason, Shard, Transmit};
use overway_wire::hop::{HopMessage, Lane};
use overway_wire::{Class, NeighbourLink, RelayId};

use chain::Chain;

/// What relay 2 sends back to relay 1 after so many full frames that it read together; `free` says whether the bulk lane
/// takes anything.
fn words(chain: &mut Chain, frames: usize, free: bool) -> Vec<Transmit> {
    let messages = chain.batch(Class::Bulk, frames, 1_200);
    let first = NeighbourLink::new(RelayId(1), Default::default());
    let (now, relay) = (chain.now, &mut chain.relays[1]);
    relay.handle_datagrams((first, Lane::Bulk), messages.into_iter(), now);
    let writable = |_, lane| lane == Lane::Light || free;
    let sent: Vec<Transmit> = std::iter::from_fn(|| relay.poll_transmit(now, writable)).collect();
    // What was held back goes on.
    while relay.poll_transmit(now, |_, _| true).is_some() {}
    let is_word = |sent: &Transmit| {
        sent.link == first
            && matches!(HopMessage::decode(&sent.message), Ok(HopMessage::Received { .. }))
    };
    sent.into_iter().filter(is_word).collect()
}

#[test]
fn a_word_follows_every_forty_thousand_bytes_that_come_fast_on_their_own_lane() {
    let mut chain = Chain::new(Shard::default(), 1);
    // The first frames hurry a heartbeat, which says it, too.
    for _ in 0..2 {
        let messages = chain.batch(Class::Bulk, 1, 1_200);
        chain.transit(Lane::Bulk, messages.into_iter(), |_, _| {});
    }

    assert!(words(&mut chain, 20, true).is_empty());
    let word = words(&mut chain, 20, true);

    let [Transmit { lane: Lane::Bulk, message, .. }] = &word[..] else { panic!("{word:?}") };
    let said = HopMessage::decode(message).unwrap();
    let expected = HopMessage::Received { lane: Lane::Bulk, received_next: 42, complete_next: 42 };
    assert_eq!(said, expected);
    assert!(words(&mut chain, 20, true).is_empty(), "it counts anew");
    chain.now += Duration::from_millis(2);
    assert!(words(&mut chain, 20, true).is_empty(), "a heartbeat is soon enough");
}

#[test]
fn a_lane_that_takes_nothing_does_not_hold_the_word_back() {
    let mut chain = Chain::new(Shard::default(), 1);

    let word = words(&mut chain, 40, false);

    assert!(matches!(word[..], [Transmit { lane: Lane::Light, .. }]), "{word:?}");
}

#[test]
fn a_word_about_another_lane_than_it_comes_on_is_dropped() {
    let mut chain = Chain::new(Shard::default(), 1);
    let word = words(&mut chain, 40, true).remove(0);
    let towards = NeighbourLink::new(RelayId(2), Default::default());
    chain.settle(Duration::from_millis(1));
    let (now, relay) = (chain.now, &mut chain.relays[0]);
    let wrong =
        |relay: &overway_relay_core::Relay| relay.stats().drops[DropReason::WrongLane as usize];

    relay.handle_datagram((towards, Lane::Realtime), &word.message, now);
    assert_eq!(wrong(relay), 1);
    relay.handle_datagram((towards, Lane::Bulk), &word.message, now);
    relay.handle_datagram((towards, Lane::Light), &word.message, now);
    assert_eq!(wrong(relay), 1);
}
