//! The operator's wishes as tables. The keys are written out, not encoded as protobuf, so that one thing has
//! one key.

use std::collections::BTreeSet;

use overway_wire::{PolicyId, RelayId};
use prost::Message;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::super::{
    CellRecord, DrainRecord, DrainTarget, PolicyRecord, StoreError, UnixSeconds, Wishes,
    WishesChange,
};
use super::{medium, tenants};

/// By kind and the relays: `(0, relay, 0)`, or `(1, lesser, greater)` for a link.
const DRAINS: TableDefinition<(u8, u16, u16), &[u8]> = TableDefinition::new("drains");
const TRANSIT: TableDefinition<u16, bool> = TableDefinition::new("transit");
const POLICIES: TableDefinition<u16, &[u8]> = TableDefinition::new("policies");
const CELLS: TableDefinition<&str, &[u8]> = TableDefinition::new("cells");
const TENANTS: TableDefinition<u16, &[u8]> = TableDefinition::new("tenants");

pub(super) fn create_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(DRAINS).map_err(medium)?;
    write.open_table(TRANSIT).map_err(medium)?;
    write.open_table(POLICIES).map_err(medium)?;
    write.open_table(CELLS).map_err(medium)?;
    write.open_table(TENANTS).map_err(medium)?;
    Ok(())
}

/// Everything but the counter of policies.
pub(super) fn read(read: &ReadTransaction) -> Result<Wishes, StoreError> {
    let mut wishes = Wishes::default();
    for entry in read.open_table(DRAINS).map_err(medium)?.iter().map_err(medium)? {
        let (key, record) = entry.map_err(medium)?;
        wishes.drains.insert(target(key.value())?, decode_drain(record.value())?);
    }
    for entry in read.open_table(TRANSIT).map_err(medium)?.iter().map_err(medium)? {
        let (relay, allowed) = entry.map_err(medium)?;
        wishes.transit.insert(RelayId(relay.value()), allowed.value());
    }
    for entry in read.open_table(POLICIES).map_err(medium)?.iter().map_err(medium)? {
        let (id, record) = entry.map_err(medium)?;
        wishes.policies.insert(PolicyId(id.value()), decode_policy(record.value())?);
    }
    for entry in read.open_table(CELLS).map_err(medium)?.iter().map_err(medium)? {
        let (name, record) = entry.map_err(medium)?;
        wishes.cells.insert(name.value().to_owned(), decode_cell(record.value())?);
    }
    for entry in read.open_table(TENANTS).map_err(medium)?.iter().map_err(medium)? {
        let (number, record) = entry.map_err(medium)?;
        wishes.tenants.insert(PolicyId(number.value()), tenants::decode(record.value())?);
    }
    Ok(wishes)
}

pub(super) fn apply(write: &WriteTransaction, change: &WishesChange) -> Result<(), StoreError> {
    // The counter is kept with the others.
    let WishesChange { drains, transit, last_policy: _, policies, cells, tenants: changed } =
        change;
    let mut table = write.open_table(DRAINS).map_err(medium)?;
    for (target, drain) in drains {
        match drain {
            Some(drain) => {
                table.insert(key(*target), encode_drain(*drain).as_slice()).map_err(medium)?
            }
            None => table.remove(key(*target)).map_err(medium)?,
        };
    }
    let mut table = write.open_table(TRANSIT).map_err(medium)?;
    for (relay, allowed) in transit {
        match allowed {
            Some(allowed) => table.insert(relay.0, *allowed).map_err(medium)?,
            None => table.remove(relay.0).map_err(medium)?,
        };
    }
    let mut table = write.open_table(POLICIES).map_err(medium)?;
    for (id, policy) in policies {
        match policy {
            Some(policy) => table.insert(id.0, encode_policy(policy).as_slice()).map_err(medium)?,
            None => table.remove(id.0).map_err(medium)?,
        };
    }
    let mut table = write.open_table(CELLS).map_err(medium)?;
    for (name, cell) in cells {
        match cell {
            Some(cell) => {
                table.insert(name.as_str(), encode_cell(cell).as_slice()).map_err(medium)?
            }
            None => table.remove(name.as_str()).map_err(medium)?,
        };
    }
    let mut table = write.open_table(TENANTS).map_err(medium)?;
    for (number, tenant) in changed {
        match tenant {
            Some(tenant) => {
                table.insert(number.0, tenants::encode(tenant).as_slice()).map_err(medium)?
            }
            None => table.remove(number.0).map_err(medium)?,
        };
    }
    Ok(())
}

