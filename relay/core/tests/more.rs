//! A lane that goes on, without its turn being looked for anew.

mod chain;

use std::time::Duration;

use overway_relay_core::{Settings, Shard, Transmit};
use overway_wire::hop::Lane;
use overway_wire::{Class, NeighbourLink, RelayId};

use chain::Chain;

/// What relay 2 sends on to relay 3 in each millisecond, and how much of it followed what went before on its lane; `asks`
/// says whether it is asked for that.
fn sent(classes: &[(Class, usize)], line_bps: u64, asks: bool) -> (Vec<Vec<Transmit>>, usize) {
    let mut chain = Chain::new(Shard::default(), 1);
    // The first frame hurries a heartbeat.
    let first = chain.batch(Class::Bulk, 1, 160);
    chain.transit(Lane::Bulk, first.into_iter(), |_, _| {});
    let settings = Settings { transit: true, lines_bps: vec![line_bps], ..Settings::default() };
    chain.relays[1].handle_settings(settings, chain.now);
    let [from, to] = [1, 3].map(|relay| NeighbourLink::new(RelayId(relay), Default::default()));
    for &(class, bytes) in classes {
        let messages = chain.batch(class, 30, bytes);
        let now = chain.now;
        chain.relays[1].handle_datagrams((from, Lane::of(class)), messages.into_iter(), now);
    }
    let relay = &mut chain.relays[1];
    let mut followed = 0;
    let moments = (0..20).map(|ms| {
        let now = chain.now + Duration::from_millis(ms);
        let mut moment = Vec::new();
        let mut next = relay.poll_transmit(now, |_, _| true);
        while let Some(transmit) = next {
            let key = (transmit.link, transmit.lane);
            moment.push(transmit);
            let more = asks.then(|| relay.poll_more(key, now)).flatten();
            followed += usize::from(more.is_some());
            next = more.or_else(|| relay.poll_transmit(now, |_, _| true));
        }
        moment.retain(|transmit| transmit.link == to && transmit.lane != Lane::Light);
        moment
    });
    (moments.collect(), followed)
}

#[test]
fn what_follows_on_a_lane_is_what_would_have_come_anyway() {
    let cases: [&[(Class, usize)]; 5] = [
        &[(Class::Bulk, 1_200)],
        &[(Class::Realtime, 160)],
        &[(Class::Bulk, 1_200), (Class::Interactive, 1_200)],
        &[(Class::Bulk, 1_200), (Class::Realtime, 1_000)],
        &[(Class::Bulk, 1_200), (Class::Realtime, 160), (Class::Interactive, 160)],
    ];
    for classes in cases {
        for line_bps in [0, 20_000_000] {
            let (expected, _) = sent(classes, line_bps, false);
            let (asked, followed) = sent(classes, line_bps, true);
            assert_eq!(asked, expected, "{classes:?} at {line_bps}");
            let all = asked.iter().map(Vec::len).sum::<usize>();
            assert!(all >= 5 && followed <= all, "{followed} of {all}");
            let alone = classes.len() == 1 && line_bps == 0;
            assert!(!alone || followed >= all - 1, "{followed} of {all} of {classes:?}");
            let spread = asked.iter().filter(|moment| !moment.is_empty()).count();
            assert_eq!(line_bps > 0, spread > 1, "{classes:?}");
        }
    }
}

#[test]
fn nothing_follows_where_others_have_frames_or_words_to_send() {
    let mut chain = Chain::new(Shard::default(), 1);
    let [from, to] = [1, 3].map(|relay| NeighbourLink::new(RelayId(relay), Default::default()));
    let batches = [Class::Bulk, Class::Realtime].map(|class| chain.batch(class, 3, 1_200));
    let (now, relay) = (chain.now, &mut chain.relays[1]);
    let [bulk, realtime] = batches;
    relay.handle_datagrams((from, Lane::Bulk), bulk.into_iter(), now);
    while relay.poll_transmit(now, |_, lane| lane == Lane::Light).is_some() {}
    assert!(relay.poll_more((to, Lane::Realtime), now).is_none(), "it has no frames");
    assert!(relay.poll_more((to, Lane::Bulk), now).is_some());
    relay.handle_datagrams((from, Lane::Realtime), realtime.into_iter(), now);
    while relay.poll_transmit(now, |_, lane| lane == Lane::Light).is_some() {}
    assert!(relay.poll_more((to, Lane::Bulk), now).is_none(), "realtime goes first");
    while relay.poll_transmit(now, |_, lane| lane != Lane::Bulk).is_some() {}
    assert!(relay.poll_more((to, Lane::Bulk), now).is_some());
    relay.handle_timeout(now + Duration::from_millis(40));
    assert!(relay.poll_more((to, Lane::Bulk), now).is_none(), "a heartbeat goes first");
}
