//! The one thread that owns the core. Planning a large mesh takes it for a good part of a second; it has a
//! thread of its own so that connections, joins and the admin interface go on meanwhile. Others send it [`Input`]s over a bounded channel and wait when it
//! is full, so that a busy scheduler slows its relays' streams instead of growing. What the core has
//! for a relay goes into that session's bounded channel; if it is full the session is closed and the
//! relay, dialling again, gets everything anew.
//!
//! A relay has one session. A second hello of the same relay replaces the first session; what still
//! comes from the replaced one is told apart by its number and dropped.

mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overway_scheduler_core::{
    Drain, Drainable, HelloError, MessageError, OperatorError, Scheduler,
};
use overway_telemetry::SPANS;
use overway_topology::Policy;
use overway_wire::control::{Hello, Refused, Tenant, ToRelay, ToScheduler};
use overway_wire::{PolicyId, RelayId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Span, debug, debug_span, info, warn};

use crate::counters::Counters;
use crate::events::{EventRecord, EventRing, Following};

/// Late by more than this, the core is told so: less than its timers for relays' silence and acknowledgements.
const LATE: Duration = Duration::from_secs(1);
/// Inputs that wait for the core. A report of 1,000 links is about 150 KB; most are far smaller.
const INPUTS_MAX: usize = 256;
/// Messages that wait for one relay. The core has one update in flight for each, and sends the whole
/// state anew when it is not acknowledged in time.
pub(crate) const OUTBOUND_MAX: usize = 16;
/// Hellos that wait to be remembered on disk. Further ones are dropped: the relay's next hello is as
/// good, and only a restart that the relay cannot follow needs it.
pub(crate) const MEMORIES_MAX: usize = 256;

/// Terms that wait to be raised above. One at a time; a relay that is refused meanwhile dials again.
pub(crate) const TERMS_MAX: usize = 1;
/// Least time between two raises of the term. Each makes every relay dial again and the mesh settle; in that time
/// relays go on with what they hold.
const RAISE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Tells the sessions of one relay apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionId(pub(crate) u64);

/// One end of a relay's session, as the driver holds it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Which.
    pub(crate) id: SessionId,
    /// To the relay. When it is dropped, what is in it is still sent.
    pub(crate) outbound: mpsc::Sender<ToRelay>,
    /// Ends the connection at once.
    pub(crate) closing: CancellationToken,
}

/// What other tasks have for the core.
#[derive(Debug)]
pub(crate) enum Input {
    /// A relay's first message.
    Hello { relay: RelayId, hello: Box<Hello>, session: Session },
    /// A further message.
    Message { relay: RelayId, session: SessionId, message: ToScheduler },
    /// The shell's own answer to a relay.
    Answer { relay: RelayId, session: SessionId, message: ToRelay },
    /// The store's term was raised: to go on with.
    TermRaised { term: u64 },
    /// A session's connection ended.
    Closed { relay: RelayId, session: SessionId },
    /// A node was invited.
    Invited { name: String },
    /// A member joined.
    Joined { relay: RelayId, name: String },
    /// A member was revoked.
    Removed { relay: RelayId },
    /// An invitation was withdrawn.
    Withdrawn { name: String },
    /// The operator wishes something.
    Wish { wish: Wish, reply: oneshot::Sender<Result<(), OperatorError>> },
    /// Someone wants to know something of the core.
    Look(Look),
    /// Someone wants the number of sessions.
    Sessions(oneshot::Sender<usize>),
    /// Someone wants the events after this number.
    Events { since: u64, reply: oneshot::Sender<Vec<EventRecord>> },
    /// Someone wants these, and those to come.
    Follow { since: u64, reply: oneshot::Sender<Following> },
}

/// What an operator wishes; it is in the store already, or will be.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To drain something, or no longer.
    Drain { target: Drainable, drain: Option<Drain> },
    /// That a relay carries others' traffic, or does not, or does as it says itself.
    Transit { relay: RelayId, transit: Option<bool> },
    /// A policy, or its end.
    Policy { id: PolicyId, policy: Option<Policy> },
    /// A tenant, or its end.
    Tenant { number: PolicyId, tenant: Option<Tenant> },
}

/// Looks at the core at a moment.
type LookFn = dyn FnOnce(&Scheduler, Instant) + Send;

/// A look at the core: what is to be known is sent to who asked.
pub(crate) struct Look(Box<LookFn>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// What the driver has for the store, which it does not wait for.
#[derive(Debug)]
pub(crate) struct Duties {
    /// What relays say of themselves, to be kept.
    pub(crate) memories: mpsc::Sender<(RelayId, Hello)>,
    /// Terms above which the store's is to be raised; [`Input::TermRaised`] answers.
    pub(crate) terms: mpsc::Sender<u64>,
}

/// How other tasks reach the driver.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    inputs: mpsc::Sender<Input>,
}

