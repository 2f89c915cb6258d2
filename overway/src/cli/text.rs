//! Text for people: columns that line up, and times with units.

use std::time::Duration;

/// Rows of cells under a heading, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes a table with this heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Adds a row, of what a terminal can be shown.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// Lines with two spaces between columns and none at the end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
        let width = |at: usize| cells(at).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: String =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}  ")).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text with a mark in place of every control character: names that others chose do not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A duration in its two largest units: `1h 30m`, `42s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let pair = |large: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => pair(minutes, 'm', seconds % 60, 's'),
        (0, _, _) => pair(hours, 'h', minutes, 'm'),
        (_, _, _) => pair(days, 'd', hours, 'h'),
    }
}

/// Reads a number and `s`, `m`, `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: give a number and s, m, h or d, such as 30m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).filter(|&s| s > 0).map(Duration::from_secs).ok_or_else(wrong)
}

/// A moment in milliseconds since 1970, as RFC 3339 has it, in UTC: `2026-01-31T23:59:59.999Z`.
pub(crate) fn moment(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Years begin in March, so that the day that may be missing is the last ("chrono-Compatible Low-Level Date
    // Algorithms", H. Hinnant).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

/// Microseconds as milliseconds: `12.3 ms`.
pub(crate) fn millis(micros: u32) -> String {
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

/// A difference in microseconds as milliseconds, with its sign: `+12.3 ms`.
pub(crate) fn change(micros: i64) -> String {
    let magnitude = u32::try_from(micros.unsigned_abs()).unwrap_or(u32::MAX);
    let sign = if micros < 0 { '-' } else { '+' };
    format!("{sign}{}", millis(magnitude))
}

/// A cost in milliseconds without its unit, for columns: `12.34`; a dash for nothing.
pub(crate) fn cost(micros: u32) -> String {
    match micros {
        0 => "-".to_owned(),
        _ => format!("{}.{:02}", micros / 1_000, micros % 1_000 / 10),
    }
}

/// Bits per second in the largest unit that leaves a whole number: `12.3 Mbit/s`.
pub(crate) fn rate(bps: u64) -> String {
    let (unit, name) = match bps {
        0..1_000 => return format!("{bps} bit/s"),
        1_000..1_000_000 => (1_000, "kbit/s"),
        1_000_000..1_000_000_000 => (1_000_000, "Mbit/s"),
        1_000_000_000.. => (1_000_000_000, "Gbit/s"),
    };
    match bps % unit * 10 / unit {
        0 => format!("{} {name}", bps / unit),
        tenth => format!("{}.{tenth} {name}", bps / unit),
    }
}

/// Thousandths as per cent: `12.3%`.
pub(crate) fn percent(permille: u16) -> String {
    format!("{}.{}%", permille / 10, permille % 10)
}

/// A count with its noun: `1 route`, `2 routes`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_steer_the_terminal() {
        let mut table = Table::new(&["NAME", "B"]);
        table.row(["a\x1b]0;x\x07\n".to_owned(), "b".to_owned()]);

        assert_eq!(table.render(), "NAME      B\na\u{fffd}]0;x\u{fffd}\u{fffd}  b\n");
    }

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let mut table = Table::new(&["NAME", "ID"]);
        table.row(["são-paulo".into(), "7".into()]);

        assert_eq!(table.render(), "NAME       ID\nsão-paulo  7\n");
    }

    #[test]
    fn times_are_written_in_two_units_and_read_in_one() {
        for (seconds, text) in [(42, "42s"), (90, "1m 30s"), (3_600, "1h"), (90_000, "1d 1h")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(parse_duration("30m"), Ok(Duration::from_secs(1_800)));
        for wrong in
            ["", "m", "30", "0s", "1.5h", "5ü", "99999999999999999999s", "9999999999999999999d"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_shares_costs_and_changes_have_units_that_fit() {
        let rates = [0, 999, 1_000, 12_340_000, 2_000_000_000].map(rate);
        assert_eq!(rates, ["0 bit/s", "999 bit/s", "1 kbit/s", "12.3 Mbit/s", "2 Gbit/s"]);
        assert_eq!((percent(125), percent(1_000)), ("12.5%".into(), "100.0%".into()));
        assert_eq!((cost(0), cost(40_257)), ("-".into(), "40.25".into()));
        assert_eq!((change(-1_500), change(20_000)), ("-1.5 ms".into(), "+20.0 ms".into()));
        assert_eq!((count(1, "route"), count(0, "route")), ("1 route".into(), "0 routes".into()));
    }

    #[test]
    fn moments_are_dates_in_utc() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(moment(unix_ms), text);
        }
    }

    #[test]
    fn milliseconds_have_one_decimal() {
        assert_eq!((millis(12_345), millis(900)), ("12.3 ms".into(), "0.9 ms".into()));
    }
}
