//! Everything that a scheduler must not lose, in one file: the mesh's CA, the scheduler's own key and certificate, and
//! the store.
//!
//! ```text
//! "overway backup\n" | SHA-256 of the rest, 32 bytes | protobuf: format, mesh, time, software, files by name
//! ```
//!
//! The store goes in as a database made for the purpose from one snapshot, so that it is consistent however the scheduler
//! goes on meanwhile. Link state is not in it: relays report it again. Whoever has the file owns the mesh, as with
//! `ca.key`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use overway_pki::Authority;
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::clock::unix_seconds;
use crate::store::{Change, DiskStore, STORE_FILE, Snapshot, Store, StoreError};

/// How a backup begins.
const MAGIC: &[u8] = b"overway backup\n";
const HASH_BYTES: usize = 32;
/// The format written, and the newest read.
const FORMAT: u32 = 1;
/// Bytes of the largest backup that is read: a store of 65,535 members and all wishes takes a tenth of it.
const BACKUP_BYTES_MAX: u64 = 256 << 20;
/// What is in it, in the order in which it is restored. The CA's key last: without it no scheduler starts.
const FILES: [&str; 5] = [STORE_FILE, "node.pem", "node.key", "ca.pem", "ca.key"];
/// Mode of the directory that is restored into, if it has to be made: it holds keys.
const DIRECTORY_MODE: u32 = 0o700;