/// The driver has stopped; so will whoever hears of it.
#[derive(Debug, thiserror::Error)]
#[error("the scheduler is stopping")]
pub(crate) struct Stopped;

impl Driver {
    /// Starts the thread; it ends when `shutdown` is cancelled. Returns the handle, and what waits for
    /// the end.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(crate) fn start(
        core: Scheduler,
        members: BTreeMap<RelayId, String>,
        duties: Duties,
        counters: Arc<Counters>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<(Self, impl Future<Output = anyhow::Result<()>> + Send)> {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let state = State {
            core,
            names: members,
            duties,
            raise_asked: None,
            counters,
            sessions: BTreeMap::new(),
            events: EventRing::default(),
            has_planned: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("overway-core".to_owned()).spawn(move || {
            runtime.block_on(state.run(inputs, shutdown));
            // Whoever waited may have gone.
            let _ = ended.send(());
        })?;
        let end = async { end.await.map_err(|_| anyhow::anyhow!("the core's thread panicked")) };
        Ok((Self { inputs: sender }, end))
    }

    /// Hands over an input, waiting for room.
    pub(crate) async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.inputs.send(input).await.map_err(|_| Stopped)
    }

    /// Asks for something and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Has a look at the core and waits for what it shows.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Scheduler, Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let into = |reply: oneshot::Sender<T>| {
            // Whoever asked may have gone; that is theirs to decide.
            let look = move |core: &Scheduler, now| drop(reply.send(look(core, now)));
            Input::Look(Look(Box::new(look)))
        };
        self.ask(into).await
    }
}

struct State {
    core: Scheduler,
    /// Of every member, removed ones included, for people. At most as many as there are ids.
    names: BTreeMap<RelayId, String>,
    duties: Duties,
    /// When the store was last asked to raise the term.
    raise_asked: Option<Instant>,
    counters: Arc<Counters>,
    sessions: BTreeMap<RelayId, Session>,
    events: EventRing,
    /// Whether what is sent next comes of a plan.
    has_planned: bool,
}

