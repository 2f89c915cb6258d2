//! What a neighbour asked for and is sent again, and second copies that it did not ask for.
//!
//! A NACK may ask for anything. Of each the first [`NACK_NUMBERS_MAX`] numbers are looked at; what is not kept is
//! counted, and what is kept is sent again at most [`TRIES_MAX`] times, not before the answer to the last question
//! can have arrived, and within a share of what the lane carries. So a forged one costs its own arrival and that
//! share.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use overway_wire::Header;
use overway_wire::hop::{self, NACK_NUMBERS_MAX, NackRange};

use super::pop_if;
use super::quota::Quota;
use super::stats::RecoveryStats;
use crate::lane::encode;
use crate::ring::{Ring, reread};

/// How often a frame is sent again, second copies left out.
const TRIES_MAX: u8 = 3;
/// Bytes sent again are at most a fifth of all that the lane carries: enough for a loss of 5 % where
/// everything is sent twice, and beyond that the hop is no good anyway.
const SHARE: u64 = 5;
/// And so many bytes besides: fifty full frames.
const BURST_BYTES: u64 = 64 << 10;
/// Frames that wait to be sent again; beyond it none is taken, and the neighbour asks once more.
const READY_MAX: usize = 4_096;
/// A second copy follows after this long: beyond most short bursts of loss, and much sooner than it could be asked
/// for on a link that is worth it.
const TWIN_AFTER: Duration = Duration::from_millis(3);
/// Questions nearer to the last answer than this, or than half a round trip, were asked before it came: more than
/// the pause between the two questions for a realtime frame.
const ANSWERED_MIN: Duration = Duration::from_millis(6);

/// A frame to be sent again.
#[derive(Clone, Copy, Debug)]
struct Resend {
    number: u32,
    why: Why,
}

/// Why a frame is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It was asked for.
    Answer,
    /// It was sent a moment ago because it was asked for.
    AnswerTwin,
    /// It was sent a moment ago for the first time.
    Twin,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Resends {
    /// Whether each answer is sent a second time a moment later.
    twins: bool,
    ready: VecDeque<Resend>,
    /// Second copies, in the order in which they are due.
    later: VecDeque<(Instant, Resend)>,
    budget: Quota,
    stats: RecoveryStats,
}

impl Resends {
    pub(crate) fn new(twins: bool, now: Instant) -> Self {
        Self {
            twins,
            ready: VecDeque::new(),
            later: VecDeque::new(),
            budget: Quota::new(SHARE, BURST_BYTES, now),
            stats: RecoveryStats::default(),
        }
    }

    pub(crate) fn stats(&self) -> &RecoveryStats {
        &self.stats
    }

    /// Notes that the lane carried so many bytes for the first time.
    pub(crate) fn earn(&mut self, bytes: usize, now: Instant) {
        self.budget.earn(bytes as u64, now);
    }

    /// A frame was sent for the first time that is worth a second copy a moment later.
    pub(crate) fn double(&mut self, number: u32, now: Instant) {
        if self.later.len() < READY_MAX {
            self.later.push_back((now + TWIN_AFTER, Resend { number, why: Why::Twin }));
        }
    }

    /// A frame would have been worth a second copy, but copies had their share of the line.
    pub(crate) fn count_over_budget(&mut self) {
        self.stats.twins_over_budget += 1;
    }

    /// Takes a neighbour's question; says whether there is something to send now.
    pub(crate) fn handle_nack(
        &mut self,
        ranges: impl Iterator<Item = NackRange>,
        ring: &mut Ring,
        round_trip: Duration,
        now: Instant,
    ) -> bool {
        self.stats.nacks_received += 1;
        ring.trim(now);
        let answered = ANSWERED_MIN.max(round_trip / 2);
        let each = |range: NackRange| {
            (0..u32::from(range.count)).map(move |at| range.first.wrapping_add(at))
        };
        let numbers = ranges.flat_map(each).take(NACK_NUMBERS_MAX as usize);
        for number in numbers {
            self.stats.wanted += 1;
            let Some(entry) = ring.entry(number) else {
                self.stats.absent += 1;
                continue;
            };
            entry.missing = true;
            let recent = |at: Instant| now.saturating_duration_since(at) < answered;
            if entry.resent.is_some_and(recent) || entry.tries >= TRIES_MAX {
                self.stats.repeated += 1;
            } else if self.ready.len() >= READY_MAX {
                self.stats.over_budget += 1;
            } else {
                entry.resent = Some(now);
                entry.tries += 1;
                self.ready.push_back(Resend { number, why: Why::Answer });
            }
        }
        !self.ready.is_empty()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.later.front().map(|&(due, _)| due)
    }

    /// Takes up the second copies that are due; says whether there is something to send now.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        while let Some((_, resend)) = pop_if(&mut self.later, |(due, _)| *due <= now) {
            self.ready.push_back(resend);
        }
        !self.ready.is_empty()
    }

    /// The next hop message to send again: as it was, but for the time that its frame has left.
    pub(crate) fn pop(&mut self, ring: &mut Ring, now: Instant) -> Option<Bytes> {
        while let Some(Resend { number, why }) = self.ready.pop_front() {
            let Some(entry) = ring.entry(number) else {
                // The neighbour may have it by now, and have said so.
                self.stats.absent += u64::from(why != Why::Twin);
                continue;
            };
            let Some((header, payload)) = reread(entry, now) else {
                self.stats.expired += 1;
                continue;
            };
            if why == Why::Twin {
                entry.resent = Some(now);
                self.stats.twins_sent += 1;
                self.stats.twin_bytes += entry.frame.len() as u64;
                return Some(encode_twin(number, &header, &payload));
            }
            if !self.budget.take(entry.frame.len() as u64, now) {
                self.stats.over_budget += 1;
                continue;
            }
            self.stats.resent += 1;
            if self.twins && why == Why::Answer {
                self.later.push_back((now + TWIN_AFTER, Resend { number, why: Why::AnswerTwin }));
            }
            return Some(encode(number, &header, &payload));
        }
        None
    }
}

fn encode_twin(number: u32, header: &Header, payload: &[u8]) -> Bytes {
    let bytes = hop::DATA_PREFIX_BYTES + header.encoded_len() + payload.len();
    let mut message = BytesMut::with_capacity(bytes);
    hop::encode_twin_prefix(number, &mut message);
    header.encode(&mut message);
    message.put_slice(payload);
    message.freeze()
}

#[cfg(test)]
mod tests;
