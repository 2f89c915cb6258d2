//! Why a route is what it is, as plain structs.

use std::collections::BTreeSet;
use std::time::Duration;

use overway_wire::{LinkId, LossPpm, Micros, RelayId};

use crate::{Candidate, Cost, LinkDelay, LinkMeasure, LinkTerms, RouteKey};

/// A route, its path in use and what it competes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Which route.
    pub key: RouteKey,
    /// The path in use.
    pub current: Explained,
    /// Its backups as pushed, then the cheapest path now if that is none of them.
    pub others: Vec<Explained>,
    /// The direct link, whether it is among the others or not; absent where there is none to be had.
    pub direct: Option<Explained>,
    /// For how long the path has been in use.
    pub in_use_for: Duration,
    /// How often the route moved since it is known.
    pub moves: u32,
    /// Whether some path shares no relay with the one in use.
    pub has_disjoint: bool,
    /// Whether some path avoids the providers or the regions of the one in use.
    pub has_diverse: bool,
}

/// A path with everything that decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The path; its reason is that of the candidate, [`crate::Reason::Best`] for the cheapest now.
    pub candidate: Candidate,
    /// Its links, in order.
    pub links: Vec<ExplainedLink>,
    /// Sum of the links' terms.
    pub terms: LinkTerms,
    /// What became of it.
    pub verdict: Verdict,
    /// What it misses of what the class needs.
    pub misses: Vec<Miss>,
}

/// A link of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainedLink {
    /// Which.
    pub id: LinkId,
    /// What it costs the class.
    pub terms: LinkTerms,
    /// Its delays, clock offsets taken out.
    pub delay: LinkDelay,
    /// What was measured.
    pub measure: LinkMeasure,
}

/// Why a path is in use or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In use, and the cheapest.
    Cheapest,
    /// In use; another is cheaper by this much, which is not worth a move.
    Kept {
        /// How much the cheapest one would save.
        saving: Cost,
    },
    /// In use; a cheaper one was left lately and has to hold for a while.
    KeptWhileHeld {
        /// How much the cheapest one would save.
        saving: Cost,
    },
    /// Costs this much more than the path in use.
    Dearer {
        /// The difference.
        by: Cost,
    },
    /// Cheaper than the path in use, by less than a move is worth.
    NotWorthMoving {
        /// The difference.
        saving: Cost,
    },
    /// Cheaper, but it was left lately: it must first have been cheaper without pause.
    HeldAfterLeaving {
        /// The difference.
        saving: Cost,
        /// How long it still has to hold.
        remaining: Duration,
    },
    /// A link or a relay of it is being drained.
    Draining,
    /// A link of it failed lately and has to hold first.
    Readmission,
}

/// What a path misses of what its class needs. It is used nevertheless where there is none better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Frames come later than the class can use.
    Deadline {
        /// Expected one-way delay.
        delay: Micros,
        /// At most this.
        limit: Micros,
    },
    /// Less arrives than the class needs.
    Delivery {
        /// Expected loss before recovery.
        loss: LossPpm,
        /// At most this.
        limit: LossPpm,
    },
}

/// What a what-if question takes out of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Relays, with all their links.
    pub relays: BTreeSet<RelayId>,
    /// Pairs of relays: all their links, both ways.
    pub links: BTreeSet<(RelayId, RelayId)>,
}

impl Cuts {
    /// Whether a link is cut.
    pub fn contains(&self, link: LinkId) -> bool {
        let LinkId { from, to, index: _ } = link;
        self.relays.contains(&from)
            || self.relays.contains(&to)
            || self.links.contains(&(from, to))
            || self.links.contains(&(to, from))
    }
}
