//! TLS between edges: raw public keys both ways (RFC 7250), Ed25519 only, TLS 1.3 only, no resumption.
//!
//! The dialler's verifier takes the one key whose thumbprint it was given, before TLS shows it its own. The other
//! side's takes any Ed25519 key: whose it is, and what it may do, the token says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use overway_tenant::{EdgeId, EdgeKey, EdgePublicKey};
use quinn::Connection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

/// What edges speak.
pub(crate) const ALPN_EDGE: &[u8] = b"overway-edge/1";
/// QUIC wants a name to dial. It is not sent, and nobody looks at it.
pub(crate) const SERVER_NAME: &str = "edge.overway.internal";

/// An edge's key as TLS takes it.
pub(crate) fn certified(key: &EdgeKey) -> Arc<CertifiedKey> {
    let shown = CertificateDer::from(key.public().to_spki_der());
    let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(key.to_pkcs8_der()))
        .expect("an edge's key is an Ed25519 key in PKCS #8");
    Arc::new(CertifiedKey::new(vec![shown], signing))
}

/// The side that is dialled.
pub(crate) fn server_config(own: &Arc<CertifiedKey>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites for TLS 1.3")
        .with_client_cert_verifier(Arc::new(AnyEdge(Schemes::new())))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(own))));
    config.alpn_protocols = vec![ALPN_EDGE.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// The side that dials this edge. The flag is set when another answers.
pub(crate) fn client_config(
    own: &Arc<CertifiedKey>,
    far: EdgeId,
) -> (Arc<ClientConfig>, Arc<AtomicBool>) {
    let other_answered = Arc::new(AtomicBool::new(false));
    let verifier =
        ThisEdge { id: far, other_answered: Arc::clone(&other_answered), schemes: Schemes::new() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
            own,
        ))));
    config.alpn_protocols = vec![ALPN_EDGE.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    (Arc::new(config), other_answered)
}

/// The key that the far end of a connection has proven to hold.
pub(crate) fn shown_by(connection: &Connection) -> Option<EdgePublicKey> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let [key] = &shown[..] else { return None };
    EdgePublicKey::from_spki_der(key).ok()
}

fn read(shown: &CertificateDer<'_>) -> Result<EdgePublicKey, Error> {
    EdgePublicKey::from_spki_der(shown)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Takes one edge.
#[derive(Debug)]
struct ThisEdge {
    id: EdgeId,
    other_answered: Arc<AtomicBool>,
    schemes: Schemes,
}

/// Takes any edge.
#[derive(Debug)]
struct AnyEdge(Schemes);

#[derive(Debug)]
struct Schemes(CryptoProvider);

impl Schemes {
    fn new() -> Self {
        Self(default_provider())
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

impl ServerCertVerifier for ThisEdge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if read(end_entity)?.id() == self.id {
            return Ok(ServerCertVerified::assertion());
        }
        self.other_answered.store(true, Ordering::Relaxed);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.schemes.verify(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyEdge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        read(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
