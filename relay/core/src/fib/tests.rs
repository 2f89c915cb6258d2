use super::*;
use crate::pushed::Pushed;
use overway_wire::control::{
    Endpoint, Item, Node, Peer, Place, Policy, Revoked, Route, RoutePath, Service, TENANT_KEYS_MAX,
    TENANT_REVOKED_KEYS_MAX, TENANT_REVOKED_TOKENS_MAX, TenantService, Update,
};
use overway_wire::{LinkIndex, PathElement};
use proptest::prelude::*;

pub(super) fn steps(relays: &[u16]) -> Vec<u8> {
    let element = |&relay| PathElement::new(RelayId(relay), LinkIndex::default());
    let path = Path::new(&relays.iter().map(element).collect::<Vec<_>>()).unwrap();
    let mut bytes = Vec::new();
    path.encode(&mut bytes);
    bytes
}

pub(super) fn fib(put: Vec<Item>) -> Fib {
    let mut pushed = Pushed::default();
    pushed.apply(Update { revision: 1, put, ..Update::default() }).unwrap();
    Fib::new(&pushed, RelayId(1))
}

pub(super) fn route(destination: u32, paths: Vec<(Vec<u8>, u32)>) -> Item {
    let path = |(steps, delay_us)| RoutePath { steps, delay_us, ..RoutePath::default() };
    Route { destination, paths: paths.into_iter().map(path).collect(), ..Route::default() }.into()
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
    let expected = FibPath::new(path, Duration::from_millis(7), 0);
    assert_eq!(fib.paths(RelayId(3), Class::Realtime), [expected]);
    assert!(fib.paths(RelayId(3), Class::Bulk).is_empty());
}

fn policy_route(policy: u32, paths: &[&[u16]]) -> Item {
    let path = |relays: &&[u16]| RoutePath { steps: steps(relays), ..RoutePath::default() };
    let paths = paths.iter().map(path).collect();
    Route { destination: 3, paths, policy, ..Route::default() }.into()
}

#[test]
fn a_policys_paths_are_its_own_and_those_that_it_forbids_are_left_out() {
    let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 3] };
    let fib = fib(vec![
        eu.into(),
        policy_route(0, &[&[4, 3]]),
        policy_route(9, &[&[4, 3], &[2, 3]]),
        policy_route(8, &[&[2, 3]]),
    ]);

    let first = |policy| {
        let paths = fib.route(RelayId(3), Class::Realtime, PolicyId(policy));
        paths.iter().map(|path| path.path.first().relay.0).collect::<Vec<_>>()
    };
    assert_eq!((first(0), first(9), first(8)), (vec![4], vec![2], vec![]));
    assert_eq!((fib.policy_named("eu"), fib.policy_named("us")), (Some(PolicyId(9)), None));
    assert!(fib.knows(PolicyId(0)) && fib.knows(PolicyId(9)) && !fib.knows(PolicyId(8)));
}

fn tenant(number: u32, route_policy: u32) -> Tenant {
    Tenant { number, name: "im".into(), route_policy, ..Tenant::default() }
}

#[test]
fn a_tenants_frames_take_the_routes_of_its_policy() {
    let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 3] };
    let fib = fib(vec![
        eu.into(),
        policy_route(0, &[&[4, 3]]),
        policy_route(9, &[&[4, 3], &[2, 3]]),
        policy_route(21, &[&[5, 3]]),
        Service { name: "web".into(), relays: vec![3, 4] }.into(),
        tenant(20, 9).into(),
        tenant(21, 0).into(),
        tenant(22, 8).into(),
        tenant(9, 0).into(),
    ]);

    let first = |number| {
        let paths = fib.route(RelayId(3), Class::Realtime, PolicyId(number));
        paths.iter().map(|path| path.path.first().relay.0).collect::<Vec<_>>()
    };
    assert_eq!((first(20), first(21)), (vec![2], vec![4]));
    assert_eq!(first(22), [], "its policy is not known: not the routes of everybody");
    assert_eq!(first(9), [2], "a tenant takes no policy's number from it");
    let detours = |number| {
        let ways = fib.detours(RelayId(3), Class::Bulk, PolicyId(number));
        ways.map(|path| path.path.first().relay.0).collect::<Vec<_>>()
    };
    assert_eq!((detours(20), detours(21), detours(22)), (vec![2], vec![4], vec![]));
    let web = |number| fib.service("web", Class::Bulk, PolicyId(number), RelayId(1));
    assert_eq!(web(20), [RelayId(3)]);
    assert_eq!((web(21).len(), web(22).len()), (2, 0));
    let known = [20, 21, 22, 23].map(|number| fib.knows(PolicyId(number)));
    assert_eq!(known, [true, true, false, false]);
    assert_eq!((fib.policy_named("im"), fib.tenant_named("eu")), (None, None));
    assert!(fib.tenant_named("im").is_some_and(|number| fib.tenants.contains_key(&number)));
}

