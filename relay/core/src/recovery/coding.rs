//! Forward error correction: repairs, from which a neighbour computes what was lost without asking for it.
//!
//! ```text
//!  sender                                                   receiver
//!  messages of a block: sums carried on --- messages -----> kept for a moment, while repairs come
//!  the block is full, or its time is up                     what is missing is not asked for before its repair is due
//!    +--- up to three repairs, 1 ms apart ----------------> as many as are missing: computed, and taken as if they
//!                                                           had come; more are missing: asked for, as ever
//! ```
//!
//! **Where it pays.** What a hop loses is asked for and comes a round trip later. That is too late for a realtime frame
//! on a long line, and a stall for a stream of interactive ones. On the realtime lane twins ([`super::twins`]) make up
//! for it at the price of every byte again, of which a tenth of the line's capacity pays for no more than a tenth. A
//! block costs a fifth to a quarter, and saves more: of sixteen messages at 2 % loss and three repairs one in 10,000 stays
//! lost, where of frames with twins it is four. So blocks take the place of twins where a block fills up before its time;
//! where less is sent twins cost little and come sooner. On the bulk lane there are no twins, and any block is
//! worth it.
//!
//! | lane | from a loss of, until below | from a round trip of | less than four messages in a block's time |
//! | --- | --- | --- | --- |
//! | realtime | 0.2 %, 0.15 %, as twins | 8 ms | twins |
//! | bulk | 0.5 %, 0.35 % | 40 ms | a block all the same |
//!
//! Nowhere above a loss of a tenth (until it is below 8 %), which a hop's congestion controller takes for congestion:
//! more bytes would make that worse. A block begins with a frame that is worth a copy: realtime or interactive, without
//! the copy mark. Others join it, for numbers in a block are consecutive; alone they have no repairs.
//!
//! **How many** ([`plan`]). A block's time is a quarter of the round trip, 2 to 20 ms: late by that, by the repairs'
//! spacing and a timer's grain, a frame is in time wherever an end can wait for half the path's delay and 20 ms. It ends
//! sooner if it is as long as three repairs are enough for. Then it has as few repairs as leave a fiftieth of what is
//! lost, or two frames in 10,000. They take what twins and copies leave of a tenth of the line ([`crate::budget`]),
//! and a third of the lane's own bytes at most. Where messages of a block are of different lengths, the longest sets the
//! repairs'; that third bounds what this can cost, at the price of fewer repairs.
//!
//! **What is coded** is messages as they went out for the first time, for what is lost is a datagram, be it of one frame
//! or of thirty. The number in a computed message must be its own, and what is behind it zero: messages that are not of
//! this block compute to something else. Answers and twins do not count as messages of a block, because the time that
//! passed is off their budgets.
//!
//! **No doubling.** A repair says how long after a frame it may come, and while such come nothing is asked for sooner.
//! A frame that comes after it was computed is a duplicate, and in the loss that is measured it came; one that does not
//! come stays lost there.
//!
//! **Bounds.** A sender holds three sums. A receiver keeps the last [`KEPT`] numbers' messages while repairs come and
//! two seconds longer, and [`BLOCKS_MAX`] blocks that lack more than their repairs make up for, for a tenth of a second.
//! A forged repair costs no more than computing three messages, and what comes of it is taken as anything that the
//! neighbour might have sent.
//!
//! **Why not a library.** The usual one (reed-solomon-simd 3.1) is made for thousands of shards. Of sixteen messages of
//! 1,236 bytes it computes a lost one in 0.77 ms, since it transforms 65,536 field elements each time, and when first used it
//! fills tables of 8 MiB, in 11 ms: on a thread that must not be late for heartbeats, and at a neighbour's bidding. For
//! three sums in a small field [`field`] is all that it takes: 3 us for one lost message, 12 for three, and 4 to 8
//! for the sums of a block (one thread of the same machine).

mod coder;
mod field;
mod plan;
mod rebuilder;

pub(crate) use coder::{Coder, Written};
pub(crate) use rebuilder::Rebuilder;

#[cfg(doc)]
use rebuilder::{BLOCKS_MAX, KEPT};

/// Whether a relay sends repairs to its neighbours and makes use of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fec {
    /// Neither.
    Off,
    /// Where a line is long and loses much.
    #[default]
    Adaptive,
}

#[cfg(test)]
mod tests;
