//! Which of a service's far ends is asked, in which order, for how long.
//!
//! The next far end is asked beside one that does not answer when the patience with that one has run out, or somebody
//! else says that it does not answer. Patience is long for a far end with which there is no session yet. Where one stands,
//! the far end's QUIC acknowledges what is asked within a round trip, however slow the service is: longer silence says
//! that it is gone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::far::{FarEnd, Party};
use crate::hedge::first_of;
use crate::open::OpenError;

/// Far ends that are tried for one connection. With more, a client would wait longer than it is likely to.
const TRIES_MAX: usize = 3;
/// How long a far end is waited for that is dialled, or that is heard, before the next is asked beside it: a round trip of
/// the session's handshake and one of the request fit even around the world, and a client that waits for nobody hardly
/// feels it.
const PATIENCE: Duration = Duration::from_millis(400);
/// Beyond a round trip and a quarter, for the last half of which nothing is heard: an acknowledgement may be 25 ms late,
/// and what a hop lost be recovered.
const SLACK: Duration = Duration::from_millis(75);
/// The least that a silent far end is waited for, where round trips are short: a process may sleep that long.
const SILENT_MIN: Duration = Duration::from_millis(100);
/// A far end that did not answer in time is asked last for this long.
const SHUNNED_FOR: Duration = Duration::from_secs(5);
/// Far ends that are remembered for that; the oldest is forgotten.
const SHUNNED_MAX: usize = 256;

/// A standing session with a far end, as far as it tells of life there.
pub(crate) trait Pulse {
    /// Its round trip.
    fn rtt(&self) -> Duration;

    /// Packets that have come from there.
    fn heard(&self) -> u64;
}

/// Tries the far ends of services, and remembers those that did not answer lately.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    shunned: Mutex<VecDeque<(Party, Instant)>>,
    /// There is one more.
    noted: Notify,
}

impl Candidates {
    /// What `open` gives for the first far end at which it succeeds. They are tried in their order, three at most, but
    /// those last that did not answer lately. Each failure is told. `None`: all failed, or there was none. `open` must send
    /// nothing that another may not be sent too.
    pub(crate) async fn first<T, F, S: Pulse>(
        &self,
        mut far_ends: Vec<FarEnd>,
        pulse: impl Fn(FarEnd) -> Option<S>,
        open: impl Fn(FarEnd) -> F,
        failed: impl FnMut(FarEnd, OpenError),
    ) -> Option<T>
    where
        F: Future<Output = Result<T, OpenError>>,
    {
        self.put_last(&mut far_ends, Instant::now());
        far_ends.truncate(TRIES_MAX);
        let patience = |far: FarEnd| self.patience(far.party(), pulse(far));
        let (won, opened) = first_of(far_ends, patience, open, failed).await?;
        self.forget(won.party());
        Some(opened)
    }

    /// A far end does not answer: it is asked last for five seconds, and whoever waits for it now asks another beside it.
    pub(crate) fn shun(&self, far: Party, now: Instant) {
        let mut shunned = self.lock();
        shunned.retain(|(party, _)| *party != far);
        if shunned.len() == SHUNNED_MAX {
            shunned.pop_front();
        }
        shunned.push_back((far, now + SHUNNED_FOR));
        drop(shunned);
        self.noted.notify_waiters();
    }

    /// Whether a far end did not answer lately.
    pub(crate) fn is_shunned(&self, far: Party, now: Instant) -> bool {
        self.until(far).is_some_and(|until| until > now)
    }

    /// Ends when the next is to be asked beside a far end that is asked now.
    async fn patience(&self, far: Party, pulse: Option<impl Pulse>) {
        let (start, before) = (Instant::now(), self.until(far));
        tokio::select! {
            () = run_out(start, pulse) => self.shun(far, Instant::now()),
            () = self.shunned_since(far, before) => {}
        }
    }

    async fn shunned_since(&self, far: Party, before: Option<Instant>) {
        loop {
            let noted = self.noted.notified();
            if self.until(far) > before {
                return;
            }
            noted.await;
        }
    }

    fn forget(&self, far: Party) {
        self.lock().retain(|(party, _)| *party != far);
    }

    fn until(&self, far: Party) -> Option<Instant> {
        self.lock().iter().find(|(party, _)| *party == far).map(|(_, until)| *until)
    }

