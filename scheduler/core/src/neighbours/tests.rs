use super::hash::mix;
use super::*;

const REGIONS: u16 = 12;
const PROVIDERS: u16 = 5;

/// Relays on a square; those of a region lie in the same part of it.
struct Fixture {
    neighbours: Neighbours,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn region(id: RelayId) -> u16 {
    id.0 % REGIONS
}

fn place(id: RelayId) -> (i64, i64) {
    let part = i64::from(region(id));
    let within = mix(u64::from(id.0));
    let [x, y] = [within & 0xfff, within >> 12 & 0xfff].map(|us| i64::try_from(us).unwrap());
    (part % 4 * 30_000 + x, part / 4 * 30_000 + y)
}

fn distance(a: RelayId, b: RelayId) -> Micros {
    let ((ax, ay), (bx, by)) = (place(a), place(b));
    Micros(u32::try_from((ax - bx).abs() + (ay - by).abs()).unwrap())
}

impl Fixture {
    fn of(relays: u16, full_max: usize) -> Self {
        Self::with(NeighbourConfig::default(), relays, full_max)
    }

    fn with(config: NeighbourConfig, relays: u16, full_max: usize) -> Self {
        let now = start();
        let neighbours = Neighbours::new(config, full_max);
        let mut fixture = Self { neighbours, now };
        (1..=relays).for_each(|id| fixture.insert(RelayId(id)));
        fixture
    }

    fn insert(&mut self, id: RelayId) {
        let (region, provider) = (region(id).to_string(), (id.0 / 7 % PROVIDERS).to_string());
        self.neighbours.insert(id, &region, &provider, self.now);
    }

    /// Lets the first reviews pass, only neighbours being measured.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.review();
        }
    }

    fn review(&mut self) {
        self.now += self.neighbours.config.review_first;
        let sites: BTreeMap<RelayId, Vec<RelayId>> =
            self.neighbours.sites.keys().map(|&id| (id, self.neighbours.of(id))).collect();
        let measured =
            |a: RelayId, b: RelayId| sites[&a].binary_search(&b).is_ok().then(|| distance(a, b));
        self.neighbours.review(self.now, measured);
    }

    fn ids(&self) -> Vec<RelayId> {
        self.neighbours.sites.keys().copied().collect()
    }

    /// The share of ordered pairs that are joined over at most two others.
    fn reached(&self) -> f64 {
        let ids = self.ids();
        let mut pairs = 0;
        for &id in &ids {
            let mut reached: BTreeSet<RelayId> = [id].into();
            for _ in 0..3 {
                let next: Vec<_> = reached.iter().flat_map(|&at| self.neighbours.of(at)).collect();
                reached.extend(next);
            }
            pairs += reached.len() - 1;
        }
        pairs as f64 / (ids.len() * (ids.len() - 1)) as f64
    }

    /// The intermediates of every path between two relays, at most two.
    fn ways(&self, from: RelayId, to: RelayId) -> Vec<Vec<RelayId>> {
        let mut ways = Vec::new();
        if self.neighbours.are(from, to) {
            ways.push(vec![]);
        }
        for first in self.neighbours.of(from).into_iter().filter(|&first| first != to) {
            if self.neighbours.are(first, to) {
                ways.push(vec![first]);
            }
            let lasts = self.neighbours.of(first).into_iter();
            let lasts = lasts.filter(|&last| last != from && self.neighbours.are(last, to));
            ways.extend(lasts.map(|last| vec![first, last]));
        }
        ways
    }

    /// Whether there are so many paths between two relays that share none.
    fn has_disjoint(&self, from: RelayId, to: RelayId, count: usize) -> bool {
        disjoint(&self.ways(from, to), &BTreeSet::new(), count)
    }

    /// Pairs that have fewer such paths.
    fn poor(&self, count: usize) -> Vec<(RelayId, RelayId)> {
        let ids = self.ids();
        let pairs = ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b)));
        pairs.filter(|&(a, b)| a < b && !self.has_disjoint(a, b, count)).collect()
    }

    fn assert_counted(&self) {
        for (id, site) in &self.neighbours.sites {
            let chose = self.neighbours.sites.values().filter(|other| other.hubs.contains(id));
            assert_eq!(site.hub_links, site.hubs.len() + chose.count(), "{id}");
            assert!(site.hubs.iter().all(|&hub| self.neighbours.are(*id, hub)));
        }
    }
}

