//! Tenants. Each change is kept in the store first and then told to the core, under the same lock as other wishes; the
//! core has it on its way to every relay at once.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use overway_tenant::{Kid, NameError, TenantName, TenantPublicKey, TokenId};
use overway_wire::{PolicyId, control};

use super::names::Known;
use super::wishes::{tell, tell_settled};
use super::{Admin, Failure};
use crate::api::{
    KeyRequest, QuotaBody, RevokedKeyRequest, RevokedTokenRequest, TenantBody, TenantCellRequest,
    TenantPolicyRequest, TenantRequest, TenantUsageBody, TenantsBody,
};
use crate::clock::unix_seconds;
use crate::driver::Wish;
use crate::registry::{Place, Registry, Settled, TenantError, find_tenant};
use crate::store::TenantRecord;

type Answer = Result<Json<TenantBody>, Failure>;

pub(super) fn router() -> Router<Admin> {
    Router::new()
        .route("/v1/tenants", get(list).post(add))
        .route("/v1/tenants/{name}", get(show).delete(remove))
        .route("/v1/tenants/{name}/policy", put(set_policy))
        .route("/v1/tenants/{name}/cell", put(set_cell))
        .route("/v1/tenants/{name}/quota", put(set_quota))
        .route("/v1/tenants/{name}/keys", post(add_key))
        .route("/v1/tenants/{name}/revoked-keys", post(revoke_key))
        .route("/v1/tenants/{name}/revoked-tokens", post(revoke_token))
}

async fn list(State(admin): State<Admin>) -> Result<Json<TenantsBody>, Failure> {
    let wishes = Known::read(&admin).await?.wishes;
    Ok(Json(TenantsBody { tenants: TenantBody::all(&wishes) }))
}

async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let known = Known::read(&admin).await?;
    let (number, record) = find_tenant(&known.wishes, &name)?;
    let usage = admin.shared.driver.look(move |core, _| core.tenant_usage(number)).await?;
    let usage = Some(TenantUsageBody::new(&usage, &known.names));
    Ok(Json(TenantBody { usage, ..TenantBody::new(number, record, &known.wishes) }))
}

async fn add(
    State(admin): State<Admin>,
    request: Result<Json<TenantRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<TenantBody>), Failure> {
    let Json(TenantRequest { name, policy, cell, quota }) = request?;
    let name: TenantName = name.parse()?;
    if policy.is_some() && cell.is_some() {
        let error = "a tenant takes the routes of a policy or of its cell: name one of them";
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let body = settle(&admin, move |registry| {
        let place = match (&policy, &cell) {
            (Some(policy), _) => Place::Policy(policy),
            (None, Some(cell)) => Place::Cell(cell),
            (None, None) => Place::Anywhere,
        };
        registry.add_tenant(&name, place, quota.into(), unix_seconds())
    });
    body.await.map(|body| (StatusCode::CREATED, body))
}

async fn set_cell(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<TenantCellRequest>, JsonRejection>,
) -> Answer {
    let Json(TenantCellRequest { cell }) = request?;
    settle(&admin, move |registry| registry.set_tenant_cell(&name, cell.as_deref(), unix_seconds()))
        .await
}

/// Changes a tenant's cell in the store, tells the core, and answers with how the tenant is then.
async fn settle(
    admin: &Admin,
    call: impl FnOnce(&Registry) -> Result<(PolicyId, Settled), TenantError> + Send + 'static,
) -> Answer {
    let _in_order = admin.shared.wishes.lock().await;
    let (number, settled) = admin.shared.registry_call(call).await?;
    tell_settled(admin, settled).await?;
    let wishes = Known::read(admin).await?.wishes;
    let record = wishes.tenants.get(&number);
    let gone = || Failure::new(StatusCode::CONFLICT, "the tenant was removed at the same time");
    Ok(Json(TenantBody::new(number, record.ok_or_else(gone)?, &wishes)))
}

async fn remove(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let _in_order = admin.shared.wishes.lock().await;
    let settled = admin
        .shared
        .registry_call::<_, TenantError>(move |registry| registry.remove_tenant(&name))
        .await?;
    tell_settled(&admin, settled).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_policy(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<TenantPolicyRequest>, JsonRejection>,
) -> Answer {
    let Json(TenantPolicyRequest { policy }) = request?;
    change(&admin, move |registry| {
        registry.set_tenant_policy(&name, policy.as_deref(), unix_seconds())
    })
    .await
}

async fn set_quota(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<QuotaBody>, JsonRejection>,
) -> Answer {
    let Json(quota) = request?;
    change(&admin, move |registry| registry.set_tenant_quota(&name, quota.into(), unix_seconds()))
        .await
}

async fn add_key(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<KeyRequest>, JsonRejection>,
) -> Answer {
    let Json(KeyRequest { key: jwk, replaces }) = request?;
    let wrong = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
    let key = TenantPublicKey::from_jwk(&jwk).map_err(|error| wrong(error.to_string()))?;
    let kid = jwk.kid.as_deref().ok_or_else(|| wrong("the key has no \"kid\"".to_owned()))?;
    let kid: Kid = kid.parse()?;
    let replaces: Option<Kid> = replaces.map(|kid| kid.parse()).transpose()?;
    change(&admin, move |registry| {
        registry.add_tenant_key(&name, &kid, key, replaces.as_ref(), unix_seconds())
    })
    .await
}

async fn revoke_key(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<RevokedKeyRequest>, JsonRejection>,
) -> Answer {
    let kid: Kid = request?.0.kid.parse()?;
    change(&admin, move |registry| registry.revoke_tenant_key(&name, &kid, unix_seconds())).await
}

async fn revoke_token(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    request: Result<Json<RevokedTokenRequest>, JsonRejection>,
) -> Answer {
    let id: TokenId = request?.0.jti.parse()?;
    change(&admin, move |registry| registry.revoke_tenant_token(&name, &id, unix_seconds())).await
}

/// Changes a tenant in the store, tells the core, and answers with how it is then.
async fn change(
    admin: &Admin,
    call: impl FnOnce(&Registry) -> Result<(PolicyId, TenantRecord), TenantError> + Send + 'static,
) -> Answer {
    let _in_order = admin.shared.wishes.lock().await;
    let (number, record) = admin.shared.registry_call(call).await?;
    let tenant = control::Tenant::from(&record.tenant(number));
    tell(admin, Wish::Tenant { number, tenant: Some(tenant) }).await?;
    let wishes = Known::read(admin).await?.wishes;
    Ok(Json(TenantBody::new(number, &record, &wishes)))
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        TenantError::from(error).into()
    }
}

impl From<TenantError> for Failure {
    fn from(error: TenantError) -> Self {
        let text = error.to_string();
        let status = match error {
            TenantError::Name(_) | TenantError::ZeroQuota(_) => StatusCode::BAD_REQUEST,
            TenantError::NoSuchTenant { .. } | TenantError::NoSuchKey { .. } => {
                StatusCode::NOT_FOUND
            }
            TenantError::Taken(_)
            | TenantError::InCell { .. }
            | TenantError::HasPolicy(_)
            | TenantError::KidTaken(_)
            | TenantError::KeyWasRevoked(_) => StatusCode::CONFLICT,
            TenantError::TooManyTenants
            | TenantError::NoNumbers
            | TenantError::TooManyKeys
            | TenantError::TooManyTokens => StatusCode::TOO_MANY_REQUESTS,
            TenantError::Policy(error) => return error.into(),
            TenantError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, text)
    }
}
