//! Who may use a SOCKS listener (RFC 1929).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{Password, SocksUser};

/// Bytes of a name or password at most (RFC 1929, section 2).
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 255;
/// Bytes of a password's file that are read: the longest password and its line's end.
const FILE_BYTES_MAX: u64 = CREDENTIAL_BYTES_MAX as u64 + 3;

/// The users of a listener, as digests: equally long, so that a comparison takes equally long.
#[derive(PartialEq, Eq)]
pub(crate) struct Users(Vec<[[u8; 32]; 2]>);

/// A user's password cannot be read from its file.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the password of SOCKS user {name:?} from {}: {source}", path.display())]
pub struct PasswordError {
    /// The user.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: io::Error,
}

impl Users {
    /// Reads the passwords that are in files.
    pub(crate) fn load(users: &[SocksUser]) -> Result<Self, PasswordError> {
        let load = |SocksUser { name, password }: &SocksUser| {
            let password = match password {
                Password::Inline(password) => Ok(digest(password.as_bytes())),
                Password::File(path) => {
                    read_password(path).map(|bytes| digest(&bytes)).map_err(|source| {
                        PasswordError { name: name.clone(), path: path.clone(), source }
                    })
                }
            };
            Ok([digest(name.as_bytes()), password?])
        };
        Ok(Self(users.iter().map(load).collect::<Result<_, _>>()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a user of that name and password. How long it takes depends on neither.
    pub(crate) fn know(&self, name: &[u8], password: &[u8]) -> bool {
        let (name, password) = (digest(name), digest(password));
        let same = |user: &[[u8; 32]; 2]| user[0].ct_eq(&name) & user[1].ct_eq(&password);
        self.0.iter().fold(Choice::from(0), |known, user| known | same(user)).into()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.0.len()).finish()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The file's one line.
fn read_password(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        bytes.pop_if(|last| *last == b'\r');
    }
    let good = (1..=CREDENTIAL_BYTES_MAX).contains(&bytes.len()) && !bytes.contains(&b'\n');
    let expected = "expected one line of 1 to 255 bytes";
    if good { Ok(bytes) } else { Err(io::Error::new(io::ErrorKind::InvalidData, expected)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(list: &[(&str, &str)]) -> Users {
        let user = |(name, password): &(&str, &str)| SocksUser {
            name: (*name).to_owned(),
            password: Password::Inline((*password).to_owned()),
        };
        Users::load(&list.iter().map(user).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_name_is_known_with_its_own_password_only() {
        let users = users(&[("alice", "one"), ("bob", "two")]);

        assert!(users.know(b"alice", b"one") && users.know(b"bob", b"two"));
        for (name, password) in
            [("alice", "two"), ("alice", ""), ("Alice", "one"), ("", ""), ("carol", "one")]
        {
            assert!(!users.know(name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
    }

    #[test]
    fn a_password_may_be_the_one_line_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let load = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let password = Password::File(path.clone());
            Users::load(&[SocksUser { name: "alice".to_owned(), password }])
        };

        for line in ["secret", "secret\n", "secret\r\n"] {
            assert!(load(line.as_bytes()).unwrap().know(b"alice", b"secret"), "{line:?}");
        }
        assert!(load(&[b'x'; 255]).unwrap().know(b"alice", &[b'x'; 255]));
        for wrong in [&b""[..], b"\n", b"one\ntwo\n", &[b'x'; 256], &[b'x'; 10_000]] {
            let error = load(wrong).unwrap_err().to_string();
            assert!(error.contains("expected one line"), "{error}");
            assert!(error.contains("alice") && error.contains("password"), "{error}");
        }
    }
}
