//! Identities: who a certificate says its holder is.
//!
//! A node certificate has exactly one subject alternative name, the DNS name
//! `<role>-<id>.<mesh>.overway.internal`. There is one way to write each identity: lower case, the id in
//! decimal without leading zeros. (`.internal` is reserved for private use; such a name never resolves
//! in the public DNS.)

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Bytes of the longest mesh name: short enough to read in a certificate's subject.
pub const MESH_NAME_BYTES_MAX: usize = 32;

const SUFFIX: &str = ".overway.internal";

/// What a node is in its mesh, hence what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Carries frames, and is an end of sessions through its gateway.
    Relay,
    /// Decides routes and signs certificates.
    Scheduler,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 2] = [Self::Relay, Self::Scheduler];

    /// Its name in certificates, output and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Scheduler => "scheduler",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A node of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What it is.
    pub role: Role,
    /// Its number among those of its role, from 1; never used twice.
    pub id: u16,
    /// The mesh: 1 to 32 of a to z, 0 to 9 and hyphen, without a hyphen at either end.
    pub mesh: String,
}

impl Identity {
    /// Makes an identity, checking the id and the mesh's name.
    pub fn new(role: Role, id: u16, mesh: &str) -> Result<Self, IdentityError> {
        check_mesh_name(mesh)?;
        if id == 0 {
            return Err(IdentityError::Zero);
        }
        Ok(Self { role, id, mesh: mesh.to_owned() })
    }

    /// The name in its certificate, and the TLS server name by which it is dialled.
    pub fn server_name(&self) -> String {
        format!("{}-{}{}", self.role.name(), self.id, mesh_domain_suffix(&self.mesh))
    }

    /// Parses what [`Self::server_name`] writes, and nothing else.
    pub fn from_server_name(name: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed(name.chars().take(100).collect());
        let rest = name.strip_suffix(SUFFIX).ok_or_else(malformed)?;
        let (node, mesh) = rest.split_once('.').ok_or_else(malformed)?;
        let (role, id) = node.split_once('-').ok_or_else(malformed)?;
        let role = Role::from_name(role).ok_or_else(malformed)?;
        let id = id.parse().map_err(|_| malformed())?;
        let identity = Self::new(role, id, mesh)?;
        // Refuses "+7", "07" and whatever else an integer's parser is kind to.
        if identity.server_name() != name {
            return Err(malformed());
        }
        Ok(identity)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} of mesh {}", self.role, self.id, self.mesh)
    }
}

/// Why something does not identify a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is no certificate.
    #[error("the peer shows no certificate")]
    NoCertificate,
    /// The certificate is not X.509.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// A node certificate has exactly one name, a DNS name.
    #[error("the certificate has {0} names; expected one DNS name")]
    Names(usize),
    /// The name has another form.
    #[error("{0:?} is not an identity; expected ROLE-ID.MESH.overway.internal")]
    Malformed(String),
    /// Ids start at 1.
    #[error("0 is not an id; ids are 1 to 65535")]
    Zero,
    /// The mesh's name has another form.
    #[error(
        "{0:?} is not a mesh name; expected 1 to 32 of a-z, 0-9 and hyphen, with no hyphen at an end"
    )]
    Mesh(String),
}

/// Reads who a peer is from the chain it has shown, leaf first. Says nothing about whether the chain is
/// to be believed: that was decided in the handshake.
pub fn peer_identity(certs: &[CertificateDer<'_>]) -> Result<Identity, IdentityError> {
    let leaf = certs.first().ok_or(IdentityError::NoCertificate)?;
    let (rest, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| IdentityError::Unreadable)?;
    if !rest.is_empty() {
        return Err(IdentityError::Unreadable);
    }
    certificate_identity(&certificate)
}

pub(crate) fn certificate_identity(
    certificate: &X509Certificate<'_>,
) -> Result<Identity, IdentityError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?
        .map_or(&[][..], |extension| &extension.value.general_names);
    match names {
        [GeneralName::DNSName(name)] => Identity::from_server_name(name),
        _ => Err(IdentityError::Names(names.len())),
    }
}

