//! Where the relays are and how far apart: drawn once per seed.
//!
//! Relays lie on a square that light in fibre crosses in some 60 ms. The way between two is longer than
//! the straight line by a factor of its own, as routing policy makes it, so that ways over third relays are
//! often shorter than the direct one.

use std::time::Duration;

use overway_wire::{LinkId, LinkIndex, RelayId};

use crate::network::Network;
use crate::rng::Rng;

/// The square's side, in microseconds.
const SIDE_US: u64 = 60_000;
/// Nothing is nearer than this.
const NEAREST_US: u64 = 800;
/// The two directions of a link differ by up to this share each.
const ASYMMETRY_PERCENT: u64 = 10;
/// Jitter that every link has, evenly from none.
const JITTER: Duration = Duration::from_micros(300);
/// Relays with a second provider line, in parts per million.
const SECOND_LINE_PPM: u64 = 200_000;

/// A relay of the map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) id: RelayId,
    pub(crate) lines: u8,
    x_us: u64,
    y_us: u64,
}

impl Place {
    /// The quarter of the square in which it lies.
    pub(crate) fn region(&self) -> String {
        let half = |us| if us < SIDE_US / 2 { 0 } else { 1 };
        format!("quarter-{}{}", half(self.x_us), half(self.y_us))
    }
}

/// Draws the relays.
pub(crate) fn places(relays: u16, rng: &mut Rng) -> Vec<Place> {
    let place = |id| Place {
        id: RelayId(id),
        lines: if rng.chance(SECOND_LINE_PPM) { 2 } else { 1 },
        x_us: rng.below(SIDE_US),
        y_us: rng.below(SIDE_US),
    };
    (1..=relays).map(place).collect()
}

/// Draws the links between them.
pub(crate) fn network(places: &[Place], rng: &mut Rng) -> Network {
    let relays = u16::try_from(places.len()).expect("a run has fewer relays than there are ids");
    let mut network = Network::new(relays, JITTER, rng.fork());
    for (at, one) in places.iter().enumerate() {
        for other in &places[at + 1..] {
            for index in (0..one.lines.max(other.lines)).filter_map(LinkIndex::new) {
                let way_us = distance_us(one, other) * stretch_percent(rng) / 100 + NEAREST_US;
                for (from, to) in [(one.id, other.id), (other.id, one.id)] {
                    let percent = rng.between(100 - ASYMMETRY_PERCENT, 100 + ASYMMETRY_PERCENT);
                    let base = Duration::from_micros(way_us * percent / 100);
                    network.put(LinkId::new(from, to, index), base);
                }
            }
        }
    }
    network
}

/// Mostly little above the straight line, now and then twice as long.
fn stretch_percent(rng: &mut Rng) -> u64 {
    let (one, other) = (rng.below(12), rng.below(12));
    105 + one * other
}

fn distance_us(one: &Place, other: &Place) -> u64 {
    let (x, y) = (one.x_us.abs_diff(other.x_us), one.y_us.abs_diff(other.y_us));
    (x * x + y * y).isqrt()
}
