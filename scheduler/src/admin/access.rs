//! `GET /v1/access`: which access relays a client should try.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use overway_dispatch::{Answer, Asked, Cell, Client, Mesh};
use overway_scheduler_core::Scheduler;
use overway_wire::PolicyId;
use overway_wire::control::item;

use super::names::Known;
use super::{Admin, Failure};

/// Answers by what relays are told too.
pub(super) async fn nearest(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Answer>, Failure> {
    let Query(asked) = query?;
    let known = Known::read(&admin).await?;
    let policy = asked.tenant.as_deref().map(|tenant| known.policy(tenant)).transpose()?;
    let policy = policy.filter(|&policy| policy != PolicyId::default());
    let backup = asked.tenant.as_deref().and_then(|tenant| known.backup(tenant));
    let look = move |core: &Scheduler, _| {
        (core.access_items(), policy.map(|policy| cell(core, policy, backup)))
    };
    let (items, cell) = admin.shared.driver.look(look).await?;
    let bodies = || items.iter().filter_map(|item| item.body.as_ref());
    let relays = bodies().filter_map(|body| match body {
        item::Body::AccessRelay(relay) => Some(relay),
        _ => None,
    });
    let prefixes = bodies().filter_map(|body| match body {
        item::Body::AccessPrefixes(prefixes) => Some(prefixes),
        _ => None,
    });
    let mesh = Mesh::read(relays, prefixes, |id| known.names.get(&id).cloned());
    let address: IpAddr = asked.client.unwrap_or(caller.ip()).to_canonical();
    let settings = admin.shared.settings.load();
    let client = Client {
        address: Some(address),
        location: settings.locations.as_ref().and_then(|locations| locations.of(address)),
        key: asked.key(address),
        cell: cell.as_ref(),
        measured: None,
    };
    Ok(Json(mesh.answer(&client, asked.limit())))
}

/// Where the edges of a tenant are to attach: its cell, and the cell's partners while no relay of the cell is there.
fn cell(core: &Scheduler, policy: PolicyId, backup: Option<PolicyId>) -> Cell {
    // A policy that the core does not know yet allows nothing.
    let allowed = |policy| core.allowed_by(policy).unwrap_or_default();
    let own = allowed(policy);
    let backup = backup.filter(|_| !own.iter().any(|&relay| core.is_there(relay)));
    Cell { partners: backup.map(allowed).unwrap_or_default(), own }
}
