//! What a relay measures: links, demands and lines.

use prost::Message;

/// Demands of one report, the greatest first; further ones are ignored. Traffic is so skewed that what is left
/// out moves no link's load: 4,096 destinations of 16 bytes are 64 KB each second at the most.
pub const DEMANDS_MAX: usize = 4_096;

/// Measurements of a relay, of the links on which it receives.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// Counts this connection's reports from 1; a scheduler refuses one that does not count up.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Whether `links` are all links; otherwise those that changed.
    #[prost(bool, tag = "2")]
    pub full: bool,
    /// One per link on which the relay receives.
    #[prost(message, repeated, tag = "3")]
    pub links: Vec<LinkReport>,
    /// How often the process woke late since its start.
    #[prost(uint64, tag = "4")]
    pub self_stalls: u64,
    /// What the reporter's own ends asked it to send over the last second; always the whole list, the
    /// greatest first, at most [`DEMANDS_MAX`].
    #[prost(message, repeated, tag = "5")]
    pub demands: Vec<Demand>,
    /// What went out over each line, in the order of `Hello.addresses`.
    #[prost(message, repeated, tag = "6")]
    pub lines: Vec<LineUse>,
    /// What edges use of the reporter; absent where none can attach.
    #[prost(message, optional, tag = "7")]
    pub access: Option<AccessUse>,
    /// Frames that took a detour around a dead link since the process's start.
    #[prost(uint64, tag = "20")]
    pub detours: u64,
}

/// What a relay's own ends asked it to send to another relay, whether or not it could.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Demand {
    /// The destination relay.
    #[prost(uint32, tag = "1")]
    pub destination: u32,
    /// The class's code.
    #[prost(uint32, tag = "2")]
    pub class: u32,
    /// The policy, 0 if none.
    #[prost(uint32, tag = "3")]
    pub policy: u32,
    /// Bits per second of frames, headers included.
    #[prost(uint64, tag = "4")]
    pub bps: u64,
}

/// What a line has carried outwards.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LineUse {
    /// Bytes sent in this calendar month (UTC).
    #[prost(uint64, tag = "1")]
    pub sent_bytes_month: u64,
    /// Bits per second sent lately, over half a second at the least.
    #[prost(uint64, tag = "2")]
    pub sent_bps: u64,
}

/// What edges use of a relay.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AccessUse {
    /// Edges attached now.
    #[prost(uint32, tag = "1")]
    pub attachments: u32,
    /// By tenant, in order of their numbers: those with edges attached, or that sent in this month. At most as many as
    /// there are tenants.
    #[prost(message, repeated, tag = "2")]
    pub tenants: Vec<TenantUse>,
    /// Which count it is: another one begins at nothing. A process that goes on with what an earlier one has kept keeps its
    /// number.
    #[prost(uint32, tag = "3")]
    pub boot: u32,
    /// The calendar month (UTC) of which bytes are counted: years since 0, times twelve, and months since January.
    #[prost(uint32, tag = "4")]
    pub month: u32,
}

/// What a tenant's edges use of a relay.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct TenantUse {
    /// The tenant's number.
    #[prost(uint32, tag = "1")]
    pub tenant: u32,
    /// Edges attached now.
    #[prost(uint32, tag = "2")]
    pub attachments: u32,
    /// Flows open now; counted only where there is a limit.
    #[prost(uint32, tag = "3")]
    pub flows: u32,
    /// Bytes that they sent in the month, as far as this process knows.
    #[prost(uint64, tag = "4")]
    pub sent_bytes: u64,
}

