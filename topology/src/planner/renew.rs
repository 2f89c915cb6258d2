//! One route done anew: the search, the rules, the backups, the record.

use super::Stats;
use super::admission::WAIT_COST;
use super::kernel::{NONE, Ranks};
use super::links::Links;
use super::packed::{Packed, Via};
use super::plane::{Field, Head, Outcome, Told};
use super::route::{Move, Place};
use super::search::{By, Choice, Diverse, Further, Hints, Known, Source, shared};
use super::table::{DIRECT, DISJOINT, DIVERSE, IN_USE, PLACES, Record, Row, by_cheapest, parallel};
use super::uses::Noted;

/// What is needed to do routes anew, one at a time.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) all: Source,
    pub(super) admitted: Source,
    /// For searches among admitted links.
    known: Known,
}

impl Scratch {
    /// Starts with one source; for questions about single routes.
    pub(super) fn start(&mut self, field: &Field<'_>, head: &Head, source: usize) {
        self.all.start(&field.terrain(head, field.links), source, Ranks::All);
        if let Some(admitted) = field.admitted {
            self.admitted.start(&field.terrain(head, admitted), source, Ranks::One);
        }
    }

    /// The cheapest path that may be taken and what it costs, and what the cheapest of all costs.
    pub(super) fn best(
        &mut self,
        field: &Field<'_>,
        head: &Head,
        (from, to): (usize, usize),
        hints: &mut Hints<'_>,
    ) -> Option<((Packed, u32), u32)> {
        let all = self.all.best(&field.terrain(head, field.links), to, hints)?;
        let admitted = field.admitted.and_then(|links| {
            let terrain = field.terrain(head, links);
            let mut hints = self.known.hints(&self.admitted, &terrain, to);
            let choice = self.admitted.best(&terrain, to, &mut hints)?;
            let path = by_cheapest(links, head.class, choice.via, (from, to));
            if choice.cost < WAIT_COST {
                return Some((path, choice.cost));
            }
            Some((path, field.place(head, (from, to)).price(path)?.cost))
        });
        let any = || (by_cheapest(field.links, head.class, all.via, (from, to)), all.cost);
        Some((admitted.unwrap_or_else(any), all.cost))
    }

    /// Does one route anew.
    pub(super) fn route(
        &mut self,
        field: &Field<'_>,
        head: &Head,
        row: &mut Row,
        (from, to): (usize, usize),
        hints: &mut Hints<'_>,
        out: &mut Outcome,
    ) {
        let before = row.records[to];
        let mut record = before;
        let place = field.place(head, (from, to));
        if let Some(least) = self.stays(field, head, row, &mut record, &place, hints) {
            row.best[to] = least;
            out.stats.count(Move::Stayed);
        } else if let Some((best, cost)) = self.best(field, head, (from, to), hints) {
            row.best[to] = cost;
            out.stats.count(row.reconsider(field, &place, to, &mut record, best));
        } else {
            row.forget((from, to), field.stride, &mut out.noted, &mut out.stats);
            if before.exists() {
                out.changed.push(Told::new(head, (from, to)));
            }
            return;
        }
        row.worst[to] = if field.config.backups {
            self.back_up(field, head, &mut record, &place, hints)
        } else {
            record.costs[IN_USE]
        };
        if record.paths != before.paths {
            out.noted.note(field.stride, before.paths, record.paths, (from, to));
        }
        out.stats.tally(&before, &record);
        if record.tell(&before, |path| place.price(path).map_or(0, |priced| priced.delay)) {
            out.changed.push(Told::new(head, (from, to)));
        }
        // Mostly it did not change, and need not go back to memory.
        if record != before {
            row.records[to] = record;
        }
    }

    /// Says whether a route keeps its path by what the cheapest one costs, whichever that is; and if so, how much.
    fn stays(
        &self,
        field: &Field<'_>,
        head: &Head,
        row: &Row,
        record: &mut Record,
        place: &Place<'_>,
        hints: &mut Hints<'_>,
    ) -> Option<u32> {
        let is_calm = row.is_calm(place.ends.1);
        let is_open = field.admitted.is_none() && field.draining.is_empty();
        if !is_calm || !is_open || !record.exists() {
            return None;
        }
        let (terrain, to) = (field.terrain(head, field.links), place.ends.1);
        let least = self.all.least(&terrain, to, hints)?;
        let cost = place.cost(record.in_use(), self.all.cost(&terrain, record.in_use(), to))?;
        if !place.is_near(record, cost, least) {
            return None;
        }
        if cost == least {
            place.normalise(record, cost);
        }
        record.costs[IN_USE] = cost;
        Some(least)
    }

