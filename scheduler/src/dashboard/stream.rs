//! One browser's stream.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::Dashboard;
use crate::events::{EventRecord, Following};

/// Events in one message.
const BATCH_MAX: usize = 512;
/// Without anything to say a comment is sent so often, so that both ends know that the other is there.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// What a browser waits before it comes again.
const RETRY_MS: u32 = 1_000;

/// A browser that follows.
#[derive(Debug)]
pub(crate) struct Stream {
    boot: u64,
    /// Events that were, to be sent first; then none.
    past: Option<Vec<EventRecord>>,
    feed: Receiver<EventRecord>,
    overviews: watch::Receiver<Arc<str>>,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// Room for a stream, if there is.
    pub(crate) fn room(dashboard: &Dashboard) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&dashboard.streams).try_acquire_owned().ok()
    }

    /// Begins a stream, which ends with `stop`.
    pub(crate) fn new(
        dashboard: &Dashboard,
        permit: OwnedSemaphorePermit,
        following: Following,
        stop: CancellationToken,
    ) -> Self {
        let mut overviews = dashboard.overview.subscribe();
        overviews.mark_unchanged();
        dashboard.woken.notify_one();
        let Following { past, feed } = following;
        Self { boot: dashboard.boot, past: Some(past), feed, overviews, stop, _permit: permit }
    }

    /// As the body of an answer.
    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(futures_util::stream::unfold(self, async |mut stream| {
            let message = stream.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(message)), stream))
        }))
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if let Some(past) = self.past.take() {
            let boot = self.boot;
            let mut text = format!("retry: {RETRY_MS}\nevent: boot\ndata: {boot}\n\n");
            for batch in past.chunks(BATCH_MAX) {
                text.push_str(&self.events(batch));
            }
            return Some(text);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            event = self.feed.recv() => match event {
                Ok(event) => Some(self.batch(event)),
                // It did not keep up, or the driver has ended.
                Err(RecvError::Lagged(_) | RecvError::Closed) => None,
            },
            changed = self.overviews.changed() => {
                changed.ok()?;
                let overview = Arc::clone(&self.overviews.borrow_and_update());
                Some(format!("event: overview\ndata: {overview}\n\n"))
            }
            () = tokio::time::sleep(COMMENT_INTERVAL) => Some(": there\n\n".to_owned()),
        }
    }

    /// An event and those that wait behind it.
    fn batch(&mut self, first: EventRecord) -> String {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(event) = self.feed.try_recv()
        {
            batch.push(event);
        }
        self.events(&batch)
    }

    fn events(&self, batch: &[EventRecord]) -> String {
        let Some(last) = batch.last() else { return String::new() };
        let json = serde_json::to_string(batch).expect("it is JSON by its type");
        let mut text = format!("id: {}-{}\n", self.boot, last.sequence);
        let _ = write!(text, "event: events\ndata: {json}\n\n");
        text
    }
}

/// The event after which a browser goes on, by the id that it had last: 0 if that is of another process.
pub(crate) fn resume_after(boot: u64, last_event_id: &str) -> u64 {
    let parsed = last_event_id.split_once('-').and_then(|(its_boot, sequence)| {
        Some((its_boot.parse::<u64>().ok()?, sequence.parse::<u64>().ok()?))
    });
    parsed.filter(|&(its_boot, _)| its_boot == boot).map_or(0, |(_, sequence)| sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventRing, FEED_MAX};

    fn stream(dashboard: &Dashboard, ring: &EventRing, stop: &CancellationToken) -> Stream {
        let permit = Stream::room(dashboard).unwrap();
        Stream::new(dashboard, permit, ring.follow(0), stop.clone())
    }

    #[tokio::test]
    async fn what_was_comes_first_then_what_comes_then_the_end() {
        let (dashboard, mut ring, stop) =
            (Dashboard::new(), EventRing::default(), CancellationToken::new());
        ring.push("a", "rome".into());
        let mut stream = stream(&dashboard, &ring, &stop);
        ring.push("b", "oslo".into());
        ring.push("c", "bonn".into());

        let first = stream.next().await.unwrap();
        assert!(first.starts_with("retry: 1000\nevent: boot\n"), "{first}");
        assert!(first.contains(&format!("id: {}-1\nevent: events\ndata: [{{", dashboard.boot)));
        let second = stream.next().await.unwrap();
        assert!(second.contains("-3\n") && second.contains("oslo") && second.contains("bonn"));
        dashboard.overview.send_replace("{}".into());
        assert_eq!(stream.next().await.unwrap(), "event: overview\ndata: {}\n\n");
        stop.cancel();
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn one_that_does_not_keep_up_is_ended() {
        let (dashboard, mut ring, stop) =
            (Dashboard::new(), EventRing::default(), CancellationToken::new());
        let mut stream = stream(&dashboard, &ring, &stop);
        stream.next().await.unwrap();
        for _ in 0..=FEED_MAX {
            ring.push("a", String::new());
        }

        assert_eq!(stream.next().await, None);
    }

    #[test]
    fn there_is_room_for_so_many_and_again_when_one_has_gone() {
        let dashboard = Dashboard::new();
        let mut permits: Vec<_> =
            (0..super::super::STREAMS_MAX).map(|_| Stream::room(&dashboard).unwrap()).collect();

        assert!(Stream::room(&dashboard).is_none());
        permits.pop();
        assert!(Stream::room(&dashboard).is_some());
    }

    #[test]
    fn a_browser_goes_on_after_its_last_event_of_this_process() {
        assert_eq!(resume_after(7, "7-12"), 12);
        for other in ["6-12", "", "12", "7-", "-12", "7-x"] {
            assert_eq!(resume_after(7, other), 0, "{other:?}");
        }
    }
}
