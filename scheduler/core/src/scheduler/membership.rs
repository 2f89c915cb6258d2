//! Who is registered and connected, and whether the scheduler hears enough to plan.

use std::time::Instant;

use overway_wire::control::{Hello, Welcome};
use overway_wire::{Epoch, RelayId};

use super::{Phase, Scheduler, Urgency};
use crate::links::Word;
use crate::registration::{self, MESH_RELAYS_MAX, Registration};
use crate::session::{Relay, Session};
use crate::{Event, HelloError};

/// How far a relay's term may be above this scheduler's. A term is one start of a scheduler; and however often a
/// relay lies, terms do not run out.
const TERM_JUMP_MAX: u64 = 1 << 32;

impl Scheduler {
    /// Checks a hello and starts the session.
    pub(super) fn open_session(
        &mut self,
        id: RelayId,
        hello: Hello,
    ) -> Result<Welcome, HelloError> {
        let version = registration::version(&hello)?;
        let epoch = Epoch { term: hello.epoch_term, sequence: hello.epoch_sequence };
        let revision = hello.revision;
        let registration = self.check_hello(id, hello)?;
        self.check_epoch(epoch)?;
        self.register(id, registration);

        let relay = self.relays.get_mut(&id).expect("a checked hello is of a member");
        if relay.version != version {
            // One that did not keep policies apart has none of what they make.
            relay.version = version;
            relay.push.forget();
        }
        let resumed = relay.push.resume(revision, epoch);
        let hold = if revision == 0 { self.now } else { self.now + self.config.settle };
        relay.session = Some(Session {
            heard: self.now,
            reported: None,
            sequence: 0,
            out_of_step: 0,
            holds_state: revision != 0,
            hold_until: (!resumed).then_some(hold),
            stale: false,
        });
        relay.draining = false;
        self.services.handle_session(id);
        self.access.handle_session(id);
        if !resumed {
            self.held.insert(id);
        }
        self.shared_changed = true;
        self.tell_topology(id);
        self.emit(Event::RelayConnected { relay: id });
        self.hear(id);
        self.request_plan(Urgency::Urgent);
        self.offer_update(id);
        Ok(Welcome {
            version,
            term: self.epoch.term,
            report_interval_ms: u32::try_from(self.config.report_interval.as_millis())
                .unwrap_or(u32::MAX),
        })
    }

    /// Checks what a hello says of the relay against the members.
    pub(super) fn check_hello(
        &self,
        id: RelayId,
        hello: Hello,
    ) -> Result<Registration, HelloError> {
        if self.revoked.contains(&id) {
            return Err(HelloError::Removed(id));
        }
        let relay = self.relays.get(&id).ok_or(HelloError::Unknown(id))?;
        if hello.name != relay.name {
            let said = hello.name.chars().take(registration::NAME_BYTES_MAX).collect();
            return Err(HelloError::Name { said, expected: relay.name.clone() });
        }
        let registration = Registration::check(hello)?;
        let registered = self.mesh.topology().relays().len();
        if relay.registration.is_none() && registered >= MESH_RELAYS_MAX {
            return Err(HelloError::MeshFull(MESH_RELAYS_MAX));
        }
        Ok(registration)
    }

    /// Checks that this scheduler is not behind what a relay has.
    fn check_epoch(&mut self, relay: Epoch) -> Result<(), HelloError> {
        let scheduler = self.epoch;
        if relay <= scheduler {
            return Ok(());
        }
        if relay.term - scheduler.term > TERM_JUMP_MAX {
            self.stats.terms_absurd += 1;
            return Err(HelloError::AbsurdTerm { relay: relay.term, scheduler: scheduler.term });
        }
        Err(HelloError::Behind { relay, scheduler })
    }

    /// Begins anew in a greater term, with the same members and registrations and without sessions.
    pub(super) fn begin_anew(&mut self, term: u64) {
        let mut anew = Self::new(self.config.clone(), term, self.now);
        anew.revoked = std::mem::take(&mut self.revoked);
        anew.events = std::mem::take(&mut self.events);
        anew.stats = self.stats;
        anew.stats.terms_raised += 1;
        anew.drains = std::mem::take(&mut self.drains);
        anew.tenants = std::mem::take(&mut self.tenants);
        anew.usage = std::mem::take(&mut self.usage);
        anew.exhausted = std::mem::take(&mut self.exhausted);
        for (id, policy) in self.mesh.topology().policies() {
            let put = anew.mesh.put_policy(id, policy.clone());
            put.expect("policies that fitted before fit again");
        }
        for (id, relay) in std::mem::take(&mut self.relays) {
            anew.handle_member(id, relay.name);
            let member = anew.relays.get_mut(&id).expect("a member is not revoked");
            member.draining = relay.draining;
            member.transit_override = relay.transit_override;
            if relay.session.is_none() {
                member.absent_since = relay.absent_since;
            } else {
                anew.stats.sessions_lost += 1;
                anew.emit(Event::RelayLost { relay: id, draining: relay.draining });
            }
            if let Some(registration) = relay.registration {
                anew.register(id, registration);
            }
        }
        *self = anew;
    }

    /// Takes a member's registration, in place of the one before.
    pub(super) fn register(&mut self, id: RelayId, registration: Registration) {
        let relay = self.relays.get_mut(&id).expect("a checked hello is of a member");
        match &relay.registration {
            Some(before) if *before == registration => return,
            // What an earlier process observed stands until the new one's first report, which is full:
            // without it there would be no link to the relay, and its senders would be left without a path.
            Some(_) => {}
            None => relay.push.begin(),
        }
        let (region, provider) = (&registration.region, &registration.provider);
        self.neighbours.insert(id, region, provider, self.now);
        relay.registration = Some(registration);
        self.shared_changed = true;
        self.relinked.insert(id);
        self.refresh_lines(id);
        self.tell_topology(id);
    }

