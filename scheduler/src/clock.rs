//! The wall clock, which only expiry and certificates go by.

use std::time::SystemTime;

use crate::store::UnixSeconds;

/// The time now, by this machine's wall clock.
pub(crate) fn unix_seconds() -> UnixSeconds {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since_1970.map_or(0, |since| since.as_secs()))
}
