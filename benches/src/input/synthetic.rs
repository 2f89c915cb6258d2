//! Delays from a seed.
//!
//! - [`planetlab_resampled`]: rows and columns drawn from a measured matrix, with a little noise, so that a few
//!   hundred hosts become as many relays as are wanted. Without a matrix, delays with the quantiles of the
//!   490 PlanetLab hosts of NetLatency-Data.
//! - [`clustered`]: relays in some twenty cities, delays by great circle, as a cloud overlay has them.
//! - [`uniform`]: every delay independent of every other. No geometry at all, hence the hardest to prune.

use fastrand::Rng;
use overway_wire::Micros;

use super::{OneWay, Rtts, micros};

/// Quantiles of the 490 PlanetLab hosts' round trips in ms: share, value.
const PLANETLAB_MS: [(f64, f64); 9] = [
    (0.0, 0.2),
    (0.01, 6.1),
    (0.1, 31.6),
    (0.25, 59.3),
    (0.5, 135.0),
    (0.75, 201.8),
    (0.9, 290.7),
    (0.99, 412.6),
    (1.0, 771.7),
];
/// Noise on a resampled delay, as a share each way: two hosts of one site differ by about this.
const RESAMPLED_NOISE: f64 = 0.05;
/// Delays between two relays drawn from one host, in microseconds: neighbours in a data centre.
const SAME_HOST_US: (f64, f64) = (100.0, 1_000.0);

/// Cities of a clustered mesh.
const METROS: usize = 20;
/// Light in fibre, in kilometres per microsecond.
const FIBRE_KM_PER_US: f64 = 0.2;
const EARTH_RADIUS_KM: f64 = 6_371.0;
/// How much longer a fibre's way between two cities is than the great circle: least, most.
const INFLATION: (f64, f64) = (1.2, 2.6);
/// What providers differ by on the way between the same two cities, as a share each way.
const PROVIDER_NOISE: f64 = 0.15;
/// By how much the two directions of a link differ, as a share each way.
const ASYMMETRY: f64 = 0.1;
/// The last mile of a relay, in microseconds: least, most.
const ACCESS_US: (f64, f64) = (100.0, 1_000.0);

/// Uniform delays in microseconds: least, most.
const UNIFORM_US: (f64, f64) = (1_000.0, 200_000.0);

/// Delays between `count` relays that are hosts of a measured matrix, each taken about equally often.
pub(crate) fn planetlab_resampled(measured: Option<&Rtts>, count: usize, seed: u64) -> OneWay {
    let mut rng = Rng::with_seed(seed);
    let Some(measured) = measured.filter(|rtts| rtts.len() > 1) else {
        return planetlab_like(count, &mut rng);
    };
    let mut hosts: Vec<usize> = Vec::new();
    while hosts.len() < count {
        let mut all: Vec<usize> = (0..measured.len()).collect();
        rng.shuffle(&mut all);
        hosts.extend(all);
    }
    hosts.truncate(count);
    filled(count, |from, to| {
        if hosts[from] == hosts[to] {
            return Some(micros(between(&mut rng, SAME_HOST_US)));
        }
        let rtt = measured.cells[hosts[from]][hosts[to]]?;
        Some(micros(f64::from(rtt.0) / 2.0 * noise(&mut rng, RESAMPLED_NOISE)))
    })
}

/// Delays with PlanetLab's quantiles: positions on a line give most of a delay, which makes near and far
/// relays, and chance gives the rest, which makes detours pay.
fn planetlab_like(count: usize, rng: &mut Rng) -> OneWay {
    let places: Vec<f64> = (0..count).map(|_| rng.f64()).collect();
    filled(count, |from, to| {
        let apart = (places[from] - places[to]).abs();
        // A distance on a line has the distribution 1 - (1 - d)^2: this makes it uniform.
        let share = 1.0 - (1.0 - apart) * (1.0 - apart);
        let share = (0.8 * share + 0.2 * rng.f64()).clamp(0.0, 1.0);
        Some(micros(quantile_ms(share) * 1e3 / 2.0))
    })
}

fn quantile_ms(share: f64) -> f64 {
    let after = PLANETLAB_MS.iter().position(|(at, _)| *at >= share).unwrap_or(1).max(1);
    let ((low, from), (high, to)) = (PLANETLAB_MS[after - 1], PLANETLAB_MS[after]);
    from + (to - from) * (share - low) / (high - low)
}

/// Delays between `count` relays in about [`METROS`] cities.
pub(crate) fn clustered(count: usize, seed: u64) -> OneWay {
    let mut rng = Rng::with_seed(seed);
    let homes: Vec<usize> = (0..count).map(|_| rng.usize(..METROS)).collect();
    in_metros(&homes, METROS, &mut rng)
}

/// Delays between `count` relays, each in a city of its own.
pub(crate) fn scattered(count: usize, seed: u64) -> OneWay {
    let homes: Vec<usize> = (0..count).collect();
    in_metros(&homes, count, &mut Rng::with_seed(seed))
}

