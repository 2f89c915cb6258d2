//! The scheduler's process of a world, and its ends of the pipes.

use overway_scheduler_core::{Config, Event, MessageError, Scheduler};
use overway_wire::RelayId;
use overway_wire::control::{Hello, Refused, ToRelay, ToScheduler, to_scheduler};

use super::control::name;
use super::{Happening, SCHEDULER_ADDRESSES, SchedulerProcess, World};
use crate::cells::Wishes;
use crate::pipe::{IDLE_MAX, Parcel, PipeId, Way};
use crate::scenario::Sabotage;
use crate::site::Site;

impl World {
    /// Starts a scheduler of the next term at some address. Its store knows the members, no more.
    pub(super) fn start_scheduler(&mut self) {
        self.term += 1;
        let config = Config {
            full_mesh_max: self.scenario.full_mesh_max,
            neighbours: self.scenario.neighbours,
            ..Config::default()
        };
        let mut core = Scheduler::new(config, self.term, self.now);
        for id in (1..=self.scenario.relays).map(RelayId) {
            core.handle_member(id, name(id));
        }
        self.put_wishes(&mut core);
        let address = self.chance.below(SCHEDULER_ADDRESSES);
        self.scheduler = Some(SchedulerProcess {
            core,
            term: self.term,
            address,
            sessions: std::collections::BTreeMap::new(),
            armed: None,
            frozen: false,
        });
        let term = self.term;
        self.say(format_args!("scheduler: term {term} starts at address {address}"));
        self.pump_scheduler();
    }

    /// What operators wish is in the store as well.
    fn put_wishes(&mut self, core: &mut Scheduler) {
        let wrong = |sabotage| self.scenario.sabotage == Some(sabotage);
        let wrong = (wrong(Sabotage::OpenCells), wrong(Sabotage::UnnamedCells));
        let Wishes { policies, tenants } = self.cells.wishes(wrong);
        for (id, policy) in policies {
            core.handle_policy(id, Some(policy), self.now).expect("a policy that can be");
        }
        for (number, tenant) in tenants {
            core.handle_tenant(number, Some(tenant), self.now).expect("a tenant that can be");
        }
    }

    /// Ends the scheduler's process, without a word to anyone.
    pub(super) fn kill_scheduler(&mut self) {
        if let Some(scheduler) = self.scheduler.take() {
            self.count_scheduler(&scheduler.core);
            self.say(format_args!("scheduler: term {} killed", scheduler.term));
        }
        for pipe in self.pipes.values_mut() {
            pipe.scheduler_open = false;
        }
    }

    pub(super) fn freeze_scheduler(&mut self) {
        self.say(format_args!("scheduler: frozen"));
        if let Some(scheduler) = &mut self.scheduler {
            scheduler.frozen = true;
        }
    }

    pub(super) fn thaw_scheduler(&mut self) {
        self.say(format_args!("scheduler: thaws"));
        if let Some(scheduler) = &mut self.scheduler {
            scheduler.frozen = false;
            scheduler.core.handle_timeout(self.now);
        }
        self.pump_scheduler();
        let relays: Vec<RelayId> = self.sites.keys().copied().collect();
        for relay in relays {
            self.release_pipes(relay);
        }
    }

    /// Adds a scheduler's counters, and checks those that tell of something broken.
    pub(crate) fn count_scheduler(&mut self, core: &Scheduler) {
        let stats = core.stats();
        self.figures.epochs += stats.epochs;
        self.figures.updates_full += stats.updates_full;
        self.figures.hellos_refused += stats.hellos_refused;
        self.figures.doubts += stats.doubts;
        self.figures.weights_changed += stats.weights_changed;
        self.figures.overloads += stats.overloads;
        self.figures.links_added += stats.links_added;
        self.figures.links_removed += stats.links_removed;
        let broken =
            stats.events_dropped + stats.report_links_ignored + stats.report_demands_ignored;
        let refused = stats.reports_refused;
        if broken > 0 || refused != overway_scheduler_core::ReportsRefused::default() {
            self.watch.violate(self.now, format_args!("scheduler: refused or dropped: {stats:?}"));
        }
    }

    pub(super) fn scheduler_timer(&mut self, term: u64) {
        let now = self.now;
        let Some(scheduler) = self.scheduler.as_mut().filter(|own| own.term == term) else {
            return;
        };
        if scheduler.armed != Some(now) {
            return;
        }
        scheduler.armed = None;
        if scheduler.frozen {
            return;
        }
        scheduler.core.handle_timeout(now);
        self.pump_scheduler();
    }

    /// Gives up relays that were not heard for long, and hears the others.
    pub(super) fn scheduler_tick(&mut self) {
        let now = self.now;
        let Some(term) = self.scheduler.as_ref().filter(|own| !own.frozen).map(|own| own.term)
        else {
            return;
        };
        let mut given_up = Vec::new();
        for (&id, pipe) in &mut self.pipes {
            if pipe.term != term || !pipe.scheduler_open {
                continue;
            }
            let cut = self.control_cut.get(&pipe.relay).is_some_and(|cuts| *cuts > 0);
            let awake = self.sites.get(&pipe.relay).is_some_and(Site::is_awake);
            if pipe.relay_open && awake && !cut {
                pipe.scheduler_heard = now;
            }
            if now.saturating_duration_since(pipe.scheduler_heard) >= IDLE_MAX {
                given_up.push(id);
            }
        }
        for id in given_up {
            self.close_at_scheduler(id, false);
        }
        self.pump_scheduler();
    }

