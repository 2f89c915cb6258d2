//! What is known of a relay and of the links on which it receives, in order, so that all of them lie side by side.

use std::ops::Range;

use overway_wire::{LinkId, NeighbourLink, RelayId};

use super::{Line, Word};
use crate::report::Observation;

/// What is known of a relay, and of the links on which it receives.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) word: Word,
    /// Links on which relays whose word counts hear it.
    pub(super) hearers: u32,
    /// Links on which it receives and that are usable.
    pub(super) usable: u32,
    /// In order of neighbour and index.
    pub(super) entries: Vec<Entry>,
}

/// A link in its receiver's row. It may be observed and not planned, since a neighbour may register after the
/// first report about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) link: NeighbourLink,
    pub(super) observed: Option<Observation>,
    pub(super) planned: Option<Line>,
    /// As last judged.
    pub(super) usable: bool,
    pub(super) dirty: bool,
}

impl Row {
    pub(super) fn is_alive(&self) -> bool {
        self.word.fresh || self.hearers > 0
    }

    pub(super) fn find(&self, id: LinkId) -> Option<usize> {
        let link = NeighbourLink::new(id.from, id.index);
        self.entries.binary_search_by_key(&link, |entry| entry.link).ok()
    }

    /// Where the entries of a neighbour are.
    pub(super) fn about(&self, neighbour: RelayId) -> Range<usize> {
        let first = self.entries.partition_point(|entry| entry.link.neighbour < neighbour);
        let end = self.entries.partition_point(|entry| entry.link.neighbour <= neighbour);
        first..end
    }

    pub(super) fn entry_mut(&mut self, id: LinkId) -> &mut Entry {
        let link = NeighbourLink::new(id.from, id.index);
        let at = match self.entries.binary_search_by_key(&link, |entry| entry.link) {
            Ok(at) => at,
            Err(at) => {
                let new =
                    Entry { link, observed: None, planned: None, usable: false, dirty: false };
                self.entries.insert(at, new);
                at
            }
        };
        &mut self.entries[at]
    }
}
