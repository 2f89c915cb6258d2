//! What a frame on its way through costs in allocations: its part of a block, and nothing else.

mod chain;

use std::time::Duration;

use overway_relay_core::Shard;
use overway_wire::Class;
use overway_wire::hop::Lane;

use chain::Chain;

/// Frames that come together.
const BATCH: usize = 64;
/// Until tables have grown as far as they will.
const WARM_UP: usize = 200;
const ROUNDS: usize = 200;

/// Allocations for each frame that goes through the middle relay.
fn allocations_per_frame(shard: Shard, class: Class, payload: usize) -> f64 {
    let mut chain = Chain::new(shard, shard.workers);
    let lane = Lane::of(class);
    let (mut allocations, mut frames) = (0, 0);
    for round in 0..WARM_UP + ROUNDS {
        let messages = chain.batch(class, BATCH, payload);
        let mut out = Vec::with_capacity(BATCH + 1);
        let before = chain.relays[1].stats().frames_forwarded;
        let info = allocation_counter::measure(|| {
            chain.transit(lane, messages.into_iter(), |lane, message| out.push((lane, message)));
        });
        let forwarded = chain.relays[1].stats().frames_forwarded - before;
        assert_eq!(forwarded, BATCH as u64, "every frame goes through");
        if round >= WARM_UP {
            allocations += info.count_total;
            frames += forwarded;
        }
        for (lane, message) in out {
            chain.hand((1, overway_wire::RelayId(3)), lane, &message);
        }
        chain.settle(Duration::from_millis(1));
    }
    allocations as f64 / frames as f64
}

#[test]
fn a_frame_in_transit_takes_its_part_of_a_block_and_no_allocation_of_its_own() {
    // A block holds some fifty full frames; what heartbeats and words of receipt take comes on top, once in a batch.
    // A relay that is one core, and a shard that shares its lines with others.
    for shard in [Shard::default(), Shard { index: 1, workers: 2 }] {
        for (class, payload, most) in [
            (Class::Bulk, 1_200, 0.1),
            (Class::Interactive, 1_200, 0.1),
            (Class::Realtime, 160, 0.1),
            (Class::Bulk, 160, 0.1),
        ] {
            let each = allocations_per_frame(shard, class, payload);
            println!("{shard:?}, {class}, {payload} bytes: {each:.4} allocations for a frame");
            assert!(
                each <= most,
                "{shard:?}, {class}, {payload} bytes: {each} allocations for a frame"
            );
        }
    }
}
