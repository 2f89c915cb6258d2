//! Asking a far end for a service, on a stream of a session.
//!
//! ```text
//!   opener                                    far end
//!     | -- length u16, Request ----------------> |
//!     | <---------------- length u16, Answer --- |
//!     | <== the stream is the service's =======> |   kind stream
//!     | <== open as long as the flow is =======> |   kind flow
//! ```
//!
//! Both messages are protobuf, and bounded. The far end answers once, with ok or with a reason; after a
//! refusal the stream is over. What an opener sends of the service's bytes before the answer is none.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use overway_tenant::Claims;
use overway_wire::{Class, FlowId, Millis, PolicyId, Redundancy};
use prost::Message;
use quinn::{ConnectionError, RecvStream, SendStream};

use crate::far::{FarEnd, Peer};
use crate::felt::{Measured, Opener, Streams};
use crate::flow::{Flow, FlowLife, FlowTerms};
use crate::pool::Session;
use crate::stats::Counters;
use crate::terms::Terms;
use crate::wanted::{self, ClientAddresses, TARGET_BYTES_MAX, Wanted};

/// Bytes of a service's name at most.
pub const SERVICE_BYTES_MAX: usize = 255;
/// Bytes of a refusal's reason that are carried; the rest is cut off.
pub const REASON_BYTES_MAX: usize = 255;
/// Bytes of a message at most: a name, a target and a few small fields, with room to grow.
pub(crate) const MESSAGE_BYTES_MAX: usize = 768;

/// A stream to a service: bytes in order both ways, each way ended or reset by itself.
#[derive(Debug)]
pub struct Stream {
    /// Towards the far end.
    pub send: SendStream,
    /// From the far end.
    pub recv: RecvStream,
    /// The far end, if it is an edge.
    pub peer: Option<Peer>,
    /// While it is held, what the stream feels like is reported.
    pub measured: Measured,
}

/// Why a stream or flow was not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The far end will not have it.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer in time; the far end cannot be reached, or its service is slow.
    #[error("no answer in time")]
    TimedOut,
    /// No answer in time, and the fabric drops what this end sends, for the reason given.
    #[error("frames are dropped: {0}")]
    Limited(String),
    /// The session could not be established, or ended before the answer.
    #[error("session failed: {0}")]
    Session(#[from] ConnectionError),
    /// The far end has not the certificate of the relay, or the key of the edge, that was asked for.
    #[error("the far end is not the one that was asked for")]
    Identity,
    /// The far edge's token counts for nothing, or it gave none in time.
    #[error("the far end's token: {0}")]
    Token(String),
    /// The far edge's token does not say that it may offer the service.
    #[error("the far end's token does not let it offer this service")]
    NotOffered,
    /// The edge is new here, and nothing was said of where it is attached.
    #[error("nobody has said where the edge is attached")]
    Nowhere,
    /// A gateway has sessions with gateways, an edge with edges.
    #[error("gateways open to gateways, and edges to edges")]
    OtherSort,
    /// There are names for so many edges and no more.
    #[error("too many far ends at once")]
    TooMany,
    /// The far end ended the stream without an answer, or its answer makes no sense.
    #[error("the far end gave no proper answer")]
    NoAnswer,
    /// The service's name is empty or longer than [`SERVICE_BYTES_MAX`], or the target is longer than
    /// [`TARGET_BYTES_MAX`].
    #[error(
        "service name must have 1 to {SERVICE_BYTES_MAX} bytes, a target {TARGET_BYTES_MAX} at most"
    )]
    Service,
    /// The endpoint is closed.
    #[error("the session endpoint is closed")]
    Closed,
}

/// What a far end asks for.
#[derive(Debug)]
pub enum Incoming {
    /// A stream.
    Stream(IncomingStream),
    /// A flow of datagrams.
    Flow(IncomingFlow),
}

impl Incoming {
    /// Refuses it; the opener is told why.
    pub async fn refuse(self, reason: &str) {
        match self {
            Self::Stream(stream) => stream.refuse(reason).await,
            Self::Flow(flow) => flow.refuse(reason).await,
        }
    }
}

