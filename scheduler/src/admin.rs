//! The admin interface: HTTP on loopback, for the CLI, dashboards and automation. [`crate::api`] has the
//! bodies.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /livez` | 200 while the process answers |
//! | `GET /readyz` | 200 once the store is open and the control endpoint bound, else 503 |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /v1/status` | [`StatusBody`]; `?routes=false`, `?from=NAME`, `?to=NAME` leave routes out |
//! | `GET /v1/nodes` | [`NodesBody`](crate::api::NodesBody) |
//! | `POST /v1/nodes` | [`NodeRequest`](crate::api::NodeRequest) in, [`TokenBody`](crate::api::TokenBody) out |
//! | `DELETE /v1/nodes/{name}` | 204: the member is revoked, or the invitation withdrawn |
//! | `GET /v1/events?since=N` | [`EventsBody`] |
//!
//! Whoever can connect may do everything, so it listens on loopback only. Requests whose `Host` is a
//! name other than `localhost` are refused: a web page whose name was made to resolve to loopback is
//! not the operator.

mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{ErrorBody, EventsBody, StatusBody};
use crate::control::Shared;
use crate::driver::{Input, Stopped};
use crate::metrics::{self, Reading};
use crate::registry::RegistryError;

/// Bytes of the largest request body: a node's name and a number.
const BODY_BYTES_MAX: usize = 16 << 10;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    /// Set once the control endpoint accepts connections, cleared when the scheduler stops.
    pub(crate) ready: Arc<AtomicBool>,
}

/// Serves until `shutdown`; requests under way are answered first.
pub(crate) async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(admin))
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(nodes::list).post(nodes::add))
        .route("/v1/nodes/{name}", delete(nodes::remove))
        .route("/v1/events", get(events))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "no such method on this path")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(refuse_foreign_hosts))
        .with_state(admin)
}

async fn refuse_foreign_hosts(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match host {
        Some(host) if !overway_telemetry::is_local_host(host) => {
            Failure::new(StatusCode::FORBIDDEN, "the Host is neither an address nor localhost")
                .into_response()
        }
        Some(_) | None => next.run(request).await,
    }
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
    let status = shared.driver.ask(Input::Status).await?;
    let (stats, sessions) = shared.driver.ask(Input::Stats).await?;
    let left = shared.credentials.not_after().duration_since(SystemTime::now());
    let exposition = metrics::exposition(&Reading {
        stats,
        status: &status,
        counters: &shared.counters,
        sessions,
        certificate_s: left.map_or(0.0, |left| left.as_secs_f64()),
    });
    let text_format = HeaderValue::from_static(overway_telemetry::CONTENT_TYPE);
    Ok(([(header::CONTENT_TYPE, text_format)], exposition.render()).into_response())
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
    let status = admin.shared.driver.ask(Input::Status).await?;
    let mut body = StatusBody::new(admin.shared.authority.mesh(), &status);
    if routes == Some(false) {
        body.routes.clear();
    }
    body.routes.retain(|route| {
        from.as_ref().is_none_or(|from| *from == route.source_name)
            && to.as_ref().is_none_or(|to| *to == route.destination_name)
    });
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
