//! What operators want of the mesh beside what it measures: drains, transit, policies, tenants.
//!
//! ```text
//!   drain --> leaving: no path goes over it where another way leads there, it stays an end
//!               |  deadline
//!               v
//!             over: nothing goes over it, to it, or from it            (undo at any time: as before)
//! ```
//!
//! A drained relay is left as an intermediate at once, stays an end until the deadline, and offers its services
//! only where nobody else does. Of a drained pair of relays all parallel links are left, both ways.
//!
//! The caller keeps these wishes and hands them in again at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use overway_topology::Policy;
use overway_wire::control::{POLICY_NAME_BYTES_MAX, Tenant};
use overway_wire::{LinkId, PolicyId, RelayId};

use crate::OperatorError;
use crate::event::DrainStage;
use crate::registration::NAME_BYTES_MAX;

/// Drains at a time. Each is looked at in every plan; whoever drains more than this stops the mesh.
pub const DRAINS_MAX: usize = 1_024;
/// Tenants of a mesh. Each is pushed to every relay, a few hundred bytes mostly and 70 KB at the most.
pub const TENANTS_MAX: usize = 1_024;
/// Regions, or providers, of one policy.
pub const POLICY_TERMS_MAX: usize = 256;

/// What can be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drainable {
    /// A relay, with all its links.
    Relay(RelayId),
    /// All links between two relays, both ways.
    Link(RelayId, RelayId),
}

/// How something is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Until then paths leave where another way leads there; after it the thing is not used at all.
    pub deadline: Option<Instant>,
    /// The deadline by the wall clock, in Unix seconds, as relays are told it.
    pub deadline_unix: Option<u64>,
}

impl Drainable {
    /// The same, with the lesser relay first.
    pub(crate) fn ordered(self) -> Self {
        match self {
            Self::Link(a, b) if b < a => Self::Link(b, a),
            Self::Link(..) | Self::Relay(_) => self,
        }
    }
}

impl fmt::Display for Drainable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(relay) => write!(f, "{relay}"),
            Self::Link(a, b) => write!(f, "the link {a}-{b}"),
        }
    }
}

/// The drains at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drains {
    /// By target, the lesser relay of a link first.
    wanted: BTreeMap<Drainable, Drain>,
    /// Of these, those whose deadline has passed.
    over: BTreeSet<Drainable>,
}

impl Drains {
    /// Begins, changes or ends a drain; says how far it is then.
    pub(crate) fn set(
        &mut self,
        target: Drainable,
        drain: Option<Drain>,
        now: Instant,
    ) -> Result<DrainStage, OperatorError> {
        let target = target.ordered();
        let Some(drain) = drain else {
            self.over.remove(&target);
            let gone = self.wanted.remove(&target);
            let not = || OperatorError::NotDrained(target.to_string());
            return gone.map(|_| DrainStage::Undone).ok_or_else(not);
        };
        if !self.wanted.contains_key(&target) && self.wanted.len() >= DRAINS_MAX {
            return Err(OperatorError::DrainsFull(DRAINS_MAX));
        }
        self.wanted.insert(target, drain);
        if drain.deadline.is_some_and(|deadline| deadline <= now) {
            self.over.insert(target);
            return Ok(DrainStage::Over);
        }
        self.over.remove(&target);
        Ok(DrainStage::Leaving)
    }

    /// Forgets what concerns a relay that is gone.
    pub(crate) fn forget(&mut self, relay: RelayId) {
        let stays = |target: &Drainable| match target {
            Drainable::Relay(id) => *id != relay,
            Drainable::Link(a, b) => *a != relay && *b != relay,
        };
        self.wanted.retain(|target, _| stays(target));
        self.over.retain(stays);
    }

