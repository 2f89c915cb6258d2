//! The generator behind the decisions.

use std::net::{IpAddr, SocketAddr};

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Written out here because its stream is fixed by its
/// definition: a seed replays the same faults with every later version of every crate.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The generator for one source under `seed`.
    pub(super) fn new(seed: u64, source: SocketAddr) -> Self {
        let mut random = Self { state: seed };
        let ip = match source.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        for byte in ip.octets().into_iter().chain(source.port().to_be_bytes()) {
            random.state = random.next() ^ u64::from(byte);
        }
        random
    }

    /// The next number from 0 (included) to 1 (excluded).
    pub(super) fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_the_published_generator() {
        let mut random = Random { state: 1_234_567 };

        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();

        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn sources_and_seeds_have_streams_of_their_own() {
        let one: SocketAddr = "127.0.0.1:4401".parse().unwrap();
        let two: SocketAddr = "127.0.0.1:4402".parse().unwrap();
        let first = |seed, source| Random::new(seed, source).next();

        assert_eq!(first(7, one), first(7, one));
        assert_ne!(first(7, one), first(7, two));
        assert_ne!(first(7, one), first(8, one));
    }
}
