//! When links changed, as relays' logs say it, to tell which part of a failover took its time.
//!
//! ```text
//! 2026-01-02T03:04:05.678901Z DEBUG overway_relay::mesh::driver: link changed link=r5/0 inbound=Up outbound=Down
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// What relays are to log for this.
pub(super) const LOG_FILTER: &str = "info,overway_relay::mesh::driver=debug";

/// A change of a link, as one of its ends logged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// When, since 1970.
    pub(super) at: Duration,
    /// The relay at the other end.
    pub(super) neighbour: u16,
    /// How it is since then.
    pub(super) silence: Silence,
}

/// The worse of a link's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Silence {
    /// Neither suspect nor down.
    None,
    /// One direction is suspect.
    Suspect,
    /// One is down.
    Down,
}

/// Reads the changes of a relay's links from its log.
pub(super) fn read(log: &Path) -> anyhow::Result<Vec<Change>> {
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
}

/// The first time within a span that a link to `neighbour` was at least that silent.
pub(super) fn first(
    changes: &[Change],
    neighbour: u16,
    silence: Silence,
    span: std::ops::Range<Duration>,
) -> Option<Duration> {
    let found = changes.iter().find(|change| {
        change.neighbour == neighbour && change.silence >= silence && span.contains(&change.at)
    });
    found.map(|change| change.at)
}

/// The changes within a span by which a link went down.
pub(super) fn downs(changes: &[Change], span: &std::ops::Range<Duration>) -> Vec<Change> {
    let mut down = std::collections::BTreeSet::new();
    let mut fallen = Vec::new();
    for &change in changes {
        if change.silence != Silence::Down {
            down.remove(&change.neighbour);
        } else if down.insert(change.neighbour) && span.contains(&change.at) {
            fallen.push(change);
        }
    }
    fallen
}

fn parse(line: &str) -> Option<Change> {
    let (at, rest) = line.split_once(' ')?;
    let (_, fields) = rest.split_once(": link changed ")?;
    let field = |name: &str| {
        fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    let neighbour = field("link")?.strip_prefix('r')?.split('/').next()?.parse().ok()?;
    let silence = silence(field("inbound")?).max(silence(field("outbound")?));
    Some(Change { at: timestamp(at)?, neighbour, silence })
}

fn silence(state: &str) -> Silence {
    match state {
        "Suspect" => Silence::Suspect,
        "Down" => Silence::Down,
        _ => Silence::None,
    }
}

/// The time of an RFC 3339 timestamp in UTC, since 1970.
fn timestamp(text: &str) -> Option<Duration> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let seconds = Duration::try_from_secs_f64(time.next()?.parse().ok()?).ok()?;
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let whole = ((days(year, month, day)? * 24 + hour) * 60 + minute) * 60;
    Some(Duration::from_secs(whole) + seconds)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar (H. Hinnant, `days_from_civil`).
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era_days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    era_days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seconds: u64, neighbour: u16, silence: Silence) -> Change {
        Change { at: Duration::from_secs(seconds), neighbour, silence }
    }

    #[test]
    fn a_change_is_read_from_a_line_of_the_log() {
        let line = "2026-11-21T08:00:00.250000Z DEBUG overway_relay::mesh::driver: link changed \
                    link=r5/0 inbound=Up outbound=Down";

        let expected = Change {
            at: Duration::from_millis(1_795_248_000_250),
            neighbour: 5,
            silence: Silence::Down,
        };
        assert_eq!(parse(line), Some(expected));
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in [
            "",
            "2026-11-21T08:00:00.250000Z  INFO overway_relay::run: stopping",
            "thread main panicked: link changed link=r5/0 inbound=Up outbound=Up",
            "2026-13-21T08:00:00Z DEBUG x: link changed link=r5/0 inbound=Up outbound=Up",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn timestamps_count_from_1970_across_leap_days() {
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(timestamp("2000-03-01T00:00:00Z"), Some(Duration::from_secs(951_868_800)));
        assert_eq!(timestamp("2024-02-29T12:00:00Z"), Some(Duration::from_secs(1_709_208_000)));
    }

    #[test]
    fn the_first_silence_of_a_neighbour_is_found() {
        let changes = [
            change(1, 5, Silence::Down),
            change(3, 6, Silence::Suspect),
            change(4, 5, Silence::Suspect),
            change(5, 5, Silence::Down),
        ];
        let span = Duration::from_secs(2)..Duration::from_secs(9);

        let found = |silence| first(&changes, 5, silence, span.clone());
        assert_eq!(found(Silence::Suspect), Some(Duration::from_secs(4)));
        assert_eq!(found(Silence::Down), Some(Duration::from_secs(5)));
        assert_eq!(first(&changes, 7, Silence::Suspect, span.clone()), None);
    }

    #[test]
    fn a_link_that_stays_down_went_down_once() {
        let changes = [
            change(1, 5, Silence::Down),
            change(2, 5, Silence::Down),
            change(3, 5, Silence::None),
            change(4, 5, Silence::Down),
            change(4, 6, Silence::Down),
        ];

        let all = Duration::ZERO..Duration::from_secs(9);
        assert_eq!(downs(&changes, &all), [changes[0], changes[3], changes[4]]);
        assert_eq!(downs(&changes, &(Duration::from_secs(2)..Duration::from_secs(4))), []);
    }
}
