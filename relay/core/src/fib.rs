//! The forwarding information base: the pushed state as the data plane and the shell read it. Made
//! anew from each update, never changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use overway_wire::control::{Item, ROUTE_PATHS_MAX, Role, Route, item};
use overway_wire::{Class, Epoch, LinkIndex, NeighbourLink, Path, RelayId};

use crate::pushed::Pushed;

/// What this relay does with frames, and whom it knows.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    /// The epoch it is from.
    pub epoch: Epoch,
    /// Paths by destination and class, best first.
    routes: HashMap<(RelayId, Class), Vec<FibPath>>,
    /// Links to hold, with their neighbours' addresses.
    pub peers: BTreeMap<NeighbourLink, PeerLink>,
    /// Names of relays.
    pub names: BTreeMap<RelayId, String>,
    /// Relays that offer a service, in order of id.
    pub services: BTreeMap<String, Vec<RelayId>>,
    /// Relays whose certificates count for nothing.
    pub revoked: BTreeSet<RelayId>,
}

/// One way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FibPath {
    /// The steps.
    pub path: Path,
    /// Expected one-way delay.
    pub delay: Duration,
}

/// A link to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// Which of our own addresses it uses.
    pub local_address: usize,
    /// The neighbour's address.
    pub remote: SocketAddr,
    /// Whether it is on a path or a backup of some pair.
    pub candidate: bool,
    /// Its capacity in bits per second, 0 if not known.
    pub capacity_bps: u64,
}

impl Fib {
    /// Reads the pushed state. Items that make no sense (a path that loops or does not end at its
    /// destination, an address that is none) are left out: the rest still serves.
    pub fn new(pushed: &Pushed, local: RelayId) -> Self {
        let mut fib = Self { epoch: pushed.epoch(), ..Self::default() };
        for item in pushed.items() {
            fib.read(item, local);
        }
        fib
    }

    fn read(&mut self, item: &Item, local: RelayId) -> Option<()> {
        match item.body.as_ref()? {
            item::Body::Node(node) => {
                self.names.insert(relay_id(node.relay)?, node.name.clone());
            }
            item::Body::Peer(peer) => {
                let index = LinkIndex::new(u8::try_from(peer.index).ok()?)?;
                let neighbour = relay_id(peer.neighbour).filter(|&neighbour| neighbour != local)?;
                let link = PeerLink {
                    local_address: peer.local_address as usize,
                    remote: peer.remote_address.parse().ok()?,
                    candidate: peer.role() == Role::Candidate,
                    capacity_bps: peer.capacity_bps,
                };
                self.peers.insert(NeighbourLink::new(neighbour, index), link);
            }
            item::Body::Route(route) => self.read_route(route, local)?,
            item::Body::Service(service) => {
                let relays = service.relays.iter().filter_map(|&relay| relay_id(relay)).collect();
                self.services.insert(service.name.clone(), relays);
            }
            item::Body::Revoked(revoked) => {
                self.revoked.insert(relay_id(revoked.relay)?);
            }
        }
        Some(())
    }

    fn read_route(&mut self, route: &Route, local: RelayId) -> Option<()> {
        let destination = relay_id(route.destination)?;
        let class = Class::from_code(u8::try_from(route.class).ok()?)?;
        let read = |steps: &[u8], delay_us: u32| {
            let path = Path::decode(steps).ok()?;
            let fits = path.last().relay == destination && !path.visits(local);
            let delay = Duration::from_micros(u64::from(delay_us));
            fits.then_some(FibPath { path, delay })
        };
        let paths = route.paths.iter().take(ROUTE_PATHS_MAX);
        let paths = paths.filter_map(|path| read(&path.steps, path.delay_us)).collect();
        self.routes.insert((destination, class), paths);
        Some(())
    }

    /// The paths to a relay in a class, best first; empty if there is none.
    pub fn paths(&self, destination: RelayId, class: Class) -> &[FibPath] {
        self.routes.get(&(destination, class)).map_or(&[], Vec::as_slice)
    }

    /// The relays that offer a service, the nearest by its best path first. `local`, if among them, is
    /// the first.
    pub fn service(&self, name: &str, class: Class, local: RelayId) -> Vec<RelayId> {
        let delay = |relay: RelayId| match self.paths(relay, class).first() {
            _ if relay == local => Duration::ZERO,
            Some(path) => path.delay,
            None => Duration::MAX,
        };
        let mut relays = self.services.get(name).cloned().unwrap_or_default();
        relays.sort_by_key(|&relay| (delay(relay), relay));
        relays
    }
}

fn relay_id(id: u32) -> Option<RelayId> {
    u16::try_from(id).ok().filter(|&id| id != 0).map(RelayId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::PathElement;
    use overway_wire::control::{RoutePath, Service, Update};

    fn steps(relays: &[u16]) -> Vec<u8> {
        let element = |&relay| PathElement::new(RelayId(relay), LinkIndex::default());
        let path = Path::new(&relays.iter().map(element).collect::<Vec<_>>()).unwrap();
        let mut bytes = Vec::new();
        path.encode(&mut bytes);
        bytes
    }

    fn fib(put: Vec<Item>) -> Fib {
        let mut pushed = Pushed::default();
        pushed.apply(Update { revision: 1, put, ..Update::default() }).unwrap();
        Fib::new(&pushed, RelayId(1))
    }

    fn route(destination: u32, paths: Vec<(Vec<u8>, u32)>) -> Item {
        let path = |(steps, delay_us)| RoutePath { steps, delay_us };
        Route { destination, class: 0, paths: paths.into_iter().map(path).collect() }.into()
    }

    #[test]
    fn paths_that_loop_or_end_elsewhere_are_left_out() {
        let good = steps(&[2, 3]);
        let paths = vec![
            (steps(&[2, 4]), 1),
            (steps(&[1, 3]), 1),
            (vec![0, 2, 0, 0, 2, 0], 1),
            (vec![1, 2], 1),
            (good.clone(), 7_000),
        ];

        let fib = fib(vec![route(3, paths)]);

        let path = Path::decode(&good).unwrap();
        let expected = FibPath { path, delay: Duration::from_millis(7) };
        assert_eq!(fib.paths(RelayId(3), Class::Realtime), [expected]);
        assert!(fib.paths(RelayId(3), Class::Bulk).is_empty());
    }

    #[test]
    fn the_nearest_relay_of_a_service_comes_first_and_one_without_a_path_last() {
        let service = Service { name: "web".into(), relays: vec![2, 3, 4, 70_000] };
        let fib = fib(vec![
            route(2, vec![(steps(&[2]), 9_000)]),
            route(3, vec![(steps(&[3]), 5_000)]),
            service.into(),
        ]);

        let relays = fib.service("web", Class::Realtime, RelayId(1));

        assert_eq!(relays, [RelayId(3), RelayId(2), RelayId(4)]);
        assert!(fib.service("other", Class::Realtime, RelayId(1)).is_empty());
    }
}
