//! TLS configurations: 1.3 only, with ring, without resumption; the node's certificate is looked up anew
//! in each handshake. They fit TLS over TCP, and QUIC through quinn's `QuicServerConfig` and
//! `QuicClientConfig`.

mod verifier;

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authority::certificate_mesh;
use crate::{Credentials, IdentityError, Role};

pub(crate) use verifier::{any_name, verify_chain};

/// The server name to give when dialling with [`join_client_config`]: TLS wants one, and a node that
/// joins knows no better. It is not checked; the CA's fingerprint and the server's role are.
pub const JOIN_SERVER_NAME: &str = "scheduler.overway.internal";

/// The server name to give when dialling with [`access_client_config`]: TLS wants one, and an edge knows relays by
/// their addresses. It is not checked.
pub const ACCESS_SERVER_NAME: &str = "relay.overway.internal";

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate of this mesh in one of these roles.
    Required(&'static [Role]),
    /// The same, or no certificate at all: for a listener that takes joins too. It is then the caller
    /// who sees to it that a connection without a certificate, hence without
    /// [`peer_identity`](crate::peer_identity), speaks [`ALPN_JOIN`](crate::ALPN_JOIN) and nothing else.
    Optional(&'static [Role]),
    /// No certificate is asked for: for a listener that takes joins only.
    None,
}

/// Makes a server's configuration. `alpn` is in order of preference, and is not empty.
pub fn server_config(
    credentials: &Arc<Credentials>,
    alpn: &[&[u8]],
    clients: ClientAuth,
) -> Arc<ServerConfig> {
    let verifier = match clients {
        ClientAuth::Required(roles) => verifier::client(credentials, roles, true),
        ClientAuth::Optional(roles) => verifier::client(credentials, roles, false),
        ClientAuth::None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites for TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Newest(Arc::clone(credentials))));
    config.alpn_protocols = owned(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// Makes a client's configuration, which shows this node's certificate. The server is dialled by its
/// [`Identity::server_name`](crate::Identity::server_name), or by [`Credentials::any_scheduler_name`].
/// `alpn` is in order of preference, and is not empty.
pub fn client_config(credentials: &Arc<Credentials>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = client_builder(verifier::server(credentials))
        .with_client_cert_resolver(Arc::new(Newest(Arc::clone(credentials))));
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Makes the configuration with which a node joins: it shows no certificate, speaks
/// [`ALPN_JOIN`](crate::ALPN_JOIN), and takes a server that shows a scheduler's certificate and, in the
/// same chain, the CA certificate of this fingerprint which has signed it. Dial by [`JOIN_SERVER_NAME`].
pub fn join_client_config(ca_sha256: [u8; 32]) -> Arc<ClientConfig> {
    let mut config = client_builder(verifier::join(ca_sha256)).with_no_client_auth();
    config.alpn_protocols = owned(&[crate::ALPN_JOIN]);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Makes the configuration with which an edge dials access relays. It shows no certificate, and takes any relay of the
/// mesh whose CA certificate this is, PEM as in `ca.pem`. Dial by [`ACCESS_SERVER_NAME`]; which relay it is stands in
/// the certificate ([`peer_identity`](crate::peer_identity)).
///
/// # Errors
/// The PEM holds no CA certificate of a mesh.
pub fn access_client_config(
    ca_pem: &[u8],
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, IdentityError> {
    let ca = CertificateDer::from_pem_slice(ca_pem).map_err(|_| IdentityError::Unreadable)?;
    let (_, certificate) = X509Certificate::from_der(&ca).map_err(|_| IdentityError::Unreadable)?;
    let mesh = certificate_mesh(&certificate)?;
    let verifier = verifier::access(&ca, mesh).map_err(|_| IdentityError::Unreadable)?;
    let mut config = client_builder(verifier).with_no_client_auth();
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn client_builder(
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Hands out the certificate that is in use at the time of the handshake.
#[derive(Debug)]
struct Newest(Arc<Credentials>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Newest {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
