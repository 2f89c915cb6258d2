//! `overway validate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use overway_config::{ConfigError, Document};

use super::failure::Failure;
use super::output;

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Configuration files of relays, schedulers and edges, and profiles of labs; which is which is seen from what is in them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What a file configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Relay,
    Scheduler,
    Edge,
    Lab,
}

impl Kind {
    /// A relay's file has `[relay]`, and `[scheduler]` for where its schedulers are; a scheduler's has
    /// only that. `[mesh]` tells a relay's file that lacks `[relay]`. A lab's profile has many `[[relay]]`
    /// and what lies between them.
    fn of(table: &toml::Table) -> Option<Self> {
        let has = |key: &str| table.contains_key(key);
        if has("pair") || table.get("relay").is_some_and(toml::Value::is_array) {
            return Some(Self::Lab);
        }
        if has("edge") {
            return Some(Self::Edge);
        }
        match (has("relay") || has("mesh"), has("scheduler")) {
            (true, _) => Some(Self::Relay),
            (false, true) => Some(Self::Scheduler),
            (false, false) => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Scheduler => "scheduler",
            Self::Edge => "edge",
            Self::Lab => "lab profile",
        }
    }
}

/// Checks every file, and fails with the first that is wrong.
pub(crate) fn run(args: &ValidateArgs) -> Result<ExitCode, Failure> {
    for file in &args.files {
        let kind = validate(file)?;
        output::print(&format!("OK {} ({})\n", file.display(), kind.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a file configures, if it is right.
pub(super) fn validate(file: &Path) -> Result<Kind, Failure> {
    let document = Document::read(file).map_err(Failure::configuration)?;
    let table: toml::Table = document.parse().map_err(Failure::configuration)?;
    let kind = Kind::of(&table).ok_or_else(|| {
        Failure::Configuration(format!(
            "{}: has none of [relay], [scheduler], [edge] and [[pair]]; expected the configuration of a \
             relay, a scheduler or an edge, or a lab's profile",
            file.display()
        ))
    })?;
    check(kind, file).map_err(Failure::configuration)?;
    Ok(kind)
}

fn check(kind: Kind, file: &Path) -> Result<(), ConfigError> {
    match kind {
        Kind::Relay => overway_relay::Config::load(file).map(|_| ()),
        Kind::Scheduler => overway_scheduler::Config::load(file).map(|_| ()),
        Kind::Edge => overway_edge::Config::load(file).map(|_| ()),
        Kind::Lab => crate::lab::profile::Profile::load(file).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<Kind> {
        Kind::of(&text.parse().unwrap())
    }

    #[test]
    fn a_files_kind_is_seen_from_its_sections() {
        assert_eq!(kind("[relay]\n[scheduler]\n"), Some(Kind::Relay));
        assert_eq!(kind("[mesh]\n[scheduler]\n"), Some(Kind::Relay));
        assert_eq!(kind("[scheduler]\n[admin]\n"), Some(Kind::Scheduler));
        assert_eq!(kind("[edge]\n[access]\n"), Some(Kind::Edge));
        assert_eq!(kind("[[relay]]\n[[pair]]\n"), Some(Kind::Lab));
        assert_eq!(kind("[city]\n"), None);
    }
}
