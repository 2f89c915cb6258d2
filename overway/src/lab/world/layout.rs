//! Who listens where, and which files belong to whom.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Node;
use crate::lab::ports::{Held, Ports};

/// The addresses of a mesh.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) scheduler: SchedulerPlace,
    pub(super) relays: Vec<RelayPlace>,
    pub(super) wires: Vec<Wire>,
    pub(super) edges: Vec<EdgePlace>,
    /// Ports held for processes that were not started yet.
    held: BTreeMap<Node, Vec<Held>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SchedulerPlace {
    pub(super) control: SocketAddr,
    pub(super) admin: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RelayPlace {
    pub(super) mesh: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Where edges attach.
    pub(super) access: SocketAddr,
}

/// An edge's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgePlace {
    /// Its admin interface.
    pub admin: SocketAddr,
    /// Its forward to the lab's sink, if it has forwards.
    pub udp: SocketAddr,
    /// Its forward to the lab's web server, if it has forwards.
    pub tcp: SocketAddr,
}

/// Forwards at one relay to the services at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The relay that listens.
    pub entry: usize,
    /// The relay that offers the services.
    pub exit: usize,
    /// The forward to the lab's sink.
    pub udp: SocketAddr,
    /// The forward to the lab's web server.
    pub tcp: SocketAddr,
}

impl Layout {
    /// Finds and holds ports for everything.
    pub(super) fn new(relays: usize, wires: &[(usize, usize)], edges: usize) -> io::Result<Self> {
        let mut ports = Ports::new();
        let mut held: BTreeMap<Node, Vec<Held>> = BTreeMap::new();
        let mut udp = |node| hold(&mut held, node, ports.udp()?);
        let control = udp(Node::Scheduler)?;
        let mesh =
            (0..relays).map(|relay| udp(Node::Relay(relay))).collect::<io::Result<Vec<_>>>()?;
        let access =
            (0..relays).map(|relay| udp(Node::Relay(relay))).collect::<io::Result<Vec<_>>>()?;
        let edge_datagrams =
            (0..edges).map(|edge| udp(Node::Edge(edge))).collect::<io::Result<Vec<_>>>()?;
        let datagrams = wires
            .iter()
            .map(|&(entry, _)| udp(Node::Relay(entry)))
            .collect::<io::Result<Vec<_>>>()?;
        let mut tcp = |node| hold(&mut held, node, ports.tcp()?);
        let admin = tcp(Node::Scheduler)?;
        let relays = (0..relays)
            .map(|relay| {
                let admin = tcp(Node::Relay(relay))?;
                Ok(RelayPlace { mesh: mesh[relay], admin, access: access[relay] })
            })
            .collect::<io::Result<_>>()?;
        let wires = wires
            .iter()
            .zip(datagrams)
            .map(|(&(entry, exit), udp)| {
                Ok(Wire { entry, exit, udp, tcp: tcp(Node::Relay(entry))? })
            })
            .collect::<io::Result<_>>()?;
        let edges = (0..edges)
            .map(|edge| {
                let (admin, tcp) = (tcp(Node::Edge(edge))?, tcp(Node::Edge(edge))?);
                Ok(EdgePlace { admin, udp: edge_datagrams[edge], tcp })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { scheduler: SchedulerPlace { control, admin }, relays, wires, edges, held })
    }

    /// Lets go of a process's ports, just before it is spawned.
    pub(super) fn release(&mut self, node: Node) {
        self.held.remove(&node);
    }
}

fn hold(
    held: &mut BTreeMap<Node, Vec<Held>>,
    node: Node,
    (address, socket): (SocketAddr, Held),
) -> io::Result<SocketAddr> {
    held.entry(node).or_default().push(socket);
    Ok(address)
}

/// A process's configuration.
pub(super) fn config_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.toml"))
}

/// A process's log.
pub(super) fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join("logs").join(format!("{name}.log"))
}

/// A process's keys and state.
pub(super) fn state_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_layout_is_its_own() {
        let layout = Layout::new(5, &[(0, 1), (0, 2), (3, 4)], 2).unwrap();

        let mut all = vec![layout.scheduler.control, layout.scheduler.admin];
        all.extend(layout.relays.iter().flat_map(|place| [place.mesh, place.admin, place.access]));
        all.extend(layout.edges.iter().flat_map(|edge| [edge.admin, edge.udp, edge.tcp]));
        all.extend(layout.wires.iter().flat_map(|wire| [wire.udp, wire.tcp]));
        let count = all.len();
        all.sort_unstable();
        all.dedup();

        assert_eq!((count, all.len()), (29, 29));
    }

    #[test]
    fn released_ports_can_be_bound() {
        let mut layout = Layout::new(4, &[(0, 1)], 0).unwrap();
        layout.release(Node::Relay(0));

        assert!(std::net::UdpSocket::bind(layout.relays[0].mesh).is_ok());
        assert!(std::net::UdpSocket::bind(layout.relays[1].mesh).is_err());
    }
}
