//! Threads for the planner: its work is independent tasks, made of nothing but arithmetic.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use overway_topology::Executor;

/// Threads at most. Planning is bound by memory before it has more; the rest of a large machine belongs to
/// whatever else runs there.
const THREADS_MAX: usize = 8;

/// Runs tasks on as many threads as there are processors. Threads live as long as one call: starting them
/// takes some ten microseconds each, a plan that is worth splitting takes milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    width: usize,
}

impl Threads {
    /// As many threads as this machine has processors, up to [`THREADS_MAX`].
    pub(crate) fn available() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self { width: processors.min(THREADS_MAX) }
    }
}

impl Executor for Threads {
    fn width(&self) -> usize {
        self.width
    }

    fn run(&self, tasks: Vec<Box<dyn FnOnce() + Send + '_>>) {
        let threads = self.width.min(tasks.len());
        let queue = Mutex::new(tasks.into_iter());
        let work = || {
            // Poisoned by a task that panicked: the scope panics with it, after the others.
            while let Some(task) = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.next()
            } {
                task();
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counted(threads: Threads, tasks: usize) -> usize {
        let done = AtomicUsize::new(0);
        let task = || {
            let done = &done;
            let task: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
            });
            task
        };
        threads.run((0..tasks).map(|_| task()).collect());
        done.into_inner()
    }

    #[test]
    fn every_task_has_run_when_the_call_returns() {
        for (width, tasks) in [(1, 5), (4, 0), (4, 1), (4, 3), (4, 100)] {
            assert_eq!(counted(Threads { width }, tasks), tasks);
        }
    }

    #[test]
    fn there_is_at_least_one_thread_and_not_too_many() {
        assert!((1..=THREADS_MAX).contains(&Threads::available().width()));
    }
}
