//! What is known of the mesh: a directed multigraph of relays and links.
//!
//! A link is known by its [`LinkId`]: two directions, and parallel links, are links of their own. Relays
//! and links come and go in any order, but a link needs both its ends; removing a relay removes its
//! links. Iteration is in order of id, whatever the order of arrival.

use std::collections::BTreeMap;

use overway_wire::{
    BitsPerSec, ClockDiff, LinkId, LinkIndex, LossPpm, Micros, Permille, PolicyId, PricePerGb,
    RelayId,
};
use petgraph::stable_graph::{EdgeIndex, NodeIndex, StableDiGraph};

use crate::{POLICIES_MAX, Policy};

/// Relays that a topology holds. A mesh in which everybody has links with everybody has at most about a
/// thousand; beyond, relays measure a bounded set of neighbours.
pub const RELAYS_MAX: usize = 8_192;
/// Links that a topology holds: two parallel ones between every ordered pair of a thousand relays, or 512 for
/// each of the most relays.
pub const LINKS_MAX: usize = 1 << 22;

/// What the planner needs to know of a relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayAttributes {
    /// Whose lines it uses.
    pub provider: String,
    /// Where it is.
    pub region: String,
    /// Whether it may carry others' traffic.
    pub transit: bool,
    /// Whether it is about to stop: it is left as an intermediate, and stays an end.
    pub draining: bool,
}

/// Measurements of one direction of a link over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSample {
    /// Receiver's clock less sender's.
    pub one_way_diff: ClockDiff,
    /// Round trip of the link, both directions; zero if not known.
    pub rtt: Micros,
    /// Mean deviation of the one-way difference.
    pub jitter: Micros,
    /// Packets that should have arrived; zero if the window is empty.
    pub samples: u32,
    /// Of these, lost.
    pub lost: u32,
}

impl WindowSample {
    /// The share lost, as counted; zero if the window is empty.
    pub fn loss(&self) -> LossPpm {
        let lost = u64::from(self.lost) * 1_000_000;
        let ppm = lost.checked_div(u64::from(self.samples)).unwrap_or(0);
        LossPpm::new(u32::try_from(ppm).unwrap_or(u32::MAX))
    }
}

/// The latest that is known of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkMeasure {
    /// Whether the receiver hears the sender.
    pub usable: bool,
    /// Over about the last second: for leaving a path.
    pub fast: WindowSample,
    /// Over about the last thirty seconds: for coming back.
    pub slow: WindowSample,
    /// Share of the capacity in use.
    pub load: Permille,
    /// Capacity; zero if not known.
    pub capacity: BitsPerSec,
    /// Price of what is sent over it.
    pub price: PricePerGb,
    /// Whether it is about to be taken away: no path in use takes it where another way leads there.
    pub draining: bool,
}

/// Why a topology did not take a relay or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TopologyError {
    /// There are [`RELAYS_MAX`] relays already.
    #[error("the topology is full: {RELAYS_MAX} relays")]
    RelaysFull,
    /// There are [`LINKS_MAX`] links already.
    #[error("the topology is full: {LINKS_MAX} links")]
    LinksFull,
    /// One end of the link is no relay of the topology.
    #[error("an end of the link is not a known relay")]
    UnknownRelay,
    /// The link ends where it begins.
    #[error("the link ends where it begins")]
    SelfLink,
    /// There are [`POLICIES_MAX`] policies already.
    #[error("the topology is full: {POLICIES_MAX} policies")]
    PoliciesFull,
    /// Policy 0 restricts nothing, and is always there.
    #[error("policy 0 is the unrestricted one")]
    Unrestricted,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    id: LinkId,
    measure: LinkMeasure,
}

/// The directed link-state graph. See the module's first lines.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    graph: StableDiGraph<RelayAttributes, Link>,
    relays: BTreeMap<RelayId, NodeIndex>,
    links: BTreeMap<LinkId, EdgeIndex>,
    policies: BTreeMap<PolicyId, Policy>,
    changes: Changes,
}

/// What changed of a topology since a planner asked last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Relays that came, went or have other attributes, and policies.
    pub(crate) structure: bool,
    /// Links that came, went or have other measurements; some more than once.
    pub(crate) links: Vec<LinkId>,
}