/// Whether so many of the paths, tried in order, share no relay with one another and none is used.
fn disjoint(ways: &[Vec<RelayId>], used: &BTreeSet<RelayId>, count: usize) -> bool {
    if count == 0 {
        return true;
    }
    (0..ways.len()).any(|at| {
        let way = &ways[at];
        way.iter().all(|relay| !used.contains(relay)) && {
            let used = used.iter().chain(way).copied().collect();
            disjoint(&ways[at + 1..], &used, count - 1)
        }
    })
}

/// Of the simulator's mesh of forty.
fn few() -> NeighbourConfig {
    NeighbourConfig { long: 6, near: 4, wide: 2, trials: 1, most: 26, ..NeighbourConfig::default() }
}

#[test]
fn any_two_relays_have_three_paths_without_a_relay_in_common_before_anything_is_measured() {
    let without = Fixture::with(NeighbourConfig { hubs: 0, ..few() }, 40, 24);
    assert!(without.poor(2).contains(&(RelayId(34), RelayId(38))), "13 or 35 would part them");

    assert_eq!(Fixture::with(few(), 40, 24).poor(3), []);
    let alone = NeighbourConfig { long: 0, near: 0, wide: 0, trials: 0, ..few() };
    for relays in [5, 26, 41, 160] {
        let fixture = Fixture::with(alone, relays, 4);
        assert_eq!(fixture.poor(3), [], "{relays} relays");
    }
}

#[test]
fn relays_that_come_and_go_leave_three_paths_between_all_others() {
    let alone = NeighbourConfig { long: 1, near: 0, wide: 0, trials: 0, ..few() };
    let mut fixture = Fixture::with(alone, 60, 24);
    for step in 0..120_u64 {
        let id = RelayId(u16::try_from(mix(step) % 90 + 1).unwrap());
        if fixture.neighbours.sites.contains_key(&id) {
            fixture.neighbours.remove(id);
        } else {
            fixture.insert(id);
        }
        fixture.assert_counted();
        if step % 10 == 0 {
            assert_eq!(fixture.poor(3), [], "after {step} changes");
        }
    }
}

#[test]
fn a_relay_that_comes_and_goes_makes_and_unmakes_no_hub_each_time() {
    let mut fixture = Fixture::of(600, 100);
    fixture.settle();
    fixture.insert(RelayId(901));
    fixture.neighbours.take_change();
    let mut changed = 0;
    for _ in 0..10 {
        fixture.neighbours.remove(RelayId(901));
        fixture.insert(RelayId(901));
        changed += fixture.neighbours.take_change().pairs.len();
    }
    assert!(changed < 10 * 60, "{changed}");
}

#[test]
fn a_relay_that_carries_nothing_is_no_hub() {
    let alone = NeighbourConfig { long: 1, near: 0, wide: 0, trials: 0, ..few() };
    let mut fixture = Fixture::with(alone, 60, 24);
    let hubs: Vec<RelayId> =
        fixture.ids().into_iter().filter(|&id| fixture.neighbours.count(id) > 10).collect();
    for &id in &hubs[..4] {
        fixture.neighbours.set_transit(id, false);
        fixture.assert_counted();
        assert!(fixture.neighbours.site(id).hub_links <= 3, "{id}");
    }
    for &id in &hubs[..4] {
        fixture.neighbours.set_transit(id, true);
    }
    assert_eq!(fixture.poor(3), []);
}