#[test]
fn a_tenant_with_too_much_of_something_is_none() {
    let texts = |count: usize| (0..count).map(|n| n.to_string()).collect();
    let key = |kid| overway_wire::control::TenantKey { kid, key: vec![0; 32] };
    let keys = |count| Vec::from_iter(Vec::<String>::into_iter(texts(count)).map(key));
    let full = Tenant {
        keys: keys(TENANT_KEYS_MAX),
        revoked_keys: texts(TENANT_REVOKED_KEYS_MAX),
        revoked_tokens: texts(TENANT_REVOKED_TOKENS_MAX),
        ..tenant(20, 0)
    };
    let more = [
        Tenant { keys: keys(TENANT_KEYS_MAX + 1), ..full.clone() },
        Tenant { revoked_keys: texts(TENANT_REVOKED_KEYS_MAX + 1), ..full.clone() },
        Tenant { revoked_tokens: texts(TENANT_REVOKED_TOKENS_MAX + 1), ..full.clone() },
        Tenant { number: 0, ..full.clone() },
        Tenant { number: 65_556, ..full.clone() },
        Tenant { route_policy: 65_536, ..full.clone() },
    ];

    for more in more {
        assert!(fib(vec![more.into()]).tenants.is_empty());
    }
    let fib = fib(vec![full.clone().into()]);
    assert_eq!(*fib.tenants[&PolicyId(20)].pushed, full);
}

#[test]
fn a_detour_takes_the_policys_own_paths_first_and_then_any_that_it_allows() {
    let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 3, 5] };
    let fib =
        fib(vec![eu.into(), policy_route(0, &[&[4, 3], &[5, 3]]), policy_route(9, &[&[2, 3]])]);

    let first = |policy| {
        let ways = fib.detours(RelayId(3), Class::Bulk, PolicyId(policy));
        ways.map(|path| path.path.first().relay.0).collect::<Vec<_>>()
    };
    assert_eq!((first(0), first(9), first(8)), (vec![4, 5], vec![2, 5], vec![]));
}

/// Few ids, so that items meet; some make no sense.
fn any_item() -> impl Strategy<Value = Item> {
    let relay = 0_u32..6;
    let path = proptest::collection::vec(2_u16..6, 0..4);
    let route = (relay.clone(), 0_u32..4, 0_u32..3, proptest::collection::vec(path, 0..3));
    prop_oneof![
        relay.clone().prop_map(|relay| Node { relay, name: "a".into(), ..Node::default() }.into()),
        (relay.clone(), 0_u32..18).prop_map(|(neighbour, index)| {
            let remote_address = "127.0.0.1:1".into();
            Peer { neighbour, index, remote_address, ..Peer::default() }.into()
        }),
        route.prop_map(|(destination, class, policy, paths)| {
            let steps = |relays: Vec<u16>| {
                relays.iter().flat_map(|relay| [0, relay.to_be_bytes()[1], 0]).collect()
            };
            let path = |relays| RoutePath { steps: steps(relays), ..RoutePath::default() };
            let paths = paths.into_iter().map(path).collect();
            Route { destination, class, policy, paths }.into()
        }),
        (0_u32..3, proptest::collection::vec(relay.clone(), 0..6))
            .prop_map(|(policy, relays)| Policy { policy, name: "p".into(), relays }.into()),
        proptest::collection::vec(relay.clone(), 0..3).prop_map(|relays| Service {
            name: "web".into(),
            relays
        }
        .into()),
        relay.prop_map(|relay| Revoked { relay }.into()),
        (0_u32..3, 0_u32..3).prop_map(|(number, policy)| tenant(number, policy).into()),
        (0_u32..3, "[ab]?", 0_u32..4).prop_map(|(tenant, name, relay)| {
            let first = Some(Place { relay, attachment: 7 });
            let endpoint = Endpoint { edge: vec![7; 32], first, ..Endpoint::default() };
            TenantService { tenant, name, endpoints: vec![endpoint] }.into()
        }),
    ]
}

proptest! {
    #[test]
    fn an_updated_table_is_the_one_that_is_made_anew(
        updates in proptest::collection::vec(
            (proptest::collection::vec(any_item(), 0..8), proptest::collection::vec(any_item(), 0..4)),
            1..8,
        ),
    ) {
        let (mut pushed, mut fib) = (Pushed::default(), Fib::default());
        for (revision, (put, remove)) in (1..).zip(updates) {
            let remove = remove.iter().filter_map(Item::key).collect();
            let (base, epoch_sequence) = (revision - 1, revision);
            let update = Update { epoch_term: 1, epoch_sequence, base, revision, put, remove };
            let changed = pushed.apply(update).unwrap();
            fib = fib.updated(&pushed, &changed, RelayId(1));
            prop_assert_eq!(&fib, &Fib::new(&pushed, RelayId(1)));
        }
    }
}

#[test]
fn the_nearest_relay_of_a_service_comes_first_and_one_without_a_path_last() {
    let service = Service { name: "web".into(), relays: vec![2, 3, 4, 70_000] };
    let eu = Policy { policy: 9, name: "eu".into(), relays: vec![1, 2, 4] };
    let fib = fib(vec![
        eu.into(),
        route(2, vec![(steps(&[2]), 9_000)]),
        route(3, vec![(steps(&[3]), 5_000)]),
        service.into(),
    ]);

    let relays = fib.service("web", Class::Realtime, PolicyId(0), RelayId(1));

    assert_eq!(relays, [RelayId(3), RelayId(2), RelayId(4)]);
    let of_policy = |policy| fib.service("web", Class::Realtime, PolicyId(policy), RelayId(1));
    assert_eq!((of_policy(9), of_policy(8)), (vec![RelayId(2), RelayId(4)], vec![]));
    assert!(fib.service("other", Class::Realtime, PolicyId(0), RelayId(1)).is_empty());
}
