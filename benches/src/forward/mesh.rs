//! A mesh of three for one measurement: its authority, the identities, and what the relay under test is
//! told, without a scheduler.
//!
//! The relay under test has the lowest id, so that it dials the two ends; they listen wherever there was a free port.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_wire::RelayId;
use overway_wire::control::{self, Node, Peer, Update};
use prost::Message as _;

/// The version that dialler and dialled agree on; see WIRE.md, "Lanes".
pub(super) const HELLO_VERSION: u8 = 2;
/// The relay under test.
pub(super) const TRANSIT: RelayId = RelayId(1);
/// The end that sends.
pub(super) const SOURCE: RelayId = RelayId(2);
/// The end that receives.
pub(super) const SINK: RelayId = RelayId(3);
/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(86_400);
/// Capacity told of the links: more than a core forwards, so that nothing is shaped.
const CAPACITY_BPS: u64 = 40_000_000_000;

/// The authority and the directory of one run.
pub(crate) struct Mesh {
    authority: Authority,
    directory: tempfile::TempDir,
    /// Relays made so far; each has a directory of its own.
    made: Cell<u32>,
    /// Where the relay under test looks for a scheduler: nobody answers there.
    silent: UdpSocket,
}

impl Mesh {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            authority: Authority::create("bench")?,
            directory: tempfile::tempdir().context("no temporary directory")?,
            made: Cell::new(0),
            silent: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        })
    }

    pub(super) fn credentials(&self, id: RelayId) -> anyhow::Result<Arc<Credentials>> {
        let (pending, request) = PendingKey::generate()?;
        let identity = Identity::new(Role::Relay, id.0, self.authority.mesh())?;
        let now = SystemTime::now();
        let chain = self.authority.issue(&request, &identity, LIFETIME, now)?;
        Ok(Arc::new(Credentials::from_join(&pending, chain, self.authority.fingerprint(), now)?))
    }

    /// A directory with the identity of the relay under test.
    pub(super) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        let number = self.made.get();
        self.made.set(number + 1);
        let directory = self.directory.path().join(number.to_string());
        self.credentials(TRANSIT)?.save(&directory)?;
        Ok(directory)
    }

    /// Writes the configuration of a relay that knows the two ends, and where it keeps its state.
    pub(super) fn relay_config(
        &self,
        (source, sink): (SocketAddr, SocketAddr),
        offload: bool,
        admin: SocketAddr,
    ) -> anyhow::Result<PathBuf> {
        let directory = self.state_dir()?;
        fs::write(directory.join("pushed.bin"), pushed(source, sink).encode_to_vec())?;
        let scheduler = self.silent.local_addr()?;
        let path = directory.join("relay.toml");
        fs::write(&path, config_text(&directory, (scheduler, admin), offload))?;
        Ok(path)
    }
}

fn config_text(
    state_dir: &Path,
    (scheduler, admin): (SocketAddr, SocketAddr),
    offload: bool,
) -> String {
    let state_dir = state_dir.display();
    // Only what differs from the default is said.
    let offload = if offload { "" } else { "offload = false\n" };
    format!(
        "[relay]\nname = \"transit\"\nstate_dir = \"{state_dir}\"\n\
         [mesh]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n{offload}\
         [scheduler]\naddresses = [\"{scheduler}\"]\n\
         [admin]\nlisten = \"{admin}\"\n"
    )
}

/// The state as a scheduler pushes it: a transit relay needs its neighbours and no routes.
fn pushed(source: SocketAddr, sink: SocketAddr) -> Update {
    let neighbour = |(relay, address): (RelayId, SocketAddr)| {
        let name = format!("relay-{relay}");
        let peer = Peer {
            neighbour: relay.0.into(),
            remote_address: address.to_string(),
            role: control::Role::Candidate.into(),
            capacity_bps: CAPACITY_BPS,
            ..Peer::default()
        };
        [Node { relay: relay.0.into(), name, ..Node::default() }.into(), peer.into()]
    };
    let put = [(SOURCE, source), (SINK, sink)].into_iter().flat_map(neighbour).collect();
    Update { epoch_term: 1, epoch_sequence: 1, revision: 1, put, ..Update::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_under_test_reads_its_configuration_and_its_identity() {
        let mesh = Mesh::new().unwrap();
        let ends = ("127.0.0.1:7".parse().unwrap(), "127.0.0.1:8".parse().unwrap());

        let path = mesh.relay_config(ends, true, "127.0.0.1:0".parse().unwrap()).unwrap();

        let text = fs::read_to_string(&path).unwrap();
        assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
        let credentials = Credentials::load(path.parent().unwrap()).unwrap();
        assert_eq!(credentials.identity().id, TRANSIT.0);
    }
}
