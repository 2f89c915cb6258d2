//! The pushed state: what the scheduler has told this relay, by key, at one revision.
//!
//! An update applies whole or not at all. A delta applies only to the revision that it names as its
//! base; a full one (base 0) replaces everything. An epoch older than the one held is refused, so that
//! a scheduler that lost an election cannot push old routes. The state is kept on disk as one full
//! update ([`Pushed::to_update`]) and read back at start by applying that.

use std::collections::BTreeMap;

use overway_wire::Epoch;
use overway_wire::control::{Item, Key, Update};

/// Items that a relay keeps: room for 5,000 relays in three classes under a dozen policies. More are refused.
const ITEMS_MAX: usize = 262_144;

/// The items at one revision.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    epoch: Epoch,
    revision: u64,
    items: BTreeMap<Key, Item>,
}

/// What an update has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Perhaps everything: it was a full one.
    Everything,
    /// The items with these keys, each new, another or gone. A key may be there twice.
    Keys(Vec<Key>),
}

/// Why an update was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushedError {
    /// The update changes another revision than the one held.
    #[error("update is for revision {base}, this relay holds {held}")]
    Base {
        /// The revision that the update changes.
        base: u64,
        /// The revision held.
        held: u64,
    },
    /// The update is of an older epoch.
    #[error("update is of epoch {offered}, older than {held}")]
    Epoch {
        /// The update's.
        offered: Epoch,
        /// The one held.
        held: Epoch,
    },
    /// More items than a relay keeps.
    #[error("update would make more than {ITEMS_MAX} items")]
    TooMany,
}

impl Pushed {
    /// The epoch of the last update.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The revision held, 0 if none.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The items, in the order of their keys.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// The item with this key.
    pub fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// Applies an update; says what it changed.
    ///
    /// # Errors
    /// Says why it was not; nothing is changed then.
    pub fn apply(&mut self, update: Update) -> Result<Changed, PushedError> {
        let offered = Epoch { term: update.epoch_term, sequence: update.epoch_sequence };
        if offered < self.epoch {
            return Err(PushedError::Epoch { offered, held: self.epoch });
        }
        if update.base != 0 && update.base != self.revision {
            return Err(PushedError::Base { base: update.base, held: self.revision });
        }
        let kept = if update.base == 0 { 0 } else { self.items.len() };
        if kept + update.put.len() > ITEMS_MAX {
            return Err(PushedError::TooMany);
        }
        if update.base == 0 {
            self.items.clear();
        }
        let mut changed = update.remove;
        for key in &changed {
            self.items.remove(key);
        }
        for item in update.put {
            if let Some(key) = item.key() {
                changed.push(key.clone());
                self.items.insert(key, item);
            }
        }
        self.epoch = offered;
        self.revision = update.revision;
        Ok(if update.base == 0 { Changed::Everything } else { Changed::Keys(changed) })
    }

    /// The whole state as one full update.
    pub fn to_update(&self) -> Update {
        Update {
            epoch_term: self.epoch.term,
            epoch_sequence: self.epoch.sequence,
            base: 0,
            revision: self.revision,
            put: self.items.values().cloned().collect(),
            remove: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::control::Node;

    fn node(relay: u32) -> Item {
        Node { relay, name: format!("relay-{relay}"), ..Node::default() }.into()
    }

    fn update(base: u64, revision: u64, put: Vec<Item>, remove: Vec<Key>) -> Update {
        Update { epoch_term: 1, epoch_sequence: revision, base, revision, put, remove }
    }

    #[test]
    fn a_delta_applies_to_its_base_alone() {
        let mut pushed = Pushed::default();
        pushed.apply(update(0, 5, vec![node(1), node(2)], vec![])).unwrap();

        let refused = pushed.apply(update(4, 6, vec![node(3)], vec![]));
        assert_eq!(refused, Err(PushedError::Base { base: 4, held: 5 }));
        assert_eq!((pushed.revision(), pushed.items().count()), (5, 2));

        let remove = vec![node(1).key().unwrap()];
        let changed = pushed.apply(update(5, 6, vec![node(3)], remove)).unwrap();
        let keys = [node(1), node(3)].map(|item| item.key().unwrap());
        assert_eq!(changed, Changed::Keys(keys.to_vec()));
        assert_eq!(pushed.items().cloned().collect::<Vec<_>>(), [node(2), node(3)]);
    }

    #[test]
    fn an_older_epoch_is_refused_even_as_a_full_update() {
        let mut pushed = Pushed::default();
        let newer = Update { epoch_term: 2, revision: 9, ..Update::default() };
        pushed.apply(newer).unwrap();

        assert!(matches!(
            pushed.apply(update(0, 3, vec![], vec![])),
            Err(PushedError::Epoch { .. })
        ));
    }

    #[test]
    fn the_state_survives_as_one_full_update() {
        let mut pushed = Pushed::default();
        pushed.apply(update(0, 5, vec![node(1), node(2)], vec![])).unwrap();

        let mut restored = Pushed::default();
        restored.apply(pushed.to_update()).unwrap();

        assert_eq!(restored.to_update(), pushed.to_update());
    }
}
