//! Which lane sends next, as its link's line allows, and what its queues have counted.

use std::time::Instant;

use bytes::Bytes;
use overway_wire::hop::{self, Lane};
use overway_wire::{Class, Header, NeighbourLink};

use crate::lane::message_cost;
use crate::lane::shaper::Turn;
use crate::lines::{Place, Ready};
use crate::link::{LaneKey, Link};
use crate::recovery::Written;
use crate::writer::{Writer, is_small};
use crate::{Config, QueueStats, Relay, Transmit};

impl Relay {
    /// The next lane with frames, realtime before bulk and links of a line in turn, that its connection, its link and
    /// its line let send. Who is held back is woken when what holds it has drained.
    pub(crate) fn next_ready(
        &mut self,
        now: Instant,
        writable: impl Fn(NeighbourLink, Lane) -> bool,
    ) -> Option<Ready> {
        if self.queued.len() <= 1 || !self.lines.is_any_set() {
            // Nobody takes turns with anybody.
            for &place in &self.queued {
                match self.judge(place, now, &writable) {
                    Verdict::Go(ready) => return Some(ready),
                    Verdict::Pass => {}
                    Verdict::Wait(due) | Verdict::Busy(due) => self.timers.wake(place.1, due),
                }
            }
            return None;
        }
        for lane in Lane::DATA {
            for line in 0..self.lines.len() {
                let turns = self.lines.turns(line, lane);
                for &place in turns.into_iter().flat_map(|turns| self.queued.range(turns)) {
                    if self.links.get(&place.1).is_some_and(|link| link.line != line) {
                        continue;
                    }
                    match self.judge(place, now, &writable) {
                        Verdict::Go(ready) => return Some(ready),
                        Verdict::Pass => {}
                        Verdict::Wait(due) => self.timers.wake(place.1, due),
                        Verdict::Busy(due) => {
                            self.timers.wake(place.1, due);
                            break;
                        }
                    }
                }
            }
        }
        None
    }

    /// What [`Self::poll_transmit`] would give next if this lane is still writable; `None` where that is to be asked: once
    /// the lane has no frames, or has to wait, or others have frames as well. For a lane that sends alone, as most do, nobody
    /// is looked for.
    pub fn poll_more(&mut self, (link, lane): LaneKey, now: Instant) -> Option<Transmit> {
        let place = (lane, link);
        let alone = self.light.is_empty() && self.queued.len() == 1;
        if !alone || !self.queued.contains(&place) {
            return None;
        }
        match self.judge(place, now, &|_, _| true) {
            Verdict::Go(ready) => self.dequeue(ready, now),
            Verdict::Pass | Verdict::Wait(_) | Verdict::Busy(_) => None,
        }
    }

    /// Whether a lane with frames may send now.
    fn judge(
        &self,
        (lane, key): Place,
        now: Instant,
        writable: &impl Fn(NeighbourLink, Lane) -> bool,
    ) -> Verdict {
        if !writable(key, lane) {
            return Verdict::Pass;
        }
        let ready = Ready { link: key, lane, contended: false, crowded: false };
        let Some(link) = self.links.get(&key) else { return Verdict::Go(ready) };
        let contended = self.is_contended(link, (key, lane), writable);
        let ready = match link.shaper.turn(lane, contended, now) {
            Turn::Now => {
                let crowded = self.is_crowded(link.line, lane, contended, now, writable);
                Ready { contended, crowded, ..ready }
            }
            // The link owes it to its bulk, and none of other links is to come in between.
            Turn::Other => Ready { lane: Lane::Bulk, contended, ..ready },
            Turn::At(due) => return Verdict::Wait(due),
        };
        match self.lines.turn(link.line, ready.lane, ready.crowded, now) {
            Turn::Now => Verdict::Go(ready),
            Turn::Other => Verdict::Pass,
            Turn::At(due) => Verdict::Busy(due),
        }
    }

    /// Whether a link's other lane competes with this one.
    fn is_contended(
        &self,
        link: &Link,
        (key, lane): LaneKey,
        writable: impl Fn(NeighbourLink, Lane) -> bool,
    ) -> bool {
        let competes = |&other: &Lane| {
            other != lane && self.queued.contains(&(other, key)) && writable(key, other)
        };
        self.queued.len() > 1 && link.shaper.is_set() && Lane::DATA.iter().any(competes)
    }

    /// Whether realtime competes for a line with bulk that no link of its own holds back. Bulk is never told: it
    /// comes when realtime does not.
    fn is_crowded(
        &self,
        line: usize,
        lane: Lane,
        contended: bool,
        now: Instant,
        writable: impl Fn(NeighbourLink, Lane) -> bool,
    ) -> bool {
        if lane != Lane::Realtime || self.queued.len() <= 1 || !self.lines.is_set(line) {
            return false;
        }
        let waits = |&&(_, key): &&Place| {
            self.links.get(&key).is_some_and(|link| {
                let free = link.shaper.turn(Lane::Bulk, false, now) == Turn::Now;
                link.line == line && free && writable(key, Lane::Bulk)
            })
        };
        let turns = self.lines.turns(line, Lane::Bulk);
        contended
            || turns
                .into_iter()
                .flat_map(|turns| self.queued.range(turns))
                .any(|place| waits(&place))
    }

