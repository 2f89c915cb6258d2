//! How far a relay is from a client, and how that is known.

use overway_wire::control::Location;
use overway_wire::{Micros, RelayId};

/// Mean radius of the earth (IUGG), kilometres.
const EARTH_KM: f64 = 6_371.0;
/// Kilometres of great circle for each millisecond of round trip: the median round trip between places on the Internet
/// is 3.1 times that of light in vacuum (Singla et al., "The Internet at the Speed of Light", HotNets 2014).
const KM_PER_MS: f64 = 48.4;
/// What the last mile takes, in milliseconds.
const LAST_MILE_MS: f64 = 2.0;

/// The round trip between a client and a relay, if anything is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// Known, or estimated.
    Known(Micros, Basis),
    /// Nothing is known.
    Unknown,
}

/// How a distance is known, the best first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// The relay has measured it, with this client or with others of its network.
    Measured,
    /// By way of another relay: what that one has measured, and how far the relays are from each other on the map. The
    /// true one is rarely more.
    Via(RelayId),
    /// From the place of the client's address and the relay's, so many kilometres apart.
    Located(u32),
}

impl Distance {
    /// A known one.
    pub const fn of(rtt: Micros, basis: Basis) -> Self {
        Self::Known(rtt, basis)
    }

    /// The round trip, if known.
    pub const fn rtt(self) -> Option<Micros> {
        match self {
            Self::Known(rtt, _) => Some(rtt),
            Self::Unknown => None,
        }
    }

    /// The lesser of two; a measured one counts before any estimate.
    pub(crate) fn nearer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, other) => other,
            (this, Self::Unknown) => this,
            (this @ Self::Known(_, Basis::Measured), _) => this,
            (_, other @ Self::Known(_, Basis::Measured)) => other,
            (Self::Known(one, _), Self::Known(two, _)) => {
                if two < one {
                    other
                } else {
                    self
                }
            }
        }
    }
}

/// Kilometres between two places along the great circle (haversine).
pub fn kilometres(one: Location, other: Location) -> f64 {
    let radians = |micro: i32| (f64::from(micro) / 1e6).to_radians();
    let (lat1, lat2) = (radians(one.latitude_e6), radians(other.latitude_e6));
    let (dlat, dlon) = (lat2 - lat1, radians(other.longitude_e6) - radians(one.longitude_e6));
    let half = (dlat / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * (dlon / 2.0).sin().powi(2);
    2.0 * EARTH_KM * half.sqrt().min(1.0).asin()
}

/// The usual round trip over so many kilometres.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub fn rtt_over(kilometres: f64) -> Micros {
    Micros(((kilometres / KM_PER_MS + LAST_MILE_MS) * 1e3) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cities_are_as_far_apart_as_they_are() {
        let place = |latitude, longitude| Location::from_degrees(latitude, longitude).unwrap();
        let (frankfurt, london) = (place(50.11, 8.68), place(51.51, -0.13));
        let (sydney, tokyo) = (place(-33.87, 151.21), place(35.68, 139.69));
        assert!((kilometres(frankfurt, london) - 639.0).abs() < 5.0);
        assert!((kilometres(sydney, tokyo) - 7_826.0).abs() < 20.0);
        assert!(kilometres(london, london) < 1e-6);
        assert!(kilometres(place(90.0, 0.0), place(-90.0, 0.0)) < 20_020.0);

        assert!((14_000..16_000).contains(&rtt_over(640.0).0));
        assert!((150_000..180_000).contains(&rtt_over(7_826.0).0));
    }

    #[test]
    fn what_is_measured_counts_before_what_is_estimated() {
        let measured = Distance::of(Micros(90_000), Basis::Measured);
        let via = Distance::of(Micros(50_000), Basis::Via(RelayId(3)));
        let located = Distance::of(Micros(40_000), Basis::Located(2_000));
        assert_eq!(measured.nearer(via), measured);
        assert_eq!(via.nearer(measured), measured);
        assert_eq!(via.nearer(located), located);
        assert_eq!(Distance::Unknown.nearer(via), via);
    }
}
