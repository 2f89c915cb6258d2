//! How a command fails: one line and an exit code.

use std::process::ExitCode;

/// Why a command did not do it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or configuration: exit code 2.
    Configuration(String),
    /// Anything else: exit code 1.
    Failed(String),
}

impl Failure {
    /// A wrong usage or configuration.
    pub(crate) fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self::Configuration(chain(&error.into()))
    }

    /// A failure.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(chain(&error.into()))
    }

    /// What is wrong.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Configuration(text) | Self::Failed(text) => text,
        }
    }

    /// Prints the line and returns the code.
    pub(crate) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Configuration(text) => (2, text),
            Self::Failed(text) => (1, text),
        };
        eprintln!("error: {}", one_line(&text));
        ExitCode::from(code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

/// The error and what caused it. Many errors tell their cause themselves; it is not told twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = anyhow::anyhow!("no such file");
        let error = cause.context("ca.key: read: no such file").context("no mesh here");

        assert_eq!(chain(&error), "no mesh here: ca.key: read: no such file");
    }

    #[test]
    fn an_error_of_several_lines_is_told_in_one() {
        assert_eq!(one_line("first\n  second\n\n"), "first; second");
    }
}
