//! One measured process with the load around it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use overway::lab::stage::Stage;
use overway_wire::Class;

use super::child::{Measured, Usage};
use super::cores::Cores;
use super::foreign::{Foreign, Program};
use super::mesh::{Mesh, SINK, SOURCE};
use super::peer::{Peer, Shape};
use super::traffic::{Pace, Source, Traffic, drive};
use super::udp;
use super::wireguard::Tunnel;

/// Everything stands within this.
const READY_MAX: Duration = Duration::from_secs(10);
/// Bytes of the datagrams that show whether anything is forwarded.
const FIRST_BYTES: usize = 64;
const READY_LOOK: Duration = Duration::from_millis(10);
/// After the links stand, until both ends agree on it.
const SETTLING: Duration = Duration::from_millis(300);
/// An admin interface that nobody asks.
const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// What is still under way arrives within this, as a rule.
const DRAINING: Duration = Duration::from_millis(60);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A whole relay.
    Relay,
    /// One that logs into a file, and whose metrics can be read.
    Observed,
    /// Two QUIC connections and nothing between them.
    Quinn,
    /// A UDP socket.
    Udp,
    /// Nothing: one connection from the generator to the sink.
    Direct,
}

impl Kind {
    /// Its name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Observed => "observed",
            Self::Quinn => "quinn",
            Self::Udp => "udp",
            Self::Direct => "direct",
        }
    }
}

/// One measured process with the load around it.
pub(crate) struct Stand {
    process: Process,
    pub(crate) traffic: Rc<Traffic>,
    /// Where the metrics of an observed relay are.
    pub(crate) admin: Option<SocketAddr>,
    ends: Ends,
}

/// What stands between the ends.
enum Process {
    Ours(Box<Measured>),
    Foreign(Foreign),
    Tunnel(Tunnel),
    Nothing,
}

enum Ends {
    Quic { source: Rc<Peer>, sink: Rc<Peer> },
    Udp { ends: udp::Ends, to: SocketAddr },
}

/// A load, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) shape: Shape,
    pub(crate) pace: Pace,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    pub(crate) span: Duration,
}

/// What a load has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// Processor time of the measured process for each frame that arrived, in microseconds.
    pub(crate) us_per_frame: f64,
    /// Frames that arrived, each second.
    pub(crate) frames_per_s: f64,
    /// Share of the time that the measured process was running.
    pub(crate) busy: f64,
    /// Share of the frames that did not arrive.
    pub(crate) lost: f64,
}

impl Reading {
    /// What readings of equal length have shown together; `None` of none.
    pub(crate) fn mean(parts: &[Self]) -> Option<Self> {
        let sum = |value: fn(&Self) -> f64| parts.iter().map(value).sum::<f64>();
        let (count, frames) = (parts.len() as f64, sum(|part| part.frames_per_s));
        (!parts.is_empty()).then(|| Self {
            us_per_frame: sum(|part| part.us_per_frame * part.frames_per_s) / frames,
            frames_per_s: frames / count,
            busy: sum(|part| part.busy) / count,
            lost: sum(|part| part.lost) / count,
        })
    }
}

impl Stand {
    /// Starts a process on a core, and ends around it on the local set at hand.
    pub(crate) async fn start(
        kind: Kind,
        offload: bool,
        mesh: &Mesh,
        core: usize,
    ) -> anyhow::Result<Self> {
        let traffic = Rc::new(Traffic::new());
        let stand = match kind {
            Kind::Udp => Self::start_udp(traffic, offload, core).await?,
            Kind::Relay | Kind::Observed | Kind::Quinn | Kind::Direct => {
                let start = |id| {
                    let hop = matches!(kind, Kind::Relay | Kind::Observed);
                    Peer::start(&mesh.credentials(id)?, &traffic, hop, offload)
                };
                let ((source, from), (sink, to)) = (start(SOURCE)?, start(SINK)?);
                let mut admin = None;
                let process = match kind {
                    Kind::Direct => {
                        source.dial(&mesh.credentials(SOURCE)?, SINK, to).await?;
                        Process::Nothing
                    }
                    Kind::Quinn => {
                        Process::Ours(Box::new(start_quinn(mesh, (from, to), offload, core)?))
                    }
                    Kind::Observed => {
                        let (process, metrics) = start_observed(mesh, (from, to), offload, core)?;
                        admin = Some(metrics);
                        Process::Ours(Box::new(process))
                    }
                    Kind::Relay | Kind::Udp => {
                        Process::Ours(Box::new(start_relay(mesh, (from, to), offload, core)?))
                    }
                };
                Self { process, traffic, admin, ends: Ends::Quic { source, sink } }
            }
        };
        stand.ready().await?;
        Ok(stand)
    }

