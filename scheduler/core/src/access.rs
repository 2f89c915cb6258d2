//! Where clients may attach: what relays say of their access sides, made into what every relay is told.
//!
//! One item for each relay that has an access side and is there, and one for each *bucket* of networks: of a network the
//! nearest [`PREFIX_RELAYS_MAX`] relays that have measured it. Nothing is stored: after a restart relays say it again. What a
//! relay said before its session began anew stands until its first report, as with offers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use overway_wire::RelayId;
use overway_wire::control::{
    ACCESS_ADDRESSES_MAX, ACCESS_WEIGHT_MAX, AccessPrefixes, AccessRelay, AccessState,
    BUCKET_PREFIXES_MAX, DISTANCES_MAX, Distances, Item, Location, NetworkPrefix,
    PREFIX_RELAYS_MAX, PrefixDistances,
};

use crate::push::ItemKey;
use crate::registration::Registration;

/// Distances kept of the whole mesh, shared evenly among its relays. 60 MB.
const MESH_DISTANCES_MAX: usize = 1 << 20;
/// A round trip above a minute is none.
const RTT_US_MAX: u32 = 60_000_000;

/// What is known of a relay that is there, beside its access side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    region: String,
    provider: String,
    location: Option<Location>,
    drained: bool,
}

impl Surroundings {
    pub(crate) fn of(registration: &Registration, drained: bool) -> Self {
        Self {
            region: registration.region.clone(),
            provider: registration.provider.clone(),
            location: registration.location,
            drained,
        }
    }
}

#[derive(Debug, Default)]
struct Side {
    /// Absent: it has no access side.
    state: Option<AccessState>,
    /// Absent: it is not there.
    around: Option<Surroundings>,
    distances: BTreeMap<NetworkPrefix, u32>,
    /// It has said in its session how it stands.
    said: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Access {
    sides: BTreeMap<RelayId, Side>,
    networks: BTreeMap<NetworkPrefix, BTreeMap<RelayId, u32>>,
    /// Networks by the item that tells of them.
    buckets: BTreeMap<u32, BTreeSet<NetworkPrefix>>,
    dirty: BTreeSet<ItemKey>,
    items: BTreeMap<ItemKey, Arc<Item>>,
}

impl Access {
    /// A relay says how its access side stands; says whether that is new.
    pub(crate) fn handle_state(&mut self, relay: RelayId, state: &AccessState) -> bool {
        let read = |texts: &[String]| -> Vec<String> {
            let addresses = texts.iter().take(ACCESS_ADDRESSES_MAX);
            addresses.filter(|text| text.parse::<SocketAddr>().is_ok()).cloned().collect()
        };
        let state = AccessState {
            weight: state.weight.min(ACCESS_WEIGHT_MAX),
            busy_permille: state.busy_permille.min(1_000),
            addresses: read(&state.addresses),
            tcp_addresses: read(&state.tcp_addresses),
            ..*state
        };
        let state = (!state.addresses.is_empty()).then_some(state);
        let side = self.sides.entry(relay).or_default();
        side.said = true;
        self.put_state(relay, state)
    }

    fn put_state(&mut self, relay: RelayId, state: Option<AccessState>) -> bool {
        let Some(side) = self.sides.get_mut(&relay).filter(|side| side.state != state) else {
            return false;
        };
        side.state = state;
        self.dirty.insert(ItemKey::access_relay(relay));
        true
    }

    /// A relay says how far networks are: all that it knows. `relays` is how many the mesh has. Returns how many were
    /// passed over, because they make no sense or are too many.
    pub(crate) fn handle_distances(
        &mut self,
        relay: RelayId,
        distances: &Distances,
        relays: usize,
    ) -> u64 {
        let most = DISTANCES_MAX.min(MESH_DISTANCES_MAX / relays.max(1));
        let mut new = BTreeMap::new();
        let mut refused = 0;
        for (at, distance) in distances.distances.iter().enumerate() {
            let prefix = NetworkPrefix::from_bytes(&distance.prefix);
            match prefix.filter(|_| at < most && distance.rtt_us <= RTT_US_MAX) {
                Some(prefix) => {
                    new.insert(prefix, distance.rtt_us);
                }
                None => refused += 1,
            }
        }
        self.replace(relay, new);
        refused
    }

