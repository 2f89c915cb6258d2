//! The control plane of a world: the relays' clients, and the pipes between them and the scheduler.

use std::time::Instant;

use overway_wire::RelayId;
use overway_wire::control::{Hello, Line, ToScheduler, Update, VERSION_MAX, VERSION_MIN, to_relay};

use super::{Happening, SCHEDULER_ADDRESSES, World};
use crate::pipe::{IDLE_MAX, PAUSE_MAX, PAUSE_MIN, Parcel, Pipe, PipeId, WELCOME_MAX, Way};
use crate::site::{Client, Site};

impl World {
    /// A relay's client looks whether it is to dial or to give up.
    pub(super) fn client_tick(&mut self, id: RelayId) {
        let now = self.now;
        let Some(site) = self.sites.get(&id).filter(|site| site.is_awake()) else { return };
        match site.client {
            Client::Pause { until, next } if until <= now => self.dial_scheduler(id, next),
            Client::Pause { .. } => {}
            Client::Dialling { pipe, since, .. } => {
                let over = self.pipes.get(&pipe).is_none_or(|pipe| !pipe.relay_open);
                if over || now.saturating_duration_since(since) >= WELCOME_MAX {
                    self.lose_scheduler(id);
                }
            }
            Client::Up { pipe } => self.listen(id, pipe),
        }
        self.pipes.retain(|_, pipe| !pipe.is_over());
    }

    fn listen(&mut self, id: RelayId, pipe: PipeId) {
        let now = self.now;
        let cut = self.control_cut.get(&id).is_some_and(|cuts| *cuts > 0);
        let serving = |term| self.scheduler.as_ref().is_some_and(|s| s.term == term && !s.frozen);
        let silent = match self.pipes.get_mut(&pipe) {
            Some(pipe) => {
                if pipe.scheduler_open && serving(pipe.term) && !cut {
                    pipe.relay_heard = now;
                }
                now.saturating_duration_since(pipe.relay_heard) >= IDLE_MAX
            }
            None => true,
        };
        if silent {
            self.lose_scheduler(id);
        }
    }

    fn dial_scheduler(&mut self, id: RelayId, next: std::time::Duration) {
        let now = self.now;
        let Some(site) = self.sites.get_mut(&id) else { return };
        let Some(boot) = site.process.as_ref().map(|process| process.boot) else { return };
        let address = site.attempts as u64 % SCHEDULER_ADDRESSES;
        site.attempts += 1;
        self.pipe_numbers += 1;
        let pipe = PipeId(self.pipe_numbers);
        site.client = Client::Dialling { pipe, since: now, next };
        let delay = self.control_delay.get(&(id, address)).copied().unwrap_or_default();
        let there = self.scheduler.as_ref().filter(|own| own.address == address);
        let term = there.map_or(0, |own| own.term);
        let reached = there.is_some_and(|own| !own.frozen)
            && self.control_cut.get(&id).is_none_or(|cuts| *cuts == 0);
        let mut new = Pipe::new((id, boot), term, delay, now);
        new.scheduler_open = reached;
        self.pipes.insert(pipe, new);
        if reached {
            self.schedule(delay * 2, Happening::Parcel(pipe, Way::ToRelay, Parcel::Ready));
        }
    }

    fn lose_scheduler(&mut self, id: RelayId) {
        let now = self.now;
        let Some(site) = self.sites.get_mut(&id) else { return };
        let next = match site.client {
            Client::Pause { next, .. } | Client::Dialling { next, .. } => next,
            Client::Up { .. } => PAUSE_MIN,
        };
        let pipe = site.pipe();
        site.client = Client::Pause { until: now + next, next: (next * 2).min(PAUSE_MAX) };
        if let Some(pipe) = pipe {
            // Its streams are reset, which the other end hears if it can hear anything.
            self.post(pipe, Way::ToScheduler, Parcel::Close);
            if let Some(pipe) = self.pipes.get_mut(&pipe) {
                pipe.relay_open = false;
            }
        }
        self.say(format_args!("{id}: has no scheduler"));
        self.with_process(id, |process, out, now| process.handle_scheduler(false, now, out));
    }

    /// A control connection breaks at both ends.
    pub(super) fn break_pipe(&mut self, id: RelayId) {
        if let Some(pipe) = self.sites.get(&id).and_then(Site::pipe) {
            self.close_at_scheduler(pipe, false);
            self.pump_scheduler();
            if self.sites.get(&id).is_some_and(Site::is_awake) {
                self.lose_scheduler(id);
            }
        }
    }

