use std::collections::BTreeMap;

use super::*;
use overway_topology::WindowSample;

const A: RelayId = RelayId(1);
const B: RelayId = RelayId(2);
const C: RelayId = RelayId(3);

fn says(inbound: State, outbound: State) -> Observation {
    let window = WindowSample { samples: 10, ..WindowSample::default() };
    let received = BitsPerSec(250);
    Observation { inbound, outbound, mtu: 0, fast: Some(window), slow: Some(window), received }
}

fn to(neighbour: RelayId, observation: Observation) -> (NeighbourLink, Observation) {
    (NeighbourLink::new(neighbour, link_index(0)), observation)
}

fn id(from: RelayId, to: RelayId) -> LinkId {
    LinkId::new(from, to, link_index(0))
}

/// Who is connected, and whose word counts.
type Liveness = (Vec<RelayId>, Vec<RelayId>);

fn of(connected: &[RelayId], fresh: &[RelayId]) -> Liveness {
    (connected.to_vec(), fresh.to_vec())
}

/// Three relays that all hear one another, and what was judged of the links.
#[derive(Default)]
struct Fixture {
    links: Links,
    measures: BTreeMap<LinkId, LinkMeasure>,
    standing: BTreeMap<LinkId, Standing>,
}

fn mesh() -> Fixture {
    let mut fixture = Fixture::default();
    for (a, b) in [(A, B), (A, C), (B, A), (B, C), (C, A), (C, B)] {
        let line = Line { capacity: BitsPerSec(1_000), price: PricePerGb(7) };
        fixture.links.put(id(a, b), line);
        fixture.links.observe(b, false, vec![to(a, says(State::Up, State::Up))]);
    }
    fixture
}

impl Fixture {
    fn observe(
        &mut self,
        reporter: RelayId,
        full: bool,
        links: Vec<(NeighbourLink, Observation)>,
    ) -> bool {
        let seen = self.links.observe(reporter, full, links);
        seen.turned || seen.met
    }

    fn judge(&mut self) -> Vec<Judged> {
        let standing = |id| self.standing.get(&id).copied().unwrap_or_default();
        let judged = self.links.judge(standing, |id| self.measures.get(&id).copied());
        self.measures.extend(judged.iter().map(|judged| (judged.id, judged.measure)));
        judged
    }
}

fn usable(fixture: &mut Fixture, (connected, fresh): &Liveness) -> Vec<LinkId> {
    for relay in [A, B, C] {
        let word = Word { connected: connected.contains(&relay), fresh: fresh.contains(&relay) };
        fixture.links.set_word(relay, word);
    }
    fixture.judge();
    let usable = fixture.links.iter().filter(|(_, link)| link.usable).map(|(id, _)| id);
    let mut usable: Vec<_> = usable.collect();
    usable.sort_unstable();
    usable
}

#[test]
fn links_between_relays_that_hear_one_another_are_usable_and_loaded() {
    let mut links = mesh();
    assert_eq!(usable(&mut links, &of(&[A, B, C], &[A, B, C])).len(), 6);
    let measure = links.measures[&id(A, B)];
    assert_eq!((measure.load, measure.price), (Permille(250), PricePerGb(7)));
}

#[test]
fn a_link_that_was_never_measured_is_not_usable() {
    let mut links = mesh();
    let unmeasured = Observation { fast: None, slow: None, ..says(State::Up, State::Up) };
    links.observe(B, false, vec![to(A, unmeasured)]);

    assert!(!usable(&mut links, &of(&[A, B, C], &[A, B, C])).contains(&id(A, B)));
    assert_eq!(links.measures.get(&id(A, B)), None);
}

#[test]
fn either_end_may_say_that_a_link_is_down() {
    let everyone = of(&[A, B, C], &[A, B, C]);

    let mut links = mesh();
    assert!(links.observe(B, false, vec![to(A, says(State::Down, State::Up))]));
    assert!(!usable(&mut links, &everyone).contains(&id(A, B)));
    assert!(usable(&mut links, &everyone).contains(&id(B, A)));

    let mut links = mesh();
    assert!(links.observe(A, false, vec![to(B, says(State::Up, State::Down))]));
    assert!(!usable(&mut links, &everyone).contains(&id(A, B)));
    assert!(usable(&mut links, &everyone).contains(&id(B, A)));
}

#[test]
fn suspicion_is_not_urgent_and_leaves_a_link_usable() {
    let mut links = mesh();
    assert!(!links.observe(B, false, vec![to(A, says(State::Suspect, State::Up))]));
    assert!(usable(&mut links, &of(&[A, B, C], &[A, B, C])).contains(&id(A, B)));
}

#[test]
fn a_relay_that_only_the_scheduler_lost_keeps_its_links() {
    let mut links = mesh();
    assert_eq!(usable(&mut links, &of(&[A, B], &[A, B])).len(), 6);
    assert_eq!(usable(&mut links, &of(&[A, B, C], &[A])).len(), 6);
}