impl Deref for Incoming {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        match self {
            Self::Stream(stream) => stream,
            Self::Flow(flow) => flow,
        }
    }
}

/// A stream that a far end asks for. Dropping it leaves the opener without an answer.
#[derive(Debug)]
pub struct IncomingStream {
    pub(crate) asked: Asked,
}

/// A flow that a far end asks for. Dropping it leaves the opener without an answer.
#[derive(Debug)]
pub struct IncomingFlow {
    pub(crate) asked: Asked,
    pub(crate) life: FlowLife,
}

impl Deref for IncomingStream {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl Deref for IncomingFlow {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

/// What both sorts of requests say.
#[derive(Debug)]
pub struct Asked {
    pub(crate) from: FarEnd,
    pub(crate) peer: Option<Peer>,
    pub(crate) terms: Terms,
    pub(crate) service: String,
    pub(crate) client: Option<ClientAddresses>,
    pub(crate) target: Option<String>,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) counters: Arc<Counters>,
    pub(crate) session: Session,
    pub(crate) streams: Arc<Streams>,
}

impl IncomingStream {
    /// Answers ok; the stream is the caller's.
    ///
    /// # Errors
    /// The opener went away, or the session ended.
    pub async fn accept(self) -> Result<Stream, OpenError> {
        let counters = Arc::clone(&self.asked.counters);
        let measured =
            self.asked.streams.enter(&self.asked.session, &self.asked.service, Opener::There);
        let (send, recv, peer) = self.asked.accept().await?;
        counters.streams.increment();
        Ok(Stream { send, recv, peer, measured })
    }

    /// Refuses it; the opener is told why.
    pub async fn refuse(self, reason: &str) {
        self.asked.refuse(reason).await;
    }
}

impl IncomingFlow {
    /// Answers ok; the flow is the caller's.
    ///
    /// # Errors
    /// The opener went away, or the session ended.
    pub async fn accept(self) -> Result<Flow, OpenError> {
        let counters = Arc::clone(&self.asked.counters);
        let (send, recv, peer) = self.asked.accept().await?;
        counters.flows.increment();
        Ok(self.life.run(send, recv, peer))
    }

    /// Refuses it; the opener is told why.
    pub async fn refuse(self, reason: &str) {
        self.asked.refuse(reason).await;
    }
}

impl Asked {
    /// The service asked for.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Who asks: the relay by its certificate, the edge by its key, with where it is attached now.
    pub const fn from(&self) -> FarEnd {
        self.from
    }

    /// The client for whom it is asked, if the opener says. That is the opener's word: a relay's counts as much as the mesh
    /// does, an edge's as much as the tenant lets that edge be believed.
    pub const fn client(&self) -> Option<ClientAddresses> {
        self.client
    }

    /// Where an exit is to connect to, if the opener says. Whether it may is for the service to decide.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// The edge that asks; `None` for a relay.
    pub const fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// What the tenant says of the edge that asks; `None` for a relay.
    pub fn claims(&self) -> Option<&Claims> {
        self.peer().map(|peer| &*peer.claims)
    }

    /// The class in which it travels.
    pub const fn class(&self) -> Class {
        self.terms.class
    }

    /// The policy under which it travels, both ways.
    pub const fn policy(&self) -> PolicyId {
        self.terms.policy
    }

    async fn accept(mut self) -> Result<(SendStream, RecvStream, Option<Peer>), OpenError> {
        write(&mut self.send, &Answer { refused: None, stamps: true }).await?;
        Ok((self.send, self.recv, self.peer))
    }

