//! A node's credentials: its key and certificate, replaced while in use.
//!
//! # On disk
//!
//! `node.pem` has the chain, `node.key` its key (owner-only), `ca.pem` the CA's certificate. A renewal
//! changes two files, and may be cut short between them; therefore the new key is first written to
//! `node.key.new`, then the chain replaces `node.pem`, then `node.key.new` becomes `node.key`. Whenever
//! the process dies, `node.pem` has its key in one of the two key files, and loading takes the one that
//! fits.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{certificate_mesh, key_pair};
use crate::files::{self, FileError};
use crate::identity::certificate_identity;
use crate::tls::verify_chain;
use crate::{Identity, IdentityError, RevokedRelays, Role, fingerprint};

const CHAIN_FILE: &str = "node.pem";
const KEY_FILE: &str = "node.key";
const NEW_KEY_FILE: &str = "node.key.new";
const CA_FILE: &str = "ca.pem";

/// A certificate is renewed when less than this part of its life is left: of 90 days, 30.
const RENEW_SHARE: u32 = 3;

/// A node's key and certificate, the CA it trusts, and the relays that were revoked. Shared by all of
/// its endpoints; see [`server_config`](crate::server_config) and [`client_config`](crate::client_config).
pub struct Credentials {
    identity: Identity,
    ca: CertificateDer<'static>,
    roots: Arc<RootCertStore>,
    revoked: Arc<RevokedRelays>,
    current: ArcSwap<Current>,
}

/// What a renewal replaces.
struct Current {
    certified: Arc<CertifiedKey>,
    key: PrivatePkcs8KeyDer<'static>,
    validity: Validity,
}

/// A certificate and its key, checked and not yet in use.
pub struct Reread(Current);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Credentials {
    /// Makes credentials of what a join has returned: the chain for `pending`, whose CA certificate must
    /// have the fingerprint that the join token names.
    pub fn from_join(
        pending: &PendingKey,
        chain: Vec<CertificateDer<'static>>,
        ca_sha256: [u8; 32],
        now: SystemTime,
    ) -> Result<Self, CredentialsError> {
        let ca = chain
            .iter()
            .find(|certificate| fingerprint(certificate) == ca_sha256)
            .cloned()
            .ok_or(CredentialsError::OtherCa)?;
        Self::assemble(ca, chain, pending.0.serialized_der().to_vec().into(), now)
    }

    /// Reads `node.pem`, `node.key` and `ca.pem` of a directory. Credentials that have expired are read
    /// too, so that the caller can tell by [`Self::not_after`] what is the matter; no peer takes them.
    pub fn load(directory: &Path) -> Result<Self, CredentialsError> {
        let ca = files::read_certificates(&directory.join(CA_FILE))?.remove(0);
        let chain = files::read_certificates(&directory.join(CHAIN_FILE))?;
        let key = load_key(directory, &chain)?;
        // At the start of its life the certificate is in date, whatever it is now.
        let now = Validity::of(&parse(&chain[0])?)?.not_before;
        Self::assemble(ca, chain, key, now)
    }

    /// Writes `node.pem`, `node.key` and `ca.pem` into a directory, which is made if it is not there.
    pub fn save(&self, directory: &Path) -> Result<(), CredentialsError> {
        files::make_directory(directory)?;
        files::write_certificates(&directory.join(CA_FILE), std::slice::from_ref(&self.ca))?;
        self.current.load().save(directory)
    }

    /// Who this node is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The server name by which any scheduler of this mesh is dialled, by whoever knows its address but
    /// not its id. Configurations of [`client_config`](crate::client_config) understand it; otherwise a
    /// node is dialled by [`Identity::server_name`].
    pub fn any_scheduler_name(&self) -> String {
        crate::tls::any_name(Role::Scheduler, &self.identity.mesh)
    }

    /// When the certificate in use ends.
    pub fn not_after(&self) -> SystemTime {
        self.current.load().validity.not_after
    }

    /// Whether the certificate in use is to be renewed: a third of its life is left, or less.
    pub fn renew_due(&self, now: SystemTime) -> bool {
        self.current.load().validity.renew_due(now)
    }

    /// The chain in use, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.load().certified.cert.clone()
    }

    /// The CA's certificate.
    pub const fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// The SHA-256 of the CA's certificate, by which join tokens name it.
    pub fn ca_fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.ca)
    }

    /// The relays that no handshake with these credentials succeeds with.
    pub const fn revoked(&self) -> &Arc<RevokedRelays> {
        &self.revoked
    }

    /// Makes a new key and the signing request (DER) for it, to renew with.
    pub fn new_request(&self) -> Result<(PendingKey, Vec<u8>), CredentialsError> {
        PendingKey::generate()
    }

    /// Takes a renewed certificate into use, and saves it. The chain must be for the pending key and for
    /// this same identity, signed by this mesh's CA, and in date; if it is not, or cannot be saved,
    /// nothing changes.
    pub fn replace(
        &self,
        pending: &PendingKey,
        chain: Vec<CertificateDer<'static>>,
        directory: &Path,
        now: SystemTime,
    ) -> Result<(), CredentialsError> {
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let identity = certificate_identity(&parse(leaf)?)?;
        let key = pending.0.serialized_der().to_vec().into();
        let current = Current::checked(chain, key, &self.roots, now)?;
        if identity != self.identity {
            return Err(CredentialsError::OtherIdentity {
                own: self.identity.clone(),
                given: identity,
            });
        }
        current.save(directory)?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    /// Reads what the directory holds now, for [`Self::adopt`]; `None` if that is the certificate in use. It must be for
    /// this same identity, signed by this mesh's CA, in date, and have its key beside it.
    pub fn reread(
        &self,
        directory: &Path,
        now: SystemTime,
    ) -> Result<Option<Reread>, CredentialsError> {
        let read = Self::load(directory)?;
        if read.ca != self.ca {
            return Err(CredentialsError::OtherCa);
        }
        if read.identity != self.identity {
            return Err(CredentialsError::OtherIdentity {
                own: self.identity.clone(),
                given: read.identity,
            });
        }
        let chain = read.chain();
        if chain == self.chain() {
            return Ok(None);
        }
        let key = read.current.load().key.clone_key();
        Ok(Some(Reread(Current::checked(chain, key, &self.roots, now)?)))
    }

    /// Takes what was read into use. Connections that stand keep what they were made with.
    pub fn adopt(&self, Reread(current): Reread) {
        self.current.store(Arc::new(current));
    }

    pub(crate) const fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.load().certified)
    }

    fn assemble(
        ca: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
        now: SystemTime,
    ) -> Result<Self, CredentialsError> {
        let leaf = chain.first().ok_or(IdentityError::NoCertificate)?;
        let identity = certificate_identity(&parse(leaf)?)?;
        let ca_mesh = certificate_mesh(&parse(&ca)?)?;
        if identity.mesh != ca_mesh {
            return Err(CredentialsError::OtherCa);
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|_| IdentityError::Unreadable)?;
        let current = Current::checked(chain, key, &roots, now)?;
        Ok(Self {
            identity,
            ca,
            roots: Arc::new(roots),
            revoked: Arc::default(),
            current: ArcSwap::from_pointee(current),
        })
    }
}