#[test]
fn a_relay_that_nobody_hears_loses_its_links_both_ways() {
    let mut links = mesh();
    links.observe(A, false, vec![to(C, says(State::Down, State::Down))]);
    links.observe(B, false, vec![to(C, says(State::Down, State::Down))]);

    for liveness in [of(&[A, B], &[A, B]), of(&[A, B, C], &[A, B])] {
        assert_eq!(usable(&mut links, &liveness), [id(A, B), id(B, A)]);
    }
}

#[test]
fn two_relays_that_die_together_lose_the_links_between_them_too() {
    let mut links = mesh();
    for dead in [A, B] {
        links.observe(C, false, vec![to(dead, says(State::Down, State::Down))]);
    }

    assert_eq!(usable(&mut links, &of(&[A, B, C], &[C])), []);
}

#[test]
fn a_connected_sender_has_to_have_spoken() {
    let mut links = mesh();
    links.observe(A, true, vec![]);

    assert!(!usable(&mut links, &of(&[A, B, C], &[A, B, C])).contains(&id(A, B)));
    assert!(usable(&mut links, &of(&[B, C], &[B, C])).contains(&id(A, B)));
}

#[test]
fn only_what_something_changed_about_is_judged_again() {
    let everyone = of(&[A, B, C], &[A, B, C]);
    let mut links = mesh();
    usable(&mut links, &everyone);
    assert_eq!(links.links.dirty, []);

    links.observe(B, false, vec![to(A, says(State::Up, State::Up))]);
    assert_eq!(links.links.dirty, [], "it says the same again");

    let slower = Observation { received: BitsPerSec(500), ..says(State::Up, State::Up) };
    links.observe(B, false, vec![to(A, slower)]);
    assert_eq!(links.links.dirty, [id(A, B)]);
    assert_eq!(links.judge().len(), 1);
}

#[test]
fn a_link_that_was_taken_out_of_use_is_not_usable_and_comes_back() {
    let everyone = of(&[A, B, C], &[A, B, C]);
    let mut links = mesh();
    usable(&mut links, &everyone);
    let closed = Standing { closed: true, ..Standing::default() };
    links.standing.insert(id(A, B), closed);
    links.links.suspect_pair(B, A);
    assert_eq!(usable(&mut links, &everyone).len(), 5);

    links.standing.clear();
    links.links.suspect_relay(A);
    assert_eq!(usable(&mut links, &everyone).len(), 6);
}

#[test]
fn a_forgotten_relay_leaves_nothing_behind() {
    let everyone = of(&[A, B, C], &[A, B, C]);
    let mut links = mesh();
    usable(&mut links, &everyone);

    assert_eq!(links.links.forget(C), [id(A, C), id(B, C), id(C, A), id(C, B)]);

    assert_eq!(usable(&mut links, &everyone), [id(A, B), id(B, A)]);
    assert!(links.links.observed(id(A, C)).is_none() && links.links.observed(id(C, A)).is_none());
    assert!(!links.links.is_reached(C) && links.links.is_reached(A));
}

#[test]
fn what_is_judged_step_by_step_is_what_is_judged_at_once() {
    let mut chance = 7_u64;
    let mut draw = |below: u64| {
        chance =
            chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let relays = [A, B, C];
    let states = [State::Unknown, State::Up, State::Suspect, State::Down];
    let mut links = mesh();
    for _ in 0..2_000 {
        let [one, other] = [draw(3), draw(3)].map(|at| relays[usize::try_from(at).unwrap()]);
        let [inbound, outbound] = [draw(4), draw(4)].map(|at| states[usize::try_from(at).unwrap()]);
        match draw(4) {
            0 if one != other => {
                links.observe(one, false, vec![to(other, says(inbound, outbound))]);
            }
            1 if one != other => {
                links.observe(one, true, vec![to(other, says(inbound, outbound))]);
            }
            2 => {
                let connected = draw(2) == 0;
                let word = Word { connected, fresh: connected && draw(2) == 0 };
                links.links.set_word(one, word);
            }
            _ => {
                links.judge();
            }
        }
    }
    links.judge();
    let stepwise: Vec<_> = links.links.iter().map(|(id, link)| (id, link.usable)).collect();
    relays.into_iter().for_each(|relay| links.links.suspect_relay(relay));
    assert_eq!(links.judge().iter().map(|judged| judged.id).collect::<Vec<_>>(), []);
    let at_once: Vec<_> = links.links.iter().map(|(id, link)| (id, link.usable)).collect();
    assert_eq!(stepwise, at_once);
}

#[test]
fn load_is_zero_without_a_capacity_and_saturates() {
    assert_eq!(load(BitsPerSec(5), BitsPerSec(0)), Permille(0));
    assert_eq!(load(BitsPerSec(3), BitsPerSec(2)), Permille(1_500));
    assert_eq!(load(BitsPerSec(u64::MAX), BitsPerSec(1)), Permille(u16::MAX));
}
