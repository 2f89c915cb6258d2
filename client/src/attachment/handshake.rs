//! From the dialling to the relay's yes, and why there is none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use overway_wire::RelayId;
use overway_wire::access::CloseCode;
use overway_wire::access::messages::{
    Attach, Attached, FromEdge, MESSAGE_BYTES_MAX, RefusalCode, Refused, ToEdge, VERSION_MAX,
    VERSION_MIN, to_edge,
};
use prost::Message as _;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::{ATTACH_MAX, SILENT_MAX};
use crate::Shared;
use crate::relays;
use crate::transport::{ConnectError, Connection, Transport};

/// Before a relay is dialled again at which another process has the edge's place.
const REPLACED_PAUSE: Duration = Duration::from_secs(5);

pub(super) type Reader<C> = FramedRead<<C as Connection>::Reader, LengthDelimitedCodec>;
pub(super) type Writer<C> = FramedWrite<<C as Connection>::Writer, LengthDelimitedCodec>;

/// Why there is no attachment, or no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The relay was not reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Not in time.
    #[error("no answer within {ATTACH_MAX:?}")]
    TimedOut,
    /// The other place is attached to it.
    #[error("relay {} is attached already", .0.0)]
    Same(RelayId),
    /// The relay refused.
    #[error("refused ({code:?}): {reason}")]
    Refused {
        /// Why, for programs.
        code: RefusalCode,
        /// Why, for people.
        reason: String,
        /// When it may be tried again with the same token.
        retry_after: Option<Duration>,
    },
    /// The control stream ended or made no sense.
    #[error("the control stream: {0}")]
    Control(String),
    /// The relay closed the connection, or it timed out.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// The edge attached there by another connection, which is none of this process.
    #[error(
        "another process attached with this edge's key: give each its own (`overway edge keygen`)"
    )]
    Replaced,
    /// Nothing came for long.
    #[error("silent for {SILENT_MAX:?}")]
    Silent,
    /// The relay goes, and the edge is attached elsewhere.
    #[error("the relay is draining")]
    Drained,
    /// Another relay is nearer, and the edge is attached elsewhere.
    #[error("another relay is nearer")]
    Moved,
    /// The edge stops.
    #[error("the edge stops")]
    Stopped,
}

impl AttachError {
    /// What a relay that refused has asked for.
    pub(crate) fn refused(&self) -> Option<relays::Refused> {
        match self {
            // Or the two would take the place from each other without a pause.
            Self::Replaced => Some(relays::Refused { retry_after: Some(REPLACED_PAUSE) }),
            Self::Refused { retry_after, .. } => {
                Some(relays::Refused { retry_after: *retry_after })
            }
            _ => None,
        }
    }
}

/// A connection on which the relay has said yes.
pub(super) struct Joined<C: Connection> {
    pub(super) connection: C,
    pub(super) attached: Attached,
    pub(super) reader: Reader<C>,
    pub(super) writer: Writer<C>,
}

/// Dials, and gets as far as the relay's yes.
pub(super) async fn attach<T: Transport>(
    shared: &Arc<Shared<T>>,
    place: usize,
    remote: SocketAddr,
) -> Result<Joined<T::Connection>, AttachError> {
    let connection = shared.transport.dial(remote).await?;
    prove(shared, place, connection).await
}

/// Proves the edge on a connection, which is closed if the relay does not say yes.
pub(super) async fn prove<T: Transport>(
    shared: &Arc<Shared<T>>,
    place: usize,
    connection: T::Connection,
) -> Result<Joined<T::Connection>, AttachError> {
    let guard = CloseUnused(Some(connection.clone()));
    if !shared.relays().answered(place, connection.relay()) {
        return Err(AttachError::Same(connection.relay()));
    }
    let (reader, writer) = connection.open_control().await?;
    let mut reader = FramedRead::new(reader, codec());
    let mut writer = FramedWrite::new(writer, codec());
    let token = shared.token.borrow().clone();
    let attach = renewal(shared, &connection, token)?;
    say::<T::Connection>(&mut writer, &attach.into()).await?;
    loop {
        match decode(reader.next().await)? {
            Some(to_edge::Body::Attached(attached)) => {
                guard.keep();
                return Ok(Joined { connection, attached, reader, writer });
            }
            Some(to_edge::Body::Refused(refusal)) => return Err(refused(refusal)),
            Some(other) => {
                return Err(AttachError::Control(format!("expected an answer, got {other:?}")));
            }
            None => {}
        }
    }
}

pub(super) async fn say<C: Connection>(
    writer: &mut Writer<C>,
    message: &FromEdge,
) -> Result<(), AttachError> {
    let said = writer.send(Bytes::from(message.encode_to_vec())).await;
    said.map_err(|error: std::io::Error| AttachError::Control(error.to_string()))
}

/// The message that proves the edge, for this connection.
pub(super) fn renewal<T: Transport>(
    shared: &Shared<T>,
    connection: &T::Connection,
    token: String,
) -> Result<Attach, ConnectError> {
    let exporter = connection.exporter()?;
    Ok(Attach {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        token,
        public_key: shared.key.public().0.to_vec(),
        signature: shared.key.sign(&exporter).to_vec(),
        boot: shared.boot.0,
        software: concat!("overway ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

pub(super) fn decode(
    heard: Option<Result<BytesMut, std::io::Error>>,
) -> Result<Option<to_edge::Body>, AttachError> {
    let control = |error: String| AttachError::Control(error);
    let bytes = heard.ok_or_else(|| control("it ended".to_owned()))?;
    let bytes = bytes.map_err(|error| control(error.to_string()))?;
    Ok(ToEdge::decode(bytes).map_err(|error| control(error.to_string()))?.body)
}

pub(super) fn refused(refusal: Refused) -> AttachError {
    let after = Duration::from_millis(refusal.retry_after_ms.into());
    AttachError::Refused {
        code: refusal.code(),
        retry_after: (!after.is_zero()).then_some(after),
        reason: refusal.reason,
    }
}

pub(crate) fn codec() -> LengthDelimitedCodec {
    let mut builder = LengthDelimitedCodec::builder();
    builder.length_field_length(4).max_frame_length(MESSAGE_BYTES_MAX).new_codec()
}

/// Closes a connection that does not become an attachment.
struct CloseUnused<C: Connection>(Option<C>);

impl<C: Connection> CloseUnused<C> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl<C: Connection> Drop for CloseUnused<C> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.close(CloseCode::Unused);
        }
    }
}
