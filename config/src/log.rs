//! `[log]`: what a process logs, unless `--log` or `OVERWAY_LOG` says so.
//!
//! ```toml
//! [log]
//! filter = "info,overway_relay=debug"   # or a level
//! ```

use serde::Deserialize;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use crate::{ConfigError, Document};

/// A `[log]` as it is written, the same in every process's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLog {
    filter: Spanned<String>,
}

impl RawLog {
    /// The filter, which is one.
    ///
    /// # Errors
    /// It is not.
    pub fn filter(self, document: &Document) -> Result<String, ConfigError> {
        let given = self.filter.get_ref();
        let problem = match EnvFilter::try_new(given) {
            Ok(_) if !given.trim().is_empty() => return Ok(self.filter.into_inner()),
            Ok(_) => "it is empty".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!(
            "{given:?} is no filter ({problem}); expected a level such as info, or one such as \
             \"info,overway_relay=debug\""
        );
        Err(document.error(self.filter.span(), message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Raw {
            log: RawLog,
        }
        let document = Document::new("relay.toml", text);
        let raw: Raw = document.parse().unwrap();
        raw.log.filter(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn levels_and_filters_are_taken_and_others_are_named_with_their_line() {
        for good in ["info", "warn,overway_relay=debug"] {
            assert_eq!(filter(&format!("[log]\nfilter = {good:?}")).as_deref(), Ok(good));
        }
        for bad in ["", "overway=loud"] {
            let error = filter(&format!("[log]\nfilter = {bad:?}")).unwrap_err();
            assert!(error.starts_with("relay.toml:2: log.filter: "), "{error}");
            assert!(error.contains("expected a level"), "{error}");
        }
    }
}
