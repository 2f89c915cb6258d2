//! The admin interface: HTTP on loopback, for the CLI, dashboards and automation. [`crate::api`] has the
//! bodies.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /livez` | 200 while the process answers |
//! | `GET /readyz` | 200 once the store is open and the control endpoint bound, else 503 |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /v1/status` | [`StatusBody`]; `?routes=true`, `?from=RELAY`, `?to=RELAY` add routes |
//! | `GET /v1/routes` | [`RoutesBody`](crate::api::RoutesBody); `?from=`, `?to=`, `?class=`, `?tenant=` leave fewer |
//! | `GET /v1/explain?from=RELAY&to=RELAY` | [`ExplainBody`](crate::api::ExplainBody); `&class=`, interactive if not given, `&tenant=POLICY` |
//! | `POST /v1/what-if` | [`WhatIfRequest`](crate::api::WhatIfRequest) in, [`WhatIfBody`](crate::api::WhatIfBody) out; the mesh is not touched |
//! | `GET /v1/drains` | [`DrainsBody`](crate::api::DrainsBody) |
//! | `PUT /v1/drains/relay/{relay}`, `/v1/drains/link/{relay}/{relay}` | [`DrainRequest`](crate::api::DrainRequest) in, [`DrainBody`](crate::api::DrainBody) out |
//! | `DELETE` of these | 204: the drain is taken back |
//! | `PUT /v1/transit/{relay}` | [`TransitRequest`](crate::api::TransitRequest) in, [`TransitBody`](crate::api::TransitBody) out; `DELETE` leaves it to the relay |
//! | `GET /v1/policies` | [`PoliciesBody`](crate::api::PoliciesBody) |
//! | `PUT`, `GET`, `DELETE /v1/policies/{name}` | [`PolicyRequest`](crate::api::PolicyRequest) in, [`PolicyBody`](crate::api::PolicyBody) out |
//! | `GET /v1/cells` | [`CellsBody`](crate::api::CellsBody) |
//! | `PUT`, `DELETE /v1/cells/{name}` | [`CellRequest`](crate::api::CellRequest) in, [`CellBody`](crate::api::CellBody) out |
//! | `GET /v1/tenants` | [`TenantsBody`](crate::api::TenantsBody) |
//! | `POST /v1/tenants` | [`TenantRequest`](crate::api::TenantRequest) in, [`TenantBody`](crate::api::TenantBody) out, as of all below |
//! | `GET`, `DELETE /v1/tenants/{name}` | `DELETE`: 204 |
//! | `PUT /v1/tenants/{name}/policy`, `/cell`, `/quota` | [`TenantPolicyRequest`](crate::api::TenantPolicyRequest), [`TenantCellRequest`](crate::api::TenantCellRequest), [`QuotaBody`](crate::api::QuotaBody) in |
//! | `POST /v1/tenants/{name}/keys` | [`KeyRequest`](crate::api::KeyRequest) in: adds a key, or replaces one |
//! | `POST /v1/tenants/{name}/revoked-keys`, `/revoked-tokens` | [`RevokedKeyRequest`](crate::api::RevokedKeyRequest), [`RevokedTokenRequest`](crate::api::RevokedTokenRequest) in |
//! | `GET /v1/access?client=ADDRESS` | [`Answer`](overway_dispatch::Answer): access relays for a client, the first first; `&tenant=`, `&limit=`, `&key=` |
//! | `GET /v1/nodes` | [`NodesBody`](crate::api::NodesBody) |
//! | `POST /v1/nodes` | [`NodeRequest`](crate::api::NodeRequest) in, [`TokenBody`](crate::api::TokenBody) out |
//! | `DELETE /v1/nodes/{name}` | 204: the member is revoked, or the invitation withdrawn |
//! | `GET /v1/operator` | [`OperatorBody`](crate::api::OperatorBody): whether the token that came along is right |
//! | `GET`, `PUT /v1/log` | [`LogBody`](overway_telemetry::admin::LogBody): what is logged, as on every process |
//! | `POST /v1/reload` | [`Reloaded`](overway_telemetry::reload::Reloaded): the configuration is read again, as on every process |
//! | `GET /v1/state` | the store as a database of its own, for [`crate::backup`] |
//! | `GET /v1/events?since=N` | [`EventsBody`]: those of the last hour after this number |
//! | `GET /v1/events/stream?since=N` | events and overviews as they come, as server-sent events; see [`crate::dashboard`] |
//! | `GET /v1/overview` | [`OverviewBody`](crate::api::OverviewBody): every relay, and the links that matter most |
//! | `GET /v1/links?relay=RELAY` | [`LinksBody`](crate::api::LinksBody) |
//! | `GET /v1/history`, `?relay=RELAY`, `?from=RELAY&to=RELAY&index=N`, `?class=CLASS&service=&region=&tenant=` (as `/v1/quality` names them) | [`HistoryBody`](crate::api::HistoryBody) |
//! | `GET /v1/quality` | [`QualityBody`](crate::api::QualityBody): what users feel; `?service=`, `?tenant=`, `?region=`, `?class=` leave less, `&window=` says of how long (30s to 5m, 5m if not given), `&by=service` merges regions |
//! | `GET /` | the dashboard |
//!
//! Relays are named by name or id. An answer that is no success is an [`ErrorBody`]: 400, 404 and 422 for what
//! cannot be as it was asked, 409 for what cannot be now.
//!
//! A web page changes nothing without the admin token, other programs need it if `[admin] require_token` says so;
//! [`operator`] has the rules. Whoever can connect may read everything, and nothing is encrypted, so it listens on loopback only.
//! Requests whose `Host` is a name other than `localhost` are refused: a web page whose name was made to resolve
//! to loopback is not the operator.

