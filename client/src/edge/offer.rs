//! Services that the edge offers, and what is asked of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overway_session::{self as session, Flow, Peer};
use overway_wire::access::messages::{NAME_BYTES_MAX, OFFERS_MAX, OfferedService};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{AcceptError, Edge, OfferError, Stream};

/// Requests of one service that wait to be accepted; further ones are refused.
const WAITING_MAX: usize = 256;
/// How long a far end is given to hear that it is refused.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// How a service is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferOptions {
    /// Endpoints of a greater one are used only where none of a smaller is well; 1 unless said.
    pub priority: u32,
    /// Share among endpoints of one priority that are as near; 1 unless said.
    pub weight: u32,
}

impl Default for OfferOptions {
    fn default() -> Self {
        Self { priority: 1, weight: 1 }
    }
}

/// A service that the edge offers. Dropping it withdraws the service; what was accepted goes on.
#[derive(Debug)]
pub struct Offer {
    edge: Edge,
    service: String,
    incoming: mpsc::Receiver<Incoming>,
}

impl Offer {
    pub(super) const fn new(
        edge: Edge,
        service: String,
        incoming: mpsc::Receiver<Incoming>,
    ) -> Self {
        Self { edge, service, incoming }
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The next stream or flow that another edge asks for; `None` once the edge is closed. Up to 256 wait, further ones
    /// are refused. May be cancelled without losing one.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Says whether the service is well. While it is not, others are sent elsewhere if anybody else offers it and is well;
    /// they then also give up what they have open to this edge for the service, within two seconds.
    pub fn set_healthy(&self, healthy: bool) {
        if self.edge.inner.offers.set_healthy(&self.service, healthy) {
            self.edge.announce();
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if self.edge.inner.offers.remove(&self.service) {
            self.edge.announce();
        }
    }
}

/// What another edge asks for. Dropping it leaves the other without an answer, and the other sees an error at once.
#[derive(Debug)]
pub enum Incoming {
    /// A stream.
    Stream(IncomingStream),
    /// A flow of datagrams.
    Flow(IncomingFlow),
}

impl Incoming {
    /// Who asks, by key and verified token.
    pub fn peer(&self) -> &Peer {
        match self {
            Self::Stream(stream) => stream.peer(),
            Self::Flow(flow) => flow.peer(),
        }
    }

    /// Says no; the other is told why, in at most 255 bytes.
    pub async fn refuse(self, reason: &str) {
        match self {
            Self::Stream(stream) => stream.refuse(reason).await,
            Self::Flow(flow) => flow.refuse(reason).await,
        }
    }

    /// A relay's gateway has no sessions with edges.
    fn of(incoming: session::Incoming) -> Option<Self> {
        incoming.peer()?;
        Some(match incoming {
            session::Incoming::Stream(asked) => Self::Stream(IncomingStream(asked)),
            session::Incoming::Flow(asked) => Self::Flow(IncomingFlow(asked)),
        })
    }
}

fn peer(asked: &session::Asked) -> &Peer {
    asked.peer().expect("it was looked at when the request came in")
}

/// A stream that another edge asks for.
#[derive(Debug)]
pub struct IncomingStream(session::IncomingStream);

impl IncomingStream {
    /// Who asks, by key and verified token.
    pub fn peer(&self) -> &Peer {
        peer(&self.0)
    }

    /// Says yes.
    ///
    /// # Errors
    /// The other went away.
    pub async fn accept(self) -> Result<Stream, AcceptError> {
        self.0.accept().await.map(Stream::new)
    }

    /// Says no; the other is told why, in at most 255 bytes.
    pub async fn refuse(self, reason: &str) {
        self.0.refuse(reason).await;
    }
}

/// A flow that another edge asks for.
#[derive(Debug)]
pub struct IncomingFlow(session::IncomingFlow);

impl IncomingFlow {
    /// Who asks, by key and verified token.
    pub fn peer(&self) -> &Peer {
        peer(&self.0)
    }

    /// Says yes.
    ///
    /// # Errors
    /// The other went away.
    pub async fn accept(self) -> Result<Flow, AcceptError> {
        self.0.accept().await
    }

    /// Says no; the other is told why, in at most 255 bytes.
    pub async fn refuse(self, reason: &str) {
        self.0.refuse(reason).await;
    }
}

/// What is offered, by name.
#[derive(Debug, Default)]
pub(super) struct Offers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    standing: BTreeMap<String, Standing>,
    /// Whether anybody takes what comes in.
    is_served: bool,
}

#[derive(Debug)]
struct Standing {
    options: OfferOptions,
    is_well: bool,
    incoming: mpsc::Sender<Incoming>,
}

impl Offers {
    /// Enters a service; says besides whether it is the first ever.
    pub(super) fn insert(
        &self,
        service: &str,
        options: OfferOptions,
    ) -> Result<(mpsc::Receiver<Incoming>, bool), OfferError> {
        if !(1..=NAME_BYTES_MAX).contains(&service.len()) {
            return Err(OfferError::Name);
        }
        let mut state = self.state();
        if state.standing.contains_key(service) {
            return Err(OfferError::Taken(service.to_owned()));
        }
        if state.standing.len() >= OFFERS_MAX {
            return Err(OfferError::TooMany(OFFERS_MAX));
        }
        let (incoming, receiver) = mpsc::channel(WAITING_MAX);
        let standing = Standing { options, is_well: true, incoming };
        state.standing.insert(service.to_owned(), standing);
        let was_served = std::mem::replace(&mut state.is_served, true);
        Ok((receiver, !was_served))
    }

    /// Whether that changed anything.
    fn set_healthy(&self, service: &str, healthy: bool) -> bool {
        let mut state = self.state();
        let standing = state.standing.get_mut(service);
        standing.is_some_and(|it| std::mem::replace(&mut it.is_well, healthy) != healthy)
    }

    fn remove(&self, service: &str) -> bool {
        self.state().standing.remove(service).is_some()
    }

    pub(super) fn clear(&self) {
        self.state().standing.clear();
    }

    /// As relays are told.
    pub(super) fn list(&self) -> Vec<OfferedService> {
        let offered = |(name, standing): (&String, &Standing)| OfferedService {
            name: name.clone(),
            priority: standing.options.priority,
            weight: standing.options.weight,
            unhealthy: !standing.is_well,
        };
        self.state().standing.iter().map(offered).collect()
    }

    /// Gives a request to whoever offers the service; nobody waits for it.
    pub(super) fn pass(&self, incoming: session::Incoming) {
        let offered = self.state().standing.get(incoming.service()).map(|it| it.incoming.clone());
        let Some(incoming) = Incoming::of(incoming) else { return };
        let (refused, reason) = match offered.map(mpsc::Sender::try_reserve_owned) {
            Some(Ok(place)) => {
                place.send(incoming);
                return;
            }
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                (incoming, "the service has as many requests waiting as it takes")
            }
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => {
                (incoming, "this edge does not offer the service")
            }
        };
        tokio::spawn(async move { timeout(REFUSAL_MAX, refused.refuse(reason)).await });
    }

    /// A panic elsewhere leaves it whole: each change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
