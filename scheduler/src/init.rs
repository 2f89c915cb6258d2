//! A new mesh: its authority, and the scheduler's own credentials.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use overway_pki::{
    Authority, AuthorityError, Credentials, CredentialsError, Identity, PendingKey, Role,
};

/// The first scheduler's id among schedulers.
const SCHEDULER_ID: u16 = 1;
/// Life of the scheduler's first certificate, and of others unless configured: see the design.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// Why no mesh was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already, or a node's key.
    #[error("{} exists already, and a mesh's keys are never overwritten", .0.display())]
    Exists(PathBuf),
    /// The authority could not be made or written.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The scheduler's credentials could not be made or written.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Makes the CA of a new mesh (`ca.pem`, `ca.key`) and the scheduler's certificate (`node.pem`,
/// `node.key`) in `directory`, which is made if it is not there.
///
/// # Errors
/// If there are keys already, the mesh's name is none, or the files cannot be written.
pub fn init(directory: &Path, mesh: &str) -> Result<Authority, InitError> {
    for file in ["ca.key", "node.key"] {
        let path = directory.join(file);
        if path.exists() {
            return Err(InitError::Exists(path));
        }
    }
    let now = SystemTime::now();
    let authority = Authority::create(mesh)?;
    let identity =
        Identity::new(Role::Scheduler, SCHEDULER_ID, mesh).map_err(AuthorityError::from)?;
    let (pending, csr_der) = PendingKey::generate()?;
    let chain = authority.issue(&csr_der, &identity, CERTIFICATE_LIFETIME, now)?;
    let credentials = Credentials::from_join(&pending, chain, authority.fingerprint(), now)?;
    // The authority first: without it, credentials are worth nothing, and it refuses to overwrite.
    authority.save(directory)?;
    credentials.save(directory)?;
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_init_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = init(dir.path(), "demo").unwrap();

        let second = init(dir.path(), "demo");

        assert!(matches!(second, Err(InitError::Exists(_))));
        assert_eq!(Authority::load(dir.path()).unwrap().fingerprint(), first.fingerprint());
        assert_eq!(Credentials::load(dir.path()).unwrap().identity().role, Role::Scheduler);
    }
}