/// One neighbour link, as its receiving end sees it.
#[derive(Clone, PartialEq, Message)]
pub struct LinkReport {
    /// The neighbour: measurements are of what it sends to the reporter.
    #[prost(uint32, tag = "1")]
    pub neighbour: u32,
    /// The link index.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// Whether the reporter hears the neighbour.
    #[prost(enumeration = "State", tag = "3")]
    pub inbound: i32,
    /// Whether the neighbour hears the reporter, by the neighbour's heartbeats.
    #[prost(enumeration = "State", tag = "4")]
    pub outbound: i32,
    /// Over about the last second.
    #[prost(message, optional, tag = "5")]
    pub fast: Option<Window>,
    /// Over about the last thirty seconds.
    #[prost(message, optional, tag = "6")]
    pub slow: Option<Window>,
    /// Frames' bits received per second over the last second, for load.
    #[prost(uint64, tag = "7")]
    pub received_bps: u64,
    /// Bytes of the longest UDP payload that is known to get through to the neighbour; 0 if that is not known.
    #[prost(uint32, tag = "8")]
    pub mtu: u32,
}

/// Measurements over a window. Times are in microseconds.
#[derive(Clone, PartialEq, Message)]
pub struct Window {
    /// Receiver's clock less sender's: see [`crate::ClockDiff`].
    #[prost(sint64, tag = "1")]
    pub one_way_diff_us: i64,
    /// Round trip of the link, both directions.
    #[prost(uint32, tag = "2")]
    pub rtt_us: u32,
    /// Mean deviation of the round trip (RFC 6298's RTTVAR).
    #[prost(uint32, tag = "3")]
    pub rtt_var_us: u32,
    /// Mean deviation of the one-way difference.
    #[prost(uint32, tag = "4")]
    pub jitter_us: u32,
    /// Packets that should have arrived, weighted by age: the effective number of samples.
    #[prost(uint32, tag = "5")]
    pub samples: u32,
    /// Of these, lost.
    #[prost(uint32, tag = "6")]
    pub lost: u32,
}

/// Liveness of one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// Nothing heard yet.
    Unknown = 0,
    /// Heard in time.
    Up = 1,
    /// Silent for one and a half intervals.
    Suspect = 2,
    /// Silent for three.
    Down = 3,
}

impl State {
    /// Its name in output and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ToScheduler;

    #[test]
    fn a_report_has_these_bytes() {
        let fast = Window {
            one_way_diff_us: -3,
            rtt_us: 300,
            jitter_us: 2,
            samples: 9,
            lost: 1,
            ..Window::default()
        };
        let link = LinkReport {
            neighbour: 2,
            index: 1,
            inbound: State::Up.into(),
            outbound: State::Down.into(),
            fast: Some(fast),
            slow: None,
            received_bps: 8,
            mtu: 0,
        };
        let report = Report {
            sequence: 5,
            full: true,
            links: vec![link],
            self_stalls: 1,
            demands: vec![Demand { destination: 3, class: 2, policy: 9, bps: 1_000 }],
            lines: vec![LineUse { sent_bytes_month: 300, sent_bps: 7 }],
            access: Some(AccessUse {
                attachments: 4,
                tenants: vec![TenantUse { tenant: 5, attachments: 1, flows: 2, sent_bytes: 300 }],
                boot: 7,
                month: 9,
            }),
            detours: 6,
        };

        let bytes = ToScheduler::from(report).encode_to_vec();

        let window = [0x08, 5, 0x10, 0xac, 2, 0x20, 2, 0x28, 9, 0x30, 1];
        let parts: [&[u8]; 9] = [
            &[0x12, 71, 0x08, 5, 0x10, 1],
            &[0x1a, 23, 0x08, 2, 0x10, 1, 0x18, 1, 0x20, 3, 0x2a, 11],
            &window,
            &[0x38, 8],
            &[0x20, 1],
            &[0x2a, 9, 0x08, 3, 0x10, 2, 0x18, 9, 0x20, 0xe8, 7],
            &[0x32, 5, 0x08, 0xac, 2, 0x10, 7],
            &[
                0x3a, 17, 0x08, 4, 0x12, 9, 0x08, 5, 0x10, 1, 0x18, 2, 0x20, 0xac, 2, 0x18, 7,
                0x20, 9,
            ],
            &[0xa0, 1, 6],
        ];
        assert_eq!(bytes, parts.concat());
    }
}
