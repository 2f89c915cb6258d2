//! Offering services, and saying when one is not well.

use std::sync::Arc;

use overway_client::Attachments;
use overway_gateway::{GatewayConfig, Protocol, ServiceTarget};
use overway_wire::access::messages::OfferedService;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::check::Verdict;
use crate::config::{Check, OfferConfig};

/// What is offered, and whether each is well, in the order of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Offers {
    offers: Arc<[(OfferConfig, Option<ServiceTarget>)]>,
    well: watch::Sender<Vec<bool>>,
}

impl Offers {
    /// A service that was offered before begins as well as it was.
    pub(crate) fn new(
        offers: &[OfferConfig],
        gateway: &GatewayConfig,
        before: Option<&Self>,
    ) -> Self {
        let target = |offer: &OfferConfig| {
            let mut services = gateway.services.iter();
            let tcp = services
                .find(|service| service.name == offer.service && service.protocol == Protocol::Tcp);
            tcp.map(|service| service.target.clone())
        };
        let offers: Arc<[_]> = offers.iter().map(|offer| (offer.clone(), target(offer))).collect();
        let before = before.map(Self::health).unwrap_or_default();
        let was_well = |name: &str| before.iter().all(|(other, well)| other != name || *well);
        let well = offers.iter().map(|(offer, _)| was_well(&offer.service)).collect();
        Self { well: watch::Sender::new(well), offers }
    }

    /// Whether the other offers the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.offers == other.offers
    }

    /// Each service's name, and whether it is well.
    pub(crate) fn health(&self) -> Vec<(String, bool)> {
        let well = self.well.borrow();
        let named = self.offers.iter().zip(&*well);
        named.map(|((offer, _), &well)| (offer.service.clone(), well)).collect()
    }

    /// Offers, checks, and tells what changes, for ever.
    pub(crate) async fn keep(self, attachments: Attachments) {
        let mut checks = tokio::task::JoinSet::new();
        for at in 0..self.offers.len() {
            let (offer, target) = &self.offers[at];
            if let Some(target) = target.clone().filter(|_| offer.check != Check::None) {
                checks.spawn(self.clone().check(at, target));
            }
        }
        let mut well = self.well.subscribe();
        loop {
            attachments.offer(self.offered(&well.borrow_and_update()));
            // Fails only when `self` is gone.
            if well.changed().await.is_err() {
                return;
            }
        }
    }

    fn offered(&self, well: &[bool]) -> Vec<OfferedService> {
        let offered = |((OfferConfig { service, priority, weight, .. }, _), &well): (
            &(OfferConfig, Option<ServiceTarget>),
            &bool,
        )| OfferedService {
            name: service.clone(),
            priority: *priority,
            weight: *weight,
            unhealthy: !well,
        };
        self.offers.iter().zip(well).map(offered).collect()
    }

    async fn check(self, at: usize, target: ServiceTarget) {
        let (OfferConfig { service, check, interval, .. }, _) = &self.offers[at];
        let mut verdict = Verdict::of(self.well.borrow()[at]);
        let mut tick = tokio::time::interval(*interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let is_well = verdict.note(check.try_once(&target).await);
            let changed = self.well.send_if_modified(|well| {
                let changed = well[at] != is_well;
                well[at] = is_well;
                changed
            });
            match (changed, is_well) {
                (true, true) => tracing::info!(service, "the service is well again"),
                (true, false) => {
                    tracing::warn!(service, "the service fails its checks; others are preferred");
                }
                (false, _) => {}
            }
        }
    }
}
