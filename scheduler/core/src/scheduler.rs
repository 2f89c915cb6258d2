//! The verbs of the scheduler. Membership, planning and the view for people are in modules of their own.

mod membership;
mod planning;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use overway_wire::control::{
    Ack, Hello, Item, Key, MESSAGE_BYTES_MAX, Report, ToRelay, ToScheduler, Welcome, to_scheduler,
};
use overway_wire::{Epoch, RelayId};
use prost::Message;

use crate::event::EVENTS_MAX;
use crate::links::Links;
use crate::plan::Mesh;
use crate::push::{Acked, Push};
use crate::report::{self, Neighbour};
use crate::session::Relay;
use crate::{Config, Event, HelloError, MessageError, ReportError, Stats};

/// Reports in a row, refused for their sequence, after which a relay's session ends. Without this a relay that counts
/// from a lower number again would not be heard for as long as it takes to count up.
const OUT_OF_STEP_MAX: u32 = 3;

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
    mesh: Mesh,
    /// What every registered relay is pushed alike.
    shared: BTreeMap<Key, Arc<Item>>,
    /// Relays whose links are to be made anew by the next plan.
    relinked: BTreeSet<RelayId>,
    /// When the next plan is due, if anything changed.
    plan_due: Option<PlanDue>,
    last_plan: Option<Instant>,
    /// Relays that may have an update to send.
    ready: BTreeSet<RelayId>,
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
            mesh: Mesh::new(config.planner),
            config,
            epoch: Epoch { term, sequence: 0 },
            now,
            phase: Phase::Settling { until: None },
            relays: BTreeMap::new(),
            revoked: BTreeSet::new(),
            links: Links::default(),
            shared: BTreeMap::new(),
            relinked: BTreeSet::new(),
            plan_due: None,
            last_plan: None,
            ready: BTreeSet::new(),
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

    /// Takes a message of a relay's session: a report, an acknowledgement, a goodbye. Renewals are the
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
        self.ready.remove(&relay);
        self.stats.sessions_lost += 1;
        self.emit(Event::RelayLost { relay, draining });
        self.request_plan(Urgency::Urgent);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.expire_words();
        self.expire_registrations();
        self.expire_updates();
        self.change_phase();
        if self.phase == Phase::Planning {
            self.expire_holds();
            self.plan_if_due();
            self.offer_updates();
        }
    }

    /// The next message to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(RelayId, ToRelay)> {
        while let Some(id) = self.ready.pop_first() {
            let Some(relay) = self.relays.get_mut(&id) else { continue };
            if relay.session.is_none() || relay.push.due(self.now).is_none_or(|due| due > self.now)
            {
                continue;
            }
            // Relays take only greater epochs, also where the same state is sent once more.
            if relay.push.last_epoch() >= self.epoch {
                self.epoch.sequence += 1;
            }
            let update = relay.push.next(self.epoch, self.now);
            let full = update.base == 0;
            let message = ToRelay::from(update);
            if message.encoded_len() > MESSAGE_BYTES_MAX {
                self.stats.updates_too_large += 1;
                continue;
            }
            let counter =
                if full { &mut self.stats.updates_full } else { &mut self.stats.updates_delta };
            *counter += 1;
            return Some((id, message));
        }
        None
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Settling { until } => until,
            Phase::Planning => self.plan_due.map(|due| due.at).or_else(|| self.first_hold()),
        };
        let relays = self.relays.values().filter_map(|relay| self.relay_timeout(relay));
        relays.chain(phase).min()
    }

    /// The state that a relay is to have, by key; empty if it is not registered.
    pub fn pushed(&self, relay: RelayId) -> impl Iterator<Item = (&Key, &Item)> {
        let relay = self.relays.get(&relay);
        relay.into_iter().flat_map(|relay| relay.push.items()).map(|(key, item)| (key, &**item))
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

    fn take_report(&mut self, id: RelayId, report: &Report) -> Result<(), ReportError> {
        let neighbour = |neighbour| match &neighbour {
            neighbour if self.relays.contains_key(neighbour) => Neighbour::Member,
            neighbour if self.revoked.contains(neighbour) => Neighbour::Removed,
            _ => Neighbour::Unknown,
        };
        let sequence =
            self.relays.get(&id).and_then(|relay| relay.session).map_or(0, |s| s.sequence);
        let checked = report::check(id, report, sequence, neighbour)?;
        self.stats.reports += 1;
        self.stats.absurd.add(checked.absurd);
        self.stats.report_links_ignored += u64::try_from(checked.ignored).unwrap_or(u64::MAX);
        let changed = self.links.observe(id, report.full, checked.links);
        let Some(relay) = self.relays.get_mut(&id) else { return Ok(()) };
        relay.self_stalls = report.self_stalls;
        let Some(session) = relay.session.as_mut() else { return Ok(()) };
        let awaited = session.stale || session.hold_until.is_some();
        session.sequence = report.sequence;
        session.out_of_step = 0;
        session.reported = Some(self.now);
        self.hear(id);
        self.request_plan(if changed || awaited { Urgency::Urgent } else { Urgency::Routine });
        Ok(())
    }

    /// Counts a refused report, and ends the session if the relay is out of step.
    fn refuse_report(&mut self, id: RelayId, reason: ReportError) -> Result<(), MessageError> {
        self.stats.reports_refused.count(reason);
        self.emit(Event::ReportRefused { relay: id, reason });
        let session = self.relays.get_mut(&id).and_then(|relay| relay.session.as_mut());
        if let (Some(session), ReportError::Sequence) = (session, reason) {
            session.out_of_step += 1;
            if session.out_of_step >= OUT_OF_STEP_MAX {
                self.stats.sessions_out_of_step += 1;
                self.handle_disconnected(id, self.now);
                return Err(MessageError::NotConnected);
            }
        }
        Err(reason.into())
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
    }

    fn take_goodbye(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        relay.draining = true;
        self.stats.goodbyes += 1;
        self.tell_topology(id);
        self.request_plan(Urgency::Urgent);
    }
}
