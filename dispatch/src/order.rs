//! The order in which a client is to try access relays: one pure function.
//!
//! Two things would go wrong if every client took the nearest relay. Clients of one place would *herd*: all go to one of
//! several that are as near, then, when its load is told, all to the next. And a near relay would be *full* before others
//! hear of it.
//!
//! So each client draws, by a hash of its own key and the relay. The draw makes the order a sample: among relays that are
//! about as near, the first place falls to each in proportion to weight x room left, so that they fill up together however
//! old the word of their load is; one that is clearly farther has a share that falls exponentially with the distance. This
//! is the multinomial logit model (McFadden 1974), drawn by adding Gumbel noise to each relay's score, and for relays at
//! the same distance the same as weighted rendezvous hashing: if one relay goes, only its clients move.
//!
//! A relay that fills up *spills*: from [`SPILL_PERMILLE`] on a growing part of the clients, and from [`FULL_PERMILLE`]
//! on all, find it behind every relay that has room, however near it is. A relay without rivals as near is therefore not
//! overfilled either, as long as between two words of its load there come fewer than a fifth of what it has room for:
//! what lies between the two thresholds.
//!
//! A relay's place depends on its own figures and its draw, never on another's: worse figures never move it forward.

use overway_wire::RelayId;

use crate::Distance;

/// Fill above which a relay begins to turn clients to others, in thousandths.
pub const SPILL_PERMILLE: u32 = 750;
/// Fill above which it is behind all that have room, in thousandths: the rest is for those that come by themselves.
pub const FULL_PERMILLE: u32 = 950;

/// Round trip from which on differences count by their proportion rather than their size; see [`NEARNESS`].
const RTT_SOFT_MS: f64 = 60.0;
/// How sharply the nearer is preferred. With [`RTT_SOFT_MS`] the share of a relay falls to 1/e for each 3 ms from 0, each
/// 8 ms from 100 ms: what is below is about as near. Ten milliseconds more from 5 ms have a fourteenth.
const NEARNESS: f64 = 20.0;
/// What a relay of unknown distance counts as: behind what is known on the same continent, before the antipodes.
const UNKNOWN_RTT_MS: f64 = 200.0;
/// Salts of the two draws of a client and a relay.
const SALT_ORDER: u64 = 0x6f72_6465_725f_3031;
const SALT_SPILL: u64 = 0x7370_696c_6c5f_3031;

/// What is known of a relay for one client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The relay.
    pub relay: RelayId,
    /// How far it is from the client.
    pub distance: Distance,
    /// Its share among those that are about as near; 0: none while another has room.
    pub weight: u32,
    /// How full it is, in thousandths; 1,000 or more: full.
    pub fill_permille: u32,
    /// Whether it sends its edges away.
    pub is_draining: bool,
}

/// How a relay stands for one client, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It takes the client.
    Open,
    /// It takes it, but fills up: others go first.
    Filling,
    /// It has no weight: for when nothing else has room.
    Reserve,
    /// It has no room.
    Full,
    /// It sends its edges away.
    Draining,
}

impl Standing {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Filling => "filling",
            Self::Reserve => "reserve",
            Self::Full => "full",
            Self::Draining => "draining",
        }
    }
}

/// The candidates as a client is to try them, the first first, each with its standing. `key` tells clients apart: the
/// same key has the same order as long as the figures are the same. Takes n log n.
pub fn order(candidates: &[Candidate], key: u64) -> Vec<(Candidate, Standing)> {
    let place =
        |candidate: &Candidate| (standing(candidate, key), score(candidate, key), *candidate);
    let mut placed: Vec<(Standing, f64, Candidate)> = candidates.iter().map(place).collect();
    placed.sort_by(|(standing, score, one), (other_standing, other_score, other)| {
        let by_standing = standing.cmp(other_standing);
        let by_score = other_score.total_cmp(score);
        by_standing.then(by_score).then(one.relay.cmp(&other.relay))
    });
    placed.into_iter().map(|(standing, _, candidate)| (candidate, standing)).collect()
}

fn standing(candidate: &Candidate, key: u64) -> Standing {
    if candidate.is_draining {
        Standing::Draining
    } else if candidate.fill_permille >= 1_000 {
        Standing::Full
    } else if candidate.weight == 0 {
        Standing::Reserve
    } else if draw(key, candidate.relay, SALT_SPILL) < accepted(candidate.fill_permille) {
        Standing::Open
    } else {
        Standing::Filling
    }
}

/// The part of clients, 0 to 1, whom a relay takes that is so full.
fn accepted(fill_permille: u32) -> f64 {
    let left = f64::from(FULL_PERMILLE.saturating_sub(fill_permille));
    (left / f64::from(FULL_PERMILLE - SPILL_PERMILLE)).min(1.0)
}

fn score(candidate: &Candidate, key: u64) -> f64 {
    let rtt = candidate.distance.rtt().map_or(UNKNOWN_RTT_MS, |rtt| f64::from(rtt.0) / 1e3);
    let room = f64::from(1_000_u32.saturating_sub(candidate.fill_permille).max(1)) / 1e3;
    let share = f64::from(candidate.weight.max(1)) * room;
    // Gumbel: the greatest of these falls to each in proportion to the exponential of the rest.
    let gumbel = -(-draw(key, candidate.relay, SALT_ORDER).ln()).ln();
    share.ln() - NEARNESS * (rtt / RTT_SOFT_MS).ln_1p() + gumbel
}

/// A number above 0 and below 1 that is the client's for a relay.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
fn draw(key: u64, relay: RelayId, salt: u64) -> f64 {
    let bits = mix(key ^ mix(u64::from(relay.0) ^ salt)) >> 11;
    (bits as f64 + 0.5) / (1_u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests;