    /// Takes those whose deadline has come since the last call.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Drainable> {
        let due = |drain: &Drain| drain.deadline.is_some_and(|deadline| deadline <= now);
        let expired: Vec<Drainable> = self
            .wanted
            .iter()
            .filter(|(target, drain)| due(drain) && !self.over.contains(target))
            .map(|(&target, _)| target)
            .collect();
        self.over.extend(&expired);
        expired
    }

    /// When the next deadline comes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let open = self.wanted.iter().filter(|(target, _)| !self.over.contains(target));
        open.filter_map(|(_, drain)| drain.deadline).min()
    }

    /// How far a relay's own drain is.
    pub(crate) fn relay(&self, relay: RelayId) -> Option<DrainStage> {
        self.stage(Drainable::Relay(relay))
    }

    /// When a relay's own drain is over, in Unix seconds.
    pub(crate) fn deadline(&self, relay: RelayId) -> Option<u64> {
        self.wanted.get(&Drainable::Relay(relay))?.deadline_unix
    }

    /// How far the drain of a link is: its own, or a relay's at either end whose deadline has passed.
    pub(crate) fn link(&self, link: LinkId) -> Option<DrainStage> {
        if self.wanted.is_empty() {
            return None;
        }
        let own = self.stage(Drainable::Link(link.from, link.to).ordered());
        let ends = [link.from, link.to].map(|relay| self.relay(relay));
        if own == Some(DrainStage::Over) || ends.contains(&Some(DrainStage::Over)) {
            return Some(DrainStage::Over);
        }
        own
    }

    /// Every drain, in order, and how far it is.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Drainable, Drain, DrainStage)> {
        self.wanted.iter().map(|(&target, &drain)| {
            let over = self.over.contains(&target);
            (target, drain, if over { DrainStage::Over } else { DrainStage::Leaving })
        })
    }

    fn stage(&self, target: Drainable) -> Option<DrainStage> {
        self.wanted.contains_key(&target).then(|| {
            if self.over.contains(&target) { DrainStage::Over } else { DrainStage::Leaving }
        })
    }
}

/// Checks a policy against those that there are.
pub(crate) fn check_policy<'a>(
    id: PolicyId,
    policy: &Policy,
    others: impl Iterator<Item = (PolicyId, &'a Policy)>,
) -> Result<(), OperatorError> {
    if id == PolicyId::default() {
        return Err(OperatorError::Unrestricted);
    }
    text("name", &policy.name, POLICY_NAME_BYTES_MAX)?;
    for (what, terms) in [("regions", &policy.regions), ("providers", &policy.providers)] {
        if terms.len() > POLICY_TERMS_MAX {
            return Err(OperatorError::TooMany { what, count: terms.len(), max: POLICY_TERMS_MAX });
        }
        terms.iter().try_for_each(|term| text(what, term, NAME_BYTES_MAX))?;
    }
    let mut others = others;
    match others.find(|(other, known)| *other != id && known.name == policy.name) {
        Some((id, _)) => Err(OperatorError::PolicyName { name: policy.name.clone(), id }),
        None => Ok(()),
    }
}

/// Checks a tenant's numbers against the policies and tenants that there are.
pub(crate) fn check_tenant<'a>(
    number: PolicyId,
    tenant: &Tenant,
    policies: impl Iterator<Item = (PolicyId, &'a Policy)>,
    others: &BTreeMap<PolicyId, Tenant>,
) -> Result<(), OperatorError> {
    let policies: BTreeSet<_> = policies.map(|(id, _)| id).collect();
    let is_number = number != PolicyId::default() && tenant.number == u32::from(number.0);
    if !is_number || policies.contains(&number) {
        return Err(OperatorError::TenantNumber(tenant.number));
    }
    let known = |id: u16| id == 0 || policies.contains(&PolicyId(id));
    for policy in [tenant.route_policy, tenant.backup_policy] {
        if !u16::try_from(policy).is_ok_and(known) {
            return Err(OperatorError::TenantPolicy(policy));
        }
    }
    // A cell that restricts nothing would be a promise that nobody keeps.
    if !tenant.cell.is_empty() && tenant.route_policy == 0 {
        return Err(OperatorError::TenantPolicy(0));
    }
    if !others.contains_key(&number) && others.len() >= TENANTS_MAX {
        return Err(OperatorError::TenantsFull(TENANTS_MAX));
    }
    match others.iter().find(|(other, known)| **other != number && known.name == tenant.name) {
        Some((&id, _)) => Err(OperatorError::TenantName { name: tenant.name.clone(), id }),
        None => Ok(()),
    }
}

