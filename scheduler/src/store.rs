//! What the scheduler must not forget: its term, the members with what they last said of themselves, the
//! join tokens, and what the operator wished: drains, transit, policies, cells and tenants. Link state and
//! routes are soft; relays report them again.
//!
//! A [`Store`] is a snapshot with a revision and a compare-and-set of that revision: a change made from
//! a snapshot is applied whole, or refused as [`StoreError::Conflict`] because another was first. The
//! rules (ids are never given twice, a token is used once) live above it in [`crate::Registry`], so
//! that another store is one file and no rule is written twice.

mod disk;
mod tenants;
mod wishes;

pub use disk::DiskStore;
pub(crate) use disk::FILE as STORE_FILE;
pub use tenants::{KeyRecord, RevokedKeyRecord, TenantRecord};
pub(crate) use wishes::CellRecord;
pub use wishes::{DrainRecord, DrainTarget, PolicyRecord, Wishes, WishesChange};

use std::collections::BTreeMap;
use std::path::PathBuf;

use overway_wire::{PolicyId, RelayId};

/// Seconds since 1970 in UTC: expiry outlives the process, so it cannot use a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// This time less `earlier`, zero if it is not later.
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// SHA-256 of a join token's secret. The secret itself is kept nowhere.
pub type SecretHash = [u8; 32];

/// SHA-256 of a public key.
pub type KeyHash = [u8; 32];

/// A relay that joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, given once.
    pub id: RelayId,
    /// Its name, unique among members that are not revoked.
    pub name: String,
    /// Whether it was removed.
    pub revoked: bool,
    /// When it joined.
    pub created: UnixSeconds,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The name that the relay is to have.
    pub name: String,
    /// When it ends.
    pub expires: UnixSeconds,
    /// By whom it was used, if it was.
    pub used: Option<TokenUse>,
}

/// How a token was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// The member that it made.
    pub relay: RelayId,
    /// The key that the certificate was issued for.
    pub key: KeyHash,
    /// When.
    pub at: UnixSeconds,
}

/// Everything in the store, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts the changes.
    pub revision: u64,
    /// Raised at each start; epochs begin with it.
    pub term: u64,
    /// The greatest relay id ever given, 0 if none was.
    pub last_id: u16,
    /// Members, the removed ones included.
    pub members: BTreeMap<RelayId, Member>,
    /// Members' last hellos, protobuf: a member that does not reach the scheduler after its restart, and
    /// is well otherwise, keeps its links by this.
    pub hellos: BTreeMap<RelayId, Vec<u8>>,
    /// Join tokens.
    pub tokens: BTreeMap<SecretHash, Token>,
    /// What the operator wished.
    pub wishes: Wishes,
    /// What tenants have sent, protobuf: see the module `usage`.
    pub usage: BTreeMap<PolicyId, Vec<u8>>,
}

/// A change of the store. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The new term.
    pub term: Option<u64>,
    /// The new greatest relay id.
    pub last_id: Option<u16>,
    /// Members to put.
    pub members: Vec<Member>,
    /// Hellos to put, or to remove.
    pub hellos: Vec<(RelayId, Option<Vec<u8>>)>,
    /// Tokens to put.
    pub tokens: Vec<(SecretHash, Token)>,
    /// Tokens to remove, before any is put.
    pub tokens_removed: Vec<SecretHash>,
    /// What the operator wished.
    pub wishes: WishesChange,
    /// Usage of tenants to put, or to remove.
    pub usage: Vec<(PolicyId, Option<Vec<u8>>)>,
}

/// Everything that a snapshot holds, for an empty store.
impl From<Snapshot> for Change {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { revision: _, term, last_id, members, hellos, tokens, wishes, usage } =
            snapshot;
        let Wishes { drains, transit, last_policy, policies, cells, tenants } = wishes;
        Self {
            term: Some(term),
            last_id: Some(last_id),
            members: members.into_values().collect(),
            hellos: hellos.into_iter().map(|(id, hello)| (id, Some(hello))).collect(),
            tokens: tokens.into_iter().collect(),
            tokens_removed: Vec::new(),
            wishes: WishesChange {
                drains: put(drains),
                transit: put(transit),
                last_policy: Some(last_policy),
                policies: put(policies),
                cells: put(cells),
                tenants: put(tenants),
            },
            usage: put(usage),
        }
    }
}

fn put<K, V>(held: BTreeMap<K, V>) -> Vec<(K, Option<V>)> {
    held.into_iter().map(|(key, value)| (key, Some(value))).collect()
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision is no longer the one that the change was made from.
    #[error("the store was changed by another")]
    Conflict,
    /// Another process holds the store.
    #[error("{} is in use: is another scheduler running on this state_dir?", .0.display())]
    InUse(PathBuf),
    /// The store holds something that this build cannot read.
    #[error("the store holds an unreadable {0}")]
    Unreadable(&'static str),
    /// The medium failed.
    #[error("store: {0}")]
    Medium(Box<dyn std::error::Error + Send + Sync>),
}

/// A snapshot, and compare-and-set by revision.
pub trait Store: Send + Sync + 'static {
    /// Reads everything.
    ///
    /// # Errors
    /// If the medium fails or holds what this build cannot read.
    fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Applies `change` whole and durably if the revision is still `base`; returns the new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it is not; the others if the medium fails. Nothing is changed then.
    fn commit(&self, base: u64, change: &Change) -> Result<u64, StoreError>;
}