    /// Finds the backups of the path in use. Returns what the dearest path that was searched for costs.
    pub(super) fn back_up(
        &mut self,
        field: &Field<'_>,
        head: &Head,
        record: &mut Record,
        place: &Place<'_>,
        hints: &mut Hints<'_>,
    ) -> u32 {
        let terrain = field.terrain(head, field.links);
        let (from, to) = place.ends;
        let kept = record.paths;
        let in_use = record.in_use().via();
        let pack = |choice: Choice| {
            (by_cheapest(field.links, head.class, choice.via, (from, to)), choice.cost)
        };
        let may_keep = !record.is_parallel && kept[DISJOINT].via().is_disjoint(in_use);
        let keep = |path: Packed, allowed: bool| {
            if !allowed || !path.exists() {
                return None;
            }
            place.keep(path, self.all.cost(&terrain, path, to))
        };
        let kept_disjoint = keep(kept[DISJOINT], may_keep);
        let limit = kept_disjoint.map_or(NONE, |kept| kept.limit);
        let disjoint = self.all.disjoint(&terrain, to, hints, in_use, limit).map(pack);
        let disjoint = disjoint.or(kept_disjoint.map(|kept| (kept.path, kept.cost)));
        let diverse = match disjoint {
            Some((disjoint, _)) => {
                let may_keep = kept[DIVERSE] != disjoint && kept[DIVERSE].via() != in_use;
                let kept = keep(kept[DIVERSE], may_keep);
                let others = (in_use, disjoint.via());
                self.all.diverse(&terrain, to, hints, others, kept)
            }
            None => Diverse::None,
        };
        record.disjoint_is_diverse = matches!(diverse, Diverse::IsDisjoint(_));
        // One that differs by region gives way to one that differs by provider, whatever that costs.
        let is_final = match diverse.by() {
            Some(By::Provider) => true,
            Some(By::Region) => !field.labels.provider.differ(),
            None => !field.labels.provider.differ() && !field.labels.region.differ(),
        };
        let diverse = match diverse {
            Diverse::Path(_, choice) => Some(pack(choice)),
            Diverse::Kept(_, kept) => Some((kept.path, kept.cost)),
            Diverse::IsDisjoint(_) | Diverse::None => None,
        };
        let sibling = match disjoint {
            Some(_) => None,
            None => parallel(field.links, head.class, record.in_use(), (from, to))
                .and_then(|path| Some((path, place.price(path)?.cost))),
        };
        record.is_parallel = sibling.is_some();
        let none = (Packed::NONE, 0);
        let (second, third) = (disjoint.or(sibling).unwrap_or(none), diverse.unwrap_or(none));
        (record.paths[DISJOINT], record.costs[DISJOINT]) = second;
        (record.paths[DIVERSE], record.costs[DIVERSE]) = third;
        if field.links.cost(head.class, from, to) < NONE {
            (record.paths[DIRECT], record.costs[DIRECT]) =
                direct(field.links, head.class, &record.paths, (from, to));
        } else if self.go_further(field, head, record, place, hints)
            && disjoint.is_some()
            && is_final
        {
            return record.costs.into_iter().max().unwrap_or(NONE);
        } else {
            return NONE;
        }
        if disjoint.is_none() || !is_final {
            return NONE;
        }
        record.costs[IN_USE].max(second.1).max(third.1)
    }

