//! What the dashboard shows: the mesh at a glance, the last hour, and events as they happen.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use overway_wire::{LinkId, LinkIndex};
use serde::Deserialize;
use std::time::SystemTime;

use super::names::Known;
use super::{Admin, Failure};
use crate::api::{HistoryBody, LinksBody, OverviewBody};
use crate::dashboard::assets::ASSETS;
use crate::dashboard::{FeltKey, LINKS_MAX, STREAMS_MAX, Stream, Subject, resume_after};
use crate::driver::Input;
use crate::events::unix_ms;

/// The page, and what it asks for that nothing else does.
pub(super) fn router() -> Router<Admin> {
    let page = ASSETS.into_iter().fold(Router::new(), |router, asset| {
        let answer = async move |headers: HeaderMap| asset.answer(&headers);
        router.route(asset.path, routing::get(answer))
    });
    page.route("/v1/overview", routing::get(overview))
        .route("/v1/links", routing::get(links))
        .route("/v1/history", routing::get(history))
        .route("/v1/events/stream", routing::get(stream))
}

/// `GET /v1/overview`.
async fn overview(State(admin): State<Admin>) -> Result<Json<OverviewBody>, Failure> {
    let look = |core: &overway_scheduler_core::Scheduler, now| core.overview(LINKS_MAX, now);
    let overview = admin.shared.driver.look(look).await?;
    let at = unix_ms(SystemTime::now());
    Ok(Json(OverviewBody::new(admin.shared.authority.mesh(), &overview, at)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinksQuery {
    relay: String,
}

/// `GET /v1/links?relay=RELAY`.
async fn links(
    State(admin): State<Admin>,
    query: Result<Query<LinksQuery>, QueryRejection>,
) -> Result<Json<LinksBody>, Failure> {
    let Query(LinksQuery { relay }) = query?;
    let known = Known::read(&admin).await?;
    let relay = known.relay(&relay)?;
    let links = admin.shared.driver.look(move |core, _| core.links_of(relay)).await?;
    Ok(Json(LinksBody::new(&links, &known.names)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    relay: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    index: u8,
    class: Option<String>,
    tenant: Option<String>,
    service: Option<String>,
    region: Option<String>,
}

/// `GET /v1/history`.
async fn history(
    State(admin): State<Admin>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryBody>, Failure> {
    let Query(HistoryQuery { relay, from, to, index, class, tenant, service, region }) = query?;
    let known = Known::read(&admin).await?;
    let class = class.map(|class| Known::class(&class)).transpose()?;
    let subject = match (relay, from, to, class) {
        (None, None, None, None) if tenant.is_none() && service.is_none() && region.is_none() => {
            Subject::Mesh
        }
        (None, None, None, Some(class)) => {
            Subject::Felt(FeltKey { tenant, service, region, class })
        }
        (Some(relay), None, None, None) => Subject::Relay(known.relay(&relay)?),
        (None, Some(from), Some(to), None) => {
            let index = LinkIndex::new(index).ok_or_else(|| {
                let error = format!("{index} is no link's index: two relays have few links");
                Failure::new(StatusCode::BAD_REQUEST, error)
            })?;
            Subject::Link(LinkId::new(known.relay(&from)?, known.relay(&to)?, index))
        }
        _ => {
            let error = "a history is of a relay (?relay=), of a link (?from=&to=), of what users feel (?class=&service=&region=&tenant=), or of the mesh";
            return Err(Failure::new(StatusCode::BAD_REQUEST, error));
        }
    };
    Ok(Json(admin.dashboard.history().of(&subject)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    #[serde(default)]
    since: u64,
}

/// `GET /v1/events/stream`.
async fn stream(
    State(admin): State<Admin>,
    headers: HeaderMap,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(StreamQuery { since }) = query?;
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok());
    let since = last.map_or(since, |last| resume_after(admin.dashboard.boot, last));
    let permit = Stream::room(&admin.dashboard).ok_or_else(|| {
        let error = format!("{STREAMS_MAX} follow already: close a page of the dashboard");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error)
    })?;
    let following = admin.shared.driver.ask(|reply| Input::Follow { since, reply }).await?;
    let stream = Stream::new(&admin.dashboard, permit, following, admin.stop.clone());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, stream.into_body()).into_response())
}
