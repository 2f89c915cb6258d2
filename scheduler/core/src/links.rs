//! What is known of the links: the relays' observations, and which links are usable.
//!
//! Both ends speak of a directed link: its receiver hears or does not hear the sender (`inbound`) and
//! measures; its sender knows from the receiver's heartbeats whether it is heard (`outbound`). A link is
//! usable while
//!
//! - its receiver says that it hears the sender, and has measured;
//! - its sender does not say otherwise; a sender that is connected has to have spoken;
//! - both relays are alive: heard by the scheduler, or by a relay which the scheduler hears.
//!
//! Hence a dead relay's links fall by its neighbours' reports, while a relay that lost only the scheduler
//! keeps its links, with its last measurements.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use overway_topology::LinkMeasure;
use overway_wire::control::State;
use overway_wire::{BitsPerSec, LinkId, LinkIndex, NeighbourLink, Permille, PricePerGb, RelayId};

use crate::report::Observation;

/// The links of the probe plan, and the observations.
#[derive(Debug, Default)]
pub(crate) struct Links {
    observed: Observed,
    /// Links of the probe plan.
    planned: BTreeMap<LinkId, Link>,
}

/// Observations by reporter, then by inbound link: at most two per reporter and member. Some are of links
/// that are not in the plan, since a neighbour may register after the first report about it.
#[derive(Debug, Default)]
struct Observed(HashMap<RelayId, HashMap<LinkId, Observation>>);

/// A link of the probe plan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// The lesser of both ends'; 0 if neither is known.
    pub(crate) capacity: BitsPerSec,
    /// Of the sender.
    pub(crate) price: PricePerGb,
    /// As last judged; absent before the first measurement.
    pub(crate) measure: Option<LinkMeasure>,
}

/// How much a relay's word and life count, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness {
    /// Relays with a session.
    pub(crate) connected: BTreeSet<RelayId>,
    /// Of these, relays that are not silent.
    pub(crate) fresh: BTreeSet<RelayId>,
}

/// A link whose measure changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) id: LinkId,
    pub(crate) measure: LinkMeasure,
    /// Whether it became usable, or stopped being so.
    pub(crate) changed: bool,
}

impl Link {
    pub(crate) fn usable(&self) -> bool {
        self.measure.is_some_and(|measure| measure.usable)
    }
}

impl Links {
    /// Puts a link into the plan, or changes what is known of its line.
    pub(crate) fn put(&mut self, id: LinkId, capacity: BitsPerSec, price: PricePerGb) {
        let link = self.planned.entry(id).or_default();
        (link.capacity, link.price) = (capacity, price);
    }

    /// Takes a link out of the plan.
    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        self.planned.remove(&id)
    }

    /// Every link of the plan, by id.
    pub(crate) fn planned(&self) -> &BTreeMap<LinkId, Link> {
        &self.planned
    }

    /// The receiver's last observation of a link.
    pub(crate) fn observed(&self, id: LinkId) -> Option<&Observation> {
        self.observed.of(id)
    }

    /// Takes what `reporter` says; a full report says everything. Returns whether a direction went down
    /// or came up.
    pub(crate) fn observe(
        &mut self,
        reporter: RelayId,
        full: bool,
        links: Vec<(NeighbourLink, Observation)>,
    ) -> bool {
        let mut urgent = false;
        let observed = self.observed.0.entry(reporter).or_default();
        if full {
            let named: BTreeSet<_> = links.iter().map(|(link, _)| link.inbound(reporter)).collect();
            observed.retain(|id, _| named.contains(id));
        }
        for (link, new) in links {
            let old = observed.insert(link.inbound(reporter), new);
            let (inbound, outbound) =
                old.map_or((State::Unknown, State::Unknown), |old| (old.inbound, old.outbound));
            urgent |= lives(inbound) != lives(new.inbound);
            urgent |= lives(outbound) != lives(new.outbound);
        }
        urgent
    }

    /// Forgets every observation by and about `relay`, and takes its links out of the plan; returns the
    /// links that were usable.
    pub(crate) fn forget(&mut self, relay: RelayId) -> Vec<LinkId> {
        self.observed.0.remove(&relay);
        for observed in self.observed.0.values_mut() {
            observed.retain(|id, _| id.from != relay);
        }
        let gone = |id: &LinkId| id.from == relay || id.to == relay;
        let usable = self.planned.iter().filter(|(id, link)| gone(id) && link.usable());
        let usable = usable.map(|(&id, _)| id).collect();
        self.planned.retain(|id, _| !gone(id));
        usable
    }

    /// Judges every link anew; returns those whose measure changed.
    pub(crate) fn judge(&mut self, liveness: &Liveness) -> Vec<Judged> {
        let alive = self.alive(liveness);
        let mut changes = Vec::new();
        for (&id, link) in &mut self.planned {
            // What was measured before a link fell stays, for the planner to know it again.
            let before = link.measure.map(|measure| LinkMeasure { usable: false, ..measure });
            let measure = measure(id, *link, &self.observed, &alive, liveness).or(before);
            if let Some(new) = measure.filter(|_| measure != link.measure) {
                changes.push(Judged { id, measure: new, changed: new.usable != link.usable() });
                link.measure = measure;
            }
        }
        changes
    }

    /// Relays that are heard by the scheduler, or by a relay which the scheduler hears.
    fn alive(&self, liveness: &Liveness) -> BTreeSet<RelayId> {
        let words = liveness.fresh.iter().filter_map(|relay| self.observed.0.get(relay)).flatten();
        let heard = words.filter(|(_, seen)| lives(seen.inbound)).map(|(id, _)| id.from);
        liveness.fresh.iter().copied().chain(heard).collect()
    }
}

