//! One neighbour link: its probe, its lanes, what is recovered on them, and whether it may be used.

use std::time::{Duration, Instant};

use bytes::Bytes;
use overway_probe::{LinkProbe, Numbered, Rate, State};
use overway_wire::hop::{Heartbeat, Lane};
use overway_wire::{Class, Header, NeighbourLink};

use crate::budget::CopyBudget;
use crate::lane::LaneState;
use crate::lane::shaper::{Shaper, SharedLine, Shares};
use crate::recovery::{LaneRecovery, RecoveryStats, Twins, Written, lost_share};
use crate::writer::Piece;
use crate::{Config, Fec, PeerLink};

/// So many numbers after the last word of it, the neighbour is told what was received,
const TOLD_EVERY: u32 = 512;
/// or so many bytes,
const TOLD_EVERY_BYTES: usize = 40_000;
/// if they came within this: what it keeps then is a round trip's frames and little more, and stays near its processor,
/// which would else wait for memory with each frame that it writes. Where less comes it keeps what is there until the
/// next heartbeat; when this relay dies, what waits in it is sent again elsewhere.
const TOLD_SOONEST: Duration = Duration::from_millis(1);

/// A link whose light lane stands.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) probe: LinkProbe,
    pub(crate) copies: CopyBudget,
    /// About the one-way delay: half the round trip, for budgets.
    pub(crate) delay: Duration,
    /// When anything last came.
    pub(crate) heard: Option<Instant>,
    /// The relay's line over which it leaves.
    pub(crate) line: usize,
    /// What the lesser of both ends' lines lets the lanes send.
    pub(crate) shaper: Shaper,
    lanes: [LaneState; Lane::DATA.len()],
    recovery: [LaneRecovery; Lane::DATA.len()],
    /// Whether repairs are sent and made use of.
    fec: Fec,
    /// Whether realtime frames go twice.
    twins: Twins,
    /// What the neighbour was last told to be received.
    told_received: [u32; Lane::DATA.len()],
    /// Bytes received in order since then.
    untold_bytes: [usize; Lane::DATA.len()],
    /// When the neighbour was last told.
    told_at: [Instant; Lane::DATA.len()],
    candidate: bool,
    active_until: Option<Instant>,
    rate: Rate,
    mtu: PathMtu,
    /// What the link was good for when it was last looked at.
    last: Usability,
    /// Whether it went down and has not come up again.
    pub(crate) was_lost: bool,
}

/// What a shard of a link may use of the lesser of both ends' lines.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Of all shards together; 0 if not known.
    capacity_bps: u64,
    shards: u8,
    /// What the shards share, if there are several.
    shared: Option<SharedLine>,
}

/// What is known of the path to a neighbour: how long a packet gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtu {
    /// Bytes of the longest UDP payload that is known to get through; 0 if that is not known.
    pub bytes: u16,
    /// Whether packets as long as a frame needs are known not to.
    pub is_narrow: bool,
}

/// What a link is good for, from the worse of its two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usability {
    /// Frames go over it.
    Up,
    /// Frames go over it and a detour.
    Suspect,
    /// Frames avoid it.
    Down,
}

impl Allowance {
    pub(crate) fn new(config: &Config, link: NeighbourLink, peer: Option<&PeerLink>) -> Self {
        let shards = peer.map_or(1, |peer| peer.shards(config.shard.workers));
        let lines = config.lines.as_ref().filter(|_| shards > 1);
        Self {
            capacity_bps: peer.map_or(0, |peer| peer.capacity_bps),
            shards,
            shared: lines.map(|lines| lines.of(Shares::Link(link))),
        }
    }
}

