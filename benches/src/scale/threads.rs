//! The planner's work on threads.

use std::sync::Mutex;

use overway_topology::Executor;

/// Runs tasks on so many threads, which live as long as the call.
#[derive(Debug)]
pub(crate) struct Threads(pub(crate) usize);

impl Executor for Threads {
    fn width(&self) -> usize {
        self.0.max(1)
    }

    fn run(&self, tasks: Vec<Box<dyn FnOnce() + Send + '_>>) {
        if self.width() == 1 || tasks.len() < 2 {
            return tasks.into_iter().for_each(|task| task());
        }
        let tasks = Mutex::new(tasks.into_iter());
        let next = || tasks.lock().expect("no task holds the lock").next();
        let work = || {
            while let Some(task) = next() {
                task();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.width() {
                scope.spawn(work);
            }
            work();
        });
    }
}
