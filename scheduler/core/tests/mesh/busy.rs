//! A scheduler that was busy or asleep.

use std::sync::Arc;
use std::time::Duration;

use overway_scheduler_core::{Config, NeighbourConfig};
use overway_topology::Executor;

use crate::harness::{World, id};
use crate::{BURST, SECOND};

#[test]
fn a_scheduler_that_was_busy_blames_no_relay_for_it() {
    let blind_after = |told: bool| {
        let mut world = World::running(4);
        let busy = 8 * SECOND;
        world.now += busy;
        if told {
            world.scheduler.handle_stall(busy, world.now);
        }
        // The timers come before what waits to be read.
        world.scheduler.handle_timeout(world.now);
        world.report_all();
        (world.scheduler.stats().blind, world.scheduler.status(world.now).settling)
    };
    assert_eq!(blind_after(true), (0, false));
    assert_eq!(blind_after(false), (1, true), "it thinks that it heard nobody");
}

#[test]
fn after_a_long_plan_there_is_time_for_messages_before_the_next() {
    let plans_after = |late: Option<Duration>, span: Duration| {
        let mut world = World::running(5);
        world.kill(id(4));
        world.advance(BURST);
        // Other work since the plan, within the lateness or before it.
        if let Some(late_by) = late {
            world.now += 6 * SECOND;
            world.scheduler.handle_stall(late_by, world.now);
        }
        let plans = world.scheduler.stats().plans;
        world.kill(id(3));
        world.advance(span);
        world.scheduler.stats().plans - plans
    };
    let of_the_plan = Some(6 * SECOND + BURST);
    assert!(plans_after(None, BURST) > 0);
    assert_eq!(plans_after(of_the_plan, SECOND * 9 / 10), 0);
    assert!(plans_after(of_the_plan, SECOND + BURST) > 0);
    assert!(plans_after(Some(2 * SECOND), BURST) > 0, "it slept after the plan");
}

#[test]
fn relays_meet_new_neighbours_in_the_rest_after_a_long_plan() {
    let neighbours =
        NeighbourConfig { long: 3, near: 3, wide: 0, most: 20, ..NeighbourConfig::default() };
    let config = Config { full_mesh_max: 8, neighbours, ..Config::default() };
    let mut world = World::with(config, 30);
    world.connect_all();
    world.advance(4 * SECOND);
    let plans = world.scheduler.stats().plans;
    world.now += 100 * SECOND;
    world.scheduler.handle_stall(101 * SECOND, world.now);
    let links = |world: &World| world.relays.values().map(|it| it.peers().count()).sum::<usize>();
    let before = links(&world);

    world.advance(20 * SECOND);
    let met = links(&world);
    assert_eq!(world.scheduler.stats().plans, plans);
    assert!(met > before + 30, "{before} links, then {met}");
    world.assert_in_step();

    // Those that are no neighbours any more lose their links with the next plan.
    world.advance(10 * SECOND);
    assert!(world.scheduler.stats().plans > plans);
    assert!(links(&world) < met, "{met} links, then {}", links(&world));
    world.assert_in_step();
}

#[derive(Debug)]
struct Threads;

impl Executor for Threads {
    fn width(&self) -> usize {
        3
    }

    fn run(&self, tasks: Vec<Box<dyn FnOnce() + Send + '_>>) {
        std::thread::scope(|scope| {
            for task in tasks {
                scope.spawn(task);
            }
        });
    }
}

#[test]
fn updates_that_are_written_on_threads_are_what_they_would_be_anyway() {
    let run = |config: Config| {
        let mut world = World::with(config, 40);
        world.connect_all();
        world.advance(15 * SECOND);
        world.kill(id(7));
        world.advance(SECOND);
        world.assert_in_step();
        world.relays
    };
    let apart = run(Config { executor: Arc::new(Threads), ..Config::default() });

    let together = run(Config::default());

    for (id, relay) in apart {
        assert_eq!((&relay.items, relay.revision), (&together[&id].items, together[&id].revision));
    }
}