impl Link {
    pub(crate) fn new(
        config: &Config,
        allowance: Allowance,
        candidate: bool,
        now: Instant,
    ) -> Self {
        let mut link = Self {
            probe: LinkProbe::new(config.probe.clone(), config.boot, config.clock, now),
            copies: CopyBudget::new(allowance.capacity_bps, allowance.shards, now),
            delay: Duration::ZERO,
            heard: None,
            line: 0,
            shaper: Shaper::new(allowance.capacity_bps, allowance.shared, now),
            lanes: std::array::from_fn(|_| LaneState::new(config)),
            recovery: Lane::DATA.map(|lane| LaneRecovery::new(lane, now)),
            told_received: [0; Lane::DATA.len()],
            untold_bytes: [0; Lane::DATA.len()],
            told_at: [now; Lane::DATA.len()],
            fec: config.fec,
            twins: Twins::default(),
            candidate,
            active_until: None,
            rate: Rate::Idle,
            mtu: PathMtu::default(),
            last: Usability::Down,
            was_lost: false,
        };
        link.update_rate(now);
        link
    }

    pub(crate) fn set_candidate(&mut self, candidate: bool, now: Instant) {
        self.candidate = candidate;
        self.update_rate(now);
    }

    /// The lesser line's capacity is another now, or is shared by others.
    pub(crate) fn allow(&mut self, allowance: Allowance, now: Instant) {
        self.shaper.set_line(allowance.capacity_bps, allowance.shared, now);
    }

    /// Repairs are sent and made use of from now on, or no longer; the next heartbeat tells the neighbour.
    pub(crate) fn set_fec(&mut self, fec: Fec) {
        self.fec = fec;
    }

    /// Whether the neighbour was heard, and has said that it hears us, at any time since the link was opened.
    pub(crate) fn is_proven(&self) -> bool {
        self.probe.inbound() != State::Unknown && self.probe.outbound() != State::Unknown
    }

    /// Notes that a flow's frame went or came over the link; says whether heartbeats are due sooner now.
    pub(crate) fn touch(&mut self, active_for: Duration, now: Instant) -> bool {
        self.active_until = Some(now + active_for);
        self.update_rate(now)
    }

    /// Ends the active time if it is over.
    pub(crate) fn expire_activity(&mut self, now: Instant) {
        if self.active_until.is_some_and(|until| until <= now) {
            self.active_until = None;
            self.update_rate(now);
        }
    }

    /// This process slept: what was silent or idle meanwhile was so by its own fault.
    pub(crate) fn handle_stall(&mut self, late_by: Duration, now: Instant) {
        self.active_until = self.active_until.map(|until| until + late_by);
        self.probe.handle_stall(late_by, now);
        self.recovery.iter_mut().for_each(|lane| lane.handle_stall(late_by, now));
    }

    /// When [`Self::expire_activity`] has something to do.
    pub(crate) fn active_until(&self) -> Option<Instant> {
        self.active_until
    }

    fn update_rate(&mut self, now: Instant) -> bool {
        let rate = match (self.active_until.is_some(), self.candidate) {
            (true, _) => Rate::Active,
            (false, true) => Rate::Backup,
            (false, false) => Rate::Idle,
        };
        let changed = rate != self.rate;
        if changed {
            self.rate = rate;
            self.probe.set_rate(rate, now);
        }
        changed
    }

    /// Takes what is known of the longest packet that gets through to the neighbour; says whether that is another.
    pub(crate) fn set_mtu(&mut self, mtu: PathMtu) -> bool {
        std::mem::replace(&mut self.mtu, mtu) != mtu
    }

    /// What is known of the longest packet that gets through to the neighbour.
    pub(crate) fn mtu(&self) -> PathMtu {
        self.mtu
    }

    /// Whether the neighbour hears this relay, or would if its frames were not too long for the path.
    #[inline]
    pub(crate) fn outbound(&self) -> State {
        if self.mtu.is_narrow { State::Down } else { self.probe.outbound() }
    }

    /// What the link is good for. A neighbour that was not heard yet is not used.
    #[inline]
    pub(crate) fn usability(&self) -> Usability {
        match (self.probe.inbound(), self.outbound()) {
            (State::Unknown | State::Down, _) | (_, State::Unknown | State::Down) => {
                Usability::Down
            }
            (State::Suspect, _) | (_, State::Suspect) => Usability::Suspect,
            (State::Up, State::Up) => Usability::Up,
        }
    }