fn text(what: &'static str, text: &str, max: usize) -> Result<(), OperatorError> {
    let bytes = text.len();
    if bytes == 0 || bytes > max {
        return Err(OperatorError::Text { what, bytes, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::LinkIndex;
    use std::time::Duration;

    const A: RelayId = RelayId(1);
    const B: RelayId = RelayId(2);

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn link(from: RelayId, to: RelayId) -> LinkId {
        LinkId::new(from, to, LinkIndex::default())
    }

    #[test]
    fn a_drain_is_over_at_its_deadline_and_can_be_undone_at_any_time() {
        let now = start();
        let deadline = now + Duration::from_secs(60);
        let mut drains = Drains::default();
        let drain = Some(Drain { deadline: Some(deadline), deadline_unix: Some(60) });
        assert_eq!(drains.set(Drainable::Relay(A), drain, now), Ok(DrainStage::Leaving));
        assert_eq!((drains.relay(A), drains.link(link(A, B))), (Some(DrainStage::Leaving), None));
        assert_eq!(drains.next_deadline(), Some(deadline));

        assert_eq!(drains.expire(deadline), [Drainable::Relay(A)]);
        assert_eq!(drains.expire(deadline), []);
        assert_eq!(drains.link(link(B, A)), Some(DrainStage::Over));
        assert_eq!(drains.next_deadline(), None);

        assert_eq!(drains.set(Drainable::Relay(A), None, now), Ok(DrainStage::Undone));
        assert_eq!(drains.relay(A), None);
        let error = drains.set(Drainable::Relay(A), None, now).unwrap_err();
        assert_eq!(error.to_string(), "r1 is not being drained");
    }

    #[test]
    fn a_drained_link_is_known_from_either_end() {
        let now = start();
        let mut drains = Drains::default();
        drains.set(Drainable::Link(B, A), Some(Drain::default()), now).unwrap();

        for link in [link(A, B), link(B, A)] {
            assert_eq!(drains.link(link), Some(DrainStage::Leaving));
        }
        assert_eq!(drains.link(link(A, RelayId(3))), None);
        drains.forget(B);
        assert_eq!(drains.iter().count(), 0);
    }

    #[test]
    fn tenants_that_cannot_be_are_refused_with_a_reason() {
        let eu = Policy { name: "eu".into(), ..Policy::default() };
        let tenant = |number, route_policy, name: &str| Tenant {
            number,
            route_policy,
            name: name.into(),
            ..Tenant::default()
        };
        let known = BTreeMap::from([(PolicyId(3), tenant(3, 0, "im"))]);
        let check = |number, tenant: Tenant| {
            check_tenant(PolicyId(number), &tenant, [(PolicyId(1), &eu)].into_iter(), &known)
        };

        assert_eq!(check(0, tenant(0, 0, "a")), Err(OperatorError::TenantNumber(0)));
        assert_eq!(check(1, tenant(1, 0, "a")), Err(OperatorError::TenantNumber(1)));
        assert_eq!(check(4, tenant(5, 0, "a")), Err(OperatorError::TenantNumber(5)));
        assert_eq!(check(4, tenant(4, 2, "a")), Err(OperatorError::TenantPolicy(2)));
        let backup = Tenant { backup_policy: 2, ..tenant(4, 1, "a") };
        assert_eq!(check(4, backup), Err(OperatorError::TenantPolicy(2)));
        let celled = Tenant { cell: "eu".into(), ..tenant(4, 0, "a") };
        assert_eq!(check(4, celled), Err(OperatorError::TenantPolicy(0)));
        let taken = OperatorError::TenantName { name: "im".into(), id: PolicyId(3) };
        assert_eq!(check(4, tenant(4, 1, "im")), Err(taken));
        assert_eq!(check(4, tenant(4, 1, "a")), Ok(()));
        assert_eq!(check(3, tenant(3, 1, "im")), Ok(()));
    }

    #[test]
    fn policies_that_cannot_be_are_refused_with_a_reason() {
        let named = |name: &str| Policy { name: name.into(), ..Policy::default() };
        let known = [(PolicyId(1), named("eu"))];
        let check = |id, policy: Policy| {
            check_policy(PolicyId(id), &policy, known.iter().map(|(id, policy)| (*id, policy)))
        };

        assert_eq!(check(0, named("x")), Err(OperatorError::Unrestricted));
        assert!(matches!(check(2, named("")), Err(OperatorError::Text { what: "name", .. })));
        assert!(matches!(check(2, named("eu")), Err(OperatorError::PolicyName { .. })));
        let empty = Policy { regions: ["".into()].into(), ..named("x") };
        assert!(matches!(check(2, empty), Err(OperatorError::Text { what: "regions", .. })));
        assert_eq!(check(1, named("eu")), Ok(()));
    }
}
