//! Where the tenant's services are, as access relays say.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_gateway::Resolver;
use overway_session::FarEnd;
use overway_wire::{Class, PolicyId};
use tokio::time::timeout;

/// How often what is in use is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// A service that nobody asked for in so long is forgotten.
const UNUSED: Duration = Duration::from_secs(60);
/// How long an answer is waited for when nothing is known yet.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Services that are remembered; what comes beyond is asked for each time.
const KNOWN_MAX: usize = 1_024;

/// Asks access relays where a service is.
pub(crate) trait Ask: Send + Sync + 'static {
    /// Who offers it, the best first; `None` if no relay answers.
    fn ask(
        &self,
        service: String,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<FarEnd>>> + Send + '_>>;
}

/// What is known.
pub(crate) struct Directory {
    asked: Arc<dyn Ask>,
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    far_ends: Vec<FarEnd>,
    used: Instant,
    /// Named in the configuration: never forgotten.
    is_fixed: bool,
}

impl Directory {
    /// A directory that keeps these services at hand from the start.
    pub(crate) fn new(asked: Arc<dyn Ask>, services: impl IntoIterator<Item = String>) -> Self {
        let used = Instant::now();
        let fixed = |name| (name, Known { far_ends: Vec::new(), used, is_fixed: true });
        Self { asked, known: Mutex::new(services.into_iter().map(fixed).collect()) }
    }

    /// Services of the configuration that nobody is known to offer.
    pub(crate) fn missing(&self) -> Vec<String> {
        let known = self.known();
        let missing = known.iter().filter(|(_, known)| known.is_fixed && known.far_ends.is_empty());
        missing.map(|(name, _)| name.clone()).collect()
    }

    /// How many far ends offer each service that is at hand.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.known().iter().map(|(name, known)| (name.clone(), known.far_ends.len())).collect()
    }

    /// Asks again and again, for ever.
    pub(crate) async fn keep(&self) {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for name in self.due(Instant::now()) {
                // Without an answer what was known stays.
                if let Some(far_ends) = self.asked.ask(name.clone()).await {
                    self.learn(&name, far_ends);
                }
            }
        }
    }

    /// The services to ask for; forgets those that nobody uses.
    fn due(&self, now: Instant) -> Vec<String> {
        let mut known = self.known();
        known.retain(|_, known| {
            known.is_fixed || now.saturating_duration_since(known.used) < UNUSED
        });
        known.keys().cloned().collect()
    }

    fn learn(&self, name: &str, far_ends: Vec<FarEnd>) {
        if let Some(known) = self.known().get_mut(name) {
            known.far_ends = far_ends;
        }
    }

    /// What is known of a service, unless that is nothing.
    fn at_hand(&self, name: &str, now: Instant) -> Option<Vec<FarEnd>> {
        let mut known = self.known();
        let known = known.get_mut(name)?;
        known.used = now;
        (!known.far_ends.is_empty()).then(|| known.far_ends.clone())
    }

    async fn find(&self, service: &str) -> Vec<FarEnd> {
        let now = Instant::now();
        if let Some(far_ends) = self.at_hand(service, now) {
            return far_ends;
        }
        let asked = timeout(ANSWER_MAX, self.asked.ask(service.to_owned()));
        let Ok(Some(far_ends)) = asked.await else { return Vec::new() };
        let mut known = self.known();
        if known.len() < KNOWN_MAX && !far_ends.is_empty() && !known.contains_key(service) {
            let entry = Known { far_ends: far_ends.clone(), used: now, is_fixed: false };
            known.insert(service.to_owned(), entry);
        }
        far_ends
    }

    /// Every entry is whole at any time.
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Directory {
    fn far_ends<'a>(
        &'a self,
        service: &'a str,
        _policy: PolicyId,
    ) -> Pin<Box<dyn Future<Output = Vec<FarEnd>> + Send + 'a>> {
        Box::pin(self.find(service))
    }

    /// An edge's traffic is under its tenant's policy, which relays write: no other is known here.
    fn policy(&self, _name: &str) -> Option<PolicyId> {
        None
    }
}

/// The class in which paths are compared when a service's endpoints are put in order.
pub(crate) const CLASS: Class = Class::Interactive;

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::RelayId;

    /// Knows one service, and can be silenced.
    #[derive(Default)]
    struct Relay {
        answer: Mutex<Option<Vec<FarEnd>>>,
    }

    impl Relay {
        fn says(&self, answer: Option<&[u16]>) {
            let far_ends = answer.map(|ids| ids.iter().map(|&id| RelayId(id).into()).collect());
            *self.answer.lock().unwrap() = far_ends;
        }
    }

    impl Ask for Relay {
        fn ask(
            &self,
            service: String,
        ) -> Pin<Box<dyn Future<Output = Option<Vec<FarEnd>>> + Send + '_>> {
            let answer = self.answer.lock().unwrap().clone();
            let known = answer.map(|far_ends| if service == "web" { far_ends } else { Vec::new() });
            Box::pin(std::future::ready(known))
        }
    }

    fn far(id: u16) -> FarEnd {
        RelayId(id).into()
    }

    #[tokio::test]
    async fn what_was_known_last_counts_while_nobody_answers() {
        let relay = Arc::new(Relay::default());
        let directory = Directory::new(Arc::clone(&relay) as _, ["web".to_owned()]);
        assert_eq!(directory.find("web").await, []);
        assert_eq!(directory.missing(), ["web"]);

        relay.says(Some(&[3, 4]));
        directory.learn("web", relay.ask("web".into()).await.unwrap());
        relay.says(None);
        assert_eq!(directory.find("web").await, [far(3), far(4)]);
        assert!(directory.missing().is_empty());
    }

    #[tokio::test]
    async fn a_service_of_no_configuration_is_asked_for_and_forgotten() {
        let relay = Arc::new(Relay::default());
        let directory = Directory::new(Arc::clone(&relay) as _, []);
        relay.says(Some(&[5]));
        assert_eq!(directory.find("web").await, [far(5)]);
        assert_eq!(directory.find("wib").await, []);
        assert_eq!(directory.due(Instant::now()), ["web"]);
        assert!(directory.due(Instant::now() + UNUSED).is_empty());
    }
}
