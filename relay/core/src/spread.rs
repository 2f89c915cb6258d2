//! Which path a flow takes where a route's traffic is spread over several.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates",
//! 1998; with weights as by Schindelhauer and Schomaker, 2005). For each flow each path draws a number from
//! an exponential distribution whose rate is the path's weight; the least wins. So a path wins its weight's
//! share of the flows; a flow stays on its path while paths and weights stay; and when a weight changes, or
//! a path comes or goes, only those flows move that the shares demand. Nothing is kept per flow.
//!
//! A draw depends on the flow and on the path's own steps, not on its place in the route. The arithmetic is
//! of integers, so that every build draws alike.

use overway_wire::{Address, AttachmentId, Class, FlowId, Header, Path, PolicyId, RelayId};

use crate::FibPath;

/// What tells a flow from the others of its source relay.
pub(crate) fn flow_hash(source: AttachmentId, destination: Address, flow: FlowId) -> u64 {
    let ends = u64::from(source.0) << 32
        | u64::from(destination.relay.0) << 16
        | u64::from(destination.attachment.0);
    mix(mix(ends) ^ u64::from(flow.0))
}

/// The shard among so many that carries a flow of this class and policy: its frames go to the one, in order. Classes
/// are told apart because an end may give the flows of all of them one id.
pub fn flow_shard(
    destination: Address,
    class: Class,
    policy: PolicyId,
    flow: FlowId,
    shards: u8,
) -> u8 {
    let flow = flow_hash(AttachmentId::GATEWAY, destination, flow);
    share_of(mix(flow ^ terms(class, policy)), shards)
}

/// One of so many, on the way from this relay on: another draw in each relay and for each source, or the flows that one
/// relay put together no other would take apart.
pub(crate) fn next_share(header: &Header, here: RelayId, count: u8) -> u8 {
    let Header { source, destination, class, policy, flow, .. } = header;
    let flow = flow_hash(source.attachment, *destination, *flow);
    let relays = u64::from(source.relay.0) << 48 | u64::from(here.0) << 32;
    share_of(mix(flow ^ relays ^ terms(*class, *policy)), count)
}

fn terms(class: Class, policy: PolicyId) -> u64 {
    u64::from(policy.0) << 8 | u64::from(class.code())
}

fn share_of(hash: u64, count: u8) -> u8 {
    // The high half times the number, less its low half.
    let share = ((hash >> 32) * u64::from(count)) >> 32;
    u8::try_from(share).expect("it is less than the number of shares")
}

/// What tells a path from others: the same for the same steps.
pub(crate) fn path_seed(path: &Path) -> u64 {
    path.elements().iter().fold(0, |seed, step| {
        mix(seed ^ (u64::from(step.relay.0) << 8 | u64::from(step.link.value())))
    })
}

/// The path of `flow` among those with a weight; `None` if none has one.
pub(crate) fn draw<'a>(paths: impl Iterator<Item = &'a FibPath>, flow: u64) -> Option<&'a FibPath> {
    let mut least: Option<(u64, &FibPath)> = None;
    for path in paths.filter(|path| path.weight > 0) {
        let drawn = exponential(mix(flow.wrapping_add(path.seed)));
        // drawn / weight < best / best's weight. A draw has 39 bits, a weight ten.
        let wins = least.is_none_or(|(best, other)| {
            drawn * u64::from(other.weight) < best * u64::from(path.weight)
        });
        if wins {
            least = Some((drawn, path));
        }
    }
    least.map(|(_, path)| path)
}

/// What an asker draws for what this names, as [`draw`] does for a path: the least quotient of draw and weight wins.
pub(crate) fn draw_of(asker: u64, name: &[u8]) -> u64 {
    let seed = name.chunks(8).fold(0, |seed, chunk| {
        mix(chunk.iter().fold(seed, |seed, &byte| seed.rotate_left(8) ^ u64::from(byte)))
    });
    exponential(mix(asker.wrapping_add(seed)))
}

/// Turns a uniform hash into an exponential draw: minus the binary logarithm of `hash / 2^64`, in 2^-32.
/// Its rate is not one, but the same for all, which is what counts.
fn exponential(hash: u64) -> u64 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    // 1.xxx: eight bits choose from the table, the next 32 interpolate; the error is below 3e-6.
    let fraction = hash << zeros << 1;
    let at = usize::from((fraction >> 56) as u8);
    let rest = fraction >> 24 & 0xffff_ffff;
    let (low, high) = (LOG2[at], LOG2[at + 1]);
    let log = low + (((high - low) * rest) >> 32);
    ((u64::from(zeros) + 1) << 32) - log
}

