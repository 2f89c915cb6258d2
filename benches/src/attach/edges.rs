//! Edges that attach and do nothing, written by hand: thousands fit into one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use overway_pki::{ACCESS_SERVER_NAME, access_client_config};
use overway_tenant::{Claims, EdgeKey, Kid, Names, Quota, Tenant, TenantKey, TenantKeys, mint};
use overway_wire::access::messages::{
    Attach, FromEdge, MESSAGE_BYTES_MAX, ToEdge, VERSION_MAX, VERSION_MIN, to_edge,
};
use overway_wire::access::{ACCESS_MTU, ALPN_ACCESS, CloseCode, EXPORTER_BYTES, EXPORTER_LABEL};
use overway_wire::{Class, PolicyId, control};
use prost::Message as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

const KID: &str = "bench-1";
/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(86_400);
/// A relay that does not answer by then has failed.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// As an edge's own. Heartbeats of the relay keep a silent connection.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// Heartbeats that nobody reads.
const UNREAD_BYTES: usize = 4 << 10;

/// A tenant's backend: it knows the tenant's key, here made from a seed.
pub(crate) struct Backend {
    name: &'static str,
    number: u16,
    key: TenantKey,
    quota: Quota,
}

/// An edge's key and token.
pub(crate) struct Edge {
    pub(crate) key: Arc<EdgeKey>,
    pub(crate) token: String,
}

impl Backend {
    pub(crate) fn new(name: &'static str, number: u16, seed: u8) -> Self {
        let key = TenantKey::from_seed([seed; 32]);
        Self { name, number, key, quota: Quota::default() }
    }

    pub(crate) fn with_quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// The tenant as relays are pushed it.
    pub(crate) fn pushed(&self) -> control::Tenant {
        control::Tenant::from(&self.tenant())
    }

    pub(crate) fn tenant(&self) -> Tenant {
        Tenant {
            number: PolicyId(self.number),
            route_policy: PolicyId::default(),
            keys: self.keys(),
            backup_policy: PolicyId::default(),
            cell: String::new(),
            quota: self.quota,
            exhausted: None,
        }
    }

    pub(crate) fn keys(&self) -> TenantKeys {
        let mut keys = TenantKeys::new(self.name.parse().expect("a name of ours"));
        keys.keys.insert(kid(), self.key.public());
        keys
    }

    /// The edge of that number.
    pub(crate) fn edge(&self, number: u64) -> Edge {
        let mut seed = [self.key.public().0[0]; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = EdgeKey::from_seed(seed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            tenant: self.name.parse().expect("a name of ours"),
            name: format!("edge-{number}"),
            services: Names::Any,
            offers: Names::Any,
            classes: Class::ALL.into(),
            issued: now.as_secs(),
            not_before: None,
            expires: (now + TOKEN_LIFETIME).as_secs(),
            id: format!("t{number}").parse().expect("an id of ours"),
            edge: key.public().id(),
        };
        let token = mint(&claims, &self.key, &kid()).expect("claims of ours fit into a token");
        Edge { key: Arc::new(key), token }
    }
}

fn kid() -> Kid {
    KID.parse().expect("a name of ours")
}

impl Edge {
    /// What it says first.
    pub(super) fn attach(&self, exporter: &[u8; EXPORTER_BYTES]) -> Attach {
        Attach {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            token: self.token.clone(),
            public_key: self.key.public().0.to_vec(),
            signature: self.key.sign(exporter).to_vec(),
            boot: 1,
            software: "bench".to_owned(),
        }
    }
}

/// Attaches edges to one relay.
#[derive(Clone)]
pub(crate) struct Attacher {
    endpoints: Arc<[Endpoint]>,
    relay: SocketAddr,
}

/// An attached edge. Dropped, it is gone without a word.
pub(crate) struct Attached {
    connection: Connection,
    _control: (SendStream, RecvStream),
}

impl Attached {
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    pub(crate) fn close(self) {
        self.connection.close((CloseCode::Unused as u32).into(), b"");
    }
}

impl Attacher {
    /// On so many sockets; within a tokio runtime.
    pub(crate) fn new(ca_pem: &[u8], relay: SocketAddr, sockets: usize) -> anyhow::Result<Self> {
        let tls = access_client_config(ca_pem, &[ALPN_ACCESS])?;
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_idle_timeout(Some(quinn::IdleTimeout::try_from(IDLE_MAX)?))
            .initial_mtu(ACCESS_MTU)
            .min_mtu(ACCESS_MTU)
            .mtu_discovery_config(None)
            .datagram_receive_buffer_size(Some(UNREAD_BYTES))
            .max_concurrent_bidi_streams(0_u32.into())
            .max_concurrent_uni_streams(0_u32.into());
        config.transport_config(Arc::new(transport));
        let endpoint = |_| {
            let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
            endpoint.set_default_client_config(config.clone());
            Ok(endpoint)
        };
        let endpoints = (0..sockets).map(endpoint).collect::<anyhow::Result<_>>()?;
        Ok(Self { endpoints, relay })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let endpoint = &self.endpoints[fastrand::usize(..self.endpoints.len())];
        let connecting = endpoint.connect(self.relay, ACCESS_SERVER_NAME)?;
        Ok(tokio::time::timeout(ANSWER_MAX, connecting).await.context("no answer in time")??)
    }

