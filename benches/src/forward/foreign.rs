//! Programs of others as measured processes: found on the path, started for plain UDP, and charged with what
//! the kernel says their threads have run.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::cores;

/// Where distributions put programs that are not on everybody's path.
const SYSTEM_PATHS: &str = "/usr/sbin:/sbin:/usr/local/sbin";
/// nginx's stream module, where it is not built in.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A program that forwards plain UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Copies between two sockets.
    Socat,
    /// Its UDP proxy.
    Nginx,
}

/// A running program. Dropping it kills it.
pub(super) struct Foreign {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Program {
    /// Its name for people, and that of its executable.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Socat => "socat",
            Self::Nginx => "nginx",
        }
    }

    fn arguments(
        self,
        from: SocketAddr,
        to: SocketAddr,
        directory: &Path,
    ) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Socat => {
                let (host, port) = (from.ip(), from.port());
                let listen = format!("UDP4-LISTEN:{port},bind={host},rcvbuf=4194304");
                vec!["-b65507".into(), listen, format!("UDP4:{to}")]
            }
            Self::Nginx => {
                let path = directory.join("nginx.conf");
                fs::write(&path, nginx_config(from, to, directory))?;
                let directory = directory.display().to_string();
                vec!["-p".into(), directory, "-c".into(), path.display().to_string()]
            }
        })
    }
}

impl Foreign {
    /// Starts a program on a core; it takes datagrams at the address returned and sends them to `to`.
    pub(super) fn start(
        program: Program,
        to: SocketAddr,
        core: usize,
        load_core: usize,
    ) -> anyhow::Result<(Self, SocketAddr)> {
        let Some(executable) = find(program.name()) else {
            bail!("{} is not installed", program.name())
        };
        let directory = tempfile::tempdir()?;
        // Free a moment ago; should somebody take it before the program does, nothing arrives and it is said.
        let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(executable);
        command
            .args(program.arguments(from, to, directory.path())?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // The child stays where its parent is as it starts.
        cores::pin(core)?;
        let child = command.spawn();
        cores::pin(load_core)?;
        let child = child.with_context(|| format!("cannot start {}", program.name()))?;
        Ok((Self { child, _directory: directory }, from))
    }

    /// How long its threads have run so far.
    pub(super) fn used(&self) -> anyhow::Result<Duration> {
        used_by(self.child.id())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long the threads of a process have run so far.
pub(super) fn used_by(process: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{process}/task");
    let tasks = fs::read_dir(&tasks).with_context(|| format!("{tasks}: the program has ended"))?;
    let mut sum = Duration::ZERO;
    for task in tasks {
        let text = fs::read_to_string(task?.path().join("schedstat"));
        let text = text.context("this kernel does not say how long a thread has run")?;
        sum += parse_schedstat(&text).context("schedstat reads otherwise than expected")?;
    }
    Ok(sum)
}

/// The first number is nanoseconds on a processor.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(SYSTEM_PATHS.split(':')).filter(|place| !place.is_empty());
    places.map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

fn nginx_config(from: SocketAddr, to: SocketAddr, directory: &Path) -> String {
    let module = match Path::new(NGINX_STREAM).is_file() {
        true => format!("load_module {NGINX_STREAM};\n"),
        false => String::new(),
    };
    let directory = directory.display();
    format!(
        "{module}daemon off;\nmaster_process off;\nerror_log stderr;\npid {directory}/nginx.pid;\n\
         events {{ }}\n\
         stream {{ server {{\n listen {from} udp rcvbuf=4m;\n proxy_pass {to};\n \
         proxy_timeout 10m;\n}} }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_has_run_is_the_first_number() {
        assert_eq!(parse_schedstat("1500 20 3\n"), Some(Duration::from_nanos(1_500)));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
