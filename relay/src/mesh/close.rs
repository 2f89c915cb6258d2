//! How the mesh thread closes a connection.

/// QUIC application error codes, as a peer sees them when a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// The relay stops.
    Stopping = 0,
    /// Another connection took this one's place.
    Replaced = 1,
    /// The scheduler has not named the peer, or no longer does.
    NotAPeer = 2,
    /// The hello could not be read.
    BadHello = 3,
    /// The shard had no use for the link for long.
    Unused = 4,
}

/// Closes a connection, saying why.
pub(super) fn close(connection: &quinn::Connection, code: CloseCode) {
    let reason: &[u8] = match code {
        CloseCode::Stopping => b"relay stops",
        CloseCode::Replaced => b"replaced",
        CloseCode::NotAPeer => b"not a peer",
        CloseCode::BadHello => b"bad hello",
        CloseCode::Unused => b"unused",
    };
    connection.close((code as u32).into(), reason);
}
