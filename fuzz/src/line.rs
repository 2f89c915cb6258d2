//! Two relays and what is done to the datagrams between them.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::LocalClock;
use overway_relay_core::{Config, Event, LocalFrame, Relay, Transmit};
use overway_wire::control::{Item, Peer, Role, Route, RoutePath, Update};
use overway_wire::hop::Lane;
use overway_wire::{
    Address, AttachmentId, BootId, Class, FlowId, FrameKind, LinkIndex, Millis, NeighbourLink,
    Path, PathElement, PolicyId, RelayId, Ticks,
};

/// Datagrams under way; beyond it the oldest is lost.
const FLYING_MAX: usize = 256;
/// Steps of one run.
const STEPS_MAX: usize = 512;

struct End {
    relay: Relay,
    /// Datagrams on their way to it, oldest first.
    inbox: VecDeque<(Lane, Bytes)>,
}

struct Line {
    now: Instant,
    /// Relays 1 and 2.
    ends: [End; 2],
    sent: u64,
    /// Datagrams that came or were lost over the long line.
    travelled: u64,
    arrived: BTreeSet<u64>,
    /// Whether bytes of the fuzzer's own went in: then frames may be anything.
    forged: bool,
    /// Whether a lane was opened anew: what it had not been told to be received is sent again, under other numbers,
    /// and may come twice. Telling that is the business of the frames' ends.
    reopened: bool,
}

/// A long line's one-way delay, and which of its datagrams are lost before the steps: enough for twins and repairs.
const LONG: Duration = Duration::from_millis(50);
const LOST_EACH: u64 = 25;

/// The first byte says whether the line is a long one that has lost much, over which twins and repairs go. The others
/// are read as steps: a frame is sent, time passes, a datagram arrives, is lost, comes twice or overtakes,
/// a lane closes or opens, or bytes of the input arrive as if a neighbour had sent them. No frame is handed on twice,
/// whatever is done to datagrams, and what a datagram makes a relay send has a bound.
pub fn recovery(bytes: &[u8]) {
    let [first, rest @ ..] = bytes else { return };
    let (mut line, mut rest) = (Line::new(first & 1 == 1), rest);
    for _ in 0..STEPS_MAX {
        let [step, more @ ..] = rest else { break };
        rest = line.step(*step, more);
    }
    // What is left arrives in peace.
    for _ in 0..100 {
        line.pass(Duration::from_millis(10));
        line.deliver();
    }
    for end in &line.ends {
        let waiting: u64 = end.relay.queue_stats().iter().map(|class| class.waiting_bytes).sum();
        assert!(waiting <= 4 * (8 << 20), "{waiting} bytes wait");
    }
}

impl Line {
    fn new(long: bool) -> Self {
        let now = Instant::now();
        let ends = [1, 2].map(|id| End { relay: relay(id, now), inbox: VecDeque::new() });
        let mut line = Self {
            now,
            ends,
            sent: 0,
            travelled: 0,
            arrived: BTreeSet::new(),
            forged: false,
            reopened: false,
        };
        // Until both hear one another.
        for _ in 0..30 {
            line.pass(Duration::from_millis(100));
            line.deliver();
        }
        if long {
            line.lengthen();
        }
        line
    }

    /// Makes the line a long and lossy one, in the eyes of both ends.
    fn lengthen(&mut self) {
        for _ in 0..20 {
            (0..5).for_each(|much| self.send(much));
            self.travel();
        }
    }

    /// What is under way arrives after the long line's delay, but for a few.
    fn travel(&mut self) {
        let under_way = [0, 1].map(|to| std::mem::take(&mut self.ends[to].inbox));
        // A step longer than this would be a pause of both processes.
        (0..5).for_each(|_| self.pass(LONG / 5));
        for (to, datagrams) in under_way.into_iter().enumerate() {
            for datagram in datagrams {
                self.travelled += 1;
                if !self.travelled.is_multiple_of(LOST_EACH) {
                    self.arrive(to, &datagram);
                }
            }
        }
    }

    /// What is under way arrives.
    fn deliver(&mut self) {
        for to in 0..2 {
            while let Some(datagram) = self.ends[to].inbox.pop_front() {
                self.arrive(to, &datagram);
            }
        }
    }

