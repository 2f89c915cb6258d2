//! The edge's admin HTTP: `/livez` (the process), `/readyz` (attached, and every forward leads somewhere), `/metrics`,
//! `GET /v1/status`, `GET` and `PUT /v1/log`, `POST /v1/reload`.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use overway_client::{AttachmentStatus, Counts, Edge, LimitStatus, Status, TransportKind};
use overway_gateway::Gateway;
use overway_telemetry::reload::Reloads;
use overway_telemetry::{Exposition, export_counters};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::offers::Offers;

/// What the admin API shows.
pub(crate) struct Admin {
    pub(crate) tenant: String,
    pub(crate) edge: Edge,
    /// Services to which forwards lead.
    pub(crate) named: watch::Receiver<BTreeSet<String>>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) offers: watch::Receiver<Offers>,
    /// Has the configuration read again.
    pub(crate) reloads: Reloads,
}

/// Binds the address; the future that comes back serves until the token is cancelled.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn serve(
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
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .merge(overway_telemetry::admin::log_router())
        .merge(overway_telemetry::admin::reload_router(admin.reloads.clone()))
        .layer(middleware::from_fn(overway_telemetry::admin::refuse_foreign_hosts))
        .with_state(Arc::new(admin));
    Ok(async move {
        let serving = axum::serve(listener, router);
        if let Err(error) = serving.with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::warn!(%error, "admin ended");
        }
    })
}

type Shared = State<Arc<Admin>>;

/// Why the edge cannot carry everything that it is configured to, if it cannot.
fn problem(admin: &Admin, status: &Status) -> Option<String> {
    if status.attachments.is_empty() {
        let why = status.last_error.as_deref().unwrap_or("no relay has answered yet");
        return Some(format!("attached nowhere: {why}"));
    }
    let known = admin.edge.services();
    let is_missing = |name: &&String| known.get(*name).is_none_or(|&count| count == 0);
    let named = admin.named.borrow();
    let missing: Vec<&str> = named.iter().filter(is_missing).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("nobody offers {}", missing.join(", ")))
}

async fn ready(State(admin): Shared) -> Response {
    match problem(&admin, &admin.edge.status()) {
        None => "ready\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

async fn status(State(admin): Shared) -> Json<Value> {
    let status = admin.edge.status();
    let problem = problem(&admin, &status);
    let relay = |at: usize| status.attachments.get(at).map(|attachment| attachment.relay.0);
    Json(json!({
        "tenant": admin.tenant,
        "edge": admin.edge.id().to_string(),
        "ready": problem.is_none(),
        "problem": problem,
        "first": relay(0),
        "second": relay(1),
        "attachments": status.attachments.iter().map(attachment).collect::<Vec<_>>(),
        "last_error": status.last_error,
        "limits": status.limits.iter().map(limit).collect::<Vec<_>>(),
        "services": admin.edge.services(),
        "offers": admin.offers.borrow().health().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    }))
}

fn attachment(status: &AttachmentStatus) -> Value {
    let AttachmentStatus { remote, transport, relay, address, state, rtt, age, is_draining } =
        status;
    json!({
        "remote": remote.to_string(),
        "transport": transport.name(),
        "relay": relay.0,
        "address": address.to_string(),
        "state": overway_wire::control::State::from(*state).name(),
        "rtt_us": rtt.map(|rtt| rtt.as_micros()),
        "age_s": age.as_secs(),
        "draining": is_draining,
    })
}

fn limit(status: &LimitStatus) -> Value {
    let LimitStatus { limit, reason, age } = status;
    json!({ "limit": limit, "reason": reason, "age_ms": age.as_millis() })
}

async fn metrics(State(admin): Shared) -> Response {
    let status = admin.edge.status();
    let transports: Vec<TransportKind> =
        status.attachments.iter().map(|attachment| attachment.transport).collect();
    let out = exposition(
        (&transports, status.counts),
        admin.offers.borrow().health(),
        admin.edge.session().stats(),
        admin.gateway.stats(),
    );
    ([(header::CONTENT_TYPE, overway_telemetry::CONTENT_TYPE)], out.render()).into_response()
}

/// Every metric that an edge can have, with made-up values: what the reference is made of.
pub fn metrics_sample() -> Exposition {
    let offers = [("web".to_owned(), true)];
    let (session, gateway) = (overway_session::Stats::default(), overway_gateway::Stats::default());
    exposition((&TransportKind::ALL, Counts::default()), offers, session, gateway)
}

fn exposition(
    (transports, counts): (&[TransportKind], Counts),
    offers: impl IntoIterator<Item = (String, bool)>,
    session: overway_session::Stats,
    gateway: overway_gateway::Stats,
) -> Exposition {
    let mut out = Exposition::new("overway_edge");
    let help = "Access relays that the edge is attached to.";
    out.gauge("attachments", help, &[], transports.len() as f64);
    for kind in TransportKind::ALL {
        let count = transports.iter().filter(|&&transport| transport == kind).count();
        let help = "Attachments by what they go by.";
        out.gauge("transport_attachments", help, &[("transport", kind.name())], count as f64);
    }
    attachment_counts(&mut out, counts);
    for (service, well) in offers {
        let labels = [("service", service.as_str())];
        out.gauge(
            "service_healthy",
            "Whether an offered service is well.",
            &labels,
            f64::from(well),
        );
    }
    overway_session::export(&mut out, session);
    overway_gateway::export(&mut out, gateway);
    out
}

fn attachment_counts(out: &mut Exposition, counts: Counts) {
    let () = export_counters!(
        out,
        "",
        counts,
        Counts {
            attached: "Attachments that came about.",
            lost: "Attachments that ended.",
            failed: "Attempts to attach that failed.",
            refused: "Attempts that a relay refused.",
            attached_tcp: "Attachments that came about over TLS on TCP.",
            limited: "Times that a relay said that frames are beyond a limit of the tenant's quota.",
            suspects: "Times that an attachment fell silent for one and a half intervals.",
            downs: "Times that an attachment fell silent for three.",
            rebinds: "Times that the socket was made anew, since nothing came through it.",
            frames_sent: "Frames sent.",
            frames_received: "Frames received.",
            copies: "Second copies of frames, over the other attachment.",
            resent: "Frames moved from an attachment that carried nothing.",
            stranded_dropped: "Frames moved for which there was no room.",
            expired: "Realtime frames dropped because they waited longer than they are worth.",
            too_long: "Frames dropped because they are too long for the mesh.",
            received_dropped: "Frames received and dropped because the edge did not keep up.",
            reports_dropped: "Reports of what flows feel like that no relay could be told.",
            malformed: "Datagrams from relays that made no sense.",
        }
    );
}
