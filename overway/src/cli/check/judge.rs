//! What findings are worth.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::{Finding, Verdict};
use crate::cli::text;

const DAY: Duration = Duration::from_secs(86_400);
/// Certificates are renewed when they have 30 days left: below this renewal has failed for days.
const DAYS_MIN: u64 = 25;
/// A relay has a socket for each client of its gateway, 4,096 for each listener unless configured, and some more.
const FILES_MIN: u64 = 8_192;
/// Certificates and tokens are judged by the clock; a minute is what those who make them allow for.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// The relay's certificate, of which so much is left; `None` if it has ended.
pub(super) fn certificate(left: Option<Duration>) -> Finding {
    let check = "certificate";
    let Some(left) = left.filter(|left| !left.is_zero()) else {
        let finding = Finding::new(check, Verdict::Failed, "has ended");
        return finding
            .hint("join again: `overway node add NAME`, then `overway relay join TOKEN`");
    };
    let days = left.as_secs() / DAY.as_secs();
    let found = format!("{} left", text::duration(left));
    if days >= DAYS_MIN {
        return Finding::new(check, Verdict::Ok, found);
    }
    Finding::new(check, Verdict::Warning, found)
        .hint("it should have been renewed at 30 days: has the relay had a scheduler since?")
}

/// A scheduler, and the round trip to it or why there is none.
pub(super) fn scheduler(address: SocketAddr, reached: anyhow::Result<Duration>) -> Finding {
    let check = format!("scheduler {address}");
    match reached {
        Ok(rtt) => {
            let ms = rtt.as_secs_f64() * 1e3;
            Finding::new(&check, Verdict::Ok, format!("answers over UDP, round trip {ms:.1} ms"))
        }
        Err(error) => {
            let hint = format!(
                "is `overway scheduler` running there, and does every firewall let UDP to {address} out and its \
                 answers in?"
            );
            Finding::new(&check, Verdict::Failed, format!("{error:#}")).hint(hint)
        }
    }
}

/// Kernel buffers, with what mends them if they are too small.
pub(super) fn buffers(hint: Option<String>) -> Finding {
    let check = "kernel buffers";
    match hint {
        None => Finding::new(check, Verdict::Ok, "as large as asked for"),
        Some(hint) => {
            Finding::new(check, Verdict::Warning, "too small for bursts at high rates").hint(hint)
        }
    }
}

/// The limit of open files; `None` if there is none.
pub(super) fn files(limit: Option<u64>) -> Finding {
    let check = "open files";
    match limit {
        None => Finding::new(check, Verdict::Ok, "no limit"),
        Some(limit) if limit >= FILES_MIN => {
            Finding::new(check, Verdict::Ok, format!("{limit} allowed"))
        }
        Some(limit) => {
            let found = format!("{limit} allowed, {FILES_MIN} wanted");
            Finding::new(check, Verdict::Warning, found)
                .hint(format!("LimitNOFILE={FILES_MIN} in the unit, or `ulimit -n {FILES_MIN}`"))
        }
    }
}

/// This clock beside a scheduler's, which was read between two moments.
pub(super) fn clock(
    theirs_unix_ms: Option<u64>,
    asked: SystemTime,
    answered: SystemTime,
) -> Finding {
    let check = "clock";
    let Some(theirs) = theirs_unix_ms.map(Duration::from_millis) else {
        return Finding::new(check, Verdict::Unknown, "no scheduler's admin interface answers")
            .hint("run this where one does, or give --admin; relays need no exact clock, certificates one within a minute");
    };
    let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (asked, answered) = (since_1970(asked), since_1970(answered));
    let off = asked.saturating_sub(theirs).max(theirs.saturating_sub(answered));
    let found = format!("{:.1} s off the scheduler's at least", off.as_secs_f64());
    if off > SKEW_MAX {
        return Finding::new(check, Verdict::Failed, found)
            .hint("synchronise clocks: chrony or systemd-timesyncd");
    }
    Finding::new(check, Verdict::Ok, found)
}

/// This program's version beside those of relays.
pub(super) fn versions(own: &str, others: Option<&[(String, String)]>) -> Finding {
    let check = "versions";
    let Some(others) = others else {
        return Finding::new(
            check,
            Verdict::Unknown,
            format!("{own} here; nobody tells of others"),
        );
    };
    let other: Vec<String> = others
        .iter()
        .filter(|(_, software)| !software.is_empty() && software != own)
        .map(|(name, software)| format!("{name} has {software}"))
        .take(5)
        .collect();
    if other.is_empty() {
        return Finding::new(check, Verdict::Ok, format!("{own} everywhere, as far as relays say"));
    }
    Finding::new(check, Verdict::Warning, format!("{own} here; {}", other.join(", ")))
        .hint("neighbouring versions work together; upgrade the rest soon")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_or_there_is_a_warning() {
        assert_eq!(certificate(Some(DAY * 60)).verdict, Verdict::Ok);
        assert_eq!(certificate(Some(DAY * 20)).verdict, Verdict::Warning);
        assert_eq!(certificate(None).verdict, Verdict::Failed);
        assert!(certificate(None).hint.is_some());
    }

    #[test]
    fn a_scheduler_answers_or_the_hint_names_its_address() {
        let address: SocketAddr = "192.0.2.1:4400".parse().unwrap();
        let failed = scheduler(address, Err(anyhow::anyhow!("no answer")));

        assert_eq!(scheduler(address, Ok(Duration::from_millis(7))).verdict, Verdict::Ok);
        assert_eq!(failed.verdict, Verdict::Failed);
        assert!(failed.hint.unwrap().contains("192.0.2.1:4400"));
    }

    #[test]
    fn limits_are_told_with_what_mends_them() {
        assert_eq!(files(None).verdict, Verdict::Ok);
        assert_eq!(files(Some(65_536)).verdict, Verdict::Ok);
        assert!(files(Some(1_024)).hint.unwrap().contains("8192"));
        let short = buffers(Some("sysctl -w net.core.rmem_max=1".into()));
        assert!(short.verdict == Verdict::Warning && short.hint.unwrap().contains("sysctl"));
    }

    #[test]
    fn a_clock_is_off_by_what_no_delay_explains() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let of = |theirs_s: u64| clock(Some(theirs_s * 1_000), at(1_000), at(1_002)).verdict;

        assert_eq!([of(1_001), of(1_050), of(950)], [Verdict::Ok; 3]);
        assert_eq!([of(1_100), of(900)], [Verdict::Failed; 2]);
        assert_eq!(clock(None, at(1), at(2)).verdict, Verdict::Unknown);
    }

    #[test]
    fn another_version_is_a_warning_and_none_is_unknown() {
        let relay = |software: &str| ("rome".to_owned(), software.to_owned());

        assert_eq!(
            versions("overway 1", Some(&[relay("overway 1"), relay("")])).verdict,
            Verdict::Ok
        );
        let other = versions("overway 2", Some(&[relay("overway 1")]));
        assert!(other.verdict == Verdict::Warning && other.found.contains("rome has overway 1"));
        assert_eq!(versions("overway 1", None).verdict, Verdict::Unknown);
    }
}
