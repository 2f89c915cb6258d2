//! Nodes: invited, listed, removed.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use overway_pki::JoinToken;

use super::{Admin, Failure};
use crate::api::{NodeBody, NodeRequest, NodeState, NodesBody, TokenBody};
use crate::clock::unix_seconds;
use crate::driver::Input;
use crate::registry::{Registry, RegistryError, Removed, check_name, invited};
use crate::store::{Member, Snapshot, UnixSeconds};

/// Life of a token if none is asked for: long enough to walk over to the new machine.
const TTL_DEFAULT: Duration = Duration::from_secs(3_600);
/// Life of the longest token: a week. A token is a secret that lies around.
const TTL_MAX: Duration = Duration::from_secs(7 * 86_400);

/// `GET /v1/nodes`.
pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<NodesBody>, Failure> {
    let snapshot = admin.shared.registry_call::<_, RegistryError>(Registry::snapshot).await?;
    Ok(Json(NodesBody { nodes: nodes(&snapshot, unix_seconds()) }))
}

/// `POST /v1/nodes`.
pub(super) async fn add(
    State(admin): State<Admin>,
    request: Result<Json<NodeRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<TokenBody>), Failure> {
    let Json(NodeRequest { name, ttl_s }) = request?;
    check_name(&name)?;
    let ttl = ttl_s.map_or(TTL_DEFAULT, Duration::from_secs);
    if ttl.is_zero() || ttl > TTL_MAX {
        let (days, seconds) = (TTL_MAX.as_secs() / 86_400, TTL_MAX.as_secs());
        let error = format!("a token works for a second to {days} days: ttl_s is 1 to {seconds}");
        return Err(Failure::new(StatusCode::BAD_REQUEST, error));
    }
    let shared = &admin.shared;
    let token = JoinToken::new(
        shared.settings.load().advertise.clone(),
        shared.authority.fingerprint(),
        &name,
        SystemTime::now() + ttl,
    )
    .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (hash, expires) = (token.secret_hash(), UnixSeconds(token.expires));
    let invited = name.clone();
    shared
        .registry_call(move |registry| registry.invite(&invited, hash, expires, unix_seconds()))
        .await?;
    shared.driver.send(Input::Invited { name: name.clone() }).await?;
    let body = TokenBody { name, token: token.to_string(), expires_unix: token.expires };
    Ok((StatusCode::CREATED, Json(body)))
}

/// `DELETE /v1/nodes/{name}`. New handshakes of a revoked relay fail from here on; the driver ends its
/// session and tells the others.
pub(super) async fn remove(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let shared = &admin.shared;
    let removed = name.clone();
    let removed = shared.registry_call(move |registry| registry.remove(&removed)).await?;
    let input = match removed {
        Removed::Member(relay) => {
            shared.credentials.revoked().insert(relay.0);
            Input::Removed { relay }
        }
        Removed::Invitation => Input::Withdrawn { name },
    };
    shared.driver.send(input).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn nodes(snapshot: &Snapshot, now: UnixSeconds) -> Vec<NodeBody> {
    let member = |member: &Member| NodeBody {
        name: member.name.clone(),
        id: Some(member.id.0),
        state: if member.revoked { NodeState::Removed } else { NodeState::Member },
        created_unix: Some(member.created.0),
        expires_unix: None,
    };
    let mut nodes: Vec<NodeBody> = snapshot.members.values().map(member).collect();
    nodes.extend(invited(snapshot, now).into_iter().map(|invited| NodeBody {
        name: invited.name,
        id: None,
        state: NodeState::Invited,
        created_unix: None,
        expires_unix: Some(invited.expires.0),
    }));
    nodes.sort_by(|a, b| (a.state, &a.name, a.id).cmp(&(b.state, &b.name, b.id)));
    nodes
}