    pub(crate) async fn refuse(mut self, reason: &str) {
        self.counters.requests_refused.increment();
        let refused = Some(shortened(reason).to_owned());
        // The opener went away: nobody is left to be told.
        if write(&mut self.send, &Answer { refused, stamps: false }).await.is_ok() {
            let _ = self.send.finish();
        }
    }
}

/// What an opener asks for.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    /// A stream or a flow.
    #[prost(enumeration = "Sort", tag = "1")]
    pub(crate) sort: i32,
    /// The service's name.
    #[prost(string, tag = "2")]
    pub(crate) service: String,
    /// For a flow: its id, chosen by the opener, below 2^31.
    #[prost(uint32, tag = "3")]
    pub(crate) flow: u32,
    /// For a flow: how much of it goes more than once, both ways; [`Redundancy::code`].
    #[prost(uint32, tag = "4")]
    pub(crate) redundancy: u32,
    /// [`ClientAddresses::source`], as [`wanted::encode`] writes it; empty if there is none.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) client_source: Bytes,
    /// [`ClientAddresses::destination`], likewise.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) client_destination: Bytes,
    /// [`Wanted::target`].
    #[prost(string, optional, tag = "7")]
    pub(crate) target: Option<String>,
    /// For a flow: how long each of its datagrams is worth carrying, both ways, in ms; 0: a second.
    #[prost(uint32, tag = "8")]
    pub(crate) deadline_ms: u32,
    /// For a flow: whether the opener knows of stamps.
    #[prost(bool, tag = "20")]
    pub(crate) stamps: bool,
}

/// The sorts of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Sort {
    /// Of a later version.
    Unknown = 0,
    /// [`Stream`].
    Stream = 1,
    /// [`Flow`].
    Flow = 2,
}

/// The far end's answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    /// Why not; absent for ok.
    #[prost(string, optional, tag = "1")]
    pub(crate) refused: Option<String>,
    /// Whether the far end knows of stamps.
    #[prost(bool, tag = "2")]
    pub(crate) stamps: bool,
}

impl Request {
    /// A request for a stream.
    pub(crate) fn stream(wanted: Wanted<'_>) -> Self {
        Self { sort: Sort::Stream.into(), ..Self::new(wanted) }
    }

    /// A request for a flow.
    pub(crate) fn flow(wanted: Wanted<'_>, flow: FlowId, terms: FlowTerms) -> Self {
        let FlowTerms { redundancy, deadline } = terms;
        Self {
            sort: Sort::Flow.into(),
            flow: flow.0,
            redundancy: redundancy.code(),
            deadline_ms: Millis::from(deadline).0.into(),
            stamps: true,
            ..Self::new(wanted)
        }
    }

    /// On what terms a flow travels.
    pub(crate) fn flow_terms(&self) -> FlowTerms {
        let redundancy = Redundancy::from_code(self.redundancy);
        let deadline_ms = u16::try_from(self.deadline_ms).unwrap_or(u16::MAX);
        FlowTerms { redundancy, deadline: Millis(deadline_ms).into() }.sound()
    }

