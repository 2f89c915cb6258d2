//! Where the tenant's services are, as access relays say.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_session::FarEnd;
use overway_wire::Class;
use tokio::time::timeout;

use crate::Attachments;
use crate::services::{Offering, ResolveError};

/// How often what is in use is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// A service that nobody asked for in so long is forgotten.
const UNUSED: Duration = Duration::from_secs(60);
/// How long an answer is waited for when nothing is known yet.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Services that are remembered; what comes beyond is asked for each time.
const KNOWN_MAX: usize = 1_024;

/// The class in which paths are compared when a service's endpoints are put in order.
const CLASS: Class = Class::Interactive;

/// Asks access relays where a service is.
pub(crate) trait Ask: Send + Sync + 'static {
    /// Who offers it, the best first.
    fn ask(&self, service: &str) -> impl Future<Output = Result<Vec<FarEnd>, ResolveError>> + Send;
}

impl Ask for Attachments {
    async fn ask(&self, service: &str) -> Result<Vec<FarEnd>, ResolveError> {
        let far = |Offering { edge: id, whereabouts }| FarEnd::Edge {
            id,
            whereabouts: Some(whereabouts),
        };
        Ok(self.resolve(service, CLASS).await?.into_iter().map(far).collect())
    }
}

/// What is known.
pub(crate) struct Directory<A> {
    asked: A,
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    far_ends: Vec<FarEnd>,
    used: Instant,
    /// To be kept at hand: never forgotten.
    is_fixed: bool,
}

impl<A: Ask> Directory<A> {
    /// A directory that knows nothing yet.
    pub(crate) fn new(asked: A) -> Self {
        Self { asked, known: Mutex::default() }
    }

    /// Keeps a service at hand from now on; false if there is no room for it.
    pub(crate) fn fix(&self, service: &str) -> bool {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX && !known.contains_key(service) {
            return false;
        }
        let new = || Known { far_ends: Vec::new(), used: Instant::now(), is_fixed: true };
        known.entry(service.to_owned()).or_insert_with(new).is_fixed = true;
        true
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
                match self.asked.ask(&name).await {
                    Ok(far_ends) => self.learn(&name, far_ends),
                    Err(ResolveError::Forbidden) => self.learn(&name, Vec::new()),
                    // What was known stays.
                    Err(ResolveError::Unanswered) => {}
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

    /// Who offers a service, the best first.
    ///
    /// # Errors
    /// Nothing is known, and no relay answers or the edge may not use it.
    pub(crate) async fn find(&self, service: &str) -> Result<Vec<FarEnd>, ResolveError> {
        let now = Instant::now();
        if let Some(far_ends) = self.at_hand(service, now) {
            return Ok(far_ends);
        }
        let asked = timeout(ANSWER_MAX, self.asked.ask(service)).await;
        let far_ends = asked.unwrap_or(Err(ResolveError::Unanswered))?;
        let mut known = self.known();
        if known.len() < KNOWN_MAX && !far_ends.is_empty() && !known.contains_key(service) {
            let entry = Known { far_ends: far_ends.clone(), used: now, is_fixed: false };
            known.insert(service.to_owned(), entry);
        }
        Ok(far_ends)
    }

    /// Every entry is whole at any time.
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

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

    impl Ask for Arc<Relay> {
        async fn ask(&self, service: &str) -> Result<Vec<FarEnd>, ResolveError> {
            let far_ends = self.answer.lock().unwrap().clone().ok_or(ResolveError::Unanswered)?;
            Ok(if service == "web" { far_ends } else { Vec::new() })
        }
    }

    fn far(id: u16) -> FarEnd {
        RelayId(id).into()
    }

    #[tokio::test]
    async fn what_was_known_last_counts_while_nobody_answers() {
        let relay = Arc::new(Relay::default());
        let directory = Directory::new(Arc::clone(&relay));
        assert!(directory.fix("web"));
        assert_eq!(directory.find("web").await, Err(ResolveError::Unanswered));
        assert_eq!(directory.counts()["web"], 0);

        relay.says(Some(&[3, 4]));
        directory.learn("web", relay.ask("web").await.unwrap());
        relay.says(None);
        assert_eq!(directory.find("web").await, Ok(vec![far(3), far(4)]));
        assert_eq!(directory.counts()["web"], 2);
    }

    #[tokio::test]
    async fn a_service_of_no_configuration_is_asked_for_and_forgotten() {
        let relay = Arc::new(Relay::default());
        let directory = Directory::new(Arc::clone(&relay));
        relay.says(Some(&[5]));
        assert_eq!(directory.find("web").await, Ok(vec![far(5)]));
        assert_eq!(directory.find("wib").await, Ok(Vec::new()));
        assert_eq!(directory.due(Instant::now()), ["web"]);
        assert!(directory.due(Instant::now() + UNUSED).is_empty());
    }
}