    /// Attaches one edge.
    pub(crate) async fn attach(&self, edge: &Edge) -> anyhow::Result<Attached> {
        let connection = self.connect().await?;
        let mut exporter = [0; EXPORTER_BYTES];
        let context = relay_of(&connection)?.to_be_bytes();
        let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &context);
        if exported.is_err() {
            bail!("TLS gives no keying material");
        }
        let (mut send, mut receive) = connection.open_bi().await?;
        let bytes = FromEdge::from(edge.attach(&exporter)).encode_to_vec();
        send.write_all(&u32::try_from(bytes.len())?.to_be_bytes()).await?;
        send.write_all(&bytes).await?;
        match tokio::time::timeout(ANSWER_MAX, read(&mut receive)).await.context("no answer")?? {
            Some(to_edge::Body::Attached(_)) => {}
            Some(to_edge::Body::Refused(refused)) => bail!("refused: {}", refused.reason),
            other => bail!("the relay answers {other:?}"),
        }
        Ok(Attached { connection, _control: (send, receive) })
    }

    /// Attaches all, so many at once.
    pub(super) async fn attach_all(
        &self,
        edges: &[Edge],
        at_once: usize,
        progress: impl Fn(usize),
    ) -> anyhow::Result<Vec<Attached>> {
        let mut held = Vec::with_capacity(edges.len());
        let mut under_way = JoinSet::new();
        for edge in edges {
            while under_way.len() >= at_once {
                held.push(under_way.join_next().await.context("one is under way")???);
            }
            if held.len() % 100 == 0 {
                progress(held.len());
            }
            let (this, edge) =
                (self.clone(), Edge { key: Arc::clone(&edge.key), token: edge.token.clone() });
            under_way.spawn(async move { this.attach(&edge).await });
        }
        while let Some(attached) = under_way.join_next().await {
            held.push(attached??);
        }
        Ok(held)
    }

    /// Makes connections and closes them.
    pub(super) async fn shake_hands(&self, count: usize, at_once: usize) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        for _ in 0..count {
            while under_way.len() >= at_once {
                under_way.join_next().await.context("one is under way")??;
            }
            let this = self.clone();
            under_way.spawn(async move {
                if let Ok(connection) = this.connect().await {
                    connection.close((CloseCode::Unused as u32).into(), b"");
                }
            });
        }
        while let Some(ended) = under_way.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// The id in the certificate that the relay has shown.
fn relay_of(connection: &Connection) -> anyhow::Result<u16> {
    let shown = connection.peer_identity().context("the relay shows no certificate")?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>();
    let chain = chain.map_err(|_| anyhow::anyhow!("the relay shows no certificate"))?;
    Ok(overway_pki::peer_identity(&chain)?.id)
}

async fn read(receive: &mut RecvStream) -> anyhow::Result<Option<to_edge::Body>> {
    let mut length = [0; 4];
    receive.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if length > MESSAGE_BYTES_MAX {
        bail!("the relay says {length} bytes at once");
    }
    let mut bytes = vec![0; length];
    receive.read_exact(&mut bytes).await?;
    Ok(ToEdge::decode(&bytes[..])?.body)
}
