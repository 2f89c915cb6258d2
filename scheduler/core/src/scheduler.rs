//! The verbs of the scheduler. Membership, planning and the view for people are in modules of their own.

mod explaining;
mod feeling;
mod membership;
mod operating;
mod overview;
mod placing;
mod planning;
mod pushing;
mod records;
mod reporting;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use overway_wire::control::{
    Ack, Hello, Tenant, ToRelay, ToScheduler, Update, Welcome, to_scheduler,
};
use overway_wire::{Epoch, PolicyId, RelayId};

use crate::access::Access;
use crate::doubts::Doubts;
use crate::event::EVENTS_MAX;
use crate::links::{Links, Word};
use crate::neighbours::Neighbours;
use crate::operator::Drains;
use crate::overloads::Overloads;
use crate::plan::{Mesh, Shared};
use crate::push::{Acked, Push};
use crate::quality::Qualities;
use crate::services::Services;
use crate::session::Relay;
use crate::usage::Usage;
use crate::weights::Weights;
use crate::{Config, Event, HelloError, MessageError, Stats};
use records::Records;

/// The scheduler without IO; see the crate's first lines.
///
/// After each `handle_*` the caller sends what [`Self::poll_transmit`] gives, logs what
/// [`Self::poll_event`] gives, and calls [`Self::handle_timeout`] at [`Self::poll_timeout`].
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    epoch: Epoch,
    /// The latest time that any verb was given.
    now: Instant,
    phase: Phase,
    /// Members, by id.
    relays: BTreeMap<RelayId, Relay>,
    revoked: BTreeSet<RelayId>,
    links: Links,
    /// Relays that were reached, and that no usable link leads to now.
    unreached: BTreeSet<RelayId>,
    neighbours: Neighbours,
    mesh: Mesh,
    /// What every registered relay is pushed alike.
    shared: Shared,
    /// Tenants by number, as relays are told of them.
    tenants: BTreeMap<PolicyId, Tenant>,
    /// What their edges have sent.
    usage: Usage,
    /// The months in which they have sent what they may, as relays are told.
    exhausted: BTreeMap<PolicyId, u32>,
    /// What edges offer.
    services: Services,
    /// Where clients may attach.
    access: Access,
    /// Who is told of it.
    records: Records,
    /// What users feel.
    qualities: Qualities,
    drains: Drains,
    doubts: Doubts,
    overloads: Overloads,
    weights: Weights,
    /// Whether demand, or what it costs and fits, changed since it was placed.
    demand_changed: bool,
    /// Whether something that is pushed to all alike may have changed.
    shared_changed: bool,
    /// Relays whose links are to be made anew by the next plan.
    relinked: BTreeSet<RelayId>,
    /// All of them are.
    relink_all: bool,
    /// Pairs that ceased to be neighbours, or are on trial, the lesser relay first; routes may take their links until the
    /// next plan.
    parting: BTreeSet<(RelayId, RelayId)>,
    /// Relays of which a line costs something else now, or is used otherwise.
    repriced: BTreeSet<RelayId>,
    /// When relays' own timers are to be looked after; each relay at most once.
    timers: BTreeSet<(Instant, RelayId)>,
    /// Relays that wait for their first update.
    held: BTreeSet<RelayId>,
    /// When the next plan is due, if anything changed.
    plan_due: Option<PlanDue>,
    last_plan: Option<Instant>,
    /// When neighbours were last reviewed without a plan.
    last_introduction: Option<Instant>,
    rest: Rest,
    /// Relays that may have an update to send.
    ready: BTreeSet<RelayId>,
    /// Updates that are made, and to be sent.
    written: VecDeque<(RelayId, Update)>,
    events: VecDeque<Event>,
    stats: Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is planned or pushed; ends at the given time, which is set once a relay is heard.
    Settling { until: Option<Instant> },
    /// Plans are made and pushed.
    Planning,
}

#[derive(Clone, Copy, Debug)]
struct PlanDue {
    at: Instant,
    urgency: Urgency,
}

/// No plan is made before these, after one that took long.
#[derive(Clone, Copy, Debug)]
struct Rest {
    routine: Instant,
    urgent: Instant,
}

