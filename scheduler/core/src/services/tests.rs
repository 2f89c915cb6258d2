use super::*;
use proptest::prelude::*;

const RELAYS: usize = 256;

fn relay(id: u16) -> RelayId {
    RelayId(id)
}

fn place(relay: u16, attachment: u32) -> Place {
    Place { relay: relay.into(), attachment }
}

/// An edge's offer of the tenant's service "chat", at an attachment of the same number as the edge.
fn offer(edge: u8, other: Option<Place>) -> Offer {
    Offer {
        tenant: 20,
        service: "chat".into(),
        edge: vec![edge; EDGE_ID_BYTES],
        attachment: edge.into(),
        other,
        second: false,
        priority: 1,
        weight: 1,
        healthy: true,
    }
}

fn say(services: &mut Services, id: u16, offers: &[Offer]) -> u64 {
    services.handle_offers(relay(id), &Offers { offers: offers.to_vec() }, RELAYS)
}

/// Services of a mesh of relays 1 to 5 that are there and have said nothing.
fn mesh() -> Services {
    let mut services = Services::default();
    (1..=5).for_each(|id| services.handle_there(relay(id), true));
    services
}

/// The addresses of each endpoint of a service: relay and attachment.
type Listed = Vec<(u8, Vec<(u32, u32)>)>;

fn listed(services: &mut Services, name: &str) -> Listed {
    services.remake();
    let bodies = services.items.values().filter_map(|item| item.body.as_ref());
    let mut all = bodies.filter_map(|body| match body {
        Body::TenantService(service) if service.name == name => Some(service),
        _ => None,
    });
    let Some(service) = all.next() else { return Vec::new() };
    let address = |place: Place| (place.relay, place.attachment);
    let endpoint = |endpoint: &Endpoint| {
        let places = [endpoint.first, endpoint.second].into_iter().flatten();
        (endpoint.edge[0], places.map(address).collect())
    };
    service.endpoints.iter().map(endpoint).collect()
}

#[test]
fn two_relays_that_tell_of_one_edge_make_one_endpoint() {
    let mut services = mesh();
    let at_two = Offer { second: true, ..offer(7, Some(place(1, 7))) };
    say(&mut services, 2, &[at_two, offer(8, None)]);
    say(&mut services, 1, &[offer(7, Some(place(2, 7)))]);

    let both = vec![(7, vec![(1, 7), (2, 7)]), (8, vec![(2, 8)])];
    assert_eq!(listed(&mut services, "chat"), both);
    assert!(!services.is_dirty());
    say(&mut services, 2, &[Offer { second: true, ..offer(7, None) }, offer(8, None)]);
    assert_eq!(listed(&mut services, "chat"), both, "1 still tells of it");
}

#[test]
fn an_address_is_taken_from_the_other_relay_until_its_own_has_spoken() {
    let mut services = mesh();
    say(&mut services, 1, &[offer(7, Some(place(2, 9)))]);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7), (2, 9)])]);

    say(&mut services, 2, &[]);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7)])]);

    services.handle_session(relay(2));
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7), (2, 9)])]);
    services.handle_report(relay(2));
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7)])], "it has no offers to tell of");
}

#[test]
fn an_edge_that_would_rather_be_reached_elsewhere_is_listed_there_first() {
    let mut services = mesh();
    let second = Offer { second: true, ..offer(7, Some(place(3, 9))) };
    say(&mut services, 1, &[second]);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(3, 9), (1, 7)])]);

    say(&mut services, 3, &[]);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7)])]);
}

#[test]
fn a_relay_that_is_gone_takes_its_attachments_along_and_the_other_stays() {
    let mut services = mesh();
    say(&mut services, 1, &[offer(7, Some(place(2, 7)))]);
    say(&mut services, 2, &[offer(7, Some(place(1, 7))), offer(8, None)]);
    listed(&mut services, "chat");

    services.handle_there(relay(2), false);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7)])]);
    services.handle_there(relay(2), true);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7), (2, 7)]), (8, vec![(2, 8)])]);
    services.forget(relay(2));
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7)])]);
    services.forget(relay(1));
    assert_eq!(listed(&mut services, "chat"), []);
    assert!(services.items.is_empty() && services.offers.is_empty() && services.named.is_empty());
}

#[test]
fn only_what_changed_is_made_anew() {
    let mut services = mesh();
    let other = Offer { service: "files".into(), ..offer(7, None) };
    say(&mut services, 1, &[offer(7, None), other.clone()]);
    assert_eq!(services.remake().keys.len(), 2);

    say(&mut services, 1, &[offer(7, None), other.clone()]);
    assert!(!services.is_dirty(), "the same once more");
    say(&mut services, 1, &[Offer { healthy: false, ..offer(7, None) }, other]);
    let change = services.remake();
    let [(_, key)] = change.keys[..] else { panic!("{change:?}") };
    let removed = key.to_wire(|_| (PolicyId(20), "chat".into()));
    assert_eq!((removed.relay, &*removed.name), (20, "chat"));
}

