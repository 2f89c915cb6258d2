//! What each flow felt of each blow, and where its silence went.
//!
//! A flow's gap lies between the last frame before and the first after. Seen from the relay in front of
//! the victim, that is the time from the last frame which it sent to the victim and the victim passed on,
//! until the next that got through another way. Its log says when in between the link turned suspect:
//!
//! ```text
//!     last frame sent       link suspect       next frame sent around
//!           |---- detection ----|----- resuming -----|            gap = detection + resuming + growth
//! ```
//!
//! where growth is that of the detour, which need not be the path that the flow settles on.
//!
//! Detection holds one round trip of the link, for the victim's last sign of life was on its way as long as
//! that frame, and the frame's age: up to one spacing. Without these two and with resuming it is the excess.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use overway::lab::drills::{Blow, Sample};
use overway::lab::flow::{Arrival, Felt, percentile};
use overway::lab::profile::Profile;

use super::changes::{self, Change, Silence};
use crate::common::spread;

/// One flow under one blow.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Whether the link in use was half full.
    pub(super) loaded: bool,
    /// The blow's number, from 1.
    pub(super) number: usize,
    /// What happened.
    pub(super) blow: Blow,
    /// To which relay.
    pub(super) victim: usize,
    /// What the flow felt.
    pub(super) sample: Sample,
    /// The times around the gap.
    pub(super) moments: Option<Moments>,
    /// When the relay in front found the link suspect, and when down; since 1970.
    pub(super) noticed: Noticed,
    /// The measuring process's own worst lateness meanwhile.
    pub(super) own_stall: Duration,
    /// The machine's load average.
    pub(super) load_average: Option<f64>,
}

/// The ends of a gap, since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moments {
    pub(super) last: Duration,
    pub(super) next: Duration,
}

/// What the relay in front noticed of the victim, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    pub(super) suspect: Option<Duration>,
    pub(super) down: Option<Duration>,
}

/// How a gap divides, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Phases {
    pub(super) detection: f64,
    pub(super) resuming: f64,
}

impl Noticed {
    /// What the log of the relay in front says of a victim in that span.
    pub(super) fn of(changes: &[Change], victim: u16, span: &std::ops::Range<Duration>) -> Self {
        let first = |silence| changes::first(changes, victim, silence, span.clone());
        Self { suspect: first(Silence::Suspect), down: first(Silence::Down) }
    }
}

impl Moments {
    /// The ends of the gap that a flow felt, among its arrivals; `None` if it was still open when it was
    /// measured. `epoch` is what the arrivals' clock showed 0 at.
    pub(super) fn of(arrivals: &[Arrival], felt: &Felt, epoch: Duration) -> Option<Self> {
        let pair = arrivals.windows(2).find(|pair| {
            Duration::from_nanos(pair[1].received.saturating_sub(pair[0].received)) == felt.gap
        })?;
        let [last, next] = [&pair[0], &pair[1]].map(|a| epoch + Duration::from_nanos(a.received));
        Some(Self { last, next })
    }
}

impl Row {
    /// The number of relays before the one in front of the victim: 0 if the source itself is in front.
    pub(super) fn front_at(&self) -> usize {
        let at = self.sample.path.iter().position(|&relay| relay == self.victim);
        at.unwrap_or(1).saturating_sub(1)
    }

    /// The relay in front of the victim.
    pub(super) fn front(&self) -> usize {
        self.sample.path[self.front_at()]
    }

    /// How the gap divides, if the log of the relay in front tells it.
    pub(super) fn phases(&self, profile: &Profile) -> Option<Phases> {
        let (moments, suspect) = (self.moments?, self.noticed.suspect?);
        let to_front = Duration::from(profile.path_delay(&self.sample.path[..=self.front_at()]));
        let beyond = |whole: Duration| millis(whole) - millis(to_front);
        let felt = &self.sample.felt;
        Some(Phases {
            detection: apart(moments.last, suspect) + beyond(felt.delay_before),
            resuming: apart(suspect, moments.next) - beyond(felt.delay_detour),
        })
    }

    /// How much longer frames took before the blow than the lines of their path: they waited in queues.
    pub(super) fn queue_ms(&self, profile: &Profile) -> f64 {
        let lines = Duration::from(profile.path_delay(&self.sample.path));
        millis(self.sample.felt.delay_before) - millis(lines)
    }

