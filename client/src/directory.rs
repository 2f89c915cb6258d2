//! Where the tenant's services are, as access relays say.
//!
//! An endpoint that is not told of any more, or is unwell, while another is well, is *lost* when the next answer says so
//! too: sessions with it are given up, so that what is open fails at once and is opened anew at the other, instead of
//! waiting for a time-out. One that serves another service well is left alone. Where there is no other, nothing would be
//! won: it may come back, and what is open go on.
//!
//! What is opened goes to the best endpoint: a primary that is well again gets it back. Without *handback* the one in use
//! keeps it while it is well.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use overway_session::{FarEnd, SessionEndpoint};
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

/// An endpoint of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) far: FarEnd,
    pub(crate) is_well: bool,
}

/// Asks access relays where a service is.
pub(crate) trait Ask: Send + Sync + 'static {
    /// Who offers it, the best first.
    fn ask(&self, service: &str) -> impl Future<Output = Result<Vec<Found>, ResolveError>> + Send;

    /// An endpoint of a service is lost, and another is well.
    fn lost(&self, service: &str, far: FarEnd);
}

/// Asks by an edge's attachments, and gives up its sessions with endpoints that are lost.
pub(crate) struct Asker {
    pub(crate) attachments: Attachments,
    pub(crate) session: SessionEndpoint,
}

impl Ask for Asker {
    async fn ask(&self, service: &str) -> Result<Vec<Found>, ResolveError> {
        let found = |Offering { edge: id, whereabouts, is_well }| Found {
            far: FarEnd::Edge { id, whereabouts: Some(whereabouts) },
            is_well,
        };
        Ok(self.attachments.resolve(service, CLASS).await?.into_iter().map(found).collect())
    }

    fn lost(&self, service: &str, far: FarEnd) {
        let reason = format!("the endpoint of {service} is gone or unwell, another is well");
        let sessions = self.session.give_up(far, &reason);
        if sessions > 0 {
            tracing::warn!(service, %far, sessions, reason, "what was open to an endpoint ends");
        }
    }
}

/// What is known.
pub(crate) struct Directory<A> {
    asked: A,
    /// Whether an endpoint that is better gets what is opened from one that is well.
    handback: bool,
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    found: Vec<Found>,
    /// Those that the answer before the last had as well, and the last had not.
    missed: Vec<FarEnd>,
    used: Instant,
    /// To be kept at hand: never forgotten.
    is_fixed: bool,
}

impl<A: Ask> Directory<A> {
    /// A directory that knows nothing yet.
    pub(crate) fn new(asked: A, handback: bool) -> Self {
        Self { asked, handback, known: Mutex::default() }
    }

    /// Keeps a service at hand from now on; false if there is no room for it.
    pub(crate) fn fix(&self, service: &str) -> bool {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX && !known.contains_key(service) {
            return false;
        }
        let new = || Known::new(Vec::new(), Instant::now(), true);
        known.entry(service.to_owned()).or_insert_with(new).is_fixed = true;
        true
    }

