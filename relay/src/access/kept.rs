//! What tenants have sent this month, on disk: a relay that starts anew goes on counting from there.
//!
//! It goes on under the same number ([`AccessUse::boot`]), so that the scheduler, which keeps the greatest that it has heard
//! of each count, takes both processes for one. The file is written every few seconds if anything has changed, and at the
//! end: a process that is killed forgets that much, as far as no scheduler has heard it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overway_wire::control::AccessUse;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::delivery::Deliveries;
use crate::state;

/// How often it is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of the file: as many tenants as there can be take a third of it.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Where the counts are kept.
#[derive(Clone, Debug)]
pub struct KeptUse {
    path: PathBuf,
}

impl KeptUse {
    /// In a relay's state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("tenants-use.bin") }
    }

    /// What an earlier process has counted, if anything.
    pub fn load(&self) -> Option<AccessUse> {
        self.read().unwrap_or_else(|error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "what tenants sent this month is unknown here; counting from zero");
            None
        })
    }

    fn read(&self) -> io::Result<Option<AccessUse>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any count"));
        }
        AccessUse::decode(&bytes[..]).map(Some).map_err(io::Error::other)
    }

    /// Saves what the access side says, again and again and once more when the token is cancelled.
    pub async fn keep_saved(self, deliveries: Arc<Deliveries>, stop: CancellationToken) {
        let mut saved = Vec::new();
        let mut complained = false;
        while !stop.is_cancelled() {
            stop.run_until_cancelled(tokio::time::sleep(SAVE_INTERVAL)).await;
            let Some(used) = deliveries.access_use() else { continue };
            let bytes = counts_of(used).encode_to_vec();
            if bytes == saved {
                continue;
            }
            let (path, new) = (self.path.clone(), bytes.clone());
            let written = tokio::task::spawn_blocking(move || state::replace(&path, &new)).await;
            match written.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                Ok(()) => (saved, complained) = (bytes, false),
                Err(error) if !complained => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "what tenants have sent cannot be saved; trying on");
                    complained = true;
                }
                Err(_) => {}
            }
        }
    }
}

/// What counts after the process: bytes.
fn counts_of(mut used: AccessUse) -> AccessUse {
    used.attachments = 0;
    used.tenants.retain(|tenant| tenant.sent_bytes > 0);
    for tenant in &mut used.tenants {
        (tenant.attachments, tenant.flows) = (0, 0);
    }
    used
}

#[cfg(test)]
mod tests {
    use overway_wire::control::TenantUse;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_was_counted_is_read_back_and_a_broken_file_counts_from_zero() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptUse::new(dir.path());
        assert_eq!(kept.load(), None);
        let deliveries = Arc::new(Deliveries::new(mpsc::channel(1).0, Arc::default()));
        let used = |sent_bytes| TenantUse { tenant: 7, attachments: 3, flows: 2, sent_bytes };
        let tenants = vec![used(900), TenantUse { tenant: 8, ..used(0) }];
        let (boot, month) = (4, 24_322);
        deliveries.set_access_use(AccessUse { attachments: 3, tenants, boot, month });
        let stop = CancellationToken::new();
        stop.cancel();
        // Stopped before it begins: nothing was counted since.
        kept.clone().keep_saved(Arc::clone(&deliveries), stop).await;
        assert_eq!(kept.load(), None);

        let stop = CancellationToken::new();
        let saving = tokio::spawn(kept.clone().keep_saved(deliveries, stop.clone()));
        tokio::task::yield_now().await;
        stop.cancel();
        saving.await.unwrap();

        let counted = TenantUse { tenant: 7, sent_bytes: 900, ..TenantUse::default() };
        let expected = AccessUse { attachments: 0, tenants: vec![counted], boot, month };
        assert_eq!(kept.load(), Some(expected));
        fs::write(&kept.path, [0xff; 9]).unwrap();
        assert_eq!(kept.load(), None);
    }
}
