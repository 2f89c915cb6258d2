//! Opening towards a service: which far ends, in which order, for how long.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_session::{FarEnd, OpenError, Party, SessionEndpoint};
use overway_wire::{PolicyId, Redundancy};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hedge::first_of;
use crate::stats::{Counters, Refusal};

/// Far ends that are tried for one connection. With more, a client would wait longer than it is likely to.
const TRIES_MAX: usize = 3;
/// How long a far end is waited for before the next is asked beside it: a round trip of the session's handshake and one
/// of the request fit even around the world, and a client that waits for nobody hardly feels it.
const PATIENCE: Duration = Duration::from_millis(400);
/// A far end that did not answer when another did is asked last for this long.
const SHUNNED_FOR: Duration = Duration::from_secs(5);
/// Far ends that are remembered for that; the oldest is forgotten.
const SHUNNED_MAX: usize = 256;

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
    pub(crate) shunned: Shunned,
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

/// Opens at the first far end that says yes; the future that `open` makes must send nothing of the
/// client's, so that another can be tried after or beside it.
pub(crate) async fn open_first<T, F>(
    shared: &Shared,
    way: &Way,
    open: impl Fn(FarEnd, PolicyId) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, OpenError>>,
{
    let policy = policy(shared, way)?;
    let mut far_ends = shared.resolver.far_ends(&way.service, policy).await;
    shared.shunned.put_last(&mut far_ends, Instant::now());
    far_ends.truncate(TRIES_MAX);
    let mut last = Refusal::NoRelay;
    let failed = |far: FarEnd, error: OpenError| {
        tracing::debug!(service = way.service, %far, %error, "not opened");
        last = refusal(&error);
    };
    let start = Instant::now();
    let opened = first_of(far_ends.iter().copied(), PATIENCE, |far| open(far, policy), failed);
    match opened.await {
        Some((won, opened)) => {
            if start.elapsed() >= PATIENCE {
                let silent = far_ends.iter().copied().take_while(|far| *far != won);
                silent.for_each(|far| shared.shunned.note(far, Instant::now()));
            }
            Ok(opened)
        }
        None => Err(last),
    }
}

/// Far ends that did not answer lately.
#[derive(Debug, Default)]
pub(crate) struct Shunned(Mutex<VecDeque<(Party, Instant)>>);

impl Shunned {
    fn note(&self, far: FarEnd, now: Instant) {
        let mut shunned = self.lock();
        shunned.retain(|(party, _)| *party != far.party());
        if shunned.len() == SHUNNED_MAX {
            shunned.pop_front();
        }
        shunned.push_back((far.party(), now + SHUNNED_FOR));
    }

    /// Keeps the order of the others, and of those that are put behind them.
    fn put_last(&self, far_ends: &mut [FarEnd], now: Instant) {
        let mut shunned = self.lock();
        shunned.retain(|(_, until)| *until > now);
        if !shunned.is_empty() {
            far_ends.sort_by_key(|far| shunned.iter().any(|(party, _)| *party == far.party()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Party, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(error: &OpenError) -> Refusal {
    match error {
        OpenError::Refused(_) | OpenError::NotOffered => Refusal::Declined,
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

#[cfg(test)]
mod tests {
    use overway_wire::RelayId;

    use super::*;

    #[test]
    fn a_far_end_that_did_not_answer_is_asked_last_for_a_while() {
        let (shunned, now) = (Shunned::default(), Instant::now());
        let order = |now| {
            let mut far_ends = [1, 2, 3].map(|id| FarEnd::from(RelayId(id)));
            shunned.put_last(&mut far_ends, now);
            far_ends.map(|far| far.to_string()).concat()
        };
        assert_eq!(order(now), "r1r2r3");
        shunned.note(RelayId(1).into(), now);
        assert_eq!(order(now), "r2r3r1");
        assert_eq!(order(now + SHUNNED_FOR), "r1r2r3");
    }

    #[test]
    fn no_more_far_ends_are_remembered_than_the_bound() {
        let (shunned, now) = (Shunned::default(), Instant::now());
        for id in 1..1_000 {
            shunned.note(RelayId(id).into(), now);
        }
        assert_eq!(shunned.lock().len(), SHUNNED_MAX);
    }
}
