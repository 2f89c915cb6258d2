//! Connection ids that begin with what they are steered by.

use std::fmt;
use std::time::Duration;

use overway_wire::hop::Lane;
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::{HashedConnectionIdGenerator, InvalidCid, RandomConnectionIdGenerator};

use super::program::LONG_HEADER;

/// Bytes of an id that an endpoint issues: the worker, and eight by which a line's endpoints know their own.
pub(crate) const ID_BYTES: usize = 1 + 8;
/// Bytes of the id with which a connection begins, as quinn has it.
const FIRST_ID_BYTES: usize = 20;

/// Issues ids that begin with a worker. Those of other workers of the line pass for its own: after a restart with
/// another number of workers a packet of an earlier connection may come to any of them, and is to be answered.
pub(crate) struct Ids {
    worker: u8,
    inner: HashedConnectionIdGenerator,
}

impl Ids {
    /// Those of a worker, on the line that has this key.
    pub(crate) fn new(worker: u8, key: u64) -> Self {
        Self { worker, inner: HashedConnectionIdGenerator::from_key(key) }
    }

    /// Whether a datagram is for a connection of the line as far as its header tells: any with a long header may
    /// be, and of the others those with an id that one of the line's endpoints has issued.
    pub(crate) fn knows(&self, datagram: &[u8]) -> bool {
        match datagram.split_first() {
            Some((first, rest)) if first & LONG_HEADER == 0 => {
                rest.get(..ID_BYTES).is_some_and(|id| self.validate(&ConnectionId::new(id)).is_ok())
            }
            Some(_) | None => true,
        }
    }
}

/// An id with which a connection for a shard's lane begins.
pub(crate) fn first_id(shard: u8, lane: Lane) -> ConnectionId {
    let random = RandomConnectionIdGenerator::new(FIRST_ID_BYTES - 2).generate_cid();
    prefixed(shard, &prefixed(lane.code(), &random))
}

/// The lane that the id says with which a connection began. A stranger's may say any: the hello counts.
pub(crate) fn first_lane(id: &ConnectionId) -> Option<Lane> {
    id.get(1).and_then(|&code| Lane::from_code(code))
}

fn prefixed(first: u8, rest: &[u8]) -> ConnectionId {
    ConnectionId::new(&[&[first], rest].concat())
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let inner = self.inner.generate_cid();
        prefixed(self.worker, &inner)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_first() {
            Some((_, rest)) if id.len() == ID_BYTES => {
                self.inner.validate(&ConnectionId::new(rest))
            }
            Some(_) | None => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.inner.cid_lifetime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn an_id_begins_with_its_worker_and_any_worker_of_the_line_knows_it() {
        let id = Ids::new(3, 7).generate_cid();

        assert_eq!((id[0], id.len()), (3, Ids::new(3, 7).cid_len()));
        assert!(Ids::new(0, 7).validate(&id).is_ok());
        assert!(Ids::new(3, 8).validate(&id).is_err(), "of another line");
        for length in 0..ID_BYTES {
            assert!(Ids::new(3, 7).validate(&ConnectionId::new(&id[..length])).is_err());
        }
    }

    #[test]
    fn a_connection_begins_with_its_shard_and_what_nobody_can_guess() {
        let (one, two) = (first_id(5, Lane::Bulk), first_id(5, Lane::Bulk));

        assert_eq!((one[0], two[0], one.len()), (5, 5, FIRST_ID_BYTES));
        assert_eq!(first_lane(&one), Some(Lane::Bulk));
        assert_ne!(one, two);
    }
}
