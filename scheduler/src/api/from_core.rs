//! From the core's status to JSON. Structs are taken apart without `..`, so that a new field of the core
//! is either shown or left out on purpose.

mod explain;
mod overview;
mod tenants;
mod wishes;

use std::collections::BTreeMap;
use std::time::Duration;

use overway_scheduler_core::{
    Improvement, LineStatus, LinkStatus, RelayStatus, RouteStatus, RouteSummary, Status,
};
use overway_topology::{Candidate, Reason, WindowSample};
use overway_wire::control::{Location, Role, State};
use overway_wire::{BitsPerSec, Micros, PathElement, RelayId};

use super::{
    CandidateBody, DrainBody, ImprovementBody, LineBody, LinkBody, LocationBody, OverloadBody,
    PolicyBody, RelayBody, RouteBody, RouteSummaryBody, StatusBody, StepBody, WindowBody,
};
use crate::store::Wishes;
pub(crate) use overview::loss_ppm;

/// Names by id.
pub(crate) type Names = BTreeMap<RelayId, String>;

impl StatusBody {
    /// Makes the body of a mesh's status, without routes.
    pub(crate) fn new(mesh: &str, status: &Status, wishes: &Wishes) -> Self {
        let Status {
            epoch,
            settling,
            relays,
            links,
            drains,
            // The store has them as the operator said them.
            policies: _,
            overloads,
            routes,
            improvement,
        } = status;
        let names: Names = relays.iter().map(|relay| (relay.id, relay.name.clone())).collect();
        let links: Vec<LinkBody> = links.iter().map(|status| link(status, &names)).collect();
        let is_known = links.iter().any(|link| link.known);
        let usable = links.iter().filter(|link| link.usable).count();
        Self {
            mesh: mesh.to_owned(),
            software: crate::SOFTWARE.to_owned(),
            epoch_term: epoch.term,
            epoch_sequence: epoch.sequence,
            settling: *settling,
            relays: relays.iter().map(relay).collect(),
            links,
            links_usable: is_known.then_some(usable),
            overloads: overloads.iter().map(|status| OverloadBody::new(status, &names)).collect(),
            drains: drains.iter().map(|status| DrainBody::new(status, &names)).collect(),
            policies: PolicyBody::all(wishes, relays),
            routes_summary: summary(*routes),
            routes: Vec::new(),
            routes_truncated: false,
            improvement: improvement_body(*improvement),
        }
    }
}

fn name(names: &Names, relay: RelayId) -> String {
    names.get(&relay).cloned().unwrap_or_else(|| relay.to_string())
}

