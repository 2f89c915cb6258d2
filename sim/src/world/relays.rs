//! The relays of a world: their processes' life, what reaches them, and what comes out of them.

use std::time::{Duration, Instant};

use overway_probe::LocalClock;
use overway_relay_core::Config;
use overway_wire::hop::HopMessage;
use overway_wire::{BootId, Header, RelayId, Ticks};

use super::{CLOCK_OFFSET_US_MAX, Happening, World};
use crate::packet::{Body, Packet};
use crate::pipe::{PAUSE_MIN, Parcel, Way};
use crate::process::{Outbox, Process};
use crate::site::{Client, Inbox};

impl World {
    /// Starts a relay's process, with what its disk holds and a clock that reads anything.
    pub(super) fn start_process(&mut self, id: RelayId) {
        let offset = Ticks(self.chance.below(CLOCK_OFFSET_US_MAX));
        let probe = self.scenario.probe.clone();
        let now = self.now;
        let Some(site) = self.sites.get_mut(&id) else { return };
        site.boots += 1;
        // Unlike any other process's.
        let boot = BootId(u32::from(id.0) << 16 | site.boots);
        let clock = LocalClock::new(now, offset, site.drift_ppm);
        let config = Config { probe, ..Config::new(id, boot, clock) };
        site.process = Some(Process::start(config, site.disk.as_ref(), site.dials, now));
        let first = site.boots == 1;
        site.client = Client::Pause { until: now, next: PAUSE_MIN };
        self.attach_ends(id, boot, first);
        self.say(format_args!("{id}: starts"));
        self.with_process(id, |process, out, now| process.pump(now, out));
    }

    /// Ends a relay's process, without a word to anyone.
    pub(super) fn kill_process(&mut self, id: RelayId) {
        let now = self.now;
        let Some(site) = self.sites.get_mut(&id) else { return };
        site.frozen = None;
        let pipe = site.pipe();
        site.client = Client::Pause { until: now, next: PAUSE_MIN };
        let Some(process) = site.process.take() else { return };
        site.dials = process.dials();
        self.watch.handle_counters(&process.core, now);
        self.watch.handle_ended(id);
        self.figures.count_process(&process.core);
        if let Some(pipe) = pipe.and_then(|pipe| self.pipes.get_mut(&pipe)) {
            pipe.relay_open = false;
        }
        self.say(format_args!("{id}: killed"));
    }

    pub(super) fn freeze_process(&mut self, id: RelayId) {
        if let Some(site) = self.sites.get_mut(&id) {
            site.frozen = Some(Inbox::default());
        }
        self.say(format_args!("{id}: frozen"));
    }

    /// Gives a process time again: its timers and its backlog compete, and either may win.
    pub(super) fn thaw_process(&mut self, id: RelayId) {
        let Some(inbox) = self.sites.get_mut(&id).and_then(|site| site.frozen.take()) else {
            return;
        };
        let (packets, overflowed) = (inbox.packets, inbox.overflowed);
        self.say(format_args!("{id}: thaws, {} packets wait", packets.len()));
        self.figures.packets_lost += overflowed;
        let stalls = self.stalls(id);
        let timers_first = self.chance.chance(500_000);
        if timers_first {
            self.with_process(id, |process, out, now| process.handle_timeout(now, out));
        }
        for packet in packets {
            self.read(packet);
        }
        self.with_process(id, |process, out, now| process.handle_timeout(now, out));
        let noticed = self.stalls(id) - stalls;
        if noticed > 1 {
            self.watch
                .violate(self.now, format_args!("{id}: took one freeze for {noticed} stalls"));
        }
        self.release_pipes(id);
    }

    fn stalls(&self, id: RelayId) -> u64 {
        let process = self.sites.get(&id).and_then(|site| site.process.as_ref());
        process.map_or(0, |process| process.core.stats().self_stalls)
    }

    pub(super) fn arrive(&mut self, packet: Packet) {
        let (kind, bytes) = packet.digest();
        let link = packet.link;
        let numbers = [kind, u64::from(link.from.0), u64::from(link.to.0), packet.connection.0];
        self.trace.note(self.now.saturating_duration_since(self.base), &numbers, bytes);
        let Some(site) = self.sites.get_mut(&packet.link.to) else { return };
        match &mut site.frozen {
            Some(inbox) => inbox.push(packet),
            None if site.process.is_some() => self.read(packet),
            None => {}
        }
    }

    /// A process reads a packet.
    fn read(&mut self, packet: Packet) {
        let id = packet.link.to;
        self.with_process(id, |process, out, now| process.handle_packet(packet, now, out));
    }

    pub(super) fn timer(&mut self, id: RelayId, boot: BootId) {
        let now = self.now;
        let Some(process) = self.sites.get_mut(&id).and_then(|site| site.awake()) else { return };
        if process.boot != boot || process.armed != Some(now) {
            return;
        }
        process.armed = None;
        self.with_process(id, |process, out, now| {
            if process.core.poll_timeout().is_some_and(|due| due <= now) {
                process.handle_timeout(now, out);
            }
        });
    }

    pub(super) fn tick(&mut self, id: RelayId) {
        self.with_process(id, |process, out, now| process.handle_tick(now, out));
        self.client_tick(id);
    }