/// log2(1 + i / 256) in 2^-32.
static LOG2: [u64; 257] = {
    let mut table = [0; 257];
    let mut at = 0;
    while at < table.len() {
        table[at] = log2(256 + at as u64);
        at += 1;
    }
    table
};

/// log2(x / 256) in 2^-32, for x from 256 to 512: each squaring yields one more bit.
const fn log2(x: u64) -> u64 {
    const ONE: u128 = 1 << 62;
    let mut value = (x as u128) << (62 - 8);
    let (mut log, mut bit) = (0, 1 << 32);
    while bit > 0 {
        if value >= 2 * ONE {
            value >>= 1;
            log += bit;
        }
        value = (value * value) >> 62;
        bit >>= 1;
    }
    log
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), with its increment, so that zero moves too.
const fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use overway_wire::{LinkIndex, PathElement, RelayId};
    use proptest::prelude::*;

    const FLOWS: u32 = 20_000;

    fn path(through: u16, weight: u16) -> FibPath {
        let step = |relay| PathElement::new(RelayId(relay), LinkIndex::default());
        let path = Path::new(&[step(through), step(1_000)]).unwrap();
        FibPath::new(path, Duration::ZERO, weight)
    }

    fn paths(weights: &[u16]) -> Vec<FibPath> {
        (1..).zip(weights).map(|(through, &weight)| path(through, weight)).collect()
    }

    fn relays_of_flows(paths: &[FibPath]) -> Vec<u16> {
        let destination = Address::new(RelayId(1_000), AttachmentId::GATEWAY);
        let flow = |flow| flow_hash(AttachmentId::GATEWAY, destination, FlowId(flow));
        let drawn = |id| draw(paths.iter(), flow(id)).unwrap().path.first().relay.0;
        (0..FLOWS).map(drawn).collect()
    }

    fn weights() -> impl Strategy<Value = Vec<u16>> {
        proptest::collection::vec(0_u16..=1_000, 2..=8)
            .prop_filter("one has a weight", |weights| weights.iter().any(|&weight| weight > 0))
    }

    #[test]
    fn the_logarithm_is_that_of_floating_point() {
        for hash in [1, 3, 5, (1 << 40) + 1, u64::MAX / 3, u64::MAX / 2, u64::MAX - 5] {
            let exact = 64.0 - (hash as f64).log2();
            let ours = exponential(hash) as f64 / 2_f64.powi(32);
            assert!((exact - ours).abs() < 1e-5, "{hash}: {exact} is not {ours}");
        }
    }

    #[test]
    fn without_weights_nothing_is_drawn() {
        assert_eq!(draw(paths(&[0, 0]).iter(), 7), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn flows_are_shared_by_weight(weights in weights()) {
            let flows = relays_of_flows(&paths(&weights));
            let sum: u32 = weights.iter().copied().map(u32::from).sum();

            for (relay, &weight) in (1..).zip(&weights) {
                let count = flows.iter().filter(|&&of| of == relay).count() as f64;
                let share = f64::from(weight) / f64::from(sum);
                // Five standard deviations of a binomial, and one flow.
                let spread = 5.0 * (f64::from(FLOWS) * share * (1.0 - share)).sqrt() + 1.0;
                prop_assert!((count - share * f64::from(FLOWS)).abs() <= spread);
            }
        }

        #[test]
        fn a_lost_path_moves_only_its_own_flows(weights in weights(), lost in any::<prop::sample::Index>()) {
            let all = paths(&weights);
            let mut left = all.clone();
            let lost = left.remove(lost.index(left.len())).path.first().relay.0;
            prop_assume!(left.iter().any(|path| path.weight > 0));

            for (before, after) in relays_of_flows(&all).into_iter().zip(relays_of_flows(&left)) {
                prop_assert!(before == after || before == lost);
            }
        }

        #[test]
        fn a_path_that_gains_weight_takes_flows_and_gives_none(
            weights in weights(), gains in any::<prop::sample::Index>(), gain in 1_u16..200,
        ) {
            let before = paths(&weights);
            let mut after = before.clone();
            let winner = gains.index(after.len());
            after[winner].weight += gain;
            let winner = after[winner].path.first().relay.0;

            for (from, to) in relays_of_flows(&before).into_iter().zip(relays_of_flows(&after)) {
                prop_assert!(from == to || to == winner);
            }
        }

        #[test]
        fn the_order_of_the_paths_does_not_matter(weights in weights()) {
            let there = paths(&weights);
            let mut back = there.clone();
            back.reverse();
            prop_assert_eq!(relays_of_flows(&there), relays_of_flows(&back));
        }
    }
}
