//! Drains, transit, policies and cells. Each change is kept in the store first and then told to the core,
//! under a lock, so that both have the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use overway_scheduler_core::{Drain, DrainStatus, Drainable, OperatorError};
use overway_wire::control;

use super::names::Known;
use super::routes::still_on;
use super::{Admin, Failure};
use crate::api::{
    CellBody, CellRequest, CellsBody, DrainBody, DrainRequest, DrainsBody, PoliciesBody,
    PolicyBody, PolicyRequest, TransitBody, TransitRequest,
};
use crate::clock::unix_seconds;
use crate::driver::{Input, Wish};
use crate::registry::{Settled, WishError, no_such_policy};
use crate::store::{CellRecord, DrainRecord, DrainTarget, PolicyRecord, UnixSeconds};

/// The longest deadline: a month. Who drains for longer removes the relay.
const DEADLINE_MAX: Duration = Duration::from_secs(31 * 86_400);

/// What the core is told of a drain that the store keeps; its deadline is by the wall clock.
pub(crate) fn drain(record: &DrainRecord, unix: UnixSeconds, now: Instant) -> Drain {
    let left = |deadline: UnixSeconds| Duration::from_secs(deadline.seconds_since(unix));
    Drain {
        deadline: record.deadline.map(|deadline| now + left(deadline).min(DEADLINE_MAX)),
        deadline_unix: record.deadline.map(|deadline| deadline.0),
    }
}

/// What the core calls the thing that is drained.
pub(crate) fn drainable(target: DrainTarget) -> Drainable {
    match target {
        DrainTarget::Relay(relay) => Drainable::Relay(relay),
        DrainTarget::Link(one, other) => Drainable::Link(one, other),
    }
}

/// `GET /v1/drains`.
pub(super) async fn list_drains(State(admin): State<Admin>) -> Result<Json<DrainsBody>, Failure> {
    let known = Known::read(&admin).await?;
    let statuses = admin.shared.driver.look(|core, now| core.status(now).drains).await?;
    let mut drains = Vec::new();
    for status in statuses {
        drains.push(drain_body(&admin, &known, status).await?);
    }
    Ok(Json(DrainsBody { drains }))
}

/// Of a large mesh the core looks at some routes only. That nothing is left must be so of all.
async fn drain_body(
    admin: &Admin,
    known: &Known,
    mut status: DrainStatus,
) -> Result<DrainBody, Failure> {
    if status.routes_on_it == 0 {
        status.routes_on_it = still_on(admin, known, status.target).await?;
    }
    Ok(DrainBody::new(&status, &known.names))
}

/// `PUT /v1/drains/relay/{relay}`.
pub(super) async fn drain_relay(
    State(admin): State<Admin>,
    Path(relay): Path<String>,
    request: Result<Json<DrainRequest>, JsonRejection>,
) -> Result<Json<DrainBody>, Failure> {
    let known = Known::read(&admin).await?;
    let target = DrainTarget::Relay(known.relay(&relay)?);
    begin(&admin, &known, target, request?.0).await
}

/// `PUT /v1/drains/link/{a}/{b}`.
pub(super) async fn drain_link(
    State(admin): State<Admin>,
    Path((one, other)): Path<(String, String)>,
    request: Result<Json<DrainRequest>, JsonRejection>,
) -> Result<Json<DrainBody>, Failure> {
    let known = Known::read(&admin).await?;
    let target = DrainTarget::link(known.relay(&one)?, known.relay(&other)?);
    begin(&admin, &known, target, request?.0).await
}

