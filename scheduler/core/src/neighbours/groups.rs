//! Who is of which region and which provider.

use std::collections::{BTreeMap, BTreeSet};

use overway_wire::RelayId;

/// Regions and providers that are told apart; further ones count as one, which only a mesh of relays that change
/// their region all the time ever sees.
const GROUPS_MAX: usize = 16_384;

/// Regions and providers by number. Numbers are never given again.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// A region begins with `r`, a provider with `p`.
    numbers: BTreeMap<String, usize>,
    members: Vec<BTreeSet<RelayId>>,
}

impl Groups {
    /// The groups of a relay.
    pub(super) fn of(&mut self, region: &str, provider: &str) -> [usize; 2] {
        [self.number(format!("r{region}")), self.number(format!("p{provider}"))]
    }

    fn number(&mut self, name: String) -> usize {
        if self.members.len() >= GROUPS_MAX && !self.numbers.contains_key(&name) {
            return GROUPS_MAX - 1;
        }
        let next = self.members.len();
        let number = *self.numbers.entry(name).or_insert(next);
        if number == next {
            self.members.push(BTreeSet::new());
        }
        number
    }

    pub(super) fn insert(&mut self, id: RelayId, groups: [usize; 2]) {
        for group in groups {
            self.members[group].insert(id);
        }
    }

    pub(super) fn remove(&mut self, id: RelayId, groups: [usize; 2]) {
        for group in groups {
            self.members[group].remove(&id);
        }
    }

    pub(super) fn members(&self, group: usize) -> &BTreeSet<RelayId> {
        &self.members[group]
    }

    /// Groups that have members, in order of number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &BTreeSet<RelayId>)> {
        self.members.iter().enumerate().filter(|(_, members)| !members.is_empty())
    }
}