    /// What the link was good for and is now, if that is another.
    pub(crate) fn transition(&mut self) -> Option<(Usability, Usability)> {
        let now = self.usability();
        let before = std::mem::replace(&mut self.last, now);
        (before != now).then_some((before, now))
    }

    /// The lane, or `None` for the light lane, which has no queue.
    #[inline]
    pub(crate) fn lane(&mut self, lane: Lane) -> Option<&mut LaneState> {
        lane.data_index().map(|at| &mut self.lanes[at])
    }

    /// The data lanes.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &LaneState> {
        self.lanes.iter()
    }

    /// The lane of a class.
    #[inline]
    pub(crate) fn lane_of(&mut self, class: Class) -> &mut LaneState {
        self.lane(Lane::of(class)).expect("every class has a data lane")
    }

    /// A lane's queues and ring, and what is recovered of it; `None` for the light lane.
    #[inline]
    pub(crate) fn recovering(&mut self, lane: Lane) -> Option<(&mut LaneState, &mut LaneRecovery)> {
        lane.data_index().map(|at| (&mut self.lanes[at], &mut self.recovery[at]))
    }

    /// What is recovered of each data lane, in their order.
    pub(crate) fn recovery(&mut self) -> impl Iterator<Item = (Lane, &mut LaneRecovery)> {
        Lane::DATA.into_iter().zip(&mut self.recovery)
    }

    /// When recovery has something to do.
    pub(crate) fn recovery_due(&self) -> Option<Instant> {
        self.recovery.iter().filter_map(LaneRecovery::due).min()
    }

    /// What recovery has counted, for each data lane.
    pub(crate) fn recovery_stats(&self) -> [RecoveryStats; Lane::DATA.len()] {
        std::array::from_fn(|at| self.recovery[at].stats())
    }

    /// A message is about to be written on a lane; says whether it joins a block that has repairs.
    pub(crate) fn is_coded(&mut self, lane: Lane, now: Instant) -> bool {
        self.recovering(lane).is_some_and(|(_, recovery)| recovery.coder.joins(now))
    }

    /// Adds a message to its block; returns when to be woken for that.
    pub(crate) fn code(
        &mut self,
        lane: Lane,
        written: Written<'_>,
        now: Instant,
    ) -> Option<Instant> {
        self.recovering(lane).and_then(|(_, recovery)| recovery.coder.add(written, now))
    }

    /// The next repair to send on a lane, if any is due and copies leave room for it on the line.
    pub(crate) fn pop_repair(&mut self, lane: Lane, now: Instant) -> Option<Bytes> {
        let at = lane.data_index()?;
        self.recovery[at].coder.pop(&mut self.copies, now)
    }

    /// Keeps the frames of a message that goes out now, which may be in a block; returns how many they are, and when
    /// the tail probe of the last is due, if nobody waits for that yet.
    pub(crate) fn handle_sent(
        &mut self,
        lane: Lane,
        message: &Bytes,
        pieces: impl Iterator<Item = Piece>,
        coded: bool,
        now: Instant,
    ) -> (u64, Option<Instant>) {
        let Some(at) = lane.data_index() else { return (0, None) };
        let doubles = lane == Lane::Realtime && !coded && self.twins.is_on();
        let (state, recovery) = (&mut self.lanes[at], &mut self.recovery[at]);
        let (mut frames, mut bytes) = (0, 0);
        for Piece { number, copied, place } in pieces {
            let frame = message.slice(place);
            if doubles && !Header::is_copy(&frame) {
                match self.copies.take_spare(frame.len(), now) {
                    // Due after the tail probe of this frame or of one before it, for which a timer is set.
                    true => recovery.resends.double(number, now),
                    false => recovery.resends.count_over_budget(),
                }
            }
            frames += 1;
            bytes += frame.len();
            state.ring.push(number, frame, copied, now);
        }
        recovery.resends.earn(bytes, now);
        let tail = self.probe.recovers().then(|| recovery.tail.handle_sent(now));
        (frames, tail.flatten())
    }

    /// The heartbeat that is due at `due`, if any. It also says what a tail probe would.
    pub(crate) fn poll_heartbeat(&mut self, due: Instant, now: Instant) -> Option<Heartbeat> {
        let heartbeat = self.probe.poll_transmit_due(due, now)?;
        self.told_received = heartbeat.received_next;
        self.untold_bytes = [0; Lane::DATA.len()];
        self.told_at = [now; Lane::DATA.len()];
        self.recovery.iter_mut().for_each(|lane| lane.tail.handle_told());
        let complete_next = Some(self.recovery.each_mut().map(|lane| lane.gaps.complete_next()));
        let lost = Some(lost_share(self.probe.windows(now)));
        let repairs = self.takes_repairs();
        Some(Heartbeat { complete_next, lost, repairs, ..heartbeat })
    }

    /// Takes note of frames that arrived in order, and were read together.
    pub(crate) fn handle_frames(&mut self, lane: Lane, run: Numbered, now: Instant) {
        self.probe.handle_frames(lane, run, now);
        if let Some(at) = lane.data_index() {
            self.untold_bytes[at] += run.bytes;
        }
    }

    /// What was received of a lane, if the neighbour keeps many frames for want of knowing: one more than the greatest
    /// number, and the first that may still be asked for.
    pub(crate) fn poll_received(&mut self, lane: Lane, now: Instant) -> Option<(u32, u32)> {
        let at = lane.data_index().filter(|_| self.probe.recovers())?;
        let next = self.probe.received_next(lane);
        let untold = next.wrapping_sub(self.told_received[at]);
        let is_fast = self.untold_bytes[at] >= TOLD_EVERY_BYTES
            && now.saturating_duration_since(self.told_at[at]) <= TOLD_SOONEST;
        if untold < TOLD_EVERY && !is_fast {
            return None;
        }
        (self.told_received[at], self.untold_bytes[at], self.told_at[at]) = (next, 0, now);
        Some((next, self.recovery[at].gaps.complete_next()))
    }

    /// After the neighbour's word of what it received of a lane: forgets what it has no need of.
    pub(crate) fn forget_complete(&mut self, lane: Lane) {
        let (acknowledged, complete) = (self.probe.acknowledged(lane), self.probe.complete(lane));
        if let Some(state) = self.lane(lane) {
            state.ring.acknowledge(acknowledged, complete);
        }
    }

    /// After a heartbeat: forgets what the neighbour has no need of, and notes the link's delay and loss.
    pub(crate) fn acknowledge(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let lost = heartbeat.lost;
        let coded_lost = lost.filter(|_| heartbeat.repairs && self.takes_repairs());
        let round_trip = Duration::from(self.probe.windows(now).0.rtt);
        self.delay = round_trip / 2;
        self.twins.handle_lost(lost, round_trip);
        for (at, lane) in Lane::DATA.into_iter().enumerate() {
            self.forget_complete(lane);
            self.recovery[at].gaps.set_round_trip(round_trip);
            self.recovery[at].coder.handle_lost(coded_lost, round_trip);
        }
    }

    /// Whether repairs are made use of, and sent to who does so too.
    pub(crate) fn takes_repairs(&self) -> bool {
        match self.fec {
            Fec::Off => false,
            Fec::Adaptive => true,
        }
    }

    /// Throws away what is queued; says how many frames that was.
    pub(crate) fn clear_queues(&mut self) -> usize {
        self.lanes.iter_mut().map(LaneState::clear).sum()
    }
}

/// What a [`crate::Transmit`] or an event is about: one lane of one link.
pub(crate) type LaneKey = (NeighbourLink, Lane);