    fn csv(&self, profile: &Profile) -> String {
        let Sample { flow, path, felt, excess_ms, settled_excess_ms } = &self.sample;
        let phases = self.phases(profile);
        let round_trip = millis(profile.round_trip(self.front(), self.victim));
        let path: Vec<&str> = path.iter().map(|&relay| profile.relay_name(relay)).collect();
        let down_after = self.noticed.suspect.zip(self.noticed.down).map(|(s, d)| apart(s, d));
        let numbers = [
            Some(felt.gap_ms()),
            Some(*excess_ms),
            Some(*settled_excess_ms),
            Some(millis(felt.delay_before)),
            Some(millis(felt.delay_detour)),
            Some(millis(felt.delay_settled)),
            Some(round_trip),
            phases.map(|phases| phases.detection),
            phases.map(|phases| phases.resuming),
            down_after,
            Some(millis(self.own_stall)),
            self.load_average,
        ];
        let mut line = format!(
            "{},{},{},{},{},{},{},{},{},{}",
            if self.loaded { "loaded" } else { "idle" },
            self.blow.text(),
            self.number,
            profile.relay_name(self.victim),
            profile.relay_name(self.front()),
            path.join(">"),
            flow,
            felt.lost,
            felt.duplicates,
            felt.recovered,
        );
        for number in numbers {
            match number {
                Some(number) => write!(line, ",{number:.2}"),
                None => write!(line, ","),
            }
            .expect("a string takes everything");
        }
        line
    }
}

/// The names of the columns of the file of samples.
const COLUMNS: &str = "load,blow,number,victim,front,path,flow,lost,duplicates,recovered,gap_ms,excess_ms,settled_excess_ms,\
    delay_before_ms,delay_detour_ms,delay_settled_ms,front_round_trip_ms,detection_ms,resuming_ms,down_after_ms,own_stall_ms,\
    load_average";

/// Writes all rows as CSV.
pub(super) fn write(path: &Path, rows: &[Row], profile: &Profile) -> anyhow::Result<()> {
    let mut text = format!("{COLUMNS}\n");
    for row in rows {
        text.push_str(&row.csv(profile));
        text.push('\n');
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A value of every row that passes.
pub(super) fn values(
    rows: &[Row],
    passes: impl Fn(&Row) -> bool,
    value: impl Fn(&Row) -> f64,
) -> Vec<f64> {
    rows.iter().filter(|row| passes(row)).map(value).collect()
}

/// Where the time went, a line for each kind of blow and of relay in front.
pub(super) fn phases_text(rows: &[Row], profile: &Profile) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<24} {:>7}  {:>14}  {:>16}  {:>14}",
        "p50 / p99 in ms", "samples", "excess", "detection - RTT", "resuming"
    )];
    for (loaded, blow, at_source) in [
        (false, Blow::Freeze, true),
        (false, Blow::Freeze, false),
        (false, Blow::Kill, true),
        (false, Blow::Kill, false),
        (true, Blow::Freeze, true),
        (true, Blow::Freeze, false),
    ] {
        let fits = |row: &&Row| {
            row.loaded == loaded && row.blow == blow && (row.front_at() == 0) == at_source
        };
        let of: Vec<&Row> = rows.iter().filter(fits).collect();
        if of.is_empty() {
            continue;
        }
        let excess: Vec<f64> = of.iter().map(|row| row.sample.excess_ms).collect();
        let known = of.iter().filter_map(|row| Some((row, row.phases(profile)?)));
        let (mut detection, mut resuming) = (Vec::new(), Vec::new());
        for (row, phases) in known {
            let round_trip = millis(profile.round_trip(row.front(), row.victim));
            detection.push(phases.detection - round_trip);
            resuming.push(phases.resuming);
        }
        let what = format!(
            "{}{}, {} in front",
            if loaded { "loaded " } else { "" },
            blow.text(),
            if at_source { "source" } else { "transit" }
        );
        lines.push(format!(
            "{what:<24} {:>7}  {:>14}  {:>16}  {:>14}",
            of.len(),
            spread(&excess),
            spread(&detection),
            spread(&resuming)
        ));
    }
    lines
}

/// The share of frames that never came, of all that were sent while blows were watched.
pub(super) fn lost_share(rows: &[Row], loaded: bool, frames_each: f64) -> Option<f64> {
    let lost = values(rows, |row| row.loaded == loaded, |row| row.sample.felt.lost as f64);
    let sent = lost.len() as f64 * frames_each;
    (sent > 0.0).then(|| lost.iter().sum::<f64>() / sent)
}