    async fn start_udp(traffic: Rc<Traffic>, offload: bool, core: usize) -> anyhow::Result<Self> {
        let ends = udp::Ends::start(&traffic, offload)?;
        let mut args: Vec<OsString> = vec!["udp".into(), "--to".into()];
        args.push(ends.sink().to_string().into());
        args.extend((!offload).then(|| "--single".into()));
        let mut process = Measured::start(core, args)?;
        let to = process.address().await?;
        Ok(Self {
            process: Process::Ours(Box::new(process)),
            traffic,
            admin: None,
            ends: Ends::Udp { ends, to },
        })
    }

    /// Starts a program of others, with ends of plain UDP around it.
    pub(crate) async fn start_foreign(program: Program, cores: Cores) -> anyhow::Result<Self> {
        let traffic = Rc::new(Traffic::new());
        let ends = udp::Ends::start(&traffic, true)?;
        let (process, to) = Foreign::start(program, ends.sink(), cores.subject, cores.load)?;
        let stand = Self {
            process: Process::Foreign(process),
            traffic,
            admin: None,
            ends: Ends::Udp { ends, to },
        };
        stand.forwards(program.name()).await?;
        Ok(stand)
    }

    /// Starts wireguard-go between two more of it, with ends of plain UDP around them.
    pub(crate) async fn start_wireguard(cores: Cores) -> anyhow::Result<Self> {
        let traffic = Rc::new(Traffic::new());
        let tunnel = Tunnel::start(cores.subject, cores.load)?;
        let ends = udp::Ends::between(tunnel.sockets()?, &traffic, true)?;
        let to = ends.sink();
        let stand = Self {
            process: Process::Tunnel(tunnel),
            traffic,
            admin: None,
            ends: Ends::Udp { ends, to },
        };
        stand.forwards("wireguard-go").await?;
        Ok(stand)
    }

    /// Waits until the first datagram arrives.
    async fn forwards(&self, name: &str) -> anyhow::Result<()> {
        let mut source =
            self.source(Shape { payload: FIRST_BYTES, class: Class::Bulk, flows: 1 })?;
        let since = Instant::now();
        while self.traffic.counts().1 == 0 {
            if since.elapsed() > READY_MAX {
                bail!("{name} forwards nothing after {READY_MAX:?}");
            }
            source.emit(&self.traffic, 1);
            tokio::time::sleep(READY_LOOK).await;
        }
        Ok(())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let Ends::Quic { source, sink } = &self.ends else { return Ok(()) };
        let since = Instant::now();
        let stands = || {
            let both = |class| source.is_ready(class) && sink.is_ready(class);
            [Class::Realtime, Class::Bulk].into_iter().all(both)
        };
        while !stands() {
            if since.elapsed() > READY_MAX {
                bail!("its connections do not stand after {READY_MAX:?}");
            }
            tokio::time::sleep(READY_LOOK).await;
        }
        tokio::time::sleep(SETTLING).await;
        Ok(())
    }

    /// What the process has used until now.
    pub(crate) async fn usage(&mut self) -> anyhow::Result<Usage> {
        match &mut self.process {
            Process::Ours(process) => process.usage().await,
            Process::Foreign(process) => Ok(Usage { cpu: process.used()?, resident_bytes: None }),
            Process::Tunnel(tunnel) => Ok(Usage { cpu: tunnel.used()?, resident_bytes: None }),
            Process::Nothing => bail!("nothing is measured here"),
        }
    }

    /// What makes frames of this shape.
    fn source(&self, shape: Shape) -> anyhow::Result<Box<dyn Source>> {
        match &self.ends {
            Ends::Quic { source, .. } => Ok(source.source(shape)),
            Ends::Udp { ends, to } => ends.source(*to, shape.payload),
        }
    }

    /// Sends so many frames as fast as they get through.
    pub(crate) async fn send(
        &mut self,
        shape: Shape,
        frames: u64,
        stage: &Stage,
    ) -> anyhow::Result<()> {
        let mut source = self.source(shape)?;
        let enough = async {
            while self.traffic.counts().0 < frames {
                if stage.stop().is_set() {
                    bail!("stopped");
                }
                tokio::time::sleep(READY_LOOK).await;
            }
            Ok(())
        };
        tokio::select! {
            sent = enough => sent,
            () = drive(&mut *source, &self.traffic, Pace::Saturated) => bail!("the generator has ended"),
        }
    }

