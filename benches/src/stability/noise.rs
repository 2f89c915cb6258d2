//! Noise of the published kind on a mesh whose delays do not change: what is true of every link at every moment.
//!
//! Each direction of a link is a [`Line`] of its own, with a base delay that stays; its *calm* state adds exponential
//! jitter, a slow wander of a fraction of a millisecond, and a trace of loss. On top come *episodes*, at random:
//!
//! - *loss*: a share of packets is lost, in bursts of some 60 ms;
//! - *queue*: a standing queue builds, delays and drains. It gains and loses a second of delay in
//!   a second, so that seconds of delay take seconds to come;
//! - *detour*: the way is longer from one moment to the next, by up to 150 ms.
//!
//! What is published (XRON, SIGCOMM 2023, links between regions over the internet) and met here, as [`Published`]
//! measures: links asymmetric more than 60 % of the time; episodes under 30 s a hundred times as common as longer
//! ones; 13 % loss and 2.8 s of delay at p99.9, over all links and seconds. Not published, and chosen: one per cent of the
//! time is degraded; durations and sizes are lognormal; two of six episodes are loss, three a queue, one a detour.

use fastrand::Rng;
use overway_wire::Micros;

use crate::input::OneWay;

/// Share of the time that a line is in an episode.
const DEGRADED_SHARE: f64 = 0.01;
/// Median length of an episode in seconds, and the deviation of its logarithm: one per cent is longer than 30 s.
const LENGTH_MEDIAN_S: f64 = 5.0;
const LENGTH_SIGMA: f64 = 0.77;
/// Longest and shortest episode in seconds.
const LENGTH_S: (f64, f64) = (0.1, 600.0);
/// Share lost in a loss episode: median, deviation of the logarithm, most.
const LOSS_MEDIAN: f64 = 0.06;
const LOSS_SIGMA: f64 = 1.5;
const LOSS_MAX: f64 = 0.8;
/// Depth of a queue in seconds: median, deviation of the logarithm, most; never more than its rise leaves time for.
const QUEUE_MEDIAN_S: f64 = 2.5;
const QUEUE_SIGMA: f64 = 1.5;
const QUEUE_MAX_S: f64 = 6.0;
/// Seconds of delay that a queue gains in a second: the line is offered twice what it carries. It drains as fast, for
/// packets stay in order.
const QUEUE_RISE: f64 = 1.0;
/// Jitter behind a queue, as a share of its depth.
const QUEUE_JITTER: f64 = 0.02;
/// By how much a detour is longer, in seconds: least, most; the logarithm is uniform.
const DETOUR_S: (f64, f64) = (0.005, 0.15);

/// By how much a direction's delay differs from half the round trip, at most, as a share.
const ASYMMETRY: f64 = 0.1;
/// Directions are asymmetric that differ by more than this share of the longer.
const ASYMMETRIC: f64 = 0.05;
/// Mean of a line's jitter in microseconds, exponential: least, most; the logarithm is uniform.
const JITTER_US: (f64, f64) = (50.0, 2_000.0);
/// Deviation of the wander in microseconds, and how fast it forgets, in seconds.
const WANDER_US: f64 = 300.0;
const WANDER_S: f64 = 60.0;
/// Loss of a calm line: one packet in ten thousand.
const CALM_LOSS: f64 = 0.000_1;
/// Parts into which a second of an episode is divided for its mean.
const PARTS: u32 = 20;
/// Mean absolute deviation of an exponential distribution, as a share of its mean: 2/e.
const EXPONENTIAL_DEVIATION: f64 = 0.735_8;

/// What is true of a line at a moment, or on average over a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct State {
    /// Delay without jitter, in microseconds.
    pub(super) delay_us: f64,
    /// Mean of the jitter on top, in microseconds.
    pub(super) jitter_us: f64,
    /// Share of packets lost.
    pub(super) loss: f64,
}

/// A lasting change of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// Longer by this many microseconds.
    Delay(f64),
    /// Loses this share.
    Loss(f64),
    /// Nothing arrives.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Loss(f64),
    Queue { depth_s: f64 },
    Detour { longer_s: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Episode {
    start_s: f64,
    end_s: f64,
    trouble: Trouble,
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    base_us: f64,
    jitter_us: f64,
    /// By second.
    wander_us: Vec<f32>,
    /// In order of their starts.
    episodes: Vec<Episode>,
    pub(super) step: Option<Step>,
}

/// Every line of a mesh; `None` where there is no link.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Noise {
    lines: Vec<Vec<Option<Line>>>,
}

/// What of a noise can be held against what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Published {
    /// Share of the pairs and seconds in which the directions differ.
    pub(super) asymmetric_share: f64,
    /// Episodes under 30 s for each that is longer.
    pub(super) short_per_long: f64,
    /// Loss at p99.9 of lines and seconds.
    pub(super) loss_p999: f64,
    /// Delay at p99.9 of lines and seconds, in seconds.
    pub(super) delay_p999_s: f64,
}

