//! Who is let in. The chain, its dates, signatures and uses are judged by webpki; what is added here is
//! the identity: its form, mesh and role, whether it was revoked, and whether it is the one dialled.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::identity::mesh_domain;
use crate::{Credentials, Identity, IdentityError, Role, fingerprint, peer_identity};

/// A chain here is a leaf and its CA. More is not refused by itself, but is not searched either.
const CHAIN_CERTIFICATES_MAX: usize = 4;

/// The verifier of a server that asks for a certificate of one of `roles`.
pub(super) fn client(
    credentials: &Arc<Credentials>,
    roles: &'static [Role],
    mandatory: bool,
) -> Arc<dyn ClientCertVerifier> {
    let builder = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(credentials.roots()),
        super::provider(),
    );
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    let webpki =
        builder.build().expect("credentials have a root, and no revocation lists are given");
    Arc::new(MeshClient { credentials: Arc::clone(credentials), roles, webpki })
}

/// The verifier of a client that dials nodes of its own mesh by name.
pub(super) fn server(credentials: &Arc<Credentials>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(MeshServer { credentials: Arc::clone(credentials), algorithms: algorithms() })
}

/// The verifier of a client that knows no more of the mesh than its CA's fingerprint.
pub(super) fn join(ca_sha256: [u8; 32]) -> Arc<dyn ServerCertVerifier> {
    Arc::new(JoinServer { ca_sha256, algorithms: algorithms() })
}

/// The verifier of an edge: any relay of the mesh whose CA this is.
pub(super) fn access(
    ca: &CertificateDer<'static>,
    mesh: String,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(Arc::new(AccessServer { roots, mesh, algorithms: algorithms() }))
}

/// Checks that a chain's leaf is signed by one of `roots`, in date, and usable by a server and a client.
pub(crate) fn verify_chain(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    verify_server_chain(leaf, intermediates, roots, now)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), super::provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))?
        .verify_client_cert(leaf, intermediates, now)
        .map(|_| ())
}

/// The server name that stands for any node of a role.
pub(crate) fn any_name(role: Role, mesh: &str) -> String {
    format!("{role}.{}", mesh_domain(mesh))
}

#[derive(Debug)]
struct MeshClient {
    credentials: Arc<Credentials>,
    roles: &'static [Role],
    webpki: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for MeshClient {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.webpki.verify_client_cert(end_entity, intermediates, now)?;
        let identity = admitted(&self.credentials, end_entity)?;
        if !self.roles.contains(&identity.role) {
            return Err(refusal(Refusal::Role(identity)));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct MeshServer {
    credentials: Arc<Credentials>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for MeshServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_chain(end_entity, intermediates, self.credentials.roots(), now)?;
        let identity = admitted(&self.credentials, end_entity)?;
        let dialled = server_name.to_str();
        let is_dialled = dialled == identity.server_name()
            || (identity.role == Role::Scheduler
                && dialled == any_name(Role::Scheduler, &identity.mesh));
        if !is_dialled {
            return Err(refusal(Refusal::Name { identity, dialled: dialled.into_owned() }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct JoinServer {
    ca_sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for JoinServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .take(CHAIN_CERTIFICATES_MAX)
            .find(|certificate| fingerprint(certificate) == self.ca_sha256)
            .ok_or_else(|| refusal(Refusal::Fingerprint))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        verify_server_chain(end_entity, intermediates, &roots, now)?;
        let identity = identity_of(end_entity)?;
        match identity.role {
            Role::Scheduler => Ok(ServerCertVerified::assertion()),
            Role::Relay => Err(refusal(Refusal::Role(identity))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct AccessServer {
    roots: RootCertStore,
    mesh: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AccessServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_chain(end_entity, intermediates, &self.roots, now)?;
        let identity = identity_of(end_entity)?;
        if identity.mesh != self.mesh {
            return Err(refusal(Refusal::Mesh { identity, own: self.mesh.clone() }));
        }
        match identity.role {
            Role::Relay => Ok(ServerCertVerified::assertion()),
            Role::Scheduler => Err(refusal(Refusal::Role(identity))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a peer with a good chain is refused.
enum Refusal {
    Identity(IdentityError),
    Mesh { identity: Identity, own: String },
    Role(Identity),
    Revoked(Identity),
    Name { identity: Identity, dialled: String },
    Fingerprint,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => write!(f, "{error}"),
            Self::Mesh { identity, own } => {
                write!(f, "the peer is {identity}; expected mesh {own}")
            }
            Self::Role(identity) => {
                write!(f, "the peer is {identity}: that role is not allowed here")
            }
            Self::Revoked(identity) => write!(f, "the peer is {identity}, which was removed"),
            Self::Name { identity, dialled } => {
                write!(f, "the peer is {identity}; dialled was {dialled}")
            }
            Self::Fingerprint => {
                write!(f, "the scheduler's chain has no CA certificate of the token's fingerprint")
            }
        }
    }
}

/// rustls shows what a verifier has said by `Debug` only; the operator is to read the sentence.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refusal {}

/// Who the holder of a chain that webpki found good is, if of this mesh and not revoked.
fn admitted(credentials: &Credentials, leaf: &CertificateDer<'_>) -> Result<Identity, Error> {
    let identity = identity_of(leaf)?;
    let own = &credentials.identity().mesh;
    if identity.mesh != *own {
        return Err(refusal(Refusal::Mesh { identity, own: own.clone() }));
    }
    if credentials.revoked().is_revoked(&identity) {
        return Err(refusal(Refusal::Revoked(identity)));
    }
    Ok(identity)
}

fn identity_of(leaf: &CertificateDer<'_>) -> Result<Identity, Error> {
    peer_identity(std::slice::from_ref(leaf)).map_err(|error| refusal(Refusal::Identity(error)))
}

fn verify_server_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let leaf = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms().all)
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

fn refusal(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}
