//! Opening towards a service: which far ends, in which order, for how long.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use overway_session::{FarEnd, OpenError, SessionEndpoint, Terms};
use overway_wire::{PolicyId, Redundancy};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stats::{Counters, Refusal};

/// A policy that is not known is complained of at most this often: each client that tries is counted anyway.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// An answer of a [`Resolver`], the one to try first at the front.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Vec<FarEnd>> + Send + 'a>>;

/// Says who offers a service, and which policies there are.
pub trait Resolver: Send + Sync {
    /// The far ends that offer `service` and that `policy` allows.
    fn far_ends<'a>(&'a self, service: &'a str, policy: PolicyId) -> Resolving<'a>;

    /// The policy of that name, if the scheduler has told of one.
    fn policy(&self, name: &str) -> Option<PolicyId>;
}

/// Where a forward leads.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) service: String,
    pub(crate) policy: Option<String>,
    /// Of flows, and of streams that are not bulk.
    pub(crate) redundancy: Redundancy,
}

/// What every task of a gateway shares.
pub(crate) struct Shared {
    pub(crate) endpoint: SessionEndpoint,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) counters: Counters,
    pub(crate) complaints: Complaints,
    /// TCP connections, which a shutdown waits for.
    pub(crate) connections: TaskTracker,
    /// Everything else.
    pub(crate) background: TaskTracker,
    /// No new connections or clients from now on.
    pub(crate) draining: CancellationToken,
    /// Everything ends now.
    pub(crate) ending: CancellationToken,
}

/// When an unknown policy was last complained of.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    /// Whether it is time to complain again.
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAINT_INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// The policy of a forward now. One that is configured and not known refuses: its traffic must not go
/// where it may not.
fn policy(shared: &Shared, way: &Way) -> Result<PolicyId, Refusal> {
    let Some(name) = &way.policy else { return Ok(PolicyId::default()) };
    let found = shared.resolver.policy(name);
    if found.is_none() && shared.complaints.is_due(Instant::now()) {
        tracing::error!(
            service = way.service,
            policy = name,
            "clients are refused: the scheduler has told this relay of no such policy; add it there, or \
             mend `policy` in this relay's configuration"
        );
    }
    found.ok_or(Refusal::UnknownPolicy)
}

/// Opens at the first far end that says yes, on the terms that the policy of the way leads to; the future that `open` makes must send nothing of the
/// client's, so that another can be tried after or beside it.
pub(crate) async fn open_first<T, F>(
    shared: &Shared,
    way: &Way,
    terms: impl Fn(PolicyId) -> Terms,
    open: impl Fn(FarEnd, Terms) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, OpenError>>,
{
    let policy = policy(shared, way)?;
    let terms = terms(policy);
    let far_ends = shared.resolver.far_ends(&way.service, policy).await;
    let mut last = Refusal::NoRelay;
    let failed = |far: FarEnd, error: OpenError| {
        tracing::debug!(service = way.service, %far, %error, "not opened");
        last = refusal(&error);
    };
    let opened = shared.endpoint.first(terms, far_ends, |far| open(far, terms), failed).await;
    opened.ok_or(last)
}

fn refusal(error: &OpenError) -> Refusal {
    match error {
        OpenError::Refused(_) | OpenError::NotOffered => Refusal::Declined,
        OpenError::Limited(_) => Refusal::Limited,
        OpenError::TimedOut
        | OpenError::Session(_)
        | OpenError::Identity
        | OpenError::Token(_)
        | OpenError::Nowhere
        | OpenError::OtherSort
        | OpenError::TooMany
        | OpenError::NoAnswer
        | OpenError::Service
        | OpenError::Closed => Refusal::Unreachable,
    }
}
