//! What people are told of links: that a neighbour's link went down or came up, with a bound on how often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overway_probe::State;
use overway_telemetry::SPANS;
use overway_wire::NeighbourLink;
use tracing::Span;

/// Lines of log in one window at most; what goes beyond is counted and told with the next line. A relay
/// whose own line fails loses hundreds of links at once.
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Which links are up, as people know, and how much they were told lately.
#[derive(Debug, Default)]
pub(super) struct LinkNews {
    up: BTreeSet<NeighbourLink>,
    /// Of each link that went down a span, which ends when it comes up. At most as many as there are links.
    failovers: BTreeMap<NeighbourLink, Span>,
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

/// Something to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct News {
    /// Whether the link came up; else it went down.
    up: bool,
    /// Changes before this one that nobody was told of.
    untold: u64,
}

impl LinkNews {
    /// Links that are no longer held are no longer down.
    pub(super) fn keep(&mut self, is_held: impl Fn(&NeighbourLink) -> bool) {
        self.failovers.retain(|link, _| is_held(link));
    }

    /// Tells people of a link's state, inbound first, if it is news.
    pub(super) fn tell(
        &mut self,
        link: NeighbourLink,
        name: &str,
        (inbound, outbound): (State, State),
        now: Instant,
    ) {
        match self.handle_change(link, inbound, outbound, now) {
            Some(News { up: true, untold }) => {
                tracing::info!(%link, name, untold, "link is up");
            }
            Some(News { up: false, untold }) => {
                tracing::info!(%link, name, ?inbound, ?outbound, untold, "link is down");
            }
            None => {}
        }
    }

    /// Takes notice of a link's state; says what people should be told. *Suspect* is no news: it ends in a
    /// moment, one way or the other.
    fn handle_change(
        &mut self,
        link: NeighbourLink,
        inbound: State,
        outbound: State,
        now: Instant,
    ) -> Option<News> {
        let lives = |state| match state {
            State::Up | State::Suspect => true,
            State::Unknown | State::Down => false,
        };
        let up = lives(inbound) && lives(outbound);
        let changed = if up { self.up.insert(link) } else { self.up.remove(&link) };
        if !changed {
            return None;
        }
        if up {
            self.failovers.remove(&link);
        } else {
            let span = tracing::debug_span!(target: SPANS, "failover", %link, ?inbound, ?outbound);
            self.failovers.insert(link, span);
        }
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told >= LINES_MAX {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(News { up, untold: std::mem::take(&mut self.untold) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::{LinkIndex, RelayId};

    fn link(relay: u16) -> NeighbourLink {
        NeighbourLink::new(RelayId(relay), LinkIndex::default())
    }

    #[test]
    fn a_link_is_told_of_when_it_comes_up_and_when_it_goes_down() {
        let (mut news, now) = (LinkNews::default(), Instant::now());
        let told = |up| Some(News { up, untold: 0 });
        let mut hear = |inbound, outbound| news.handle_change(link(2), inbound, outbound, now);

        assert_eq!(hear(State::Up, State::Unknown), None);
        assert_eq!(hear(State::Up, State::Up), told(true));
        assert_eq!(hear(State::Suspect, State::Suspect), None);
        assert_eq!(hear(State::Up, State::Down), told(false));
        assert_eq!(hear(State::Down, State::Down), None);
    }

    #[test]
    fn a_storm_of_changes_is_counted_and_not_told() {
        let (mut news, now) = (LinkNews::default(), Instant::now());
        let changes =
            (0..100).filter_map(|relay| news.handle_change(link(relay), State::Up, State::Up, now));
        assert_eq!(changes.count(), LINES_MAX as usize);

        let later = news.handle_change(link(1), State::Down, State::Down, now + WINDOW);
        assert_eq!(later, Some(News { up: false, untold: 90 }));
    }
}
