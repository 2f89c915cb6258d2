//! The links between two relays that are to probe one another.
//!
//! Two relays with nA and nB addresses in use have max(nA, nB) links, at most two. Link k uses address
//! min(k, n - 1) at each end: with a second line at one end only, both its lines meet the other's one.

use std::net::SocketAddr;

use overway_wire::control::{Item, Peer, Role};
use overway_wire::{BitsPerSec, NeighbourLink};

use crate::registration::Registration;

/// One parallel link between two relays, from the view of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Index of the own address.
    pub(crate) local_address: usize,
    /// The other's address.
    pub(crate) remote_address: SocketAddr,
    /// The lesser of both ends'; 0 if neither is known.
    pub(crate) capacity: BitsPerSec,
    /// Workers of the other's data plane.
    pub(crate) workers: u8,
}

/// The parallel links between `local` and `remote`, by index.
pub(crate) fn lines_between<'a>(
    local: &'a Registration,
    remote: &'a Registration,
) -> impl Iterator<Item = Line> + 'a {
    (0..local.lines().max(remote.lines())).map(move |index| {
        let (here, there) = (index.min(local.lines() - 1), index.min(remote.lines() - 1));
        Line {
            local_address: here,
            remote_address: remote.addresses[there],
            capacity: lesser_known(local.line(here).capacity, remote.line(there).capacity),
            workers: remote.workers,
        }
    })
}

/// A link as a relay is told of it.
pub(crate) fn peer(link: NeighbourLink, line: Line, candidate: bool) -> Item {
    let role = if candidate { Role::Candidate } else { Role::Idle };
    Item::from(Peer {
        neighbour: u32::from(link.neighbour.0),
        index: u32::from(link.index.value()),
        local_address: u32::try_from(line.local_address).expect("a relay has two addresses in use"),
        remote_address: line.remote_address.to_string(),
        role: role.into(),
        capacity_bps: line.capacity.0,
        workers: line.workers.into(),
    })
}

/// The lesser of two capacities, as far as they are known.
fn lesser_known(a: BitsPerSec, b: BitsPerSec) -> BitsPerSec {
    if a.0 == 0 || b.0 == 0 { a.max(b) } else { a.min(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::control::{Hello, item};
    use overway_wire::{LinkIndex, RelayId};

    fn relay(addresses: &[&str], capacity_bps: u64) -> Registration {
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        Registration::check(Hello { addresses, capacity_bps, ..Hello::default() }).unwrap()
    }

    fn pairs(local: &Registration, remote: &Registration) -> Vec<(usize, String)> {
        lines_between(local, remote)
            .map(|line| (line.local_address, line.remote_address.to_string()))
            .collect()
    }

    #[test]
    fn parallel_links_pair_the_lines_and_share_the_last_one() {
        let one = relay(&["10.0.0.1:1"], 0);
        let two = relay(&["10.0.0.2:1", "10.0.0.2:2"], 0);
        let three = relay(&["10.0.0.3:1", "10.0.0.3:2", "10.0.0.3:3"], 0);

        assert_eq!(pairs(&one, &one), [(0, "10.0.0.1:1".into())]);
        assert_eq!(pairs(&one, &two), [(0, "10.0.0.2:1".into()), (0, "10.0.0.2:2".into())]);
        assert_eq!(pairs(&two, &one), [(0, "10.0.0.1:1".into()), (1, "10.0.0.1:1".into())]);
        assert_eq!(pairs(&two, &three), [(0, "10.0.0.3:1".into()), (1, "10.0.0.3:2".into())]);
    }

    #[test]
    fn a_relay_is_told_how_many_workers_its_neighbour_has() {
        let told = |workers| {
            let addresses = vec!["10.0.0.1:1".to_owned()];
            let hello = Hello { addresses, workers, ..Hello::default() };
            let remote = Registration::check(hello).unwrap();
            let line = lines_between(&relay(&["10.0.0.2:1"], 0), &remote).next().unwrap();
            let link = NeighbourLink::new(RelayId(1), LinkIndex::default());
            match peer(link, line, true).body {
                Some(item::Body::Peer(peer)) => peer.workers,
                other => panic!("{other:?} is no peer"),
            }
        };
        assert_eq!([told(0), told(3), told(4_000_000_000)], [1, 3, 16]);
    }

    #[test]
    fn a_link_has_the_lesser_known_capacity() {
        let capacity = |a, b| {
            let (a, b) = (relay(&["10.0.0.1:1"], a), relay(&["10.0.0.2:1"], b));
            lines_between(&a, &b).next().unwrap().capacity.0
        };
        assert_eq!(capacity(5, 3), 3);
        assert_eq!(capacity(5, 0), 5);
        assert_eq!(capacity(0, 0), 0);
    }
}
