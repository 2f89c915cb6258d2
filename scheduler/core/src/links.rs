//! What is known of the links: the relays' observations, and which links are usable.
//!
//! Both ends speak of a directed link: its receiver hears or does not hear the sender (`inbound`) and
//! measures; its sender knows from the receiver's heartbeats whether it is heard (`outbound`). A link is
//! usable while
//!
//! - its receiver says that it hears the sender, and has measured;
//! - its sender does not say otherwise; a sender that is connected has to have spoken;
//! - both relays are alive: heard by the scheduler, or by a relay which the scheduler hears;
//! - no operator has had it taken out of use.
//!
//! Hence a dead relay's links fall by its neighbours' reports, while a relay that lost only the scheduler
//! keeps its links, with its last measurements.
//!
//! A link is judged anew only when something about it changed: an observation of either end, whether an end is
//! connected or alive, its line, or what an operator wants of it. Observations lie in a row for each receiver,
//! in order of the sender, so that a look-up takes two or three cache misses and a million links a hundred
//! megabytes.

mod row;

use overway_topology::LinkMeasure;
use overway_wire::control::State;
use overway_wire::{
    BitsPerSec, LinkId, LinkIndex, Micros, NeighbourLink, Permille, PricePerGb, RelayId,
};

use crate::report::Observation;
use row::{Entry, Row};

/// The links of the probe plan, and the observations.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// By the receiver's id.
    rows: Vec<Option<Box<Row>>>,
    /// Relays whose word counts.
    fresh: usize,
    /// Links to be judged anew; each once, its entry being marked.
    dirty: Vec<LinkId>,
}

/// How much a relay's own word counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// Whether it has a session.
    pub(crate) connected: bool,
    /// Whether it is not silent either.
    pub(crate) fresh: bool,
}

/// What is known of the lines of a link of the probe plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// The lesser of both ends'; 0 if neither is known.
    pub(crate) capacity: BitsPerSec,
    /// What the sender's provider takes now.
    pub(crate) price: PricePerGb,
}

/// A link of the probe plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) capacity: BitsPerSec,
    /// As last judged.
    pub(crate) usable: bool,
}

/// What others than the ends say of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It is not to be used at all.
    pub(crate) closed: bool,
    /// It is to be used only where nothing else leads there.
    pub(crate) draining: bool,
    /// The share in use of the line on which it is sent, as far as that counts.
    pub(crate) line_load: Permille,
}

/// A link whose measure changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) id: LinkId,
    pub(crate) measure: LinkMeasure,
    /// Whether it became usable, or stopped being so.
    pub(crate) changed: bool,
}

/// What a report changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Whether a direction went down or came up.
    pub(crate) turned: bool,
    /// Whether a link of which nothing was known came up.
    pub(crate) met: bool,
    /// Neighbours that the reporter heard before, and hears no longer.
    pub(crate) lost: Vec<RelayId>,
    /// Links that were up, and on which the neighbour is silent now.
    pub(crate) suspected: Vec<LinkId>,
    /// Whether the reporter hears a neighbour no longer, or is no longer heard by one.
    pub(crate) turned_down: bool,
}

impl Links {
    /// Puts a link into the plan, or changes what is known of its line; says whether it is new.
    pub(crate) fn put(&mut self, id: LinkId, line: Line) -> bool {
        let entry = self.row_mut(id.to).entry_mut(id);
        let before = entry.planned.replace(line);
        if before != Some(line) {
            self.suspect(id);
        }
        before.is_none()
    }

    /// Takes a link out of the plan; says whether it was in it, and usable.
    pub(crate) fn remove(&mut self, id: LinkId) -> Option<bool> {
        let row = self.rows.get_mut(usize::from(id.to.0))?.as_mut()?;
        let at = row.find(id)?;
        let entry = &mut row.entries[at];
        entry.planned.take()?;
        let usable = std::mem::take(&mut entry.usable);
        row.usable -= u32::from(usable);
        if entry.observed.is_none() {
            row.entries.remove(at);
        }
        Some(usable)
    }

