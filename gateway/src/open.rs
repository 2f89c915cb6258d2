//! Opening towards a service: which relays, in which order, for how long.

use std::sync::Arc;
use std::time::Duration;

use overway_session::{OpenError, SessionEndpoint};
use overway_wire::RelayId;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stats::{Counters, Refusal};

/// Relays that are tried for one connection. With more, a client would wait longer than it is likely to.
const TRIES_MAX: usize = 3;
/// How long a relay is waited for while there is another to try: the far gateway's time-out for its target,
/// and two seconds for the session's handshake and round trips. The last one has the session's own limit.
const TRY_TIMEOUT: Duration = Duration::from_secs(7);

/// Says which relays offer a service.
pub trait Resolver: Send + Sync {
    /// The relays whose gateway offers `service`, the one to try first at the front.
    fn relays(&self, service: &str) -> Vec<RelayId>;
}

/// What every task of a gateway shares.
pub(crate) struct Shared {
    pub(crate) endpoint: SessionEndpoint,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) counters: Counters,
    /// TCP connections, which a shutdown waits for.
    pub(crate) connections: TaskTracker,
    /// Everything else.
    pub(crate) background: TaskTracker,
    /// No new connections or clients from now on.
    pub(crate) draining: CancellationToken,
    /// Everything ends now.
    pub(crate) ending: CancellationToken,
}

/// Opens at the first relay that says yes; the future that `open` makes must send nothing of the
/// client's, so that the next relay can be tried after it.
pub(crate) async fn open_first<T, F>(
    shared: &Shared,
    service: &str,
    open: impl Fn(RelayId) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, OpenError>>,
{
    let mut relays = shared.resolver.relays(service);
    relays.truncate(TRIES_MAX);
    let mut last = Refusal::NoRelay;
    for (tried, relay) in (1..).zip(relays.iter().copied()) {
        let opened = if tried < relays.len() {
            timeout(TRY_TIMEOUT, open(relay)).await.unwrap_or(Err(OpenError::TimedOut))
        } else {
            open(relay).await
        };
        match opened {
            Ok(opened) => return Ok(opened),
            Err(error) => {
                tracing::debug!(service, %relay, %error, "not opened");
                last = refusal(&error);
            }
        }
    }
    Err(last)
}

fn refusal(error: &OpenError) -> Refusal {
    match error {
        OpenError::Refused(_) => Refusal::Declined,
        OpenError::TimedOut
        | OpenError::Session(_)
        | OpenError::Identity
        | OpenError::NoAnswer
        | OpenError::Service
        | OpenError::Closed => Refusal::Unreachable,
    }
}
