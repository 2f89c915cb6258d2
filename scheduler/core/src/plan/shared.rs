//! The items that every relay is pushed alike: nodes, policies, services, revocations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overway_topology::Topology;
use overway_wire::RelayId;
use overway_wire::control::{Item, Node, NodeDrain, Policy, Revoked, Service};

use crate::DrainStage;
use crate::push::ItemKey;

/// Names of services that are remembered by number. With more, all is numbered anew, and every relay gets its whole
/// state again.
const SERVICE_NUMBERS_MAX: usize = 1 << 20;

/// A member as everybody is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) id: RelayId,
    pub(crate) name: &'a str,
    /// Services to be had there now.
    pub(crate) services: Option<&'a BTreeSet<String>>,
    /// How far an operator's drain of it is, and when that is over by the wall clock. Its services are then to be used
    /// only where no other member offers them.
    pub(crate) drain: Option<(DrainStage, Option<u64>)>,
}

/// The shared items as last made.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    items: BTreeMap<ItemKey, Arc<Item>>,
    /// Numbers of the services ever seen, and their names by number.
    numbers: BTreeMap<String, u32>,
    names: Vec<String>,
}

/// What changed of the shared items.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedChange {
    pub(crate) keys: Vec<ItemKey>,
    /// Whether services were numbered anew, so that keys that were not acknowledged mean nothing any more.
    pub(crate) renumbered: bool,
}

impl Shared {
    /// Every item's key.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = ItemKey> {
        self.items.keys().copied()
    }

    pub(crate) fn item(&self, key: ItemKey) -> Option<&Arc<Item>> {
        self.items.get(&key)
    }

    /// The name of the service with this number.
    pub(crate) fn service_name(&self, number: u32) -> String {
        let at = usize::try_from(number).expect("32 bits fit");
        self.names.get(at).cloned().unwrap_or_default()
    }

    /// Makes the items anew; `members` come in order of id.
    pub(crate) fn replace<'a>(
        &mut self,
        members: impl Iterator<Item = Member<'a>>,
        revoked: &BTreeSet<RelayId>,
        topology: &Topology,
    ) -> SharedChange {
        let renumbered = self.names.len() > SERVICE_NUMBERS_MAX;
        if renumbered {
            self.names.clear();
            self.numbers.clear();
        }
        let mut services: BTreeMap<&str, Offer> = BTreeMap::new();
        let mut items: BTreeMap<ItemKey, Item> = BTreeMap::new();
        for member in members {
            let relay = u32::from(member.id.0);
            let (drain, drain_deadline) = drain_of(&member);
            let node = Node { relay, name: member.name.to_owned(), drain, drain_deadline };
            items.insert(ItemKey::node(member.id), node.into());
            for name in member.services.into_iter().flatten() {
                let offer = services.entry(name).or_default();
                if member.drain.is_some() { &mut offer.last } else { &mut offer.first }.push(relay);
            }
        }
        for (name, offer) in services {
            let relays = if offer.first.is_empty() { offer.last } else { offer.first };
            let key = ItemKey::service(self.number(name));
            items.insert(key, Service { name: name.to_owned(), relays }.into());
        }
        let revoke =
            |relay: &RelayId| (ItemKey::revoked(*relay), Revoked { relay: relay.0.into() });
        items.extend(revoked.iter().map(revoke).map(|(key, item)| (key, item.into())));
        for (id, policy) in topology.policies() {
            let allowed = topology.relays();
            let allowed = allowed.filter(|(id, attributes)| policy.allows(*id, attributes));
            let relays = allowed.map(|(relay, _)| relay.0.into()).collect();
            let item = Policy { policy: id.0.into(), name: policy.name.clone(), relays };
            items.insert(ItemKey::policy(id), item.into());
        }
        SharedChange { keys: self.take(items), renumbered }
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = u32::try_from(self.names.len()).expect("numbers are bounded");
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// Takes these items in place of the ones before; returns the keys of those that differ.
    fn take(&mut self, items: BTreeMap<ItemKey, Item>) -> Vec<ItemKey> {
        let gone = self.items.keys().filter(|key| !items.contains_key(key)).copied();
        let mut changed: Vec<ItemKey> = gone.collect();
        self.items.retain(|key, _| items.contains_key(key));
        for (key, item) in items {
            if self.items.get(&key).is_none_or(|known| **known != item) {
                changed.push(key);
                self.items.insert(key, Arc::new(item));
            }
        }
        changed
    }
}

