//! Where the tenant's services are, as access relays say.
//!
//! An endpoint that is not told of any more, or is unwell, while another is well, is *lost* when the next answer says so
//! too: what is open of the service to it is given up, so that it fails at once and is opened anew at the other, instead of
//! waiting for a time-out. What is open of other services to the same edge goes on; if no service is left that it offers,
//! the sessions with it end. Where there is no other endpoint, nothing would be won: it may come back, and what is open go
//! on. So what is open is what keeps a service known, beside its being asked for.
//!
//! An endpoint of which a relay says that it does not answer where frames sought it is *shunned* for some seconds: what is
//! opened goes to others first, and what is open of those services that have another that is well is given up at once. If
//! all have, the sessions with it end.
//!
//! Where an answer says that an edge is elsewhere than that has said itself, and nothing comes from it, its sessions seek it
//! there: both ends may have lost all their relays at once.
//!
//! What is opened goes to the best endpoint: a primary that is well again gets it back. Without *handback* the one in use
//! keeps it while it is well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
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
/// Questions under way at once, so that one that waits for an answer in vain holds up few others.
const ASKED_AT_ONCE: usize = 8;

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

    /// An edge offers nothing more, or does not answer while all that it offers has another endpoint that is well.
    fn gone(&self, far: FarEnd);

    /// The next far ends that do not answer where they were sought.
    fn unattached(&self) -> impl Future<Output = Vec<FarEnd>> + Send;

    /// Whether anything is open to a service.
    fn is_open(&self, service: &str) -> bool;

    /// A far end does not answer: others are tried before it for a while.
    fn shun(&self, far: FarEnd);

    /// Whether a far end did not answer lately.
    fn is_shunned(&self, far: FarEnd) -> bool;
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
        let found: Vec<Found> =
            self.attachments.resolve(service, CLASS).await?.into_iter().map(found).collect();
        let far_ends: Vec<FarEnd> = found.iter().map(|it| it.far).collect();
        self.session.seek(&far_ends);
        Ok(found)
    }

    fn lost(&self, service: &str, far: FarEnd) {
        let ended = self.session.give_up_service(far, service);
        if ended > 0 {
            let reason = "it is gone or unwell, another is well";
            tracing::warn!(service, %far, ended, reason, "what was open to an endpoint ends");
        }
    }

    fn gone(&self, far: FarEnd) {
        let reason = "the edge is gone, and another is well";
        let sessions = self.session.give_up(far, reason);
        if sessions > 0 {
            tracing::warn!(%far, sessions, reason, "what was open to an edge ends");
        }
    }

    async fn unattached(&self) -> Vec<FarEnd> {
        self.session.unattached().await
    }

    fn is_open(&self, service: &str) -> bool {
        self.session.is_open(service)
    }

    fn shun(&self, far: FarEnd) {
        self.session.shun(far);
    }

    fn is_shunned(&self, far: FarEnd) -> bool {
        self.session.is_shunned(far)
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
    /// Those that the answer before the last had as well, and the last had not; or the last that were well, if none is.
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

    /// Keeps a service at hand no longer than it is used.
    pub(crate) fn release(&self, service: &str) {
        if let Some(known) = self.known().get_mut(service) {
            known.is_fixed = false;
        }
    }

    /// How many far ends offer each service that is at hand.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.known().iter().map(|(name, known)| (name.clone(), known.found.len())).collect()
    }

    /// Asks again and again, and heeds what relays say unasked, for ever.
    pub(crate) async fn keep(&self) {
        tokio::join!(self.keep_asking(), self.keep_heeding());
    }

    async fn keep_heeding(&self) {
        loop {
            for far in self.asked.unattached().await {
                self.asked.shun(far);
                self.heed(far);
            }
        }
    }

    /// Gives up what is open to an edge that does not answer, of the services that have another endpoint which is well and
    /// answers.
    fn heed(&self, far: FarEnd) {
        let is_other = |it: &Found| it.is_well && !self.asked.is_shunned(it.far);
        let (mut lost, mut is_last) = (Vec::new(), true);
        for (name, known) in self.known().iter().filter(|(_, known)| known.has(far)) {
            match known.found.iter().any(is_other) {
                true => lost.push(name.clone()),
                false => is_last = false,
            }
        }
        if is_last && !lost.is_empty() {
            self.asked.gone(far);
        } else {
            lost.iter().for_each(|name| self.asked.lost(name, far));
        }
    }

    async fn keep_asking(&self) {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut waiting, mut under_way) = (VecDeque::new(), BTreeSet::new());
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                // Each has its turn before the first is asked for again.
                _ = tick.tick(), if waiting.is_empty() => waiting = self.due(Instant::now()).into(),
                Some(name) = asking.next() => {
                    under_way.remove(&name);
                }
            }
            while under_way.len() < ASKED_AT_ONCE
                && let Some(name) = waiting.pop_front()
            {
                if under_way.insert(name.clone()) {
                    asking.push(async move {
                        self.ask_again(&name).await;
                        name
                    });
                }
            }
        }
    }

    async fn ask_again(&self, name: &str) {
        let lost = match self.asked.ask(name).await {
            Ok(found) => self.learn(name, found),
            Err(ResolveError::Forbidden) => self.learn(name, Vec::new()),
            // What was known stays.
            Err(ResolveError::Unanswered) => Vec::new(),
        };
        for far in lost {
            let is_known = self.known().values().any(|known| known.has(far));
            match is_known {
                true => self.asked.lost(name, far),
                false => self.asked.gone(far),
            }
        }
    }

    /// The services to ask for; forgets those that nobody uses.
    fn due(&self, now: Instant) -> Vec<String> {
        let mut known = self.known();
        known.retain(|name, known| {
            let is_recent = now.saturating_duration_since(known.used) < UNUSED;
            if !is_recent && !known.is_fixed && self.asked.is_open(name) {
                known.used = now;
                return true;
            }
            is_recent || known.is_fixed
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
        known.learn(found)
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

    fn has(&self, far: FarEnd) -> bool {
        self.found.iter().any(|it| it.far.party() == far.party())
    }

    /// Puts the endpoint that is in use before others, if it is well.
    fn keep_first(&self, found: &mut [Found]) {
        let Some(first) = self.found.first() else { return };
        let same = |it: &Found| it.is_well && it.far.party() == first.far.party();
        if let Some(at) = found.iter().position(same) {
            found[..=at].rotate_right(1);
        }
    }

    /// Takes an answer; says which endpoints two answers in a row have not had as well, once another is.
    fn learn(&mut self, found: Vec<Found>) -> Vec<FarEnd> {
        let is_gone = |far: &FarEnd| !has_well(&found, *far);
        let mut lost: Vec<FarEnd> = self.missed.drain(..).filter(is_gone).collect();
        let were_well = self.found.iter().filter(|it| it.is_well).map(|it| it.far);
        let missed = were_well.filter(is_gone);
        if found.iter().any(|it| it.is_well) {
            self.missed = missed.collect();
        } else {
            lost.extend(missed);
            // Until there is another.
            self.missed = std::mem::take(&mut lost);
        }
        self.found = found;
        lost
    }
}

fn has_well(found: &[Found], far: FarEnd) -> bool {
    found.iter().any(|it| it.is_well && it.far.party() == far.party())
}

#[cfg(test)]
mod tests;