fn in_metros(homes: &[usize], metros: usize, rng: &mut Rng) -> OneWay {
    let places: Vec<[f64; 3]> = (0..metros).map(|_| city(rng)).collect();
    let drawn: Vec<Vec<f64>> =
        (0..metros).map(|a| (0..=a).map(|_| between(rng, INFLATION)).collect()).collect();
    let inflation = |a: usize, b: usize| drawn[a.max(b)][a.min(b)];
    let access: Vec<f64> = homes.iter().map(|_| between(rng, ACCESS_US)).collect();
    filled(homes.len(), |from, to| {
        let (a, b) = (homes[from], homes[to]);
        let haul = great_circle_km(places[a], places[b]) / FIBRE_KM_PER_US * inflation(a, b);
        let haul = haul * noise(rng, PROVIDER_NOISE);
        Some(micros((haul + access[from] + access[to]) * noise(rng, ASYMMETRY)))
    })
}

/// Delays between `count` relays, each drawn by itself.
pub(crate) fn uniform(count: usize, seed: u64) -> OneWay {
    let mut rng = Rng::with_seed(seed);
    filled(count, |_, _| Some(micros(between(&mut rng, UNIFORM_US))))
}

/// A unit vector to a place where people live: no nearer to the poles than 60° north and 40° south.
fn city(rng: &mut Rng) -> [f64; 3] {
    let up = between(rng, ((-40.0_f64).to_radians().sin(), 60.0_f64.to_radians().sin()));
    let longitude = between(rng, (0.0, std::f64::consts::TAU));
    let out = (1.0 - up * up).sqrt();
    [out * longitude.cos(), out * longitude.sin(), up]
}

fn great_circle_km(a: [f64; 3], b: [f64; 3]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    EARTH_RADIUS_KM * dot.clamp(-1.0, 1.0).acos()
}

fn filled(count: usize, mut cell: impl FnMut(usize, usize) -> Option<Micros>) -> OneWay {
    let mut row =
        |from: usize| (0..count).map(|to| if to == from { None } else { cell(from, to) }).collect();
    (0..count).map(&mut row).collect()
}

fn between(rng: &mut Rng, (least, most): (f64, f64)) -> f64 {
    least + (most - least) * rng.f64()
}

/// A factor near 1.
fn noise(rng: &mut Rng, share: f64) -> f64 {
    between(rng, (1.0 - share, 1.0 + share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(count: usize, seed: u64) -> [OneWay; 3] {
        let [a, b] = [clustered(count, seed), uniform(count, seed)];
        [planetlab_resampled(None, count, seed), a, b]
    }

    fn sorted_ms(delays: &OneWay) -> Vec<f64> {
        let us = delays.iter().flatten().flatten().map(|delay| delay.0);
        let mut sorted: Vec<f64> = us.map(|us| f64::from(us) / 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    #[test]
    fn the_same_seed_gives_the_same_delays_and_another_gives_others() {
        assert_eq!(all(30, 1), all(30, 1));
        for (one, other) in all(30, 1).iter().zip(all(30, 2)) {
            assert_ne!(*one, other);
        }
    }

    #[test]
    fn every_ordered_pair_has_a_delay_and_no_relay_one_to_itself() {
        for delays in all(25, 7) {
            for (from, row) in delays.iter().enumerate() {
                for (to, delay) in row.iter().enumerate() {
                    assert_eq!(delay.is_some(), from != to);
                }
            }
        }
    }

    #[test]
    fn delays_are_directed() {
        for delays in all(25, 7) {
            assert_ne!(delays[3][4], delays[4][3]);
        }
    }

    #[test]
    fn resampling_keeps_what_was_measured_and_what_was_not() {
        let host = |name: &str| name.to_owned();
        let cells = vec![vec![None, Some(Micros(80_000))], vec![None, None]];
        let measured = Rtts { names: vec![host("a"), host("b")], cells };

        let delays = planetlab_resampled(Some(&measured), 9, 3);

        let ms = sorted_ms(&delays);
        let far = ms.iter().filter(|ms| **ms > 1.0);
        assert!(far.clone().count() == 20, "five hosts times four: {}", far.count());
        assert!(ms.iter().all(|ms| *ms <= 1.0 || (38.0..=42.0).contains(ms)));
    }

    #[test]
    fn without_a_matrix_delays_have_planetlabs_spread() {
        let ms = sorted_ms(&planetlab_resampled(None, 200, 5));

        let at = |share: usize| ms[ms.len() * share / 100] * 2.0;
        assert!((100.0..170.0).contains(&at(50)), "{}", at(50));
        assert!((25.0..90.0).contains(&at(10)), "{}", at(10));
        assert!((230.0..350.0).contains(&at(90)), "{}", at(90));
    }

    #[test]
    fn relays_of_one_city_are_near_and_none_is_further_than_around_the_earth() {
        let ms = sorted_ms(&clustered(100, 11));

        assert!(ms[ms.len() / 50] < 3.0);
        assert!(ms[ms.len() - 1] < 20_016.0 / 200.0 * 2.6 * 1.3 + 3.0);
    }
}