    /// The next message of a lane: one that is sent again, a repair, or the next frames of its queues.
    pub(crate) fn dequeue(&mut self, ready: Ready, now: Instant) -> Option<Transmit> {
        let Ready { link: key, lane, contended, .. } = ready;
        let Some(link) = self.links.get_mut(&key) else {
            self.queued.remove(&(lane, key));
            return None;
        };
        let (state, recovery) = link.recovering(lane)?;
        let mut sent =
            Sent { message: recovery.resends.pop(&mut state.ring, now), frames: 1, wake: None };
        if sent.message.is_none() {
            if let Some(message) = link.pop_repair(lane, now) {
                let cost = message_cost(&message);
                link.shaper.charge(lane, cost, contended, now);
                self.lines.charge(link.line, ready, cost, now);
                return Some(Transmit { link: key, lane, message });
            }
            sent = fill(&mut self.writer, link, lane, &self.config, now);
            let state = link.lane(lane)?;
            if state.has_shed() {
                self.stats.drop_all(state.take_shed());
            }
            if state.is_empty() {
                self.queued.remove(&(lane, key));
            }
        }
        if let Some(due) = sent.wake {
            self.timers.wake(key, due);
        }
        let message = sent.message?;
        let cost = message_cost(&message);
        link.shaper.charge(lane, cost, contended, now);
        self.lines.charge(link.line, ready, cost, now);
        self.stats.frames_sent += sent.frames;
        self.stats.bytes_sent += message.len() as u64;
        Some(Transmit { link: key, lane, message })
    }

    /// What the queues of each class have seen on all links since the start, those that ended included, in the
    /// order of [`Class::ALL`].
    pub fn queue_stats(&self) -> [QueueStats; Class::ALL.len()] {
        let mut sums = self.queues_ended;
        self.links.values().for_each(|link| add_queues(&mut sums, link));
        sums
    }

    /// Keeps what the queues of a link that ends have counted.
    pub(crate) fn end_queues(&mut self, link: &Link) {
        add_queues(&mut self.queues_ended, link);
        // What still waits there moves elsewhere.
        for ended in &mut self.queues_ended {
            (ended.waiting, ended.waiting_bytes) = (0, 0);
        }
    }
}

/// What a lane with frames may do.
enum Verdict {
    /// Send one, or let its link's bulk.
    Go(Ready),
    /// Nothing: its connection takes none, or bulk of its line goes first.
    Pass,
    /// Its link is busy; look again then.
    Wait(Instant),
    /// So is its line, for all.
    Busy(Instant),
}

/// What goes out of a lane at once.
struct Sent {
    /// `None` if nothing was left to send.
    message: Option<Bytes>,
    frames: u64,
    /// When a tail probe or a repair is due, if nobody waits for that yet.
    wake: Option<Instant>,
}

/// Takes the next frames of a lane's queues: one, or as many small ones as share a message.
fn fill(writer: &mut Writer, link: &mut Link, lane: Lane, config: &Config, now: Instant) -> Sent {
    let none = Sent { message: None, frames: 0, wake: None };
    let bundles = link.probe.recovers();
    let Some(state) = link.lane(lane) else { return none };
    let Some(mut left) = state.pop(config, usize::MAX, now) else { return none };
    let is_bundle = bundles && is_small(state.left(&left).bytes()) && !state.is_empty();
    let coded = link.is_coded(lane, now);
    let first = link.probe.handle_sent(lane);
    let (mut number, mut worth) = (first, false);
    writer.begin(first, is_bundle);
    // Its repairs say how many frames a bundle has.
    let spared = if coded { hop::REPAIR_MESSAGES_MAX } else { 0 };
    while let Some(state) = link.lane(lane) {
        let queued = state.left(&left);
        queued.spend_waiting(now);
        writer.add(number, queued);
        worth |= is_worth_a_copy(&queued.header);
        state.release(left);
        if !is_bundle {
            break;
        }
        let room = writer.room().saturating_sub(spared);
        let Some(next) = state.pop(config, room, now) else { break };
        left = next;
        number = link.probe.handle_sent(lane);
    }
    let (message, pieces) = writer.finish();
    let (frames, mut wake) = link.handle_sent(lane, &message, pieces, coded, now);
    if coded && let Ok(frames) = u8::try_from(frames) {
        let written = Written { message: &message, number: first, frames, worth };
        let repair = link.code(lane, written, now);
        wake = [wake, repair].into_iter().flatten().min();
    }
    Sent { message: Some(message), frames, wake }
}

/// Whether a frame is of a flow that copies are made for, and none itself.
fn is_worth_a_copy(header: &Header) -> bool {
    match header.class {
        Class::Realtime | Class::Interactive => !header.copy,
        Class::Bulk => false,
    }
}

fn add_queues(sums: &mut [QueueStats; Class::ALL.len()], link: &Link) {
    for (sum, class) in sums.iter_mut().zip(Class::ALL) {
        link.lanes().for_each(|lane| sum.add(&lane.stats(class)));
    }
}