mod access;
mod live;
mod names;
mod nodes;
mod operator;
mod quality;
mod routes;
mod tenants;
mod wishes;

pub(crate) use operator::Gate;
pub(crate) use wishes::{drain, drainable};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use overway_scheduler_core::{QUALITY_WINDOW_MAX, Scheduler};
use overway_telemetry::reload::Reloads;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{ErrorBody, EventsBody, StatusBody};
use crate::backup;
use crate::control::Shared;
use crate::dashboard::Dashboard;
use crate::driver::{Input, Stopped};
use crate::metrics::{self, Reading};
use crate::registry::{Registry, RegistryError, WishError};
use names::Known;

/// Bytes of the largest request body: the lists of a policy, three times 256 names of 64 bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Time for requests under way when the scheduler stops.
const GRACE: Duration = Duration::from_secs(5);

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Admin {
    shared: Arc<Shared>,
    dashboard: Arc<Dashboard>,
    /// Ends what would go on by itself.
    stop: CancellationToken,
    /// Set once the control endpoint accepts connections, cleared when the scheduler stops.
    ready: Arc<AtomicBool>,
    /// Has the configuration read again.
    reloads: Reloads,
    /// Who may change the mesh.
    gate: Arc<Gate>,
}

impl Admin {
    /// What handlers need, until `stop`.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        dashboard: &Arc<Dashboard>,
        ready: &Arc<AtomicBool>,
        reloads: Reloads,
        gate: Gate,
        stop: CancellationToken,
    ) -> Self {
        let (shared, dashboard) = (Arc::clone(shared), Arc::clone(dashboard));
        let (ready, gate) = (Arc::clone(ready), Arc::new(gate));
        Self { shared, dashboard, stop, ready, reloads, gate }
    }
}

/// Serves until `admin.stop`; requests under way are answered first, as far as that takes no longer than
/// [`GRACE`].
pub(crate) async fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<()> {
    let stop = admin.stop.clone();
    let is_over = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let graceful = admin.stop.clone().cancelled_owned();
    let service = router(admin).into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, service).with_graceful_shutdown(graceful) => served,
        // Somebody does not read what was sent.
        () = is_over => Ok(()),
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/v1/status", get(status))
        .route("/v1/state", get(state))
        .route("/v1/nodes", get(nodes::list).post(nodes::add))
        .route("/v1/nodes/{name}", delete(nodes::remove))
        .route("/v1/access", get(access::nearest))
        .route("/v1/operator", get(operator::show))
        .route("/v1/events", get(events))
        .route("/v1/routes", get(routes::list))
        .route("/v1/explain", get(routes::explain))
        .route("/v1/drains", get(wishes::list_drains))
        .route("/v1/drains/relay/{relay}", put(wishes::drain_relay).delete(wishes::undo_relay))
        .route("/v1/drains/link/{one}/{other}", put(wishes::drain_link).delete(wishes::undo_link))
        .route("/v1/transit/{relay}", put(wishes::set_transit).delete(wishes::clear_transit))
        .route("/v1/policies", get(wishes::list_policies))
        .route(
            "/v1/policies/{name}",
            get(wishes::show_policy).put(wishes::put_policy).delete(wishes::remove_policy),
        )
        .route("/v1/cells", get(wishes::list_cells))
        .route("/v1/cells/{name}", put(wishes::put_cell).delete(wishes::remove_cell))
        .route("/v1/quality", get(quality::show))
        .merge(overway_telemetry::admin::log_router())
        .merge(overway_telemetry::admin::reload_router(admin.reloads.clone()))
        .merge(live::router())
        .merge(tenants::router())
        .layer(middleware::from_fn(to_its_end))
        // Changes nothing, and takes long: whoever leaves ends it.
        .route("/v1/what-if", post(routes::what_if))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "no such method on this path")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(admin.clone(), operator::guard))
        .layer(middleware::from_fn(overway_telemetry::admin::refuse_foreign_hosts))
        .with_state(admin)
}

/// Middleware that does what changes something to its end, though whoever asked for it goes away meanwhile: what the store
/// has and what the core and the relays were told must be the same.
async fn to_its_end(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    tokio::spawn(next.run(request)).await.unwrap_or_else(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
    })
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.ready.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "starting or stopping").into_response()
    }
}

