//! The relay's admin HTTP: `/livez` (the process), `/readyz` (can forward), `/metrics`, `GET /v1/status`,
//! `GET /v1/access` (which access relays a client should try), `GET /v1/flows` (`?service=NAME`, `?limit=N`) and `/v1/flows/{id}` (what the ends here feel of their flows),
//! `POST /v1/trace` (a [`TraceRequest`] in, [`TraceLine`](crate::trace::TraceLine)s out as they come, one JSON object a
//! line), `GET` and `PUT /v1/log`, `POST /v1/reload`, and, where fault injection is configured, `GET`, `PUT` and `DELETE /v1/fault`.
//!
//! Without a scheduler a relay is *degraded*, never dead: `/readyz` says so and still answers 200.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use overway_dispatch::{Answer, Asked};
use overway_gateway::Gateway;
use overway_pki::Credentials;
use overway_relay_core::{Fib, FibPath};
use overway_session::SessionEndpoint;
use overway_telemetry::reload::Reloads;
use overway_wire::control::LinkReport;
use overway_wire::{Class, RelayId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::access::{AccessCounts, Dispatcher};
use crate::control::ControlStatus;
use crate::fault::{FaultConfigError, FaultSocket, FaultStats, FaultTable, RawRule, Rule};
use crate::lines::Lines;
use crate::mesh::{Command, Mesh, Snapshot};
use crate::metrics;
use crate::quality::{FLOWS_LISTED_MAX, FlowBody, QualityStore};
use crate::trace::{self, TraceRequest, Tracer};

/// Bytes of a request's body; a fault rule is a hundredth of it.
const BODY_BYTES_MAX: usize = 16 << 10;

/// What the admin API shows.
pub struct Admin {
    /// The relay's id.
    pub local: RelayId,
    /// The relay's name.
    pub name: String,
    /// To the mesh thread.
    pub commands: mpsc::Sender<Command>,
    /// What traces are sent with.
    pub tracer: Tracer,
    /// The table in use.
    pub fib: watch::Receiver<Arc<Fib>>,
    /// How the control plane stands.
    pub control: Arc<ControlStatus>,
    /// The relay's identity.
    pub credentials: Arc<Credentials>,
    /// Sessions of the gateway.
    pub session: SessionEndpoint,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Rules of fault injection, if configured.
    pub fault: Option<Arc<FaultTable>>,
    /// The sockets that follow these rules: of each worker, one for each address.
    pub fault_sockets: Vec<Vec<Arc<FaultSocket>>>,
    /// What the access side counts, if edges may attach.
    pub access: Option<AccessCounts>,
    /// What users feel at this relay.
    pub quality: Arc<QualityStore>,
    /// Answers which access relays are near.
    pub dispatcher: Arc<Dispatcher>,
    /// What the lines have carried.
    pub lines: Arc<Lines>,
    /// Sockets whose kernel buffers are smaller than asked for.
    pub buffers_short: usize,
    /// Has the configuration read again.
    pub reloads: Reloads,
}

/// Binds the address; the future that comes back serves until the token is cancelled.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    admin: Admin,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on admin address {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "admin");
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .route("/v1/trace", post(start_trace))
        .route("/v1/flows", get(flows))
        .route("/v1/flows/{id}", get(flow))
        .route("/v1/access", get(nearest))
        .route("/v1/fault", get(faults).put(set_fault).delete(restore_fault))
        .merge(overway_telemetry::admin::log_router())
        .merge(overway_telemetry::admin::reload_router(admin.reloads.clone()))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(overway_telemetry::admin::refuse_foreign_hosts))
        .with_state(Arc::new(admin));
    Ok(async move {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, service);
        if let Err(error) = serving.with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::warn!(%error, "admin ended");
        }
    })
}

type Shared = State<Arc<Admin>>;