    /// A link, if it is of the plan.
    pub(crate) fn planned(&self, id: LinkId) -> Option<Link> {
        let entry = self.entry(id)?;
        entry.planned.map(|line| Link { capacity: line.capacity, usable: entry.usable })
    }

    /// The links of a relay that are of the plan, in order.
    pub(crate) fn of(&self, relay: RelayId) -> impl Iterator<Item = NeighbourLink> {
        let entries = self.row(relay).into_iter().flat_map(|row| &row.entries);
        entries.filter(|entry| entry.planned.is_some()).map(|entry| entry.link)
    }

    /// Every link of the plan, by receiver and sender.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, Link)> {
        self.iter_seen().map(|(id, link, _)| (id, link))
    }

    /// The same, with the receivers' last observations.
    pub(crate) fn iter_seen(&self) -> impl Iterator<Item = (LinkId, Link, Option<&Observation>)> {
        self.rows().flat_map(|(to, row)| {
            row.entries.iter().filter_map(move |entry| {
                let link = Link { capacity: entry.planned?.capacity, usable: entry.usable };
                Some((entry.link.inbound(to), link, entry.observed.as_ref()))
            })
        })
    }

    /// The receiver's last observation of a link.
    pub(crate) fn observed(&self, id: LinkId) -> Option<&Observation> {
        self.entry(id)?.observed.as_ref()
    }

    /// The round trip between two relays as last measured, if it is known.
    pub(crate) fn round_trip(&self, a: RelayId, b: RelayId) -> Option<Micros> {
        let id = LinkId::new(a, b, LinkIndex::default());
        [id, id.reversed()].into_iter().find_map(|id| {
            let (_, slow) = self.observed(id)?.windows()?;
            (slow.rtt.0 > 0).then_some(slow.rtt)
        })
    }

    /// Whether a relay says that it does not hear a neighbour on some link, or is not heard by it.
    pub(crate) fn has_lost(&self, relay: RelayId, neighbour: RelayId) -> bool {
        let Some(row) = self.row(relay).filter(|row| row.word.fresh) else { return false };
        let mut seen = row.entries[row.about(neighbour)].iter().filter_map(|entry| entry.observed);
        seen.any(|seen| seen.inbound == State::Down || seen.outbound == State::Down)
    }

    /// Whether some usable link leads to a relay.
    pub(crate) fn is_reached(&self, relay: RelayId) -> bool {
        self.row(relay).is_some_and(|row| row.usable > 0)
    }

    /// Whether some relay's word counts.
    pub(crate) fn hears_someone(&self) -> bool {
        self.fresh > 0
    }

    /// Takes what `reporter` says; a full report says everything.
    pub(crate) fn observe(
        &mut self,
        reporter: RelayId,
        full: bool,
        mut links: Vec<(NeighbourLink, Observation)>,
    ) -> Observed {
        links.sort_by_key(|(link, _)| *link);
        let mut result = Observed::default();
        if full {
            self.forget_unnamed(reporter, &links);
        }
        for (link, new) in links {
            let inbound = link.inbound(reporter);
            let old = self.row_mut(reporter).entry_mut(inbound).observed.replace(new);
            if old == Some(new) {
                continue;
            }
            let was = old.map_or((false, false), |old| (lives(old.inbound), lives(old.outbound)));
            let is = (lives(new.inbound), lives(new.outbound));
            self.suspect(inbound);
            if was.0 != is.0 {
                self.count_hearer(reporter, link.neighbour, is.0);
            }
            if was.1 != is.1 || old.is_none() {
                self.suspect(inbound.reversed());
            }
            if was != is && old.is_none() {
                result.met = true;
            } else if was != is {
                result.turned = true;
            }
            result.turned_down |= (was.0 && !is.0) || (was.1 && !is.1);
            if was.0 && !is.0 {
                result.lost.push(link.neighbour);
            }
            let was_up = old.is_some_and(|old| old.inbound == State::Up);
            if was_up && new.inbound == State::Suspect {
                result.suspected.push(inbound);
            }
        }
        result
    }

    /// Forgets what a full report no longer names; `links` are in order.
    fn forget_unnamed(&mut self, reporter: RelayId, links: &[(NeighbourLink, Observation)]) {
        let named =
            |link: &NeighbourLink| links.binary_search_by_key(link, |(link, _)| *link).is_ok();
        let mut unnamed = Vec::new();
        let row = self.row_mut(reporter);
        for entry in &mut row.entries {
            if !named(&entry.link)
                && let Some(old) = entry.observed.take()
            {
                unnamed.push((entry.link, lives(old.inbound)));
            }
        }
        row.entries.retain(|entry| entry.observed.is_some() || entry.planned.is_some());
        for (link, heard) in unnamed {
            if heard {
                self.count_hearer(reporter, link.neighbour, false);
            }
            self.suspect(link.inbound(reporter));
            self.suspect(link.outbound(reporter));
        }
    }

    /// Forgets every observation by and about `relay`, and takes its links out of the plan; returns the
    /// links that were usable, by id.
    pub(crate) fn forget(&mut self, relay: RelayId) -> Vec<LinkId> {
        let mut usable = Vec::new();
        self.forget_unnamed(relay, &[]);
        self.set_word(relay, Word::default());
        if let Some(row) = self.rows.get_mut(usize::from(relay.0)).and_then(Option::take) {
            let own = row.entries.iter().filter(|entry| entry.usable);
            usable.extend(own.map(|entry| entry.link.inbound(relay)));
        }
        for (to, row) in self.rows.iter_mut().enumerate() {
            let Some(row) = row else { continue };
            let to = RelayId(u16::try_from(to).expect("rows are numbered by ids"));
            let about = row.about(relay);
            let gone = row.entries[about.clone()].iter().filter(|entry| entry.usable);
            usable.extend(gone.map(|entry| entry.link.inbound(to)));
            let count = row.entries[about.clone()].iter().filter(|entry| entry.usable).count();
            row.usable -= u32::try_from(count).expect("two relays have at most two links");
            row.entries.drain(about);
        }
        usable.sort_unstable();
        usable
    }

    /// Says how much a relay's own word counts from now on.
    pub(crate) fn set_word(&mut self, relay: RelayId, word: Word) {
        let row = self.row_mut(relay);
        let before = std::mem::replace(&mut row.word, word);
        if before == word {
            return;
        }
        self.suspect_relay(relay);
        if before.fresh == word.fresh {
            return;
        }
        self.fresh = if word.fresh { self.fresh + 1 } else { self.fresh - 1 };
        let entries = self.row(relay).into_iter().flat_map(|row| &row.entries);
        let hears = |entry: &&Entry| entry.observed.is_some_and(|seen| lives(seen.inbound));
        let heard: Vec<RelayId> = entries.filter(hears).map(|entry| entry.link.neighbour).collect();
        for neighbour in heard {
            self.add_hearer(neighbour, word.fresh);
        }
    }

    /// Has a link judged anew.
    pub(crate) fn suspect(&mut self, id: LinkId) {
        let Some(Some(row)) = self.rows.get_mut(usize::from(id.to.0)) else { return };
        let Some(at) = row.find(id) else { return };
        let entry = &mut row.entries[at];
        if entry.planned.is_some() && !entry.dirty {
            entry.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Has every link of a relay judged anew, both ways.
    pub(crate) fn suspect_relay(&mut self, relay: RelayId) {
        let Some(row) = self.row(relay) else { return };
        let links: Vec<NeighbourLink> = row.entries.iter().map(|entry| entry.link).collect();
        for link in links {
            self.suspect(link.inbound(relay));
            self.suspect(link.outbound(relay));
        }
    }

    /// Has every link between two relays judged anew, both ways.
    pub(crate) fn suspect_pair(&mut self, a: RelayId, b: RelayId) {
        let Some(row) = self.row(a) else { return };
        let links: Vec<NeighbourLink> =
            row.entries[row.about(b)].iter().map(|entry| entry.link).collect();
        for link in links {
            self.suspect(link.inbound(a));
            self.suspect(link.outbound(a));
        }
    }

    /// Judges the links about which something changed, in order of id; returns those whose measure did. `before`
    /// is that as last judged.
    pub(crate) fn judge(
        &mut self,
        standing: impl Fn(LinkId) -> Standing,
        before: impl Fn(LinkId) -> Option<LinkMeasure>,
    ) -> Vec<Judged> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        let mut judged = Vec::with_capacity(dirty.len());
        for id in dirty {
            let measure = self.measure(id, standing(id));
            let known = before(id);
            // What was measured before a link fell stays, for the planner to know it again.
            let last = || known.map(|measure| LinkMeasure { usable: false, ..measure });
            let Some(Some(row)) = self.rows.get_mut(usize::from(id.to.0)) else { continue };
            let Some(at) = row.find(id) else { continue };
            let entry = &mut row.entries[at];
            entry.dirty = false;
            if entry.planned.is_none() {
                continue;
            }
            let Some(measure) = measure.or_else(last) else { continue };
            let changed = measure.usable != entry.usable;
            entry.usable = measure.usable;
            if changed && measure.usable {
                row.usable += 1;
            } else if changed {
                row.usable -= 1;
            }
            if known != Some(measure) {
                judged.push(Judged { id, measure, changed });
            }
        }
        judged
    }

    fn measure(&self, id: LinkId, standing: Standing) -> Option<LinkMeasure> {
        let entry = self.entry(id)?;
        let (receiver, line) = (entry.observed?, entry.planned?);
        let (fast, slow) = receiver.windows()?;
        let sender_agrees = match self.observed(id.reversed()) {
            Some(sender) => lives(sender.outbound),
            None => self.row(id.from).is_none_or(|row| !row.word.connected),
        };
        let usable = lives(receiver.inbound)
            && sender_agrees
            && !standing.closed
            && self.is_alive(id.from)
            && self.is_alive(id.to);
        let load = load(receiver.received, line.capacity).max(standing.line_load);
        let Line { capacity, price } = line;
        let draining = standing.draining;
        Some(LinkMeasure { usable, fast, slow, load, capacity, price, draining })
    }

    /// Whether a relay is heard by the scheduler, or by a relay which the scheduler hears.
    fn is_alive(&self, relay: RelayId) -> bool {
        self.row(relay).is_some_and(Row::is_alive)
    }

    /// `reporter` begins or ceases to hear `neighbour` on a link.
    fn count_hearer(&mut self, reporter: RelayId, neighbour: RelayId, hears: bool) {
        if self.row(reporter).is_some_and(|row| row.word.fresh) {
            self.add_hearer(neighbour, hears);
        }
    }

    fn add_hearer(&mut self, relay: RelayId, hears: bool) {
        let row = self.row_mut(relay);
        let before = row.is_alive();
        row.hearers = if hears { row.hearers + 1 } else { row.hearers - 1 };
        if row.is_alive() != before {
            self.suspect_relay(relay);
        }
    }

    fn entry(&self, id: LinkId) -> Option<&Entry> {
        let row = self.row(id.to)?;
        row.find(id).map(|at| &row.entries[at])
    }

    fn row(&self, relay: RelayId) -> Option<&Row> {
        self.rows.get(usize::from(relay.0))?.as_deref()
    }

    fn row_mut(&mut self, relay: RelayId) -> &mut Row {
        let at = usize::from(relay.0);
        if at >= self.rows.len() {
            self.rows.resize_with(at + 1, || None);
        }
        self.rows[at].get_or_insert_default()
    }

    fn rows(&self) -> impl Iterator<Item = (RelayId, &Row)> {
        (0..=u16::MAX).zip(&self.rows).filter_map(|(id, row)| Some((RelayId(id), row.as_deref()?)))
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
mod tests;
