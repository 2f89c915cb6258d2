//! Users, and what they feel.

use overway_quality::{Felt, Sketch};
use overway_wire::quality::{FlowKind, FlowReport};
use overway_wire::{AttachmentId, Class, PolicyId};

/// Services that the users use, and the tenants whose these are.
const SERVICES: u64 = 20;
const TENANTS: u64 = 4;
/// Users report in turn: each in one of these intervals.
const TURNS: u64 = 6;
/// Frames of a report: ten seconds of voice.
const FRAMES: u32 = 500;
/// Steps into which a report's delays are put: its quantiles.
const STEPS: u32 = 20;
/// Median of the users' base delays, in microseconds, and what most differ by, as a factor.
const DELAY_US: f64 = 40_000.0;
const DELAY_SPREAD: f64 = 1.6;
/// Median of their jitter.
const JITTER_US: f64 = 2_000.0;
/// Users that lose frames in a report, and the most that they lose.
const LOSSY: f64 = 0.1;
const LOST_MAX: u32 = 25;
/// Users that feel a longer gap in a report, and the longest.
const GAPPY: f64 = 0.02;
const GAP_MAX_US: f64 = 400_000.0;

/// All users. They are drawn as they report, and are nowhere kept.
#[derive(Debug)]
pub(super) struct Users {
    count: u64,
    relays: u16,
    interval: u64,
    rng: fastrand::Rng,
}

impl Users {
    pub(super) fn new(count: u64, relays: u16, seed: u64) -> Self {
        Self { count, relays, interval: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    pub(super) fn pass_interval(&mut self) {
        self.interval += 1;
    }

    /// The reports of those users of a relay whose turn it is.
    pub(super) fn reports_at(
        &mut self,
        relay: u16,
    ) -> impl Iterator<Item = (AttachmentId, PolicyId, FlowReport)> {
        let per_turn = self.count / u64::from(self.relays) / TURNS;
        let turn = self.interval % TURNS;
        let first = (u64::from(relay) * TURNS + turn) * per_turn;
        let rng = &mut self.rng;
        (first..first + per_turn).map(move |user| {
            let service = rng.u64(..SERVICES).min(rng.u64(..SERVICES));
            let tenant = u16::try_from(service % TENANTS + 1).expect("there are few");
            let attachment = 2 + u16::try_from(user % 60_000).expect("it was bounded");
            let report = report(user, service, rng);
            (AttachmentId(attachment), PolicyId(tenant), report)
        })
    }
}

fn report(user: u64, service: u64, rng: &mut fastrand::Rng) -> FlowReport {
    let felt = felt(rng);
    FlowReport {
        id: user & 0x7fff_ffff,
        kind: FlowKind::Datagrams.into(),
        service: format!("service-{service}"),
        class: Class::Realtime.code().into(),
        far: "r1".to_owned(),
        age_ms: 60_000,
        ended: false,
        felt: Some((&felt).into()),
    }
}

fn felt(rng: &mut fastrand::Rng) -> Felt {
    let base = DELAY_US * DELAY_SPREAD.powf(normal(rng));
    let jitter = JITTER_US * 2.0_f64.powf(normal(rng));
    let lost = if rng.f64() < LOSSY { rng.u32(1..=LOST_MAX).min(rng.u32(1..=LOST_MAX)) } else { 0 };
    let (mut delay_us, mut gap_us) = (Sketch::default(), Sketch::default());
    let each = u64::from((FRAMES - lost) / STEPS);
    for step in 0..STEPS {
        // An exponential tail by its quantiles, each a little off.
        let share = (f64::from(step) + rng.f64()) / f64::from(STEPS);
        let late = -jitter * (1.0 - share).max(1e-6).ln();
        delay_us.add_many(micros(base + late), each);
        gap_us.add_many(micros(late), each);
    }
    let has_gap = rng.f64() < GAPPY;
    if has_gap {
        gap_us.add(micros(GAP_MAX_US * rng.f64().powi(2)));
    }
    let (due, gaps) = (u64::from(FRAMES), gap_us.count());
    let mut loss_ppm = Sketch::default();
    loss_ppm.add(lost * (1_000_000 / FRAMES));
    Felt {
        reports: 1,
        one_way: 1,
        due,
        on_time: due - u64::from(lost),
        lost: lost.into(),
        gaps,
        gaps_good: gaps - u64::from(has_gap),
        stalls: 0,
        delay_us,
        gap_us,
        loss_ppm,
        stall_us: Sketch::default(),
    }
}

/// About a standard normal: the sum of twelve uniform numbers.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn micros(value: f64) -> u32 {
    value.max(0.0) as u32
}
