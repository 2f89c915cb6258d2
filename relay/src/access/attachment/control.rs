//! What an edge says on its control stream.

use std::time::{Duration, Instant};

use overway_wire::Class;
use overway_wire::access::messages::{
    AccessRelays, Health, NAME_BYTES_MAX, Nearest, OFFERS_MAX, Offer, OfferedService, Offers,
    Resolve, Resolved, from_edge,
};
use overway_wire::quality::FlowReports;

use super::super::admission::Admitted;
use super::super::listener::asked_limit;
use super::super::nearest::{self, Asker};
use super::super::services::endpoints;
use super::{Attachment, End};

/// An edge reports each ten seconds, and what is left when it moves.
const REPORTS_INTERVAL_MIN: Duration = Duration::from_secs(2);

impl Attachment {
    pub(super) fn hear(&mut self, message: from_edge::Body) -> Option<End> {
        match message {
            // A new token for the same connection; judged with the next review, however many come.
            from_edge::Body::Attach(attach) => {
                self.proof.attach = attach;
                self.is_renewed = true;
            }
            from_edge::Body::Detach(_) => return Some(End::Detached),
            from_edge::Body::Offer(Offer { services }) => self.take_offer(services),
            from_edge::Body::Health(Health { service, healthy }) => {
                let mut offers = std::mem::take(&mut self.offers);
                let named = offers.iter_mut().filter(|offer| offer.name == service);
                named.for_each(|offer| offer.unhealthy = !healthy);
                self.offer(&offers);
                self.offers = offers;
            }
            from_edge::Body::Resolve(Resolve { request, service, class }) => {
                let resolved = self.resolve(request, &service, class);
                self.say(&resolved.into());
            }
            from_edge::Body::FlowReports(reports) => self.take_reports(reports),
            from_edge::Body::Nearest(asked) => {
                let relays = self.nearest(&asked);
                self.say(&relays.into());
            }
        }
        None
    }

    /// Takes what the edge feels; what comes too soon is passed over.
    fn take_reports(&mut self, reports: FlowReports) {
        let now = Instant::now();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REPORTS_INTERVAL_MIN;
        if self.felt.is_none_or(is_due) {
            self.felt = Some(now);
            let (attachment, tenant) = (self.place.attachment, self.admitted.tenant);
            self.shared.quality.take_reports(attachment, tenant, reports, now);
        }
    }

    fn take_offer(&mut self, services: Vec<OfferedService>) {
        let (standing, other) = self.sorted_out(services);
        self.set_offers(standing, &other);
    }

    /// Takes back what the edge may offer no more, by a newer token.
    pub(super) fn withdraw_forbidden(&mut self) {
        let offers = std::mem::take(&mut self.offers);
        match self.sorted_out(offers) {
            (standing, other) if other.is_empty() => self.offers = standing,
            (standing, other) => self.set_offers(standing, &other),
        }
    }

    /// What the edge may offer, and what not.
    fn sorted_out(
        &self,
        services: Vec<OfferedService>,
    ) -> (Vec<OfferedService>, Vec<OfferedService>) {
        let few = services.len() <= OFFERS_MAX;
        let allowed = |service: &OfferedService| {
            let name = &service.name;
            let named = (1..=NAME_BYTES_MAX).contains(&name.len());
            few && named && self.admitted.claims.offers.allow(name)
        };
        services.into_iter().partition(allowed)
    }

    fn set_offers(&mut self, standing: Vec<OfferedService>, refused: &[OfferedService]) {
        let names = |services: &[OfferedService]| {
            services.iter().take(OFFERS_MAX).map(|service| service.name.clone()).collect()
        };
        let answer = Offers { standing: names(&standing), refused: names(refused) };
        self.offer(&standing);
        self.offers = standing;
        self.set_rate(Instant::now());
        self.say(&answer.into());
    }

    pub(super) fn offer(&self, services: &[OfferedService]) {
        let Admitted { tenant, edge, .. } = self.admitted;
        self.shared.directory.offered(self.place.attachment, tenant, edge, services);
    }

    fn nearest(&self, asked: &Nearest) -> AccessRelays {
        let asker = Asker {
            address: self.connection.remote_address().ip(),
            key: &self.admitted.edge.0,
            tenant: Some(self.admitted.tenant),
            measured: self.probe.rtt(Instant::now()),
        };
        nearest::message(asked.request, &self.shared.dispatcher.answer(asker, asked_limit(asked)))
    }

    fn resolve(&self, request: u32, service: &str, class: u32) -> Resolved {
        let forbidden = !self.admitted.claims.services.allow(service);
        let class = u8::try_from(class).ok().and_then(Class::from_code).unwrap_or_default();
        let offerings = match forbidden {
            true => Vec::new(),
            false => self.shared.directory.resolve(
                self.admitted.tenant,
                service,
                class,
                self.place.attachment,
            ),
        };
        Resolved { request, endpoints: endpoints(offerings), forbidden }
    }
}
