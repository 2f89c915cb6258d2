//! The last good state on disk: one full update, so that a relay forwards from its start, whether or not
//! a scheduler answers.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use overway_wire::control::{MESSAGE_BYTES_MAX, Update};
use prost::Message as _;

/// Where the state is kept.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("pushed.bin") }
    }

    /// Reads the state; `None` if there is none yet.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is no update.
    pub(crate) fn load(&self) -> io::Result<Option<Update>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any update"));
        }
        Update::decode(&bytes[..]).map(Some).map_err(io::Error::other)
    }

    /// Replaces the state.
    ///
    /// # Errors
    /// The directory cannot be written; the old state stands.
    pub(crate) fn save(&self, update: &Update) -> io::Result<()> {
        replace(&self.path, &update.encode_to_vec())
    }
}

/// Replaces a file: written whole beside the old one, then renamed over it.
///
/// # Errors
/// The directory cannot be written; the old file stands.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_is_read_back_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path());
        assert!(file.load().unwrap().is_none());

        let update = Update { revision: 7, ..Update::default() };
        file.save(&update).unwrap();

        assert_eq!(file.load().unwrap(), Some(update));
    }

    #[test]
    fn a_broken_state_is_an_error_and_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path());
        fs::write(&file.path, [0xff; 9]).unwrap();

        assert!(file.load().is_err());
    }
}
