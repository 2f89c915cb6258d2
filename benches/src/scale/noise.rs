//! Where the relays are, and how their links behave.

use overway_wire::control::{LinkReport, State, Window};

/// Places where relays are: about as many metropolitan areas have data centres worth a relay.
const CLUSTERS: u16 = 60;
/// Providers, each with relays in many places.
const PROVIDERS: u16 = 14;
/// The plane's width: light in fibre takes a tenth of a second one way.
const WIDTH_US: f64 = 100_000.0;
/// Its height.
const HEIGHT_US: f64 = 50_000.0;
/// Within a cluster relays are so far apart at most.
const CLUSTER_US: f64 = 800.0;
/// Nothing is nearer.
const LEAST_US: f64 = 150.0;
/// Standard deviation of a link's base delay by routing, as a share.
const STRETCH: f64 = 0.25;
/// Links that lose packets at a time.
const LOSSY: f64 = 0.02;
/// A changed link's delay moves by about so much of itself, most often far less: measured round trips have long
/// upper tails.
const NOISE: f64 = 0.01;
/// Changes that are a step: another way through the internet, or a queue.
const STEPS: f64 = 0.02;

/// A relay's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) cluster: u16,
    pub(super) provider: u16,
    x_us: f64,
    y_us: f64,
    clock_us: i64,
}

/// Draws the places.
pub(super) fn places(relays: u16, rng: &mut fastrand::Rng) -> Vec<Place> {
    let centres: Vec<(f64, f64)> =
        (0..CLUSTERS).map(|_| (rng.f64() * WIDTH_US, rng.f64() * HEIGHT_US)).collect();
    let place = |_| {
        // Some places have many more relays than others.
        let cluster = rng.u16(..CLUSTERS).min(rng.u16(..CLUSTERS));
        let (x_us, y_us) = centres[usize::from(cluster)];
        Place {
            cluster,
            provider: rng.u16(..PROVIDERS).min(rng.u16(..PROVIDERS)),
            x_us: x_us + rng.f64() * CLUSTER_US,
            y_us: y_us + rng.f64() * CLUSTER_US,
            clock_us: rng.i64(0..1 << 40),
        }
    };
    (0..relays).map(place).collect()
}

/// What a relay measures on a link, now.
pub(super) fn measure(
    neighbour: u32,
    from: &Place,
    to: &Place,
    seed: u64,
    rng: &mut fastrand::Rng,
) -> LinkReport {
    let mut own = fastrand::Rng::with_seed(seed);
    let straight = (from.x_us - to.x_us).hypot(from.y_us - to.y_us).max(LEAST_US);
    let base = straight * (1.0 + STRETCH * own.f64() + STRETCH * own.f64().powi(8) * 4.0);
    let tail = rng.f64().powi(4);
    let step = if rng.f64() < STEPS { rng.f64() * 0.3 } else { 0.0 };
    let delay = base * (1.0 + NOISE * tail + step);
    let lost = if own.f64() < LOSSY { rng.u32(0..3) } else { 0 };
    let mut window = |delay: f64, samples: u32, lost: u32| Window {
        one_way_diff_us: to.clock_us - from.clock_us + micros(delay).cast_signed(),
        rtt_us: u32::try_from(micros(delay + base)).unwrap_or(u32::MAX),
        rtt_var_us: 100,
        jitter_us: u32::try_from(micros(50.0 + base * 0.002 * rng.f64())).unwrap_or(u32::MAX),
        samples,
        lost,
    };
    LinkReport {
        neighbour,
        index: 0,
        inbound: State::Up.into(),
        outbound: State::Up.into(),
        fast: Some(window(delay, 30, lost)),
        slow: Some(window(base * (1.0 + NOISE * 0.2), 900, lost * 10)),
        received_bps: 0,
        mtu: 1_304,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "delays are below a second"
)]
fn micros(value: f64) -> u64 {
    value.max(0.0) as u64
}
