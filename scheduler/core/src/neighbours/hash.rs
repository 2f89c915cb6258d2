//! Numbers as if at random that stay the same.

use overway_wire::RelayId;

/// The same for both orders, and otherwise as if random.
pub(super) fn pair_hash(a: RelayId, b: RelayId) -> u64 {
    mix(u64::from(a.0.min(b.0)) << 16 | u64::from(a.0.max(b.0)))
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
