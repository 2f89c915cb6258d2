//! What the edge offers, and questions where services are.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use overway_tenant::EdgeId;
use overway_wire::access::messages::{Endpoint, Offer, OfferedService, Resolve, Resolved};
use overway_wire::quality::FlowReports;
use overway_wire::{Address, AttachmentId, Class, RelayId, Whereabouts};
use tokio::sync::{mpsc, oneshot, watch};

use crate::uplink::LINES;

/// How long an answer is waited for at one relay.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long one relay is asked alone; then the other is asked beside it.
const PATIENCE: Duration = Duration::from_millis(400);
/// Questions that wait to be asked.
const WAITING_MAX: usize = 64;
/// Reports that wait for a relay: of a minute without one. Further ones are dropped.
const REPORTS_MAX: usize = 6;

/// An edge that offers a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offering {
    /// Who it is.
    pub edge: EdgeId,
    /// Where it is attached.
    pub whereabouts: Whereabouts,
    /// Whether it is well; those that are come first.
    pub is_well: bool,
}

/// Why it is not known where a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No relay answered.
    #[error("no access relay answered")]
    Unanswered,
    /// The edge may not use it.
    #[error("the token does not allow to use the service")]
    Forbidden,
}

/// A question, and who waits for its answer.
pub(crate) struct Question {
    pub(crate) resolve: Resolve,
    answer: oneshot::Sender<Resolved>,
}

impl Question {
    pub(crate) fn answer(self, resolved: Resolved) {
        // An asker that has gone away needs no answer.
        let _ = self.answer.send(resolved);
    }
}

/// What passes between the edge's programs and its attachments.
pub(crate) struct Services {
    offers: watch::Sender<Offer>,
    has_offered: AtomicBool,
    requests: AtomicU32,
    /// By place.
    asking: [mpsc::Sender<Question>; LINES],
    asked: [Mutex<mpsc::Receiver<Question>>; LINES],
    /// What is felt, by place.
    telling: [mpsc::Sender<FlowReports>; LINES],
    told: [Mutex<mpsc::Receiver<FlowReports>>; LINES],
}

impl Services {
    pub(crate) fn new() -> Self {
        let channels: [_; LINES] = std::array::from_fn(|_| mpsc::channel(WAITING_MAX));
        let [(first, first_asked), (second, second_asked)] = channels;
        let reports: [_; LINES] = std::array::from_fn(|_| mpsc::channel(REPORTS_MAX));
        let [(telling_first, told_first), (telling_second, told_second)] = reports;
        Self {
            offers: watch::Sender::new(Offer::default()),
            has_offered: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            asking: [first, second],
            asked: [Mutex::new(first_asked), Mutex::new(second_asked)],
            telling: [telling_first, telling_second],
            told: [Mutex::new(told_first), Mutex::new(told_second)],
        }
    }

    pub(crate) fn offer(&self, services: Vec<OfferedService>) {
        if !services.is_empty() {
            self.has_offered.store(true, Ordering::Relaxed);
        }
        self.offers.send_replace(Offer { services });
    }

    pub(crate) fn offers(&self) -> watch::Receiver<Offer> {
        self.offers.subscribe()
    }

    /// Whether anything was ever offered, hence an empty offer means something.
    pub(crate) fn has_offered(&self) -> bool {
        self.has_offered.load(Ordering::Relaxed)
    }

    pub(crate) fn is_offering(&self) -> bool {
        !self.offers.borrow().services.is_empty()
    }

    /// Asks the relay of `first`, and that of the other place beside it if that does not answer soon: one that has died
    /// without a word is not known to have for as long as an idle attachment's heartbeats take.
    pub(crate) async fn resolve(
        &self,
        service: &str,
        class: Class,
        first: usize,
    ) -> Result<Vec<Offering>, ResolveError> {
        let mut nearer = pin!(self.ask(first, service, class));
        let other = self.ask(1 - first, service, class);
        let answered = match tokio::time::timeout(PATIENCE, &mut nearer).await {
            Ok(Some(resolved)) => Some(resolved),
            Ok(None) => other.await,
            Err(_elapsed) => match select(nearer, pin!(other)).await {
                Either::Left((Some(resolved), _)) | Either::Right((Some(resolved), _)) => {
                    Some(resolved)
                }
                Either::Left((None, other)) => other.await,
                Either::Right((None, nearer)) => nearer.await,
            },
        };
        match answered {
            None => Err(ResolveError::Unanswered),
            Some(resolved) if resolved.forbidden => Err(ResolveError::Forbidden),
            Some(resolved) => Ok(resolved.endpoints.iter().filter_map(offering).collect()),
        }
    }

