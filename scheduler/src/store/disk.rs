//! The store of a single scheduler: redb, one file, readable by its owner only. Records are protobuf,
//! so that a later version may add fields.

mod records;
mod tenants;
mod wishes;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use overway_wire::{PolicyId, RelayId};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::{Change, Snapshot, Store, StoreError};
use records::{decode_member, decode_token, encode_member, encode_token};

/// The store's file within the state directory.
pub(crate) const FILE: &str = "mesh.redb";
/// Page cache. Everything fits: 65,535 members take about 4 MB.
const CACHE_BYTES_MAX: usize = 8 << 20;

const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const MEMBERS: TableDefinition<u16, &[u8]> = TableDefinition::new("members");
const HELLOS: TableDefinition<u16, &[u8]> = TableDefinition::new("hellos");
const TOKENS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tokens");
const USAGE: TableDefinition<u16, &[u8]> = TableDefinition::new("usage");
const REVISION: &str = "revision";
const TERM: &str = "term";
const LAST_ID: &str = "last_id";
const LAST_POLICY: &str = "last_policy";

/// A store in a file.
#[derive(Debug)]
pub struct DiskStore {
    database: Database,
}

impl DiskStore {
    /// Opens or creates the store in `state_dir`.
    ///
    /// # Errors
    /// If the file cannot be opened, is no store, or another process holds it.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(medium)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES_MAX)
            .create_file(file)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path),
                other => medium(other),
            })?;
        let store = Self { database };
        store.create_tables()?;
        Ok(store)
    }

    /// So that a snapshot finds them: redb reports an unknown table as an error.
    fn create_tables(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(medium)?;
        write.open_table(COUNTERS).map_err(medium)?;
        write.open_table(MEMBERS).map_err(medium)?;
        write.open_table(HELLOS).map_err(medium)?;
        write.open_table(TOKENS).map_err(medium)?;
        write.open_table(USAGE).map_err(medium)?;
        wishes::create_tables(&write)?;
        write.commit().map_err(medium)
    }
}

impl Store for DiskStore {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let read = self.database.begin_read().map_err(medium)?;
        let counters = read.open_table(COUNTERS).map_err(medium)?;
        let counter = |name| Ok(counters.get(name).map_err(medium)?.map_or(0, |held| held.value()));
        let last_id = u16::try_from(counter(LAST_ID)?);
        let mut snapshot = Snapshot {
            revision: counter(REVISION)?,
            term: counter(TERM)?,
            last_id: last_id.map_err(|_| StoreError::Unreadable("last id"))?,
            ..Snapshot::default()
        };
        for entry in read.open_table(MEMBERS).map_err(medium)?.iter().map_err(medium)? {
            let (id, record) = entry.map_err(medium)?;
            let member = decode_member(RelayId(id.value()), record.value())?;
            snapshot.members.insert(member.id, member);
        }
        for entry in read.open_table(HELLOS).map_err(medium)?.iter().map_err(medium)? {
            let (id, hello) = entry.map_err(medium)?;
            snapshot.hellos.insert(RelayId(id.value()), hello.value().to_vec());
        }
        for entry in read.open_table(TOKENS).map_err(medium)?.iter().map_err(medium)? {
            let (hash, record) = entry.map_err(medium)?;
            let hash =
                hash.value().try_into().map_err(|_| StoreError::Unreadable("token's hash"))?;
            snapshot.tokens.insert(hash, decode_token(record.value())?);
        }
        for entry in read.open_table(USAGE).map_err(medium)?.iter().map_err(medium)? {
            let (tenant, usage) = entry.map_err(medium)?;
            snapshot.usage.insert(PolicyId(tenant.value()), usage.value().to_vec());
        }
        snapshot.wishes = wishes::read(&read)?;
        snapshot.wishes.last_policy = u16::try_from(counter(LAST_POLICY)?)
            .map_err(|_| StoreError::Unreadable("last policy id"))?;
        Ok(snapshot)
    }

    fn commit(&self, base: u64, change: &Change) -> Result<u64, StoreError> {
        let write = self.database.begin_write().map_err(medium)?;
        let revision = apply_counters(&write, base, change)?;
        apply_records(&write, change)?;
        wishes::apply(&write, &change.wishes)?;
        write.commit().map_err(medium)?;
        Ok(revision)
    }
}

