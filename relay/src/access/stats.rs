//! Counters of the access side: atomics inside, a plain snapshot outside.

use std::sync::atomic::{AtomicU64, Ordering};

use overway_wire::access::messages::RefusalCode;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the relay's start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct AccessStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Edges attached now.
            pub attachments: u64,
            /// Edges refused, by [`REFUSALS`].
            pub refused: [u64; REFUSALS.len()],
            /// Frames dropped, by [`AccessDrop::ALL`].
            pub dropped: [u64; AccessDrop::ALL.len()],
        }

        /// The live counters behind [`AccessStats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            pub(crate) attachments: Counter,
            refused: [Counter; REFUSALS.len()],
            dropped: [Counter; AccessDrop::ALL.len()],
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> AccessStats {
                AccessStats {
                    $($name: self.$name.read(),)*
                    attachments: self.attachments.read(),
                    refused: self.refused.each_ref().map(Counter::read),
                    dropped: self.dropped.each_ref().map(Counter::read),
                }
            }
        }
    };
}

/// Why edges are refused, with the label of each.
pub const REFUSALS: [(RefusalCode, &str); 10] = [
    (RefusalCode::Malformed, "malformed"),
    (RefusalCode::Version, "version"),
    (RefusalCode::Token, "token"),
    (RefusalCode::Revoked, "revoked"),
    (RefusalCode::Proof, "proof"),
    (RefusalCode::Tenant, "tenant"),
    (RefusalCode::Full, "full"),
    (RefusalCode::Draining, "draining"),
    (RefusalCode::Cell, "cell"),
    (RefusalCode::Quota, "quota_attachments"),
];

/// Why a frame between an edge and the mesh is dropped. Also the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessDrop {
    /// From an edge: no access datagram, or one that goes the other way.
    Malformed,
    /// From an edge: its token does not name the class.
    Class,
    /// From an edge: to a relay or its gateway, which are not edges.
    Destination,
    /// From an edge: its tenant sends more in the class than it may.
    QuotaRate,
    /// From an edge: a new flow, and its tenant has as many as it may.
    QuotaFlows,
    /// From an edge: its tenant has sent what it may this month.
    QuotaMonth,
    /// From an edge: the mesh's workers do not keep up.
    MeshFull,
    /// For an edge: from another tenant, or from no tenant at all.
    OtherTenant,
    /// For an edge: its connection ended before it was sent.
    Ended,
}

impl AccessDrop {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Class,
        Self::Destination,
        Self::QuotaRate,
        Self::QuotaFlows,
        Self::QuotaMonth,
        Self::MeshFull,
        Self::OtherTenant,
        Self::Ended,
    ];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Class => "class",
            Self::Destination => "destination",
            Self::QuotaRate => "quota_rate",
            Self::QuotaFlows => "quota_flows",
            Self::QuotaMonth => "quota_month",
            Self::MeshFull => "mesh_full",
            Self::OtherTenant => "other_tenant",
            Self::Ended => "ended",
        }
    }
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

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn drop_frames(&self, reason: AccessDrop, count: u64) {
        self.dropped[reason as usize].add(count);
    }

    pub(crate) fn refuse(&self, code: RefusalCode) {
        if let Some(at) = REFUSALS.iter().position(|&(refusal, _)| refusal == code) {
            self.refused[at].increment();
        }
    }
}

counters! {
    /// Handshakes that began.
    handshakes,
    /// Of these, turned away because too many were under way.
    handshakes_refused,
    /// Addresses that had to be proven first (QUIC Retry).
    handshakes_retried,
    /// Handshakes that failed, or were not followed by an attach in time.
    handshakes_failed,
    /// Askers for the nearest relays before they attached.
    asked,
    /// Edges that attached.
    attached,
    /// Of these, over TLS on TCP, where UDP did not come through.
    attached_tcp,
    /// Of all, edges that were attached already, by another connection.
    replaced,
    /// Attachments that ended.
    ended,
    /// Of these, ended by the relay: revoked, expired or malformed.
    ended_by_relay,
    /// Frames from edges handed to the mesh.
    frames_up,
    /// Their bytes.
    bytes_up,
    /// Frames sent to edges.
    frames_down,
    /// Their bytes.
    bytes_down,
    /// Times that an edge fell silent for one and a half intervals.
    suspects,
    /// Times that an edge fell silent for three.
    downs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_in_its_place() {
        let counters = Counters::default();
        for (count, reason) in (1..).zip(AccessDrop::ALL) {
            counters.drop_frames(reason, count);
        }
        for (code, _) in REFUSALS {
            counters.refuse(code);
        }
        counters.refuse(RefusalCode::Unknown);

        let stats = counters.snapshot();
        assert_eq!(stats.dropped, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(stats.refused, [1; 10]);
    }
}
