//! Random histories: whatever happens, in the end every relay has exactly what it is to have.

use std::time::Duration;

use overway_wire::{Class, RelayId};
use proptest::prelude::*;

use crate::harness::{World, link};

const RELAYS: u16 = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Connect(u16),
    Disconnect(u16),
    Kill(u16),
    Restart(u16, bool),
    Goodbye(u16),
    Remove(u16),
    Cut(u16, u16),
    Mend(u16, u16),
    Services(u16, u8),
    Lines(u16, u16),
    LoseUpdates(usize),
    ForgetState(u16),
    BackUp(u16),
    Restore(u16),
    SlowAcks,
    DeliverAcks,
    SchedulerRestarts,
    Report(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let relay = 1..=RELAYS;
    prop_oneof![
        6 => prop_oneof![1..50_u64, 500..3_000_u64, Just(6_000_u64)].prop_map(Step::Wait),
        6 => relay.clone().prop_map(Step::Connect),
        2 => relay.clone().prop_map(Step::Disconnect),
        1 => relay.clone().prop_map(Step::Kill),
        2 => (relay.clone(), any::<bool>()).prop_map(|(relay, keeps)| Step::Restart(relay, keeps)),
        1 => relay.clone().prop_map(Step::Goodbye),
        1 => (4..=RELAYS).prop_map(Step::Remove),
        2 => (relay.clone(), relay.clone()).prop_map(|(from, to)| Step::Cut(from, to)),
        2 => (relay.clone(), relay.clone()).prop_map(|(from, to)| Step::Mend(from, to)),
        1 => (relay.clone(), 0..4_u8).prop_map(|(relay, services)| Step::Services(relay, services)),
        1 => (relay.clone(), 1..=3_u16).prop_map(|(relay, lines)| Step::Lines(relay, lines)),
        1 => (1..4_usize).prop_map(Step::LoseUpdates),
        1 => relay.clone().prop_map(Step::ForgetState),
        1 => relay.clone().prop_map(Step::BackUp),
        1 => relay.clone().prop_map(Step::Restore),
        2 => Just(Step::SlowAcks),
        3 => Just(Step::DeliverAcks),
        1 => Just(Step::SchedulerRestarts),
        3 => relay.prop_map(Step::Report),
    ]
}

fn take(world: &mut World, step: Step) {
    let known = |world: &World, relay| world.relays.contains_key(&RelayId(relay));
    match step {
        Step::Wait(millis) => world.advance(Duration::from_millis(millis)),
        Step::Connect(relay) if known(world, relay) => {
            let relay = RelayId(relay);
            if world.relays[&relay].alive {
                world.connect(relay).unwrap();
            }
        }
        Step::Disconnect(relay) if known(world, relay) => world.disconnect(RelayId(relay)),
        Step::Kill(relay) if known(world, relay) => world.kill(RelayId(relay)),
        Step::Restart(relay, keeps) if known(world, relay) => world.restart(RelayId(relay), keeps),
        Step::Goodbye(relay) if known(world, relay) => {
            if world.relays[&RelayId(relay)].connected {
                world.goodbye(RelayId(relay));
            }
        }
        Step::Remove(relay) if known(world, relay) => world.remove(RelayId(relay)),
        Step::Cut(from, to) => {
            world.cut.insert(link(from, to, 0));
        }
        Step::Mend(from, to) => {
            world.cut.remove(&link(from, to, 0));
        }
        Step::Services(relay, services) if known(world, relay) => {
            let names = (0..services).map(|service| format!("service-{service}")).collect();
            world.relays.get_mut(&RelayId(relay)).unwrap().hello.services = names;
        }
        Step::Lines(relay, lines) if known(world, relay) => {
            let addresses = crate::harness::hello(relay, lines).addresses;
            world.relays.get_mut(&RelayId(relay)).unwrap().hello.addresses = addresses;
        }
        Step::LoseUpdates(count) => world.lose_updates = count,
        Step::ForgetState(relay) if known(world, relay) => world.restart(RelayId(relay), false),
        Step::BackUp(relay) if known(world, relay) => world.back_up(RelayId(relay)),
        Step::Restore(relay) if known(world, relay) => world.restore(RelayId(relay)),
        Step::SlowAcks => world.slow_acks = world.slow_acks.take().or(Some(Vec::new())),
        Step::DeliverAcks => world.deliver_acks(),
        Step::SchedulerRestarts => world.restart_scheduler(),
        Step::Report(relay) if known(world, relay) => world.report(RelayId(relay)),
        Step::Connect(_)
        | Step::Disconnect(_)
        | Step::Kill(_)
        | Step::Restart(..)
        | Step::Goodbye(_)
        | Step::Remove(_)
        | Step::Services(..)
        | Step::Lines(..)
        | Step::ForgetState(_)
        | Step::BackUp(_)
        | Step::Restore(_)
        | Step::Report(_) => {}
    }
    world.pump();
}

/// Faults stop, everybody comes back.
fn mend(world: &mut World) {
    world.lose_updates = 0;
    world.deliver_acks();
    world.cut.clear();
    for relay in world.relays.keys().copied().collect::<Vec<_>>() {
        if !world.relays[&relay].alive {
            world.restart(relay, true);
        }
        world.connect(relay).unwrap();
    }
    world.advance(Duration::from_secs(60));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_relay_has_in_the_end_what_it_is_to_have(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::running(RELAYS);
        for step in steps {
            take(&mut world, step);
        }
        mend(&mut world);

        world.assert_in_step();
        let ids: Vec<u16> = world.relays.keys().map(|relay| relay.0).collect();
        for relay in world.relays.values() {
            for &other in ids.iter().filter(|&&other| relay.hello.name != format!("relay-{other}")) {
                prop_assert!(relay.has_peer(other));
                for class in Class::ALL {
                    prop_assert!(!relay.paths(other, class).is_empty());
                }
            }
        }
    }
}