/// An answer that says what is wrong.
struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl Admin {
    async fn snapshot(&self) -> Result<Snapshot, Problem> {
        let stopping = || Problem(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping".into());
        Mesh::snapshot(&self.commands).await.ok_or_else(stopping)
    }

    /// What faults did on each line, to all workers together.
    fn fault_stats(&self) -> Vec<FaultStats> {
        let lines = self.fault_sockets.first().map_or(0, Vec::len);
        let mut sums = vec![FaultStats::default(); lines];
        for sockets in &self.fault_sockets {
            sums.iter_mut().zip(sockets).for_each(|(sum, socket)| sum.add(socket.stats()));
        }
        sums
    }

    fn table(&self) -> Result<&FaultTable, Problem> {
        let off = "fault injection is off: the configuration has no [fault] section";
        self.fault.as_deref().ok_or_else(|| Problem(StatusCode::NOT_FOUND, off.into()))
    }
}

/// Ready: it has routes, from a scheduler or from its disk.
async fn ready(State(admin): Shared) -> Response {
    let known = admin.fib.borrow().epoch != overway_wire::Epoch::default();
    let connected = admin.control.connected.load(Ordering::Relaxed);
    match (known, connected) {
        (true, true) => "ready\n".into_response(),
        (true, false) => {
            "degraded: no scheduler; forwarding by the last good state\n".into_response()
        }
        (false, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "no routes yet: no scheduler has answered\n")
                .into_response()
        }
    }
}

async fn metrics_text(State(admin): Shared) -> Result<Response, Problem> {
    let snapshot = admin.snapshot().await?;
    let left = admin.credentials.not_after().duration_since(SystemTime::now()).unwrap_or_default();
    let gathered = metrics::Gathered {
        local: admin.local,
        name: &admin.name,
        snapshot: &snapshot,
        control: &admin.control,
        session: admin.session.stats(),
        gateway: admin.gateway.stats(),
        certificate_seconds: left.as_secs_f64(),
        buffers_short: admin.buffers_short,
        lines: admin.lines.totals(SystemTime::now()),
        access: admin.access.as_ref().map(AccessCounts::snapshot),
        quality: admin.quality.stats(),
        faults: admin.fault_stats(),
    };
    let text = metrics::exposition(gathered).render();
    Ok(([(header::CONTENT_TYPE, overway_telemetry::CONTENT_TYPE)], text).into_response())
}

#[derive(Serialize)]
struct ChosenPath {
    destination: u16,
    name: Option<String>,
    class: &'static str,
    /// Relays after this one, the destination last; `null` if there is no path.
    path: Option<Vec<u16>>,
    expected_delay_ms: Option<f64>,
    /// Where flows are spread: every path of the route that has a weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spread: Vec<SpreadPath>,
}

/// A path that carries a share of a route's flows.
#[derive(Serialize)]
struct SpreadPath {
    path: Vec<u16>,
    permille: u16,
}

fn relays(path: &FibPath) -> Vec<u16> {
    path.path.elements().iter().map(|step| step.relay.0).collect()
}

fn spread(fib: &Fib, destination: RelayId, class: Class) -> Vec<SpreadPath> {
    let weighted = fib.paths(destination, class).iter().filter(|path| path.weight > 0);
    weighted.map(|path| SpreadPath { path: relays(path), permille: path.weight }).collect()
}

fn described(link: &LinkReport, name: &impl Fn(RelayId) -> Option<String>) -> serde_json::Value {
    let measured = link.fast.is_some();
    let window = link.fast.clone().unwrap_or_default();
    json!({
        "neighbour": link.neighbour,
        "name": u16::try_from(link.neighbour).ok().and_then(|id| name(RelayId(id))),
        "index": link.index,
        "inbound": link.inbound().name(),
        "outbound": link.outbound().name(),
        "rtt_ms": measured.then(|| f64::from(window.rtt_us) / 1e3),
        "jitter_ms": measured.then(|| f64::from(window.jitter_us) / 1e3),
        "samples": window.samples,
        "lost": window.lost,
        "received_bps": link.received_bps,
    })
}