    /// The answer of one place's relay, if there is one in time.
    async fn ask(&self, place: usize, service: &str, class: Class) -> Option<Resolved> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let class = class.code().into();
        let resolve = Resolve { request, service: service.to_owned(), class };
        let (answer, answered) = oneshot::channel();
        self.asking[place].try_send(Question { resolve, answer }).ok()?;
        tokio::time::timeout(ANSWER_MAX, answered).await.ok()?.ok()
    }

    /// Has the relay of a place told what is felt; false if too much waits for it already.
    pub(crate) fn tell(&self, place: usize, reports: FlowReports) -> bool {
        self.telling[place].try_send(reports).is_ok()
    }

    /// What is next to be told to a place's relay. Safe to cancel.
    pub(crate) async fn next_reports(&self, place: usize) -> FlowReports {
        let lock = || self.told[place].lock().unwrap_or_else(PoisonError::into_inner);
        std::future::poll_fn(|cx| match lock().poll_recv(cx) {
            Poll::Ready(Some(reports)) => Poll::Ready(reports),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The next question for a place's relay. Safe to cancel. Questions whose asker has gone are passed over.
    pub(crate) async fn next_question(&self, place: usize) -> Question {
        let lock = || self.asked[place].lock().unwrap_or_else(PoisonError::into_inner);
        std::future::poll_fn(|cx| {
            let mut asked = lock();
            loop {
                match asked.poll_recv(cx) {
                    Poll::Ready(Some(question)) if question.answer.is_closed() => {}
                    Poll::Ready(Some(question)) => return Poll::Ready(question),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

/// An endpoint as a relay tells of it, if it makes sense.
fn offering(endpoint: &Endpoint) -> Option<Offering> {
    let edge = EdgeId(endpoint.edge.as_slice().try_into().ok()?);
    let second = (endpoint.second != 0).then(|| address(endpoint.second));
    let whereabouts = Whereabouts { first: address(endpoint.first), second };
    Some(Offering { edge, whereabouts, is_well: !endpoint.unhealthy })
}

fn address(packed: u32) -> Address {
    let [high, low, attachment_high, attachment_low] = packed.to_be_bytes();
    let relay = RelayId(u16::from_be_bytes([high, low]));
    Address::new(relay, AttachmentId(u16::from_be_bytes([attachment_high, attachment_low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_goes_to_the_first_relay_and_its_answer_to_the_asker() {
        let services = Services::new();
        let asking = services.resolve("chat", Class::Bulk, 1);
        let answering = async {
            let question = services.next_question(1).await;
            assert_eq!((question.resolve.service.as_str(), question.resolve.class), ("chat", 2));
            let good = Endpoint {
                edge: vec![3; 32],
                first: 0x0001_0002,
                second: 0x0004_0005,
                partner: true,
                unhealthy: true,
            };
            let short = Endpoint { edge: vec![3; 31], ..good.clone() };
            let request = question.resolve.request;
            let endpoints = vec![short, good];
            question.answer(Resolved { request, endpoints, forbidden: false });
        };

        let (found, ()) = tokio::join!(asking, answering);

        let at = |relay, attachment| Address::new(RelayId(relay), AttachmentId(attachment));
        let whereabouts = Whereabouts { first: at(1, 2), second: Some(at(4, 5)) };
        let offering = Offering { edge: EdgeId([3; 32]), whereabouts, is_well: false };
        assert_eq!(found, Ok(vec![offering]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_does_not_answer_is_not_waited_for_before_the_other_is_asked() {
        let services = Services::new();
        let start = tokio::time::Instant::now();
        let asking = services.resolve("chat", Class::Bulk, 1);
        let answering = async {
            let _unanswered = services.next_question(1).await;
            services.next_question(0).await.answer(Resolved::default());
            std::future::pending::<()>().await;
        };

        let found = tokio::select! {
            found = asking => found,
            () = answering => panic!("it waits"),
        };

        assert_eq!((found, start.elapsed()), (Ok(Vec::new()), PATIENCE));
    }

    #[tokio::test]
    async fn what_may_not_be_used_is_said_and_where_nobody_answers_too() {
        let services = Services::new();
        let asking = services.resolve("chat", Class::Bulk, 0);
        let answering = async {
            let question = services.next_question(0).await;
            question.answer(Resolved { forbidden: true, ..Resolved::default() });
        };
        assert_eq!(tokio::join!(asking, answering).0, Err(ResolveError::Forbidden));

        tokio::time::pause();
        let unanswered = services.resolve("chat", Class::Bulk, 0).await;
        assert_eq!(unanswered, Err(ResolveError::Unanswered));
    }
}