    fn new(Wanted { service, client, target, peer: _ }: Wanted<'_>) -> Self {
        let address = |address: Option<_>| address.map(wanted::encode).unwrap_or_default();
        Self {
            service: service.to_owned(),
            client_source: address(client.map(|client| client.source)),
            client_destination: address(client.map(|client| client.destination)),
            target: target.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Whether its service has a name that can be asked for, and its target a length that a name can have.
    pub(crate) fn is_sound(&self) -> bool {
        (1..=SERVICE_BYTES_MAX).contains(&self.service.len())
            && self.target.as_ref().is_none_or(|target| target.len() <= TARGET_BYTES_MAX)
    }

    /// The client, if the opener says who it is.
    pub(crate) fn client(&self) -> Option<ClientAddresses> {
        let source = wanted::decode(&self.client_source)?;
        let destination = wanted::decode(&self.client_destination)?;
        Some(ClientAddresses { source, destination })
    }
}

/// Sends a request and waits for the answer; says whether the far end knows of stamps.
pub(crate) async fn ask(
    send: &mut SendStream,
    recv: &mut RecvStream,
    request: &Request,
) -> Result<bool, OpenError> {
    write(send, request).await?;
    let Answer { refused, stamps } = read(recv).await?;
    match refused {
        None => Ok(stamps),
        Some(reason) => Err(OpenError::Refused(shortened(&reason).to_owned())),
    }
}

/// Reads one message.
pub(crate) async fn read<M: Message + Default>(recv: &mut RecvStream) -> Result<M, OpenError> {
    read_within(recv, MESSAGE_BYTES_MAX).await
}

/// Reads one message of at most so many bytes.
pub(crate) async fn read_within<M: Message + Default>(
    recv: &mut RecvStream,
    bytes_max: usize,
) -> Result<M, OpenError> {
    let mut length = [0; 2];
    recv.read_exact(&mut length).await.map_err(read_error)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > bytes_max {
        return Err(OpenError::NoAnswer);
    }
    let mut bytes = vec![0; length];
    recv.read_exact(&mut bytes).await.map_err(read_error)?;
    M::decode(&bytes[..]).map_err(|_| OpenError::NoAnswer)
}

/// Writes one message, which is bounded.
pub(crate) async fn write(send: &mut SendStream, message: &impl Message) -> Result<(), OpenError> {
    let length =
        u16::try_from(message.encoded_len()).expect("names, reasons and tokens are bounded");
    let mut bytes = Vec::with_capacity(2 + usize::from(length));
    bytes.extend_from_slice(&length.to_be_bytes());
    message.encode(&mut bytes).expect("a vector grows");
    send.write_all(&bytes).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => OpenError::Session(error),
        quinn::WriteError::Stopped(_)
        | quinn::WriteError::ClosedStream
        | quinn::WriteError::ZeroRttRejected => OpenError::NoAnswer,
    })
}

fn read_error(error: quinn::ReadExactError) -> OpenError {
    match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => {
            OpenError::Session(error)
        }
        quinn::ReadExactError::ReadError(_) | quinn::ReadExactError::FinishedEarly(_) => {
            OpenError::NoAnswer
        }
    }
}

/// The front of `text` that may be carried as a reason.
pub(crate) fn shortened(text: &str) -> &str {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::DEADLINE_MAX;

    #[test]
    fn the_longest_messages_fit_the_bound() {
        let address = "[2001:db8::1]:65535".parse().unwrap();
        let wanted = Wanted {
            service: &"s".repeat(SERVICE_BYTES_MAX),
            client: Some(ClientAddresses { source: address, destination: address }),
            target: Some(&"t".repeat(TARGET_BYTES_MAX)),
            peer: None,
        };
        let terms = FlowTerms { redundancy: Redundancy::Always, deadline: DEADLINE_MAX };
        let request = Request::flow(wanted, FlowId(u32::MAX), terms);
        let answer = Answer { refused: Some("r".repeat(REASON_BYTES_MAX)), stamps: true };

        assert!(request.is_sound());
        assert_eq!(request.client(), wanted.client);
        assert_eq!(request.flow_terms(), terms);
        assert!(request.encoded_len() <= MESSAGE_BYTES_MAX);
        assert!(answer.encoded_len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_request_without_a_client_has_none_and_one_that_is_malformed_neither() {
        let mut request = Request::stream("web".into());
        assert_eq!(request.client(), None);

        request.client_source = Bytes::from_static(b"long enough to be one? no");
        request.client_destination = request.client_source.clone();
        assert_eq!(request.client(), None);
        assert!(request.is_sound());
    }

    #[test]
    fn a_target_longer_than_any_name_is_not_sound() {
        let target = "t".repeat(TARGET_BYTES_MAX + 1);
        let wanted = Wanted { target: Some(&target), ..Wanted::from("web") };

        assert!(!Request::stream(wanted).is_sound());
    }

    #[test]
    fn a_long_reason_is_cut_at_a_letter() {
        let reason = "ö".repeat(REASON_BYTES_MAX);

        assert_eq!(shortened(&reason).len(), REASON_BYTES_MAX - 1);
        assert_eq!(shortened("no"), "no");
    }
}
