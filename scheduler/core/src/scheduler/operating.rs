//! What operators want: drains, transit, policies, tenants.

use std::time::Instant;

use overway_topology::Policy;
use overway_wire::control::{AccessUse, Tenant};
use overway_wire::{PolicyId, RelayId};

use super::{Scheduler, Urgency};
use crate::operator::{TENANTS_MAX, check_policy, check_tenant};
use crate::push::ItemKey;
use crate::usage::{RelayUsage, TenantUsage};
use crate::{Drain, Drainable, Event, OperatorError};

impl Scheduler {
    /// Begins, changes or (without a drain) ends the draining of a relay or a link; see [`Drain`].
    ///
    /// # Errors
    /// Says why it is not possible; nothing is changed then.
    pub fn handle_drain(
        &mut self,
        target: Drainable,
        drain: Option<Drain>,
        now: Instant,
    ) -> Result<(), OperatorError> {
        self.advance(now);
        let relays = match target {
            Drainable::Relay(relay) => [relay, relay],
            Drainable::Link(a, b) if a == b => return Err(OperatorError::SameRelay(a)),
            Drainable::Link(a, b) => [a, b],
        };
        relays.into_iter().try_for_each(|relay| self.check_member(relay))?;
        let stage = self.drains.set(target, drain, self.now)?;
        self.emit(Event::DrainChanged { target: target.ordered(), stage });
        self.apply_drain(target);
        Ok(())
    }

    /// Has a relay carry others' traffic or not, whatever it says itself; without a wish its own word counts.
    ///
    /// # Errors
    /// [`OperatorError::UnknownRelay`].
    pub fn handle_transit(
        &mut self,
        relay: RelayId,
        transit: Option<bool>,
        now: Instant,
    ) -> Result<(), OperatorError> {
        self.advance(now);
        let known = self.relays.get_mut(&relay).ok_or(OperatorError::UnknownRelay(relay))?;
        known.transit_override = transit;
        self.tell_topology(relay);
        self.request_plan(Urgency::Urgent);
        Ok(())
    }

    /// Puts, changes or (without one) removes a policy. Relays hear of it with the routes that it makes.
    ///
    /// # Errors
    /// Says why it is not possible; nothing is changed then.
    pub fn handle_policy(
        &mut self,
        id: PolicyId,
        policy: Option<Policy>,
        now: Instant,
    ) -> Result<(), OperatorError> {
        self.advance(now);
        match policy {
            Some(policy) => {
                check_policy(id, &policy, self.mesh.topology().policies())?;
                self.mesh.put_policy(id, policy).map_err(|_| OperatorError::PoliciesFull)?;
            }
            None if id == PolicyId::default() => return Err(OperatorError::Unrestricted),
            None if let Some(tenant) = self.user_of(id) => {
                return Err(OperatorError::PolicyInUse { policy: id, tenant });
            }
            None if !self.mesh.remove_policy(id) => return Err(OperatorError::UnknownPolicy(id)),
            None => {}
        }
        self.shared_changed = true;
        self.emit(Event::PolicyChanged { policy: id });
        self.request_plan(Urgency::Urgent);
        Ok(())
    }

    /// Puts, changes or (without one) removes a tenant. Relays hear of it with the next update, which is due at once.
    ///
    /// # Errors
    /// Says why it is not possible; nothing is changed then.
    pub fn handle_tenant(
        &mut self,
        number: PolicyId,
        tenant: Option<Tenant>,
        now: Instant,
    ) -> Result<(), OperatorError> {
        self.advance(now);
        match tenant {
            Some(tenant) => {
                let policies = self.mesh.topology().policies();
                check_tenant(number, &tenant, policies, &self.tenants)?;
                self.tenants.insert(number, tenant);
                self.judge_usage(number);
            }
            None if self.tenants.remove(&number).is_none() => {
                return Err(OperatorError::UnknownTenant(number));
            }
            None => {
                self.usage.forget(number);
                self.exhausted.remove(&number);
            }
        }
        self.shared_changed = true;
        self.touch_tenant(number);
        self.emit(Event::TenantChanged { tenant: number });
        Ok(())
    }

    /// Puts what was kept of a tenant's usage; see [`Self::usage`]. To be called once the tenant is put.
    pub fn handle_usage(&mut self, number: PolicyId, kept: Vec<RelayUsage>) {
        if self.tenants.contains_key(&number) {
            self.usage.restore(number, kept);
            self.judge_usage(number);
        }
    }

    /// What tenants' edges have sent, to be kept.
    pub fn usage(&self) -> impl Iterator<Item = (PolicyId, Vec<RelayUsage>)> {
        self.usage.all()
    }

    /// What a tenant's edges use.
    pub fn tenant_usage(&self, number: PolicyId) -> TenantUsage {
        self.usage.of(number, self.bytes_per_month(number))
    }

    /// Takes what edges use of a relay.
    pub(super) fn take_usage(&mut self, relay: RelayId, access: &AccessUse) {
        let tenants = &self.tenants;
        self.usage.take(relay, access, |number| tenants.contains_key(&number));
        let named = access.tenants.iter().take(TENANTS_MAX);
        for number in named.filter_map(|used| u16::try_from(used.tenant).ok()) {
            self.judge_usage(PolicyId(number));
        }
    }

    /// Tells relays if a tenant has sent what it may, or is allowed more.
    fn judge_usage(&mut self, number: PolicyId) {
        let month = self.usage.exhausted(number, self.bytes_per_month(number));
        let before = self.exhausted.insert(number, month).unwrap_or(0);
        if month == 0 {
            self.exhausted.remove(&number);
        }
        if month != before {
            self.touch_tenant(number);
        }
    }

    /// What a tenant's edges may send in a month; 0: no limit.
    fn bytes_per_month(&self, number: PolicyId) -> u64 {
        let quota = self.tenants.get(&number).and_then(|tenant| tenant.quota);
        quota.map_or(0, |quota| quota.bytes_per_month)
    }

    /// A tenant changed: every relay is to hear of it, at once.
    fn touch_tenant(&mut self, number: PolicyId) {
        let key = ItemKey::tenant(number);
        for relay in self.relays.values_mut().filter(|relay| relay.registration.is_some()) {
            if relay.may_have(key) {
                relay.push.touch(key);
            }
        }
        self.request_plan(Urgency::Urgent);
    }

    /// Accounts for drains whose deadline has come.
    pub(super) fn expire_drains(&mut self) {
        for target in self.drains.expire(self.now) {
            self.emit(Event::DrainChanged { target, stage: crate::DrainStage::Over });
            self.apply_drain(target);
        }
    }

    fn apply_drain(&mut self, target: Drainable) {
        match target {
            Drainable::Relay(relay) => {
                self.tell_topology(relay);
                self.links.suspect_relay(relay);
            }
            Drainable::Link(a, b) => self.links.suspect_pair(a, b),
        }
        self.request_plan(Urgency::Urgent);
    }

    /// A tenant whose frames take a policy's routes.
    fn user_of(&self, policy: PolicyId) -> Option<PolicyId> {
        let mut users = self.tenants.iter();
        let id = u32::from(policy.0);
        let uses = |tenant: &Tenant| tenant.route_policy == id || tenant.backup_policy == id;
        users.find(|(_, tenant)| uses(tenant)).map(|(&number, _)| number)
    }

    fn check_member(&self, relay: RelayId) -> Result<(), OperatorError> {
        let known = self.relays.contains_key(&relay);
        if known { Ok(()) } else { Err(OperatorError::UnknownRelay(relay)) }
    }
}