    /// Keeps the order of the others, and of those that are put behind them.
    fn put_last(&self, far_ends: &mut [FarEnd], now: Instant) {
        let mut shunned = self.lock();
        shunned.retain(|(_, until)| *until > now);
        if !shunned.is_empty() {
            far_ends.sort_by_key(|far| shunned.iter().any(|(party, _)| *party == far.party()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Party, Instant)>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run_out(start: Instant, pulse: Option<impl Pulse>) {
    if let Some(pulse) = pulse {
        let rtt = pulse.rtt();
        let silent = (rtt * 5 / 4 + SLACK).max(SILENT_MIN);
        if silent < PATIENCE {
            // What comes sooner may have been on its way when it was asked.
            sleep_until(start + rtt * 3 / 4).await;
            let before = pulse.heard();
            sleep_until(start + silent).await;
            if pulse.heard() == before {
                return;
            }
        }
    }
    sleep_until(start + PATIENCE).await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use overway_wire::RelayId;

    use super::*;

    /// A session on which a packet comes after so many milliseconds.
    #[derive(Clone, Copy)]
    struct Heard(Instant, u64);

    impl Pulse for Heard {
        fn rtt(&self) -> Duration {
            Duration::from_millis(80)
        }

        fn heard(&self) -> u64 {
            u64::from(self.0.elapsed() >= Duration::from_millis(self.1))
        }
    }

    fn far(id: u16) -> FarEnd {
        RelayId(id).into()
    }

    fn order(candidates: &Candidates, now: Instant) -> String {
        let mut far_ends = [1, 2, 3].map(far);
        candidates.put_last(&mut far_ends, now);
        far_ends.map(|far| far.to_string()).concat()
    }

    /// When the second far end is asked, the first answering never and the second at once.
    async fn second_asked(candidates: &Candidates, packet_ms: Option<u64>) -> u128 {
        let (start, asked) = (Instant::now(), RefCell::new(0));
        let open = |it: FarEnd| {
            *asked.borrow_mut() = start.elapsed().as_millis();
            async move { if it == far(1) { std::future::pending().await } else { Ok(()) } }
        };
        let pulse = |_| packet_ms.map(|ms| Heard(start, ms));
        let opened = candidates.first(vec![far(1), far(2)], pulse, open, |_, _| ()).await;
        assert_eq!(opened, Some(()));
        asked.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_far_end_is_waited_for_as_long_as_its_session_lets_hope() {
        let asked = async |packet| second_asked(&Candidates::default(), packet).await;
        assert_eq!(asked(None).await, 400, "dialled");
        assert_eq!(asked(Some(10_000)).await, 175, "silent");
        assert_eq!(asked(Some(30)).await, 175, "what came was on its way before");
        assert_eq!(asked(Some(90)).await, 400, "its service is slow");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_far_end_asks_another_when_it_is_said_not_to_answer() {
        let candidates = Candidates::default();
        let said = async {
            tokio::time::sleep(Duration::from_millis(70)).await;
            candidates.shun(far(1).party(), Instant::now());
        };
        let (asked, ()) = tokio::join!(second_asked(&candidates, None), said);
        assert_eq!(asked, 70);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_did_not_answer_in_time_is_asked_last_even_if_nobody_waited_for_another() {
        let candidates = Candidates::default();
        let open = |_| std::future::pending::<Result<(), OpenError>>();
        let gone = candidates.first(vec![far(1), far(2)], |_| None::<Heard>, open, |_, _| ());
        let left = tokio::time::timeout(Duration::from_millis(500), gone).await;
        assert!(left.is_err());
        assert_eq!(order(&candidates, Instant::now()), "r2r3r1");
        assert!(candidates.is_shunned(far(1).party(), Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_after_all_is_asked_first_again() {
        let candidates = Candidates::default();
        let open = async |it: FarEnd| {
            let wait = if it == far(1) { 450 } else { 10_000 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            Ok(it)
        };
        let far_ends = vec![far(1), far(2)];
        let won = candidates.first(far_ends, |_| None::<Heard>, open, |_, _| ()).await;
        assert_eq!(won, Some(far(1)));
        assert_eq!(order(&candidates, Instant::now()), "r1r2r3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_far_end_that_did_not_answer_is_asked_last_for_a_while() {
        let (candidates, now) = (Candidates::default(), Instant::now());
        assert_eq!(order(&candidates, now), "r1r2r3");
        candidates.shun(far(1).party(), now);
        assert_eq!(order(&candidates, now), "r2r3r1");
        assert_eq!(order(&candidates, now + SHUNNED_FOR), "r1r2r3");
    }

    #[tokio::test]
    async fn no_more_far_ends_are_remembered_than_the_bound() {
        let (candidates, now) = (Candidates::default(), Instant::now());
        (1..1_000).for_each(|id| candidates.shun(far(id).party(), now));
        assert_eq!(candidates.lock().len(), SHUNNED_MAX);
    }
}
