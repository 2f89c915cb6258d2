use super::*;
use std::sync::Arc;

use overway_wire::RelayId;

/// Knows one service, and can be silenced.
#[derive(Default)]
struct Relay {
    answer: Mutex<Option<Vec<Found>>>,
    is_open: std::sync::atomic::AtomicBool,
    shunned: Mutex<Vec<FarEnd>>,
    given_up: Mutex<Vec<String>>,
    /// A service of which the question is never answered.
    silent_on: Mutex<Option<String>>,
}

impl Relay {
    fn says(&self, answer: Option<&[u16]>) {
        *self.answer.lock().unwrap() = answer.map(well);
    }
}

impl Ask for Arc<Relay> {
    async fn ask(&self, service: &str) -> Result<Vec<Found>, ResolveError> {
        if self.silent_on.lock().unwrap().as_deref() == Some(service) {
            std::future::pending::<()>().await;
        }
        let found = self.answer.lock().unwrap().clone().ok_or(ResolveError::Unanswered)?;
        Ok(if service == "web" { found } else { Vec::new() })
    }

    fn lost(&self, service: &str, far: FarEnd) {
        self.given_up.lock().unwrap().push(format!("{far} for {service}"));
    }

    fn gone(&self, far: FarEnd) {
        self.given_up.lock().unwrap().push(far.to_string());
    }

    async fn unattached(&self) -> Vec<FarEnd> {
        std::future::pending().await
    }

    fn is_open(&self, _service: &str) -> bool {
        self.is_open.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn shun(&self, far: FarEnd) {
        self.shunned.lock().unwrap().push(far);
    }

    fn is_shunned(&self, far: FarEnd) -> bool {
        self.shunned.lock().unwrap().contains(&far)
    }
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
    assert_eq!(lost(well(&[3])), [far(2)], "there is one now");
    assert_eq!(lost(well(&[3])), []);
}

impl Relay {
    fn given_up(&self) -> Vec<String> {
        std::mem::take(&mut self.given_up.lock().unwrap())
    }
}

#[tokio::test]
async fn an_endpoint_that_serves_another_service_is_given_up_for_the_one_alone() {
    let directory = directory(true, &["web", "mail"]);
    directory.learn("mail", unwell(&[1]));
    directory.learn("web", well(&[1, 2]));
    directory.learn("web", well(&[2]));
    directory.asked.says(Some(&[2]));

    directory.ask_again("web").await;

    assert_eq!(directory.asked.given_up(), ["r1 for web"]);
    directory.learn("web", well(&[1, 2]));
    directory.learn("web", well(&[2]));
    directory.learn("mail", Vec::new());
    directory.ask_again("web").await;
    assert_eq!(directory.asked.given_up(), ["r1"], "it offers nothing more");
}

#[test]
fn an_edge_that_does_not_answer_is_given_up_for_what_others_offer_too() {
    let directory = directory(true, &["web", "mail"]);
    directory.learn("web", well(&[1, 2]));
    directory.learn("mail", well(&[1]));
    directory.asked.shun(far(1));
    directory.heed(far(1));
    assert_eq!(directory.asked.given_up(), ["r1 for web"], "mail would have nobody");

    directory.learn("mail", well(&[1, 3]));
    directory.heed(far(1));
    assert_eq!(directory.asked.given_up(), ["r1"]);
    directory.asked.shun(far(2));
    directory.heed(far(2));
    directory.heed(far(9));
    assert!(directory.asked.given_up().is_empty(), "the other does not answer either");
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

#[tokio::test]
async fn a_service_to_which_something_is_open_is_not_forgotten() {
    let relay = Arc::new(Relay::default());
    let directory = Directory::new(Arc::clone(&relay), true);
    relay.says(Some(&[5]));
    directory.find("web").await.unwrap();
    let (now, open) = (Instant::now(), &relay.is_open);
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(directory.due(now + UNUSED), ["web"]);
    open.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(directory.due(now + UNUSED * 2 - ASK_EVERY), ["web"], "a while longer");
    assert!(directory.due(now + UNUSED * 2 + ASK_EVERY).is_empty());
}

#[tokio::test]
async fn a_question_that_is_not_answered_holds_up_no_other() {
    let relay = Arc::new(Relay::default());
    let directory = Directory::new(Arc::clone(&relay), true);
    assert!(directory.fix("aaa") && directory.fix("web"));
    *relay.silent_on.lock().unwrap() = Some("aaa".into());
    relay.says(Some(&[3]));

    let asked = async {
        while directory.counts()["web"] == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = directory.keep() => {}
        () = asked => {}
    }
}
