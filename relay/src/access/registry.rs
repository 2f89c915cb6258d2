//! Who is attached: ids, queues, quotas, and which connection serves an edge.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use overway_tenant::{EdgeId, Month};
use overway_wire::control::{self, AccessUse};
use overway_wire::{AttachmentId, BootId, PolicyId};
use tokio_util::sync::CancellationToken;

use super::admission::{Admitted, Refusal};
use super::quota::Allowance;
use crate::delivery::{Deliveries, EdgeQueue};

/// The least id of an edge; those below are the relay's own.
const ID_MIN: u16 = 2;

/// The attachments of a relay. Ids go round, from a random start, so that one is given again only after all others:
/// frames for an edge that left do not soon meet another at its address.
pub(crate) struct Registry {
    deliveries: Arc<Deliveries>,
    max: Arc<AtomicUsize>,
    next: u16,
    held: BTreeMap<AttachmentId, Held>,
    by_edge: HashMap<(PolicyId, EdgeId), AttachmentId>,
    tenants: BTreeMap<PolicyId, TenantUse>,
    month: Month,
    connections: u64,
}

struct Held {
    edge: (PolicyId, EdgeId),
    /// The edge's process.
    boot: BootId,
    connection: u64,
    replaced: CancellationToken,
    queue: Arc<EdgeQueue>,
}

/// What a tenant's edges use together.
struct TenantUse {
    attachments: u32,
    allowance: Rc<RefCell<Allowance>>,
}

/// An edge's place, as the connection has it that serves it.
pub(crate) struct Place {
    pub(crate) attachment: AttachmentId,
    /// Tells this connection's place from that of one that comes after it.
    pub(crate) connection: u64,
    /// Cancelled when another connection of the same edge takes the place.
    pub(crate) replaced: CancellationToken,
    pub(crate) queue: Arc<EdgeQueue>,
    pub(crate) allowance: Rc<RefCell<Allowance>>,
    pub(crate) took_over: TookOver,
}

/// Whether an edge was attached already when it attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TookOver {
    /// It was not.
    Nothing,
    /// It was, and is the same process.
    FromItself,
    /// It was, and is another process since: what that one offered is not this one's.
    FromEarlierProcess,
}

impl Registry {
    /// No attachments; at most `max` of them, which may change, and ids from `start` on.
    pub(crate) fn new(deliveries: Arc<Deliveries>, max: Arc<AtomicUsize>, start: u16) -> Self {
        Self {
            deliveries,
            max,
            next: start.max(ID_MIN),
            held: BTreeMap::new(),
            by_edge: HashMap::new(),
            tenants: BTreeMap::new(),
            month: Month::of(SystemTime::now()),
            connections: 0,
        }
    }