#[test]
fn a_hub_has_room_for_near_neighbours_and_nobody_has_too_many() {
    let mut fixture = Fixture::of(700, 100);
    fixture.settle();

    let config = NeighbourConfig::default();
    let hubs: Vec<RelayId> = fixture
        .ids()
        .into_iter()
        .filter(|&id| fixture.neighbours.site(id).hub_links > 10)
        .collect();
    assert!((40..60).contains(&hubs.len()), "{} hubs", hubs.len());
    for id in hubs {
        let site = fixture.neighbours.site(id);
        assert!(site.near.len() >= config.near / 2, "{id}");
        assert!(site.hub_links < 110, "{id} has {}", site.hub_links);
    }
}

#[test]
fn a_small_mesh_is_full_and_a_large_one_bounded_until_it_is_clearly_small_again() {
    let mut fixture = Fixture::of(100, 100);
    assert_eq!(fixture.neighbours.count(RelayId(1)), 99);
    assert_eq!(fixture.neighbours.take_change(), Change::default());

    fixture.insert(RelayId(101));
    assert!(fixture.neighbours.take_change().anew);
    assert!(fixture.neighbours.count(RelayId(1)) < 60);

    for id in 91..=101 {
        fixture.neighbours.remove(RelayId(id));
    }
    assert!(!fixture.neighbours.take_change().anew);
    fixture.neighbours.remove(RelayId(90));
    assert!(fixture.neighbours.take_change().anew);
    assert_eq!(fixture.neighbours.of(RelayId(1)).len(), 88);
}

#[test]
fn sets_are_symmetric_bounded_and_join_everybody_over_two_others() {
    let mut fixture = Fixture::of(700, 100);
    fixture.settle();

    let config = NeighbourConfig::default();
    let mut total = 0;
    for id in fixture.ids() {
        let of = fixture.neighbours.of(id);
        let hub_links = fixture.neighbours.site(id).hub_links;
        assert!(of.len() <= config.most + hub_links, "{id} has {}", of.len());
        assert!(of.len() >= config.long + config.near / 2);
        assert!(of.iter().all(|&other| fixture.neighbours.are(other, id)));
        total += of.len();
    }
    assert!(total / 700 < 70, "about 64 on average, not {}", total / 700);
    assert!(fixture.reached() >= 1.0, "{}", fixture.reached());
}

#[test]
fn every_region_and_provider_is_represented() {
    let mut fixture = Fixture::of(400, 100);
    // Two regions of few relays, which cannot be everybody's neighbours.
    fixture.settle();

    for id in fixture.ids() {
        let of = fixture.neighbours.of(id);
        let sites = of.iter().map(|other| fixture.neighbours.site(*other));
        let groups: BTreeSet<usize> =
            sites.flat_map(|site| site.groups).chain(fixture.neighbours.site(id).groups).collect();
        assert_eq!(groups.len(), usize::from(REGIONS + PROVIDERS), "{id}");
    }
}

#[test]
fn the_only_relay_of_a_region_does_not_become_everybodys_neighbour() {
    let mut fixture = Fixture::of(400, 100);
    fixture.neighbours.insert(RelayId(900), "alone", "0", fixture.now);
    fixture.settle();

    let most = NeighbourConfig::default().most;
    let count = fixture.neighbours.count(RelayId(900));
    let hub_links = fixture.neighbours.site(RelayId(900)).hub_links;
    assert!((60..=most + hub_links).contains(&count), "{count}");
}

#[test]
fn the_nearest_are_found_though_only_neighbours_are_measured() {
    let mut fixture = Fixture::of(500, 100);
    for _ in 0..30 {
        fixture.review();
        fixture.now += fixture.neighbours.config.review;
    }

    let ids = fixture.ids();
    let near = fixture.neighbours.config.near;
    let (mut found, mut best) = (0_u64, 0_u64);
    for &id in &ids {
        let mut all: Vec<u32> =
            ids.iter().filter(|&&o| o != id).map(|&o| distance(id, o).0).collect();
        all.sort_unstable();
        best += all[..near].iter().map(|&us| u64::from(us)).sum::<u64>();
        let chosen = fixture.neighbours.site(id).near.iter();
        found += chosen.map(|&other| u64::from(distance(id, other).0)).sum::<u64>();
    }
    assert!(found < 2 * best, "near ones are {found} us away, the nearest {best} us");
}