impl State {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>, shutdown: CancellationToken) {
        loop {
            let (top, due) = (Instant::now(), self.core.poll_timeout());
            let input = tokio::select! {
                () = shutdown.cancelled() => break,
                input = inputs.recv() => match input {
                    Some(input) => Some(input),
                    None => break,
                },
                () = sleep_until(due) => None,
            };
            let now = Instant::now();
            let overslept = due.map(|due| now.saturating_duration_since(due.max(top)));
            self.notice_stall(overslept.unwrap_or_default(), now);
            match input {
                Some(input) => self.handle(input, now),
                None => self.timeout(now),
            }
            self.pump();
            let done = Instant::now();
            self.notice_stall(done.duration_since(now), done);
        }
        for session in self.sessions.values() {
            session.closing.cancel();
        }
    }

    /// Tells the core if a long plan, its updates, or a sleep of this process kept it from its timers: what relays sent
    /// meanwhile waits to be read.
    fn notice_stall(&mut self, late_by: Duration, now: Instant) {
        if late_by >= LATE {
            debug!(?late_by, "was busy or asleep");
            self.core.handle_stall(late_by, now);
        }
    }

    fn timeout(&mut self, now: Instant) {
        let plans = self.core.stats().plans;
        let span = if self.core.is_plan_due(now) {
            debug_span!(target: SPANS, "plan")
        } else {
            Span::none()
        };
        span.in_scope(|| self.core.handle_timeout(now));
        if self.core.stats().plans > plans {
            self.counters.plan_times.add(now.elapsed());
            self.has_planned = true;
        }
    }

    fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Hello { relay, hello, session } => self.hello(relay, *hello, session, now),
            Input::Message { relay, session, message } => {
                self.message(relay, session, message, now);
            }
            Input::Answer { relay, session, message } => {
                if self.is_current(relay, session) {
                    self.transmit(relay, message, now);
                }
            }
            Input::TermRaised { term } => self.begin_term(term, now),
            Input::Closed { relay, session } => {
                if self.is_current(relay, session) {
                    self.sessions.remove(&relay);
                    self.core.handle_disconnected(relay, now);
                }
            }
            Input::Invited { name } => self.note("node_invited", name),
            Input::Joined { relay, name } => {
                self.names.insert(relay, name.clone());
                self.core.handle_member(relay, name);
                let detail = format!("{} as {relay}", self.name(relay));
                self.note("node_joined", detail);
            }
            Input::Removed { relay } => {
                self.core.handle_removed(relay, now);
                self.end_session(relay);
                let detail = format!("{} ({relay})", self.name(relay));
                self.note("node_removed", detail);
            }
            Input::Withdrawn { name } => self.note("invitation_withdrawn", name),
            Input::Look(Look(look)) => look(&self.core, now),
            // Whoever asked may have gone; that is theirs to decide.
            Input::Wish { wish, reply } => drop(reply.send(self.wish(wish, now))),
            Input::Sessions(reply) => drop(reply.send(self.sessions.len())),
            Input::Events { since, reply } => drop(reply.send(self.events.since(since))),
            Input::Follow { since, reply } => drop(reply.send(self.events.follow(since))),
        }
    }

    fn wish(&mut self, wish: Wish, now: Instant) -> Result<(), OperatorError> {
        match wish {
            Wish::Drain { target, drain } => self.core.handle_drain(target, drain, now),
            Wish::Transit { relay, transit } => self.core.handle_transit(relay, transit, now),
            Wish::Policy { id, policy } => self.core.handle_policy(id, policy, now),
            Wish::Tenant { number, tenant } => self.core.handle_tenant(number, tenant, now),
        }
    }

    fn hello(&mut self, relay: RelayId, hello: Hello, session: Session, now: Instant) {
        let memory = lasting(&hello);
        match self.core.handle_hello(relay, hello, now) {
            Ok(welcome) => {
                if self.duties.memories.try_send((relay, memory)).is_err() {
                    debug!(%relay, "a hello was not remembered, too many being written");
                }
                self.end_session(relay);
                self.sessions.insert(relay, session);
                self.transmit(relay, ToRelay::from(welcome), now);
            }
            Err(error) => {
                self.catch_up(&error, now);
                let reason = error.to_string();
                warn!(%relay, reason, "refused a relay's hello");
                self.events.push("relay_refused", format!("{}: {reason}", self.name(relay)));
                let refused = ToRelay::from(Refused { reason });
                session.outbound.try_send(refused).expect("a new session's channel is empty");
            }
        }
    }

    /// If the relay knows of a later scheduler, has the store's term raised above that one's.
    fn catch_up(&mut self, error: &HelloError, now: Instant) {
        let HelloError::Behind { relay: epoch, scheduler } = error else { return };
        let recent = |asked| now.duration_since(asked) < RAISE_INTERVAL_MIN;
        if self.raise_asked.is_some_and(recent) || self.duties.terms.try_send(epoch.term).is_err() {
            return;
        }
        warn!(relay = %epoch, scheduler = %scheduler, "the store is older than the mesh: raising the term");
        self.raise_asked = Some(now);
    }

    fn begin_term(&mut self, term: u64, now: Instant) {
        warn!(term, "begins anew with a greater term; relays dial again");
        self.events.push("term_raised", format!("to {term}, the store being older than the mesh"));
        self.core.handle_term(term, now);
        for session in std::mem::take(&mut self.sessions).into_values() {
            session.closing.cancel();
        }
    }

    fn message(&mut self, relay: RelayId, session: SessionId, message: ToScheduler, now: Instant) {
        if !self.is_current(relay, session) {
            return;
        }
        match self.core.handle_message(relay, message, now) {
            // The core has counted a refused report and made an event of it.
            Ok(()) | Err(MessageError::Report(_)) => {}
            Err(error @ (MessageError::NotConnected | MessageError::SecondHello)) => {
                warn!(%relay, %error, "closed a relay's session");
                self.counters.protocol_errors.raise();
                self.end_session(relay);
                self.core.handle_disconnected(relay, now);
            }
        }
    }

    /// Sends what the core has and records what happened.
    fn pump(&mut self) {
        let span = if std::mem::take(&mut self.has_planned) {
            // Recorded with the event that tells of the epoch.
            debug_span!(target: SPANS, "push", epoch = Empty, routes = Empty, updates = Empty)
        } else {
            Span::none()
        };
        let _pushing = span.entered();
        while let Some((relay, message)) = self.core.poll_transmit() {
            self.transmit(relay, message, Instant::now());
        }
        while let Some(event) = self.core.poll_event() {
            self.record(event);
        }
    }

    fn transmit(&mut self, relay: RelayId, message: ToRelay, now: Instant) {
        let Some(session) = self.sessions.get(&relay) else { return };
        if session.outbound.try_send(message).is_err() {
            self.counters.slow_relays.raise();
            info!(%relay, "closed the session of a relay that does not take its updates");
            self.end_session(relay);
            self.core.handle_disconnected(relay, now);
        }
    }

    fn end_session(&mut self, relay: RelayId) {
        if let Some(session) = self.sessions.remove(&relay) {
            session.closing.cancel();
        }
    }

    fn is_current(&self, relay: RelayId, session: SessionId) -> bool {
        self.sessions.get(&relay).is_some_and(|current| current.id == session)
    }
}

/// What of a hello is true beyond the process that said it.
fn lasting(hello: &Hello) -> Hello {
    Hello { boot: 0, epoch_term: 0, epoch_sequence: 0, revision: 0, ..hello.clone() }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
