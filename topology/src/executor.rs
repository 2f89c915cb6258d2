//! Work in parallel, without naming threads: these are the caller's.

/// Runs independent tasks.
pub trait Executor: Sync {
    /// How many tasks run at the same time; work is split into about as many parts.
    fn width(&self) -> usize;

    /// Runs all tasks, and returns when the last one has ended.
    fn run(&self, tasks: Vec<Box<dyn FnOnce() + Send + '_>>);
}

/// Runs one task after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential;

impl Executor for Sequential {
    fn width(&self) -> usize {
        1
    }

    fn run(&self, tasks: Vec<Box<dyn FnOnce() + Send + '_>>) {
        for task in tasks {
            task();
        }
    }
}
