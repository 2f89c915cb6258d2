//! The counts as metrics, for whatever process the endpoint is in.

use overway_telemetry::{Exposition, export_counters};

use crate::Stats;

/// Adds the counts to a scrape.
pub fn export(out: &mut Exposition, stats: Stats) {
    export_counters!(
        out,
        "session_",
        stats,
        Stats {
            sessions_opened: "QUIC connections between ends established.",
            sessions_closed: "QUIC connections between ends that ended.",
            identity_refused: "Sessions refused: the certificate is not that of the address.",
            far_restarts: "Far ends seen to have started anew.",
            streams: "Streams opened or accepted.",
            flows: "Flows opened or accepted.",
            requests_refused: "Requests refused, by either side.",
            requests_invalid: "Requests that were malformed or too slow.",
            frames_sent: "Session frames sent.",
            frames_sought: "Session frames sent also to where a silent edge may be.",
            frames_received: "Session frames given to QUIC.",
            frames_duplicate: "Session frames that had come before.",
            frames_stale: "Session frames of an incarnation that ended.",
            frames_held: "Session frames that waited for an earlier one.",
            order_words_sent: "Words to far ends of how long frames wait here for order.",
            order_words_received: "Words of far ends of how long frames wait there for order.",
            frames_reordered: "Session frames that came late and filled a gap in time.",
            frames_late: "Session frames that came after their gap had been given up.",
            gaps_given_up: "Gaps given up.",
            frames_thrown_away: "Session frames thrown away because too many gaps had been given up.",
            frames_unexpected: "Frames that an end does not take.",
            datagrams_sent: "Datagrams handed to flows.",
            datagrams_received: "Datagrams given out by flows.",
            datagrams_dropped_full: "Datagrams not sent because the fabric was full.",
            datagrams_dropped_slow: "Datagrams dropped because their reader did not keep up.",
            datagrams_unknown_flow: "Datagrams of no open flow.",
            datagrams_forged: "Datagrams that are not authentic.",
            datagrams_duplicate: "Datagrams that had come before.",
            datagrams_old: "Datagrams older than the replay window.",
            datagrams_malformed: "Authentic datagrams whose inner header makes no sense.",
            datagrams_incomplete: "Datagrams of which a fragment did not come in time.",
        }
    );
}