    /// How many far ends offer each service that is at hand.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.known().iter().map(|(name, known)| (name.clone(), known.found.len())).collect()
    }

    /// Asks again and again, for ever.
    pub(crate) async fn keep(&self) {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for name in self.due(Instant::now()) {
                let lost = match self.asked.ask(&name).await {
                    Ok(found) => self.learn(&name, found),
                    Err(ResolveError::Forbidden) => self.learn(&name, Vec::new()),
                    // What was known stays.
                    Err(ResolveError::Unanswered) => Vec::new(),
                };
                lost.into_iter().for_each(|far| self.asked.lost(&name, far));
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

    /// Takes an answer; says which endpoints are lost.
    fn learn(&self, name: &str, mut found: Vec<Found>) -> Vec<FarEnd> {
        let mut all = self.known();
        let Some(known) = all.get_mut(name) else { return Vec::new() };
        if !self.handback {
            known.keep_first(&mut found);
        }
        let lost = known.learn(found);
        let serves = |far: &FarEnd| all.values().any(|known| has_well(&known.found, *far));
        lost.into_iter().filter(|far| !serves(far)).collect()
    }

    /// What is known of a service, unless that is nothing.
    fn at_hand(&self, name: &str, now: Instant) -> Option<Vec<FarEnd>> {
        let mut known = self.known();
        let known = known.get_mut(name)?;
        known.used = now;
        (!known.found.is_empty()).then(|| known.far_ends())
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
        let entry = Known::new(asked.unwrap_or(Err(ResolveError::Unanswered))?, now, false);
        let far_ends = entry.far_ends();
        let mut known = self.known();
        if known.len() < KNOWN_MAX && !far_ends.is_empty() && !known.contains_key(service) {
            known.insert(service.to_owned(), entry);
        }
        Ok(far_ends)
    }

    /// Every entry is whole at any time.
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(found: Vec<Found>, used: Instant, is_fixed: bool) -> Self {
        Self { found, missed: Vec::new(), used, is_fixed }
    }

    fn far_ends(&self) -> Vec<FarEnd> {
        self.found.iter().map(|found| found.far).collect()
    }

    /// Puts the endpoint that is in use before others, if it is well.
    fn keep_first(&self, found: &mut [Found]) {
        let Some(first) = self.found.first() else { return };
        let same = |it: &Found| it.is_well && it.far.party() == first.far.party();
        if let Some(at) = found.iter().position(same) {
            found[..=at].rotate_right(1);
        }
    }

    /// Takes an answer; says which endpoints two answers in a row have not had as well, while another is.
    fn learn(&mut self, found: Vec<Found>) -> Vec<FarEnd> {
        let is_gone = |far: &FarEnd| !has_well(&found, *far);
        let lost: Vec<FarEnd> = self.missed.drain(..).filter(is_gone).collect();
        let were_well = self.found.iter().filter(|it| it.is_well).map(|it| it.far);
        self.missed = were_well.filter(is_gone).collect();
        let has_other = found.iter().any(|it| it.is_well);
        self.found = found;
        if has_other { lost } else { Vec::new() }
    }
}

fn has_well(found: &[Found], far: FarEnd) -> bool {
    found.iter().any(|it| it.is_well && it.far.party() == far.party())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use overway_wire::RelayId;

    /// Knows one service, and can be silenced.
    #[derive(Default)]
    struct Relay {
        answer: Mutex<Option<Vec<Found>>>,
    }

    impl Relay {
        fn says(&self, answer: Option<&[u16]>) {
            *self.answer.lock().unwrap() = answer.map(well);
        }
    }

    impl Ask for Arc<Relay> {
        async fn ask(&self, service: &str) -> Result<Vec<Found>, ResolveError> {
            let found = self.answer.lock().unwrap().clone().ok_or(ResolveError::Unanswered)?;
            Ok(if service == "web" { found } else { Vec::new() })
        }

        fn lost(&self, _service: &str, _far: FarEnd) {}
    }

    fn far(id: u16) -> FarEnd {
        RelayId(id).into()
    }

    fn well(ids: &[u16]) -> Vec<Found> {
        ids.iter().map(|&id| Found { far: far(id), is_well: true }).collect()
    }

    fn unwell(ids: &[u16]) -> Vec<Found> {
        ids.iter().map(|&id| Found { far: far(id), is_well: false }).collect()
    }

    fn directory(handback: bool, services: &[&str]) -> Directory<Arc<Relay>> {
        let directory = Directory::new(Arc::default(), handback);
        assert!(services.iter().all(|service| directory.fix(service)));
        directory
    }

    #[test]
    fn an_endpoint_is_lost_when_two_answers_miss_it_and_another_is_well() {
        let directory = directory(true, &["web"]);
        let lost = |found| directory.learn("web", found);
        assert_eq!(lost(well(&[1, 2])), []);
        assert_eq!(lost(well(&[2])), [], "it may be there again at once");
        assert_eq!(lost(well(&[1, 2])), []);

        let sick = || [well(&[2]), unwell(&[1])].concat();
        assert_eq!(lost(sick()), []);
        assert_eq!(lost(sick()), [far(1)]);
        assert_eq!(lost(sick()), [], "once");
        assert_eq!(lost(Vec::new()), []);
        assert_eq!(lost(Vec::new()), [], "there is no other");
    }

    #[test]
    fn an_endpoint_that_serves_another_service_well_is_left_alone() {
        let directory = directory(true, &["web", "mail"]);
        directory.learn("mail", well(&[1]));
        directory.learn("web", well(&[1, 2]));
        directory.learn("web", well(&[2]));

        assert_eq!(directory.learn("web", well(&[2])), []);
    }

    #[tokio::test]
    async fn the_primary_gets_what_is_opened_back_unless_there_is_no_handback() {
        for (handback, expected) in [(true, [1, 2]), (false, [2, 1])] {
            let directory = directory(handback, &["web"]);
            directory.learn("web", well(&[1, 2]));
            directory.learn("web", well(&[2]));
            directory.learn("web", well(&[1, 2]));
            assert_eq!(directory.find("web").await, Ok(expected.map(far).to_vec()));

            directory.learn("web", [well(&[1]), unwell(&[2])].concat());
            assert_eq!(directory.find("web").await, Ok(vec![far(1), far(2)]));
        }
    }

    #[tokio::test]
    async fn what_was_known_last_counts_while_nobody_answers() {
        let relay = Arc::new(Relay::default());
        let directory = Directory::new(Arc::clone(&relay), true);
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
        let directory = Directory::new(Arc::clone(&relay), true);
        relay.says(Some(&[5]));
        assert_eq!(directory.find("web").await, Ok(vec![far(5)]));
        assert_eq!(directory.find("wib").await, Ok(Vec::new()));
        assert_eq!(directory.due(Instant::now()), ["web"]);
        assert!(directory.due(Instant::now() + UNUSED).is_empty());
    }
}
