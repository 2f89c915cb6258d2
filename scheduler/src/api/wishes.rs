//! What the operator wishes: drains, transit, policies and cells.

use serde::{Deserialize, Serialize};

/// `PUT /v1/drains/relay/{relay}` and `PUT /v1/drains/link/{a}/{b}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Seconds until it is not used at all; never if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
}

/// `GET /v1/operator`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorBody {
    /// Whether the admin token came with the request.
    pub signed_in: bool,
    /// Whether programs need it to change something; web pages always do.
    pub token_required: bool,
}

/// `GET /v1/drains`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainsBody {
    /// Relays first, then links.
    pub drains: Vec<DrainBody>,
}

/// Something that is being drained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainBody {
    /// `relay` or `link`.
    pub kind: String,
    /// The relay, or the link's two ends, by name.
    pub relays: Vec<String>,
    /// `leaving` until the deadline, then `over`: it is not used at all.
    pub stage: String,
    /// Routes whose path in use still goes over it. Routes that end at a drained relay are not counted.
    pub routes_left: u64,
    /// Edges that are still attached to the relay, as it last reported.
    #[serde(default)]
    pub attachments_left: u32,
    /// Whether no path in use goes over it, and no edge is attached to it.
    pub empty: bool,
    /// Time until the deadline; `null` without one.
    pub deadline_in_ms: Option<u64>,
}

/// `PUT /v1/transit/{relay}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransitRequest {
    /// Whether it may carry others' traffic, whatever it says itself.
    pub allow: bool,
}

/// The answer to `PUT` and `DELETE /v1/transit/{relay}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitBody {
    /// The relay's name.
    pub relay: String,
    /// What the operator wishes; `null`: as the relay says itself.
    pub allow: Option<bool>,
}

/// `PUT /v1/policies/{name}`. At least one list is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// Regions that a path may touch, its ends included; with `cells` empty as well: any.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Providers that a path may touch; empty: any.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Cells whose regions a path may touch too.
    #[serde(default)]
    pub cells: Vec<String>,
}

/// `GET /v1/policies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoliciesBody {
    /// By id.
    pub policies: Vec<PolicyBody>,
}

/// `GET /v1/policies/{name}`, and the answer to `PUT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyBody {
    /// Its id, never given again.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Regions as they were given.
    pub regions: Vec<String>,
    /// Providers as they were given.
    pub providers: Vec<String>,
    /// Cells as they were given.
    pub cells: Vec<String>,
    /// All regions that it allows, those of its cells included; empty: any.
    pub regions_in_force: Vec<String>,
    /// The relays that it allows now, by name.
    pub relays: Vec<String>,
}

/// `PUT /v1/cells/{name}`. At least one of `regions` and `relays` is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRequest {
    /// Its regions.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Its relays in other regions, by name.
    #[serde(default)]
    pub relays: Vec<String>,
    /// The cells that stand in where it has no endpoint or no path itself.
    #[serde(default)]
    pub partners: Vec<String>,
}

/// `GET /v1/cells`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellsBody {
    /// By name.
    pub cells: Vec<CellBody>,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellBody {
    /// Its name.
    pub name: String,
    /// Its regions.
    pub regions: Vec<String>,
    /// Its relays in other regions, by name.
    #[serde(default)]
    pub relays: Vec<String>,
    /// The cells that stand in for it.
    #[serde(default)]
    pub partners: Vec<String>,
    /// The policies that name it.
    pub policies: Vec<String>,
    /// The tenants that are of it.
    #[serde(default)]
    pub tenants: Vec<String>,
}

/// A link or a relay that is asked to carry more than it can, in `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverloadBody {
    /// `link`; `sending` or `receiving` of a relay; `line_sending` or `line_receiving` of one of its lines.
    pub kind: String,
    /// The relay, or the link's two ends in its direction, by name.
    pub relays: Vec<String>,
    /// Which parallel link or which line; 0 of a relay.
    pub index: u8,
    /// What it carries, or is asked to carry.
    pub rate_bps: u64,
    /// What it can carry.
    pub capacity_bps: u64,
    /// Since when.
    pub lasts_ms: u64,
}