    fn replace(&mut self, relay: RelayId, new: BTreeMap<NetworkPrefix, u32>) {
        let side = self.sides.entry(relay).or_default();
        let old = std::mem::take(&mut side.distances);
        for prefix in old.keys().filter(|prefix| !new.contains_key(prefix)) {
            let Some(known) = self.networks.get_mut(prefix) else { continue };
            known.remove(&relay);
            if known.is_empty() {
                self.networks.remove(prefix);
                if let Some(bucket) = self.buckets.get_mut(&prefix.bucket()) {
                    bucket.remove(prefix);
                }
            }
            self.dirty.insert(ItemKey::access_prefixes(prefix.bucket()));
        }
        for (&prefix, &rtt) in new.iter().filter(|(prefix, rtt)| old.get(prefix) != Some(rtt)) {
            self.networks.entry(prefix).or_default().insert(relay, rtt);
            self.buckets.entry(prefix.bucket()).or_default().insert(prefix);
            self.dirty.insert(ItemKey::access_prefixes(prefix.bucket()));
        }
        side.distances = new;
    }

    /// A relay's session begins: what it said stands until it says something else.
    pub(crate) fn handle_session(&mut self, relay: RelayId) {
        if let Some(side) = self.sides.get_mut(&relay) {
            side.said = false;
        }
    }

    /// A relay has reported: if it had anything to say of an access side, it has said so before.
    pub(crate) fn handle_report(&mut self, relay: RelayId) {
        if self.sides.get(&relay).is_some_and(|side| !side.said) {
            self.put_state(relay, None);
            self.replace(relay, BTreeMap::new());
            self.sides.entry(relay).or_default().said = true;
        }
    }

    /// What is known of a relay that is there; `None`: it is not.
    pub(crate) fn handle_surroundings(&mut self, relay: RelayId, around: Option<Surroundings>) {
        if around.is_none() && !self.sides.contains_key(&relay) {
            return;
        }
        let side = self.sides.entry(relay).or_default();
        if side.around != around {
            side.around = around;
            self.dirty.insert(ItemKey::access_relay(relay));
        }
    }

    /// A relay is no longer of the mesh.
    pub(crate) fn forget(&mut self, relay: RelayId) {
        if self.sides.contains_key(&relay) {
            self.replace(relay, BTreeMap::new());
            self.sides.remove(&relay);
            self.dirty.insert(ItemKey::access_relay(relay));
        }
    }

    /// Whether something is to be made anew.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Every item's key.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = ItemKey> {
        self.items.keys().copied()
    }

    pub(crate) fn item(&self, key: ItemKey) -> Option<&Arc<Item>> {
        self.items.get(&key)
    }

