//! Calendar months of UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A month of a year, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: u32,
    month: u32,
}

/// The text is not `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a month such as 2026-01")]
pub struct MonthError;

impl Month {
    /// The month of a moment; one before 1970 counts as that.
    pub fn of(moment: SystemTime) -> Self {
        let seconds = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Days since 1 March of year 0, so that a leap day ends its year: H. Hinnant, "chrono-compatible
        // low-level date algorithms", civil_from_days.
        let days = seconds / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { year: small(year), month: small(month) }
    }
}

impl Month {
    /// Years since 0, times twelve, and months since January: as relays report it.
    pub const fn number(self) -> u32 {
        self.year.saturating_mul(12).saturating_add(self.month - 1)
    }

    /// The month of this [`Self::number`].
    pub const fn from_number(number: u32) -> Self {
        Self { year: number / 12, month: number % 12 + 1 }
    }
}

impl Default for Month {
    /// January of year 0.
    fn default() -> Self {
        Self::from_number(0)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let (year, month) = text.split_once('-').ok_or(MonthError)?;
        let year = year.parse().map_err(|_| MonthError)?;
        let month = month.parse().map_err(|_| MonthError)?;
        if (1..=12).contains(&month) { Ok(Self { year, month }) } else { Err(MonthError) }
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl TryFrom<String> for Month {
    type Error = MonthError;

    fn try_from(text: String) -> Result<Self, MonthError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn months_are_those_of_the_calendar() {
        // Seconds as `date -u +%s` gives them.
        let cases = [
            (0, "1970-01"),
            (2_678_399, "1970-01"),
            (2_678_400, "1970-02"),
            (951_782_399, "2000-02"),
            (951_868_799, "2000-02"),
            (951_868_800, "2000-03"),
            (1_709_164_800, "2024-02"),
            (1_709_251_200, "2024-03"),
            (1_767_225_599, "2025-12"),
            (1_767_225_600, "2026-01"),
            (4_107_542_399, "2100-02"),
            (4_107_542_400, "2100-03"),
        ];
        for (seconds, month) in cases {
            let moment = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Month::of(moment).to_string(), month, "{seconds}");
        }
        assert_eq!(Month::of(UNIX_EPOCH - Duration::from_secs(9)).to_string(), "1970-01");
    }

    #[test]
    fn a_month_is_read_back_and_what_is_none_is_refused() {
        assert_eq!("2026-11".parse::<Month>().map(|month| month.to_string()), Ok("2026-11".into()));
        let month = |text: &str| text.parse::<Month>().unwrap();
        assert!(month("2026-11") < month("2027-01"));
        assert_eq!(month("2026-11").number() + 2, month("2027-01").number());
        assert_eq!(Month::from_number(month("2026-12").number()), month("2026-12"));
        for text in ["", "2026", "2026-00", "2026-13", "x-1", "2026-1-1"] {
            assert_eq!(text.parse::<Month>(), Err(MonthError), "{text}");
        }
    }
}
