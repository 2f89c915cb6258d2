//! Relays that come and go, and policies: numbers, labels and planes follow them.

use std::collections::BTreeMap;

use overway_wire::{Class, PolicyId, RelayId};

use super::labels::Labels;
use super::links::{CLASSES, Links};
use super::numbers::Numbers;
use super::plane::{Head, Plane};
use super::search::Carriers;
use super::uses::{Noted, Uses};
use super::{Planner, kernel};
use crate::{RouteKey, Topology};

impl Planner {
    /// Takes over relays and policies. Returns whether relays were numbered anew.
    pub(super) fn restructure(&mut self, topology: &Topology, gone: &mut Vec<RouteKey>) -> bool {
        let known: Vec<RelayId> = self.numbers.iter().map(|(id, _)| id).collect();
        for id in known.into_iter().filter(|id| topology.relay(*id).is_none()) {
            self.remove_relay(id, gone);
        }
        let new: Vec<RelayId> = topology
            .relays()
            .map(|(id, _)| id)
            .filter(|id| self.numbers.of(*id).is_none())
            .collect();
        let fits = self.numbers.len() > 0 && new.iter().all(|id| self.numbers.add(*id).is_some());
        let renumber = !fits && !new.is_empty();
        if renumber {
            self.renumber(topology);
        }
        self.labels = Labels::new(topology, &self.numbers);
        self.make_planes(topology, renumber, gone);
        renumber
    }

    /// Keeps links in lists or in a matrix, as suits how many there are. Returns whether that is to be filled anew.
    pub(super) fn reshape(&mut self, topology: &Topology) -> bool {
        let dense = self.wants_matrix(topology);
        if dense == self.links.is_matrix() {
            return false;
        }
        self.links = Links::new(self.numbers.stride(), dense);
        self.admitted = None;
        true
    }

    fn wants_matrix(&self, topology: &Topology) -> bool {
        self.numbers.stride() <= self.dense_max
            && self.links.suits_matrix(topology.links().len(), self.numbers.len())
    }

    /// Drops routes.
    fn forget(&mut self, gone: &mut Vec<RouteKey>, which: impl Fn(&Head, usize, usize) -> bool) {
        let stride = self.numbers.stride();
        let mut noted = Noted::default();
        for Plane { head, rows } in &mut self.planes {
            let (class, policy) = (Class::ALL[head.class], head.policy);
            for (from, row) in rows.iter_mut().enumerate() {
                for to in 0..stride {
                    if !row.records[to].exists() || !which(head, from, to) {
                        continue;
                    }
                    row.forget((from, to), stride, &mut noted, &mut self.stats);
                    if let (Some(source), Some(destination)) =
                        (self.numbers.id(from), self.numbers.id(to))
                    {
                        gone.push(RouteKey { source, destination, class, policy });
                    }
                }
            }
        }
        self.uses.count(&mut noted);
    }

    fn remove_relay(&mut self, id: RelayId, gone: &mut Vec<RouteKey>) {
        let Some(number) = self.numbers.of(id) else { return };
        self.forget(gone, |_, from, to| from == number || to == number);
        self.numbers.remove(id);
        for other in 0..self.numbers.stride() {
            for (from, to) in [(number, other), (other, number)] {
                self.links.set(from, to, &[]);
                if let Some(admitted) = &mut self.admitted {
                    admitted.set(from, to, &[]);
                }
            }
        }
    }

    /// Numbers all relays anew. Routes are chosen as if for the first time, but for those whose relays are all
    /// still there.
    fn renumber(&mut self, topology: &Topology) {
        let relays: Vec<RelayId> = topology.relays().map(|(id, _)| id).collect();
        let near = |from: usize, to: usize| {
            let measures = topology.links_between(relays[from], relays[to]);
            let usable = measures.filter(|(_, measure)| measure.usable);
            usable.map(|(_, measure)| measure.slow.rtt.0 / 2).min().unwrap_or(kernel::NONE)
        };
        let old = std::mem::replace(&mut self.numbers, Numbers::new(&relays, near));
        let stride = self.numbers.stride();
        self.links = Links::new(stride, self.wants_matrix(topology));
        self.admitted = None;
        self.uses = Uses::new(stride);
        let mut noted = Noted::default();
        let number = |at: u16| {
            let id = old.id(usize::from(at))?;
            u16::try_from(self.numbers.of(id)?).ok()
        };
        for count in [
            &mut self.stats.routes,
            &mut self.stats.routes_without_disjoint,
            &mut self.stats.routes_without_diverse,
        ] {
            *count = 0;
        }
        for plane in &mut self.planes {
            plane.renumber(&number, stride, &mut noted, &mut self.stats);
            self.uses.count(&mut noted);
        }
    }

    /// Makes the planes that there are to be, and drops the others.
    fn make_planes(&mut self, topology: &Topology, renumbered: bool, gone: &mut Vec<RouteKey>) {
        let policies: Vec<PolicyId> = std::iter::once(PolicyId::default())
            .chain(topology.policies().map(|(id, _)| id))
            .collect();
        let grounds: BTreeMap<PolicyId, (Carriers, Vec<bool>)> =
            policies.iter().map(|policy| (*policy, self.ground(topology, *policy))).collect();
        let narrows = |head: &Head| {
            let gone = |(was, is): (&bool, &bool)| *was && !*is;
            grounds.get(&head.policy).is_none_or(|(_, ends)| head.ends.iter().zip(ends).any(gone))
        };
        // Of new numbers it is not known who had which before.
        if renumbered || self.planes.iter().any(|plane| narrows(&plane.head)) {
            self.forget(gone, |head, from, to| {
                grounds.get(&head.policy).is_none_or(|(_, ends)| !ends[from] || !ends[to])
            });
        }
        self.planes.retain(|plane| grounds.contains_key(&plane.head.policy));
        let stride = self.numbers.stride();
        for (policy, ground) in grounds {
            for class in 0..CLASSES {
                let (carriers, ends) = ground.clone();
                let mut planes = self.planes.iter_mut();
                match planes.find(|p| p.head.class == class && p.head.policy == policy) {
                    Some(plane) => (plane.head.carriers, plane.head.ends) = (carriers, ends),
                    None => self.planes.push(Plane::new(class, policy, (carriers, ends), stride)),
                }
            }
        }
        self.planes.sort_by_key(|plane| (plane.head.policy, plane.head.class));
    }

    /// Which relays may be intermediates under a policy, and which may be ends.
    fn ground(&self, topology: &Topology, policy: PolicyId) -> (Carriers, Vec<bool>) {
        let stride = self.numbers.stride();
        let (mut carriers, mut ends) = (vec![kernel::NONE; stride], vec![false; stride]);
        let policy = topology.policies().find(|(id, _)| *id == policy).map(|(_, policy)| policy);
        for (id, number) in self.numbers.iter() {
            let Some(relay) = topology.relay(id) else { continue };
            if policy.is_none_or(|policy| policy.allows(id, relay)) {
                ends[number] = true;
                carriers[number] = if relay.transit && !relay.draining { 0 } else { kernel::NONE };
            }
        }
        (Carriers::new(carriers, &self.labels), ends)
    }
}
