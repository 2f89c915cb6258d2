//! The access relays of a mesh, as they are pushed, and what a client is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use overway_wire::control::{
    ACCESS_ADDRESSES_MAX, ACCESS_WEIGHT_MAX, AccessPrefixes, AccessRelay, BUCKET_PREFIXES_MAX,
    Location, NetworkPrefix, PREFIX_RELAYS_MAX,
};
use overway_wire::{Micros, RelayId};

use crate::answer::{Answer, LIMIT_MAX, Nearest, why};
use crate::distance::{Basis, Distance, kilometres, rtt_over};
use crate::order::{Candidate, mix, order};

/// How much of a relay is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Edges attached.
    pub attachments: u32,
    /// Edges that there is room for.
    pub attachments_max: u32,
    /// Thousandths of its lines' capacity in use; 0 if not known.
    pub busy_permille: u32,
}

impl Load {
    /// How full it is, in thousandths: by what there is least of. A relay without any room is full.
    pub fn fill_permille(self) -> u32 {
        let attached = u64::from(self.attachments) * 1_000;
        let attached = attached.checked_div(self.attachments_max.into()).unwrap_or(1_000);
        u32::try_from(attached).unwrap_or(u32::MAX).max(self.busy_permille)
    }
}

/// A relay at which clients may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSide {
    /// Its name.
    pub name: String,
    /// Where edges attach (UDP).
    pub addresses: Vec<SocketAddr>,
    /// Where they attach over TLS on TCP; empty if that was not said.
    pub tcp_addresses: Vec<SocketAddr>,
    /// Its region.
    pub region: String,
    /// Its provider.
    pub provider: String,
    /// Where it is, if it says so.
    pub location: Option<Location>,
    /// Its share among relays that are about as near.
    pub weight: u32,
    /// How much of it is used.
    pub load: Load,
    /// Whether it sends its edges away.
    pub is_draining: bool,
}

impl AccessSide {
    /// Reads what is pushed; `None` if nobody can attach there, or it is no relay.
    fn read(relay: &AccessRelay) -> Option<(RelayId, Self)> {
        let id = u16::try_from(relay.relay).ok().filter(|&id| id != 0)?;
        let state = relay.state.as_ref()?;
        let read = |texts: &[String]| -> Vec<SocketAddr> {
            let addresses = texts.iter().take(ACCESS_ADDRESSES_MAX);
            addresses.filter_map(|text| text.parse().ok()).collect()
        };
        let side = Self {
            name: String::new(),
            region: relay.region.clone(),
            provider: relay.provider.clone(),
            location: relay.location.filter(Location::is_valid),
            weight: state.weight.min(ACCESS_WEIGHT_MAX),
            load: Load {
                attachments: state.attachments,
                attachments_max: state.attachments_max,
                busy_permille: state.busy_permille,
            },
            is_draining: state.draining,
            addresses: read(&state.addresses),
            tcp_addresses: read(&state.tcp_addresses),
        };
        (!side.addresses.is_empty()).then_some((RelayId(id), side))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Where that is, if a file of locations knows.
    pub location: Option<Location>,
    /// Tells it apart from others of its address; the same for as long as its answer should be.
    pub key: u64,
    /// The relays at which its tenant may attach; `None`: at all.
    pub cell: Option<&'a Cell>,
    /// Round trip that the relay which answers has measured itself.
    pub measured: Option<(RelayId, Micros)>,
}

/// The relays at which the edges of a tenant may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Those of its cell.
    pub own: BTreeSet<RelayId>,
    /// Those of the cell's partners, where these stand in for it now. They come after all of the cell.
    pub partners: BTreeSet<RelayId>,
}

impl Cell {
    fn allows(&self, relay: RelayId) -> bool {
        self.own.contains(&relay) || self.is_partner(relay)
    }

    fn is_partner(&self, relay: RelayId) -> bool {
        self.partners.contains(&relay) && !self.own.contains(&relay)
    }
}

impl Client<'_> {
    /// A key made of whatever a client is known by.
    pub fn key_of(bytes: &[u8]) -> u64 {
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

/// The access relays of a mesh, and which networks they are near.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    relays: BTreeMap<RelayId, AccessSide>,
    networks: BTreeMap<NetworkPrefix, Vec<(RelayId, Micros)>>,
}