fn apply_counters(write: &WriteTransaction, base: u64, change: &Change) -> Result<u64, StoreError> {
    let mut counters = write.open_table(COUNTERS).map_err(medium)?;
    let revision = counters.get(REVISION).map_err(medium)?.map_or(0, |held| held.value());
    if revision != base {
        return Err(StoreError::Conflict);
    }
    counters.insert(REVISION, base + 1).map_err(medium)?;
    if let Some(term) = change.term {
        counters.insert(TERM, term).map_err(medium)?;
    }
    if let Some(last_id) = change.last_id {
        counters.insert(LAST_ID, u64::from(last_id)).map_err(medium)?;
    }
    if let Some(last_policy) = change.wishes.last_policy {
        counters.insert(LAST_POLICY, u64::from(last_policy)).map_err(medium)?;
    }
    Ok(base + 1)
}

fn apply_records(write: &WriteTransaction, change: &Change) -> Result<(), StoreError> {
    let mut members = write.open_table(MEMBERS).map_err(medium)?;
    for member in &change.members {
        let record = encode_member(member);
        members.insert(member.id.0, record.as_slice()).map_err(medium)?;
    }
    let mut hellos = write.open_table(HELLOS).map_err(medium)?;
    for (relay, hello) in &change.hellos {
        match hello {
            Some(hello) => hellos.insert(relay.0, hello.as_slice()).map_err(medium)?,
            None => hellos.remove(relay.0).map_err(medium)?,
        };
    }
    let mut usage = write.open_table(USAGE).map_err(medium)?;
    for (tenant, record) in &change.usage {
        match record {
            Some(record) => usage.insert(tenant.0, record.as_slice()).map_err(medium)?,
            None => usage.remove(tenant.0).map_err(medium)?,
        };
    }
    let mut tokens = write.open_table(TOKENS).map_err(medium)?;
    for hash in &change.tokens_removed {
        tokens.remove(hash.as_slice()).map_err(medium)?;
    }
    for (hash, token) in &change.tokens {
        let record = encode_token(token);
        tokens.insert(hash.as_slice(), record.as_slice()).map_err(medium)?;
    }
    Ok(())
}

