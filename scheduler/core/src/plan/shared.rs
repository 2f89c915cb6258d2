//! The items that every relay is pushed alike: nodes, services, revocations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use overway_wire::RelayId;
use overway_wire::control::{Item, Key, Node, Revoked, Service};

/// A member as everybody is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) id: RelayId,
    pub(crate) name: &'a str,
    /// Services to be had there now.
    pub(crate) services: Option<&'a BTreeSet<String>>,
}

/// The items by key. `members` come in order of id.
pub(crate) fn shared_items<'a>(
    members: impl Iterator<Item = Member<'a>>,
    revoked: &BTreeSet<RelayId>,
) -> BTreeMap<Key, Arc<Item>> {
    let mut services: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut items: Vec<Item> = Vec::new();
    for member in members {
        let relay = u32::from(member.id.0);
        items.push(Node { relay, name: member.name.to_owned() }.into());
        for name in member.services.into_iter().flatten() {
            services.entry(name).or_default().push(relay);
        }
    }
    for (name, relays) in services {
        items.push(Service { name: name.to_owned(), relays }.into());
    }
    items.extend(revoked.iter().map(|relay| Item::from(Revoked { relay: u32::from(relay.0) })));
    let keyed = items.into_iter().map(|item| {
        let key = item.key().expect("items made here have bodies");
        (key, Arc::new(item))
    });
    keyed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::{MESH_RELAYS_MAX, NAME_BYTES_MAX, SERVICES_MAX};
    use overway_wire::control::item::Body;
    use overway_wire::control::{MESSAGE_BYTES_MAX, ToRelay, Update};
    use prost::Message;

    #[test]
    fn the_largest_mesh_leaves_room_in_a_message_for_links_and_routes() {
        let name = |relay: usize, part: usize| format!("{relay:032}{part:032}");
        let offered: Vec<BTreeSet<String>> = (0..MESH_RELAYS_MAX)
            .map(|relay| (0..SERVICES_MAX).map(|part| name(relay, part)).collect())
            .collect();
        let relay_name = "x".repeat(NAME_BYTES_MAX);
        let members = offered.iter().zip(60_000_u16..).map(|(services, id)| Member {
            id: RelayId(id),
            name: &relay_name,
            services: Some(services),
        });

        let items = shared_items(members, &(1..60_000).map(RelayId).collect());

        let put = items.values().map(|item| Item::clone(item)).collect();
        let update = ToRelay::from(Update { put, ..Update::default() });
        assert!(update.encoded_len() < MESSAGE_BYTES_MAX / 2);
    }

    #[test]
    fn a_service_lists_its_relays_in_order_of_id() {
        let both: BTreeSet<String> = ["dns".into(), "web".into()].into();
        let web: BTreeSet<String> = ["web".into()].into();
        let member = |id, services| Member { id: RelayId(id), name: "x", services };
        let members = [member(1, Some(&web)), member(2, None), member(3, Some(&both))];

        let items = shared_items(members.into_iter(), &[RelayId(9)].into());

        let services: Vec<_> = items
            .values()
            .filter_map(|item| match item.body.as_ref().unwrap() {
                Body::Service(service) => Some((service.name.as_str(), service.relays.clone())),
                Body::Node(_) | Body::Peer(_) | Body::Route(_) | Body::Revoked(_) => None,
            })
            .collect();
        assert_eq!(services, [("dns", vec![3]), ("web", vec![1, 3])]);
        assert_eq!(items.len(), 3 + 2 + 1);
    }
}
