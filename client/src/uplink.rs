//! The way from an edge's ends to its relays: which attachment a frame takes, and what becomes of it when that fails.
//!
//! ```text
//!   ends --try_send--> queue of the first attachment --task--> number, ring --> datagram
//!                      |                                        |
//!                      suspect: and the other's                 acknowledged by heartbeats: forgotten
//!                      down: the other's alone                  suspect: copied to the other; down: moved there
//! ```
//!
//! What goes to the other attachment because this one is silent, and all that follows for a while, its relay sends two ways
//! at once: the best may lead through the very relay that died, and the other needs a moment to find that out.
//!
//! Bulk frames and those of flows that want no copies are never copied, only moved. Where no attachment carries
//! anything, ends wait; what was on its way then waits for the next attachment, while it is young.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use overway_probe::State;
use overway_session::{FabricSender, Full, Outbound};
use overway_wire::frame::PAYLOAD_BYTES_MAX;
use overway_wire::{Address, Class, FlowId, FrameKind, Redundancy, Whereabouts};
use tokio::sync::{Notify, watch};

use crate::choice::{Candidate, Choice};
use crate::ring::{Ring, Sent, aged, wants_copies};
use crate::status::Counters;

/// Attachments at once.
pub(crate) const LINES: usize = 2;
/// Frames of one class that wait for an attachment: 60 ms at 100 Mbit/s. Ends wait for room.
const QUEUE_FRAMES_MAX: usize = 512;
/// Frames without an attachment, or moved to one whose queue is full: what one ring holds.
const MOVED_FRAMES_MAX: usize = 4_096;
/// Tasks that may wait for room; beyond it the oldest is woken early.
const WAITING_MAX: usize = 1_024;
/// A flow is active for this long after its last frame, as on links.
const ACTIVE_FOR: Duration = Duration::from_secs(2);
/// Frames go two ways for this long after an attachment fell silent. By then its neighbours have noticed, and the relays
/// from which their word comes late have their routes.
const SPREAD_FOR: Duration = Duration::from_millis(500);

/// Which attachment: its place, and a number that tells it from those that had the place before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineId {
    pub(crate) place: usize,
    serial: u64,
}

/// Takes frames from ends, and hands them to the attachments' tasks.
#[derive(Debug)]
pub(crate) struct Uplink {
    state: Mutex<Lines>,
    whereabouts: watch::Sender<Option<Whereabouts>>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: [Option<Line>; LINES],
    choice: Choice,
    /// Frames that wait for any attachment.
    stranded: VecDeque<Sent>,
    waiting: VecDeque<Waker>,
    active_until: Option<Instant>,
    /// Until when frames go two ways.
    spread_until: Option<Instant>,
    /// The frame that was taken last.
    last: Option<(FrameKind, FlowId, u64)>,
    serials: u64,
    closed: bool,
}

#[derive(Debug)]
struct Line {
    serial: u64,
    address: Address,
    state: State,
    rtt: Option<Duration>,
    is_draining: bool,
    queue: [VecDeque<Sent>; Class::ALL.len()],
    ring: Ring,
    filled: Arc<Notify>,
}

