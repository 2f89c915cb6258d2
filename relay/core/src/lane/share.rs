//! What a lower class is owed when a higher one goes first.

/// The lower one's share of the bytes while both wait: an eighth.
pub(super) const SHARE: usize = 8;

/// The account between a higher class that goes first and a lower one that keeps a floor.
///
/// While the lower one waits, each byte of the higher one that goes before it is owed to it; once that is seven
/// times what its next frame costs, that goes first and is paid for. The account never falls below zero, so
/// that what the lower one sent while the other was idle is not held against it, and is closed when the
/// lower one has nothing that waits. So in any time in which both wait the lower one sends an eighth of the
/// bytes, less at most two frames; and never much more than one full frame of it goes in a row.
#[derive(Debug, Default)]
pub(super) struct Share {
    owed: usize,
}

impl Share {
    /// Whether it is the lower one's turn, with a frame of this cost.
    pub(super) fn is_due(&self, next: usize) -> bool {
        self.owed >= next * (SHARE - 1)
    }

    /// The higher one went first while the lower one waited.
    pub(super) fn pass(&mut self, cost: usize) {
        self.owed += cost;
    }

    /// The lower one went.
    pub(super) fn pay(&mut self, cost: usize) {
        self.owed = self.owed.saturating_sub(cost * (SHARE - 1));
    }

    /// The lower one has nothing that waits.
    pub(super) fn close(&mut self) {
        self.owed = 0;
    }
}