impl Topology {
    /// Makes an empty topology.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a relay, or changes the attributes of one.
    ///
    /// # Errors
    /// [`TopologyError::RelaysFull`] for a new relay beyond [`RELAYS_MAX`].
    pub fn put_relay(
        &mut self,
        id: RelayId,
        attributes: RelayAttributes,
    ) -> Result<(), TopologyError> {
        if let Some(&node) = self.relays.get(&id) {
            self.changes.structure |= self.graph[node] != attributes;
            self.graph[node] = attributes;
            return Ok(());
        }
        if self.relays.len() >= RELAYS_MAX {
            return Err(TopologyError::RelaysFull);
        }
        self.changes.structure = true;
        let node = self.graph.add_node(attributes);
        self.relays.insert(id, node);
        Ok(())
    }

    /// Removes a relay and all its links; says whether it was there.
    pub fn remove_relay(&mut self, id: RelayId) -> bool {
        let Some(node) = self.relays.remove(&id) else { return false };
        let outgoing = self.graph.edges_directed(node, petgraph::Outgoing);
        let incoming = self.graph.edges_directed(node, petgraph::Incoming);
        for edge in outgoing.chain(incoming) {
            let id = edge.weight().id;
            self.links.remove(&id);
            self.changes.links.push(id);
        }
        self.changes.structure = true;
        self.graph.remove_node(node);
        true
    }

    /// Adds a link, or replaces its measurements.
    ///
    /// # Errors
    /// [`TopologyError::SelfLink`], [`TopologyError::UnknownRelay`], or [`TopologyError::LinksFull`] for
    /// a new link beyond [`LINKS_MAX`].
    pub fn put_link(&mut self, id: LinkId, measure: LinkMeasure) -> Result<(), TopologyError> {
        if let Some(&edge) = self.links.get(&id) {
            let known = &mut self.graph[edge].measure;
            if *known != measure {
                *known = measure;
                self.note(id);
            }
            return Ok(());
        }
        if id.from == id.to {
            return Err(TopologyError::SelfLink);
        }
        let node = |relay| self.relays.get(relay).copied().ok_or(TopologyError::UnknownRelay);
        let (from, to) = (node(&id.from)?, node(&id.to)?);
        if self.links.len() >= LINKS_MAX {
            return Err(TopologyError::LinksFull);
        }
        let edge = self.graph.add_edge(from, to, Link { id, measure });
        self.links.insert(id, edge);
        self.note(id);
        Ok(())
    }

    /// Notes that a link changed. While no planner asks, each is noted a few times at most.
    fn note(&mut self, id: LinkId) {
        let noted = &mut self.changes.links;
        noted.push(id);
        if noted.len() > 4 * self.links.len() + 64 {
            noted.sort_unstable();
            noted.dedup();
        }
    }

    /// What changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Removes a link; says whether it was there.
    pub fn remove_link(&mut self, id: LinkId) -> bool {
        let Some(edge) = self.links.remove(&id) else { return false };
        self.graph.remove_edge(edge);
        self.note(id);
        true
    }

    /// Adds a policy, or changes one.
    ///
    /// # Errors
    /// [`TopologyError::Unrestricted`] for id 0, [`TopologyError::PoliciesFull`] for a new one beyond
    /// [`POLICIES_MAX`].
    pub fn put_policy(&mut self, id: PolicyId, policy: Policy) -> Result<(), TopologyError> {
        if id == PolicyId::default() {
            return Err(TopologyError::Unrestricted);
        }
        if !self.policies.contains_key(&id) && self.policies.len() >= POLICIES_MAX {
            return Err(TopologyError::PoliciesFull);
        }
        self.changes.structure |= self.policies.get(&id) != Some(&policy);
        self.policies.insert(id, policy);
        Ok(())
    }

    /// Removes a policy; says whether it was there.
    pub fn remove_policy(&mut self, id: PolicyId) -> bool {
        let known = self.policies.remove(&id).is_some();
        self.changes.structure |= known;
        known
    }

