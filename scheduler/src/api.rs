//! The admin interface's JSON, the same types on both ends. Names stand beside ids; what is not known is
//! `null`. Fields are only added, so that tools outlive a version.

mod from_core;

pub use crate::events::EventRecord;

use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusBody {
    /// The mesh's name.
    pub mesh: String,
    /// The build of the scheduler.
    pub software: String,
    /// The scheduler's term.
    pub epoch_term: u64,
    /// The last epoch's number within the term.
    pub epoch_sequence: u64,
    /// Whether the scheduler still waits for relays to report, and pushes nothing.
    pub settling: bool,
    /// Every member, by id.
    pub relays: Vec<RelayBody>,
    /// Every directed link, by id.
    pub links: Vec<LinkBody>,
    /// How many of them routes may use; `null` if no relay reports, for then nobody knows.
    #[serde(default)]
    pub links_usable: Option<usize>,
    /// Every route, by source, destination and class.
    pub routes: Vec<RouteBody>,
    /// What the overlay gains, for realtime traffic.
    pub improvement: ImprovementBody,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayBody {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its region; empty if not known.
    pub region: String,
    /// Its provider; empty if not known.
    pub provider: String,
    /// Its build; empty if not known.
    pub software: String,
    /// Its addresses, one per provider line.
    pub addresses: Vec<String>,
    /// Whether it said hello and has links.
    pub registered: bool,
    /// Whether it has a control connection.
    pub connected: bool,
    /// Whether it said goodbye.
    pub draining: bool,
    /// Time since its last report.
    pub last_report_age_ms: Option<u64>,
    /// How often its process woke late.
    pub self_stalls: u64,
    /// Services that its gateway offers.
    pub services: Vec<String>,
    /// The revision of its pushed state that it acknowledged, 0 if none is known.
    pub revision_acked: u64,
    /// The revision that it is to have.
    pub revision_current: u64,
}

/// A directed link, measured where it arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkBody {
    /// The sending relay's id.
    pub from: u16,
    /// Its name.
    pub from_name: String,
    /// The receiving relay's id.
    pub to: u16,
    /// Its name.
    pub to_name: String,
    /// Which parallel link.
    pub index: u8,
    /// Whether routes may use it, and an end of it still says so.
    pub usable: bool,
    /// Whether the scheduler hears an end of it. If not, all else is what was known last.
    #[serde(default)]
    pub known: bool,
    /// Liveness as the receiver sees it: `unknown`, `up`, `suspect`, `down`.
    pub inbound: String,
    /// Liveness as the sender sees it.
    pub outbound: String,
    /// The last second.
    pub fast: Option<WindowBody>,
    /// The last thirty seconds.
    pub slow: Option<WindowBody>,
    /// Estimated one-way delay.
    pub delay_us: Option<u32>,
    /// Received rate.
    pub received_bps: u64,
    /// The lesser of both ends' capacities.
    pub capacity_bps: Option<u64>,
    /// Received rate over capacity.
    pub load_permille: Option<u16>,
    /// `candidate` if a path uses it, else `idle`.
    pub role: String,
}

/// Measurements over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowBody {
    /// Receiver's clock less sender's.
    pub one_way_diff_us: i64,
    /// Round trip of the link.
    pub rtt_us: Option<u32>,
    /// Mean deviation of the one-way difference.
    pub jitter_us: u32,
    /// Packets that should have arrived.
    pub samples: u32,
    /// Of these, lost.
    pub lost: u32,
}

/// The paths of an ordered pair in a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteBody {
    /// From, by id.
    pub source: u16,
    /// From, by name.
    pub source_name: String,
    /// To, by id.
    pub destination: u16,
    /// To, by name.
    pub destination_name: String,
    /// `realtime`, `interactive` or `bulk`.
    pub class: String,
    /// The path in use first, then its backups.
    pub candidates: Vec<CandidateBody>,
}

/// A path that a route may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateBody {
    /// The relays after the source, the destination last.
    pub path: Vec<StepBody>,
    /// Sum of the links' costs.
    pub cost: u32,
    /// Expected one-way delay.
    pub delay_us: u32,
    /// `best`, `disjoint`, `parallel` or `direct`.
    pub reason: String,
}

/// One step of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepBody {
    /// The relay reached.
    pub relay: u16,
    /// Its name.
    pub name: String,
    /// The parallel link taken to it.
    pub link: u8,
}

/// What the overlay gains over the direct links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImprovementBody {
    /// Ordered pairs with a direct path and a route.
    pub pairs: usize,
    /// Of these, pairs whose path in use goes over other relays and is faster.
    pub improved: usize,
    /// Median of what these gain.
    pub median_gain_us: u32,
}

/// `POST /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRequest {
    /// The new node's name.
    pub name: String,
    /// Seconds until the token ends; an hour if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// The answer to `POST /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBody {
    /// The node's name.
    pub name: String,
    /// What `overway relay join` takes. Shown this once.
    pub token: String,
    /// When it ends, seconds since 1970, UTC.
    pub expires_unix: u64,
}

/// `GET /v1/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesBody {
    /// Members, then invitations, then removed nodes, each by name.
    pub nodes: Vec<NodeBody>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBody {
    /// Its name.
    pub name: String,
    /// Its id; an invited node has none yet.
    pub id: Option<u16>,
    /// What it is.
    pub state: NodeState,
    /// When it joined, seconds since 1970, UTC.
    pub created_unix: Option<u64>,
    /// When its invitation ends, seconds since 1970, UTC.
    pub expires_unix: Option<u64>,
}

/// What a node is to the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its token was redeemed.
    Member,
    /// Its token was not redeemed yet.
    Invited,
    /// It was removed for good.
    Removed,
}

impl NodeState {
    /// Its name in JSON and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Invited => "invited",
            Self::Removed => "removed",
        }
    }
}

/// `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventsBody {
    /// Oldest first.
    pub events: Vec<EventRecord>,
}

/// Any answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what would be right.
    pub error: String,
}
