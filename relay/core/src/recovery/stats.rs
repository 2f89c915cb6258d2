//! What recovery counts.

macro_rules! recovery_stats {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counts of one lane of one link since it was opened, or of several together. A shell destructures
        /// it without `..`, so that none is forgotten.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct RecoveryStats {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl RecoveryStats {
            /// Adds another's counts.
            pub fn add(&mut self, other: &Self) {
                let Self { $($name),+ } = *other;
                $(self.$name += $name;)+
            }
        }
    };
}

recovery_stats! {
    /// Numbers that did not come within the reorder window, and those given up before.
    missing,
    /// Of these, numbers that came after they were asked for.
    recovered,
    /// Of these, numbers that never came: what is lost after recovery.
    given_up,
    /// Numbers that were overtaken and came by themselves.
    late,
    /// Frames that came twice, or too late to tell; dropped.
    duplicates,
    /// NACKs sent.
    nacks_sent,
    /// Numbers in them.
    asked,
    /// Numbers not asked for, because too many were.
    asks_over_budget,
    /// NACKs received.
    nacks_received,
    /// Numbers in them that were looked at.
    wanted,
    /// Frames sent again, second copies included.
    resent,
    /// Frames asked for and not sent again, because too much was.
    over_budget,
    /// Frames asked for that are not kept: never sent, long ago, or complete by the neighbour's own word.
    absent,
    /// Frames asked for whose answer is under way, or was sent often enough.
    repeated,
    /// Frames asked for whose time budget is used up.
    expired,
    /// Second copies sent that were not asked for, because the line loses much.
    twins_sent,
    /// Bytes of these, headers included.
    twin_bytes,
    /// Frames without such a copy, because copies had their share of the line.
    twins_over_budget,
    /// Frames that came by such a copy, their first having been lost or overtaken.
    spared,
    /// Blocks of messages that ended, for which repairs were made.
    blocks,
    /// Repairs sent.
    repairs_sent,
    /// Bytes of these, headers included.
    repair_bytes,
    /// Repairs not sent, because they, or copies, had their share of the line, or because the lane took none in time.
    repairs_unsent,
    /// Repairs received.
    repairs_received,
    /// Of these, repairs of blocks from which nothing was missing.
    repairs_spare,
    /// Of these, repairs of blocks from which more was missing than they made up for.
    repairs_vain,
    /// Frames computed from repairs.
    rebuilt,
    /// Tail probes sent.
    tails_sent,
    /// Tail probes received.
    tails_received,
}
