//! The store of a single scheduler: redb, one file, readable by its owner only. Records are protobuf,
//! so that a later version may add fields.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use overway_wire::RelayId;
use prost::Message;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::{Change, Member, Snapshot, Store, StoreError, Token, TokenUse, UnixSeconds};

/// The store's file within the state directory.
const FILE: &str = "mesh.redb";
/// Page cache. Everything fits: 65,535 members take about 4 MB.
const CACHE_BYTES_MAX: usize = 8 << 20;

const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const MEMBERS: TableDefinition<u16, &[u8]> = TableDefinition::new("members");
const HELLOS: TableDefinition<u16, &[u8]> = TableDefinition::new("hellos");
const TOKENS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tokens");
const REVISION: &str = "revision";
const TERM: &str = "term";
const LAST_ID: &str = "last_id";

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
        Ok(snapshot)
    }

    fn commit(&self, base: u64, change: &Change) -> Result<u64, StoreError> {
        let write = self.database.begin_write().map_err(medium)?;
        let revision = apply_counters(&write, base, change)?;
        apply_records(&write, change)?;
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

#[derive(Clone, PartialEq, Message)]
struct MemberRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    revoked: bool,
    #[prost(uint64, tag = "3")]
    created: u64,
}

#[derive(Clone, PartialEq, Message)]
struct TokenRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    expires: u64,
    #[prost(message, optional, tag = "3")]
    used: Option<UseRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct UseRecord {
    #[prost(uint32, tag = "1")]
    relay: u32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    at: u64,
}

fn encode_member(member: &Member) -> Vec<u8> {
    let record = MemberRecord {
        name: member.name.clone(),
        revoked: member.revoked,
        created: member.created.0,
    };
    record.encode_to_vec()
}

fn decode_member(id: RelayId, bytes: &[u8]) -> Result<Member, StoreError> {
    let record = MemberRecord::decode(bytes).map_err(|_| StoreError::Unreadable("member"))?;
    let created = UnixSeconds(record.created);
    Ok(Member { id, name: record.name, revoked: record.revoked, created })
}

fn encode_token(token: &Token) -> Vec<u8> {
    let used = token.used.map(|used| UseRecord {
        relay: u32::from(used.relay.0),
        key: used.key.to_vec(),
        at: used.at.0,
    });
    TokenRecord { name: token.name.clone(), expires: token.expires.0, used }.encode_to_vec()
}

fn decode_token(bytes: &[u8]) -> Result<Token, StoreError> {
    let unreadable = || StoreError::Unreadable("token");
    let record = TokenRecord::decode(bytes).map_err(|_| unreadable())?;
    let used = match record.used {
        None => None,
        Some(used) => Some(TokenUse {
            relay: RelayId(u16::try_from(used.relay).map_err(|_| unreadable())?),
            key: used.key.try_into().map_err(|_| unreadable())?,
            at: UnixSeconds(used.at),
        }),
    };
    Ok(Token { name: record.name, expires: UnixSeconds(record.expires), used })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn member(id: u16, name: &str) -> Member {
        Member { id: RelayId(id), name: name.to_owned(), revoked: false, created: UnixSeconds(7) }
    }

    fn token() -> Token {
        let used = TokenUse { relay: RelayId(2), key: [5; 32], at: UnixSeconds(9) };
        Token { name: "rome".into(), expires: UnixSeconds(100), used: Some(used) }
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
        };
        let store = DiskStore::open(dir.path()).unwrap();
        assert_eq!(store.snapshot().unwrap(), Snapshot::default());
        assert_eq!(store.commit(0, &change).unwrap(), 1);
        drop(store);

        let snapshot = DiskStore::open(dir.path()).unwrap().snapshot().unwrap();

        assert_eq!((snapshot.revision, snapshot.term, snapshot.last_id), (1, 3, 2));
        assert_eq!(snapshot.members[&RelayId(2)], member(2, "rome"));
        assert_eq!(snapshot.hellos[&RelayId(2)], [4, 2]);
        assert_eq!(snapshot.tokens[&[1; 32]], token());
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