    /// Every item.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.items.values()
    }

    /// Makes items of what changed; says which are others now, and how many networks were left out.
    pub(crate) fn remake(&mut self) -> (Vec<ItemKey>, u64) {
        let (mut keys, mut refused) = (Vec::new(), 0);
        for key in std::mem::take(&mut self.dirty) {
            let item = match key.named() {
                crate::push::Named::AccessPrefixes(bucket) => self.bucket(bucket, &mut refused),
                crate::push::Named::AccessRelay(relay) => self.relay(relay),
                named => unreachable!("{named:?} is made elsewhere"),
            };
            if self.items.get(&key).map(|known| &**known) == item.as_ref() {
                continue;
            }
            match item {
                Some(item) => self.items.insert(key, Arc::new(item)),
                None => self.items.remove(&key),
            };
            keys.push(key);
        }
        (keys, refused)
    }

    fn relay(&self, relay: RelayId) -> Option<Item> {
        let side = self.sides.get(&relay)?;
        let (state, around) = (side.state.as_ref()?, side.around.as_ref()?);
        let state = AccessState { draining: state.draining || around.drained, ..state.clone() };
        let told = AccessRelay {
            relay: relay.0.into(),
            state: Some(state),
            region: around.region.clone(),
            provider: around.provider.clone(),
            location: around.location,
        };
        Some(told.into())
    }

    fn bucket(&self, bucket: u32, refused: &mut u64) -> Option<Item> {
        let networks = self.buckets.get(&bucket).filter(|networks| !networks.is_empty())?;
        let known = |prefix: &NetworkPrefix| self.networks.get(prefix).map_or(0, BTreeMap::len);
        let mut told: Vec<NetworkPrefix> = networks.iter().copied().collect();
        if told.len() > BUCKET_PREFIXES_MAX {
            // What more relays have measured decides more.
            *refused += (told.len() - BUCKET_PREFIXES_MAX) as u64;
            told.sort_by_key(|prefix| (Reverse(known(prefix)), *prefix));
            told.truncate(BUCKET_PREFIXES_MAX);
            told.sort_unstable();
        }
        let prefixes = told.iter().map(|prefix| {
            let near = self.networks.get(prefix).into_iter().flatten();
            let mut near: Vec<(u32, RelayId)> = near.map(|(&relay, &rtt)| (rtt, relay)).collect();
            near.sort_unstable();
            near.truncate(PREFIX_RELAYS_MAX);
            PrefixDistances {
                prefix: prefix.as_bytes().to_vec(),
                relays: near.iter().map(|(_, relay)| relay.0.into()).collect(),
                rtts_us: near.iter().map(|&(rtt, _)| rtt).collect(),
            }
        });
        Some(AccessPrefixes { bucket, prefixes: prefixes.collect() }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::control::{Distance, item};

    fn state(attachments: u32) -> AccessState {
        AccessState {
            addresses: vec!["203.0.113.1:4434".into()],
            weight: 100,
            attachments,
            attachments_max: 100,
            ..AccessState::default()
        }
    }

    fn around(drained: bool) -> Option<Surroundings> {
        let [region, provider] = ["eu", "p"].map(str::to_owned);
        Some(Surroundings { region, provider, location: None, drained })
    }

    fn distances(of: &[([u8; 3], u32)]) -> Distances {
        let distance =
            |&(prefix, rtt_us): &([u8; 3], u32)| Distance { prefix: prefix.to_vec(), rtt_us };
        Distances { distances: of.iter().map(distance).collect() }
    }

    fn told(access: &Access, relay: u16) -> Option<&AccessRelay> {
        match &access.item(ItemKey::access_relay(RelayId(relay)))?.body {
            Some(item::Body::AccessRelay(relay)) => Some(relay),
            other => panic!("{other:?}"),
        }
    }

    fn near(access: &Access, prefix: [u8; 3]) -> Vec<(u32, u32)> {
        let prefix = NetworkPrefix::V4(prefix);
        let Some(item) = access.item(ItemKey::access_prefixes(prefix.bucket())) else {
            return Vec::new();
        };
        let Some(item::Body::AccessPrefixes(told)) = &item.body else { panic!("{item:?}") };
        let mut told = told.prefixes.iter().filter(|it| it.prefix == prefix.as_bytes());
        let pairs = |it: &PrefixDistances| {
            it.relays.iter().copied().zip(it.rtts_us.iter().copied()).collect()
        };
        told.next().map(pairs).unwrap_or_default()
    }

    #[test]
    fn a_relay_is_told_of_while_it_is_there_and_has_an_access_side() {
        let (mut access, relay) = (Access::default(), RelayId(1));
        access.handle_surroundings(relay, around(false));
        assert!(access.remake().0.is_empty());
        assert!(access.handle_state(relay, &state(5)));
        assert!(!access.handle_state(relay, &state(5)));
        assert_eq!(access.remake().0, [ItemKey::access_relay(relay)]);
        let relay_told = told(&access, 1).unwrap();
        assert_eq!(
            (relay_told.region.as_str(), relay_told.state.as_ref()),
            ("eu", Some(&state(5)))
        );

        access.handle_surroundings(relay, around(true));
        access.remake();
        assert!(told(&access, 1).unwrap().state.as_ref().unwrap().draining);

        access.handle_surroundings(relay, None);
        access.remake();
        assert_eq!(told(&access, 1), None);
        access.handle_surroundings(relay, around(false));
        access.handle_state(relay, &AccessState { addresses: vec!["x".into()], ..state(5) });
        access.remake();
        assert_eq!(told(&access, 1), None, "no address that means anything");
    }

    #[test]
    fn what_a_relay_said_before_stands_until_its_first_report() {
        let (mut access, relay) = (Access::default(), RelayId(1));
        access.handle_surroundings(relay, around(false));
        access.handle_state(relay, &state(5));
        access.handle_distances(relay, &distances(&[([10, 0, 0], 7)]), 1);
        access.handle_session(relay);
        access.remake();
        assert!(told(&access, 1).is_some());
        access.handle_report(relay);
        access.remake();
        assert_eq!((told(&access, 1), near(&access, [10, 0, 0])), (None, vec![]));

        access.handle_session(relay);
        access.handle_state(relay, &state(6));
        access.handle_report(relay);
        access.remake();
        assert!(told(&access, 1).is_some());
    }

    #[test]
    fn of_a_network_the_nearest_relays_are_told() {
        let mut access = Access::default();
        for relay in 1..=12 {
            let rtt = 1_000 * u32::from(13 - relay);
            access.handle_distances(RelayId(relay), &distances(&[([10, 0, 0], rtt)]), 12);
        }
        let (keys, refused) = access.remake();
        assert_eq!((keys.len(), refused), (1, 0));
        let told = near(&access, [10, 0, 0]);
        assert_eq!(told.len(), PREFIX_RELAYS_MAX);
        assert_eq!(told[0], (12, 1_000));
        assert!(told.is_sorted_by_key(|&(_, rtt)| rtt));

        access.handle_distances(RelayId(12), &distances(&[([10, 0, 1], 5)]), 12);
        access.remake();
        assert_eq!(near(&access, [10, 0, 0])[0], (11, 2_000));
        assert_eq!(near(&access, [10, 0, 1]), [(12, 5)]);
        (1..=12).for_each(|relay| access.forget(RelayId(relay)));
        access.remake();
        assert!(access.items.is_empty() && access.networks.is_empty());
    }

    #[test]
    fn what_makes_no_sense_or_is_too_much_is_passed_over() {
        let mut access = Access::default();
        let bad = Distance { prefix: vec![1], rtt_us: 1 };
        let absurd = Distance { prefix: vec![1, 2, 3], rtt_us: u32::MAX };
        let distances = Distances { distances: vec![bad, absurd] };
        assert_eq!(access.handle_distances(RelayId(1), &distances, 1), 2);

        let many = u32::try_from(DISTANCES_MAX).unwrap() + 10;
        let distance = |n: u32| Distance { prefix: n.to_be_bytes()[1..].to_vec(), rtt_us: 1 };
        let distances = Distances { distances: (0..many).map(distance).collect() };
        assert_eq!(access.handle_distances(RelayId(1), &distances, 1), 10);
        assert_eq!(access.handle_distances(RelayId(1), &distances, 1 << 20), u64::from(many) - 1);
    }

    #[test]
    fn a_bucket_holds_so_many_networks_and_those_that_most_relays_measured() {
        let mut access = Access::default();
        let all = (0..=u16::MAX).map(|n| [10, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
        let of_one: Vec<[u8; 3]> =
            all.filter(|&prefix| NetworkPrefix::V4(prefix).bucket() == 7).take(80).collect();
        let last = of_one[79];
        let said: Vec<_> = of_one.iter().map(|&prefix| (prefix, 9)).collect();
        access.handle_distances(RelayId(1), &distances(&said), 1);
        access.handle_distances(RelayId(2), &distances(&[(last, 5)]), 1);
        let (keys, refused) = access.remake();
        assert_eq!((keys.len(), refused), (1, 80 - BUCKET_PREFIXES_MAX as u64));
        assert_eq!(near(&access, last), [(2, 5), (1, 9)]);
    }
}
