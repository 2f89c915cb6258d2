//! How much of a flow goes more than once: what each mode means in a relay.
//!
//! | mode | at the source | on the way |
//! | --- | --- | --- |
//! | `off` | every frame bears the copy mark | no copies, no twins, no repairs of its own |
//! | `adaptive` | nothing | a copy around a link that falls silent ([`crate::failover`]); a twin or repairs over a long link that loses much ([`crate::recovery`]) |
//! | `always` | every frame goes over a second path besides | as `adaptive`, for the first |
//!
//! So one bit of the header tells a relay all that it has to know: a frame with the mark has another like it, or wants
//! none, and nothing is made of it but what recovery sends when it is asked. What comes more than once is dropped where
//! the flow ends. Bulk is never copied, nor marked.
//!
//! **The second path** of `always` is, among the route's paths whose first link is not down and of which no
//! notice says otherwise, the one that has the fewest relays in common with the first, and the first of them in the
//! route's order: a path disjoint from it wherever the scheduler pushed one. It is chosen anew for each
//! frame, so that when the first path changes, so does the second. Where the route has one path only, nothing goes twice.
//! If the destination has another address ([`crate::alternate`]) the second path is one to that, chosen alike.
//!
//! **What it costs** is counted by cause, each byte as often as it crosses a link: copies, twins and repairs, which together take at most a tenth of a link's capacity
//! ([`crate::budget`]), and second paths, which have no such bound: who asks for twice the bytes gets them,
//! within the queues' fairness.

use std::time::Instant;

use bytes::Bytes;
use overway_wire::{Class, Header, Path, Redundancy};

use crate::{FibPath, Relay};

/// Whether a frame of such a flow bears the copy mark from its source on.
pub(crate) fn is_marked(mode: Redundancy, class: Class) -> bool {
    match (mode, class) {
        (Redundancy::Off, Class::Realtime | Class::Interactive) => true,
        (Redundancy::Off, Class::Bulk) | (Redundancy::Adaptive | Redundancy::Always, _) => false,
    }
}

impl Relay {
    /// Sends a frame of this relay's own ends over a second path, if there is one.
    pub(crate) fn double(&mut self, header: &Header, payload: &Bytes, now: Instant) {
        if header.class == Class::Bulk {
            return;
        }
        let Some(copy) = self.second_way(header, now) else { return };
        let bytes = bytes_on_links(&copy, payload);
        match self.send(&copy, payload.clone(), now) {
            Ok(()) => {
                self.stats.doubles += 1;
                self.stats.alternates += u64::from(copy.destination != header.destination);
                self.stats.double_bytes += bytes;
            }
            Err(reason) => self.stats.drop(reason),
        }
    }

    /// The header of the second copy: for the destination's other address, so that not even its relay is in common, or
    /// for the same one.
    fn second_way(&self, header: &Header, now: Instant) -> Option<Header> {
        let first = Header { copy: true, ..*header };
        let alternate = Some(header.destination);
        let other = header.alternate.map(|to| Header { destination: to, alternate, ..first });
        let over = |to: Header| {
            let second = self.second_path(&to, now)?;
            Some(Header { path: second.path, ..to })
        };
        other.and_then(over).or_else(|| over(first))
    }

    fn second_path(&self, header: &Header, now: Instant) -> Option<FibPath> {
        let paths = self.fib.allowed(header.destination.relay, header.class, header.policy);
        let others = paths.filter(|path| {
            path.path != header.path && self.is_open(path) && self.is_clear(path, now)
        });
        others.min_by_key(|path| in_common(&path.path, &header.path)).copied()
    }
}

/// What a frame takes on all links that are ahead of it, headers of datagrams left out.
pub(crate) fn bytes_on_links(header: &Header, payload: &[u8]) -> u64 {
    let links = header.path.elements().len() - usize::from(header.position);
    (links * (header.encoded_len() + payload.len())) as u64
}

/// How much the failure of one relay or link between two paths' ends would hit both.
fn in_common(one: &Path, other: &Path) -> usize {
    let relays = one.intermediates().iter().filter(|step| other.visits(step.relay)).count();
    let same_start = one.first() == other.first();
    2 * relays + usize::from(same_start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{LinkIndex, PathElement, RelayId};

    fn path(relays: &[u16]) -> Path {
        let step = |&relay| PathElement::new(RelayId(relay), LinkIndex::default());
        Path::new(&relays.iter().map(step).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn paths_have_in_common_what_would_fail_both() {
        assert_eq!(in_common(&path(&[2, 3, 9]), &path(&[4, 5, 9])), 0);
        assert_eq!(in_common(&path(&[9]), &path(&[4, 9])), 0);
        assert!(in_common(&path(&[2, 3, 9]), &path(&[4, 3, 9])) > 0);
        let apart = in_common(&path(&[2, 3, 9]), &path(&[4, 3, 9]));
        assert!(in_common(&path(&[2, 3, 9]), &path(&[3, 9])) >= apart);
        assert!(in_common(&path(&[2, 3, 9]), &path(&[2, 5, 9])) > apart);
    }

    #[test]
    fn bulk_is_never_marked() {
        let marked = |class| Redundancy::ALL.map(|mode| is_marked(mode, class));

        assert_eq!(marked(Class::Bulk), [false; 3]);
        assert_eq!(marked(Class::Realtime), [true, false, false]);
        assert_eq!(marked(Class::Interactive), [true, false, false]);
    }
}