impl Rest {
    fn until(self, urgency: Urgency) -> Instant {
        match urgency {
            Urgency::Routine => self.routine,
            Urgency::Urgent => self.urgent,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// Waits for the epoch interval.
    Routine,
    /// Waits only for others of the same event.
    Urgent,
}

impl Scheduler {
    /// Makes a scheduler without members. `term` comes from the store and is greater than at any start
    /// before.
    pub fn new(config: Config, term: u64, now: Instant) -> Self {
        Self {
            mesh: Mesh::new(&config),
            neighbours: Neighbours::new(config.neighbours, config.full_mesh_max),
            config,
            epoch: Epoch { term, sequence: 0 },
            now,
            phase: Phase::Settling { until: None },
            relays: BTreeMap::new(),
            revoked: BTreeSet::new(),
            links: Links::default(),
            unreached: BTreeSet::new(),
            shared: Shared::default(),
            tenants: BTreeMap::new(),
            usage: Usage::default(),
            exhausted: BTreeMap::new(),
            services: Services::default(),
            access: Access::default(),
            records: Records::default(),
            qualities: Qualities::new(now),
            drains: Drains::default(),
            doubts: Doubts::default(),
            overloads: Overloads::default(),
            weights: Weights::default(),
            demand_changed: false,
            repriced: BTreeSet::new(),
            shared_changed: true,
            relinked: BTreeSet::new(),
            relink_all: false,
            parting: BTreeSet::new(),
            timers: BTreeSet::new(),
            held: BTreeSet::new(),
            plan_due: None,
            last_plan: None,
            last_introduction: None,
            rest: Rest { routine: now, urgent: now },
            ready: BTreeSet::new(),
            written: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Takes a member of the mesh, as the store knows it; at the start, and when one is added. A removed
    /// id does not come back.
    pub fn handle_member(&mut self, relay: RelayId, name: String) {
        if self.revoked.contains(&relay) {
            return;
        }
        let (term, now) = (self.epoch.term, self.now);
        let new = || Relay::new(String::new(), Push::new(term), now);
        self.relays.entry(relay).or_insert_with(new).name = name;
        self.shared_changed = true;
        self.request_plan(Urgency::Urgent);
    }

    /// Takes what a member said in its last hello to an earlier scheduler, as the store may keep it: the
    /// member counts as registered, and not as connected. Without this, members that do not come back
    /// while the scheduler settles lose their links until they do.
    ///
    /// # Errors
    /// As [`Self::handle_hello`].
    pub fn handle_remembered(
        &mut self,
        relay: RelayId,
        hello: Hello,
        now: Instant,
    ) -> Result<(), HelloError> {
        self.advance(now);
        let registration = self.check_hello(relay, hello)?;
        self.register(relay, registration);
        self.request_plan(Urgency::Routine);
        Ok(())
    }

    /// Removes a member for good, also one that was never told: it is revoked everywhere. The caller
    /// closes its connection.
    pub fn handle_removed(&mut self, relay: RelayId, now: Instant) {
        self.advance(now);
        self.remove(relay);
    }

    /// Starts a relay's session, in place of the one before. The caller sends the welcome first; messages
    /// and the end of an older connection of the same relay are no longer to be handed in.
    ///
    /// # Errors
    /// Says why the relay is refused; the text is fit for `Refused`.
    pub fn handle_hello(
        &mut self,
        relay: RelayId,
        hello: Hello,
        now: Instant,
    ) -> Result<Welcome, HelloError> {
        self.advance(now);
        let welcome = self.open_session(relay, hello);
        match &welcome {
            Ok(_) => self.stats.hellos += 1,
            Err(_) => self.stats.hellos_refused += 1,
        }
        welcome
    }

    /// Goes on with a greater term, as a scheduler that was started anew with the members and what they last said of
    /// themselves: for one that heard of a later epoch than its own ([`HelloError::Behind`]). All sessions end;
    /// the caller closes the connections, so that the relays dial anew. They keep what they hold meanwhile. A term
    /// that is not greater changes nothing.
    pub fn handle_term(&mut self, term: u64, now: Instant) {
        self.advance(now);
        if term > self.epoch.term {
            self.begin_anew(term);
        }
    }

    /// Takes a message of a relay's session: a report, offers, how its access side stands, what users feel, an
    /// acknowledgement, a goodbye. Renewals are the
    /// caller's business, and without effect here.
    ///
    /// # Errors
    /// Says why the message is refused; it then changes nothing. Reports in a row that do not count up end the
    /// session: the caller closes the connection on [`MessageError::NotConnected`], and the relay begins anew.
    pub fn handle_message(
        &mut self,
        relay: RelayId,
        message: ToScheduler,
        now: Instant,
    ) -> Result<(), MessageError> {
        self.advance(now);
        if self.relays.get(&relay).is_none_or(|relay| relay.session.is_none()) {
            return Err(MessageError::NotConnected);
        }
        match message.body {
            Some(to_scheduler::Body::Report(report)) => {
                self.take_report(relay, &report)
                    .or_else(|reason| self.refuse_report(relay, reason))?;
            }
            Some(to_scheduler::Body::Ack(ack)) => self.take_ack(relay, &ack),
            Some(to_scheduler::Body::Offers(offers)) => self.take_offers(relay, &offers),
            Some(to_scheduler::Body::AccessState(state)) => self.take_access_state(relay, &state),
            Some(to_scheduler::Body::Distances(distances)) => {
                self.take_distances(relay, &distances);
            }
            Some(to_scheduler::Body::Quality(quality)) => self.take_quality(relay, quality),
            Some(to_scheduler::Body::Goodbye(_)) => self.take_goodbye(relay),
            Some(to_scheduler::Body::Hello(_)) => return Err(MessageError::SecondHello),
            Some(to_scheduler::Body::Renewal(_)) | None => {}
        }
        Ok(())
    }

    /// Ends a relay's session. Its links stay as its neighbours see them.
    pub fn handle_disconnected(&mut self, relay: RelayId, now: Instant) {
        self.advance(now);
        let Some(known) = self.relays.get_mut(&relay) else { return };
        if known.session.take().is_none() {
            return;
        }
        known.absent_since = now;
        let draining = known.draining;
        self.links.set_word(relay, Word::default());
        self.shared_changed = true;
        self.held.remove(&relay);
        self.ready.remove(&relay);
        self.arm(relay);
        self.stats.sessions_lost += 1;
        self.emit(Event::RelayLost { relay, draining });
        self.request_plan(Urgency::Urgent);
    }

    /// The caller was busy or asleep for so long until `now`, a long plan included: what relays sent meanwhile may not
    /// have been handed in yet. They count as heard, and updates as sent, so much later; and if a plan was
    /// made in that time, the next one waits for a quarter of it, an urgent one an epoch at most, so that there is time to
    /// read.
    pub fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.advance(now);
        for relay in self.relays.values_mut() {
            relay.handle_stall(late_by, self.now);
        }
        if self.last_plan.is_some_and(|began| began + late_by >= self.now) {
            self.begin_rest(late_by);
        }
        self.stats.stalls += 1;
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        let due = self.take_armed();
        due.iter().for_each(|&id| self.expire(id));
        self.expire_drains();
        self.expire_doubts();
        self.change_phase();
        if self.phase == Phase::Planning {
            self.expire_holds();
            if self.plan_if_due() {
                self.offer_updates();
            } else {
                self.introduce_if_due();
            }
        }
        for id in due {
            self.offer_update(id);
            self.arm(id);
        }
    }

    /// The next message to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(RelayId, ToRelay)> {
        loop {
            if self.written.is_empty() {
                self.make_updates();
            }
            let (id, update) = self.written.pop_front()?;
            // Nothing is sent of which the relay's state is no longer what it was when this was written.
            let relay = self.relays.get(&id).filter(|relay| relay.session.is_some());
            if relay.is_some_and(|relay| relay.push.is_in_flight(update.revision)) {
                return Some((id, update.into()));
            }
        }
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether [`Self::handle_timeout`] would make a plan now, which takes longer than all else.
    pub fn is_plan_due(&self, now: Instant) -> bool {
        self.phase == Phase::Planning && self.plan_due.is_some_and(|due| due.at <= now)
    }

    /// When [`Self::handle_timeout`] is to be called next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Settling { until } => until,
            Phase::Planning => {
                let plan = self.plan_due.map(|due| due.at).or_else(|| self.first_hold());
                [plan, self.introduction()].into_iter().flatten().min()
            }
        };
        let relays = self.timers.first().map(|(at, _)| *at);
        [phase, relays, self.drains.next_deadline(), self.doubts.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Time never goes back, whatever the caller says.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.stats.events_dropped += 1;
        }
    }

    fn take_ack(&mut self, id: RelayId, ack: &Ack) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if ack.resync {
            relay.push.forget();
            self.stats.resyncs += 1;
        } else {
            match relay.push.ack(ack.revision) {
                Acked::InFlight => self.stats.acks += 1,
                Acked::Ignored => self.stats.acks_ignored += 1,
            }
        }
        self.hear(id);
        self.offer_update(id);
        self.arm(id);
    }

    fn take_goodbye(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.draining = true;
        self.stats.goodbyes += 1;
        self.shared_changed = true;
        self.tell_topology(id);
        self.request_plan(Urgency::Urgent);
    }
}