impl Noise {
    /// Noise on a mesh with these one-way delays for so many seconds; without episodes where it is to be calm.
    pub(super) fn new(delays: &OneWay, seconds: usize, calm: bool, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let count = delays.len();
        let mut lines = vec![vec![None; count]; count];
        for (a, b) in (0..count).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let lean = 1.0 + ASYMMETRY * (2.0 * rng.f64() - 1.0);
            for (from, to, lean) in [(a, b, lean), (b, a, 2.0 - lean)] {
                let Some(Micros(delay)) = delays[from][to] else { continue };
                let episodes = if calm { Vec::new() } else { episodes(seconds as f64, &mut rng) };
                lines[from][to] = Some(Line {
                    base_us: f64::from(delay) * lean,
                    jitter_us: log_uniform(JITTER_US, &mut rng),
                    wander_us: wander(seconds, &mut rng),
                    episodes,
                    step: None,
                });
            }
        }
        Self { lines }
    }

    /// Relays.
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// A line, if there is a link.
    pub(super) fn line(&self, from: usize, to: usize) -> Option<&Line> {
        self.lines[from][to].as_ref()
    }

    /// Changes what is lastingly wrong with a line.
    pub(super) fn set_step(&mut self, from: usize, to: usize, step: Option<Step>) {
        if let Some(line) = &mut self.lines[from][to] {
            line.step = step;
        }
    }

    /// Every line with its ends.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, usize, &Line)> {
        let rows = self.lines.iter().enumerate();
        rows.flat_map(|(from, row)| {
            let cells = row.iter().enumerate();
            cells.filter_map(move |(to, line)| Some((from, to, line.as_ref()?)))
        })
    }

    /// Measures the noise itself over its first `seconds`.
    pub(super) fn published(&self, seconds: usize) -> Published {
        let (mut delays, mut losses) = (Vec::new(), Vec::new());
        let (mut asymmetric, mut pairs) = (0_u64, 0_u64);
        for (from, to, line) in self.lines() {
            let back = self.line(to, from).filter(|_| from < to);
            for second in 0..seconds {
                let state = line.second(second);
                delays.push((state.delay_us + state.jitter_us) / 1e6);
                losses.push(state.loss);
                if let Some(back) = back {
                    let (one, other) = (state.delay_us, back.second(second).delay_us);
                    asymmetric += u64::from((one - other).abs() > ASYMMETRIC * one.max(other));
                    pairs += 1;
                }
            }
        }
        let episodes = || self.lines().flat_map(|(_, _, line)| &line.episodes);
        let long = episodes().filter(|episode| episode.end_s - episode.start_s > 30.0).count();
        let short = episodes().count() - long;
        Published {
            asymmetric_share: asymmetric as f64 / pairs.max(1) as f64,
            short_per_long: short as f64 / long.max(1) as f64,
            loss_p999: p999(&mut losses),
            delay_p999_s: p999(&mut delays),
        }
    }
}

impl Line {
    /// What is true at a moment.
    pub(super) fn at(&self, at_s: f64) -> State {
        let wander = self.wander_at(at_s);
        let mut state = State {
            delay_us: (self.base_us + wander).max(0.0),
            jitter_us: self.jitter_us,
            loss: CALM_LOSS,
        };
        for episode in self.episodes.iter().take_while(|episode| episode.start_s <= at_s) {
            episode.apply(at_s, &mut state);
        }
        match self.step {
            None => {}
            Some(Step::Delay(longer_us)) => state.delay_us += longer_us,
            Some(Step::Loss(share)) => state.add_loss(share),
            Some(Step::Cut) => state.loss = 1.0,
        }
        state
    }

    /// The mean over a second.
    pub(super) fn second(&self, second: usize) -> State {
        let start = second as f64;
        if !self.is_degraded(second) {
            return self.at(start + 0.5);
        }
        let mut mean = State::default();
        for part in 0..PARTS {
            let state = self.at(start + (f64::from(part) + 0.5) / f64::from(PARTS));
            mean.delay_us += state.delay_us / f64::from(PARTS);
            mean.jitter_us += state.jitter_us / f64::from(PARTS);
            mean.loss += state.loss / f64::from(PARTS);
        }
        mean
    }

    /// Whether an episode touches the second.
    pub(super) fn is_degraded(&self, second: usize) -> bool {
        let start = second as f64;
        self.episodes.iter().any(|e| e.start_s < start + 1.0 && e.end_s > start)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a second of a replay, not negative"
    )]
    fn wander_at(&self, at_s: f64) -> f64 {
        self.wander_us
            .get(at_s.max(0.0) as usize)
            .or(self.wander_us.last())
            .map_or(0.0, |us| f64::from(*us))
    }
}

impl State {
    /// Mean deviation of the jitter, in microseconds.
    pub(super) fn deviation_us(&self) -> f64 {
        self.jitter_us * EXPONENTIAL_DEVIATION
    }

    fn add_loss(&mut self, share: f64) {
        self.loss = 1.0 - (1.0 - self.loss) * (1.0 - share);
    }
}

