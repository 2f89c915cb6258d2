//! What the gateway counts. Tasks add to shared [`Counters`]; [`Stats`] is a plain copy of them at one
//! moment, for metrics and tests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection or flow was not carried. The name is the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The listener or service carries its maximum already.
    Full,
    /// More newcomers in a second than the listener takes.
    TooFast,
    /// The source is not among those from which the forward takes PROXY headers.
    Untrusted,
    /// A trusted source did not send a proper PROXY header, or not in time.
    ProxyHeader,
    /// What the client sent is not SOCKS5.
    SocksMalformed,
    /// The client did not say in time what it wants of the SOCKS listener.
    SocksTimedOut,
    /// The client did not show a name and password that the SOCKS listener knows.
    SocksCredentials,
    /// The client wants something else of the SOCKS listener than CONNECT or UDP ASSOCIATE.
    SocksCommand,
    /// What is asked for is not among what the SOCKS listener or the exit allows.
    NotAllowed,
    /// The forward's policy is not among those that this relay has been told of.
    UnknownPolicy,
    /// No relay that the forward's policy allows is known to offer the service.
    NoRelay,
    /// No relay that offers the service could be reached in time.
    Unreachable,
    /// Relays drop what is sent, for the tenant uses what its quota allows.
    Limited,
    /// The far gateway said no.
    Declined,
    /// The client went away while its connection was being opened.
    ClientLeft,
    /// The service is not among those this gateway's configuration lists.
    Unlisted,
    /// The target's name did not resolve.
    TargetUnresolved,
    /// The target refused the connection, or the network did.
    TargetRefused,
    /// The target did not answer in time.
    TargetTimedOut,
    /// The gateway is stopping.
    Stopping,
}

/// Why a datagram was not carried. The name is the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatagramDrop {
    /// More than [`crate::DATAGRAM_BYTES_MAX`] bytes.
    Oversize,
    /// The listener serves its maximum of clients already, or the gateway is stopping.
    NoPlace,
    /// It is from a new client, and more came in this second than the forward takes.
    TooFast,
    /// The source is not among those from which the forward takes PROXY headers, or not the SOCKS client's.
    Untrusted,
    /// A trusted source did not send a proper PROXY header with it.
    ProxyHeader,
    /// Its SOCKS header makes no sense, or it is a fragment.
    SocksMalformed,
    /// What it is for is not among what the SOCKS listener allows.
    NotAllowed,
    /// Too many datagrams of the client wait for its flow.
    QueueFull,
    /// The client's flow could not be opened or has ended.
    NoFlow,
    /// The socket did not take it, or the target said that nobody listens.
    Socket,
}

/// The counters at one moment. Totals are since the gateway's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// TCP connections that clients made to forwards and SOCKS listeners.
    pub connections_accepted: u64,
    /// TCP connections made to targets for other relays' clients.
    pub connections_served: u64,
    /// TCP connections carried now, of both sorts.
    pub connections_active: u64,
    /// Carried TCP connections that ended by a reset of either end.
    pub connections_reset: u64,
    /// Carried TCP connections that ended because their session did.
    pub connections_lost: u64,
    /// Carried TCP connections that were ended because nothing was sent for the idle time-out.
    pub connections_expired: u64,
    /// Bytes read from TCP sockets and given to sessions.
    pub stream_bytes_to_mesh: u64,
    /// Bytes taken from sessions and written to TCP sockets.
    pub stream_bytes_from_mesh: u64,
    /// Flows opened for UDP clients, reopened ones included.
    pub flows_opened: u64,
    /// Flows served for other relays' clients.
    pub flows_served: u64,
    /// UDP clients and served flows that exist now.
    pub flows_active: u64,
    /// UDP clients and served flows that ended because nothing was sent for the idle time-out.
    pub flows_expired: u64,
    /// Datagrams read from UDP sockets and given to sessions.
    pub datagrams_to_mesh: u64,
    /// Datagrams taken from sessions and sent by UDP sockets.
    pub datagrams_from_mesh: u64,
    /// Bytes of [`Self::datagrams_to_mesh`].
    pub datagram_bytes_to_mesh: u64,
    /// Bytes of [`Self::datagrams_from_mesh`].
    pub datagram_bytes_from_mesh: u64,
    /// Connections and flows that were not carried, by reason; every reason is there.
    pub refused: BTreeMap<Refusal, u64>,
    /// Datagrams that were not carried, by reason; every reason is there.
    pub dropped: BTreeMap<DatagramDrop, u64>,
}

