//! Reading and writing files of keys. A file is written whole or not at all: to a temporary name in the same
//! directory, to disk, then renamed. A private key's file is its owner's alone from the moment it exists.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Who may read a file that is written here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// Mode 0644.
    Everybody,
    /// Mode 0600.
    Owner,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Everybody => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// Mode of a directory made here: it holds keys.
const DIRECTORY_MODE: u32 = 0o700;
/// No chain or key comes near this; it bounds what is read of a wrong file.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Bytes that fill a line of 64 characters.
const PEM_LINE_BYTES: usize = 48;
const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{path}: {doing}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{path}: holds no {expected} in PEM", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// It exists and is not to be overwritten.
    #[error("{path}: exists already and is kept as it is", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// Makes a directory for keys if it is not there.
pub(crate) fn make_directory(directory: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| io_error(directory, "make the directory", source))
}

/// Writes a chain, leaf first.
pub(crate) fn write_certificates(
    path: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<(), FileError> {
    let text: String = chain.iter().map(|certificate| pem(CERTIFICATE, certificate)).collect();
    write(path, text.as_bytes(), Access::Everybody)
}

/// Writes a private key, readable by its owner alone.
pub(crate) fn write_key(path: &Path, key: &PrivatePkcs8KeyDer<'_>) -> Result<(), FileError> {
    write(path, pem(PRIVATE_KEY, key.secret_pkcs8_der()).as_bytes(), Access::Owner)
}

/// Reads the certificates of a file, at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let content = || FileError::Content { path: path.to_owned(), expected: "certificate" };
    let bytes = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| content())?;
    if chain.is_empty() { Err(content()) } else { Ok(chain) }
}

/// Reads a private key.
pub(crate) fn read_key(path: &Path) -> Result<PrivatePkcs8KeyDer<'static>, FileError> {
    let bytes = read(path)?;
    PrivatePkcs8KeyDer::from_pem_slice(&bytes)
        .map_err(|_| FileError::Content { path: path.to_owned(), expected: "PKCS #8 private key" })
}

/// Renames within one directory, and sees to it that the new name is on disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|source| io_error(to, "rename", source))?;
    sync_directory(to)
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let error = |source| io_error(path, "read", source);
    let size = fs::metadata(path).map_err(error)?.len();
    if size > FILE_BYTES_MAX {
        return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, "more than 256 KiB")));
    }
    fs::read(path).map_err(error)
}

/// Writes a small file, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let suffix =
        crate::random::<8>().map_err(|error| io_error(path, "write", io::Error::other(error)))?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", HEXLOWER.encode(&suffix)));
    let temporary = PathBuf::from(name);

    write_new(&temporary, bytes, access).and_then(|()| fs::rename(&temporary, path)).map_err(
        |source| {
            // What went wrong is told; a left-over that cannot be removed either would add nothing.
            let _ = fs::remove_file(&temporary);
            io_error(path, "write", source)
        },
    )?;
    sync_directory(path)
}

fn write_new(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(path)?;
    // The process's umask may have taken bits away from what everybody may read.
    file.set_permissions(fs::Permissions::from_mode(access.mode()))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| io_error(directory, "write", source))
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: String = der.chunks(PEM_LINE_BYTES).map(|line| BASE64.encode(line) + "\n").collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> FileError {
    FileError::Io { path: path.to_owned(), doing, source }
}