    /// The scheduler ends a session, and says so or not.
    pub(super) fn close_at_scheduler(&mut self, id: PipeId, telling: bool) {
        let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| pipe.scheduler_open) else { return };
        pipe.scheduler_open = false;
        let relay = pipe.relay;
        let now = self.now;
        if let Some(scheduler) = &mut self.scheduler
            && scheduler.sessions.get(&relay) == Some(&id)
        {
            scheduler.sessions.remove(&relay);
            scheduler.core.handle_disconnected(relay, now);
        }
        if telling {
            self.post(id, Way::ToRelay, Parcel::Close);
        }
    }

    /// Sends what the scheduler's core has, and sets its timer.
    pub(super) fn pump_scheduler(&mut self) {
        let now = self.now;
        let mut posts = Vec::new();
        let mut epochs = Vec::new();
        let mut link_changes = Vec::new();
        let Some(scheduler) = self.scheduler.as_mut().filter(|own| !own.frozen) else { return };
        while let Some((relay, message)) = scheduler.core.poll_transmit() {
            if let Some(&pipe) = scheduler.sessions.get(&relay) {
                posts.push((pipe, message));
            }
        }
        while let Some(event) = scheduler.core.poll_event() {
            match event {
                Event::LinkChanged { link, usable } => {
                    link_changes.push((link, usable));
                }
                Event::EpochMade { epoch, changed_routes, updates } => {
                    epochs.push((epoch, changed_routes, updates));
                }
                Event::LinkSuspect { .. }
                | Event::RelayUnreached { .. }
                | Event::RelayReached { .. }
                | Event::Detoured { .. }
                | Event::RelayStalled { .. }
                | Event::RelayConnected { .. }
                | Event::RelayLost { .. }
                | Event::ReportRefused { .. }
                | Event::Overloaded { .. }
                | Event::OverloadEnded { .. }
                | Event::DrainChanged { .. }
                | Event::PolicyChanged { .. }
                | Event::TenantChanged { .. } => {}
            }
        }
        let due = scheduler.core.poll_timeout().map(|due| due.max(now));
        let (armed, term) = (scheduler.armed, scheduler.term);
        for (pipe, message) in posts {
            self.post(pipe, Way::ToRelay, Parcel::Down(message));
        }
        for (link, usable) in link_changes {
            let verdict = if usable { "usable" } else { "not usable" };
            self.say(format_args!("scheduler: link {link} is {verdict}"));
        }
        for (epoch, routes, updates) in epochs {
            self.say(format_args!(
                "scheduler: epoch {epoch} changes {routes} routes and {updates} relays"
            ));
        }
        let Some(due) = due.map(|due| self.grain(due)) else { return };
        if armed.is_none_or(|armed| due < armed || armed <= now) {
            if let Some(scheduler) = &mut self.scheduler {
                scheduler.armed = Some(due);
            }
            self.schedule_at(due, Happening::SchedulerTimer(term));
        }
    }

    pub(super) fn parcel_to_scheduler(&mut self, id: PipeId, parcel: Parcel) {
        let now = self.now;
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let (relay, term) = (pipe.relay, pipe.term);
        if !pipe.scheduler_open {
            if self.scheduler.as_ref().is_some_and(|own| own.term == term) {
                // As a stateless reset does.
                self.post(id, Way::ToRelay, Parcel::Close);
            }
            return;
        }
        pipe.scheduler_heard = now;
        let Some(scheduler) = self.scheduler.as_mut().filter(|own| own.term == term) else {
            return;
        };
        match parcel {
            Parcel::Up(ToScheduler { body: Some(to_scheduler::Body::Hello(hello)) }) => {
                self.greet(id, relay, hello);
            }
            Parcel::Up(message) => {
                if scheduler.sessions.get(&relay) == Some(&id) {
                    match scheduler.core.handle_message(relay, message, now) {
                        // Counted by the core.
                        Ok(()) | Err(MessageError::Report(_)) => {}
                        Err(MessageError::NotConnected | MessageError::SecondHello) => {
                            self.close_at_scheduler(id, true);
                        }
                    }
                }
            }
            Parcel::Close => self.close_at_scheduler(id, false),
            Parcel::Ready | Parcel::Down(_) => {}
        }
        self.pump_scheduler();
    }

    fn greet(&mut self, id: PipeId, relay: RelayId, hello: Hello) {
        let now = self.now;
        let Some(scheduler) = &mut self.scheduler else { return };
        let answer = match scheduler.core.handle_hello(relay, hello, now) {
            Ok(welcome) => {
                let old = scheduler.sessions.insert(relay, id);
                if let Some(old) = old.filter(|old| *old != id) {
                    self.close_at_scheduler(old, true);
                }
                ToRelay::from(welcome)
            }
            Err(error) => {
                self.say(format_args!("scheduler: refuses {relay}: {error}"));
                ToRelay::from(Refused { reason: error.to_string() })
            }
        };
        self.post(id, Way::ToRelay, Parcel::Down(answer));
    }
}