    /// Goes on with what an earlier process had counted, if that was in this month; says under which number that is.
    pub(crate) fn restore(&mut self, counted: &AccessUse, now: Instant) -> Option<BootId> {
        if counted.month != self.month.number() {
            return None;
        }
        for used in &counted.tenants {
            let Ok(number) = u16::try_from(used.tenant) else { continue };
            let allowance = Allowance::counted(self.month, used.sent_bytes, now);
            let allowance = Rc::new(RefCell::new(allowance));
            self.tenants.insert(PolicyId(number), TenantUse { attachments: 0, allowance });
        }
        Some(BootId(counted.boot))
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

    /// Says what edges use in this month, for reports to the scheduler, and forgets tenants that use nothing.
    pub(crate) fn tell_use(&mut self, boot: BootId, month: Month, now: Instant) {
        self.month = month;
        let mut tenants = Vec::new();
        self.tenants.retain(|number, tenant| {
            let mut allowance = tenant.allowance.borrow_mut();
            allowance.set_month(month);
            let used = control::TenantUse {
                tenant: number.0.into(),
                attachments: tenant.attachments,
                flows: allowance.flows(now),
                sent_bytes: allowance.sent_bytes(),
            };
            let is_used = used.attachments > 0 || used.sent_bytes > 0;
            if is_used {
                tenants.push(used);
            }
            is_used
        });
        let attachments = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let (boot, month) = (boot.0, month.number());
        self.deliveries.set_access_use(AccessUse { attachments, tenants, boot, month });
    }

    /// Gives an edge its place: the one that it has, if it is attached already.
    pub(crate) fn attach(
        &mut self,
        admitted: &Admitted,
        boot: BootId,
        now: Instant,
    ) -> Result<Place, Refusal> {
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
            let earlier = std::mem::replace(&mut held.boot, boot);
            let took_over = match earlier == boot {
                true => TookOver::FromItself,
                false => TookOver::FromEarlierProcess,
            };
            let (queue, allowance) = (Arc::clone(&held.queue), Rc::clone(&tenant.allowance));
            allowance.borrow_mut().follow(admitted, now);
            self.deliveries.set_answering(attachment, true);
            return Ok(Place { attachment, connection, replaced, queue, allowance, took_over });
        }
        if self.held.len() >= self.max.load(Ordering::Relaxed) {
            return Err(Refusal::Full("this relay has no room for another edge"));
        }
        let tenant = self.tenants.entry(admitted.tenant).or_insert_with(|| {
            let allowance = Allowance::new(admitted, self.month, now);
            TenantUse { attachments: 0, allowance: Rc::new(RefCell::new(allowance)) }
        });
        if let Some(max) = admitted.quota.attachments.filter(|&max| tenant.attachments >= max) {
            return Err(Refusal::Attachments(max));
        }
        tenant.attachments += 1;
        tenant.allowance.borrow_mut().follow(admitted, now);
        let allowance = Rc::clone(&tenant.allowance);
        let attachment = self.free_id();
        let queue = self.deliveries.attach(attachment);
        let (kept, replaces) = (Arc::clone(&queue), replaced.clone());
        let held = Held { edge, boot, connection, replaced: replaces, queue: kept };
        self.held.insert(attachment, held);
        self.by_edge.insert(edge, attachment);
        let took_over = TookOver::Nothing;
        Ok(Place { attachment, connection, replaced, queue, allowance, took_over })
    }

