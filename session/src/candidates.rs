//! Which of a service's far ends is asked, in which order, for how long.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::far::{FarEnd, Party};
use crate::hedge::first_of;
use crate::open::OpenError;

/// Far ends that are tried for one connection. With more, a client would wait longer than it is likely to.
const TRIES_MAX: usize = 3;
/// How long a far end is waited for before the next is asked beside it: a round trip of the session's handshake and one
/// of the request fit even around the world, and a client that waits for nobody hardly feels it.
const PATIENCE: Duration = Duration::from_millis(400);
/// A far end that did not answer when another did is asked last for this long.
const SHUNNED_FOR: Duration = Duration::from_secs(5);
/// Far ends that are remembered for that; the oldest is forgotten.
const SHUNNED_MAX: usize = 256;

/// Tries the far ends of services, and remembers those that did not answer lately.
#[derive(Debug, Default)]
pub struct Candidates(Mutex<VecDeque<(Party, Instant)>>);

impl Candidates {
    /// What `open` gives for the first far end at which it succeeds. They are tried in their order, three at most, but
    /// those last that did not answer lately; the next beside one that does not answer within 0.4 s. Each failure is told.
    /// `None`: all failed, or there was none. `open` must send nothing that another may not be sent too.
    pub async fn first<T, F>(
        &self,
        mut far_ends: Vec<FarEnd>,
        open: impl Fn(FarEnd) -> F,
        failed: impl FnMut(FarEnd, OpenError),
    ) -> Option<T>
    where
        F: Future<Output = Result<T, OpenError>>,
    {
        self.put_last(&mut far_ends, Instant::now());
        far_ends.truncate(TRIES_MAX);
        let start = Instant::now();
        let (won, opened) = first_of(far_ends.iter().copied(), PATIENCE, open, failed).await?;
        if start.elapsed() >= PATIENCE {
            let silent = far_ends.iter().copied().take_while(|far| *far != won);
            silent.for_each(|far| self.note(far, Instant::now()));
        }
        Some(opened)
    }

    fn note(&self, far: FarEnd, now: Instant) {
        let mut shunned = self.lock();
        shunned.retain(|(party, _)| *party != far.party());
        if shunned.len() == SHUNNED_MAX {
            shunned.pop_front();
        }
        shunned.push_back((far.party(), now + SHUNNED_FOR));
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use overway_wire::RelayId;

    use super::*;

    #[test]
    fn a_far_end_that_did_not_answer_is_asked_last_for_a_while() {
        let (candidates, now) = (Candidates::default(), Instant::now());
        let order = |now| {
            let mut far_ends = [1, 2, 3].map(|id| FarEnd::from(RelayId(id)));
            candidates.put_last(&mut far_ends, now);
            far_ends.map(|far| far.to_string()).concat()
        };
        assert_eq!(order(now), "r1r2r3");
        candidates.note(RelayId(1).into(), now);
        assert_eq!(order(now), "r2r3r1");
        assert_eq!(order(now + SHUNNED_FOR), "r1r2r3");
    }

    #[test]
    fn no_more_far_ends_are_remembered_than_the_bound() {
        let (candidates, now) = (Candidates::default(), Instant::now());
        for id in 1..1_000 {
            candidates.note(RelayId(id).into(), now);
        }
        assert_eq!(candidates.lock().len(), SHUNNED_MAX);
    }
}
