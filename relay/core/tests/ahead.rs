//! What is due soon is done while a relay is awake for frames.

mod chain;

use std::time::Duration;

use overway_relay_core::{AHEAD, Shard};
use overway_wire::Class;
use overway_wire::hop::Lane;

use chain::Chain;

const STEP: Duration = Duration::from_millis(1);

#[test]
fn under_a_flow_no_timer_rings() {
    let mut chain = Chain::new(Shard::default(), 1);
    let mut rings = 0;
    let before = chain.relays[1].probe_stats().heartbeats_sent;
    for step in 0..1_000 {
        let messages = chain.batch(Class::Bulk, 4, 1_000);
        let mut out = Vec::new();
        chain.transit(Lane::Bulk, messages.into_iter(), |lane, message| out.push((lane, message)));
        for (lane, message) in out {
            chain.hand((1, overway_wire::RelayId(3)), lane, &message);
        }
        let due = chain.relays[1].poll_timeout().expect("heartbeats are due some time");
        // The reports' and the first steps' timers are not the links'.
        rings += usize::from(step > 100 && due <= chain.now + STEP);
        chain.settle(STEP);
    }
    assert!(AHEAD > STEP);
    assert_eq!(rings, 0, "timers are put off before they ring");
    // One in 30 ms to each of two neighbours, as if the timer had rung.
    let heartbeats = chain.relays[1].probe_stats().heartbeats_sent - before;
    assert!((60..=80).contains(&heartbeats), "{heartbeats} heartbeats in a second");
}
