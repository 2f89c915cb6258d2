//! Logs go to standard error. What is logged can be changed while a process runs, through its admin interface.

use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::ValueEnum;
use overway_telemetry::log;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether the command line or the environment says what is logged.
static IS_SAID: OnceLock<bool> = OnceLock::new();

/// Starts logging what the command line or the environment says. If another program embeds this one and logs already,
/// its way of logging stays.
pub(crate) fn init(said: Option<&str>, format: LogFormat) -> Result<(), Failure> {
    // A second command in one process has the first one's log.
    let _ = IS_SAID.set(said.is_some());
    let filter = said.unwrap_or(log::FILTER);
    let parsed = parse(filter).map_err(|error| {
        Failure::Configuration(format!("--log {filter:?} is no filter {error}"))
    })?;
    #[cfg(feature = "otlp")]
    if exporting::start(filter, format)? {
        return Ok(());
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours(&std::io::stderr()));
    match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            // Fails only if somebody has started logging before.
            if builder.try_init().is_ok() {
                install(filter, move |new| handle.reload(new));
            }
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            if builder.try_init().is_ok() {
                install(filter, move |new| handle.reload(new));
            }
        }
    }
    Ok(())
}

/// Goes on with what a configuration says, if neither the command line nor the environment does.
pub(crate) fn configure(filter: Option<&str>) -> Result<(), Failure> {
    match (filter, IS_SAID.get()) {
        (Some(filter), Some(false)) => log::set_filter(filter).map_err(Failure::failed),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// Whether what is written there may have colours: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Lets the filter be changed.
fn install(
    filter: &str,
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync + 'static,
) {
    log::install(filter, move |new| {
        let parsed = parse(new).map_err(|error| format!("{new:?} is no filter {error}"))?;
        reload(parsed).map_err(|error| error.to_string())?;
        tracing::info!(filter = new, "what is logged was changed");
        Ok(())
    });
}

/// Reads a filter; an empty one would log nothing, which nobody means.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    let hint = "give a level such as info, or \"info,overway_scheduler=debug\"";
    if filter.trim().is_empty() {
        return Err(format!("(it is empty): {hint}"));
    }
    EnvFilter::try_new(filter).map_err(|error| format!("({error}): {hint}"))
}

/// Logging beside an exporter: each has a filter of its own, and they are changed together.
#[cfg(feature = "otlp")]
mod exporting {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    use tracing_subscriber::{Layer, Registry, fmt, reload};

    use super::{Failure, LogFormat, has_colours, install, parse};
    use crate::cli::otlp;

    /// Starts both, if the exporter is to run; says whether it is.
    pub(super) fn start(filter: &str, format: LogFormat) -> Result<bool, Failure> {
        let parsed = || parse(filter).map_err(Failure::Configuration);
        let (written, lines) = reload::Layer::new(parsed()?);
        let layer =
            fmt::layer().with_writer(std::io::stderr).with_ansi(has_colours(&std::io::stderr()));
        let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
            LogFormat::Text => layer.with_filter(written).boxed(),
            LogFormat::Json => layer.json().with_filter(written).boxed(),
        };
        let Some(exporter) = otlp::exporter(parsed()?)? else { return Ok(false) };
        // Fails only if somebody has started logging before.
        if tracing_subscriber::registry().with(layer).with(exporter.layer).try_init().is_ok() {
            install(filter, move |new| {
                lines.reload(new.clone())?;
                exporter.logs.reload(new)
            });
        }
        Ok(true)
    }
}
