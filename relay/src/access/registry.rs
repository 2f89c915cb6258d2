//! Who is attached: ids, queues, quotas, and which connection serves an edge.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use overway_tenant::EdgeId;
use overway_wire::control::AccessUse;
use overway_wire::{AttachmentId, BootId, PolicyId};
use tokio_util::sync::CancellationToken;

use super::admission::{Admitted, Refusal};
use super::quota::Buckets;
use crate::delivery::{Deliveries, EdgeQueue};

/// The least id of an edge; those below are the relay's own.
const ID_MIN: u16 = 2;

/// The attachments of a relay. Ids go round, from a random start, so that one is given again only after all others:
/// frames for an edge that left do not soon meet another at its address.
pub(crate) struct Registry {
    deliveries: Arc<Deliveries>,
    max: usize,
    next: u16,
    held: BTreeMap<AttachmentId, Held>,
    by_edge: HashMap<(PolicyId, EdgeId), AttachmentId>,
    tenants: HashMap<PolicyId, TenantUse>,
    connections: u64,
}

struct Held {
    edge: (PolicyId, EdgeId),
    connection: u64,
    replaced: CancellationToken,
    queue: Arc<EdgeQueue>,
}

/// What a tenant's edges use together.
struct TenantUse {
    attachments: u32,
    buckets: Rc<RefCell<Buckets>>,
}

/// An edge's place, as the connection has it that serves it.
pub(crate) struct Place {
    pub(crate) attachment: AttachmentId,
    /// Tells this connection's place from that of one that comes after it.
    pub(crate) connection: u64,
    /// Cancelled when another connection of the same edge takes the place.
    pub(crate) replaced: CancellationToken,
    pub(crate) queue: Arc<EdgeQueue>,
    pub(crate) buckets: Rc<RefCell<Buckets>>,
    /// Whether the edge was attached already.
    pub(crate) took_over: bool,
}

impl Registry {
    /// No attachments; at most `max` of them, and ids from `start` on.
    pub(crate) fn new(deliveries: Arc<Deliveries>, max: usize, start: u16) -> Self {
        Self {
            deliveries,
            max,
            next: start.max(ID_MIN),
            held: BTreeMap::new(),
            by_edge: HashMap::new(),
            tenants: HashMap::new(),
            connections: 0,
        }
    }

