//! The round trips between a relay and the networks of its edges: a bounded table.
//!
//! Each attached edge is heard of now and then; what it measures moves its network's figure by an eighth (as RFC 6298's
//! SRTT), so that one edge behind a bad radio does not speak for all. The network that was not heard of for longest makes
//! room, and one that was not heard of for a day is forgotten: routes between networks change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use overway_wire::Micros;
use overway_wire::control::{DISTANCES_MAX, Distance, Distances, NetworkPrefix};

/// What one measurement counts.
const GAIN: u32 = 8;
/// A network that was not heard of for so long is forgotten.
const FORGET: Duration = Duration::from_secs(86_400);
/// What is reported is rounded to this part of itself, so that noise is no news.
const ROUND: u32 = 16;

/// The table.
#[derive(Debug, Default)]
pub struct Networks {
    known: BTreeMap<NetworkPrefix, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Microseconds.
    rtt: u32,
    heard: Instant,
}

impl Networks {
    /// An edge of this address has this round trip.
    pub fn observe(&mut self, address: IpAddr, rtt: Duration, now: Instant) {
        let prefix = NetworkPrefix::of(address);
        let rtt = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        if let Some(known) = self.known.get_mut(&prefix) {
            let kept = u64::from(known.rtt) * u64::from(GAIN - 1) + u64::from(rtt);
            known.rtt = u32::try_from(kept / u64::from(GAIN)).unwrap_or(u32::MAX);
            known.heard = now;
            return;
        }
        if self.known.len() >= DISTANCES_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.heard);
            if let Some(oldest) = oldest.map(|(&prefix, _)| prefix) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(prefix, Known { rtt, heard: now });
    }

    /// The round trip to the network of an address, if it is known.
    pub fn rtt(&self, address: IpAddr) -> Option<Micros> {
        self.known.get(&NetworkPrefix::of(address)).map(|known| Micros(known.rtt))
    }

    /// What is to be told, rounded, in order of the networks. Forgets what is too old.
    pub fn report(&mut self, now: Instant) -> Distances {
        self.known.retain(|_, known| now.saturating_duration_since(known.heard) < FORGET);
        let distance = |(prefix, known): (&NetworkPrefix, &Known)| Distance {
            prefix: prefix.as_bytes().to_vec(),
            rtt_us: rounded(known.rtt),
        };
        Distances { distances: self.known.iter().map(distance).collect() }
    }
}

/// To a power of two between a sixteenth and an eighth of it.
fn rounded(rtt: u32) -> u32 {
    let step = (rtt / ROUND).checked_next_power_of_two().unwrap_or(1 << 31).max(1);
    (rtt / step).saturating_mul(step).saturating_add(step / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn edges_of_a_network_speak_for_it_together() {
        let (mut networks, now) = (Networks::default(), Instant::now());
        networks.observe(address("192.0.2.1"), Duration::from_millis(16), now);
        assert_eq!(networks.rtt(address("192.0.2.77")), Some(Micros(16_000)));
        networks.observe(address("192.0.2.2"), Duration::from_millis(24), now);
        assert_eq!(networks.rtt(address("192.0.2.1")), Some(Micros(17_000)));
        assert_eq!(networks.rtt(address("192.0.3.1")), None);
        for _ in 0..50 {
            networks.observe(address("192.0.2.2"), Duration::from_millis(40), now);
        }
        assert!(networks.rtt(address("192.0.2.1")).unwrap().0 > 39_500);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_longest_unheard() {
        let (mut networks, start) = (Networks::default(), Instant::now());
        let many = u32::try_from(DISTANCES_MAX).unwrap() + 1;
        for n in 0..many {
            let address = IpAddr::from((n << 8).to_be_bytes());
            networks.observe(
                address,
                Duration::from_millis(5),
                start + Duration::from_secs(n.into()),
            );
        }
        let report = networks.report(start + Duration::from_secs(many.into()));
        assert_eq!(report.distances.len(), DISTANCES_MAX);
        assert_eq!(networks.rtt(address("0.0.0.1")), None);
        assert!(networks.rtt(address("0.0.1.1")).is_some());

        let report = networks.report(start + Duration::from_secs(u64::from(many) + 86_400));
        assert_eq!(report.distances, []);
    }

    #[test]
    fn noise_is_no_news_and_rounding_is_small() {
        assert_eq!(rounded(20_100), rounded(20_300));
        for rtt in [1, 900, 5_000, 20_000, 333_333, u32::MAX] {
            let off = rounded(rtt).abs_diff(rtt);
            assert!(off <= rtt / 8 + 1, "{rtt} {off}");
        }
        assert!(rounded(20_000) < rounded(23_000));
    }
}