    /// Applies a load and times every frame.
    pub(crate) async fn delays(&self, load: Load) -> anyhow::Result<Vec<Duration>> {
        let mut source = self.source(load.shape)?;
        let timed = async {
            tokio::time::sleep(load.warm_up).await;
            self.traffic.note_delays();
            tokio::time::sleep(load.span).await;
        };
        tokio::select! {
            () = timed => {}
            () = drive(&mut *source, &self.traffic, load.pace) => bail!("the generator has ended"),
        }
        Ok(self.traffic.take_delays())
    }

    /// Applies a load and measures.
    pub(crate) async fn measure(&mut self, load: Load) -> anyhow::Result<Reading> {
        let mut source = self.source(load.shape)?;
        let traffic = Rc::clone(&self.traffic);
        let before = traffic.counts();
        let measured = async {
            tokio::time::sleep(load.warm_up).await;
            let (usage, at) = (self.usage().await?, Instant::now());
            let (_, received) = traffic.counts();
            tokio::time::sleep(load.span).await;
            let (usage_after, at_after) = (self.usage().await?, Instant::now());
            let (_, received_after) = traffic.counts();
            let frames = received_after - received;
            anyhow::Ok((difference(usage, usage_after), at_after - at, frames))
        };
        let (cpu, span, frames) = tokio::select! {
            measured = measured => measured?,
            () = drive(&mut *source, &traffic, load.pace) => bail!("the generator has ended"),
        };
        drop(source);
        tokio::time::sleep(DRAINING).await;
        let after = traffic.counts();
        let (sent, received) = (after.0 - before.0, after.1 - before.1);
        if frames == 0 {
            bail!("nothing arrived of {sent} frames");
        }
        Ok(Reading {
            us_per_frame: cpu.as_secs_f64() * 1e6 / frames as f64,
            frames_per_s: frames as f64 / span.as_secs_f64(),
            busy: cpu.as_secs_f64() / span.as_secs_f64(),
            lost: 1.0 - (received as f64 / sent as f64).min(1.0),
        })
    }
}

fn start_relay(
    mesh: &Mesh,
    ends: (SocketAddr, SocketAddr),
    offload: bool,
    core: usize,
) -> anyhow::Result<Measured> {
    let config = mesh.relay_config(ends, offload, ANY_PORT)?;
    Measured::start(core, ["relay".into(), "--config".into(), config.into()])
}

/// The relay, and where its metrics are: at a port that was free just now.
fn start_observed(
    mesh: &Mesh,
    ends: (SocketAddr, SocketAddr),
    offload: bool,
    core: usize,
) -> anyhow::Result<(Measured, SocketAddr)> {
    let admin = std::net::TcpListener::bind(ANY_PORT)?.local_addr()?;
    let config = mesh.relay_config(ends, offload, admin)?;
    let args = ["relay".into(), "--observed".into(), "--config".into(), config.clone().into()];
    let log = std::fs::File::create(config.with_file_name("log.json"))?;
    Ok((Measured::start_logging(core, args, log.into())?, admin))
}

fn start_quinn(
    mesh: &Mesh,
    (source, sink): (SocketAddr, SocketAddr),
    offload: bool,
    core: usize,
) -> anyhow::Result<Measured> {
    let mut args: Vec<OsString> = vec!["quinn".into(), "--state-dir".into()];
    args.push(mesh.state_dir()?.into());
    args.extend(["--source".into(), source.to_string().into()]);
    args.extend(["--sink".into(), sink.to_string().into()]);
    args.extend((!offload).then(|| "--no-offload".into()));
    Measured::start(core, args)
}

fn difference(before: Usage, after: Usage) -> Duration {
    after.cpu.saturating_sub(before.cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_of_all_frames() {
        let part = |us_per_frame, frames_per_s, lost| Reading {
            us_per_frame,
            frames_per_s,
            busy: us_per_frame * frames_per_s / 1e6,
            lost,
        };
        let parts = [part(4.0, 1_000.0, 0.0), part(8.0, 3_000.0, 0.5)];
        assert_eq!(Reading::mean(&parts), Some(part(7.0, 2_000.0, 0.25)));
        assert_eq!(Reading::mean(&parts[..1]), Some(parts[0]));
        assert_eq!(Reading::mean(&[]), None);
    }
}
