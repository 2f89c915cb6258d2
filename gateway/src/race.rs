//! Connecting to one of several addresses: Happy Eyeballs (RFC 8305).
//!
//! A and AAAA are asked for together, by the system's resolver, which also sorts the answers (RFC 6724);
//! section 3 of the RFC, which begins with the first answer, is therefore not followed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// Between the beginnings of two attempts (RFC 8305, section 8).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// The addresses to try, in their order: families take turns, the first one's goes first (RFC 8305, section 4).
pub(crate) fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let v6_first = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == v6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let turns = std::iter::from_fn(|| {
        let turn = [first.next(), second.next()];
        turn.iter().any(Option::is_some).then_some(turn)
    });
    turns.flatten().flatten().take(ADDRESSES_MAX).collect()
}

/// The first attempt that succeeds. The next one begins when `stagger` has passed, or at once when an attempt has
/// failed; all others are given up then. `None` if there is no address.
///
/// # Errors
/// That of the last attempt to fail.
pub(crate) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    stagger: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> Option<io::Result<T>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = addresses.into_iter();
    // Dropping it ends the attempts in it.
    let mut attempts = JoinSet::new();
    let mut last = None;
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.spawn(attempt(address));
            }
            None if attempts.is_empty() => return last.map(Err),
            None => {}
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = sleep(stagger), if waiting.len() > 0 => continue,
        };
        match ended {
            Some(Ok(Ok(connected))) => return Some(Ok(connected)),
            Some(Ok(Err(error))) => last = Some(error),
            Some(Err(panicked)) => last = Some(io::Error::other(panicked)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    /// Longer than any test.
    const NEVER: Duration = Duration::from_secs(3_600);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_first_ones_goes_first() {
        let sorted = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "192.0.2.1:1", "192.0.2.2:1"]);
        let expected = addresses(&["[::1]:1", "192.0.2.1:1", "[::2]:1", "192.0.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(sorted.into_iter()), expected);

        let sorted = addresses(&["192.0.2.1:1", "[::1]:1"]);
        assert_eq!(interleaved(sorted.clone().into_iter()), sorted);
        assert!(interleaved(std::iter::empty()).is_empty());
    }

    #[test]
    fn of_many_addresses_some_of_each_family_are_tried() {
        let v6 = (0..100).map(|host| SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, host], 1)));
        let v4 = (0..100).map(|host| SocketAddr::from(([192, 0, 2, host], 1)));

        let tried = interleaved(v6.chain(v4));

        assert_eq!(tried.len(), ADDRESSES_MAX);
        assert_eq!(tried.iter().filter(|address| address.is_ipv4()).count(), ADDRESSES_MAX / 2);
    }

    /// Counts attempts that run.
    struct Running(Arc<AtomicUsize>);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn an_address_that_is_silent_is_overtaken_and_its_attempt_ends() {
        let running = Arc::new(AtomicUsize::new(0));
        let [silent, good] = addresses(&["[::1]:1", "192.0.2.1:1"])[..] else { panic!() };
        let attempt = |address| {
            running.fetch_add(1, Ordering::SeqCst);
            let run = Running(Arc::clone(&running));
            async move {
                let _run = run;
                if address == silent { pending().await } else { Ok(address) }
            }
        };

        let raced = race(vec![silent, good], Duration::from_millis(1), attempt);
        let won = timeout(PATIENCE, raced).await.unwrap();

        assert_eq!(won.unwrap().unwrap(), good);
        let ended = async {
            while running.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let [bad, good] = addresses(&["[::1]:1", "192.0.2.1:1"])[..] else { panic!() };
        let attempt = move |address| async move {
            if address == bad { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(address) }
        };

        let won = timeout(PATIENCE, race(vec![bad, good], NEVER, attempt)).await.unwrap();
        assert_eq!(won.unwrap().unwrap(), good);

        let lost = timeout(PATIENCE, race(vec![bad, bad], NEVER, attempt)).await.unwrap();
        assert_eq!(lost.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(Vec::new(), NEVER, attempt).await.is_none());
    }
}