/// A percentile of a value of the rows under a blow, with or without load.
pub(super) fn percentile_of(
    rows: &[Row],
    (loaded, blow): (bool, Blow),
    value: impl Fn(&Row) -> f64,
    share: f64,
) -> Option<f64> {
    percentile(&values(rows, |row| row.loaded == loaded && row.blow == blow, value), share)
}

/// How many samples there are of a blow, with or without load.
pub(super) fn count(rows: &[Row], (loaded, blow): (bool, Blow)) -> f64 {
    rows.iter().filter(|row| row.loaded == loaded && row.blow == blow).count() as f64
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Milliseconds from one moment to another, below zero if that is earlier.
fn apart(from: Duration, to: Duration) -> f64 {
    millis(to.saturating_sub(from)) - millis(from.saturating_sub(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Duration = Duration::from_secs(1_700_000_000);

    fn at(ms: u64) -> Duration {
        EPOCH + Duration::from_millis(ms)
    }

    fn row(path: Vec<usize>, victim: usize, lost: u64) -> Row {
        let felt = Felt {
            gap: Duration::from_millis(150),
            lost,
            delay_before: Duration::from_millis(60),
            delay_detour: Duration::from_millis(110),
            recovered: true,
            ..Felt::default()
        };
        Row {
            loaded: false,
            number: 1,
            blow: Blow::Freeze,
            victim,
            sample: Sample { flow: 0, path, felt, excess_ms: 12.5, settled_excess_ms: 14.0 },
            moments: Some(Moments { last: at(1_000), next: at(1_150) }),
            noticed: Noticed { suspect: Some(at(1_030)), down: Some(at(1_080)) },
            own_stall: Duration::ZERO,
            load_average: None,
        }
    }

    #[test]
    fn the_phases_and_the_growth_make_the_gap() {
        let profile = Profile::world();
        for (path, victim) in [(vec![0, 4, 1], 4), (vec![0, 4, 1, 6], 1)] {
            let row = row(path, victim, 0);

            let phases = row.phases(&profile).unwrap();

            let growth = 50.0;
            assert!((phases.detection + phases.resuming + growth - 150.0).abs() < 1e-6);
        }
    }

    #[test]
    fn the_front_is_the_relay_before_the_victim() {
        assert_eq!((row(vec![0, 4, 1], 4, 0).front(), row(vec![0, 4, 1], 4, 0).front_at()), (0, 0));
        assert_eq!(
            (row(vec![0, 4, 1, 6], 1, 0).front(), row(vec![0, 4, 1, 6], 1, 0).front_at()),
            (4, 1)
        );
    }

    #[test]
    fn a_gap_is_found_again_among_the_arrivals() {
        let arrival = |ms: u64| Arrival { received: ms * 1_000_000, ..Arrival::default() };
        let arrivals = [0, 20, 40, 240, 260, 900].map(arrival);
        let felt = |ms: u64| Felt { gap: Duration::from_millis(ms), ..Felt::default() };

        let found = Moments::of(&arrivals, &felt(200), EPOCH);
        assert_eq!(found, Some(Moments { last: at(40), next: at(240) }));
        assert_eq!(Moments::of(&arrivals, &felt(2_000), EPOCH), None);
    }

    #[test]
    fn a_line_has_a_value_for_every_column() {
        let profile = Profile::world();
        let known = row(vec![0, 4, 1], 4, 3);
        let unknown = Row { noticed: Noticed::default(), moments: None, ..known.clone() };

        for row in [known, unknown] {
            assert_eq!(row.csv(&profile).split(',').count(), COLUMNS.split(',').count());
        }
    }

    #[test]
    fn the_lost_share_is_of_all_frames_sent() {
        let rows = [row(vec![0, 4, 1], 4, 3), row(vec![0, 4, 1], 4, 2)];

        assert_eq!(lost_share(&rows, false, 125.0), Some(0.02));
        assert_eq!(lost_share(&rows, true, 125.0), None);
    }

    #[test]
    fn kinds_without_samples_have_no_line() {
        let rows = [row(vec![0, 4, 1], 4, 0), row(vec![0, 4, 1, 6], 1, 0)];

        let lines = phases_text(&rows, &Profile::world());

        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("frozen, source in front") && lines[2].contains("transit in front")
        );
    }
}