    /// Takes a place away, unless another connection has it by now; says whether it did.
    pub(crate) fn detach(&mut self, attachment: AttachmentId, connection: u64) -> bool {
        if self.held.get(&attachment).is_none_or(|held| held.connection != connection) {
            return false;
        }
        if let Some(Held { edge, .. }) = self.held.remove(&attachment) {
            self.by_edge.remove(&edge);
            if let Some(tenant) = self.tenants.get_mut(&edge.0) {
                // What it has sent this month still counts.
                tenant.attachments -= 1;
                tenant.allowance.borrow_mut().forget(attachment);
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
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use overway_tenant::{Claims, EdgeKey, Names, Quota};
    use tokio::sync::mpsc;

    const BOOT: BootId = BootId(1);

    fn registry(max: usize, start: u16) -> Registry {
        let deliveries = Deliveries::new(mpsc::channel(1).0, Arc::default());
        Registry::new(Arc::new(deliveries), Arc::new(max.into()), start)
    }

    pub(crate) fn admitted(edge: u8, tenant: u16, attachments: Option<u32>) -> Admitted {
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
        let (tenant, exhausted) = (PolicyId(tenant), None);
        Admitted {
            edge,
            claims,
            tenant,
            quota,
            exhausted,
            cell,
            standing,
            version: 1,
            generation: 0,
        }
    }

    #[test]
    fn ids_go_round_and_are_not_given_again_soon() {
        let mut registry = registry(10, u16::MAX);
        let now = Instant::now();
        let mut attach = |edge| registry.attach(&admitted(edge, 1, None), BOOT, now).unwrap();

        let (first, second) = (attach(1), attach(2));
        assert_eq!((first.attachment.0, second.attachment.0), (u16::MAX, 2));
        assert!(registry.detach(second.attachment, second.connection));
        let third = registry.attach(&admitted(3, 1, None), BOOT, now).unwrap();
        assert_eq!(third.attachment.0, 3);
    }

    #[test]
    fn an_edge_that_comes_again_keeps_its_id_and_its_queue() {
        let mut registry = registry(1, 7);
        let now = Instant::now();
        let old = registry.attach(&admitted(1, 1, None), BOOT, now).unwrap();

        let new = registry.attach(&admitted(1, 1, None), BOOT, now).unwrap();

        assert!(old.replaced.is_cancelled() && !new.replaced.is_cancelled());
        assert_eq!((new.took_over, new.attachment), (TookOver::FromItself, old.attachment));
        assert!(Arc::ptr_eq(&old.queue, &new.queue));
        assert!(!registry.detach(old.attachment, old.connection), "the place is the new one's");
        assert_eq!(registry.len(), 1);
        let again = registry.attach(&admitted(1, 1, None), BootId(2), now).unwrap();
        assert_eq!(again.took_over, TookOver::FromEarlierProcess);
        assert!(registry.detach(again.attachment, again.connection));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn relays_and_tenants_have_only_so_much_room() {
        let mut registry = registry(3, 2);
        let now = Instant::now();
        let first = registry.attach(&admitted(1, 1, Some(1)), BOOT, now).unwrap();
        let refused = registry.attach(&admitted(2, 1, Some(1)), BOOT, now).err().unwrap();
        assert_eq!(refused, Refusal::Attachments(1));
        assert!(refused.to_string().starts_with("quota of attachments: the tenant has 1 edges"));
        // The same key under another tenant is another edge.
        assert!(registry.attach(&admitted(1, 2, Some(1)), BOOT, now).is_ok());
        assert!(registry.attach(&admitted(1, 3, None), BOOT, now).is_ok());
        assert!(registry.attach(&admitted(9, 3, None), BOOT, now).is_err());

        assert!(registry.detach(first.attachment, first.connection));
        assert!(registry.attach(&admitted(2, 1, Some(1)), BOOT, now).is_ok());
    }

    #[test]
    fn what_a_tenant_has_sent_this_month_is_told_after_its_edges_have_left() {
        let mut registry = registry(3, 2);
        let now = Instant::now();
        let month = |text: &str| text.parse::<Month>().unwrap();
        let place = registry.attach(&admitted(1, 5, None), BOOT, now).unwrap();
        let told = |registry: &mut Registry, at: &str| {
            registry.tell_use(BootId(4), month(at), now);
            registry.deliveries.access_use().unwrap()
        };
        assert_eq!(told(&mut registry, "2026-11").tenants.len(), 1);
        let name = crate::access::quota::tests::flow(2, overway_wire::Class::Bulk, 1);
        place.allowance.borrow_mut().pass(name, 300, now).unwrap();
        assert!(registry.detach(place.attachment, place.connection));

        let used = told(&mut registry, "2026-11");
        let mut next = super::Registry { month: month("2026-11"), ..self::registry(3, 2) };
        assert_eq!(next.restore(&used, now), Some(BootId(4)));
        let place = next.attach(&admitted(1, 5, None), BOOT, now).unwrap();
        place.allowance.borrow_mut().pass(name, 50, now).unwrap();
        assert_eq!(told(&mut next, "2026-11").tenants[0].sent_bytes, 350);
        let mut later = super::Registry { month: month("2026-12"), ..self::registry(3, 2) };
        assert_eq!(later.restore(&used, now), None);
        assert!(told(&mut later, "2026-12").tenants.is_empty(), "a month begins at nothing");
        let tenant = control::TenantUse { tenant: 5, attachments: 0, flows: 0, sent_bytes: 300 };
        assert_eq!((used.attachments, used.boot, used.tenants), (0, 4, vec![tenant]));
        assert_eq!(used.month, month("2026-11").number());
        assert!(told(&mut registry, "2026-12").tenants.is_empty());
    }
}
