//! The mesh's certificate authority.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ED25519, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

use crate::files::{self, FileError};
use crate::identity::{check_mesh_name, mesh_domain, mesh_of_domain};
use crate::{Identity, IdentityError, NoRandomness, random, sha256};

/// The longest life of a node's certificate. Two years: longer than any node should go without a
/// scheduler, and within what every X.509 implementation can count.
pub const LIFETIME_MAX: Duration = Duration::from_secs(2 * 365 * DAY_SECONDS);

const DAY_SECONDS: u64 = 86_400;
/// A mesh's CA is not replaced while the mesh lives, so it outlives the hardware.
const CA_LIFETIME: Duration = Duration::from_secs(30 * 365 * DAY_SECONDS);
/// A certificate is valid from this long before its making, for nodes whose clocks are slow ...
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);
/// ... but by no more than this part of its life, so that short lives keep their shape.
const CLOCK_SKEW_SHARE: u32 = 10;
/// A signing request has a key, a signature and little else.
const CSR_BYTES_MAX: usize = 4_096;

const CA_CERTIFICATE_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";

/// The key that signs a mesh's certificates, and the certificate that its nodes trust.
pub struct Authority {
    mesh: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with a new key.
    pub fn create(mesh: &str) -> Result<Self, AuthorityError> {
        check_mesh_name(mesh)?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let params = ca_params(mesh, SystemTime::now())?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { mesh: mesh.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Reads `ca.pem` and `ca.key` of a directory.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let certificate = files::read_certificates(&directory.join(CA_CERTIFICATE_FILE))?.remove(0);
        let key = key_pair(&files::read_key(&directory.join(CA_KEY_FILE))?)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| IdentityError::Unreadable)?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(AuthorityError::OtherKey);
        }
        let mesh = certificate_mesh(&parsed)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { mesh, certificate, issuer })
    }

    /// Writes `ca.pem` and `ca.key` into a directory, which is made if it is not there. An authority
    /// that is there already is never overwritten: that would be the end of its mesh.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        files::make_directory(directory)?;
        let key_path = directory.join(CA_KEY_FILE);
        if key_path.exists() {
            return Err(FileError::Exists { path: key_path }.into());
        }
        // The key last: where there is a key, the authority is whole.
        files::write_certificates(
            &directory.join(CA_CERTIFICATE_FILE),
            std::slice::from_ref(&self.certificate),
        )?;
        let key = PrivatePkcs8KeyDer::from(self.issuer.key().serialized_der());
        files::write_key(&key_path, &key)?;
        Ok(())
    }

    /// Signs a certificate for the key in a signing request, and returns its chain: the certificate,
    /// then the CA's. Of the request only the key is taken, after its signature has proved that the
    /// requester holds it; names, uses and dates are the authority's to say.
    ///
    /// The certificate is valid from a little before `now`, for nodes whose clocks are slow, until
    /// `lifetime` after it. `lifetime` is a second to [`LIFETIME_MAX`].
    pub fn issue(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        if csr_der.len() > CSR_BYTES_MAX {
            return Err(AuthorityError::Request);
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
                .map_err(|_| AuthorityError::Request)?;
        if *request.public_key.algorithm() != PKCS_ED25519 {
            return Err(AuthorityError::Algorithm);
        }
        if identity.mesh != self.mesh {
            return Err(AuthorityError::OtherMesh {
                identity: identity.clone(),
                mesh: self.mesh.clone(),
            });
        }
        let identity = Identity::new(identity.role, identity.id, &identity.mesh)?;
        let params = node_params(&identity, lifetime, now)?;
        let leaf = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }

    /// The mesh's name.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// The CA's certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-256 of the CA's certificate, by which join tokens name it.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("mesh", &self.mesh).finish_non_exhaustive()
    }
}

/// Why an authority could not be made, read or written, or did not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name or id is not one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// `ca.key` and `ca.pem` are of different authorities.
    #[error("ca.key is not the key of ca.pem")]
    OtherKey,
    /// The signing request cannot be read, or its signature is not by its key.
    #[error("the signing request cannot be read, or is not signed by its own key")]
    Request,
    /// The signing request's key is of another algorithm.
    #[error("the signing request's key is not an Ed25519 key")]
    Algorithm,
    /// The identity is of another mesh.
    #[error("{identity} cannot be signed by the authority of mesh {mesh}")]
    OtherMesh {
        /// Whom the certificate was for.
        identity: Identity,
        /// The authority's mesh.
        mesh: String,
    },
    /// Too short, too long, or the clock is far off.
    #[error("a certificate's lifetime is a second to 730 days")]
    Lifetime,
    /// The operating system gives no random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    sha256(certificate)
}

/// A key as it was read from a file or made.
pub(crate) fn key_pair(key: &PrivatePkcs8KeyDer<'_>) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ED25519)
}

/// The mesh that a CA certificate is for, from its subject.
pub(crate) fn certificate_mesh(certificate: &X509Certificate<'_>) -> Result<String, IdentityError> {
    let mut names = certificate.subject().iter_common_name().map(AttributeTypeAndValue::as_str);
    match (names.next(), names.next()) {
        (Some(Ok(domain)), None) => mesh_of_domain(domain),
        _ => Err(IdentityError::Unreadable),
    }
}

fn ca_params(mesh: &str, now: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let domain = mesh_domain(mesh);
    let mut params = base_params(&domain, CA_LIFETIME, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Whoever trusts this CA trusts it for the names of its mesh alone.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain)],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn node_params(
    identity: &Identity,
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    if lifetime < Duration::from_secs(1) || lifetime > LIFETIME_MAX {
        return Err(AuthorityError::Lifetime);
    }
    let subject = format!("{}-{}", identity.role, identity.id);
    let mut params = base_params(&subject, lifetime, now)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![SanType::DnsName(identity.server_name().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn base_params(
    subject: &str,
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let skew = CLOCK_SKEW.min(lifetime / CLOCK_SKEW_SHARE);
    let not_before = now.checked_sub(skew).ok_or(AuthorityError::Lifetime)?;
    let not_after = now.checked_add(lifetime).ok_or(AuthorityError::Lifetime)?;
    // A certificate's dates count years of four digits; a clock that is past them cannot be right.
    let year_3000 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_030 * 365 * DAY_SECONDS);
    if not_before < SystemTime::UNIX_EPOCH || not_after > year_3000 {
        return Err(AuthorityError::Lifetime);
    }

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    let mut serial: [u8; 16] = random()?;
    serial[0] &= 0x7f; // RFC 5280 section 4.1.2.2: positive
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}