    /// Every policy but the unrestricted one, in order of id.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = (PolicyId, &Policy)> {
        self.policies.iter().map(|(&id, policy)| (id, policy))
    }

    /// A relay's attributes.
    pub fn relay(&self, id: RelayId) -> Option<&RelayAttributes> {
        self.relays.get(&id).map(|&node| &self.graph[node])
    }

    /// A link's measurements.
    pub fn link(&self, id: LinkId) -> Option<&LinkMeasure> {
        self.links.get(&id).map(|&edge| &self.graph[edge].measure)
    }

    /// Every relay, in order of id.
    pub fn relays(&self) -> impl ExactSizeIterator<Item = (RelayId, &RelayAttributes)> {
        self.relays.iter().map(|(&id, &node)| (id, &self.graph[node]))
    }

    /// Every link, in order of id.
    pub fn links(&self) -> impl ExactSizeIterator<Item = (LinkId, &LinkMeasure)> {
        self.links.iter().map(|(&id, &edge)| (id, &self.graph[edge].measure))
    }

    /// The parallel links from one relay to another, in order of index.
    pub fn links_between(
        &self,
        from: RelayId,
        to: RelayId,
    ) -> impl Iterator<Item = (LinkId, &LinkMeasure)> {
        let least = LinkId::new(from, to, LinkIndex::default());
        let links = self.links.range(least..=LinkId::new(from, to, LinkIndex::MAX));
        links.map(|(&id, &edge)| (id, &self.graph[edge].measure))
    }

    /// Links that leave `relay`, in no particular order.
    pub fn links_from(&self, relay: RelayId) -> impl Iterator<Item = (LinkId, &LinkMeasure)> {
        let node = self.relays.get(&relay).copied();
        node.into_iter()
            .flat_map(|node| self.graph.edges(node))
            .map(|edge| (edge.weight().id, &edge.weight().measure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: u16, to: u16, index: u8) -> LinkId {
        LinkId::new(RelayId(from), RelayId(to), LinkIndex::new(index).unwrap())
    }

    fn of_relays(count: u16) -> Topology {
        let mut topology = Topology::new();
        for id in 1..=count {
            topology.put_relay(RelayId(id), RelayAttributes::default()).unwrap();
        }
        topology
    }

    #[test]
    fn parallel_links_and_directions_are_told_apart() {
        let mut topology = of_relays(2);
        for (load, id) in [(1, link(1, 2, 0)), (2, link(1, 2, 1)), (3, link(2, 1, 0))] {
            let measure = LinkMeasure { load: Permille(load), ..LinkMeasure::default() };
            topology.put_link(id, measure).unwrap();
        }

        assert_eq!(topology.link(link(1, 2, 1)).unwrap().load, Permille(2));
        assert!(topology.remove_link(link(1, 2, 0)));
        assert_eq!(topology.link(link(1, 2, 0)), None);
        assert_eq!(topology.link(link(2, 1, 0)).unwrap().load, Permille(3));
        assert_eq!(topology.links_from(RelayId(1)).count(), 1);
    }

    #[test]
    fn a_removed_relay_takes_its_links_along_and_no_others() {
        let mut topology = of_relays(3);
        for id in [link(1, 2, 0), link(2, 1, 0), link(3, 2, 0), link(1, 3, 0)] {
            topology.put_link(id, LinkMeasure::default()).unwrap();
        }

        assert!(topology.remove_relay(RelayId(2)));

        let left: Vec<_> = topology.links().map(|(id, _)| id).collect();
        assert_eq!(left, [link(1, 3, 0)]);
        assert!(!topology.remove_relay(RelayId(2)));
    }

    #[test]
    fn iteration_is_in_order_of_id_whatever_the_order_of_arrival() {
        let mut topology = Topology::new();
        for id in [3, 1, 2] {
            topology.put_relay(RelayId(id), RelayAttributes::default()).unwrap();
        }
        for id in [link(3, 1, 0), link(1, 2, 1), link(1, 2, 0)] {
            topology.put_link(id, LinkMeasure::default()).unwrap();
        }

        let relays: Vec<_> = topology.relays().map(|(id, _)| id.0).collect();
        let links: Vec<_> = topology.links().map(|(id, _)| id).collect();

        assert_eq!(relays, [1, 2, 3]);
        assert_eq!(links, [link(1, 2, 0), link(1, 2, 1), link(3, 1, 0)]);
    }

    #[test]
    fn links_without_two_known_ends_are_refused() {
        let mut topology = of_relays(1);
        let measure = LinkMeasure::default();

        assert_eq!(topology.put_link(link(1, 2, 0), measure), Err(TopologyError::UnknownRelay));
        assert_eq!(topology.put_link(link(1, 1, 0), measure), Err(TopologyError::SelfLink));
    }

    #[test]
    fn relays_beyond_the_bound_are_refused_and_known_ones_still_change() {
        let mut topology = of_relays(u16::try_from(RELAYS_MAX).unwrap());
        let draining = RelayAttributes { draining: true, ..RelayAttributes::default() };

        let refused = topology.put_relay(RelayId(u16::MAX), draining.clone());

        assert_eq!(refused, Err(TopologyError::RelaysFull));
        assert_eq!(topology.put_relay(RelayId(1), draining), Ok(()));
        assert!(topology.relay(RelayId(1)).unwrap().draining);
    }
}