    /// Does one step; returns what is left of the input.
    fn step<'a>(&mut self, step: u8, rest: &'a [u8]) -> &'a [u8] {
        let (to, much) = (usize::from(step & 1), usize::from(step >> 4));
        match step >> 1 & 7 {
            0 => (0..=much).for_each(|_| self.send(much)),
            1 => self.pass(Duration::from_millis(1 << (much / 2))),
            2 => {
                for _ in 0..=much {
                    let Some(datagram) = self.ends[to].inbox.pop_front() else { break };
                    self.arrive(to, &datagram);
                }
            }
            3 => drop(self.ends[to].inbox.pop_front()),
            4 => {
                let twice = self.ends[to].inbox.get(much).cloned();
                twice.into_iter().for_each(|datagram| self.arrive(to, &datagram));
            }
            5 => {
                let first = self.ends[to].inbox.pop_front();
                self.ends[to].inbox.extend(first);
            }
            6 => {
                let lane = Lane::DATA[much & 1];
                let (now, link) = (self.now, towards(2 - to));
                self.reopened = true;
                self.ends[to].relay.handle_lane((link, lane), much & 2 != 0, now);
                self.collect();
            }
            _ => {
                let length = rest.first().map_or(0, |&length| usize::from(length));
                let (forged, rest) = rest.split_at(rest.len().min(1 + length));
                let forged = Bytes::copy_from_slice(forged.get(1..).unwrap_or_default());
                self.forged = true;
                self.arrive(to, &(Lane::ALL[much % 3], forged));
                return rest;
            }
        }
        rest
    }

    /// Relay 1 sends a frame to relay 2.
    fn send(&mut self, much: usize) {
        let frame = LocalFrame {
            source: AttachmentId::GATEWAY,
            destination: Address::new(RelayId(2), AttachmentId::GATEWAY),
            alternate: None,
            kind: FrameKind::Datagram,
            class: Class::ALL[much % 3],
            policy: PolicyId::default(),
            redundancy: overway_wire::Redundancy::default(),
            flow: FlowId(1),
            sequence: self.sent,
            budget: if much & 4 == 0 { Millis(u16::MAX) } else { Millis(300) },
            payload: Bytes::from(vec![0; 75 * much]),
        };
        self.sent += 1;
        self.ends[0].relay.handle_frame(frame, self.now);
        self.collect();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            if end.relay.poll_timeout().is_some_and(|due| due <= self.now) {
                end.relay.handle_timeout(self.now);
            }
        }
        self.collect();
    }

    fn arrive(&mut self, to: usize, (lane, datagram): &(Lane, Bytes)) {
        let before = self.ends[1 - to].inbox.len();
        self.ends[to].relay.handle_datagram((towards(2 - to), *lane), datagram, self.now);
        self.collect();
        // A NACK asks for 512 numbers at most; nothing else is answered with more than a few messages.
        let answers = self.ends[1 - to].inbox.len().saturating_sub(before);
        assert!(answers <= 600, "{answers} datagrams for one");
    }

    fn collect(&mut self) {
        for from in 0..2 {
            while let Some(transmit) = self.ends[from].relay.poll_transmit(self.now, |_, _| true) {
                let Transmit { lane, message, .. } = transmit;
                let inbox = &mut self.ends[1 - from].inbox;
                inbox.push_back((lane, message));
                if inbox.len() > FLYING_MAX {
                    inbox.pop_front();
                }
            }
            while let Some(event) = self.ends[from].relay.poll_event() {
                match event {
                    Event::Deliver(delivered) => {
                        let new = self.arrived.insert(delivered.sequence);
                        assert!(
                            new || self.forged || self.reopened,
                            "{} came twice",
                            delivered.sequence
                        );
                        assert!(delivered.sequence < self.sent || self.forged);
                    }
                    Event::LinkChanged { .. }
                    | Event::LaneWanted(..)
                    | Event::FibChanged
                    | Event::Traced(_)
                    | Event::SelfStall(_) => {}
                }
            }
        }
    }
}

/// The link to a relay.
fn towards(relay: usize) -> NeighbourLink {
    let relay = u16::try_from(relay).expect("there are two");
    NeighbourLink::new(RelayId(relay), LinkIndex::default())
}

fn relay(id: u16, now: Instant) -> Relay {
    let clock = LocalClock::new(now, Ticks(u64::from(id) * 1_000_000_000), 0);
    let mut relay = Relay::new(Config::new(RelayId(id), BootId(u32::from(id)), clock));
    let other = 3 - id;
    let mut steps = Vec::new();
    let path = [PathElement::new(RelayId(other), LinkIndex::default())];
    Path::new(&path).expect("one step is a path").encode(&mut steps);
    let route = |class: Class| Route {
        destination: other.into(),
        class: class.code().into(),
        paths: vec![RoutePath { steps: steps.clone(), delay_us: 10_000, weight: 0 }],
        policy: 0,
    };
    let peer = Peer {
        neighbour: other.into(),
        remote_address: format!("127.0.0.1:{other}"),
        role: Role::Candidate.into(),
        ..Peer::default()
    };
    let mut put: Vec<Item> = vec![peer.into()];
    put.extend(Class::ALL.map(|class| route(class).into()));
    let ack = relay.handle_update(Update { revision: 1, put, ..Update::default() }, now);
    assert!(!ack.resync);
    let link = towards(usize::from(other));
    relay.handle_link_opened(link, now);
    Lane::DATA.into_iter().for_each(|lane| relay.handle_lane((link, lane), true, now));
    relay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_go_over_the_long_line_and_make_up_for_losses() {
        let mut line = Line::new(true);
        for _ in 0..40 {
            (0..20).for_each(|_| line.send(3));
            (0..6).for_each(|_| line.send(1));
            line.travel();
        }
        (0..10).for_each(|_| line.travel());
        let stats = |end: &End| end.relay.recovery_stats();
        assert!(stats(&line.ends[0]).iter().all(|lane| lane.repairs_sent > 0));
        assert!(stats(&line.ends[1]).iter().all(|lane| lane.rebuilt > 0));
        assert_eq!(line.arrived.len() as u64, line.sent);
    }
}
