//! The mesh at a glance, from the core's.

use overway_scheduler_core::{LinkCounts, LinkStatus, Overview, RelayGlance, RelayStatus};
use overway_topology::WindowSample;
use overway_wire::control::State;

use super::{LinkBody, Names, location_body, millis, wishes};
use crate::api::{LinkCountsBody, LinkGlanceBody, LinksBody, OverviewBody, RelayGlanceBody};

impl OverviewBody {
    /// Makes the body of a mesh's overview.
    pub(crate) fn new(mesh: &str, overview: &Overview, at_unix_ms: u64) -> Self {
        let Overview { epoch, settling, relays, links, counts } = overview;
        let LinkCounts { usable, suspect, unusable, unknown, trial } = *counts;
        Self {
            at_unix_ms,
            mesh: mesh.to_owned(),
            software: crate::SOFTWARE.to_owned(),
            epoch_term: epoch.term,
            epoch_sequence: epoch.sequence,
            settling: *settling,
            relays: relays.iter().map(|(status, glance)| relay(status, *glance)).collect(),
            links: links.iter().map(link).collect(),
            link_counts: LinkCountsBody { usable, suspect, unusable, unknown, trial },
        }
    }
}

impl LinksBody {
    /// Makes the body of some links.
    pub(crate) fn new(links: &[LinkStatus], names: &Names) -> Self {
        let links: Vec<LinkBody> = links.iter().map(|link| super::link(link, names)).collect();
        Self { links }
    }
}

fn relay(status: &RelayStatus, glance: RelayGlance) -> RelayGlanceBody {
    let RelayGlance { links, usable, received, sent } = glance;
    RelayGlanceBody {
        id: status.id.0,
        name: status.name.clone(),
        region: status.region.clone(),
        provider: status.provider.clone(),
        software: status.software.clone(),
        location: status.location.map(location_body),
        registered: status.registered,
        connected: status.connected,
        draining: status.draining,
        drain: status.drain.map(|stage| wishes::stage(stage).to_owned()),
        transit: status.transit,
        links,
        links_usable: usable,
        sent_bps: sent.0,
        received_bps: received.0,
        demand_bps: status.demand.0,
        self_stalls: status.self_stalls,
        last_report_age_ms: status.last_report_age.map(millis),
        services: status.services.clone(),
    }
}

fn link(status: &LinkStatus) -> LinkGlanceBody {
    let slow = status.slow.filter(|window| window.samples > 0);
    LinkGlanceBody {
        from: status.id.from.0,
        to: status.id.to.0,
        index: status.id.index.value(),
        state: state(status).to_owned(),
        candidate: status.role == overway_wire::control::Role::Candidate,
        delay_us: status.delay.map(|delay| delay.0),
        loss_ppm: slow.map(loss_ppm),
        jitter_us: slow.map(|window| window.jitter.0),
        received_bps: status.received.0,
        load_permille: (status.capacity.0 > 0).then_some(status.load.0),
    }
}

/// How a link is, in a word. A link that its ends hear and an operator has taken out of use is down to routes.
fn state(status: &LinkStatus) -> &'static str {
    match (status.known, status.usable, status.inbound) {
        (false, _, _) => "unknown",
        (true, true, State::Suspect) => "suspect",
        (true, true, _) => "up",
        (true, false, State::Unknown) => "unknown",
        (true, false, _) => "down",
    }
}

/// Of a million packets, lost.
pub(crate) fn loss_ppm(window: WindowSample) -> u32 {
    let lost = u64::from(window.lost).saturating_mul(1_000_000);
    u32::try_from(lost.checked_div(window.samples.into()).unwrap_or(0)).unwrap_or(u32::MAX)
}