fn key(target: DrainTarget) -> (u8, u16, u16) {
    match target {
        DrainTarget::Relay(relay) => (0, relay.0, 0),
        DrainTarget::Link(one, other) => (1, one.0, other.0),
    }
}

fn target(key: (u8, u16, u16)) -> Result<DrainTarget, StoreError> {
    match key {
        (0, relay, 0) => Ok(DrainTarget::Relay(RelayId(relay))),
        (1, one, other) => Ok(DrainTarget::link(RelayId(one), RelayId(other))),
        (_, _, _) => Err(StoreError::Unreadable("drain")),
    }
}

#[derive(Clone, PartialEq, Message)]
struct DrainMessage {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(uint64, optional, tag = "2")]
    deadline: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct PolicyMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    regions: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    providers: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    cells: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CellMessage {
    #[prost(string, repeated, tag = "1")]
    regions: Vec<String>,
    #[prost(uint32, repeated, tag = "2")]
    relays: Vec<u32>,
    #[prost(string, repeated, tag = "3")]
    partners: Vec<String>,
}

fn encode_drain(drain: DrainRecord) -> Vec<u8> {
    let DrainRecord { since, deadline } = drain;
    DrainMessage { since: since.0, deadline: deadline.map(|deadline| deadline.0) }.encode_to_vec()
}

fn decode_drain(bytes: &[u8]) -> Result<DrainRecord, StoreError> {
    let message = DrainMessage::decode(bytes).map_err(|_| StoreError::Unreadable("drain"))?;
    let DrainMessage { since, deadline } = message;
    Ok(DrainRecord { since: UnixSeconds(since), deadline: deadline.map(UnixSeconds) })
}

fn encode_policy(policy: &PolicyRecord) -> Vec<u8> {
    let PolicyRecord { name, regions, providers, cells } = policy;
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect();
    let (regions, providers, cells) = (list(regions), list(providers), list(cells));
    PolicyMessage { name: name.clone(), regions, providers, cells }.encode_to_vec()
}

fn decode_policy(bytes: &[u8]) -> Result<PolicyRecord, StoreError> {
    let message = PolicyMessage::decode(bytes).map_err(|_| StoreError::Unreadable("policy"))?;
    let PolicyMessage { name, regions, providers, cells } = message;
    let set = |list: Vec<String>| list.into_iter().collect();
    let (regions, providers, cells) = (set(regions), set(providers), set(cells));
    Ok(PolicyRecord { name, regions, providers, cells })
}

fn encode_cell(cell: &CellRecord) -> Vec<u8> {
    let CellRecord { regions, relays, partners } = cell;
    let message = CellMessage {
        regions: regions.iter().cloned().collect(),
        relays: relays.iter().map(|relay| relay.0.into()).collect(),
        partners: partners.iter().cloned().collect(),
    };
    message.encode_to_vec()
}

fn decode_cell(bytes: &[u8]) -> Result<CellRecord, StoreError> {
    let unreadable = || StoreError::Unreadable("cell");
    let CellMessage { regions, relays, partners } =
        CellMessage::decode(bytes).map_err(|_| unreadable())?;
    let relay = |id| u16::try_from(id).map(RelayId).map_err(|_| unreadable());
    Ok(CellRecord {
        regions: regions.into_iter().collect(),
        relays: relays.into_iter().map(relay).collect::<Result<_, _>>()?,
        partners: partners.into_iter().collect(),
    })
}
