//! What a relay is compared with: two connections of quinn, and a loop that hands what comes on one of them
//! to the other.
//!
//! The transport is that of a link (MTU, few acknowledgements), but for the window, which is fixed and never
//! in the way, and for buffers that hold all that is under way. So neither congestion control nor pacing nor a queue costs
//! anything: this is what QUIC itself costs.

use std::any::Any;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use overway_pki::{ALPN_MESH, Credentials, Identity, Role};
use overway_wire::RelayId;
use overway_wire::hop::Lane;
use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::RttEstimator;

use crate::common::socket;

use super::mesh::{HELLO_VERSION, SINK, SOURCE};

/// Bytes of every QUIC packet, as on a link.
const MTU: u16 = 1_300;
/// More than is ever under way.
const WINDOW_BYTES: u64 = 16 << 20;
/// quinn's datagram buffers hold all that is under way, so that none is dropped there.
const DATAGRAM_BUFFER_BYTES: usize = 4 << 20;
/// A connection without a sign of life for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Arguments of the measured process.
#[derive(Debug, Args)]
pub(super) struct BareArgs {
    /// Where the identity is.
    #[arg(long)]
    state_dir: PathBuf,
    /// The end that sends.
    #[arg(long)]
    source: SocketAddr,
    /// The end that receives.
    #[arg(long)]
    sink: SocketAddr,
    /// Without segmentation offload.
    #[arg(long)]
    no_offload: bool,
}

/// A window that is never in the way.
#[derive(Clone, Copy, Debug)]
struct Open;

impl ControllerFactory for Open {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for Open {
    fn on_ack(&mut self, _: Instant, _: Instant, _: u64, _: bool, _: &RttEstimator) {}

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The transport of both ends of every load, and of the bare relay.
pub(super) fn transport(offload: bool) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE_MAX).expect("ten seconds fit in a QUIC varint");
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(20_u32.into()).max_ack_delay(Some(Duration::from_millis(10)));
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(IDLE_MAX / 4))
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .ack_frequency_config(Some(acks))
        .enable_segmentation_offload(offload)
        .congestion_controller_factory(Arc::new(Open));
    transport
}

/// Forwards until a connection closes.
pub(super) fn run(args: &BareArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(forward(args))
}

async fn forward(args: &BareArgs) -> anyhow::Result<()> {
    let credentials = Arc::new(Credentials::load(&args.state_dir)?);
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint =
        quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket()?, runtime)?;
    let dial = |id, address| connect(&endpoint, &credentials, id, address, !args.no_offload);
    let (source, sink) = (dial(SOURCE, args.source).await?, dial(SINK, args.sink).await?);
    while let Ok(datagram) = source.read_datagram().await {
        sink.send_datagram(datagram).context("the sink takes no more")?;
    }
    Ok(())
}

/// Dials an end, and says that the connection is for all frames.
pub(super) async fn connect(
    endpoint: &quinn::Endpoint,
    credentials: &Arc<Credentials>,
    to: RelayId,
    address: SocketAddr,
    offload: bool,
) -> anyhow::Result<quinn::Connection> {
    let tls = overway_pki::client_config(credentials, &[ALPN_MESH]);
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(offload)));
    let name = Identity::new(Role::Relay, to.0, &credentials.identity().mesh)?.server_name();
    let connection = endpoint.connect_with(config, address, &name)?.await?;
    let mut stream = connection.open_uni().await?;
    for lane in Lane::DATA {
        stream.write_all(&[HELLO_VERSION, 0, lane.code(), 0]).await?;
    }
    stream.finish()?;
    Ok(connection)
}