/// A total that tasks add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// The live counters; fields as in [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_served: Counter,
    pub(crate) connections_active: Arc<Counter>,
    pub(crate) connections_reset: Counter,
    pub(crate) connections_lost: Counter,
    pub(crate) connections_expired: Counter,
    pub(crate) stream_bytes_to_mesh: Counter,
    pub(crate) stream_bytes_from_mesh: Counter,
    pub(crate) flows_opened: Counter,
    pub(crate) flows_served: Counter,
    pub(crate) flows_active: Arc<Counter>,
    pub(crate) flows_expired: Counter,
    pub(crate) datagrams_to_mesh: Counter,
    pub(crate) datagrams_from_mesh: Counter,
    pub(crate) datagram_bytes_to_mesh: Counter,
    pub(crate) datagram_bytes_from_mesh: Counter,
    refused: [Counter; Refusal::ALL.len()],
    dropped: [Counter; DatagramDrop::ALL.len()],
}

/// Counts one thing as there, until it is dropped.
#[derive(Debug)]
pub(crate) struct Present(Arc<Counter>);

impl Refusal {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 20] = [
        Self::Full,
        Self::TooFast,
        Self::Untrusted,
        Self::ProxyHeader,
        Self::SocksMalformed,
        Self::SocksTimedOut,
        Self::SocksCredentials,
        Self::SocksCommand,
        Self::NotAllowed,
        Self::UnknownPolicy,
        Self::NoRelay,
        Self::Unreachable,
        Self::Limited,
        Self::Declined,
        Self::ClientLeft,
        Self::Unlisted,
        Self::TargetUnresolved,
        Self::TargetRefused,
        Self::TargetTimedOut,
        Self::Stopping,
    ];

    /// Its name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TooFast => "too_fast",
            Self::Untrusted => "untrusted",
            Self::ProxyHeader => "proxy_header",
            Self::SocksMalformed => "socks_malformed",
            Self::SocksTimedOut => "socks_timed_out",
            Self::SocksCredentials => "socks_credentials",
            Self::SocksCommand => "socks_command",
            Self::NotAllowed => "not_allowed",
            Self::UnknownPolicy => "unknown_policy",
            Self::NoRelay => "no_relay",
            Self::Unreachable => "unreachable",
            Self::Limited => "limited",
            Self::Declined => "declined",
            Self::ClientLeft => "client_left",
            Self::Unlisted => "unlisted",
            Self::TargetUnresolved => "target_unresolved",
            Self::TargetRefused => "target_refused",
            Self::TargetTimedOut => "target_timed_out",
            Self::Stopping => "stopping",
        }
    }
}

impl DatagramDrop {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Oversize,
        Self::NoPlace,
        Self::TooFast,
        Self::Untrusted,
        Self::ProxyHeader,
        Self::SocksMalformed,
        Self::NotAllowed,
        Self::QueueFull,
        Self::NoFlow,
        Self::Socket,
    ];

    /// Its name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::NoPlace => "no_place",
            Self::TooFast => "too_fast",
            Self::Untrusted => "untrusted",
            Self::ProxyHeader => "proxy_header",
            Self::SocksMalformed => "socks_malformed",
            Self::NotAllowed => "not_allowed",
            Self::QueueFull => "queue_full",
            Self::NoFlow => "no_flow",
            Self::Socket => "socket",
        }
    }
}

