//! A scheduler that was busy or asleep.

use std::time::Duration;

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
            world.now += 3 * SECOND;
            world.scheduler.handle_stall(late_by, world.now);
        }
        let plans = world.scheduler.stats().plans;
        world.kill(id(3));
        world.advance(span);
        world.scheduler.stats().plans - plans
    };
    let of_the_plan = Some(3 * SECOND + BURST);
    assert!(plans_after(None, BURST) > 0);
    assert_eq!(plans_after(of_the_plan, SECOND * 9 / 10), 0);
    assert!(plans_after(of_the_plan, SECOND + BURST) > 0);
    assert!(plans_after(Some(2 * SECOND), BURST) > 0, "it slept after the plan");
}
