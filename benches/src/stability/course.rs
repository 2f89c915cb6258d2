//! An hour of noise, under two planners at once, and what both make of it.

use overway::lab::stage::Stage;
use overway_topology::PlannerConfig;
use overway_wire::Class;

use super::noise::{Noise, Published};
use super::replay::{Mesh, links, place, true_costs};
use crate::exact::{self, NONE};
use crate::input::OneWay;

/// Seconds before anything counts: the slow window fills, and new pairs settle.
pub(super) const WARM_UP: usize = 90;
/// Width of a bucket of [`Spread`].
const BUCKET: f64 = 0.001;
/// Buckets: what is more than ten times the oracle's counts as that for percentiles.
const BUCKETS: usize = 10_000;

/// What became of one planner's paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Moves from one path to another, by class.
    pub(super) moves: [u64; 3],
    /// Excess over the oracle, of every pair and second, by class.
    pub(super) excess: [Spread; 3],
    /// Sum of what of it came while the path in use was itself in an episode.
    pub(super) late: f64,
}

/// Both planners' outcomes on one noise.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) seed: u64,
    pub(super) pairs: usize,
    pub(super) seconds: usize,
    pub(super) published: Published,
    /// With hysteresis and without.
    pub(super) outcomes: [Outcome; 2],
}

/// Values that are not negative: their mean exactly, their percentiles to a bucket.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    sum: f64,
    count: u64,
    buckets: Vec<u64>,
}

impl Default for Spread {
    fn default() -> Self {
        Self { sum: 0.0, count: 0, buckets: vec![0; BUCKETS] }
    }
}

impl Spread {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and what is beyond the last bucket goes there"
    )]
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
        self.buckets[((value / BUCKET) as usize).min(BUCKETS - 1)] += 1;
    }

    /// Takes in another's values.
    pub(super) fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// The mean, if there is any value.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The upper edge of the bucket below which this share of the values lies.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count as f64;
        let mut below = 0;
        let at = self.buckets.iter().position(|count| {
            below += count;
            below > 0 && below as f64 >= rank
        })?;
        Some((at + 1) as f64 * BUCKET)
    }
}

impl Outcome {
    /// Moves of a pair in an hour, on average over the classes.
    pub(super) fn changes_per_pair_hour(&self, course: &Course) -> f64 {
        let moves: u64 = self.moves.iter().sum();
        moves as f64 / 3.0 / course.pair_hours()
    }

    /// The mean excess in two parts: from seconds in which the path in use was in an episode and not left yet, or was
    /// not worth leaving; and from those in which another was better for other reasons.
    pub(super) fn late_and_away(&self) -> Option<(f64, f64)> {
        let all = self.excess_of_all();
        let late = self.late / all.count.max(1) as f64;
        Some((late, all.mean()? - late))
    }

    /// All classes together.
    pub(super) fn excess_of_all(&self) -> Spread {
        let mut all = Spread::default();
        self.excess.iter().for_each(|excess| all.merge(excess));
        all
    }
}

impl Course {
    /// Pairs times hours.
    pub(super) fn pair_hours(&self) -> f64 {
        self.pairs as f64 * self.seconds as f64 / 3_600.0
    }
}

/// Plays the noise of one seed for so many seconds under both configurations.
pub(super) fn play(
    delays: &OneWay,
    configs: [PlannerConfig; 2],
    seconds: usize,
    seed: u64,
    stage: &Stage,
) -> anyhow::Result<Course> {
    let noise = Noise::new(delays, WARM_UP + seconds, false, seed);
    let [calm, raw] = configs;
    let mut meshes = [Mesh::new(&noise, calm, seed)?, Mesh::new(&noise, raw, seed)?];
    let mut outcomes = [Outcome::default(), Outcome::default()];
    for second in 0..WARM_UP + seconds {
        if second >= WARM_UP {
            judge(&noise, second, &meshes, &mut outcomes);
        }
        for (mesh, outcome) in meshes.iter_mut().zip(&mut outcomes) {
            let moves = mesh.play(&noise, second)?;
            if second >= WARM_UP {
                outcome.moves.iter_mut().zip(moves).for_each(|(sum, moves)| *sum += moves);
            }
        }
        super::go_on(stage)?;
        if second % 10 == 0 {
            stage.status(format!("seed {seed}: {second} s of {}", WARM_UP + seconds));
        }
    }
    let pairs = noise.lines().count();
    let published = noise.published(WARM_UP + seconds);
    Ok(Course { seed, pairs, seconds, published, outcomes })
}

/// What the paths in use cost in a second, over what the oracle's do.
fn judge(noise: &Noise, second: usize, meshes: &[Mesh; 2], outcomes: &mut [Outcome; 2]) {
    let costs = true_costs(noise, second);
    let is_degraded = |(a, b)| noise.line(a, b).is_some_and(|line| line.is_degraded(second));
    for (class, costs) in Class::ALL.into_iter().zip(&costs) {
        let oracle = exact::cheapest(costs, 3);
        for (mesh, outcome) in meshes.iter().zip(outcomes.iter_mut()) {
            for (from, to, _) in noise.lines() {
                let path = mesh.in_use(class, from, to);
                let used = path.map_or(NONE, |path| costs.along(path));
                let excess = used as f64 / oracle.at(from, to).max(1) as f64 - 1.0;
                outcome.excess[place(class)].add(excess);
                if excess > 0.0 && path.is_some_and(|path| links(path).any(is_degraded)) {
                    outcome.late += excess;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_knows_its_mean_exactly_and_percentiles_to_a_bucket() {
        let mut spread = Spread::default();
        for value in [0.0, 0.0, 0.0105, 100.0] {
            spread.add(value);
        }

        assert_eq!(spread.mean(), Some(100.0105 / 4.0));
        assert_eq!(spread.percentile(0.5), Some(0.001));
        assert_eq!(spread.percentile(0.75), Some(0.011));
        assert_eq!(spread.percentile(1.0), Some(10.0));
        assert_eq!(Spread::default().percentile(0.5), None);
        let mut twice = spread.clone();
        twice.merge(&spread);
        assert_eq!(twice.mean(), spread.mean());
    }
}
