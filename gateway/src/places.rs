//! Places of a listener or service. How many there may be is asked anew each time, for a reload may change it: who has
//! a place keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many places are taken. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// A place, taken as long as this is kept.
#[derive(Debug)]
pub(crate) struct Taken(Arc<AtomicUsize>);

impl Places {
    /// Takes a place, if fewer than `max` are taken.
    pub(crate) fn take(&self, max: usize) -> Option<Taken> {
        let another = |taken| (taken < max).then_some(taken + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another);
        taken.ok().map(|_| Taken(Arc::clone(&self.0)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_are_taken_count_under_another_maximum_too() {
        let places = Places::default();
        let held: Vec<_> = (0..3).map_while(|_| places.clone().take(2)).collect();
        assert_eq!(held.len(), 2);

        assert!(places.take(1).is_none(), "two have a place");
        let third = places.take(3).unwrap();
        drop((held, third));

        assert!(places.take(1).is_some());
    }
}