    /// Lets a process that gets time do something, and puts where it belongs what it has to say.
    pub(super) fn with_process(
        &mut self,
        id: RelayId,
        act: impl FnOnce(&mut Process, &mut Outbox, Instant),
    ) {
        let now = self.now;
        let Some(site) = self.sites.get_mut(&id) else { return };
        let Some(process) = site.awake() else { return };
        let mut out = Outbox::default();
        act(process, &mut out, now);
        self.absorb(id, out);
        self.arm(id);
    }

    fn arm(&mut self, id: RelayId) {
        let process = self.sites.get(&id).and_then(|site| site.process.as_ref());
        let Some(process) = process else { return };
        let Some(due) = process.core.poll_timeout() else { return };
        let due = self.grain(due.max(self.now));
        if process.armed.is_some_and(|armed| armed <= due && armed > self.now) {
            return;
        }
        let boot = process.boot;
        if let Some(process) = self.sites.get_mut(&id).and_then(|site| site.process.as_mut()) {
            process.armed = Some(due);
        }
        self.schedule_at(due, Happening::Timer(id, boot));
    }

    fn absorb(&mut self, id: RelayId, out: Outbox) {
        let Outbox {
            packets,
            received,
            repairs,
            delivered,
            reports,
            fib_changed,
            link_changes,
            saved,
        } = out;
        for (link, header) in &received {
            self.watch.handle_received(*link, header, self.now);
        }
        if self.scenario.attached_twice {
            received.iter().for_each(|(link, header)| self.repaired.handle_read(link.to, *header));
        }
        for (link, lane, slots) in &repairs {
            for header in self.repaired.handle_repair(*link, *lane, slots) {
                self.watch.handle_received(*link, &header, self.now);
            }
        }
        for packet in packets {
            self.transmit(packet);
        }
        for frame in delivered {
            let own = |header: &Header| {
                (header.source, header.flow, header.sequence)
                    == (frame.source, frame.flow, frame.sequence)
            };
            let came = received.iter().map(|(_, header)| header).find(|header| own(header));
            let header = came.or_else(|| self.repaired.find(id, |header| own(header)));
            let path = header.map(|header| header.path);
            self.deliver(id, &frame, path);
        }
        for report in reports {
            self.send_up(id, report.into());
        }
        for (link, inbound, outbound) in link_changes {
            self.say(format_args!("{id}: link {link} hears {inbound:?}, is heard {outbound:?}"));
        }
        let now = self.now;
        let relays = self.scenario.relays;
        let Some(site) = self.sites.get_mut(&id) else { return };
        if let Some(saved) = saved {
            site.disk = Some(saved);
        }
        if let (true, Some(process)) = (fib_changed, &site.process) {
            self.watch.handle_fib(id, process.core.fib(), relays, now);
        }
    }

    fn transmit(&mut self, packet: Packet) {
        self.figures.packets += 1;
        if let Body::Datagram(message) = &packet.body {
            self.watch.handle_sent(packet.link, message, self.now);
            self.repaired.handle_sent(packet.link, message);
        }
        let carried = self.network.carry(packet.link);
        self.tell_sent(&packet, carried);
        match carried {
            Some(delay) => self.schedule(delay, Happening::Arrive(packet)),
            None => self.figures.packets_lost += 1,
        }
    }

    /// Writes a line about a packet, heartbeats left out.
    fn tell_sent(&mut self, packet: &Packet, carried: Option<Duration>) {
        let at = self.elapsed();
        let (link, connection) = (packet.link, packet.connection.0);
        let fate = carried.map_or("lost".to_owned(), |delay| format!("takes {delay:?}"));
        match &packet.body {
            Body::Datagram(message) => {
                let Ok(message) = HopMessage::decode(message) else { return };
                let twin = if matches!(message, HopMessage::Twin { .. }) { " twin" } else { "" };
                let headers = message.frames().filter_map(|(_, frame)| Header::decode(frame).ok());
                for (header, _) in headers {
                    let copy = if header.copy { " copy" } else { "" };
                    let Header { kind, flow, sequence, path, position, .. } = header;
                    let flow = flow.0;
                    self.trace.tell(
                        at,
                        format_args!(
                            "{link}: {kind:?} flow {flow} frame {sequence}{copy}{twin} by {path} at {position}, {fate}"
                        ),
                    );
                }
            }
            body @ (Body::Dial { .. }
            | Body::Accept { .. }
            | Body::Confirm
            | Body::Close
            | Body::Reset { .. }) => {
                self.trace
                    .tell(at, format_args!("{link}: connection {connection:x}: {body:?}, {fate}"));
            }
        }
    }

    /// Delivers what waited in the pipes of a relay.
    pub(super) fn release_pipes(&mut self, id: RelayId) {
        let pipes: Vec<_> =
            self.pipes.iter().filter(|(_, pipe)| pipe.relay == id).map(|(&pipe, _)| pipe).collect();
        for pipe in pipes {
            for way in [Way::ToRelay, Way::ToScheduler] {
                let held = self.pipes.get_mut(&pipe).map(|own| &mut own.held[way.place()]);
                let held: Vec<Parcel> =
                    held.map(|held| held.drain(..).collect()).unwrap_or_default();
                for parcel in held {
                    self.parcel(pipe, way, parcel);
                }
            }
        }
    }
}