impl Uplink {
    pub(crate) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), whereabouts: watch::Sender::new(None), counters })
    }

    /// Where the edge is attached.
    pub(crate) fn whereabouts(&self) -> watch::Receiver<Option<Whereabouts>> {
        self.whereabouts.subscribe()
    }

    /// An attachment has come about, perhaps in the place of another: then by a better way, and what that had is its own. The
    /// notification tells that frames wait for it, or that flows began.
    pub(crate) fn insert(
        &self,
        place: usize,
        address: Address,
        now: Instant,
    ) -> (LineId, Arc<Notify>) {
        let mut state = self.lock();
        state.serials += 1;
        let (serial, filled) = (state.serials, Arc::<Notify>::default());
        let mut line = Line::new(serial, address, Arc::clone(&filled));
        if let Some(before) = &mut state.lines[place] {
            let frames = before.empty(now);
            self.counters.resent.add(frames.len() as u64);
            frames.into_iter().for_each(|sent| line.put(sent));
        }
        state.lines[place] = Some(line);
        self.settle(state, now);
        (LineId { place, serial }, filled)
    }

    /// An attachment is gone: what its relay has not acknowledged goes over the other, or waits for one.
    pub(crate) fn remove(&self, line: LineId, now: Instant) {
        let mut state = self.lock();
        if state.line(line).is_none() {
            return;
        }
        if let Some(mut gone) = state.lines[line.place].take() {
            if gone.state == State::Up && !gone.is_draining {
                state.spread_until = Some(now + SPREAD_FOR);
            }
            self.rescue(&mut state, line.place, gone.empty(now), now);
        }
        self.settle(state, now);
    }

    /// What the probe of an attachment says.
    pub(crate) fn judge(&self, line: LineId, judged: State, rtt: Option<Duration>, now: Instant) {
        let mut state = self.lock();
        let Some(held) = state.line(line) else { return };
        let before = std::mem::replace(&mut held.state, judged);
        held.rtt = rtt;
        if judged != before {
            match judged {
                // A false alarm, unless the other is silent or gone.
                State::Unknown | State::Up => {
                    if state.are_all_up() {
                        state.spread_until = None;
                    }
                }
                State::Suspect => {
                    state.spread_until = Some(now + SPREAD_FOR);
                    self.copy_unacknowledged(&mut state, line, now);
                }
                State::Down => {
                    let frames = held.empty(now);
                    state.spread_until = Some(now + SPREAD_FOR);
                    self.rescue(&mut state, line.place, frames, now);
                }
            }
        }
        self.settle(state, now);
    }

    /// The relay of an attachment goes, or stays after all: while it goes the other becomes the first, if there is one.
    pub(crate) fn drain(&self, line: LineId, is_draining: bool, now: Instant) {
        let mut state = self.lock();
        if let Some(held) = state.line(line) {
            held.is_draining = is_draining;
        }
        self.settle(state, now);
    }

    /// The next frame to send over an attachment, realtime first; it is in its ring from now on, under the number that
    /// it is given.
    pub(crate) fn take(
        &self,
        line: LineId,
        number: impl FnOnce() -> u32,
        now: Instant,
    ) -> Option<(u32, Sent)> {
        let mut state = self.lock();
        let held = state.line(line)?;
        let sent = loop {
            let sent = held.queue.iter_mut().find_map(VecDeque::pop_front)?;
            match sent.frame.class {
                // On time or not at all.
                Class::Realtime => match aged(sent, now) {
                    Some(sent) => break sent,
                    None => self.counters.expired.increment(),
                },
                Class::Interactive | Class::Bulk => break sent,
            }
        };
        let number = number();
        held.ring.push(number, sent.clone(), now);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Some((number, sent))
    }

    /// The relay has every frame before this number, as far as it ever will.
    pub(crate) fn acknowledge(&self, line: LineId, next: u32) {
        if let Some(held) = self.lock().line(line) {
            held.ring.acknowledge(next);
        }
    }

    /// Whether nothing waits to go over an attachment, or to be acknowledged there.
    pub(crate) fn is_empty(&self, line: LineId) -> bool {
        self.lock().line(line).is_none_or(|line| line.is_empty())
    }

    /// A frame came or went: flows are active.
    pub(crate) fn touch(&self, now: Instant) {
        self.lock().touch(now);
    }

    /// Whether flows are active.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.lock().active_until.is_some_and(|until| now < until)
    }

    /// Whether no attachment carries anything.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.lock().lines.iter().flatten().all(|line| line.state == State::Down)
    }

    /// The place of the first attachment.
    pub(crate) fn first(&self) -> Option<usize> {
        self.lock().choice.first()
    }

    /// Takes no more frames, and wakes who waits.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        self.whereabouts.send_replace(None);
    }

    /// Sends over the other attachment, once, what may have been lost on this one.
    fn copy_unacknowledged(&self, state: &mut Lines, line: LineId, now: Instant) {
        let other = 1 - line.place;
        if state.lines[other].as_ref().is_none_or(|other| other.state == State::Down) {
            return;
        }
        let Some(held) = state.line(line) else { return };
        let copies = held.ring.copy(now);
        self.counters.copies.add(copies.len() as u64);
        self.put_moved(state, other, copies, now);
    }

    /// Moves the frames of an attachment that carries nothing to the other, or has them wait.
    fn rescue(&self, state: &mut Lines, place: usize, frames: Vec<Sent>, now: Instant) {
        self.counters.resent.add(frames.len() as u64);
        self.put_moved(state, 1 - place, frames, now);
    }

    fn put_moved(&self, state: &mut Lines, place: usize, frames: Vec<Sent>, now: Instant) {
        let is_spread = state.is_spread(now);
        let line = state.lines[place].as_mut().filter(|line| line.state != State::Down);
        let Some(line) = line else {
            let room = MOVED_FRAMES_MAX.saturating_sub(state.stranded.len());
            self.counters.stranded_dropped.add(frames.len().saturating_sub(room) as u64);
            state.stranded.extend(frames.into_iter().take(room));
            return;
        };
        for mut sent in frames {
            if is_spread {
                sent.frame = spread(sent.frame);
            }
            let queue = &mut line.queue[usize::from(sent.frame.class.code())];
            if queue.len() < MOVED_FRAMES_MAX {
                queue.push_back(sent);
            } else {
                self.counters.stranded_dropped.increment();
            }
        }
        line.filled.notify_one();
    }

    /// Chooses the first attachment anew, tells where the edge is, and wakes who may go on.
    fn settle(&self, mut state: MutexGuard<'_, Lines>, now: Instant) {
        let candidates = state.lines.each_ref().map(|line| {
            let line = line.as_ref()?;
            let is_usable = line.state != State::Down && !line.is_draining;
            Some(Candidate { is_usable, rtt: line.rtt })
        });
        state.choice.choose(candidates, now);
        let usable = state.target();
        if let Some(place) = usable
            && !state.stranded.is_empty()
        {
            let stranded: Vec<Sent> =
                state.stranded.drain(..).filter_map(|sent| aged(sent, now)).collect();
            self.put_moved(&mut state, place, stranded, now);
        }
        let waiting =
            if usable.is_some() { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        let whereabouts = state.whereabouts();
        self.whereabouts
            .send_if_modified(|known| std::mem::replace(known, whereabouts) != whereabouts);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn line(&mut self, id: LineId) -> Option<&mut Line> {
        self.lines[id.place].as_mut().filter(|line| line.serial == id.serial)
    }

    /// Where frames go now: the first attachment that carries anything.
    fn target(&self) -> Option<usize> {
        let first = self.choice.first()?;
        let carries = |&place: &usize| {
            self.lines[place].as_ref().is_some_and(|line| line.state != State::Down)
        };
        [first, 1 - first].into_iter().find(carries)
    }

    fn are_all_up(&self) -> bool {
        self.lines.iter().all(|line| line.as_ref().is_some_and(|line| line.state == State::Up))
    }

    /// Whether an attachment has just fallen silent.
    fn is_spread(&self, now: Instant) -> bool {
        self.spread_until.is_some_and(|until| now < until)
    }

    /// Takes note of a frame; says whether it is the second of two, for the far end's other address.
    fn is_second(&mut self, frame: &Outbound) -> bool {
        let name = (frame.kind, frame.flow, frame.sequence);
        self.last.replace(name) == Some(name)
    }

    /// The attachment beside one, if it carries anything and has room.
    fn beside(&self, place: usize, class: Class) -> usize {
        let carries = |line: &Line| line.state != State::Down && line.has_room(class);
        let other = 1 - place;
        if self.lines[other].as_ref().is_some_and(carries) { other } else { place }
    }

    fn whereabouts(&self) -> Option<Whereabouts> {
        let first = self.choice.first()?;
        let line = |place: usize| self.lines[place].as_ref();
        let second = line(1 - first).filter(|second| second.state != State::Down);
        let second = second.map(|second| second.address);
        Some(Whereabouts { first: line(first)?.address, second })
    }

    fn touch(&mut self, now: Instant) {
        let was_active = self.active_until.is_some_and(|until| now < until);
        self.active_until = Some(now + ACTIVE_FOR);
        if !was_active {
            self.lines.iter().flatten().for_each(|line| line.filled.notify_one());
        }
    }

    /// Takes a frame in, for an attachment that has room; the other has it too if it is wanted twice.
    fn put(&mut self, target: usize, frame: Outbound, now: Instant, counters: &Counters) {
        let class = usize::from(frame.class.code());
        let is_suspect =
            self.lines[target].as_ref().is_some_and(|line| line.state == State::Suspect);
        let twice = wants_copies(&frame) && (is_suspect || frame.redundancy == Redundancy::Always);
        let is_spread = self.is_spread(now);
        let frame = if is_spread { spread(frame) } else { frame };
        let other = self.lines[1 - target].as_mut().filter(|other| {
            other.state != State::Down && other.queue[class].len() < QUEUE_FRAMES_MAX
        });
        let mut is_covered = false;
        if let Some(other) = other.filter(|_| twice) {
            // One of two that go their ways, or that which is to find one.
            let is_copy = !is_spread;
            other.put(Sent { frame: frame.clone(), at: now, is_copy, is_covered: true });
            counters.copies.increment();
            is_covered = true;
        }
        if let Some(line) = &mut self.lines[target] {
            line.put(Sent { frame, at: now, is_copy: false, is_covered });
        }
    }
}

impl Line {
    fn new(serial: u64, address: Address, filled: Arc<Notify>) -> Self {
        Self {
            serial,
            address,
            state: State::Up,
            rtt: None,
            is_draining: false,
            queue: Default::default(),
            ring: Ring::default(),
            filled,
        }
    }

    fn has_room(&self, class: Class) -> bool {
        self.queue[usize::from(class.code())].len() < QUEUE_FRAMES_MAX
    }

    fn put(&mut self, sent: Sent) {
        self.queue[usize::from(sent.frame.class.code())].push_back(sent);
        self.filled.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.queue.iter().all(VecDeque::is_empty)
    }

    /// Takes out everything that may not have come.
    fn empty(&mut self, now: Instant) -> Vec<Sent> {
        let mut frames = self.ring.drain(now);
        self.queue.iter_mut().for_each(|class| frames.extend(class.drain(..)));
        frames
    }
}

/// A frame that its relay sends two ways, if it may.
fn spread(frame: Outbound) -> Outbound {
    let redundancy = if wants_copies(&frame) { Redundancy::Always } else { frame.redundancy };
    Outbound { redundancy, ..frame }
}

impl FabricSender for Uplink {
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed {
            // Nobody will ever take them.
            frames.clear();
            return Ok(());
        }
        let Some(target) = state.target() else { return Err(Full) };
        let mut taken = 0;
        for frame in frames.iter() {
            let line = state.lines[target].as_ref();
            if line.is_none_or(|line| !line.has_room(frame.class)) {
                break;
            }
            taken += 1;
            if frame.payload.len() > PAYLOAD_BYTES_MAX {
                self.counters.too_long.increment();
                continue;
            }
            let place =
                if state.is_second(frame) { state.beside(target, frame.class) } else { target };
            state.put(place, frame.clone(), now, &self.counters);
        }
        if taken > 0 {
            state.touch(now);
        }
        frames.drain(..taken);
        if frames.is_empty() { Ok(()) } else { Err(Full) }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let target = state.target().and_then(|target| state.lines[target].as_ref());
        let has_room =
            target.is_some_and(|line| Class::ALL.into_iter().all(|class| line.has_room(class)));
        if state.closed || has_room {
            return Poll::Ready(());
        }
        if state.waiting.len() >= WAITING_MAX
            && let Some(oldest) = state.waiting.pop_front()
        {
            oldest.wake();
        }
        state.waiting.push_back(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
pub(crate) mod tests;
