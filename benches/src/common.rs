//! What every benchmark shares: arguments, the console, the machine, and how it ends.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use overway::lab::Spawner;
use overway::lab::figures::Figures;
use overway::lab::flow::percentile;
use overway::lab::stage::Stage;

/// The first argument that makes this executable the `overway` program.
pub(crate) const EMBEDDED: &str = "overway";

/// Arguments of every benchmark.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Under a minute, with fewer repetitions.
    #[arg(long, global = true)]
    pub(crate) quick: bool,
    /// Write the figures to this file.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Common {
    /// Prints the figures, writes them, and says whether every promise was kept.
    pub(crate) fn finish(&self, figures: &Figures, stage: &Stage) -> anyhow::Result<ExitCode> {
        stage.clear();
        stage.say("");
        figures.print(stage);
        if let Some(path) = &self.json {
            figures.write(path)?;
        }
        Ok(if figures.are_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The console of a benchmark, which Ctrl-C and SIGTERM stop.
pub(crate) fn stage() -> anyhow::Result<Stage> {
    let stage = Stage::new();
    let stop = stage.stop().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        use tokio::signal::unix::{SignalKind, signal};
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    let wait = move || {
        let [interrupt, terminate] = &mut signals;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.set();
    };
    // Ends with the process.
    std::thread::Builder::new().name("bench-signals".into()).spawn(wait)?;
    Ok(stage)
}

/// How a mesh's processes are started: as this executable, logging what `filter` lets through.
pub(crate) fn spawner(filter: &str) -> anyhow::Result<Spawner> {
    let exe = std::env::current_exe().context("where this executable is")?;
    let prefix = [EMBEDDED, "--log", filter].map(OsString::from).into();
    Ok(Spawner { exe, prefix })
}

/// The machine's load average of the last minute, where the system tells it.
pub(crate) fn load_average() -> Option<f64> {
    first_number(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

/// A line about the machine, without which figures say little.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = load_average().map_or(String::new(), |load| format!(", load average {load:.2}"));
    format!("{cores} cores{load}")
}

/// "p50 / p99" of values, for people.
pub(crate) fn spread(values: &[f64]) -> String {
    match (percentile(values, 0.5), percentile(values, 0.99)) {
        (Some(p50), Some(p99)) => format!("{p50:.1} / {p99:.1}"),
        _ => "-".to_owned(),
    }
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Bytes of kernel buffers that are asked for, as a relay does.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// A UDP socket on loopback with large buffers, as a relay's.
pub(crate) fn socket() -> anyhow::Result<UdpSocket> {
    socket_at((Ipv4Addr::LOCALHOST, 0).into())
}

/// The same at another address.
pub(crate) fn socket_at(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    use rustix::net::sockopt;
    let socket = UdpSocket::bind(address).context("no UDP socket to be had")?;
    // Beyond the system's limit only for the privileged; else up to it, or as it is.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES));
    let _ = sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES));
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_average_is_the_first_number() {
        assert_eq!(first_number("1.52 1.42 2.18 1/123 4567\n"), Some(1.52));
        assert_eq!(first_number(""), None);
    }

    #[test]
    fn a_spread_of_nothing_is_a_dash() {
        assert_eq!(spread(&[]), "-");
        assert_eq!(spread(&[3.0, 1.0, 2.0]), "2.0 / 3.0");
    }
}