#[test]
fn offers_that_make_no_sense_and_those_beyond_the_bound_are_counted() {
    let mut services = mesh();
    let bad = [
        Offer { tenant: 0, ..offer(7, None) },
        Offer { tenant: 65_536, ..offer(7, None) },
        Offer { service: String::new(), ..offer(7, None) },
        Offer { service: "x".repeat(65), ..offer(7, None) },
        Offer { edge: vec![7; 31], ..offer(7, None) },
        Offer { attachment: 0, ..offer(7, None) },
        Offer { attachment: 1, ..offer(7, None) },
        Offer { attachment: 65_536, ..offer(7, None) },
    ];
    assert_eq!(say(&mut services, 1, &bad), 8);
    assert_eq!(listed(&mut services, "chat"), []);

    let nonsense = Some(Place { relay: 70_000, attachment: 2 });
    assert_eq!(say(&mut services, 1, &[offer(7, nonsense), offer(8, Some(place(1, 3)))]), 0);
    assert_eq!(listed(&mut services, "chat"), [(7, vec![(1, 7)]), (8, vec![(1, 8)])]);
    let many = vec![offer(7, None); OFFERS_MAX + 3];
    assert_eq!(say(&mut services, 1, &many), 3);
}

#[test]
fn a_service_has_so_many_endpoints_the_healthy_and_the_lower_priorities_first() {
    let mut services = mesh();
    let most = u8::try_from(SERVICE_ENDPOINTS_MAX).unwrap();
    let all = (0..most + 20).map(|edge| {
        let odd =
            Offer { healthy: edge >= 10, priority: u32::from(edge < 20), ..offer(edge, None) };
        Offer { attachment: 5, ..odd }
    });
    say(&mut services, 1, &all.collect::<Vec<_>>());

    let change = services.remake();

    assert_eq!(change.endpoints_refused, 20);
    let edges: Vec<u8> = listed(&mut services, "chat").iter().map(|(edge, _)| *edge).collect();
    assert_eq!(edges, (20..most + 20).collect::<Vec<_>>());
}

#[test]
fn a_tenant_has_so_many_services_and_others_do_not_suffer() {
    let mut services = mesh();
    let named = |number: usize| Offer { service: format!("s{number:04}"), ..offer(7, None) };
    let mut all: Vec<Offer> = (0..TENANT_SERVICES_MAX + 2).map(named).collect();
    all.push(Offer { tenant: 21, ..offer(8, None) });
    say(&mut services, 1, &all);

    assert_eq!(services.remake().services_refused, 2);
    assert_eq!(services.items.len(), TENANT_SERVICES_MAX + 1);
    all.remove(0);
    say(&mut services, 1, &all);
    assert_eq!(services.remake().services_refused, 1);
    assert_eq!(listed(&mut services, "s0256"), [(7, vec![(1, 7)])], "it has room now");
}

/// What relays say, one after the other: which, and of which edges with which other relay.
type Word = (u16, Vec<(u8, Option<u16>, bool)>);

fn hear(services: &mut Services, (id, edges): &Word) {
    let offers = edges.iter().map(|&(edge, other, second)| {
        let other = other.filter(|other| other != id).map(|other| place(other, edge.into()));
        Offer { second, ..offer(edge, other) }
    });
    say(services, *id, &offers.collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn what_comes_out_depends_on_the_last_words_and_on_no_order(
        words in proptest::collection::vec(
            (1_u16..=5, proptest::collection::vec(
                (2_u8..8, proptest::option::of(1_u16..=5), any::<bool>()), 0..5)),
            1..12,
        ),
        gone in proptest::option::of(1_u16..=5),
        looks in any::<u16>(),
    ) {
        let (mut one, mut other) = (mesh(), mesh());
        for (at, word) in words.iter().enumerate() {
            hear(&mut one, word);
            if looks >> (at % 16) & 1 == 1 {
                one.remake();
            }
        }
        if let Some(gone) = gone {
            one.handle_there(relay(gone), false);
            other.handle_there(relay(gone), false);
        }
        let last: BTreeMap<u16, &Word> = words.iter().map(|word| (word.0, word)).collect();
        last.values().rev().for_each(|word| hear(&mut other, word));

        let listed = listed(&mut one, "chat");

        prop_assert_eq!(&listed, &super::tests::listed(&mut other, "chat"));
        for (_, places) in &listed {
            prop_assert!(matches!(places.len(), 1 | 2));
            prop_assert!(places.iter().all(|(relay, _)| gone.is_none_or(|id| *relay != id.into())));
        }
    }
}

#[test]
fn a_service_that_no_healthy_edge_offers_is_counted() {
    let mut services = mesh();
    say(&mut services, 1, &[offer(9, None)]);
    say(&mut services, 2, &[Offer { service: "mail".into(), healthy: false, ..offer(8, None) }]);
    services.remake();

    assert_eq!(services.count(), (2, 1));
}
