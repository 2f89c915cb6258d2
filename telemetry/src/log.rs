//! The level of the log, which can be changed while a process runs.
//!
//! There is one log in a process, so there is one of these: the program that starts logging says how its filter is
//! changed, and every admin interface changes it by that.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Takes a filter, or says why it is none.
type Change = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

struct Log {
    filter: Mutex<String>,
    change: Change,
}

/// What is logged if nobody says anything.
pub const FILTER: &str = "info";

static LOG: OnceLock<Log> = OnceLock::new();

/// The log's filter cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nobody has said how: the log is another program's.
    #[error("the log of this process is not ours to change")]
    Foreign,
    /// It is no filter.
    #[error("{0}")]
    Filter(String),
}

/// Says how the log's filter is changed, and what it is now. The first to say so counts.
pub fn install(filter: &str, change: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) {
    let log = Log { filter: Mutex::new(filter.to_owned()), change: Box::new(change) };
    // A second program in one process has the first one's log.
    let _ = LOG.set(log);
}

/// The log's filter as it is now, if it is known.
pub fn filter() -> Option<String> {
    LOG.get().map(|log| log.filter.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes the log's filter until the process ends.
///
/// # Errors
/// It is no filter, or the log is not ours.
pub fn set_filter(filter: &str) -> Result<(), LogError> {
    let log = LOG.get().ok_or(LogError::Foreign)?;
    let mut held = log.filter.lock().unwrap_or_else(PoisonError::into_inner);
    (log.change)(filter).map_err(LogError::Filter)?;
    filter.clone_into(&mut held);
    Ok(())
}

/// Goes on with the filter of another configuration; without one, with the one that counts if nobody says any. What was
/// changed at run time stays as long as the configuration says the same.
#[cfg(feature = "admin")]
pub fn reload(held: Option<&str>, next: Option<&str>, told: &mut crate::reload::Reloaded) {
    if held == next {
        return;
    }
    match set_filter(next.unwrap_or(FILTER)) {
        Ok(()) => told.applied.push("log.filter".to_owned()),
        // The log is another program's.
        Err(_) => told.needs_restart.push("log.filter".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_taken_or_stays_as_it_was() {
        assert_eq!((filter(), set_filter("debug")), (None, Err(LogError::Foreign)));
        install("info", |filter| match filter {
            "" => Err("empty".into()),
            _ => Ok(()),
        });

        assert_eq!(set_filter("debug"), Ok(()));
        assert_eq!(set_filter(""), Err(LogError::Filter("empty".into())));
        assert_eq!(filter().as_deref(), Some("debug"));
    }
}