impl Current {
    fn checked(
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
        roots: &RootCertStore,
        now: SystemTime,
    ) -> Result<Self, CredentialsError> {
        let leaf = parse(chain.first().ok_or(IdentityError::NoCertificate)?)?;
        let validity = Validity::of(&leaf)?;
        if !key_fits(&key, &leaf) {
            return Err(CredentialsError::OtherKey);
        }
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| CredentialsError::NotYetValid)?;
        verify_chain(&chain, roots, UnixTime::since_unix_epoch(since_epoch))?;
        let signer = any_eddsa_type(&key).map_err(CredentialsError::Chain)?;
        let certified = Arc::new(CertifiedKey::new(chain, signer));
        Ok(Self { certified, key, validity })
    }

    fn save(&self, directory: &Path) -> Result<(), CredentialsError> {
        let new_key = directory.join(NEW_KEY_FILE);
        files::write_key(&new_key, &self.key)?;
        files::write_certificates(&directory.join(CHAIN_FILE), &self.certified.cert)?;
        files::rename(&new_key, &directory.join(KEY_FILE))?;
        Ok(())
    }
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, CredentialsError> {
        let time = |timestamp: i64| {
            let seconds = u64::try_from(timestamp).map_err(|_| IdentityError::Unreadable)?;
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or(IdentityError::Unreadable)
        };
        let validity = certificate.validity();
        Ok(Self {
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
        })
    }

    fn renew_due(self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let left = self.not_after.duration_since(now).unwrap_or_default();
        left <= life / RENEW_SHARE
    }
}

/// A key whose certificate has not come yet.
pub struct PendingKey(KeyPair);

impl PendingKey {
    /// Makes a new key and the signing request (DER) for it.
    pub fn generate() -> Result<(Self, Vec<u8>), CredentialsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(CredentialsError::Request)?;
        let mut params = CertificateParams::default();
        // The authority says the names; the request has none.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(CredentialsError::Request)?;
        Ok((Self(key), request.der().to_vec()))
    }
}

/// Why credentials could not be made, read, written or replaced.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate does not say who its holder is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is for another key.
    #[error("the certificate is not for this node's key")]
    OtherKey,
    /// The certificate is for another node.
    #[error("the certificate is for {given}; this node is {own}")]
    OtherIdentity {
        /// Who this node is.
        own: Identity,
        /// Whom the certificate is for.
        given: Identity,
    },
    /// The certificate is not signed by this mesh's CA.
    #[error("the certificate is not signed by this mesh's CA")]
    OtherCa,
    /// The certificate has ended.
    #[error("the certificate has expired, or this machine's clock is ahead")]
    Expired,
    /// The certificate has not begun.
    #[error("the certificate is not valid yet: this machine's clock is behind")]
    NotYetValid,
    /// The chain is wrong in another way.
    #[error("the certificate is not acceptable: {0}")]
    Chain(rustls::Error),
    /// The key or request could not be made.
    #[error("cannot make a key and its signing request: {0}")]
    Request(rcgen::Error),
}

impl From<rustls::Error> for CredentialsError {
    fn from(error: rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(certificate_error) = &error else {
            return Self::Chain(error);
        };
        match certificate_error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherCa,
            _ => Self::Chain(error),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("validity", &self.current.load().validity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingKey").finish_non_exhaustive()
    }
}

fn load_key(
    directory: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<PrivatePkcs8KeyDer<'static>, CredentialsError> {
    let leaf = parse(chain.first().ok_or(IdentityError::NoCertificate)?)?;
    let new_key = directory.join(NEW_KEY_FILE);
    // A new key that is not there, is spoilt or does not fit is of no use; `node.key` then must do.
    if let Ok(key) = files::read_key(&new_key)
        && key_fits(&key, &leaf)
    {
        // A renewal was cut short after its chain was written: end it.
        files::rename(&new_key, &directory.join(KEY_FILE))?;
        return Ok(key);
    }
    Ok(files::read_key(&directory.join(KEY_FILE))?)
}

fn key_fits(key: &PrivatePkcs8KeyDer<'_>, leaf: &X509Certificate<'_>) -> bool {
    key_pair(key).is_ok_and(|pair| pair.subject_public_key_info() == leaf.public_key().raw)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) | Err(_) => Err(IdentityError::Unreadable),
    }
}