fn medium(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Medium(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::super::{
        CellRecord, DrainRecord, DrainTarget, KeyRecord, Member, PolicyRecord, RevokedKeyRecord,
        TenantRecord, Token, TokenUse, UnixSeconds, Wishes, WishesChange,
    };
    use super::*;
    use overway_tenant::Quota;
    use std::os::unix::fs::PermissionsExt;

    fn member(id: u16, name: &str) -> Member {
        Member { id: RelayId(id), name: name.to_owned(), revoked: false, created: UnixSeconds(7) }
    }

    fn token() -> Token {
        let used = TokenUse { relay: RelayId(2), key: [5; 32], at: UnixSeconds(9) };
        Token { name: "rome".into(), expires: UnixSeconds(100), used: Some(used) }
    }

    fn tenant() -> TenantRecord {
        let key = |seed| overway_tenant::TenantKey::from_seed([seed; 32]).public();
        let added = KeyRecord { key: key(1), added: UnixSeconds(3) };
        let (kid, at) = ("b".parse().unwrap(), UnixSeconds(4));
        TenantRecord {
            name: "im".parse().unwrap(),
            policy: PolicyId(7),
            backup: PolicyId(8),
            cell: Some("eu".into()),
            keys: [("a".parse().unwrap(), added)].into(),
            revoked_keys: vec![RevokedKeyRecord { kid, key: key(2), at }],
            revoked_tokens: [("t".parse().unwrap(), UnixSeconds(5))].into(),
            quota: Quota { flows: Some(9), bps: [Some(1), None, Some(3)], ..Quota::default() },
            created: UnixSeconds(2),
        }
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let change = Change {
            term: Some(3),
            last_id: Some(2),
            members: vec![member(1, "oslo"), member(2, "rome")],
            hellos: vec![(RelayId(2), Some(vec![4, 2]))],
            tokens: vec![([1; 32], token())],
            tokens_removed: vec![],
            wishes: WishesChange::default(),
            usage: vec![(PolicyId(9), Some(vec![1, 2])), (PolicyId(8), None)],
        };
        let store = DiskStore::open(dir.path()).unwrap();
        assert_eq!(store.snapshot().unwrap(), Snapshot::default());
        assert_eq!(store.commit(0, &change).unwrap(), 1);
        drop(store);

        let snapshot = DiskStore::open(dir.path()).unwrap().snapshot().unwrap();

        assert_eq!((snapshot.revision, snapshot.term, snapshot.last_id), (1, 3, 2));
        assert_eq!(snapshot.members[&RelayId(2)], member(2, "rome"));
        assert_eq!(snapshot.hellos[&RelayId(2)], [4, 2]);
        assert_eq!(snapshot.usage, [(PolicyId(9), vec![1, 2])].into());
        assert_eq!(snapshot.tokens[&[1; 32]], token());
    }

    #[test]
    fn what_the_operator_wished_is_there_after_a_restart_and_gone_when_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let link = DrainTarget::link(RelayId(9), RelayId(2));
        let until = DrainRecord { since: UnixSeconds(5), deadline: Some(UnixSeconds(65)) };
        let open = DrainRecord { since: UnixSeconds(6), deadline: None };
        let policy = PolicyRecord {
            name: "voice".into(),
            regions: set(&["eu-west"]),
            providers: set(&["a", "b"]),
            cells: set(&["eu"]),
        };
        let cell = CellRecord {
            regions: set(&["eu-west", "eu-north"]),
            relays: [RelayId(3)].into(),
            partners: set(&["ch"]),
        };
        let mut wishes = WishesChange {
            drains: vec![(link, Some(until)), (DrainTarget::Relay(RelayId(3)), Some(open))],
            transit: vec![(RelayId(1), Some(false)), (RelayId(2), Some(true))],
            last_policy: Some(7),
            policies: vec![(PolicyId(7), Some(policy))],
            cells: vec![("eu".into(), Some(cell))],
            tenants: vec![(PolicyId(6), Some(tenant()))],
        };
        let mut expected = Wishes::default();
        expected.apply(&wishes);
        let store = DiskStore::open(dir.path()).unwrap();
        store.commit(0, &Change { wishes: wishes.clone(), ..Change::default() }).unwrap();
        drop(store);

        let store = DiskStore::open(dir.path()).unwrap();
        assert_eq!(store.snapshot().unwrap().wishes, expected);

        wishes.drains.iter_mut().for_each(|(_, drain)| *drain = None);
        wishes.transit.iter_mut().for_each(|(_, transit)| *transit = None);
        wishes.policies.iter_mut().for_each(|(_, policy)| *policy = None);
        wishes.cells.iter_mut().for_each(|(_, cell)| *cell = None);
        wishes.tenants.iter_mut().for_each(|(_, tenant)| *tenant = None);
        wishes.last_policy = None;
        store.commit(1, &Change { wishes, ..Change::default() }).unwrap();
        let left = store.snapshot().unwrap().wishes;
        assert_eq!(left, Wishes { last_policy: 7, ..Wishes::default() });
    }

    #[test]
    fn a_change_from_an_old_revision_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        store.commit(0, &Change { term: Some(1), ..Change::default() }).unwrap();

        let late = Change { term: Some(9), members: vec![member(1, "oslo")], ..Change::default() };
        let refused = store.commit(0, &late);

        assert!(matches!(refused, Err(StoreError::Conflict)));
        let snapshot = store.snapshot().unwrap();
        assert_eq!((snapshot.term, snapshot.members.len()), (1, 0));
    }

    #[test]
    fn only_the_owner_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let _store = DiskStore::open(dir.path()).unwrap();

        let mode = dir.path().join(FILE).metadata().unwrap().permissions().mode();

        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_store_in_use_is_reported_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DiskStore::open(dir.path()).unwrap();

        let second = DiskStore::open(dir.path());

        assert!(matches!(second, Err(StoreError::InUse(_))));
    }
}