    /// Removes a member for good.
    pub(super) fn remove(&mut self, id: RelayId) {
        self.revoked.insert(id);
        self.unregister(id);
        self.links.forget(id);
        self.services.forget(id);
        self.access.forget(id);
        self.drains.forget(id);
        self.shared_changed = true;
        self.ready.remove(&id);
        if let Some(relay) = self.relays.remove(&id)
            && relay.session.is_some()
        {
            self.stats.sessions_lost += 1;
            self.emit(Event::RelayLost { relay: id, draining: relay.draining });
        }
        self.request_plan(Urgency::Urgent);
    }

    /// Ends a registration: the relay has no links any more.
    fn unregister(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.registration.take().is_none() {
            return;
        }
        relay.push.clear();
        relay.demands.clear();
        relay.line_use.clear();
        relay.attachments = None;
        let word = relay.word();
        self.shared_changed = true;
        self.relinked.remove(&id);
        for other in self.neighbours.of(id) {
            self.remove_pair(id, other);
        }
        self.neighbours.remove(id);
        self.services.forget(id);
        self.access.forget(id);
        self.doubts.forget(id);
        self.mesh.remove_relay(id);
        for link in self.links.forget(id) {
            self.emit(Event::LinkChanged { link, usable: false });
        }
        self.links.set_word(id, word);
        self.unreached.remove(&id);
        self.request_plan(Urgency::Urgent);
    }

    /// Tells the topology what is known of a registered relay.
    pub(super) fn tell_topology(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get(&id) else { return };
        if let Some(attributes) = relay.attributes(self.drains.relay(id)) {
            self.neighbours.set_transit(id, attributes.transit);
            self.mesh.put_relay(id, attributes);
            self.shared_changed = true;
        }
    }

    /// Notes that a relay was heard, which may begin or end settling.
    pub(super) fn hear(&mut self, id: RelayId) {
        let session = self.relays.get_mut(&id).and_then(|relay| relay.session.as_mut());
        let Some(session) = session else { return };
        session.heard = self.now;
        session.stale = false;
        self.links.set_word(id, Word { connected: true, fresh: true });
        self.arm(id);
        if let Phase::Settling { until } = self.phase {
            let later = until.unwrap_or(self.now + self.config.settle);
            let until = if self.everyone_settled() { self.now } else { later };
            self.phase = Phase::Settling { until: Some(until) };
        }
    }

    /// Settles once enough was heard, and settles anew when nobody is heard.
    pub(super) fn change_phase(&mut self) {
        let someone = self.links.hears_someone();
        match self.phase {
            Phase::Settling { until: None } => {}
            Phase::Settling { until: Some(until) } if self.now < until => {}
            Phase::Settling { until: Some(_) } if someone => {
                self.phase = Phase::Planning;
                self.request_plan_at(self.now, Urgency::Urgent);
            }
            Phase::Settling { until: Some(_) } => self.phase = Phase::Settling { until: None },
            Phase::Planning if someone => {}
            Phase::Planning => {
                self.phase = Phase::Settling { until: None };
                self.stats.blind += 1;
            }
        }
    }

    /// Looks after a relay's timers: its silence, its registration, the update in flight.
    pub(super) fn expire(&mut self, id: RelayId) {
        let (now, stale) = (self.now, self.config.report_stale);
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if let Some(session) = relay.session.as_mut().filter(|session| !session.stale)
            && session.silent(now, stale)
        {
            session.stale = true;
            self.links.set_word(id, Word { connected: true, fresh: false });
            self.request_plan(Urgency::Urgent);
        }
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let deadline = relay.push.ack_deadline(self.config.ack_timeout);
        if relay.session.is_some() && deadline.is_some_and(|deadline| deadline <= now) {
            relay.push.forget();
            self.stats.ack_timeouts += 1;
        }
        if relay.registration_end(self.config.goodbye_absence).is_some_and(|end| end <= now) {
            self.unregister(id);
        }
    }

    /// Takes the relays whose timers may want attention now.
    pub(super) fn take_armed(&mut self) -> Vec<RelayId> {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            if let Some(relay) = self.relays.get_mut(&id) {
                relay.armed = None;
                due.push(id);
            }
        }
        due
    }

    /// Sees to it that a relay's timers are looked after in time. They mostly move on before they are due, which
    /// changes nothing until then.
    pub(super) fn arm(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get(&id) else { return };
        let Some(due) = self.relay_timeout(relay) else { return };
        if relay.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(relay) = self.relays.get_mut(&id)
            && let Some(before) = relay.armed.replace(due)
        {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((due, id));
    }

    /// When a relay's own timers want attention.
    fn relay_timeout(&self, relay: &Relay) -> Option<Instant> {
        let registration = relay.registration_end(self.config.goodbye_absence);
        let Some(session) = relay.session else { return registration };
        let silence = (!session.stale).then(|| session.heard + self.config.report_stale);
        let ack = relay.push.ack_deadline(self.config.ack_timeout);
        let planning = self.phase == Phase::Planning && session.hold_until.is_none();
        let update = planning.then(|| relay.push.due(self.now)).flatten();
        [silence, ack, update.filter(|due| *due > self.now)].into_iter().flatten().min()
    }

    fn everyone_settled(&self) -> bool {
        self.relays.values().all(|relay| relay.settled() && relay.word().fresh)
    }
}
