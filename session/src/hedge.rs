//! Trying several in turn, the next beside the one before when that does not answer.
//!
//! As RFC 8305 does it for addresses, for the same reason: an end that died without a word would cost its clients a
//! time-out each, and one that says no, or is gone with a word, nothing. The first that says yes wins, the others are
//! dropped.

use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// Tries `candidates` in their order, the next as soon as one before it has failed, or when the patience with the one
/// before has run out. Each failure is told. `None`: all failed, or there was none.
pub(crate) async fn first_of<C, T, E, F, P>(
    candidates: impl IntoIterator<Item = C>,
    patience: impl Fn(C) -> P,
    attempt: impl Fn(C) -> F,
    mut failed: impl FnMut(C, E),
) -> Option<(C, T)>
where
    C: Copy,
    F: Future<Output = Result<T, E>>,
    P: Future<Output = ()>,
{
    let mut candidates = candidates.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut waiting: Option<Pin<Box<P>>> = None;
    loop {
        if waiting.is_none()
            && let Some(candidate) = candidates.next()
        {
            let trying = attempt(candidate);
            running.push(async move { (candidate, trying.await) });
            // After the last there is nothing to wait for but its outcome.
            waiting = candidates.peek().is_some().then(|| Box::pin(patience(candidate)));
        }
        tokio::select! {
            biased;
            outcome = running.next() => match outcome {
                Some((candidate, Ok(opened))) => return Some((candidate, opened)),
                Some((candidate, Err(error))) => {
                    failed(candidate, error);
                    waiting = None;
                }
                None => return None,
            },
            () = over(&mut waiting) => waiting = None,
        }
    }
}

/// When a patience has run out; never, where there is none.
async fn over<P: Future<Output = ()>>(waiting: &mut Option<Pin<Box<P>>>) {
    match waiting {
        Some(patience) => patience.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    /// Tries candidates that answer after so many milliseconds; says which one won, when, and which were tried when.
    async fn tried(answers: &[(u64, Result<(), &'static str>)]) -> (Option<usize>, u64, Vec<u64>) {
        let start = Instant::now();
        let starts = RefCell::new(Vec::new());
        let millis = || u64::try_from(start.elapsed().as_millis()).unwrap();
        let attempt = |at: usize| {
            starts.borrow_mut().push(millis());
            let (after, outcome) = answers[at];
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                outcome
            }
        };
        let won =
            first_of(0..answers.len(), |_| tokio::time::sleep(PATIENCE), attempt, |_, _| ()).await;
        (won.map(|(at, ())| at), millis(), starts.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_in_time_is_the_only_one_tried() {
        assert_eq!(tried(&[(50, Ok(())), (0, Ok(()))]).await, (Some(0), 50, vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_says_no_gives_way_at_once() {
        let answers = [(20, Err("no")), (30, Ok(()))];
        assert_eq!(tried(&answers).await, (Some(1), 50, vec![0, 20]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_is_tried_beside_the_next() {
        let answers = [(60_000, Err("late")), (40, Ok(()))];
        assert_eq!(tried(&answers).await, (Some(1), 340, vec![0, 300]));
        let answers = [(310, Ok(())), (40, Ok(()))];
        assert_eq!(tried(&answers).await, (Some(0), 310, vec![0, 300]), "it may still win");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_that_is_told_as_soon_as_it_is_known() {
        let answers = [(500, Err("a")), (100, Err("b")), (10, Err("c"))];
        assert_eq!(tried(&answers).await, (None, 500, vec![0, 300, 400]));
        assert_eq!(tried(&[]).await, (None, 0, vec![]));
    }
}