/// A member's drain, as a node says it.
fn drain_of(member: &Member<'_>) -> (i32, u64) {
    let (drain, deadline) = match member.drain {
        None | Some((DrainStage::Undone, _)) => (NodeDrain::None, None),
        Some((DrainStage::Leaving, deadline)) => (NodeDrain::Leaving, deadline),
        Some((DrainStage::Over, deadline)) => (NodeDrain::Over, deadline),
    };
    (drain.into(), deadline.unwrap_or_default())
}

/// Relays that offer a service, those that are about to go apart.
#[derive(Debug, Default)]
struct Offer {
    first: Vec<u32>,
    last: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::Named;
    use overway_wire::PolicyId;
    use overway_wire::control::item::Body;

    fn services(shared: &Shared) -> Vec<(&str, Vec<u32>)> {
        let bodies = shared.items.values().filter_map(|item| item.body.as_ref());
        let services = bodies.filter_map(|body| match body {
            Body::Service(service) => Some((service.name.as_str(), service.relays.clone())),
            Body::Node(_)
            | Body::Peer(_)
            | Body::Route(_)
            | Body::Revoked(_)
            | Body::Policy(_)
            | Body::Tenant(_)
            | Body::TenantService(_)
            | Body::AccessRelay(_)
            | Body::AccessPrefixes(_) => None,
        });
        services.collect()
    }

    fn member(id: u16, services: Option<&BTreeSet<String>>) -> Member<'_> {
        Member { id: RelayId(id), name: "x", services, drain: None }
    }

    #[test]
    fn a_service_lists_its_relays_in_order_of_id() {
        let both: BTreeSet<String> = ["dns".into(), "web".into()].into();
        let web: BTreeSet<String> = ["web".into()].into();
        let members = [member(1, Some(&web)), member(2, None), member(3, Some(&both))];
        let mut shared = Shared::default();

        let change = shared.replace(members.into_iter(), &[RelayId(9)].into(), &Topology::new());

        assert_eq!(change.keys.len(), 3 + 2 + 1);
        let mut listed = services(&shared);
        listed.sort_unstable();
        assert_eq!(listed, [("dns", vec![3]), ("web", vec![1, 3])]);
        let again = shared.replace(members.into_iter(), &[RelayId(9)].into(), &Topology::new());
        assert_eq!(again, SharedChange::default());
    }

    #[test]
    fn a_service_is_left_to_a_relay_that_goes_only_where_no_other_has_it() {
        let both: BTreeSet<String> = ["dns".into(), "web".into()].into();
        let web: BTreeSet<String> = ["web".into()].into();
        let drain = Some((DrainStage::Leaving, Some(9)));
        let going = Member { drain, ..member(1, Some(&both)) };
        let mut shared = Shared::default();

        let members = [going, member(2, Some(&web))];
        shared.replace(members.into_iter(), &BTreeSet::new(), &Topology::new());

        assert_eq!(services(&shared), [("dns", vec![1]), ("web", vec![2])]);
        let node = |relay| match shared.item(ItemKey::node(RelayId(relay))).unwrap().body.clone() {
            Some(Body::Node(node)) => (node.drain(), node.drain_deadline),
            other => panic!("{other:?}"),
        };
        assert_eq!((node(1), node(2)), ((NodeDrain::Leaving, 9), (NodeDrain::None, 0)));
    }

    #[test]
    fn a_service_that_is_gone_is_removed_by_its_name() {
        let web: BTreeSet<String> = ["web".into()].into();
        let mut shared = Shared::default();
        let none = BTreeSet::new();
        shared.replace([member(1, Some(&web))].into_iter(), &none, &Topology::new());

        let change = shared.replace([member(1, None)].into_iter(), &none, &Topology::new());

        let name = |named: Named| match named {
            Named::Service(number) => (PolicyId::default(), shared.service_name(number)),
            named => panic!("{named:?}"),
        };
        let names = change.keys.iter().map(|key| key.to_wire(name).name);
        assert_eq!(names.collect::<Vec<_>>(), ["web"]);
    }
}