    pub(super) fn send_up(&mut self, id: RelayId, message: ToScheduler) {
        if let Some(Client::Up { pipe }) = self.sites.get(&id).map(|site| site.client) {
            self.post(pipe, Way::ToScheduler, Parcel::Up(message));
        }
    }

    pub(super) fn post(&mut self, id: PipeId, way: Way, parcel: Parcel) {
        let now = self.now;
        if let Some(pipe) = self.pipes.get_mut(&id) {
            let at = pipe.arrival(way, now);
            self.schedule_at(at, Happening::Parcel(id, way, parcel));
        }
    }

    /// A parcel arrives, or waits where it cannot.
    pub(super) fn parcel(&mut self, id: PipeId, way: Way, parcel: Parcel) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let relay = pipe.relay;
        let cut = self.control_cut.get(&relay).is_some_and(|cuts| *cuts > 0);
        let asleep = match way {
            Way::ToRelay => self.sites.get(&relay).is_some_and(|site| site.frozen.is_some()),
            Way::ToScheduler => self.scheduler.as_ref().is_some_and(|own| own.frozen),
        };
        let held = &mut pipe.held[way.place()];
        if cut || asleep || !held.is_empty() {
            held.push_back(parcel);
            return;
        }
        match way {
            Way::ToRelay => self.parcel_to_relay(id, parcel),
            Way::ToScheduler => self.parcel_to_scheduler(id, parcel),
        }
    }

    fn parcel_to_relay(&mut self, id: PipeId, parcel: Parcel) {
        let now = self.now;
        let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| pipe.relay_open) else { return };
        let (relay, boot) = (pipe.relay, pipe.boot);
        pipe.relay_heard = now;
        let Some(site) = self.sites.get(&relay) else { return };
        if site.process.as_ref().is_none_or(|process| process.boot != boot) {
            return;
        }
        match parcel {
            Parcel::Ready => {
                let hello = hello(site);
                self.post(id, Way::ToScheduler, Parcel::Up(hello.into()));
            }
            Parcel::Down(message) => match message.body {
                Some(to_relay::Body::Welcome(_)) => self.welcome(relay, id),
                Some(to_relay::Body::Refused(_)) => self.lose_scheduler(relay),
                Some(to_relay::Body::Update(update)) => self.update(relay, update, now),
                Some(to_relay::Body::Renewed(_)) | None => {}
            },
            Parcel::Close => self.lose_scheduler(relay),
            Parcel::Up(_) => {}
        }
    }

    fn welcome(&mut self, relay: RelayId, pipe: PipeId) {
        if let Some(site) = self.sites.get_mut(&relay) {
            site.client = Client::Up { pipe };
        }
        self.figures.control_connections += 1;
        self.say(format_args!("{relay}: is welcome"));
        if self.scenario.cells {
            // Before its first report, as the real one does.
            self.send_up(relay, self.cells.offers(relay).into());
        }
        self.with_process(relay, |process, out, now| process.handle_scheduler(true, now, out));
    }

    fn update(&mut self, relay: RelayId, update: Update, now: Instant) {
        let mut outcome = None;
        self.watch.handle_update(relay, &update, self.now);
        self.with_process(relay, |process, out, now| {
            let before = process.core.pushed().epoch();
            let ack = process.handle_update(update, now, out);
            outcome = Some((before, process.core.pushed().epoch(), ack));
        });
        if let Some((before, after, ack)) = outcome {
            self.watch.handle_epoch(relay, (before, after), !ack.resync, now);
            self.send_up(relay, ack.into());
        }
    }
}

pub(super) fn name(id: RelayId) -> String {
    format!("relay-{id}")
}

/// What a relay says of itself, with what it holds now.
fn hello(site: &Site) -> Hello {
    let process = site.process.as_ref().expect("asked of a running process");
    let pushed = process.core.pushed();
    let addresses = (0..site.lines).map(|line| format!("10.0.{line}.{}:4400", site.id.0));
    let line = Line { capacity_bps: site.capacity_bps, ..Line::default() };
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        boot: process.boot.0,
        name: name(site.id),
        software: "sim".to_owned(),
        addresses: addresses.collect(),
        region: site.region.clone(),
        provider: site.provider.clone(),
        lines: vec![line; usize::from(site.lines)],
        epoch_term: pushed.epoch().term,
        epoch_sequence: pushed.epoch().sequence,
        revision: pushed.revision(),
        ..Hello::default()
    }
}
