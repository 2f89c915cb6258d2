//! Relays by number: the positions of their rows.
//!
//! Numbers are given by nearness, so that relays which are near one another are in one block and most
//! blocks of a row need not be looked at. They stay as they are while relays come and go: one that goes leaves
//! a hole, one that comes takes the first. When there is no room left, all are numbered anew.

use std::collections::BTreeMap;

use overway_wire::RelayId;

use super::kernel::{BLOCK, CHUNK};

/// The number of each relay, and back.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    ids: Vec<Option<RelayId>>,
    by_id: BTreeMap<RelayId, usize>,
    stride: usize,
}

impl Numbers {
    /// Numbers the relays, given in order of id, by what a link between two costs (the greatest number if there is none).
    pub(super) fn new(relays: &[RelayId], cost: impl Fn(usize, usize) -> u32) -> Self {
        let mut order: Vec<usize> = (0..relays.len()).collect();
        sort_by_nearness(&mut order, &|from, to| cost(from, to).min(cost(to, from)));
        let ids: Vec<Option<RelayId>> = order.iter().map(|&at| Some(relays[at])).collect();
        let by_id = (0..).zip(&ids).filter_map(|(number, id)| Some(((*id)?, number))).collect();
        // A sixteenth more, so that a mesh that grows is not numbered anew for each relay.
        let stride = (relays.len() + relays.len() / 16 + 1).next_multiple_of(CHUNK);
        Self { ids, by_id, stride }
    }

    /// Length of a row: at least the greatest number and one.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Relays.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The number of a relay.
    pub(super) fn of(&self, id: RelayId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The relay of a number.
    pub(super) fn id(&self, number: usize) -> Option<RelayId> {
        self.ids.get(number).copied().flatten()
    }

    /// Every relay in order of id, with its number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RelayId, usize)> {
        self.by_id.iter().map(|(&id, &number)| (id, number))
    }

    /// Gives a new relay a number, or `None` if there is no room.
    pub(super) fn add(&mut self, id: RelayId) -> Option<usize> {
        let number = self.ids.iter().position(Option::is_none).unwrap_or(self.ids.len());
        if number >= self.stride {
            return None;
        }
        self.ids.resize(self.ids.len().max(number + 1), None);
        self.ids[number] = Some(id);
        self.by_id.insert(id, number);
        Some(number)
    }

    /// Frees a relay's number.
    pub(super) fn remove(&mut self, id: RelayId) -> Option<usize> {
        let number = self.by_id.remove(&id)?;
        self.ids[number] = None;
        Some(number)
    }
}

/// Takes a relay and those nearest to it as a block, then the nearest of the rest and its nearest, and so on.
fn sort_by_nearness(order: &mut [usize], cost: &impl Fn(usize, usize) -> u32) {
    let mut rest = order;
    while rest.len() > 1 {
        let leader = rest[0];
        rest[1..].sort_by_cached_key(|at| (cost(leader, *at), *at));
        let taken = BLOCK.min(rest.len());
        rest = &mut rest[taken..];
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::NONE;
    use super::*;

    fn ids(count: u16) -> Vec<RelayId> {
        (1..=count).map(RelayId).collect()
    }

    #[test]
    fn relays_of_one_city_are_numbered_together() {
        let city = |at: usize| at % 4;
        let cost = |from, to| if city(from) == city(to) { 1_000 } else { 50_000 };

        let numbers = Numbers::new(&ids(128), cost);

        for quarter in 0..4 {
            let at = |number: usize| city(usize::from(numbers.id(number).unwrap().0) - 1);
            let first = at(quarter * 32);
            assert!((0..32).all(|offset| at(quarter * 32 + offset) == first));
        }
    }

    #[test]
    fn a_relay_that_comes_takes_the_number_of_one_that_went() {
        let mut numbers = Numbers::new(&ids(3), |_, _| NONE);
        let freed = numbers.remove(RelayId(2)).unwrap();

        assert_eq!(numbers.add(RelayId(9)), Some(freed));
        assert_eq!((numbers.of(RelayId(9)), numbers.of(RelayId(2))), (Some(freed), None));
        assert_eq!(numbers.len(), 3);
    }

    #[test]
    fn there_is_room_for_some_more_and_then_no_more() {
        let mut numbers = Numbers::new(&ids(60), |_, _| NONE);
        let added = (100..).map(RelayId).take_while(|id| numbers.add(*id).is_some()).count();

        assert_eq!(added, numbers.stride() - 60);
    }
}
