//! What may go wrong, and what to do about it.

use overway_session::OpenError as SessionError;

use super::Required;
use crate::{OwnTokenError, StartError};

/// Why an edge is not connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It cannot even try.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No relay has let it in.
    #[error(
        "attached to no access relay ({0}): see that the relays' addresses are right, and that UDP or TCP to them is let out"
    )]
    Detached(String),
}

/// Why a stream or flow was not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The edge is attached nowhere, and nothing is known of the service.
    #[error("no access relay answers ({0}): see that the network is up, and try again")]
    Detached(String),
    /// The edge's own token does not name the service.
    #[error("the token does not allow the service \"{0}\": have the backend add it to `services`")]
    Forbidden(String),
    /// There is no endpoint now.
    #[error(
        "nobody offers \"{0}\" now: see that an edge of the tenant offers it, is attached, and healthy"
    )]
    NotOffered(String),
    /// There are endpoints, but not the one that was asked for.
    #[error(
        "\"{service}\" is not offered by {wanted}: see that it is attached and its token lets it offer the service"
    )]
    OtherPeer {
        /// The service.
        service: String,
        /// Who was asked for.
        wanted: String,
    },
    /// The far end said no.
    #[error("\"{service}\" refuses: {reason}")]
    Refused {
        /// The service.
        service: String,
        /// Why, in the far end's words.
        reason: String,
    },
    /// No endpoint answered in time, or the connection to it was lost meanwhile.
    #[error("no endpoint of \"{service}\" answers ({why}): try again")]
    Unreachable {
        /// The service.
        service: String,
        /// What happened at the one that was tried last.
        why: String,
    },
    /// The service's name is empty or too long.
    #[error("a service's name has 1 to 255 bytes")]
    Name,
    /// The edge was closed.
    #[error("the edge is closed: start another")]
    Closed,
}

impl OpenError {
    /// Whether the same may succeed later without anybody's changing a configuration or a token.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Detached(_) | Self::NotOffered(_) | Self::Unreachable { .. } => true,
            Self::OtherPeer { .. } => true,
            Self::Forbidden(_) | Self::Refused { .. } | Self::Name | Self::Closed => false,
        }
    }

    /// What became of the last endpoint that was tried.
    pub(super) fn of(service: &str, peer: Option<&Required>, error: SessionError) -> Self {
        let service = service.to_owned();
        match (error, peer) {
            (SessionError::Identity, Some(wanted)) => {
                Self::OtherPeer { service, wanted: wanted.to_string() }
            }
            (SessionError::Refused(reason), _) => Self::Refused { service, reason },
            (SessionError::Service, _) => Self::Name,
            (SessionError::Closed, _) => Self::Closed,
            (
                other @ (SessionError::TimedOut
                | SessionError::Limited(_)
                | SessionError::Session(_)
                | SessionError::Identity
                | SessionError::Token(_)
                | SessionError::NotOffered
                | SessionError::Nowhere
                | SessionError::OtherSort
                | SessionError::TooMany
                | SessionError::NoAnswer),
                _,
            ) => Self::Unreachable { service, why: other.to_string() },
        }
    }
}

/// Why a service is not offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The edge's own token.
    #[error(transparent)]
    Token(#[from] OwnTokenError),
    /// The token does not name the service.
    #[error("the token does not let this edge offer \"{0}\": have the backend add it to `offers`")]
    NotAllowed(String),
    /// The edge offers it already.
    #[error("this edge offers \"{0}\" already: drop the other offer first")]
    Taken(String),
    /// The edge offers as much as it may.
    #[error("an edge offers {0} services at most")]
    TooMany(usize),
    /// The service's name is empty or too long.
    #[error("a service's name has 1 to 255 bytes")]
    Name,
}