impl Counter {
    pub(crate) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Present {
    pub(crate) fn new(counter: &Arc<Counter>) -> Self {
        counter.increment();
        Self(Arc::clone(counter))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused[reason as usize].increment();
    }

    pub(crate) fn discard(&self, reason: DatagramDrop, datagrams: usize) {
        self.dropped[reason as usize].add(datagrams);
    }

    pub(crate) fn sent_to_mesh(&self, datagram_bytes: usize) {
        self.datagrams_to_mesh.increment();
        self.datagram_bytes_to_mesh.add(datagram_bytes);
    }

    pub(crate) fn sent_from_mesh(&self, datagram_bytes: usize) {
        self.datagrams_from_mesh.increment();
        self.datagram_bytes_from_mesh.add(datagram_bytes);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let refused = Refusal::ALL.map(|reason| (reason, self.refused[reason as usize].read()));
        let dropped =
            DatagramDrop::ALL.map(|reason| (reason, self.dropped[reason as usize].read()));
        Stats {
            connections_accepted: self.connections_accepted.read(),
            connections_served: self.connections_served.read(),
            connections_active: self.connections_active.read(),
            connections_reset: self.connections_reset.read(),
            connections_lost: self.connections_lost.read(),
            connections_expired: self.connections_expired.read(),
            stream_bytes_to_mesh: self.stream_bytes_to_mesh.read(),
            stream_bytes_from_mesh: self.stream_bytes_from_mesh.read(),
            flows_opened: self.flows_opened.read(),
            flows_served: self.flows_served.read(),
            flows_active: self.flows_active.read(),
            flows_expired: self.flows_expired.read(),
            datagrams_to_mesh: self.datagrams_to_mesh.read(),
            datagrams_from_mesh: self.datagrams_from_mesh.read(),
            datagram_bytes_to_mesh: self.datagram_bytes_to_mesh.read(),
            datagram_bytes_from_mesh: self.datagram_bytes_from_mesh.read(),
            refused: refused.into(),
            dropped: dropped.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "as many are carried as the configuration allows",
            Self::TooFast => "more newcomers in a second than the configuration allows",
            Self::Untrusted => "the source is not trusted with PROXY headers",
            Self::ProxyHeader => "no proper PROXY header came",
            Self::SocksMalformed => "the client does not speak SOCKS5",
            Self::SocksTimedOut => "the client's SOCKS request did not come in time",
            Self::SocksCredentials => "the SOCKS client's name or password is wrong",
            Self::SocksCommand => "the SOCKS command is not supported",
            Self::NotAllowed => "the configuration does not allow this destination",
            Self::UnknownPolicy => "this relay has not been told of the forward's policy",
            Self::NoRelay => "no relay that the policy allows offers the service",
            Self::Unreachable => "no relay that offers the service could be reached",
            Self::Limited => "the tenant's quota is used up",
            Self::Declined => "the far gateway declined",
            Self::ClientLeft => "the client left",
            Self::Unlisted => "this relay does not offer the service",
            Self::TargetUnresolved => "the target's name does not resolve",
            Self::TargetRefused => "the target refuses connections",
            Self::TargetTimedOut => "the target does not answer",
            Self::Stopping => "the gateway is stopping",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_under_their_own_names() {
        let counters = Counters::default();
        for reason in Refusal::ALL {
            counters.refuse(reason);
        }
        for reason in DatagramDrop::ALL {
            counters.discard(reason, 2);
        }

        let stats = counters.snapshot();
        assert!(Refusal::ALL.iter().all(|reason| stats.refused[reason] == 1));
        assert!(DatagramDrop::ALL.iter().all(|reason| stats.dropped[reason] == 2));
    }

    #[test]
    fn what_is_present_is_counted_until_it_goes() {
        let counters = Counters::default();
        let present = Present::new(&counters.flows_active);
        assert_eq!(counters.snapshot().flows_active, 1);
        drop(present);
        assert_eq!(counters.snapshot().flows_active, 0);
    }
}