#[test]
fn an_arrival_and_a_departure_change_few_sets() {
    let mut fixture = Fixture::of(600, 100);
    fixture.settle();
    fixture.neighbours.take_change();

    fixture.insert(RelayId(900));
    let came = fixture.neighbours.take_change();
    assert!((12..=150).contains(&came.pairs.len()), "{}", came.pairs.len());
    assert!(!came.anew);

    let degree = fixture.neighbours.count(RelayId(300));
    fixture.neighbours.remove(RelayId(300));
    let went = fixture.neighbours.take_change();
    assert!((degree..=3 * degree).contains(&went.pairs.len()), "{}", went.pairs.len());
    assert_eq!(fixture.neighbours.of(RelayId(300)), []);
    for id in fixture.ids() {
        assert_eq!(fixture.neighbours.site(id).long, fixture.neighbours.least(id));
    }
}

#[test]
fn the_same_relays_in_another_order_get_the_same_long_neighbours() {
    let forwards = Fixture::of(300, 100);
    let mut backwards = Fixture::of(0, 100);
    (1..=300).rev().for_each(|id| backwards.insert(RelayId(id)));

    for id in forwards.ids() {
        assert_eq!(forwards.neighbours.of(id), backwards.neighbours.of(id));
    }
}

#[test]
fn a_settled_mesh_changes_little() {
    let mut fixture = Fixture::of(300, 100);
    fixture.settle();
    for _ in 0..20 {
        fixture.review();
        fixture.now += fixture.neighbours.config.review;
    }
    fixture.neighbours.take_change();
    fixture.now += fixture.neighbours.config.review;
    fixture.review();

    // Two trials come and two go for each relay, and little else.
    let changed = fixture.neighbours.take_change().pairs.len();
    assert!(changed < 300 * 6, "{changed}");
}

#[test]
fn after_a_long_plan_reviews_take_turns() {
    let mut fixture = Fixture::with(few(), 200, 100);
    fixture.settle();
    let reviews = |fixture: &Fixture| -> u32 {
        fixture.neighbours.sites.values().map(|site| site.reviews).sum()
    };
    let settled = reviews(&fixture);
    fixture.now += fixture.neighbours.config.review;

    let counts = (1..=3).map(|_| {
        fixture.review();
        reviews(&fixture) - settled
    });
    assert_eq!(counts.collect::<Vec<_>>(), [4, 8, 12]);
}

#[test]
fn neighbours_that_are_only_tried_are_on_trial_and_every_change_of_that_is_told() {
    let mut fixture = Fixture::with(few(), 120, 60);
    let mut told: BTreeMap<(RelayId, RelayId), Bond> = BTreeMap::new();
    let pairs = |fixture: &Fixture| -> Vec<(RelayId, RelayId)> {
        let ids = fixture.ids();
        ids.iter().flat_map(|&a| ids.iter().map(move |&b| (a, b))).filter(|(a, b)| a < b).collect()
    };
    fixture.neighbours.take_change();
    for (a, b) in pairs(&fixture) {
        told.insert((a, b), fixture.neighbours.bond(a, b));
    }
    let mut tried = 0;
    for _ in 0..20 {
        fixture.review();
        for (a, b) in fixture.neighbours.take_change().pairs {
            told.insert((a, b), fixture.neighbours.bond(a, b));
        }
        for (a, b) in pairs(&fixture) {
            let chose = |from: RelayId, to: RelayId| {
                let site = fixture.neighbours.site(from);
                let sets = [&site.hubs, &site.near, &site.wide];
                sets.iter().any(|set| set.contains(&to))
                    || site.long.iter().any(|(_, id)| *id == to)
            };
            let bond = if chose(a, b) || chose(b, a) {
                Bond::Full
            } else if fixture.neighbours.are(a, b) {
                Bond::Trial
            } else {
                Bond::None
            };
            assert_eq!(fixture.neighbours.bond(a, b), bond, "{a} and {b}");
            assert_eq!(told[&(a, b)], bond, "{a} and {b}");
            tried += usize::from(bond == Bond::Trial);
        }
    }
    assert!(tried > 0);
}
