//! Relays in a row, or in another shape, whose lines are as a benchmark says: shared by those that measure transport.
//!
//! ```text
//!   client -TCP-> gateway of the first relay == transit relay == transit relay == gateway of the last -TCP-> server
//!                        |<-- a line: delay, loss, rate; applied by the receiving relay -->|
//! ```
//!
//! Every relay is a process of its own, this very executable. The scheduler plans two intermediates at most, so paths of
//! more are given to the relays as their last good state ([`files`]), and no scheduler answers. Everything else is as
//! in production: probing, failover, queues, sessions.
//!
//! - A [`plan::Plan`] says which relays there are, the lines between them, and the forwards.
//! - A [`Chain`] is the running mesh. Dropping it kills the processes and removes the directory.
//! - A [`bottleneck::Bottleneck`] is a line that others use too.
//! - [`pour`] has the TCP server and client that a stream is measured with, [`meter`] what processes use of the machine.

pub(crate) mod bottleneck;
pub(crate) mod files;
pub(crate) mod meter;
pub(crate) mod plan;
pub(crate) mod pour;
mod process;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use overway::lab::stage::Stage;

use plan::{Plan, Protocol};
use pour::Pull;
use process::Process;

/// Starts with other ports after another program took one between our letting go and the relay's binding it.
const TRIES_MAX: u32 = 3;
/// Time for all relays to have links and for a first byte to come through.
const START_MAX: Duration = Duration::from_secs(30);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(100);
/// Time for an admin interface to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A running mesh.
pub(crate) struct Chain {
    relays: Vec<Process>,
    places: Vec<Place>,
    forwards: Vec<SocketAddr>,
    directory: tempfile::TempDir,
}

/// Where a relay listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its mesh address.
    pub(crate) mesh: SocketAddr,
    /// Its admin interface.
    pub(crate) admin: SocketAddr,
    /// Where edges attach, if any do.
    pub(crate) access: SocketAddr,
}

impl Chain {
    /// Starts a mesh; returns as soon as its processes run.
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            let chain = Self::try_start(plan)?;
            match chain.wait_listening() {
                Ok(()) => return Ok(chain),
                Err(error) if tries == TRIES_MAX => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn try_start(plan: &Plan) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("overway-bench-").tempdir()?;
        let places = places(plan.relays())?;
        let forwards = plan.forwards.iter().map(|forward| free(forward.protocol));
        let forwards = forwards.collect::<anyhow::Result<Vec<_>>>()?;
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let listening = |held: &[Held]| held.iter().map(Held::address).collect::<Vec<_>>();
        let addresses = listening(&forwards);
        let held_places: Vec<Place> = places.iter().map(HeldPlace::place).collect();
        let texts =
            files::write(directory.path(), plan, &held_places, &addresses, silent.local_addr()?)?;
        // Nobody listens at the scheduler's address from here on, and the ports are free for the relays.
        drop((places, forwards, silent));
        let relays =
            texts.iter().map(|path| Process::relay(path)).collect::<anyhow::Result<_>>()?;
        Ok(Self { relays, places: held_places, forwards: addresses, directory })
    }

    /// Waits until every relay answers on its admin interface.
    fn wait_listening(&self) -> anyhow::Result<()> {
        let end = Instant::now() + START_MAX;
        for relay in 0..self.relays.len() {
            while get(self.places[relay].admin, "/livez").is_err() {
                let exited = self.relays[relay].has_ended();
                if exited || Instant::now() > end {
                    let tail = self.relays[relay].log_tail();
                    bail!("relay {relay} does not come up; the end of its log:\n{tail}");
                }
                std::thread::sleep(LOOK / 4);
            }
        }
        Ok(())
    }

    /// Opens a connection through a forward of TCP, again and again until a byte has come: links come up, routes are used.
    pub(crate) fn pull(&self, forward: usize, stage: &Stage) -> anyhow::Result<Pull> {
        let end = Instant::now() + START_MAX;
        loop {
            let pull = Pull::start(self.forwards[forward])?;
            while !pull.is_over() {
                if pull.bytes() > 0 {
                    return Ok(pull);
                }
                stage.pause(LOOK / 10)?;
                if Instant::now() > end {
                    bail!("nothing comes through the mesh; logs end with:\n{}", self.log_tails());
                }
            }
            stage.pause(LOOK)?;
        }
    }

    /// The address of a forward.
    pub(crate) fn forward(&self, forward: usize) -> SocketAddr {
        self.forwards[forward]
    }

    /// Where a relay listens.
    pub(crate) fn place(&self, relay: usize) -> Place {
        self.places[relay]
    }

    /// Where edges attach to a relay.
    pub(crate) fn access(&self, relay: usize) -> SocketAddr {
        self.places[relay].access
    }

    /// The mesh's CA, a file that lasts as long as the mesh.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join("relay-0").join("ca.pem")
    }

    /// The process ids of the relays.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.relays.iter().map(Process::id).collect()
    }

    /// Stops a relay without its knowledge.
    pub(crate) fn freeze(&self, relay: usize) -> anyhow::Result<()> {
        self.relays[relay].freeze()
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, relay: usize) -> anyhow::Result<()> {
        self.relays[relay].thaw()
    }

    /// A relay's counters by name and labels.
    pub(crate) fn counters(&self, relay: usize) -> anyhow::Result<BTreeMap<String, f64>> {
        let text = get(self.places[relay].admin, "/metrics")?;
        Ok(meter::parse_exposition(&text))
    }

    /// The ends of all relays' logs.
    pub(crate) fn log_tails(&self) -> String {
        let tail = |(relay, process): (usize, &Process)| {
            format!("relay {relay}:\n{}\n", process.log_tail())
        };
        self.relays.iter().enumerate().map(tail).collect()
    }
}

/// A port that is held until a relay is started.
#[expect(dead_code, reason = "the sockets are held, not used")]
enum Held {
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpListener, SocketAddr),
}

impl Held {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(_, address) | Self::Tcp(_, address) => *address,
        }
    }
}

struct HeldPlace {
    mesh: Held,
    admin: Held,
    access: Held,
}

impl HeldPlace {
    fn place(&self) -> Place {
        Place {
            mesh: self.mesh.address(),
            admin: self.admin.address(),
            access: self.access.address(),
        }
    }
}

fn places(count: usize) -> anyhow::Result<Vec<HeldPlace>> {
    let place = |_| {
        let (mesh, admin) = (free(Protocol::Udp)?, free(Protocol::Tcp)?);
        Ok(HeldPlace { mesh, admin, access: free(Protocol::Udp)? })
    };
    (0..count).map(place).collect()
}

fn free(protocol: Protocol) -> anyhow::Result<Held> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    Ok(match protocol {
        Protocol::Udp => {
            let socket = UdpSocket::bind(any)?;
            let address = socket.local_addr()?;
            Held::Udp(socket, address)
        }
        Protocol::Tcp => {
            let listener = TcpListener::bind(any)?;
            let address = listener.local_addr()?;
            Held::Tcp(listener, address)
        }
    })
}

/// The body of what an admin interface answers.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{address}{path} answers {:?}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
