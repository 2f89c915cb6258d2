//! From the core's status to JSON. Structs are taken apart without `..`, so that a new field of the core
//! is either shown or left out on purpose.

use std::collections::BTreeMap;
use std::time::Duration;

use overway_scheduler_core::{Improvement, LinkStatus, RelayStatus, RouteStatus, Status};
use overway_topology::{Candidate, Reason, WindowSample};
use overway_wire::control::{Role, State};
use overway_wire::{Micros, RelayId};

use super::{
    CandidateBody, ImprovementBody, LinkBody, RelayBody, RouteBody, StatusBody, StepBody,
    WindowBody,
};

/// Names by id.
type Names<'a> = BTreeMap<RelayId, &'a str>;

impl StatusBody {
    /// Makes the body of a mesh's status.
    pub(crate) fn new(mesh: &str, status: &Status) -> Self {
        let Status { epoch, settling, relays, links, routes, improvement } = status;
        let names: Names<'_> = relays.iter().map(|relay| (relay.id, relay.name.as_str())).collect();
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
            routes: routes.iter().map(|status| route(status, &names)).collect(),
            improvement: improvement_body(*improvement),
        }
    }
}

fn name(names: &Names<'_>, relay: RelayId) -> String {
    names.get(&relay).map_or_else(|| relay.to_string(), |&name| name.to_owned())
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
        addresses,
        registered,
        connected,
        draining,
        last_report_age,
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
        addresses: addresses.iter().map(ToString::to_string).collect(),
        registered: *registered,
        connected: *connected,
        draining: *draining,
        last_report_age_ms: last_report_age.map(millis),
        self_stalls: *self_stalls,
        services: services.clone(),
        revision_acked: *revision_acked,
        revision_current: *revision_current,
    }
}

fn link(status: &LinkStatus, names: &Names<'_>) -> LinkBody {
    let LinkStatus {
        id,
        usable,
        known,
        inbound,
        outbound,
        fast,
        slow,
        delay,
        received,
        capacity,
        load,
        role,
    } = status;
    let capacity_bps = (capacity.0 > 0).then_some(capacity.0);
    LinkBody {
        from: id.from.0,
        from_name: name(names, id.from),
        to: id.to.0,
        to_name: name(names, id.to),
        index: id.index.value(),
        usable: *usable && *known,
        known: *known,
        inbound: state(*inbound).to_owned(),
        outbound: state(*outbound).to_owned(),
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

fn route(status: &RouteStatus, names: &Names<'_>) -> RouteBody {
    let RouteStatus { source, destination, class, candidates } = status;
    RouteBody {
        source: source.0,
        source_name: name(names, *source),
        destination: destination.0,
        destination_name: name(names, *destination),
        class: class.name().to_owned(),
        candidates: candidates.iter().map(|path| candidate(path, names)).collect(),
    }
}

fn candidate(candidate: &Candidate, names: &Names<'_>) -> CandidateBody {
    let Candidate { path, cost, delay, reason } = candidate;
    let step = |element: &overway_wire::PathElement| StepBody {
        relay: element.relay.0,
        name: name(names, element.relay),
        link: element.link.value(),
    };
    CandidateBody {
        path: path.elements().iter().map(step).collect(),
        cost: cost.0,
        delay_us: delay.0,
        reason: reason_name(*reason).to_owned(),
    }
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Best => "best",
        Reason::Disjoint => "disjoint",
        Reason::Parallel => "parallel",
        Reason::Direct => "direct",
    }
}

fn improvement_body(improvement: Improvement) -> ImprovementBody {
    let Improvement { pairs, improved, median_gain } = improvement;
    ImprovementBody { pairs, improved, median_gain_us: median_gain.0 }
}
