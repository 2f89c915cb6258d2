//! What every process's admin interface has alike.

use axum::extract::Request;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::log::{self, LogError};
use crate::reload::{ReloadError, Reloads};

/// Body of `GET` and `PUT /v1/log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogBody {
    /// What is logged: a level, or a filter such as `info,overway_relay=debug`.
    pub filter: String,
}

/// An answer that says what is wrong.
#[derive(Debug, Serialize)]
struct Problem {
    error: String,
}

type Failure = (StatusCode, Json<Problem>);

/// `GET` and `PUT /v1/log`: what is logged, until the process ends.
pub fn log_router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/v1/log", get(show).put(change))
}

/// `POST /v1/reload`: has the process read its configuration again. Answers a [`Reloaded`](crate::reload::Reloaded); 422 if nothing has changed
/// because the file is wrong.
pub fn reload_router<S: Clone + Send + Sync + 'static>(reloads: Reloads) -> Router<S> {
    let reload = move || async move {
        let reloaded = reloads.reload().await;
        reloaded.map(Json).map_err(|error| {
            let status = match error {
                ReloadError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
                ReloadError::Busy => StatusCode::TOO_MANY_REQUESTS,
                ReloadError::Away => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, Json(Problem { error: error.to_string() }))
        })
    };
    Router::new().route("/v1/reload", post(reload))
}

/// Middleware that refuses what a web page may have sent whose name was made to lead here (DNS rebinding): the `Host` of an
/// admin interface is an address or localhost. Whoever names none is no browser.
pub async fn refuse_foreign_hosts(request: Request, next: Next) -> Response {
    let is_local = |host: &header::HeaderValue| host.to_str().is_ok_and(crate::is_local_host);
    if request.headers().get_all(header::HOST).iter().all(is_local) {
        return next.run(request).await;
    }
    let error = "the Host is neither an address nor localhost".to_owned();
    (StatusCode::FORBIDDEN, Json(Problem { error })).into_response()
}

async fn show() -> Result<Json<LogBody>, Failure> {
    let filter = log::filter().ok_or_else(|| failure(&LogError::Foreign))?;
    Ok(Json(LogBody { filter }))
}

async fn change(body: Result<Json<LogBody>, JsonRejection>) -> Result<Json<LogBody>, Failure> {
    let Json(body) =
        body.map_err(|error| (error.status(), Json(Problem { error: error.body_text() })))?;
    log::set_filter(&body.filter).map_err(|error| failure(&error))?;
    Ok(Json(body))
}

fn failure(error: &LogError) -> Failure {
    let status = match error {
        LogError::Foreign => StatusCode::CONFLICT,
        LogError::Filter(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, Json(Problem { error: error.to_string() }))
}