/// What this relay sees and does, whether or not a scheduler is there.
async fn status(State(admin): Shared) -> Result<Json<serde_json::Value>, Problem> {
    let snapshot = admin.snapshot().await?;
    let fib = Arc::clone(&admin.fib.borrow());
    let name = |id: RelayId| fib.names.get(&id).cloned();
    let paths: Vec<ChosenPath> = snapshot
        .chosen
        .iter()
        .map(|(destination, class, chosen)| ChosenPath {
            destination: destination.0,
            name: name(*destination),
            class: class.name(),
            path: chosen.as_ref().map(relays),
            expected_delay_ms: chosen.map(|c| c.delay.as_secs_f64() * 1e3),
            spread: spread(&fib, *destination, *class),
        })
        .collect();
    let links: Vec<_> = snapshot.links.iter().map(|link| described(link, &name)).collect();
    let lines: Vec<serde_json::Value> = admin
        .lines
        .totals(SystemTime::now())
        .iter()
        .map(|line| {
            json!({ "sent_bytes": line.sent_bytes, "sent_bytes_month": line.sent_bytes_month })
        })
        .collect();
    let policies: Vec<serde_json::Value> = fib
        .policies
        .iter()
        .map(|(id, policy)| {
            json!({ "policy": id.0, "name": policy.name, "relays": policy.relays.len() })
        })
        .collect();
    let tenants: Vec<serde_json::Value> = fib
        .tenants
        .iter()
        .map(|(number, tenant)| {
            let (name, keys) = (&tenant.pushed.name, tenant.pushed.keys.len());
            json!({
                "number": number.0,
                "name": name,
                "route_policy": tenant.route_policy.0,
                "keys": keys,
                "endpoints": fib.endpoints_told(*number),
            })
        })
        .collect();
    Ok(Json(json!({
        "relay": admin.local.0,
        "name": admin.name,
        "epoch": { "term": fib.epoch.term, "sequence": fib.epoch.sequence },
        "scheduler_connected": admin.control.connected.load(Ordering::Relaxed),
        "self_stalls": snapshot.stats.self_stalls,
        "downs": snapshot.stats.downs,
        "suspects": snapshot.stats.suspects,
        "links": links,
        "paths": paths,
        "lines": lines,
        "policies": policies,
        "tenants": tenants,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowsQuery {
    service: Option<String>,
    limit: Option<usize>,
}

/// The flows heard of last.
async fn flows(
    State(admin): Shared,
    query: Result<Query<FlowsQuery>, QueryRejection>,
) -> Result<Json<Vec<FlowBody>>, Problem> {
    let Query(FlowsQuery { service, limit }) = query?;
    let limit = limit.unwrap_or(FLOWS_LISTED_MAX);
    let flows = admin.quality.flows(service.as_deref(), limit, Instant::now());
    Ok(Json(flows))
}

/// One flow, as each end here that has it feels it.
async fn flow(State(admin): Shared, Path(id): Path<u64>) -> Result<Json<Vec<FlowBody>>, Problem> {
    let found = admin.quality.flow(id, Instant::now());
    if found.is_empty() {
        let error = format!("no end at this relay has reported a flow {id} in the last minutes");
        return Err(Problem(StatusCode::NOT_FOUND, error));
    }
    Ok(Json(found))
}

/// Which access relays a client should try, by the pushed state.
async fn nearest(
    State(admin): Shared,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Answer>, Problem> {
    let Query(asked) = query?;
    let find = |name: &str| {
        let unknown = || Problem(StatusCode::NOT_FOUND, format!("no tenant is named {name:?}"));
        admin.dispatcher.tenant(name).ok_or_else(unknown)
    };
    let tenant = asked.tenant.as_deref().map(find).transpose()?;
    Ok(Json(admin.dispatcher.asked(&asked, caller.ip(), tenant)))
}

async fn faults(State(admin): Shared) -> Result<Json<Vec<RawRule>>, Problem> {
    let rules = admin.table()?.snapshot();
    Ok(Json(rules.iter().map(|(&source, &rule)| RawRule::from((source, rule))).collect()))
}

async fn set_fault(State(admin): Shared, Json(raw): Json<RawRule>) -> Result<StatusCode, Problem> {
    let table = admin.table()?;
    let bad = |error: String| Problem(StatusCode::UNPROCESSABLE_ENTITY, error);
    let (source, rule): (_, Rule) =
        raw.try_into().map_err(|error: FaultConfigError| bad(error.to_string()))?;
    table.set(source, rule).map_err(|error| bad(error.to_string()))?;
    tracing::info!(%source, ?rule, "fault rule set");
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Source {
    source: SocketAddr,
}

async fn restore_fault(
    State(admin): Shared,
    Query(Source { source }): Query<Source>,
) -> Result<StatusCode, Problem> {
    admin.table()?.restore(source);
    tracing::info!(%source, "fault rule restored");
    Ok(StatusCode::NO_CONTENT)
}

async fn start_trace(
    State(admin): Shared,
    Json(request): Json<TraceRequest>,
) -> Result<Response, Problem> {
    let lines = admin.tracer.start(&request).map_err(|refused| {
        let status = match refused {
            trace::Refused::NoSuchRelay(_) | trace::Refused::NoSuchPolicy(_) => {
                StatusCode::NOT_FOUND
            }
            trace::Refused::Itself(_) | trace::Refused::Range(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            trace::Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
        };
        Problem(status, refused.to_string())
    })?;
    let body = Body::from_stream(lines);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}
