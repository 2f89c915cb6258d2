//! The admin interface's JSON, the same types on both ends. Names stand beside ids; what is not known is
//! `null`. Fields are only added, so that tools outlive a version.

mod explain;
mod from_core;
mod overview;
mod quality;
mod tenants;
mod wishes;

pub use crate::events::EventRecord;
pub use explain::{
    ExplainBody, ExplainedBody, ExplainedLinkBody, MissBody, RelayRefBody, TermsBody, VerdictBody,
    WhatIfBody, WhatIfRequest, WhatIfRouteBody,
};
pub(crate) use from_core::{Names, loss_ppm};
pub use overview::{
    HistoryBody, LinkCountsBody, LinkGlanceBody, LinksBody, OverviewBody, RelayGlanceBody,
};
pub use quality::{QualityBody, QuantilesBody, ServiceQualityBody};
pub use tenants::{
    KeyRequest, QuotaBody, RelayUsageBody, RevokedKeyBody, RevokedKeyRequest, RevokedTokenBody,
    RevokedTokenRequest, TenantBody, TenantCellRequest, TenantKeyBody, TenantPolicyRequest,
    TenantRequest, TenantUsageBody, TenantsBody,
};
pub use wishes::{
    CellBody, CellRequest, CellsBody, DrainBody, DrainRequest, DrainsBody, OperatorBody,
    OverloadBody, PoliciesBody, PolicyBody, PolicyRequest, TransitBody, TransitRequest,
};

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
    /// Links and relays that are asked to carry more than they can.
    #[serde(default)]
    pub overloads: Vec<OverloadBody>,
    /// What is being drained.
    #[serde(default)]
    pub drains: Vec<DrainBody>,
    /// Policies, by id.
    #[serde(default)]
    pub policies: Vec<PolicyBody>,
    /// The routes as a whole.
    #[serde(default)]
    pub routes_summary: RouteSummaryBody,
    /// Routes, by source, destination, class and policy; only if asked for, and bounded.
    #[serde(default)]
    pub routes: Vec<RouteBody>,
    /// Whether there are more routes than are listed.
    #[serde(default)]
    pub routes_truncated: bool,
    /// What the overlay gains, for realtime traffic.
    pub improvement: ImprovementBody,
}

/// `GET /v1/routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesBody {
    /// Routes that were asked for, by source, destination, class and policy. Bounded.
    pub routes: Vec<RouteBody>,
    /// Whether there are more than are listed.
    pub truncated: bool,
}

/// The routes as a whole. Of a large mesh those of some relays are looked at, and stand for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSummaryBody {
    /// Routes looked at.
    pub looked_at: usize,
    /// Of these, routes without a path that shares no relay with the one in use.
    pub without_disjoint: usize,
    /// Of these, routes whose path in use goes over other relays.
    pub indirect: usize,
    /// Routes whose traffic is split over several paths; all are counted.
    pub split: usize,
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
    /// Where it is; `null` if it does not say.
    #[serde(default)]
    pub location: Option<LocationBody>,
    /// Its addresses, one per provider line.
    pub addresses: Vec<String>,
    /// Whether it said hello and has links.
    pub registered: bool,
    /// Whether it has a control connection.
    pub connected: bool,
    /// Whether it said goodbye.
    pub draining: bool,
    /// How far an operator's drain of it is: `leaving` or `over`; `null` without one.
    #[serde(default)]
    pub drain: Option<String>,
    /// Whether it may carry others' traffic, by its own word and the operator's.
    #[serde(default)]
    pub transit: bool,
    /// What the operator wishes instead of its own word.
    #[serde(default)]
    pub transit_override: Option<bool>,
    /// How many relays it probes.
    #[serde(default)]
    pub neighbours: usize,
    /// What its own ends asked it to send over the last second.
    #[serde(default)]
    pub demand_bps: u64,
    /// Its addresses' lines, in the order of `addresses`.
    #[serde(default)]
    pub lines: Vec<LineBody>,
    /// Time since its last report.
    pub last_report_age_ms: Option<u64>,
    /// Edges attached there, as last reported; `null` where none can attach, or it is not known.
    #[serde(default)]
    pub attachments: Option<u32>,
    /// How often its process woke late.
    pub self_stalls: u64,
    /// Services that its gateway offers.
    pub services: Vec<String>,
    /// The revision of its pushed state that it acknowledged, 0 if none is known.
    pub revision_acked: u64,
    /// The revision that it is to have.
    pub revision_current: u64,
}

/// A place on the earth (WGS 84).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationBody {
    /// Millionths of a degree north of the equator.
    pub latitude_e6: i32,
    /// Millionths of a degree east of Greenwich.
    pub longitude_e6: i32,
}

/// A provider's line at a relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineBody {
    /// Its provider; empty if not known.
    pub provider: String,
    /// What it carries; `null` if not known.
    pub capacity_bps: Option<u64>,
    /// Its price per gigabyte, in thousandths of a cent.
    pub price_millicents_per_gb: u32,
    /// Gigabytes of each month that are paid for in any case.
    pub commit_gb: u64,
    /// Gigabytes of each month beyond which it is not to be used; 0: no limit.
    pub cap_gb: u64,
    /// Bytes sent this month, as last reported.
    pub sent_bytes_month: u64,
    /// Sent over the last second, as last reported.
    pub sent_bps: u64,
    /// Whether this month's volume is spent, so that paths avoid it.
    pub spent: bool,
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
    /// Whether it works, and an end of it still says so.
    pub usable: bool,
    /// Whether it is only measured, as in large meshes where relays are tried as neighbours: no route takes it.
    #[serde(default)]
    pub trial: bool,
    /// Whether the scheduler hears an end of it. If not, all else is what was known last.
    #[serde(default)]
    pub known: bool,
    /// Liveness as the receiver sees it: `unknown`, `up`, `suspect`, `down`.
    pub inbound: String,
    /// Liveness as the sender sees it; `down` too if frames are too long for the path.
    pub outbound: String,
    /// Bytes of the longest UDP payload that the sender knows to get through.
    #[serde(default)]
    pub mtu: Option<u16>,
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
    /// The policy's id; 0: any relay may be on the path.
    #[serde(default)]
    pub policy: u16,
    /// The path in use first, then its backups.
    pub candidates: Vec<CandidateBody>,
    /// The candidates' shares of the traffic in thousandths; empty where the first takes all.
    #[serde(default)]
    pub shares_permille: Vec<u16>,
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
    /// `best`, `disjoint`, `diverse`, `parallel`, `direct` or `further`.
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
