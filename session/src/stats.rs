//! Counters of an endpoint: atomics inside, a plain snapshot outside.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the endpoint's start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The live counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

/// One counter. Relaxed: counters order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// Adds the growth of a total that is counted elsewhere.
    pub(crate) fn add_growth(&self, seen: &mut u64, total: u64) {
        if total > *seen {
            self.add(total - *seen);
            *seen = total;
        }
    }
}

counters! {
    /// QUIC connections established, by either side.
    sessions_opened,
    /// QUIC connections that ended.
    sessions_closed,
    /// Connections refused because the certificate is not that of the relay at the address, or because the edge's token
    /// counts for nothing.
    identity_refused,
    /// Far ends found to have started anew; the sessions of their earlier incarnation were closed.
    far_restarts,
    /// Streams opened or accepted, answered with ok.
    streams,
    /// Flows opened or accepted, answered with ok.
    flows,
    /// Requests for streams and flows refused, by either side.
    requests_refused,
    /// Requests from far ends that were malformed or too slow.
    requests_invalid,
    /// Session frames sent.
    frames_sent,
    /// Of edges that are sought where they may be: session frames sent there too.
    frames_sought,
    /// Session frames given to QUIC.
    frames_received,
    /// Session frames dropped because they had come before, or as late as QUIC does not take them.
    frames_duplicate,
    /// Session frames dropped because they came from an incarnation that ended just before, or bear one that no far edge
    /// was given.
    frames_stale,
    /// Session frames that waited for an earlier one.
    frames_held,
    /// Words to far ends of how long frames wait here for order.
    order_words_sent,
    /// Words of far ends of how long frames wait there.
    order_words_received,
    /// Session frames that came late and filled a gap in time.
    frames_reordered,
    /// Session frames that came after their gap had been given up.
    frames_late,
    /// Gaps given up: what was missing is lost, or late.
    gaps_given_up,
    /// Frames thrown away with a gap, since too many gaps had been given up of late.
    frames_thrown_away,
    /// Frames of a kind that an end does not take, or too long for QUIC.
    frames_unexpected,
    /// Datagrams handed to a flow for sending.
    datagrams_sent,
    /// Datagrams that a flow gave out.
    datagrams_received,
    /// Datagrams not sent because the fabric was full.
    datagrams_dropped_full,
    /// Datagrams dropped because the receiver of the flow did not keep up; the oldest went.
    datagrams_dropped_slow,
    /// Sealed datagrams of no open flow.
    datagrams_unknown_flow,
    /// Sealed datagrams that are not authentic.
    datagrams_forged,
    /// Sealed datagrams dropped because they had come before.
    datagrams_duplicate,
    /// Sealed datagrams dropped because they are older than the replay window.
    datagrams_old,
    /// Authentic datagrams whose inner header makes no sense.
    datagrams_malformed,
    /// Datagrams given up because a fragment did not come in time.
    datagrams_incomplete,
}