impl Episode {
    fn apply(&self, at_s: f64, state: &mut State) {
        if at_s < self.start_s || at_s >= self.end_s {
            return;
        }
        match self.trouble {
            Trouble::Loss(share) => state.add_loss(share),
            Trouble::Queue { depth_s } => {
                let grown_s = QUEUE_RISE * (at_s - self.start_s);
                let depth_us = depth_s.min(grown_s).min(self.end_s - at_s) * 1e6;
                state.delay_us += depth_us;
                state.jitter_us += depth_us * QUEUE_JITTER;
            }
            Trouble::Detour { longer_s } => state.delay_us += longer_s * 1e6,
        }
    }
}

fn episodes(seconds: f64, rng: &mut Rng) -> Vec<Episode> {
    let mean_s = LENGTH_MEDIAN_S * (LENGTH_SIGMA * LENGTH_SIGMA / 2.0).exp();
    let apart_s = mean_s / DEGRADED_SHARE;
    let mut episodes = Vec::new();
    let mut start_s = exponential(apart_s, rng);
    while start_s < seconds {
        let (least, most) = LENGTH_S;
        let length_s = log_normal(LENGTH_MEDIAN_S, LENGTH_SIGMA, rng).clamp(least, most);
        let trouble = match rng.u8(..6) {
            0 | 1 => Trouble::Loss(log_normal(LOSS_MEDIAN, LOSS_SIGMA, rng).min(LOSS_MAX)),
            2..=4 => {
                let depth_s = log_normal(QUEUE_MEDIAN_S, QUEUE_SIGMA, rng).min(QUEUE_MAX_S);
                Trouble::Queue { depth_s }
            }
            _ => Trouble::Detour { longer_s: log_uniform(DETOUR_S, rng) },
        };
        episodes.push(Episode { start_s, end_s: start_s + length_s, trouble });
        start_s += exponential(apart_s, rng);
    }
    episodes
}

/// A stationary Ornstein-Uhlenbeck process.
#[expect(clippy::cast_possible_truncation, reason = "microseconds need no more digits")]
fn wander(seconds: usize, rng: &mut Rng) -> Vec<f32> {
    let kept = (-1.0 / WANDER_S).exp();
    let fresh = WANDER_US * (1.0 - kept * kept).sqrt();
    let mut at = WANDER_US * normal(rng);
    let mut step = || {
        at = at * kept + fresh * normal(rng);
        at as f32
    };
    (0..seconds).map(|_| step()).collect()
}

/// Exponentially distributed.
pub(super) fn exponential(mean: f64, rng: &mut Rng) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

fn log_normal(median: f64, sigma: f64, rng: &mut Rng) -> f64 {
    median * (sigma * normal(rng)).exp()
}

fn log_uniform((least, most): (f64, f64), rng: &mut Rng) -> f64 {
    least * (most / least).powf(rng.f64())
}

fn p999(values: &mut [f64]) -> f64 {
    let at = values.len() * 999 / 1_000;
    if at >= values.len() {
        return 0.0;
    }
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;

    #[test]
    fn it_has_the_statistics_that_are_published() {
        let noise = Noise::new(&input::clustered(24, 1), 3_600, false, 1);

        let published = noise.published(3_600);

        assert!(published.asymmetric_share > 0.6, "{published:?}");
        assert!((60.0..160.0).contains(&published.short_per_long), "{published:?}");
        assert!((0.09..0.18).contains(&published.loss_p999), "{published:?}");
        assert!((2.0..3.6).contains(&published.delay_p999_s), "{published:?}");
    }

    #[test]
    fn a_queue_takes_time_to_grow_and_to_drain() {
        let episode =
            Episode { start_s: 10.0, end_s: 14.0, trouble: Trouble::Queue { depth_s: 1.5 } };
        let delay_s = |at_s: f64| {
            let mut state = State::default();
            episode.apply(at_s, &mut state);
            state.delay_us / 1e6
        };

        assert_eq!([9.9, 10.5, 12.0, 13.5, 14.0].map(delay_s), [0.0, 0.5, 1.5, 0.5, 0.0]);
    }

    #[test]
    fn a_calm_line_stays_what_it_is_until_it_is_given_a_step() {
        let mut noise = Noise::new(&input::clustered(4, 1), 100, true, 1);
        let before = noise.line(0, 1).unwrap().second(50);
        noise.set_step(0, 1, Some(Step::Delay(50_000.0)));
        let after = noise.line(0, 1).unwrap().second(50);

        assert!((after.delay_us - before.delay_us - 50_000.0).abs() < 1e-6);
        assert_eq!(after.loss, before.loss);
        noise.set_step(0, 1, Some(Step::Cut));
        assert_eq!(noise.line(0, 1).unwrap().second(50).loss, 1.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_noise() {
        let delays = input::clustered(5, 1);
        let noise = |seed| Noise::new(&delays, 500, false, seed);

        assert_eq!(noise(3), noise(3));
        assert_ne!(noise(3), noise(4));
    }
}