impl Mesh {
    /// Reads pushed items. What makes no sense is left out.
    pub fn read<'a>(
        relays: impl Iterator<Item = &'a AccessRelay>,
        prefixes: impl Iterator<Item = &'a AccessPrefixes>,
        name: impl Fn(RelayId) -> Option<String>,
    ) -> Self {
        let named = |(id, side): (RelayId, AccessSide)| {
            let name = name(id).unwrap_or_else(|| id.to_string());
            (id, AccessSide { name, ..side })
        };
        let relays = relays.filter_map(AccessSide::read).map(named).collect();
        let mut networks = BTreeMap::new();
        for told in prefixes.flat_map(|item| item.prefixes.iter().take(BUCKET_PREFIXES_MAX)) {
            let Some(prefix) = NetworkPrefix::from_bytes(&told.prefix) else { continue };
            let relay = |id: &u32| u16::try_from(*id).ok().map(RelayId);
            let rtts = told.rtts_us.iter().map(|&rtt| Micros(rtt));
            let pairs = told.relays.iter().zip(rtts).take(PREFIX_RELAYS_MAX);
            let pairs = pairs.filter_map(|(id, rtt)| Some((relay(id)?, rtt)));
            networks.insert(prefix, pairs.collect());
        }
        Self { relays, networks }
    }

    /// Puts a relay, in place of what was pushed of it.
    pub fn put(&mut self, relay: RelayId, side: AccessSide) {
        self.relays.insert(relay, side);
    }

    /// The relays.
    pub fn relays(&self) -> impl Iterator<Item = (RelayId, &AccessSide)> {
        self.relays.iter().map(|(&id, side)| (id, side))
    }

    /// What a client is answered: relays of its cell and then of those partners that stand in for it, the first first, at
    /// most `limit` and [`LIMIT_MAX`].
    pub fn answer(&self, client: &Client<'_>, limit: usize) -> Answer {
        let measured = self.measured(client);
        let allowed = |id: &RelayId| client.cell.is_none_or(|cell| cell.allows(*id));
        let is_partner = |id: RelayId| client.cell.is_some_and(|cell| cell.is_partner(id));
        let candidates = self.relays.iter().filter(|(id, _)| allowed(id));
        let candidates: Vec<Candidate> = candidates
            .map(|(&relay, side)| Candidate {
                relay,
                distance: self.distance(relay, side, client, &measured),
                weight: side.weight,
                fill_permille: side.load.fill_permille(),
                is_draining: side.is_draining,
            })
            .collect();
        let mut ordered = order(&candidates, client.key);
        // Stable: those of either stay in their order.
        ordered.sort_by_key(|(candidate, _)| is_partner(candidate.relay));
        let relays =
            ordered.into_iter().take(limit.min(LIMIT_MAX)).filter_map(|(candidate, standing)| {
                let side = self.relays.get(&candidate.relay)?;
                let named =
                    |id: RelayId| self.relays.get(&id).map_or("", |side| side.name.as_str());
                Some(Nearest {
                    relay: candidate.relay.0,
                    name: side.name.clone(),
                    addresses: side.addresses.clone(),
                    tcp_addresses: side.tcp_addresses.clone(),
                    region: side.region.clone(),
                    provider: side.provider.clone(),
                    rtt_ms: candidate.distance.rtt().map(|rtt| f64::from(rtt.0) / 1e3),
                    state: standing.name().to_owned(),
                    partner: is_partner(candidate.relay),
                    why: why(&candidate, standing, is_partner(candidate.relay), named),
                })
            });
        Answer { client: client.address, relays: relays.collect() }
    }

    /// What is measured of a client's network, by relay.
    fn measured(&self, client: &Client<'_>) -> BTreeMap<RelayId, Micros> {
        let network = client.address.map(NetworkPrefix::of);
        let told = network.and_then(|network| self.networks.get(&network));
        let mut measured: BTreeMap<RelayId, Micros> = told.into_iter().flatten().copied().collect();
        measured.extend(client.measured);
        measured
    }

    fn distance(
        &self,
        relay: RelayId,
        side: &AccessSide,
        client: &Client<'_>,
        measured: &BTreeMap<RelayId, Micros>,
    ) -> Distance {
        if let Some(&rtt) = measured.get(&relay) {
            return Distance::of(rtt, Basis::Measured);
        }
        let Some(place) = side.location else { return Distance::Unknown };
        let located = client.location.map_or(Distance::Unknown, |location| {
            let km = kilometres(location, place);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "20,016 at most"
            )]
            let basis = Basis::Located(km.round() as u32);
            Distance::of(rtt_over(km), basis)
        });
        let via = |(&by, rtt): (&RelayId, &Micros)| {
            let over = kilometres(self.relays.get(&by)?.location?, place);
            let rtt = Micros(rtt.0.saturating_add(rtt_over(over).0));
            Some(Distance::of(rtt, Basis::Via(by)))
        };
        measured.iter().filter_map(via).fold(located, Distance::nearer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::control::{AccessState, PrefixDistances};

    fn pushed(relay: u32, place: Option<(f64, f64)>) -> AccessRelay {
        let state = AccessState {
            addresses: vec![format!("203.0.113.{relay}:4434"), "no address".into()],
            tcp_addresses: vec!["no address".into(), format!("203.0.113.{relay}:443")],
            weight: 100,
            attachments: 1,
            attachments_max: 100,
            ..AccessState::default()
        };
        AccessRelay {
            relay,
            state: Some(state),
            region: "eu".into(),
            provider: "p".into(),
            location: place.and_then(|(lat, lon)| Location::from_degrees(lat, lon)),
        }
    }

    fn mesh() -> Mesh {
        let relays = [
            pushed(1, Some((50.1, 8.7))),
            pushed(2, Some((35.7, 139.7))),
            pushed(3, None),
            pushed(4, Some((48.9, 2.4))),
        ];
        let told = PrefixDistances {
            prefix: vec![192, 0, 2],
            relays: vec![2, 70_000],
            rtts_us: vec![9_000, 1],
        };
        let prefixes = [AccessPrefixes { bucket: 0, prefixes: vec![told] }];
        Mesh::read(relays.iter(), prefixes.iter(), |id| Some(format!("relay-{}", id.0)))
    }

    fn first(answer: &Answer) -> (u16, &str) {
        (answer.relays[0].relay, &answer.relays[0].why[0].reason)
    }

    #[test]
    fn the_nearest_is_what_was_measured_for_the_network() {
        let client = Client { address: "192.0.2.9".parse().ok(), ..Client::default() };
        let answer = mesh().answer(&client, 8);
        assert_eq!(first(&answer), (2, "measured"));
        assert_eq!(answer.relays[0].rtt_ms, Some(9.0));
        assert_eq!(answer.relays[0].name, "relay-2");
        assert_eq!(answer.relays[0].addresses, ["203.0.113.2:4434".parse().unwrap()]);
        assert_eq!(answer.relays[0].tcp_addresses, ["203.0.113.2:443".parse().unwrap()]);
        assert!(answer.relays[0].why[0].text.contains("9.0 ms"), "{answer:?}");
        assert_eq!(answer.relays.len(), 4);
        let unknown = answer.relays.iter().find(|it| it.relay == 3).unwrap();
        assert_eq!((unknown.rtt_ms, &*unknown.why[0].reason), (None, "unknown"));
        let via = answer.relays.iter().find(|it| it.relay == 4).unwrap();
        assert_eq!(via.why[0].reason, "via");
    }

    #[test]
    fn a_place_counts_where_nothing_is_measured_and_what_the_relay_measured_itself_before_both() {
        let paris = Location::from_degrees(48.85, 2.35);
        let client = Client { location: paris, ..Client::default() };
        let answer = mesh().answer(&client, 8);
        assert_eq!(first(&answer), (4, "located"));

        let measured = Some((RelayId(3), Micros(1_000)));
        let answer = mesh().answer(&Client { measured, ..client }, 1);
        assert_eq!(first(&answer), (3, "measured"));
        assert_eq!(answer.relays.len(), 1);
    }

    fn answered(cell: &Cell) -> Vec<(u16, bool)> {
        let client = Client { cell: Some(cell), ..Client::default() };
        let answer = mesh().answer(&client, 8);
        let flags = answer.relays.iter().map(|it| (it.relay, it.partner));
        let said = |it: &Nearest| it.why.iter().any(|why| why.reason == "partner");
        assert!(answer.relays.iter().all(|it| said(it) == it.partner), "{answer:?}");
        flags.collect()
    }

    #[test]
    fn only_relays_of_the_cell_are_answered() {
        let own = BTreeSet::from([RelayId(1), RelayId(3), RelayId(9)]);
        let mut relays = answered(&Cell { own, ..Cell::default() });
        relays.sort_unstable();
        assert_eq!(relays, [(1, false), (3, false)]);
        assert_eq!(answered(&Cell::default()), []);
    }

    #[test]
    fn a_partner_that_stands_in_comes_after_all_of_the_cell_and_is_flagged() {
        // In the order of everybody 3 comes last: nothing is known of its distance.
        let own = BTreeSet::from([RelayId(3)]);
        let partners = BTreeSet::from([RelayId(1), RelayId(3)]);

        assert_eq!(answered(&Cell { own, partners }), [(3, false), (1, true)]);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let relays = [
            pushed(0, None),
            pushed(65_536, None),
            AccessRelay { state: None, ..pushed(5, None) },
            AccessRelay { state: Some(AccessState::default()), ..pushed(6, None) },
        ];
        let bad = PrefixDistances { prefix: vec![1, 2], ..PrefixDistances::default() };
        let prefixes = [AccessPrefixes { bucket: 999, prefixes: vec![bad] }];
        let mesh = Mesh::read(relays.iter(), prefixes.iter(), |_| None);
        assert_eq!(mesh, Mesh::default());
        assert_eq!(mesh.answer(&Client::default(), 5).relays, []);
    }

    #[test]
    fn a_relay_is_as_full_as_what_it_has_least_of() {
        let load = |attachments, attachments_max, busy_permille| {
            Load { attachments, attachments_max, busy_permille }.fill_permille()
        };
        assert_eq!(load(10, 40, 0), 250);
        assert_eq!(load(10, 40, 900), 900);
        assert_eq!(load(0, 0, 0), 1_000);
        assert_eq!(load(u32::MAX, 1, 0), u32::MAX);
    }
}