/// What is not said is not known.
fn capacity(capacity: BitsPerSec) -> Option<u64> {
    (capacity.0 > 0).then_some(capacity.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn relay(status: &RelayStatus) -> RelayBody {
    let RelayStatus {
        id,
        name,
        region,
        provider,
        software,
        location,
        addresses,
        registered,
        connected,
        draining,
        drain,
        transit,
        transit_override,
        neighbours,
        lines,
        demand,
        last_report_age,
        attachments,
        self_stalls,
        services,
        revision_acked,
        revision_current,
    } = status;
    RelayBody {
        id: id.0,
        name: name.clone(),
        region: region.clone(),
        provider: provider.clone(),
        software: software.clone(),
        location: location.map(location_body),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        registered: *registered,
        connected: *connected,
        draining: *draining,
        drain: drain.map(|stage| wishes::stage(stage).to_owned()),
        transit: *transit,
        transit_override: *transit_override,
        neighbours: *neighbours,
        demand_bps: demand.0,
        lines: lines.iter().map(line).collect(),
        last_report_age_ms: last_report_age.map(millis),
        attachments: *attachments,
        self_stalls: *self_stalls,
        services: services.clone(),
        revision_acked: *revision_acked,
        revision_current: *revision_current,
    }
}

pub(super) fn location_body(location: Location) -> LocationBody {
    let Location { latitude_e6, longitude_e6 } = location;
    LocationBody { latitude_e6, longitude_e6 }
}

fn line(status: &LineStatus) -> LineBody {
    let LineStatus {
        provider,
        capacity: carries,
        price,
        commit_gb,
        cap_gb,
        sent_bytes_month,
        sent,
        spent,
    } = status;
    LineBody {
        provider: provider.clone(),
        capacity_bps: capacity(*carries),
        price_millicents_per_gb: price.0,
        commit_gb: *commit_gb,
        cap_gb: *cap_gb,
        sent_bytes_month: *sent_bytes_month,
        sent_bps: sent.0,
        spent: *spent,
    }
}

fn link(status: &LinkStatus, names: &Names) -> LinkBody {
    let LinkStatus {
        id,
        usable,
        trial,
        known,
        inbound,
        outbound,
        mtu,
        fast,
        slow,
        delay,
        received,
        capacity: carries,
        load,
        role,
    } = status;
    let capacity_bps = capacity(*carries);
    LinkBody {
        from: id.from.0,
        from_name: name(names, id.from),
        to: id.to.0,
        to_name: name(names, id.to),
        index: id.index.value(),
        usable: *usable && *known,
        trial: *trial,
        known: *known,
        inbound: state(*inbound).to_owned(),
        outbound: state(*outbound).to_owned(),
        mtu: Some(*mtu).filter(|&mtu| mtu > 0),
        fast: fast.map(window),
        slow: slow.map(window),
        delay_us: delay.map(|delay| delay.0),
        received_bps: received.0,
        capacity_bps,
        load_permille: capacity_bps.map(|_| load.0),
        role: role_name(*role).to_owned(),
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Up => "up",
        State::Suspect => "suspect",
        State::Down => "down",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Idle => "idle",
        Role::Candidate => "candidate",
    }
}

fn window(sample: WindowSample) -> WindowBody {
    let WindowSample { one_way_diff, rtt, jitter, samples, lost } = sample;
    WindowBody {
        one_way_diff_us: one_way_diff.0,
        rtt_us: (rtt != Micros(0)).then_some(rtt.0),
        jitter_us: jitter.0,
        samples,
        lost,
    }
}

impl RouteBody {
    /// Makes the body of a route.
    pub(crate) fn new(status: &RouteStatus, names: &Names) -> Self {
        let RouteStatus { key, candidates, weights } = status;
        Self {
            source: key.source.0,
            source_name: name(names, key.source),
            destination: key.destination.0,
            destination_name: name(names, key.destination),
            class: key.class.name().to_owned(),
            policy: key.policy.0,
            candidates: candidates.iter().map(|path| candidate(path, names)).collect(),
            shares_permille: weights.clone(),
        }
    }
}

fn candidate(candidate: &Candidate, names: &Names) -> CandidateBody {
    let Candidate { path, cost, delay, reason } = candidate;
    CandidateBody {
        path: steps(path.elements(), names),
        cost: cost.0,
        delay_us: delay.0,
        reason: reason_name(*reason).to_owned(),
    }
}

fn steps(elements: &[PathElement], names: &Names) -> Vec<StepBody> {
    let step = |element: &PathElement| StepBody {
        relay: element.relay.0,
        name: name(names, element.relay),
        link: element.link.value(),
    };
    elements.iter().map(step).collect()
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Best => "best",
        Reason::Disjoint => "disjoint",
        Reason::Diverse => "diverse",
        Reason::Parallel => "parallel",
        Reason::Direct => "direct",
        Reason::Further => "further",
    }
}

fn improvement_body(improvement: Improvement) -> ImprovementBody {
    let Improvement { pairs, improved, median_gain } = improvement;
    ImprovementBody { pairs, improved, median_gain_us: median_gain.0 }
}

fn summary(summary: RouteSummary) -> RouteSummaryBody {
    let RouteSummary { looked_at, without_disjoint, indirect, split } = summary;
    RouteSummaryBody { looked_at, without_disjoint, indirect, split }
}
