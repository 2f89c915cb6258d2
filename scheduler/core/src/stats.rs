//! Counters since the start; the shell exports them.

use crate::ReportError;

/// What a scheduler counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Hellos that were taken.
    pub hellos: u64,
    /// Hellos that were refused.
    pub hellos_refused: u64,
    /// Of these, those that claimed a term which no scheduler can have come to.
    pub terms_absurd: u64,
    /// Times that a greater term was taken while running.
    pub terms_raised: u64,
    /// Sessions that ended.
    pub sessions_lost: u64,
    /// Reports that were taken.
    pub reports: u64,
    /// Reports that were refused, by reason.
    pub reports_refused: ReportsRefused,
    /// What taken reports said of links that cannot be true.
    pub absurd: Absurd,
    /// Sessions ended because the relay's reports did not count up.
    pub sessions_out_of_step: u64,
    /// Links in taken reports that were passed over, since their neighbour is no longer of the mesh.
    pub report_links_ignored: u64,
    /// Demands in taken reports that were passed over: of an unknown destination, class or policy, or too many.
    pub report_demands_ignored: u64,
    /// Words of relays on what edges offer there.
    pub offers: u64,
    /// Offers in these that were passed over: they make no sense, or are too many.
    pub offers_refused: u64,
    /// Words of relays on what users feel there.
    pub qualities: u64,
    /// Services in these that were passed over: what is said of them makes no sense.
    pub qualities_refused: u64,
    /// Services in these that counted as others, there being too many.
    pub qualities_other: u64,
    /// Services left out because their tenant has too many, each time that they were made.
    pub services_refused: u64,
    /// Endpoints left out because their service has too many, each time that it was made.
    pub endpoints_refused: u64,
    /// Distances to networks that were passed over: they make no sense, or are too many.
    pub distances_refused: u64,
    /// Networks left out because their bucket has too many, each time that it was made.
    pub prefixes_refused: u64,
    /// Links judged, each time that something about one changed.
    pub links_judged: u64,
    /// Times that a relay was doubted: one of its neighbours had lost it, and nobody else had spoken yet.
    pub doubts: u64,
    /// Links put into the probe plan.
    pub links_added: u64,
    /// Links taken out of the probe plan.
    pub links_removed: u64,
    /// Goodbyes.
    pub goodbyes: u64,
    /// Plans computed.
    pub plans: u64,
    /// Of these, on a link's going down or coming up, or another change that does not wait.
    pub plans_urgent: u64,
    /// Times that demand was placed on paths.
    pub placements: u64,
    /// Routes whose shares changed.
    pub weights_changed: u64,
    /// Times that a link or a relay had to carry more than it can.
    pub overloads: u64,
    /// Routes changed by plans.
    pub routes_changed: u64,
    /// Epochs made.
    pub epochs: u64,
    /// Updates sent that change an acknowledged revision.
    pub updates_delta: u64,
    /// Updates sent with the whole state.
    pub updates_full: u64,
    /// Updates sent that hold a part only, the rest following in the next.
    pub updates_partial: u64,
    /// Bytes of updates sent.
    pub update_bytes: u64,
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
    /// Times that the scheduler was busy or asleep for longer than its timers allow.
    pub stalls: u64,
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
}

/// What links' reports said that cannot be true, by kind. It was passed over, and the rest of the report taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absurd {
    /// A liveness that does not exist, taken as unknown.
    pub state: u64,
    /// A one-way difference that no two clocks have.
    pub one_way_diff: u64,
    /// A round trip, or its variation, above a minute.
    pub round_trip: u64,
    /// A jitter above a minute.
    pub jitter: u64,
    /// More samples than a window can have.
    pub samples: u64,
    /// More lost than sent.
    pub lost: u64,
    /// More bits than any line carries, taken as none.
    pub rate: u64,
}

impl Absurd {
    /// Adds what one report had.
    pub(crate) fn add(&mut self, report: Self) {
        let Self { state, one_way_diff, round_trip, jitter, samples, lost, rate } = report;
        self.state += state;
        self.one_way_diff += one_way_diff;
        self.round_trip += round_trip;
        self.jitter += jitter;
        self.samples += samples;
        self.lost += lost;
        self.rate += rate;
    }
}

impl ReportsRefused {
    /// Counts one.
    pub(crate) fn count(&mut self, reason: ReportError) {
        let counter = match reason {
            ReportError::Sequence => &mut self.sequence,
            ReportError::TooManyLinks => &mut self.too_many_links,
            ReportError::NotItsLink => &mut self.not_its_link,
        };
        *counter += 1;
    }
}
