//! Counters since the start; the shell exports them.

use crate::ReportError;

/// What a scheduler counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Hellos that were taken.
    pub hellos: u64,
    /// Hellos that were refused.
    pub hellos_refused: u64,
    /// Sessions that ended.
    pub sessions_lost: u64,
    /// Reports that were taken.
    pub reports: u64,
    /// Reports that were refused, by reason.
    pub reports_refused: ReportsRefused,
    /// Links in taken reports that were passed over, since their neighbour is no longer of the mesh.
    pub report_links_ignored: u64,
    /// Goodbyes.
    pub goodbyes: u64,
    /// Plans computed.
    pub plans: u64,
    /// Of these, on a link's going down or coming up, or another change that does not wait.
    pub plans_urgent: u64,
    /// Epochs made.
    pub epochs: u64,
    /// Updates sent that change an acknowledged revision.
    pub updates_delta: u64,
    /// Updates sent with the whole state.
    pub updates_full: u64,
    /// Updates not sent because they were too large.
    pub updates_too_large: u64,
    /// Acknowledgements of the update in flight.
    pub acks: u64,
    /// Acknowledgements of anything else.
    pub acks_ignored: u64,
    /// Relays' requests for the whole state.
    pub resyncs: u64,
    /// Updates that were not acknowledged in time.
    pub ack_timeouts: u64,
    /// Times that no relay was heard.
    pub blind: u64,
    /// Events dropped because nobody polled them.
    pub events_dropped: u64,
}

/// Refused reports by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportsRefused {
    /// [`ReportError::Sequence`].
    pub sequence: u64,
    /// [`ReportError::TooManyLinks`].
    pub too_many_links: u64,
    /// [`ReportError::NotItsLink`].
    pub not_its_link: u64,
    /// [`ReportError::State`].
    pub state: u64,
    /// [`ReportError::OneWayDiff`].
    pub one_way_diff: u64,
    /// [`ReportError::RoundTrip`].
    pub round_trip: u64,
    /// [`ReportError::Jitter`].
    pub jitter: u64,
    /// [`ReportError::Samples`].
    pub samples: u64,
    /// [`ReportError::Lost`].
    pub lost: u64,
    /// [`ReportError::Rate`].
    pub rate: u64,
}

impl ReportsRefused {
    /// Counts one.
    pub(crate) fn count(&mut self, reason: ReportError) {
        let counter = match reason {
            ReportError::Sequence => &mut self.sequence,
            ReportError::TooManyLinks => &mut self.too_many_links,
            ReportError::NotItsLink => &mut self.not_its_link,
            ReportError::State => &mut self.state,
            ReportError::OneWayDiff => &mut self.one_way_diff,
            ReportError::RoundTrip => &mut self.round_trip,
            ReportError::Jitter => &mut self.jitter,
            ReportError::Samples => &mut self.samples,
            ReportError::Lost => &mut self.lost,
            ReportError::Rate => &mut self.rate,
        };
        *counter += 1;
    }
}
