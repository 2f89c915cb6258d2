//! The sockets and QUIC endpoints of the workers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use overway_wire::hop::Lane;

use super::MeshConfig;
use super::close::CloseCode;
use super::connect::server_config;
use crate::fault::{FaultSocket, FaultTable};
use crate::socket::{self, BufferReport};
use crate::steer::{self, ids};

/// What each worker is to serve, as it was opened.
pub(super) struct Opened {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) buffers: Vec<BufferReport>,
    /// By worker, then by address.
    pub(super) sockets: Vec<Vec<UdpSocket>>,
    /// Of each address, if there are several workers.
    pub(super) steering: Vec<Arc<steer::socket::Line>>,
}

/// Opens the sockets of all workers.
pub(super) fn open_sockets(config: &MeshConfig) -> anyhow::Result<Opened> {
    let workers = usize::from(config.workers);
    let sockets = (0..workers).map(|_| Vec::new()).collect();
    let (addresses, buffers, steering) = (Vec::new(), Vec::new(), Vec::new());
    let mut opened = Opened { addresses, buffers, sockets, steering };
    for (line, &address) in config.listen.iter().enumerate() {
        let shared = socket::open_shared(address, workers)?;
        opened.addresses.push(shared[0].0.local_addr()?);
        opened.buffers.push(shared[0].1);
        if workers > 1 {
            if let Err(error) = steer::attach(&shared[0].0, workers) {
                tracing::warn!(%address, %error, "the kernel does not steer packets to workers; they cross threads");
            }
            let key = overway_pki::connection_id_key(&config.reset_secret, &purpose(line));
            opened.steering.push(steer::socket::Line::new(workers, key));
        }
        for (of, (udp, _)) in opened.sockets.iter_mut().zip(shared) {
            of.push(udp);
        }
    }
    Ok(opened)
}

/// Each line has keys of its own: a packet of one shown to another must not earn a valid reset. A line's workers have
/// the same, since which of them a packet comes to changes with their number.
fn purpose(line: usize) -> String {
    format!("mesh line {line}")
}

/// A worker's endpoints, and their sockets that faults act on.
pub(super) type Bound = (Vec<quinn::Endpoint>, Vec<Arc<FaultSocket>>);

/// Makes a worker's endpoints on its runtime, in which it is called.
pub(super) fn bind(
    config: &MeshConfig,
    worker: u8,
    sockets: Vec<UdpSocket>,
    steering: &[Arc<steer::socket::Line>],
    faults: Option<&Arc<FaultTable>>,
) -> anyhow::Result<Bound> {
    let (mut endpoints, mut fault_sockets) = (Vec::new(), Vec::new());
    for (line, udp) in sockets.into_iter().enumerate() {
        let quinn_runtime: Arc<dyn quinn::Runtime> = Arc::new(quinn::TokioRuntime);
        let socket = quinn_runtime.wrap_udp_socket(udp)?;
        let mut socket = config.lines.metered(line, socket);
        if let Some(steering) = steering.get(line) {
            socket = steering.socket(usize::from(worker), socket);
        }
        let socket: Arc<dyn quinn::AsyncUdpSocket> = match faults {
            Some(table) => {
                let faulty = FaultSocket::new(socket, Arc::clone(table))?;
                fault_sockets.push(Arc::clone(&faulty));
                faulty
            }
            None => socket,
        };
        let mut endpoint = overway_pki::endpoint_config(&config.reset_secret, &purpose(line));
        let key = overway_pki::connection_id_key(&config.reset_secret, &purpose(line));
        endpoint.cid_generator(move || Box::new(ids::Ids::new(worker, key)));
        let server = Some(server_config(config, 0, Lane::Bulk)?);
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(endpoint, server, socket, quinn_runtime)?;
        endpoints.push(endpoint);
    }
    Ok((endpoints, fault_sockets))
}

/// Closes all connections of a worker, and waits a moment for the last packets.
pub(super) async fn close(endpoints: &[quinn::Endpoint]) {
    for endpoint in endpoints {
        endpoint.close((CloseCode::Stopping as u32).into(), b"relay stops");
    }
    for endpoint in endpoints {
        // A peer that does not answer is not waited for: it will notice by silence.
        let _ = tokio::time::timeout(Duration::from_millis(300), endpoint.wait_idle()).await;
    }
}
