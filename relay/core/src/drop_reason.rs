//! Why a frame or message went no further. The metric label is the name.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame or message went no further.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of [`crate::Stats::drops`].
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// Its name as a metric label.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Not a hop message.
    BadMessage = "bad_message",
    /// Not a frame, or an inconsistent one.
    BadFrame = "bad_frame",
    /// The path does not say that this neighbour hands it to us over this link.
    WrongHop = "wrong_hop",
    /// A frame on a lane that is not its class's.
    WrongLane = "wrong_lane",
    /// Crossed too many relays.
    HopLimit = "hop_limit",
    /// Its time budget is used up.
    Expired = "expired",
    /// This relay carries no transit.
    NoTransit = "no_transit",
    /// No path to the destination, or no detour around what is down.
    NoPath = "no_path",
    /// A local end sent under a policy that this relay has not been told of.
    UnknownPolicy = "unknown_policy",
    /// What is down could be avoided, but not over relays that the frame's policy allows.
    PolicyForbids = "policy_forbids",
    /// The lane's queue is full.
    QueueFull = "queue_full",
    /// Waited too long in a queue.
    QueueAge = "queue_age",
    /// Came before: sent again although it had arrived.
    Duplicate = "duplicate",
    /// A repair that does not fit what came of its block, or that nobody wanted.
    BadRepair = "bad_repair",
    /// Older than a pause of this process.
    Stale = "stale",
    /// A local end sent more than a frame carries.
    TooLong = "too_long",
    /// A notice that cannot be read or is not for us.
    BadNotice = "bad_notice",
    /// A frame of a trace that cannot be read, or is not between relays.
    BadTrace = "bad_trace",
    /// Its end is not attached to this relay, and has no other address.
    NoAttachment = "no_attachment",
    /// From or to a link that is not there.
    UnknownLink = "unknown_link",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_the_order_of_their_discriminants() {
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