/// Checks a mesh's name: a DNS label of at most [`MESH_NAME_BYTES_MAX`] in lower case.
pub(crate) fn check_mesh_name(mesh: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=MESH_NAME_BYTES_MAX).contains(&mesh.len())
        && mesh.bytes().all(allowed)
        && !mesh.starts_with('-')
        && !mesh.ends_with('-');
    if good { Ok(()) } else { Err(IdentityError::Mesh(mesh.chars().take(100).collect())) }
}

/// The domain that every name of a mesh is in.
pub(crate) fn mesh_domain(mesh: &str) -> String {
    format!("{mesh}{SUFFIX}")
}

/// The mesh whose domain this is.
pub(crate) fn mesh_of_domain(domain: &str) -> Result<String, IdentityError> {
    let mesh = domain
        .strip_suffix(SUFFIX)
        .ok_or_else(|| IdentityError::Mesh(domain.chars().take(100).collect()))?;
    check_mesh_name(mesh)?;
    Ok(mesh.to_owned())
}

fn mesh_domain_suffix(mesh: &str) -> String {
    format!(".{}", mesh_domain(mesh))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn an_identity_is_written_in_one_way() {
        let identity = Identity::new(Role::Relay, 7, "blue-2").unwrap();

        assert_eq!(identity.server_name(), "relay-7.blue-2.overway.internal");
        assert_eq!(identity.to_string(), "relay-7 of mesh blue-2");
        assert_eq!(Identity::from_server_name(&identity.server_name()), Ok(identity));
    }

    #[test]
    fn every_other_way_is_refused() {
        for bad in [
            "",
            "relay-7",
            "relay-7.blue",
            "relay-7.blue.overway.internal.",
            "relay-7.blue.overway.example",
            "relay-7..overway.internal",
            "relay-7.overway.internal",
            "relay-07.blue.overway.internal",
            "relay-+7.blue.overway.internal",
            "relay--7.blue.overway.internal",
            "relay-.blue.overway.internal",
            "relay-65536.blue.overway.internal",
            "Relay-7.blue.overway.internal",
            "relay-7.Blue.overway.internal",
            "relay-7.blue.green.overway.internal",
            "relay-7.-blue.overway.internal",
            "edge-7.blue.overway.internal",
            "*.blue.overway.internal",
            "scheduler.blue.overway.internal",
        ] {
            assert!(Identity::from_server_name(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Identity::from_server_name("relay-0.blue.overway.internal"),
            Err(IdentityError::Zero)
        );
    }

    #[test]
    fn what_is_no_certificate_identifies_nobody() {
        assert_eq!(peer_identity(&[]), Err(IdentityError::NoCertificate));
        let junk = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert_eq!(peer_identity(&[junk]), Err(IdentityError::Unreadable));
    }

    #[test]
    fn a_certificate_has_one_dns_name() {
        let certificate = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            let params = rcgen::CertificateParams::new(names).unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let good = "relay-7.blue.overway.internal";

        assert!(peer_identity(&[certificate(&[good])]).is_ok());
        assert_eq!(peer_identity(&[certificate(&[])]), Err(IdentityError::Names(0)));
        assert_eq!(peer_identity(&[certificate(&[good, good])]), Err(IdentityError::Names(2)));
        assert_eq!(peer_identity(&[certificate(&["127.0.0.1"])]), Err(IdentityError::Names(1)));
        assert!(matches!(
            peer_identity(&[certificate(&["example.org"])]),
            Err(IdentityError::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_an_identity_or_refused(text in any::<String>()) {
            let _ = Identity::from_server_name(&text);
        }

        #[test]
        fn any_bytes_as_a_certificate_identify_somebody_or_are_refused(
            bytes in any::<Vec<u8>>(),
        ) {
            let _ = peer_identity(&[CertificateDer::from(bytes)]);
        }

        #[test]
        fn every_identity_is_read_back(
            id in 1_u16..,
            role in proptest::sample::select(&Role::ALL[..]),
            mesh in "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
        ) {
            let identity = Identity::new(role, id, &mesh).unwrap();
            assert_eq!(Identity::from_server_name(&identity.server_name()), Ok(identity));
        }
    }
}