/// `DELETE /v1/drains/relay/{relay}`.
pub(super) async fn undo_relay(
    State(admin): State<Admin>,
    Path(relay): Path<String>,
) -> Result<StatusCode, Failure> {
    let known = Known::read(&admin).await?;
    change_drain(&admin, DrainTarget::Relay(known.relay(&relay)?), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/drains/link/{a}/{b}`.
pub(super) async fn undo_link(
    State(admin): State<Admin>,
    Path((one, other)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    let known = Known::read(&admin).await?;
    let target = DrainTarget::link(known.relay(&one)?, known.relay(&other)?);
    change_drain(&admin, target, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn begin(
    admin: &Admin,
    known: &Known,
    target: DrainTarget,
    request: DrainRequest,
) -> Result<Json<DrainBody>, Failure> {
    let since = unix_seconds();
    let deadline = match request.deadline_s {
        Some(seconds) if seconds > DEADLINE_MAX.as_secs() => {
            let error = format!("deadline_s is at most {}, a month", DEADLINE_MAX.as_secs());
            return Err(Failure::new(StatusCode::BAD_REQUEST, error));
        }
        Some(seconds) => Some(UnixSeconds(since.0 + seconds)),
        None => None,
    };
    change_drain(admin, target, Some(DrainRecord { since, deadline })).await?;
    let status = admin.shared.driver.look(|core, now| core.status(now).drains).await?;
    let found = status.into_iter().find(|status| status.target == drainable(target));
    let found = found.ok_or_else(|| {
        Failure::new(StatusCode::CONFLICT, "the drain was taken back at the same time")
    })?;
    Ok(Json(drain_body(admin, known, found).await?))
}

async fn change_drain(
    admin: &Admin,
    target: DrainTarget,
    record: Option<DrainRecord>,
) -> Result<(), Failure> {
    let _in_order = admin.shared.wishes.lock().await;
    admin
        .shared
        .registry_call::<_, WishError>(move |registry| registry.set_drain(target, record))
        .await?;
    let drain = record.map(|record| drain(&record, unix_seconds(), Instant::now()));
    tell(admin, Wish::Drain { target: drainable(target), drain }).await
}

/// Tells the core what the store has taken.
pub(super) async fn tell(admin: &Admin, wish: Wish) -> Result<(), Failure> {
    let told = admin.shared.driver.ask(|reply| Input::Wish { wish, reply }).await?;
    told.map_err(|error: OperatorError| {
        let error = format!("it is kept, but not in force: {error}");
        Failure::new(StatusCode::CONFLICT, error)
    })
}

/// `PUT /v1/transit/{relay}`.
pub(super) async fn set_transit(
    State(admin): State<Admin>,
    Path(relay): Path<String>,
    request: Result<Json<TransitRequest>, JsonRejection>,
) -> Result<Json<TransitBody>, Failure> {
    let Json(TransitRequest { allow }) = request?;
    change_transit(&admin, &relay, Some(allow)).await.map(Json)
}

/// `DELETE /v1/transit/{relay}`.
pub(super) async fn clear_transit(
    State(admin): State<Admin>,
    Path(relay): Path<String>,
) -> Result<Json<TransitBody>, Failure> {
    change_transit(&admin, &relay, None).await.map(Json)
}

async fn change_transit(
    admin: &Admin,
    relay: &str,
    transit: Option<bool>,
) -> Result<TransitBody, Failure> {
    let known = Known::read(admin).await?;
    let relay = known.relay(relay)?;
    let _in_order = admin.shared.wishes.lock().await;
    admin
        .shared
        .registry_call::<_, WishError>(move |registry| registry.set_transit(relay, transit))
        .await?;
    tell(admin, Wish::Transit { relay, transit }).await?;
    let name = known.names.get(&relay).cloned().unwrap_or_default();
    Ok(TransitBody { relay: name, allow: transit })
}

/// `GET /v1/policies`.
pub(super) async fn list_policies(
    State(admin): State<Admin>,
) -> Result<Json<PoliciesBody>, Failure> {
    let known = Known::read(&admin).await?;
    let relays = admin.shared.driver.look(|core, now| core.status(now).relays).await?;
    Ok(Json(PoliciesBody { policies: PolicyBody::all(&known.wishes, &relays) }))
}

/// `GET /v1/policies/{name}`.
pub(super) async fn show_policy(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Json<PolicyBody>, Failure> {
    policy_body(&admin, &name).await.map(Json)
}

async fn policy_body(admin: &Admin, name: &str) -> Result<PolicyBody, Failure> {
    let wishes = Known::read(admin).await?.wishes;
    let (id, policy) = wishes.policy(name).ok_or_else(|| no_such_policy(&wishes, name))?;
    let relays = admin.shared.driver.look(|core, now| core.status(now).relays).await?;
    Ok(PolicyBody::new(id, policy, &wishes, &relays))
}

/// `PUT /v1/policies/{name}`.
pub(super) async fn put_policy(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<PolicyRequest>, JsonRejection>,
) -> Result<Json<PolicyBody>, Failure> {
    let Json(PolicyRequest { regions, providers, cells }) = request?;
    let set = |list: Vec<String>| list.into_iter().collect::<BTreeSet<String>>();
    let record = PolicyRecord {
        name: name.clone(),
        regions: set(regions),
        providers: set(providers),
        cells: set(cells),
    };
    {
        let _in_order = admin.shared.wishes.lock().await;
        let (id, policy) = admin
            .shared
            .registry_call::<_, WishError>(move |registry| registry.put_policy(&record))
            .await?;
        tell(&admin, Wish::Policy { id, policy: Some(policy) }).await?;
    }
    policy_body(&admin, &name).await.map(Json)
}

/// `DELETE /v1/policies/{name}`.
pub(super) async fn remove_policy(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let _in_order = admin.shared.wishes.lock().await;
    let id = admin
        .shared
        .registry_call::<_, WishError>(move |registry| registry.remove_policy(&name))
        .await?;
    tell(&admin, Wish::Policy { id, policy: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/cells`.
pub(super) async fn list_cells(State(admin): State<Admin>) -> Result<Json<CellsBody>, Failure> {
    let known = Known::read(&admin).await?;
    let cells = known.wishes.cells.iter();
    let body = |(name, cell): (&String, &CellRecord)| {
        CellBody::new(name, cell, &known.wishes, &known.names)
    };
    Ok(Json(CellsBody { cells: cells.map(body).collect() }))
}

/// `PUT /v1/cells/{name}`. Policies and tenants that name the cell change with it.
pub(super) async fn put_cell(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<CellRequest>, JsonRejection>,
) -> Result<Json<CellBody>, Failure> {
    let Json(CellRequest { regions, relays, partners }) = request?;
    let known = Known::read(&admin).await?;
    let record = CellRecord {
        regions: regions.into_iter().collect(),
        relays: relays.iter().map(|relay| known.relay(relay)).collect::<Result<_, _>>()?,
        partners: partners.into_iter().collect(),
    };
    let _in_order = admin.shared.wishes.lock().await;
    let (cell, its_record) = (name.clone(), record.clone());
    let settled = admin
        .shared
        .registry_call::<_, WishError>(move |registry| registry.put_cell(&cell, &its_record))
        .await?;
    tell_settled(&admin, settled).await?;
    let known = Known::read(&admin).await?;
    Ok(Json(CellBody::new(&name, &record, &known.wishes, &known.names)))
}

/// Tells the core what a change of cells or tenants means: a policy comes before its tenants, and goes after them.
pub(super) async fn tell_settled(admin: &Admin, settled: Settled) -> Result<(), Failure> {
    let Settled { policies, tenants, gone } = settled;
    for (id, policy) in policies {
        tell(admin, Wish::Policy { id, policy: Some(policy) }).await?;
    }
    for (number, record) in tenants {
        let tenant = record.map(|record| control::Tenant::from(&record.tenant(number)));
        tell(admin, Wish::Tenant { number, tenant }).await?;
    }
    for id in gone {
        tell(admin, Wish::Policy { id, policy: None }).await?;
    }
    Ok(())
}

/// `DELETE /v1/cells/{name}`.
pub(super) async fn remove_cell(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let _in_order = admin.shared.wishes.lock().await;
    admin.shared.registry_call::<_, WishError>(move |registry| registry.remove_cell(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