async fn render_metrics(State(admin): State<Admin>) -> Result<Response, Failure> {
    let shared = &admin.shared;
    let look = |core: &Scheduler, now| {
        let felt = core.quality(QUALITY_WINDOW_MAX, now);
        (core.status(now), *core.stats(), core.tenant_summary(), felt)
    };
    let (status, stats, tenants, felt) = shared.driver.look(look).await?;
    let sessions = shared.driver.ask(Input::Sessions).await?;
    let left = shared.credentials.not_after().duration_since(SystemTime::now());
    let exposition = metrics::exposition(&Reading {
        stats,
        status: &status,
        tenants,
        counters: &shared.counters,
        sessions,
        certificate_s: left.map_or(0.0, |left| left.as_secs_f64()),
    });
    let text_format = HeaderValue::from_static(overway_telemetry::CONTENT_TYPE);
    let text = exposition.render() + &metrics::quality(felt).render();
    Ok(([(header::CONTENT_TYPE, text_format)], text).into_response())
}

/// No secret is in it: of join tokens it has hashes, of tenants public keys.
async fn state(State(admin): State<Admin>) -> Result<Response, Failure> {
    let snapshot = admin.shared.registry_call::<_, RegistryError>(Registry::snapshot).await?;
    let copied = tokio::task::spawn_blocking(|| backup::copied(snapshot)).await;
    let failed = |error: String| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    let bytes = copied
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let content = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, content)], bytes).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    routes: Option<bool>,
    from: Option<String>,
    to: Option<String>,
}

async fn status(
    State(admin): State<Admin>,
    query: Result<Query<StatusQuery>, QueryRejection>,
) -> Result<Json<StatusBody>, Failure> {
    let Query(StatusQuery { routes, from, to }) = query?;
    let known = Known::read(&admin).await?;
    let wanted = routes::Wanted::new(&known, from.as_deref(), to.as_deref(), None, None)?;
    let status = admin.shared.driver.look(Scheduler::status).await?;
    let mut body = StatusBody::new(admin.shared.authority.mesh(), &status, &known.wishes);
    if routes.unwrap_or(from.is_some() || to.is_some()) {
        (body.routes, body.routes_truncated) = routes::listed(&admin, &known, &wanted).await?;
    }
    Ok(Json(body))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    since: u64,
}

async fn events(
    State(admin): State<Admin>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventsBody>, Failure> {
    let Query(EventsQuery { since }) = query?;
    let events = admin.shared.driver.ask(|reply| Input::Events { since, reply }).await?;
    Ok(Json(EventsBody { events }))
}

/// Any answer that is no success: a status and what is wrong.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    error: String,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.error })).into_response()
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<WishError> for Failure {
    fn from(error: WishError) -> Self {
        let status = match &error {
            WishError::NotMember(_)
            | WishError::NotDrained
            | WishError::NoSuchPolicy { .. }
            | WishError::NoSuchCell { .. } => StatusCode::NOT_FOUND,
            WishError::SameEnds(_)
            | WishError::Name { .. }
            | WishError::Text { .. }
            | WishError::TooManyNames(_)
            | WishError::EmptyPolicy(_)
            | WishError::EmptyCell(_)
            | WishError::LongCell(_)
            | WishError::OwnPartner(_) => StatusCode::BAD_REQUEST,
            WishError::CellInUse { .. } | WishError::PolicyInUse { .. } => StatusCode::CONFLICT,
            WishError::TooManyDrains
            | WishError::TooManyPolicies
            | WishError::NoPolicyIds
            | WishError::TooManyCells => StatusCode::TOO_MANY_REQUESTS,
            WishError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let status = match &error {
            RegistryError::Name => StatusCode::BAD_REQUEST,
            RegistryError::NameTaken(_) => StatusCode::CONFLICT,
            RegistryError::NoSuchName(_) => StatusCode::NOT_FOUND,
            RegistryError::TooManyTokens | RegistryError::NoIds => StatusCode::TOO_MANY_REQUESTS,
            RegistryError::UnknownToken
            | RegistryError::Expired
            | RegistryError::Used
            | RegistryError::Certificate(_)
            | RegistryError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_change_goes_to_its_end_though_whoever_asked_for_it_has_left() {
        const PATIENCE: Duration = Duration::from_secs(30);
        let [begun, released, ended] = [(); 3].map(|()| Arc::<Notify>::default());
        let (in_begun, in_released, in_ended) =
            (Arc::clone(&begun), Arc::clone(&released), Arc::clone(&ended));
        let change = move || async move {
            in_begun.notify_one();
            in_released.notified().await;
            in_ended.notify_one();
        };
        let router = Router::new()
            .route("/change", post(change))
            .layer(middleware::from_fn(to_its_end))
            .route("/look", get(|| async {}));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });

        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"POST /change HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        client.write_all(request).await.unwrap();
        timeout(PATIENCE, begun.notified()).await.unwrap();
        drop(client);
        // By then the server has seen that the first is gone.
        for _ in 0..3 {
            let mut other = TcpStream::connect(address).await.unwrap();
            let request = b"GET /look HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            other.write_all(request).await.unwrap();
            other.read_to_end(&mut Vec::new()).await.unwrap();
        }

        released.notify_one();
        timeout(PATIENCE, ended.notified()).await.unwrap();
    }
}