    /// Finds a further path in place of the direct one, unless the others are three that share no relay. Says
    /// whether there are three such paths now.
    fn go_further(
        &self,
        field: &Field<'_>,
        head: &Head,
        record: &mut Record,
        place: &Place<'_>,
        hints: &mut Hints<'_>,
    ) -> bool {
        let (in_use, kept) = (record.in_use().via(), record.paths[DIRECT]);
        let [disjoint, diverse] = [DISJOINT, DIVERSE].map(|at| record.paths[at]);
        let disjoint = Some(disjoint).filter(|it| it.exists() && !record.is_parallel);
        let disjoint = disjoint.map(Packed::via);
        (record.paths[DIRECT], record.costs[DIRECT]) = (Packed::NONE, 0);
        if diverse.exists() && shared(diverse.via(), in_use, disjoint) == 0 {
            return true;
        }
        let terrain = field.terrain(head, field.links);
        let is_further = kept.exists() && kept.via() != Via::DIRECT;
        let may_keep = is_further && shared(kept.via(), in_use, disjoint) == 0;
        let kept = if may_keep { place.keep(kept, None) } else { None };
        let limit = kept.map(|kept| kept.limit);
        let found = self.all.further(&terrain, place.ends.1, hints, in_use, disjoint, limit);
        let (further, least) = match (found, kept) {
            (Some(Further { choice, shared }), _) => {
                let path = by_cheapest(field.links, head.class, choice.via, place.ends);
                ((path, choice.cost), shared)
            }
            (None, Some(kept)) => ((kept.path, kept.cost), 0),
            (None, None) => return false,
        };
        if further.0 != diverse {
            (record.paths[DIRECT], record.costs[DIRECT]) = further;
        }
        least == 0
    }
}

/// The direct path, unless one of the others is it.
fn direct(
    links: &Links,
    class: usize,
    paths: &[Packed; PLACES],
    ends: (usize, usize),
) -> (Packed, u32) {
    let others = [paths[IN_USE], paths[DISJOINT], paths[DIVERSE]];
    if others.iter().any(|path| path.exists() && path.via().relays().is_empty()) {
        return (Packed::NONE, 0);
    }
    let cost = links.cost(class, ends.0, ends.1);
    if cost < NONE {
        (by_cheapest(links, class, Via::DIRECT, ends), cost)
    } else {
        (Packed::NONE, 0)
    }
}

impl Row {
    /// Whether nothing is remembered of a route that its path would be compared with.
    fn is_calm(&self, to: usize) -> bool {
        !self.left.contains(narrow(to))
            && (self.held.is_empty() || !self.held.contains_key(&narrow(to)))
    }

    /// Drops a route.
    pub(super) fn forget(
        &mut self,
        (from, to): (usize, usize),
        stride: usize,
        noted: &mut Noted,
        stats: &mut Stats,
    ) {
        let record = std::mem::replace(&mut self.records[to], Record::NONE);
        noted.note(stride, record.paths, [Packed::NONE; PLACES], (from, to));
        stats.tally(&record, &Record::NONE);
        (self.best[to], self.worst[to]) = (NONE, NONE);
        self.left.take(narrow(to));
        self.held.remove(&narrow(to));
    }

    /// Keeps the path in use or takes the best, which costs so much.
    fn reconsider(
        &mut self,
        field: &Field<'_>,
        place: &Place<'_>,
        to: usize,
        record: &mut Record,
        best: (Packed, u32),
    ) -> Move {
        let drains =
            |path: Packed| path.links(place.ends.0, to).any(|link| field.draining.contains(&link));
        let leave = !field.draining.is_empty()
            && record.exists()
            && drains(record.in_use())
            && !drains(best.0);
        if !record.exists() {
            record.paths[IN_USE] = best.0;
            record.costs[IN_USE] = best.1;
            record.normal = place.costs(best.0);
            (record.in_use_since, record.first_seen) = (place.now, place.now);
            return Move::Stayed;
        }
        let mut left = self.left.take(narrow(to));
        let (moved, cost) = place.consider(record, &mut left, best, leave);
        record.costs[IN_USE] = cost;
        let again = match moved {
            Move::Held => Some(place.is_held(record.in_use(), &left, best.0).unwrap_or(0)),
            // What was left is to be compared with the new path.
            Move::LeftUnusable | Move::LeftForBetter if !left.is_empty() => Some(0),
            Move::Stayed | Move::LeftUnusable | Move::LeftForBetter => None,
        };
        match again {
            Some(after) => {
                self.held.insert(narrow(to), place.now.saturating_add(after));
            }
            None if self.held.is_empty() => {}
            None => {
                self.held.remove(&narrow(to));
            }
        }
        self.left.put(narrow(to), left);
        moved
    }
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).expect("relays have ids of 16 bits")
}
