//! Real steps: how soon the paths leave a link that has become worse for good.
//!
//! On a calm mesh (jitter, wander, no episodes) a link in use becomes longer, loses, or is cut, just after an epoch.
//! Watched are the routes over it for which leaving it plainly pays by the true costs: it saves at least half of what the
//! step added, and the planner's thresholds beyond. A route has left at the first epoch after which its path in use
//! is without the link; the link's windows then hold as many seconds of the step. Afterwards the link is
//! mended, and the mesh has a while to come back.

use fastrand::Rng;
use overway::lab::stage::Stage;
use overway_topology::PlannerConfig;
use overway_wire::Class;

use super::course::WARM_UP;
use super::noise::{Noise, Step};
use super::replay::{Mesh, links, place, true_costs};
use crate::exact::{self, NONE, Square};
use crate::input::OneWay;

/// Epochs for which a step is watched.
const WATCHED: usize = 10;
/// Seconds between the end of one step and the next.
const BETWEEN: usize = 45;
/// Routes that use a link that is worth a step.
const ROUTES_MIN: u32 = 6;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) step: Step,
    /// Whether it shows for sure within a second. Of some share of lost packets a second's may happen to hold none.
    pub(super) sure: bool,
}

/// The kinds that are tried.
pub(super) const KINDS: [Kind; 5] = [
    Kind { name: "cut", step: Step::Cut, sure: true },
    Kind { name: "+50 ms", step: Step::Delay(50_000.0), sure: true },
    Kind { name: "+200 ms", step: Step::Delay(200_000.0), sure: true },
    Kind { name: "10 % loss", step: Step::Loss(0.1), sure: false },
    Kind { name: "30 % loss", step: Step::Loss(0.3), sure: false },
];

/// Epochs that each route took, one list for each of [`KINDS`]; `None` if it had not left at the end.
pub(super) type Epochs = [Vec<Option<usize>>; KINDS.len()];

/// A route on watch.
#[derive(Clone, Copy, Debug)]
struct Watched {
    class: Class,
    from: usize,
    to: usize,
    left_after: Option<usize>,
}

/// Makes `each` steps of each kind.
pub(super) fn play(
    delays: &OneWay,
    config: PlannerConfig,
    each: usize,
    seed: u64,
    stage: &Stage,
) -> anyhow::Result<Epochs> {
    let steps = each * KINDS.len();
    let mut noise = Noise::new(delays, WARM_UP + steps * (WATCHED + BETWEEN), true, seed);
    let mut mesh = Mesh::new(&noise, config, seed)?;
    let mut rng = Rng::with_seed(seed);
    let mut epochs = Epochs::default();
    let mut second = 0;
    let calm = |mesh: &mut Mesh, noise: &Noise, seconds: usize, second: &mut usize| {
        for _ in 0..seconds {
            mesh.play(noise, *second)?;
            *second += 1;
        }
        super::go_on(stage)
    };
    calm(&mut mesh, &noise, WARM_UP, &mut second)?;
    for step in 0..steps {
        let kind = step % KINDS.len();
        let mut links = mesh.links_in_use();
        links.retain(|(_, routes)| *routes >= ROUTES_MIN);
        let Some(&(link, _)) = rng.choice(&links) else { continue };
        stage.status(format!("step {} of {steps}: {}", step + 1, KINDS[kind].name));
        let before = true_costs(&noise, second);
        noise.set_step(link.0, link.1, Some(KINDS[kind].step));
        let after = true_costs(&noise, second);
        let mut watched = watched(&mesh, link, &before, &after, &config);
        for epoch in 1..=WATCHED {
            mesh.play(&noise, second)?;
            second += 1;
            for route in watched.iter_mut().filter(|route| route.left_after.is_none()) {
                let path = mesh.in_use(route.class, route.from, route.to);
                let left = path.is_some_and(|path| !links_of(path, link));
                route.left_after = left.then_some(epoch);
            }
        }
        epochs[kind].extend(watched.iter().map(|route| route.left_after));
        noise.set_step(link.0, link.1, None);
        calm(&mut mesh, &noise, BETWEEN, &mut second)?;
    }
    Ok(epochs)
}

fn links_of(path: &[usize], link: (usize, usize)) -> bool {
    links(path).any(|other| other == link)
}

/// Routes over a link that should leave it.
fn watched(
    mesh: &Mesh,
    link: (usize, usize),
    before: &[Square; 3],
    after: &[Square; 3],
    config: &PlannerConfig,
) -> Vec<Watched> {
    let mut watched = Vec::new();
    for class in Class::ALL {
        let (before, after) = (&before[place(class)], &after[place(class)]);
        let best = exact::cheapest(after, 3);
        let added = after.at(link.0, link.1).saturating_sub(before.at(link.0, link.1));
        for (from, to) in (0..after.count()).flat_map(|a| (0..after.count()).map(move |b| (a, b))) {
            let Some(path) = mesh.in_use(class, from, to) else { continue };
            if !links_of(path, link) {
                continue;
            }
            let cost = after.along(path);
            let saving = cost.saturating_sub(best.at(from, to));
            let worth =
                u64::from(config.gain.absolute.0) + cost * u64::from(config.gain.percent) / 100;
            if cost >= NONE || saving >= added / 2 + worth {
                watched.push(Watched { class, from, to, left_after: None });
            }
        }
    }
    watched
}