/// What a backup holds.
#[derive(Clone, PartialEq, Message)]
pub struct Backup {
    #[prost(uint32, tag = "1")]
    format: u32,
    /// The mesh's name.
    #[prost(string, tag = "2")]
    pub mesh: String,
    /// When it was made, in seconds since 1970 (UTC).
    #[prost(uint64, tag = "3")]
    pub created: u64,
    /// The build that made it.
    #[prost(string, tag = "4")]
    pub software: String,
    #[prost(message, repeated, tag = "5")]
    files: Vec<StoredFile>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredFile {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is something in the way, which is never overwritten.
    #[error("{} exists already, and nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// The file is something else, or damaged.
    #[error("{} is no whole backup", .0.display())]
    Damaged(PathBuf),
    /// A later build made it.
    #[error("the backup has format {found}, made by {software}; this build reads up to {FORMAT}")]
    Newer {
        /// Its format.
        found: u32,
        /// Who made it.
        software: String,
    },
    /// The directory holds no mesh.
    #[error(transparent)]
    Authority(#[from] overway_pki::AuthorityError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store of a scheduler that does not run, as [`Backup::of`] takes it.
///
/// # Errors
/// [`StoreError::InUse`] if it runs: then its admin interface has it at `/v1/state`.
pub fn stored(state_dir: &Path) -> Result<Vec<u8>, BackupError> {
    let path = state_dir.join(STORE_FILE);
    if !path.exists() {
        let source = std::io::Error::from(ErrorKind::NotFound);
        return Err(BackupError::Io { path, source });
    }
    copied(DiskStore::open(state_dir)?.snapshot()?)
}

/// A snapshot as the bytes of a database of its own.
pub(crate) fn copied(snapshot: Snapshot) -> Result<Vec<u8>, BackupError> {
    let made = tempfile::tempdir().map_err(|source| io(&std::env::temp_dir(), source))?;
    let store = DiskStore::open(made.path())?;
    store.commit(0, &Change::from(snapshot))?;
    drop(store);
    read(&made.path().join(STORE_FILE))
}

impl Backup {
    /// A backup of the keys in `state_dir`, and this store.
    ///
    /// # Errors
    /// A file is missing or no CA.
    pub fn of(state_dir: &Path, store: Vec<u8>) -> Result<Self, BackupError> {
        let mesh = Authority::load(state_dir)?.mesh().to_owned();
        let mut store = Some(store);
        let mut files = Vec::with_capacity(FILES.len());
        for name in FILES {
            let content = match store.take() {
                Some(store) => store,
                None => read(&state_dir.join(name))?,
            };
            files.push(StoredFile { name: name.to_owned(), content });
        }
        let (created, software) = (unix_seconds().0, crate::SOFTWARE.to_owned());
        Ok(Self { format: FORMAT, mesh, created, software, files })
    }

    /// Time since it was made, zero if this machine's clock is behind.
    pub fn age(&self) -> Duration {
        Duration::from_secs(unix_seconds().0.saturating_sub(self.created))
    }

    /// Writes it to a new file, which its owner alone may read.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), BackupError> {
        let body = self.encode_to_vec();
        let hash = Sha256::digest(&body);
        write_new(path, &[MAGIC, &hash[..], &body].concat())
    }

    /// Reads one.
    ///
    /// # Errors
    /// The file cannot be read, is no backup, is damaged, or of a later build.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let bytes = read(path)?;
        let damaged = || BackupError::Damaged(path.to_owned());
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (hash, body) = rest.split_at_checked(HASH_BYTES).ok_or_else(damaged)?;
        if Sha256::digest(body)[..] != *hash {
            return Err(damaged());
        }
        let backup = Self::decode(body).map_err(|_| damaged())?;
        if backup.format > FORMAT {
            return Err(BackupError::Newer { found: backup.format, software: backup.software });
        }
        // A name from the file is never a path.
        if !FILES.iter().eq(backup.files.iter().map(|file| &file.name)) {
            return Err(damaged());
        }
        Ok(backup)
    }

    /// Puts everything into `state_dir`, which is made if it is not there.
    ///
    /// # Errors
    /// One of the files exists already, and then nothing is changed; or something cannot be written, and then what was
    /// written is taken away again.
    pub fn restore(&self, state_dir: &Path) -> Result<(), BackupError> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(state_dir);
        made.map_err(|source| io(state_dir, source))?;
        let paths: Vec<PathBuf> = FILES.iter().map(|name| state_dir.join(name)).collect();
        if let Some(path) = paths.iter().find(|path| path.exists()) {
            return Err(BackupError::Exists(path.clone()));
        }
        for (at, (path, file)) in paths.iter().zip(&self.files).enumerate() {
            if let Err(error) = write_new(path, &file.content) {
                for path in &paths[..at] {
                    // What cannot be removed is in the way of the next try, which names it.
                    let _ = std::fs::remove_file(path);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    let file = std::fs::File::open(path).map_err(|source| io(path, source))?;
    let mut bytes = Vec::new();
    let read = file.take(BACKUP_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|source| io(path, source))?;
    if bytes.len() as u64 > BACKUP_BYTES_MAX {
        return Err(io(path, ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Writes a file that is not there yet, to disk, for its owner alone.
fn write_new(path: &Path, content: &[u8]) -> Result<(), BackupError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
        _ => io(path, source),
    })?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|source| {
        // Half a file is worse than none.
        let _ = std::fs::remove_file(path);
        io(path, source)
    })
}

fn io(path: &Path, source: std::io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Member, UnixSeconds};
    use overway_wire::RelayId;
    use std::os::unix::fs::PermissionsExt as _;

    fn mesh(dir: &Path) -> Snapshot {
        crate::init(dir, "demo").unwrap();
        let store = DiskStore::open(dir).unwrap();
        let (id, created) = (RelayId(4), UnixSeconds(7));
        let member = Member { id, name: "oslo".into(), revoked: false, created };
        let hellos = vec![(id, Some(vec![1, 2]))];
        let members = vec![member];
        let change =
            Change { term: Some(9), last_id: Some(4), members, hellos, ..Change::default() };
        store.commit(0, &change).unwrap();
        store.snapshot().unwrap()
    }

    #[test]
    fn what_was_saved_is_restored_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let before = mesh(&old);
        let file = dir.path().join("backup");
        Backup::of(&old, stored(&old).unwrap()).unwrap().write(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let backup = Backup::read(&file).unwrap();
        backup.restore(&new).unwrap();

        assert_eq!((backup.mesh.as_str(), backup.software.as_str()), ("demo", crate::SOFTWARE));
        assert_eq!(DiskStore::open(&new).unwrap().snapshot().unwrap(), before);
        for name in &FILES[1..] {
            assert_eq!(
                std::fs::read(old.join(name)).unwrap(),
                std::fs::read(new.join(name)).unwrap()
            );
            assert_eq!(new.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(matches!(backup.restore(&old), Err(BackupError::Exists(_))));
        assert!(matches!(backup.write(&file), Err(BackupError::Exists(_))));
    }

    #[test]
    fn one_file_in_the_way_leaves_the_directory_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        mesh(&old);
        let backup = Backup::of(&old, stored(&old).unwrap()).unwrap();
        std::fs::create_dir(&new).unwrap();
        std::fs::write(new.join("ca.key"), "mine").unwrap();

        let refused = backup.restore(&new);

        assert!(matches!(refused, Err(BackupError::Exists(path)) if path.ends_with("ca.key")));
        assert_eq!(std::fs::read_dir(&new).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_or_later_backup_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (old, file) = (dir.path().join("old"), dir.path().join("backup"));
        mesh(&old);
        let mut backup = Backup::of(&old, stored(&old).unwrap()).unwrap();
        backup.write(&file).unwrap();
        let whole = std::fs::read(&file).unwrap();
        for cut in [0, MAGIC.len() + 3, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert!(matches!(Backup::read(&file), Err(BackupError::Damaged(_))), "{cut}");
        }
        let later = dir.path().join("later");
        backup.format = FORMAT + 1;
        backup.write(&later).unwrap();
        assert!(matches!(Backup::read(&later), Err(BackupError::Newer { found: 2, .. })));
        let elsewhere = dir.path().join("elsewhere");
        backup.format = FORMAT;
        backup.files[1].name = "../node.pem".into();
        backup.write(&elsewhere).unwrap();
        assert!(matches!(Backup::read(&elsewhere), Err(BackupError::Damaged(_))));
    }

    #[test]
    fn where_there_is_no_mesh_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();

        assert!(stored(dir.path()).is_err());

        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
