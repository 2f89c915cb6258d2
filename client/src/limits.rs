//! Limits of the tenant's quota that frames of this edge were beyond, as relays said.

use std::time::{Duration, Instant};

use overway_wire::access::messages::{Limited, QuotaLimit};

use crate::status::LimitStatus;

/// Relays say it once a second while it is so.
const LASTS: Duration = Duration::from_secs(3);
/// A limit that is said again after so long is worth another line in the log.
const NEWS_AFTER: Duration = Duration::from_secs(60);
/// There are so many limits, the unknown one included.
const LIMITS: usize = 4;

/// What was said last of each.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    said: [Option<Said>; LIMITS],
}

#[derive(Debug)]
struct Said {
    limit: QuotaLimit,
    reason: String,
    at: Instant,
    /// When it was last news.
    news: Instant,
}

impl Limits {
    /// Takes note of a relay's word; says whether it is news.
    pub(crate) fn note(&mut self, limited: &Limited, now: Instant) -> bool {
        let limit = limited.limit();
        let said = &mut self.said[limit as usize];
        let since = |said: &Said| now.saturating_duration_since(said.news);
        let is_news = said.as_ref().is_none_or(|said| since(said) >= NEWS_AFTER);
        let news = said.as_ref().filter(|_| !is_news).map_or(now, |said| said.news);
        *said = Some(Said { limit, reason: limited.reason.clone(), at: now, news });
        is_news
    }

    /// Those that hold now.
    pub(crate) fn status(&self, now: Instant) -> Vec<LimitStatus> {
        let status = |said: &Said| {
            let age = now.saturating_duration_since(said.at);
            let reason = said.reason.clone();
            (age < LASTS).then(|| LimitStatus { limit: name(said.limit), reason, age })
        };
        self.said.iter().flatten().filter_map(status).collect()
    }
}

const fn name(limit: QuotaLimit) -> &'static str {
    match limit {
        QuotaLimit::Unknown => "unknown",
        QuotaLimit::Flows => "flows",
        QuotaLimit::Rate => "rate",
        QuotaLimit::Month => "month",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_while_relays_say_so_and_is_news_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limits = Limits::default();
        let flows = Limited { limit: QuotaLimit::Flows.into(), reason: "many".into() };
        let later = Limited { limit: 99, reason: "?".into() };

        let news = (0..70).filter(|&second| limits.note(&flows, at(second))).collect::<Vec<_>>();
        assert_eq!(news, [0, 60]);
        assert!(limits.note(&later, at(68)));

        let told = |at| limits.status(at).into_iter().map(|it| it.limit).collect::<Vec<_>>();
        assert_eq!(told(at(70)), ["unknown", "flows"]);
        assert_eq!(told(at(71)), ["flows"]);
        assert!(told(at(72)).is_empty());
    }
}
