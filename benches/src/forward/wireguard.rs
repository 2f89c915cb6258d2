//! wireguard-go as a hop: three of it in network namespaces of their own, in a row, of which the middle one is measured.
//!
//! ```text
//!   source -> tunnel -> UDP -> | tunnel: decrypts, the kernel routes, encrypts | -> UDP -> tunnel -> sink
//! ```
//!
//! So the middle one has a transit relay's task, with one way to go and nothing that watches it. It needs
//! the privileges to make namespaces and tunnels, wireguard-go, and the commands `ip` and `wg`.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};

use super::cores;
use super::foreign::{find, used_by};
use crate::common::socket_at;

/// How long the programs may take to make their tunnels.
const START_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// WireGuard's port, in each namespace.
const PORT: u16 = 51_820;
const SOURCE: usize = 0;
const MIDDLE: usize = 1;
const SINK: usize = 2;

/// The running chain. Dropping it ends the programs and removes the namespaces.
pub(super) struct Tunnel {
    hosts: Vec<Host>,
    keys: tempfile::TempDir,
}

/// One namespace and its program.
struct Host {
    namespace: String,
    interface: String,
    program: Option<Child>,
}

/// A host's address within the tunnels.
fn inner(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, u8::try_from(host + 1).expect("there are three hosts"))
}

impl Tunnel {
    /// Starts the chain: the middle program on a core, the others on that of the load.
    pub(super) fn start(core: usize, load_core: usize) -> anyhow::Result<Self> {
        for name in ["wireguard-go", "wg", "ip"] {
            if find(name).is_none() {
                bail!("wireguard-go: {name} is not installed");
            }
        }
        let keys = tempfile::tempdir()?;
        let mut tunnel = Self { hosts: Vec::new(), keys };
        for name in ["s", "m", "d"] {
            let id = std::process::id();
            let namespace = format!("overway-bench-{id}-{name}");
            ip(&["netns", "add", &namespace]).context("wireguard-go needs network namespaces")?;
            let interface = format!("wg{id}{name}");
            tunnel.hosts.push(Host { namespace, interface, program: None });
        }
        tunnel.lay_lines()?;
        let outcome = tunnel.start_programs(core, load_core);
        cores::pin(load_core)?;
        outcome?;
        tunnel.configure()?;
        Ok(tunnel)
    }

    /// How long the middle program's threads have run so far.
    pub(super) fn used(&self) -> anyhow::Result<Duration> {
        let program = self.hosts[MIDDLE].program.as_ref().context("it was not started")?;
        used_by(program.id())
    }

    /// A socket for the source of the load and one for its sink.
    pub(super) fn sockets(&self) -> anyhow::Result<(UdpSocket, UdpSocket)> {
        Ok((self.hosts[SOURCE].socket(inner(SOURCE))?, self.hosts[SINK].socket(inner(SINK))?))
    }

    /// Two pairs of devices: from the middle to each end.
    fn lay_lines(&self) -> anyhow::Result<()> {
        let middle = &self.hosts[MIDDLE];
        for (net, end) in [(1, SOURCE), (2, SINK)] {
            let (name, end) = (format!("line{net}"), &self.hosts[end]);
            let (near, far) = (end.namespace.as_str(), middle.namespace.as_str());
            ip(&[
                "link", "add", &name, "netns", near, "type", "veth", "peer", &name, "netns", far,
            ])?;
            for (host, number) in [(end, 1), (middle, 2)] {
                host.ip(&["addr", "add", &format!("10.98.{net}.{number}/24"), "dev", &name])?;
                host.ip(&["link", "set", &name, "up"])?;
            }
        }
        middle.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])
    }

    fn start_programs(&mut self, core: usize, load_core: usize) -> anyhow::Result<()> {
        for (at, host) in self.hosts.iter_mut().enumerate() {
            // A child stays where its parent is as it starts.
            cores::pin(if at == MIDDLE { core } else { load_core })?;
            let mut command = host.command("wireguard-go");
            command.args(["-f", &host.interface]).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            host.program = Some(command.spawn().context("cannot start wireguard-go")?);
        }
        let since = Instant::now();
        while self.hosts.iter().any(|host| host.run("wg", &["show", &host.interface]).is_err()) {
            if since.elapsed() > START_MAX {
                bail!("wireguard-go has made no tunnel after {START_MAX:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn configure(&self) -> anyhow::Result<()> {
        let directory = self.keys.path();
        let file = |at: usize| directory.join(at.to_string());
        let mut public = Vec::new();
        for at in 0..self.hosts.len() {
            public.push(make_key(&file(at))?);
        }
        for (at, host) in self.hosts.iter().enumerate() {
            let key = file(at).display().to_string();
            let port = PORT.to_string();
            let mut args = vec!["set", &host.interface, "private-key", &key, "listen-port", &port];
            let peers: Vec<(String, String, &str)> = match at {
                MIDDLE => [(1, SOURCE), (2, SINK)]
                    .map(|(net, end)| {
                        let endpoint = format!("10.98.{net}.1:{PORT}");
                        (endpoint, format!("{}/32", inner(end)), public[end].as_str())
                    })
                    .into(),
                end => {
                    let net = if end == SOURCE { 1 } else { 2 };
                    let endpoint = format!("10.98.{net}.2:{PORT}");
                    vec![(endpoint, "10.99.0.0/24".to_owned(), public[MIDDLE].as_str())]
                }
            };
            for (endpoint, allowed, key) in &peers {
                args.extend(["peer", key, "endpoint", endpoint, "allowed-ips", allowed]);
            }
            host.run("wg", &args)?;
            host.ip(&["addr", "add", &format!("{}/24", inner(at)), "dev", &host.interface])?;
            host.ip(&["link", "set", &host.interface, "up"])?;
        }
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            if let Some(program) = &mut host.program {
                // An error means that it has ended already.
                let _ = program.kill();
                let _ = program.wait();
            }
            // What is left is said by `ip netns`.
            let _ = ip(&["netns", "del", &host.namespace]);
        }
    }
}

impl Host {
    /// A command inside the namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<()> {
        checked(self.command(program).args(args))
    }

    fn ip(&self, args: &[&str]) -> anyhow::Result<()> {
        checked(Command::new("ip").args(["-n", &self.namespace]).args(args))
    }

    /// A socket inside the namespace: it stays there, whoever uses it.
    fn socket(&self, address: Ipv4Addr) -> anyhow::Result<UdpSocket> {
        let namespace = File::open(Path::new("/run/netns").join(&self.namespace))?;
        let make = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            socket_at(SocketAddr::from((address, 0)))
        };
        // The thread alone is in the namespace, and ends at once.
        match std::thread::spawn(make).join() {
            Ok(socket) => socket,
            Err(_) => bail!("the thread that makes a socket has panicked"),
        }
    }
}

/// Makes a private key in a file; returns the public one.
fn make_key(file: &Path) -> anyhow::Result<String> {
    let private = Command::new("wg").arg("genkey").output()?.stdout;
    std::fs::write(file, &private)?;
    let public = Command::new("wg").arg("pubkey").stdin(File::open(file)?).output()?;
    if !public.status.success() {
        bail!("wg pubkey: {}", String::from_utf8_lossy(&public.stderr).trim());
    }
    Ok(String::from_utf8(public.stdout)?.trim().to_owned())
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    checked(Command::new("ip").args(args))
}

fn checked(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
