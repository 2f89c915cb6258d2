//! Which lane sends next, as its link's line allows, and what its queues have counted.

use std::time::Instant;

use bytes::Bytes;
use overway_wire::hop::{self, Lane};
use overway_wire::{Class, Header, NeighbourLink};

use crate::lane::message_cost;
use crate::lane::shaper::Turn;
use crate::link::{LaneKey, Link};
use crate::recovery::Written;
use crate::writer::{Piece, Writer, is_small};
use crate::{Config, QueueStats, Relay, Transmit};

impl Relay {
    /// The first lane with frames, realtime before bulk, that its connection and its link's line let send; and
    /// whether the link's other lane competes with it for the line. A link whose line is busy is woken when that has
    /// drained.
    pub(crate) fn next_ready(
        &mut self,
        now: Instant,
        writable: impl Fn(NeighbourLink, Lane) -> bool,
    ) -> Option<(LaneKey, bool)> {
        for &(lane, key) in self.queued.iter().filter(|&&(lane, key)| writable(key, lane)) {
            let Some(link) = self.links.get(&key) else { return Some(((key, lane), false)) };
            let competes = |&other: &Lane| {
                other != lane && self.queued.contains(&(other, key)) && writable(key, other)
            };
            let contended = link.shaper.is_set() && Lane::DATA.iter().any(competes);
            match link.shaper.turn(lane, contended, now) {
                Turn::Now => return Some(((key, lane), contended)),
                Turn::Other => {}
                Turn::At(due) => self.timers.wake(key, due),
            }
        }
        None
    }

    /// The next message of a lane: one that is sent again, or the next frames of its queues.
    /// `contended` says whether the link's other lane competes for its line.
    pub(crate) fn dequeue(
        &mut self,
        (key, lane): LaneKey,
        contended: bool,
        now: Instant,
    ) -> Option<Transmit> {
        let Some(link) = self.links.get_mut(&key) else {
            self.queued.remove(&(lane, key));
            return None;
        };
        let (state, recovery) = link.recovering(lane)?;
        let mut sent =
            Sent { message: recovery.resends.pop(&mut state.ring, now), frames: 1, wake: None };
        if sent.message.is_none() {
            if let Some(message) = link.pop_repair(lane, now) {
                link.shaper.charge(lane, message_cost(&message), contended, now);
                return Some(Transmit { link: key, lane, message });
            }
            sent = fill(&mut self.writer, link, lane, &self.config, now);
            let state = link.lane(lane)?;
            self.stats.drop_all(state.take_shed());
            if state.is_empty() {
                self.queued.remove(&(lane, key));
            }
        }
        if let Some(due) = sent.wake {
            self.timers.wake(key, due);
        }
        let message = sent.message?;
        link.shaper.charge(lane, message_cost(&message), contended, now);
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
    let Some(mut queued) = state.pop(config, usize::MAX, now) else { return none };
    let is_bundle = bundles && is_small(queued.bytes()) && !state.is_empty();
    let coded = link.is_coded(lane, now);
    let first = link.probe.handle_sent(lane);
    let (mut number, mut worth) = (first, false);
    writer.begin(first, is_bundle);
    // Its repairs say how many frames a bundle has.
    let spared = if coded { hop::REPAIR_MESSAGES_MAX } else { 0 };
    loop {
        queued.spend_waiting(now);
        writer.add(number, &queued.header, &queued.payload, queued.copied);
        worth |= is_worth_a_copy(&queued.header);
        let next = link.lane(lane).filter(|_| is_bundle);
        let Some(next) =
            next.and_then(|state| state.pop(config, writer.room().saturating_sub(spared), now))
        else {
            break;
        };
        queued = next;
        number = link.probe.handle_sent(lane);
    }
    let (message, pieces) = writer.finish();
    let (mut frames, mut wake) = (0, None);
    for Piece { number, copied, place } in pieces {
        frames += 1;
        let frame = message.slice(place);
        wake = wake.or(link.handle_sent((lane, number), frame, (copied, coded), now));
    }
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