    /// Says whether the edge answers that a connection serves, if it still does.
    pub(crate) fn set_answering(&self, place: &Place, answering: bool) {
        let held = self.held.get(&place.attachment);
        if held.is_some_and(|held| held.connection == place.connection) {
            self.deliveries.set_answering(place.attachment, answering);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Says what edges use, for reports to the scheduler.
    pub(crate) fn tell_use(&self, boot: BootId) {
        let attachments = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let used = AccessUse { attachments, boot: boot.0, ..AccessUse::default() };
        self.deliveries.set_access_use(used);
    }

    /// Gives an edge its place: the one that it has, if it is attached already.
    pub(crate) fn attach(&mut self, admitted: &Admitted, now: Instant) -> Result<Place, Refusal> {
        let edge = (admitted.tenant, admitted.edge);
        self.connections += 1;
        let (connection, replaced) = (self.connections, CancellationToken::new());
        if let Some(&attachment) = self.by_edge.get(&edge)
            && let Some(held) = self.held.get_mut(&attachment)
            && let Some(tenant) = self.tenants.get(&admitted.tenant)
        {
            held.replaced.cancel();
            held.connection = connection;
            held.replaced = replaced.clone();
            let (queue, buckets) = (Arc::clone(&held.queue), Rc::clone(&tenant.buckets));
            buckets.borrow_mut().follow(admitted.quota, now);
            self.deliveries.set_answering(attachment, true);
            return Ok(Place { attachment, connection, replaced, queue, buckets, took_over: true });
        }
        if self.held.len() >= self.max {
            return Err(Refusal::Full("this relay has no room for another edge"));
        }
        let tenant = self.tenants.entry(admitted.tenant).or_insert_with(|| {
            let buckets = Rc::new(RefCell::new(Buckets::new(admitted.quota, now)));
            TenantUse { attachments: 0, buckets }
        });
        if admitted.quota.attachments.is_some_and(|max| tenant.attachments >= max) {
            return Err(Refusal::Full("the tenant has as many edges attached here as it may"));
        }
        tenant.attachments += 1;
        tenant.buckets.borrow_mut().follow(admitted.quota, now);
        let buckets = Rc::clone(&tenant.buckets);
        let attachment = self.free_id();
        let queue = self.deliveries.attach(attachment);
        let held = Held { edge, connection, replaced: replaced.clone(), queue: Arc::clone(&queue) };
        self.held.insert(attachment, held);
        self.by_edge.insert(edge, attachment);
        Ok(Place { attachment, connection, replaced, queue, buckets, took_over: false })
    }

    /// Takes a place away, unless another connection has it by now; says whether it did.
    pub(crate) fn detach(&mut self, attachment: AttachmentId, connection: u64) -> bool {
        if self.held.get(&attachment).is_none_or(|held| held.connection != connection) {
            return false;
        }
        if let Some(Held { edge, .. }) = self.held.remove(&attachment) {
            self.by_edge.remove(&edge);
            if let Some(tenant) = self.tenants.get_mut(&edge.0) {
                tenant.attachments -= 1;
                if tenant.attachments == 0 {
                    self.tenants.remove(&edge.0);
                }
            }
        }
        self.deliveries.detach(attachment);
        true
    }

    /// The next id that nobody has. There is one: `max` is less than there are ids.
    fn free_id(&mut self) -> AttachmentId {
        loop {
            let id = AttachmentId(self.next);
            self.next = self.next.checked_add(1).unwrap_or(ID_MIN);
            if !self.held.contains_key(&id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use overway_tenant::{Claims, EdgeKey, Names, Quota};
    use tokio::sync::mpsc;

    fn registry(max: usize, start: u16) -> Registry {
        let deliveries = Deliveries::new(mpsc::channel(1).0, Arc::default());
        Registry::new(Arc::new(deliveries), max, start)
    }

    fn admitted(edge: u8, tenant: u16, attachments: Option<u32>) -> Admitted {
        let edge = EdgeKey::from_seed([edge; 32]).id();
        let claims = Claims {
            tenant: "acme".parse().unwrap(),
            name: "phone".to_owned(),
            services: Names::Any,
            offers: Names::Any,
            classes: BTreeSet::new(),
            issued: 0,
            not_before: None,
            expires: 1,
            id: "t".parse().unwrap(),
            edge,
        };
        let quota = Quota { attachments, ..Quota::default() };
        let (cell, standing) = (String::new(), overway_relay_core::CellStanding::Own);
        Admitted { edge, claims, tenant: PolicyId(tenant), quota, cell, standing, version: 1 }
    }

    #[test]
    fn ids_go_round_and_are_not_given_again_soon() {
        let mut registry = registry(10, u16::MAX);
        let now = Instant::now();
        let mut attach = |edge| registry.attach(&admitted(edge, 1, None), now).unwrap();

        let (first, second) = (attach(1), attach(2));
        assert_eq!((first.attachment.0, second.attachment.0), (u16::MAX, 2));
        assert!(registry.detach(second.attachment, second.connection));
        let third = registry.attach(&admitted(3, 1, None), now).unwrap();
        assert_eq!(third.attachment.0, 3);
    }

    #[test]
    fn an_edge_that_comes_again_keeps_its_id_and_its_queue() {
        let mut registry = registry(1, 7);
        let now = Instant::now();
        let old = registry.attach(&admitted(1, 1, None), now).unwrap();

        let new = registry.attach(&admitted(1, 1, None), now).unwrap();

        assert!(old.replaced.is_cancelled() && !new.replaced.is_cancelled());
        assert!(new.took_over && new.attachment == old.attachment);
        assert!(Arc::ptr_eq(&old.queue, &new.queue));
        assert!(!registry.detach(old.attachment, old.connection), "the place is the new one's");
        assert_eq!(registry.len(), 1);
        assert!(registry.detach(new.attachment, new.connection));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn relays_and_tenants_have_only_so_much_room() {
        let mut registry = registry(3, 2);
        let now = Instant::now();
        let first = registry.attach(&admitted(1, 1, Some(1)), now).unwrap();
        let refused = registry.attach(&admitted(2, 1, Some(1)), now).err().unwrap();
        assert!(matches!(refused, Refusal::Full(_)));
        // The same key under another tenant is another edge.
        assert!(registry.attach(&admitted(1, 2, Some(1)), now).is_ok());
        assert!(registry.attach(&admitted(1, 3, None), now).is_ok());
        assert!(registry.attach(&admitted(9, 3, None), now).is_err());

        assert!(registry.detach(first.attachment, first.connection));
        assert!(registry.attach(&admitted(2, 1, Some(1)), now).is_ok());
    }
}
