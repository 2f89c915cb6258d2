//! How many of something there may be at once, in all and from one source, so that one source leaves room for others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// From one address, or one /64 of IPv6.
    most_at: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: IpAddr,
}

impl Places {
    pub(super) fn new(most: usize, most_at: usize) -> Arc<Self> {
        Arc::new(Self { most, most_at, taken: Mutex::default() })
    }

    /// Takes a place, unless too many are taken.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let source = source(address);
        let mut taken = self.taken();
        let at = taken.by_source.get(&source).copied().unwrap_or(0);
        if taken.all >= self.most || at >= self.most_at {
            return None;
        }
        taken.all += 1;
        taken.by_source.insert(source, at + 1);
        Some(Place { places: Arc::clone(self), source })
    }

    /// Counts are changed together.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(at) = taken.by_source.get_mut(&self.source) {
            *at -= 1;
            if *at == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// What one customer of a provider has at least.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others() {
        let places = Places::new(256, 32);
        let take = |address: &str| places.take(address.parse().unwrap());
        let mut held: Vec<Place> = std::iter::from_fn(|| take("192.0.2.1")).collect();
        assert_eq!(held.len(), 32);
        assert!(take("::ffff:192.0.2.1").is_none(), "the same in other words");

        held.extend((0..32).map(|at| take(&format!("2001:db8::{at}")).unwrap()));
        assert!(take("2001:db8::ffff").is_none());
        held.push(take("2001:db8:0:1::").unwrap());
        held.extend((0..).map_while(|at| take(&format!("198.51.100.{at}"))));
        assert_eq!(held.len(), 256);

        held.clear();
        assert!(places.taken().by_source.is_empty());
        assert!(take("192.0.2.1").is_some());
    }
}
