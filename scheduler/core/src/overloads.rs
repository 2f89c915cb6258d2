//! What has to carry more than it can.
//!
//! ```text
//!   free --pressure above the limit--> overloaded --below it for a while--> free
//! ```
//!
//! A beginning is told at once and asks for a plan without delay; but the same thing does not begin again within
//! [`REST`], so that whoever says one thing and another by turns costs no more than the plans of every second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overway_topology::Resource;
use overway_wire::BitsPerSec;

/// Share of the capacity from which something is overloaded. What arrives cannot exceed a capacity that is told
/// truly, so that the last part of it counts already.
const BEGINS_PERCENT: u64 = 95;
/// Share of the capacity below which it may be free again.
const ENDS_PERCENT: u64 = 85;
/// How long it must be below for that.
const CALM: Duration = Duration::from_secs(3);
/// Least time between two beginnings of the same overload.
const REST: Duration = Duration::from_secs(10);
/// Overloads at a time; further ones are left out. A mesh with more of them has other worries.
const OVERLOADS_MAX: usize = 4_096;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overloads(BTreeMap<Resource, Overload>);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Overload {
    pub(crate) rate: BitsPerSec,
    pub(crate) capacity: BitsPerSec,
    pub(crate) since: Instant,
    /// When it was last above the limit.
    pressed: Instant,
    pub(crate) lasts: bool,
}

impl Overloads {
    /// Something is to carry so much; says whether an overload begins.
    pub(crate) fn press(
        &mut self,
        resource: Resource,
        rate: BitsPerSec,
        capacity: BitsPerSec,
        now: Instant,
    ) -> bool {
        let full = self.0.len() >= OVERLOADS_MAX;
        let known = self.0.get_mut(&resource);
        let limit = match &known {
            Some(overload) if overload.lasts => ENDS_PERCENT,
            Some(_) | None => BEGINS_PERCENT,
        };
        if capacity.0 == 0 || u128::from(rate.0) * 100 < u128::from(capacity.0) * u128::from(limit)
        {
            return false;
        }
        match known {
            Some(overload) if overload.lasts => {
                (overload.rate, overload.capacity, overload.pressed) = (rate, capacity, now);
                false
            }
            Some(overload) if now.saturating_duration_since(overload.since) < REST => false,
            None if full => false,
            Some(_) | None => {
                let new = Overload { rate, capacity, since: now, pressed: now, lasts: true };
                self.0.insert(resource, new);
                true
            }
        }
    }

    /// Takes those that ended since the last call, and forgets those that ended long ago.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Resource> {
        let mut ended = Vec::new();
        for (&resource, overload) in &mut self.0 {
            if overload.lasts && now.saturating_duration_since(overload.pressed) >= CALM {
                overload.lasts = false;
                ended.push(resource);
            }
        }
        let rests = |overload: &Overload| now.saturating_duration_since(overload.since) < REST;
        self.0.retain(|_, overload| overload.lasts || rests(overload));
        ended
    }

    /// Those that last, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Resource, Overload)> {
        let lasting = self.0.iter().filter(|(_, overload)| overload.lasts);
        lasting.map(|(&resource, &overload)| (resource, overload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::RelayId;

    const LINE: Resource = Resource::Sending(RelayId(1));

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn an_overload_begins_once_and_ends_when_there_has_been_room_for_a_while() {
        let now = start();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut overloads = Overloads::default();
        let mut press = |rate, at| overloads.press(LINE, BitsPerSec(rate), BitsPerSec(100), at);
        assert!(!press(94, now));
        assert!(press(95, now));
        assert!(!press(120, at(1)), "it is one already");
        assert!(!press(86, at(2)), "it still is");
        assert!(!press(80, at(3)));

        assert_eq!(overloads.expire(at(4)), []);
        assert_eq!(overloads.iter().count(), 1);
        assert_eq!(overloads.expire(at(5)), [LINE]);
        assert_eq!(overloads.iter().count(), 0);
    }

    #[test]
    fn the_same_overload_does_not_begin_again_at_once() {
        let now = start();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut overloads = Overloads::default();
        assert!(overloads.press(LINE, BitsPerSec(99), BitsPerSec(100), now));
        assert_eq!(overloads.expire(at(3)), [LINE]);

        assert!(!overloads.press(LINE, BitsPerSec(99), BitsPerSec(100), at(4)));
        overloads.expire(at(10));
        assert!(overloads.press(LINE, BitsPerSec(99), BitsPerSec(100), at(10)));
    }

    #[test]
    fn what_has_no_known_capacity_is_never_overloaded() {
        let mut overloads = Overloads::default();
        assert!(!overloads.press(LINE, BitsPerSec(u64::MAX), BitsPerSec(0), start()));
    }
}
