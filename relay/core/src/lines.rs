//! This relay's lines: links that leave over the same one keep to its capacity together, and take turns.
//!
//! ```text
//! link to 2 -- shaper: the lesser of both ends' lines --+
//! link to 3 -- shaper ----------------------------------+--> line: shaper, what our configuration says of it
//! link to 4 -- shaper ----------------------------------+
//! ```
//!
//! A message goes if its link's shaper and its line's let it. On a line, realtime of all links goes first, and bulk of
//! all links is owed an eighth of the bytes, as within a link; a bulk frame that its own link holds back is owed
//! nothing meanwhile. On each lane links take turns, message by message: next is the one after the last, in the order of
//! their ids; shards each have turns of their own. A line of unknown capacity holds nothing back, and there the connections' windows order the links.

use std::ops::Bound;
use std::time::Instant;

use overway_wire::hop::Lane;
use overway_wire::{LinkIndex, NeighbourLink, RelayId};

use crate::Config;
use crate::lane::shaper::{Shaper, Shares, Turn};

/// Before every link that there is: zero is no relay's.
const FIRST: NeighbourLink =
    NeighbourLink { neighbour: RelayId(0), index: LinkIndex::new(0).expect("at most 15") };
const LAST: NeighbourLink = NeighbourLink { neighbour: RelayId(u16::MAX), index: LinkIndex::MAX };

/// A lane of a link, as lanes with frames are ordered.
pub(crate) type Place = (Lane, NeighbourLink);

/// What of the lanes with frames may be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) link: NeighbourLink,
    pub(crate) lane: Lane,
    /// Whether the link's other lane competes with it for the link.
    pub(crate) contended: bool,
    /// Whether the other lane of any link competes with it for the line.
    pub(crate) crowded: bool,
}

/// The lines, by local address.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    shaper: Shaper,
    /// The link that sent last on each data lane.
    last: [NeighbourLink; Lane::DATA.len()],
}

impl Lines {
    /// Makes the lines as they are configured, unless there are some already. Other shards may be using them.
    pub(crate) fn open(&mut self, config: &Config, now: Instant) {
        if self.lines.is_empty() {
            let line = |(at, &rate): (usize, &u64)| {
                let shared = config.lines.as_ref().map(|lines| lines.of(Shares::Line(at)));
                Line { shaper: Shaper::new(rate, shared, now), last: [FIRST; Lane::DATA.len()] }
            };
            let unknown = [0];
            let rates: &[u64] =
                if config.lines_bps.is_empty() { &unknown } else { &config.lines_bps };
            self.lines = rates.iter().enumerate().map(line).collect();
        }
    }

    /// The lines carry something else from now on; those that are not named carry what is not known.
    pub(crate) fn set(&mut self, config: &Config, now: Instant) {
        for (at, line) in self.lines.iter_mut().enumerate() {
            let rate = config.lines_bps.get(at).copied().unwrap_or_default();
            let shared = config.lines.as_ref().map(|lines| lines.of(Shares::Line(at)));
            line.shaper.set_line(rate, shared, now);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The line of a local address; the last for what is beyond.
    pub(crate) fn of(&self, local_address: usize) -> usize {
        local_address.min(self.lines.len().saturating_sub(1))
    }

    /// Whether any line's capacity is known.
    pub(crate) fn is_any_set(&self) -> bool {
        self.lines.iter().any(|line| line.shaper.is_set())
    }

    /// Whether a line's capacity is known.
    pub(crate) fn is_set(&self, line: usize) -> bool {
        self.lines[line].shaper.is_set()
    }

    /// What a lane with frames may do, as far as the line goes. `crowded` says whether the other lane has frames as
    /// well, which might go if the line let them.
    pub(crate) fn turn(&self, line: usize, lane: Lane, crowded: bool, now: Instant) -> Turn {
        self.lines[line].shaper.turn(lane, crowded, now)
    }

    /// Charges what goes out over a link.
    pub(crate) fn charge(&mut self, line: usize, ready: Ready, cost: usize, now: Instant) {
        let Some(line) = self.lines.get_mut(line).filter(|line| line.shaper.is_set()) else {
            return;
        };
        line.shaper.charge(ready.lane, cost, ready.crowded, now);
        if let Some(at) = ready.lane.data_index() {
            line.last[at] = ready.link;
        }
    }

    /// The places of a lane's links in the order of their turns on a line: those after the last, then the others.
    pub(crate) fn turns(&self, line: usize, lane: Lane) -> [(Bound<Place>, Bound<Place>); 2] {
        let last = lane.data_index().map_or(FIRST, |at| self.lines[line].last[at]);
        [
            (Bound::Excluded((lane, last)), Bound::Included((lane, LAST))),
            (Bound::Included((lane, FIRST)), Bound::Included((lane, last))),
        ]
    }
}
