//! What a run did, in numbers: so that a reader sees that it was not empty.

use overway_relay_core::{RecoveryStats, Relay, Stats};

macro_rules! figures {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counts of a run, or of several.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Figures {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Figures {
            /// Every count with its name. Those that end in `_max` are no sums.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }

            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(
                    let max = stringify!($name).ends_with("_max");
                    let (own, its) = (self.$name, other.$name);
                    self.$name = if max { own.max(its) } else { own + its };
                )+
            }
        }
    };
}

figures! {
    /// Events of the trace.
    events,
    /// Virtual time, in milliseconds.
    virtual_ms,
    /// Packets handed to links.
    packets,
    /// Packets that the network lost.
    packets_lost,
    /// Frames sent by ends.
    frames_sent,
    /// Frames that reached the far end, copies left out.
    frames_passed,
    /// Copies that the ends' replay windows kept out.
    duplicates_filtered,
    /// Frames sent by an end and not passed to the other.
    frames_lost,
    /// Frames carried between two neighbours.
    forwarded,
    /// Second copies sent while a link was suspect.
    copies,
    /// Frames sent over a second path, of flows that want all of it twice.
    doubles,
    /// Second copies sent unasked over links that lose much.
    twins,
    /// Frames that came by such a copy.
    spared,
    /// Repairs sent over links that are long and lose much.
    repairs,
    /// Frames computed from such.
    rebuilt,
    /// Frames that took a detour.
    detours,
    /// Frames and copies sent to their destination's other address.
    alternates,
    /// Unacknowledged frames sent again over a detour.
    replays,
    /// Frames that hops asked for again.
    missing,
    /// Of these, frames that came.
    recovered,
    /// Of these, frames that a hop gave up.
    given_up,
    /// Frames sent again, second copies included.
    resent,
    /// Frames that came over a hop once more.
    hop_duplicates,
    /// Messages that asked for frames.
    nacks,
    /// Tail probes.
    tails,
    /// Frames sent while every link lost some.
    lossy_frames,
    /// Of these, lost.
    lossy_frames_lost,
    /// Notices that sources acted on.
    notices,
    /// Times that a link became suspect.
    suspects,
    /// Times that a link went down.
    downs,
    /// Times that a process woke late.
    self_stalls,
    /// Links cut, both ways.
    cuts,
    /// Links cut, one way.
    one_way_cuts,
    /// Relays cut off from all others.
    isolations,
    /// Relays frozen.
    freezes,
    /// Relays killed.
    kills,
    /// Links made lossy.
    losses,
    /// Links made slower.
    slowdowns,
    /// Cells cut off in storms.
    cells_cut_off,
    /// Schedulers killed.
    scheduler_deaths,
    /// Schedulers frozen.
    scheduler_freezes,
    /// Relays cut off from the scheduler.
    control_cuts,
    /// Control connections broken.
    control_breaks,
    /// Control connections that stood.
    control_connections,
    /// Hellos that schedulers refused.
    hellos_refused,
    /// Epochs made.
    epochs,
    /// Updates that relays applied.
    updates_applied,
    /// Updates that relays refused.
    updates_refused,
    /// Updates with the whole state.
    updates_full,
    /// Times that schedulers doubted a relay.
    doubts,
    /// Times that a route's traffic was split anew.
    weights_changed,
    /// Times that something had to carry more than it can.
    overloads,
    /// Links put into the probe plan, each direction.
    links_added,
    /// Links taken out of it.
    links_removed,
    /// Drills held.
    drills,
    /// Of these, drills in which an access relay failed.
    drills_access,
    /// Flows whose gap was measured in them.
    drill_flows,
    /// Flows left out of them, since no way led around the failing relay.
    drill_parted,
    /// The longest excess gap of realtime and interactive flows, in microseconds.
    drill_excess_us_max,
    /// The longest excess pause of these flows at any time after a failure, in microseconds.
    drill_longest_us_max,
    /// Frames lost in drills.
    drill_lost,
    /// Frames of tenants in cells that reached the far end.
    frames_in_cells,
    /// Of these, frames that came over or to a partner's relay.
    frames_by_partners,
    /// Drills in which a cell was cut off.
    drills_cut_off,
    /// Flows inside that went on without a lost frame.
    flows_cut_off,
    /// Drills in which a cell fell apart.
    drills_parted,
    /// Flows that its partner carried meanwhile.
    flows_parted,
    /// Frames that tried every ordered pair at the end.
    pairs_tried,
    /// After the storm: until every relay was reached and in step, in milliseconds.
    reach_ms_max,
    /// After the storm: until the paths were within the hysteresis of the best, in milliseconds.
    settle_ms_max,
}

impl Figures {
    /// Adds the counters of a process.
    pub(crate) fn count_process(&mut self, core: &Relay) {
        self.count_relay(core.stats());
        core.recovery_stats().iter().for_each(|lane| self.count_recovery(lane));
    }

    fn count_recovery(&mut self, stats: &RecoveryStats) {
        let RecoveryStats {
            missing,
            recovered,
            given_up,
            late: _,
            duplicates,
            nacks_sent,
            asked: _,
            asks_over_budget: _,
            nacks_received: _,
            wanted: _,
            resent,
            over_budget: _,
            absent: _,
            repeated: _,
            expired: _,
            twins_sent,
            twin_bytes: _,
            twins_over_budget: _,
            spared,
            blocks: _,
            repairs_sent,
            repair_bytes: _,
            repairs_unsent: _,
            repairs_received: _,
            repairs_spare: _,
            repairs_vain: _,
            rebuilt,
            tails_sent,
            tails_received: _,
        } = *stats;
        self.missing += missing;
        self.recovered += recovered;
        self.given_up += given_up;
        self.resent += resent;
        self.hop_duplicates += duplicates;
        self.nacks += nacks_sent;
        self.tails += tails_sent;
        self.twins += twins_sent;
        self.spared += spared;
        self.repairs += repairs_sent;
        self.rebuilt += rebuilt;
    }

    fn count_relay(&mut self, stats: &Stats) {
        let Stats {
            frames_received: _,
            bytes_received: _,
            frames_sent: _,
            handed: _,
            bytes_sent: _,
            frames_originated: _,
            demands_uncounted: _,
            frames_delivered: _,
            frames_forwarded,
            copies,
            copy_bytes: _,
            doubles,
            double_bytes: _,
            copies_over_budget: _,
            detours,
            alternates,
            replays,
            notices_sent: _,
            notices_received,
            traces_answered: _,
            traces_unanswered: _,
            self_stalls,
            suspects,
            downs,
            updates_applied,
            updates_refused,
            drops: _,
        } = *stats;
        self.forwarded += frames_forwarded;
        self.copies += copies;
        self.doubles += doubles;
        self.detours += detours;
        self.alternates += alternates;
        self.replays += replays;
        self.notices += notices_received;
        self.self_stalls += self_stalls;
        self.suspects += suspects;
        self.downs += downs;
        self.updates_applied += updates_applied;
        self.updates_refused += updates_refused;
    }
}
