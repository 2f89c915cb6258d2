//! The scheduler's knowledge for people.

use std::collections::BTreeSet;
use std::time::Instant;

use overway_topology::Delays;
use overway_wire::control::{Role, State};
use overway_wire::{Class, LinkId, RelayId};

use super::{Phase, Scheduler};
use crate::links::{Link, load};
use crate::session::Relay;
use crate::status::{Improvement, LinkStatus, RelayStatus, RouteStatus, Status};

impl Scheduler {
    /// Everything that is known at this moment; takes time in proportion to links and routes.
    pub fn status(&self, now: Instant) -> Status {
        let delays = Delays::fit(self.mesh.topology());
        let heard = self.heard(now);
        let links = self.links.planned().iter();
        let routes = self.mesh.routes();
        let realtime = routes.iter().filter(|(key, _)| key.class == Class::Realtime);
        Status {
            epoch: self.epoch,
            settling: self.phase != Phase::Planning,
            relays: self.relays.iter().map(|(&id, relay)| relay_status(id, relay, now)).collect(),
            links: links.map(|(&id, link)| self.link_status(id, link, &delays, &heard)).collect(),
            improvement: Improvement::of(realtime.map(|(_, candidates)| candidates.as_slice())),
            routes: routes
                .iter()
                .map(|(key, candidates)| RouteStatus {
                    source: key.source,
                    destination: key.destination,
                    class: key.class,
                    candidates: candidates.clone(),
                })
                .collect(),
        }
    }

    /// Relays whose reports are of now.
    fn heard(&self, now: Instant) -> BTreeSet<RelayId> {
        let fresh = |relay: &Relay| relay.fresh(now, self.config.report_stale);
        self.relays.iter().filter(|(_, relay)| fresh(relay)).map(|(&id, _)| id).collect()
    }

    fn link_status(
        &self,
        id: LinkId,
        link: &Link,
        delays: &Delays,
        heard: &BTreeSet<RelayId>,
    ) -> LinkStatus {
        let receiver = self.links.observed(id);
        let sender = self.links.observed(id.reversed());
        let received = receiver.map(|receiver| receiver.received).unwrap_or_default();
        let candidate = self.mesh.is_candidate(id);
        LinkStatus {
            id,
            usable: link.usable(),
            known: heard.contains(&id.from) || heard.contains(&id.to),
            inbound: receiver.map_or(State::Unknown, |receiver| receiver.inbound),
            outbound: sender.map_or(State::Unknown, |sender| sender.outbound),
            fast: receiver.and_then(|receiver| receiver.fast),
            slow: receiver.and_then(|receiver| receiver.slow),
            delay: delays.link(id).map(|delay| delay.fast),
            received,
            capacity: link.capacity,
            load: load(received, link.capacity),
            role: if candidate { Role::Candidate } else { Role::Idle },
        }
    }
}

fn relay_status(id: RelayId, relay: &Relay, now: Instant) -> RelayStatus {
    let registration = relay.registration.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let reported = relay.session.and_then(|session| session.reported);
    RelayStatus {
        id,
        name: relay.name.clone(),
        region: text(registration.map(|registration| &registration.region)),
        provider: text(registration.map(|registration| &registration.provider)),
        software: text(registration.map(|registration| &registration.software)),
        addresses: registration
            .map(|registration| registration.addresses.clone())
            .unwrap_or_default(),
        registered: registration.is_some(),
        connected: relay.session.is_some(),
        draining: relay.draining,
        last_report_age: reported.map(|reported| now.saturating_duration_since(reported)),
        self_stalls: relay.self_stalls,
        services: registration
            .map(|registration| registration.services.iter().cloned().collect())
            .unwrap_or_default(),
        revision_acked: relay.push.acked(),
        revision_current: relay.push.current(),
    }
}
