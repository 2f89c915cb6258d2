//! quinn's settings for a session, each with its reason.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use overway_pki::{ALPN_SESSION, ClientAuth, Credentials, Role};
use overway_tenant::EdgeId;
use overway_wire::frame::PAYLOAD_BYTES_MAX;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig,
    VarInt,
};

use quinn_proto::RandomConnectionIdGenerator;
use ring::hmac;
use rustls::sign::CertifiedKey;

use crate::congestion::ControllerConfig;
use crate::edge::tls;
use crate::order_delay::{OrderDelays, WORD_BYTES};

/// An interruption of 20 s is survived with two keep-alives to spare for the way back.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// A lost far end is noticed by the idle time-out even where nothing is sent; nine tries fit in it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Streams that a far end may have open at once: TCP connections of one gateway to another, per class.
const STREAMS_MAX: u32 = 4_096;
/// One stream fills a path of 150 ms at a gigabit a second while frames wait 100 ms for one that is recovered.
const STREAM_WINDOW_BYTES: u32 = 32 << 20;
/// All streams of a session together; bounds what a far end makes us hold.
const WINDOW_BYTES: u32 = 64 << 20;
/// What an edge may send before its token is verified: a word is below 5 KB.
const STRANGER_WINDOW_BYTES: u32 = 16 << 10;
/// quinn's receiver drops packets that come more than 128 late anyway; calling them lost any sooner would
/// answer the fabric's reordering with retransmissions.
const PACKET_THRESHOLD: u32 = 128;
/// A packet overtaken by half a round trip is lost: detours within the same continent stay below that.
const TIME_THRESHOLD: f32 = 1.5;
/// Across an ocean, so that a first probe is not sent needlessly.
const INITIAL_RTT: Duration = Duration::from_millis(150);
/// Packets that one acknowledgement may answer. At 10 the acknowledgements of a full session cost relays a
/// tenth of a frame for each of its frames; the controller's floor of 16 packets still gets one at once.
const ACK_EVERY: u32 = 10;
/// Reordering that is acknowledged at once; below, the socket has put it in order or quinn waits anyway.
const ACK_REORDERING: u32 = 32;
/// Words of order delay that wait to be read; the oldest go, and the next says what they said.
const WORDS_MAX: usize = 16;
/// As quinn's default; unique among an endpoint's connections.
const CID_BYTES: usize = 8;
/// Handshakes that wait to be taken up at once; the endpoint bounds those under way.
const INCOMING_MAX: usize = 1_024;

/// The endpoint's part, with the key that makes its stateless resets if it is to be the same after a restart.
pub(crate) fn endpoint_config(reset_key: Option<hmac::Key>) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    if let Some(key) = reset_key {
        config.reset_key(Arc::new(key));
    }
    config
        .max_udp_payload_size(mtu())
        .expect("a frame's payload is at least QUIC's least, 1,200 bytes");
    // quinn's default answers nothing to ids that its own process has not made. An answer, whatever it is,
    // tells a far end by its incarnation that this end started anew.
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CID_BYTES)));
    config
}

/// The side that is dialled, without what is each connection's own ([`relay_transport`]).
pub(crate) fn server_config(
    credentials: &Arc<Credentials>,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let clients = ClientAuth::Required(&[Role::Relay]);
    let tls = overway_pki::server_config(credentials, &[ALPN_SESSION], clients);
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    // The synthetic address never changes; a packet from another one is not a migration.
    config.migration(false).max_incoming(INCOMING_MAX);
    Ok(config)
}

/// The side of an edge that is dialled, without what is each connection's own ([`edge_transport`]).
pub(crate) fn edge_server_config(
    own: &Arc<CertifiedKey>,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let tls = QuicServerConfig::try_from(tls::server_config(own))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.migration(false).max_incoming(INCOMING_MAX);
    Ok(config)
}

/// The side of an edge that dials this far one. The flag is set when another answers.
pub(crate) fn edge_client_config(
    own: &Arc<CertifiedKey>,
    far: EdgeId,
    delays: Arc<OrderDelays>,
) -> Result<(ClientConfig, Arc<AtomicBool>), NoInitialCipherSuite> {
    let (tls, other_answered) = tls::client_config(own, far);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(edge_transport(delays));
    Ok((config, other_answered))
}

/// Gives an edge whose token was verified what any far end has.
pub(crate) fn admit(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
}

/// A connection of a relay's.
pub(crate) fn relay_transport(delays: Arc<OrderDelays>) -> Arc<TransportConfig> {
    Arc::new(transport(delays))
}

/// A connection of an edge's: one unidirectional stream each way, for words, and until [`admit`] nothing else.
pub(crate) fn edge_transport(delays: Arc<OrderDelays>) -> Arc<TransportConfig> {
    let mut config = transport(delays);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
    Arc::new(config)
}

/// The side that dials, without what is each connection's own.
pub(crate) fn client_config(
    credentials: &Arc<Credentials>,
) -> Result<ClientConfig, NoInitialCipherSuite> {
    let tls = overway_pki::client_config(credentials, &[ALPN_SESSION]);
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

fn transport(delays: Arc<OrderDelays>) -> TransportConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY))
        .reordering_threshold(VarInt::from_u32(ACK_REORDERING));
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("seconds fit in a variable integer");
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .packet_threshold(PACKET_THRESHOLD)
        .time_threshold(TIME_THRESHOLD)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(mtu())
        .min_mtu(mtu())
        .mtu_discovery_config(None)
        .ack_frequency_config(Some(acks))
        // For words of order delay. Realtime data has datagrams of its own, outside QUIC.
        .datagram_receive_buffer_size(Some(WORDS_MAX * WORD_BYTES))
        .congestion_controller_factory(Arc::new(ControllerConfig { delays }));
    config
}

fn mtu() -> u16 {
    u16::try_from(PAYLOAD_BYTES_MAX).expect("a frame's payload is below 64 KiB")
}
