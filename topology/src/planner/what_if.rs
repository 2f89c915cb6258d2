//! What would be used without some relays and links.

use std::collections::BTreeMap;

use super::Planner;
use super::plane::Field;
use super::renew::Scratch;
use super::search::Known;
use super::table::Record;
use crate::{Candidate, Cuts, RouteKey};

impl Planner {
    /// The candidates of these routes in a mesh without what is cut, as if chosen for the first time; none where
    /// nothing leads there. The mesh is not touched.
    pub fn what_if(&self, cuts: &Cuts, keys: &[RouteKey]) -> Vec<Vec<Candidate>> {
        let mut links = self.links.clone();
        let cut_relays = cuts.relays.iter().filter_map(|id| self.numbers.of(*id));
        for relay in cut_relays {
            for other in 0..self.numbers.stride() {
                links.set(relay, other, &[]);
                links.set(other, relay, &[]);
            }
        }
        for (one, other) in &cuts.links {
            if let (Some(one), Some(other)) = (self.numbers.of(*one), self.numbers.of(*other)) {
                links.set(one, other, &[]);
                links.set(other, one, &[]);
            }
        }
        let field = Field { links: &links, admitted: None, ..self.field(0) };
        let mut known = Known::default();
        let mut scratches: BTreeMap<(usize, usize), Scratch> = BTreeMap::new();
        keys.iter()
            .map(|key| {
                let Some((plane, from, to)) = self.find(*key) else { return Vec::new() };
                let head = &plane.head;
                if !head.ends[from] || !head.ends[to] || from == to {
                    return Vec::new();
                }
                // Keys come by source mostly: only the last source's ways are kept.
                let at = (head.class + usize::from(head.policy.0) * 4, from);
                if !scratches.contains_key(&at) {
                    scratches.clear();
                }
                let scratch = scratches.entry(at).or_insert_with(|| {
                    let mut scratch = Scratch::default();
                    scratch.start(&field, head, from);
                    scratch
                });
                let terrain = field.terrain(head, &links);
                let mut hints = known.hints(&scratch.all, &terrain, to);
                let found = scratch.best(&field, head, (from, to), &mut hints);
                let Some(((best, _), _)) = found else {
                    return Vec::new();
                };
                let mut record = Record::new(best);
                let place = field.place(head, (from, to));
                scratch.back_up(&field, head, &mut record, &place, &mut hints);
                self.decode(&links, head, &record, (from, to))
            })
            .collect()
    }
}
