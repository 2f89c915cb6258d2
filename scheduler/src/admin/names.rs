//! Relays, classes and policies as people name them.

use axum::http::StatusCode;
use overway_wire::{Class, PolicyId, RelayId};

use super::{Admin, Failure};
use crate::api::Names;
use crate::nearest::nearest;
use crate::registry::{Registry, RegistryError, no_such_policy};
use crate::store::{Snapshot, Wishes};

/// What a request's words may mean: the members, and what the operator wished.
pub(super) struct Known {
    /// Members that are not removed.
    pub(super) names: Names,
    pub(super) wishes: Wishes,
}

impl Known {
    /// Reads the store.
    pub(super) async fn read(admin: &Admin) -> Result<Self, Failure> {
        let snapshot: Snapshot =
            admin.shared.registry_call::<_, RegistryError>(Registry::snapshot).await?;
        let members = snapshot.members.into_values().filter(|member| !member.revoked);
        let names = members.map(|member| (member.id, member.name)).collect();
        Ok(Self { names, wishes: snapshot.wishes })
    }

    /// The member of that name, or else of that id.
    pub(super) fn relay(&self, text: &str) -> Result<RelayId, Failure> {
        let named = self.names.iter().find(|(_, name)| *name == text).map(|(&id, _)| id);
        let numbered = || {
            let number = text.trim_start_matches('r').parse().ok().map(RelayId);
            number.filter(|id| self.names.contains_key(id))
        };
        named.or_else(numbered).ok_or_else(|| {
            let hint = nearest(text, self.names.values().map(String::as_str));
            let error = format!(
                "no relay of this mesh is named {text:?}{hint}: `overway node list` shows all"
            );
            Failure::new(StatusCode::NOT_FOUND, error)
        })
    }

    /// The class of that name.
    pub(super) fn class(text: &str) -> Result<Class, Failure> {
        Class::from_name(text).ok_or_else(|| {
            let hint = nearest(text, Class::ALL.into_iter().map(Class::name));
            let error =
                format!("{text:?} is no class{hint}: there are realtime, interactive and bulk");
            Failure::new(StatusCode::BAD_REQUEST, error)
        })
    }

    /// The policy of that name, or else that whose routes the tenant of that name takes.
    pub(super) fn policy(&self, name: &str) -> Result<PolicyId, Failure> {
        let policy = self.wishes.policy(name).map(|(id, _)| id);
        let of_tenant = || self.wishes.tenant(name).map(|(_, tenant)| tenant.policy);
        policy.or_else(of_tenant).ok_or_else(|| no_such_policy(&self.wishes, name).into())
    }

    /// The policy whose routes the tenant of that name takes where those of [`Self::policy`] lead nowhere.
    pub(super) fn backup(&self, name: &str) -> Option<PolicyId> {
        let tenant = self.wishes.policy(name).is_none().then(|| self.wishes.tenant(name))?;
        let backup = tenant.map(|(_, tenant)| tenant.backup);
        backup.filter(|&backup| backup != PolicyId::default())
    }

    /// Every member, in order of id.
    pub(super) fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.names.keys().copied()
    }
}