impl Observed {
    /// What the receiver last said of a link.
    fn of(&self, id: LinkId) -> Option<&Observation> {
        self.0.get(&id.to)?.get(&id)
    }
}

/// Whether traffic gets through in this state. A suspect link still counts: it is for the relays to
/// bridge, and mostly comes back.
fn lives(state: State) -> bool {
    match state {
        State::Up | State::Suspect => true,
        State::Unknown | State::Down => false,
    }
}

fn measure(
    id: LinkId,
    link: Link,
    observed: &Observed,
    alive: &BTreeSet<RelayId>,
    liveness: &Liveness,
) -> Option<LinkMeasure> {
    let receiver = observed.of(id)?;
    let (fast, slow) = receiver.windows()?;
    let sender_agrees = match observed.of(id.reversed()) {
        Some(sender) => lives(sender.outbound),
        None => !liveness.connected.contains(&id.from),
    };
    let usable = lives(receiver.inbound)
        && sender_agrees
        && alive.contains(&id.from)
        && alive.contains(&id.to);
    let load = load(receiver.received, link.capacity);
    Some(LinkMeasure { usable, fast, slow, load, capacity: link.capacity, price: link.price })
}

/// A rate's share of a capacity; 0 if the capacity is not known.
pub(crate) fn load(rate: BitsPerSec, capacity: BitsPerSec) -> Permille {
    let share = rate.0.saturating_mul(1_000).checked_div(capacity.0).unwrap_or(0);
    Permille(u16::try_from(share).unwrap_or(u16::MAX))
}

/// Parallel link `index`, counted from 0.
pub(crate) fn link_index(index: usize) -> LinkIndex {
    u8::try_from(index).ok().and_then(LinkIndex::new).expect("two relays have at most two links")
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_topology::WindowSample;

    const A: RelayId = RelayId(1);
    const B: RelayId = RelayId(2);
    const C: RelayId = RelayId(3);

    fn says(inbound: State, outbound: State) -> Observation {
        let window = WindowSample { samples: 10, ..WindowSample::default() };
        let received = BitsPerSec(250);
        Observation { inbound, outbound, fast: Some(window), slow: Some(window), received }
    }

    fn to(neighbour: RelayId, observation: Observation) -> (NeighbourLink, Observation) {
        (NeighbourLink::new(neighbour, link_index(0)), observation)
    }

    fn id(from: RelayId, to: RelayId) -> LinkId {
        LinkId::new(from, to, link_index(0))
    }

    fn of(connected: &[RelayId], fresh: &[RelayId]) -> Liveness {
        Liveness {
            connected: connected.iter().copied().collect(),
            fresh: fresh.iter().copied().collect(),
        }
    }

    /// Three relays that all hear one another.
    fn mesh() -> Links {
        let mut links = Links::default();
        for (a, b) in [(A, B), (A, C), (B, A), (B, C), (C, A), (C, B)] {
            links.put(id(a, b), BitsPerSec(1_000), PricePerGb(7));
            links.observe(b, false, vec![to(a, says(State::Up, State::Up))]);
        }
        links
    }

    fn usable(links: &mut Links, liveness: &Liveness) -> Vec<LinkId> {
        links.judge(liveness);
        links.planned().iter().filter(|(_, link)| link.usable()).map(|(&id, _)| id).collect()
    }

    #[test]
    fn links_between_relays_that_hear_one_another_are_usable_and_loaded() {
        let mut links = mesh();
        assert_eq!(usable(&mut links, &of(&[A, B, C], &[A, B, C])).len(), 6);
        let measure = links.planned()[&id(A, B)].measure.unwrap();
        assert_eq!((measure.load, measure.price), (Permille(250), PricePerGb(7)));
    }

    #[test]
    fn a_link_that_was_never_measured_is_not_usable() {
        let mut links = mesh();
        let unmeasured = Observation { fast: None, slow: None, ..says(State::Up, State::Up) };
        links.observe(B, false, vec![to(A, unmeasured)]);

        assert!(!usable(&mut links, &of(&[A, B, C], &[A, B, C])).contains(&id(A, B)));
        assert_eq!(links.planned()[&id(A, B)].measure, None);
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
    fn load_is_zero_without_a_capacity_and_saturates() {
        assert_eq!(load(BitsPerSec(5), BitsPerSec(0)), Permille(0));
        assert_eq!(load(BitsPerSec(3), BitsPerSec(2)), Permille(1_500));
        assert_eq!(load(BitsPerSec(u64::MAX), BitsPerSec(1)), Permille(u16::MAX));
    }
}
