//! The token that says at an admin interface: this is the operator.
//!
//! It is `admin-` and 32 random bytes as base64url text (RFC 4648 section 5, without padding), in a file of its own that
//! its owner alone may read. The process that checks it keeps its hash alone. Who takes the file away and starts the
//! process anew has another token.

use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;

use crate::files::{self, Access, FileError};
use crate::{NoRandomness, random, sha256};

/// Where a state directory has it.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

const PREFIX: &str = "admin-";
/// Nobody guesses as many, however fast they may ask.
const SECRET_BYTES: usize = 32;

/// What an admin interface knows of its token.
#[derive(Clone, Debug)]
pub struct AdminToken {
    sha256: [u8; 32],
}

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No token could be drawn.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The file holds something else.
    #[error(
        "{} holds no admin token: the scheduler's is in admin.token of its state directory; if that is damaged, remove \
         it, and the next start makes another",
        .0.display()
    )]
    Content(PathBuf),
}

impl AdminToken {
    /// Reads the token of a state directory; draws and writes one, mode 0600, if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no token.
    pub fn load_or_create(directory: &Path) -> Result<Self, AdminTokenError> {
        let path = directory.join(ADMIN_TOKEN_FILE);
        if !path.exists() {
            let secret = BASE64URL_NOPAD.encode(&random::<SECRET_BYTES>()?);
            files::write(&path, format!("{PREFIX}{secret}\n").as_bytes(), Access::Owner)?;
        }
        Ok(Self { sha256: sha256(read_admin_token(&path)?.as_bytes()) })
    }

    /// Whether that is the token. Hashes are compared: how long it takes tells nothing of the token.
    pub fn is(&self, text: &str) -> bool {
        self.sha256 == sha256(text.as_bytes())
    }
}

/// Reads a file that holds an admin token.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn read_admin_token(path: &Path) -> Result<String, AdminTokenError> {
    let content = || AdminTokenError::Content(path.to_owned());
    let text = String::from_utf8(files::read(path)?).map_err(|_| content())?;
    let text = text.trim();
    let secret = text.strip_prefix(PREFIX).ok_or_else(content)?;
    let secret = BASE64URL_NOPAD.decode(secret.as_bytes()).map_err(|_| content())?;
    if secret.len() == SECRET_BYTES { Ok(text.to_owned()) } else { Err(content()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_drawn_once_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ADMIN_TOKEN_FILE);

        let first = AdminToken::load_or_create(dir.path()).unwrap();
        let text = read_admin_token(&path).unwrap();
        let again = AdminToken::load_or_create(dir.path()).unwrap();

        assert!(first.is(&text) && again.is(&text));
        for other in ["", "admin-", text.trim_start_matches(PREFIX), &text[..text.len() - 1]] {
            assert!(!first.is(other), "{other:?}");
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
        assert!(!AdminToken::load_or_create(dir.path()).unwrap().is(&text));
    }

    #[test]
    fn what_holds_something_else_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "admin-", "admin-short", "hello", "admin-ä"] {
            std::fs::write(dir.path().join(ADMIN_TOKEN_FILE), content).unwrap();

            let error = AdminToken::load_or_create(dir.path()).unwrap_err().to_string();

            assert!(error.contains("admin.token") && error.contains("remove it"), "{error}");
        }
    }
}
