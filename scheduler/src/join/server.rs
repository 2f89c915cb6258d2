//! The scheduler's side of joining: one request and one answer per connection.

use std::time::{Duration, Instant, SystemTime};

use overway_pki::{Identity, Role, secret_hash};
use overway_wire::RelayId;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{Accepted, JoinRequest, JoinResponse, MESSAGE_BYTES_MAX, Refused, join_response};
use crate::clock::unix_seconds;
use crate::control::{CLOSE_DONE, CLOSE_PROTOCOL, Shared};
use crate::driver::Input;
use crate::framing;
use crate::registry::{Redeemed, RegistryError};
use crate::store::{KeyHash, StoreError};

/// Time for a request to arrive: it is one packet, so this is only ever needed on terrible lines.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Time for the answer to be acknowledged before the connection is closed under it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves one connection.
pub(crate) async fn serve(connection: Connection, shared: &Shared) {
    shared.counters.join_attempts.raise();
    match tokio::time::timeout(REQUEST_TIME_MAX, receive(&connection)).await {
        Ok(Ok((mut send, request))) => {
            let from = connection.remote_address();
            let body = answer(request, shared, from).await;
            let response = JoinResponse { body: Some(body) };
            let sent = async {
                framing::write(&mut send, &response).await.ok()?;
                send.finish().ok()?;
                send.stopped().await.ok()
            };
            // A lost answer can be had again with the same key.
            let _ = tokio::time::timeout(ANSWER_TIME_MAX, sent).await;
            connection.close(CLOSE_DONE, b"answered");
        }
        Ok(Err(error)) => {
            warn!(from = %connection.remote_address(), %error, "no join request could be read");
            connection.close(CLOSE_PROTOCOL, b"no join request");
        }
        Err(_) => connection.close(CLOSE_PROTOCOL, b"no join request in time"),
    }
}

#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Read(#[from] framing::ReadError),
    #[error("the stream ended without a request")]
    Nothing,
}

async fn receive(
    connection: &Connection,
) -> Result<(quinn::SendStream, JoinRequest), ReceiveError> {
    let (send, mut recv) = connection.accept_bi().await?;
    let request = framing::read(&mut recv, MESSAGE_BYTES_MAX).await?;
    Ok((send, request.ok_or(ReceiveError::Nothing)?))
}

async fn answer(
    request: JoinRequest,
    shared: &Shared,
    from: std::net::SocketAddr,
) -> join_response::Body {
    if !shared.joins.admit(Instant::now()) {
        shared.counters.joins_limited.raise();
        let reason = "too many are joining at this moment".to_owned();
        return join_response::Body::Refused(Refused { reason, retry: true });
    }
    match redeem(request, shared).await {
        Ok(redeemed) => {
            shared.counters.joins.raise();
            let (relay, name) = (redeemed.relay, redeemed.name.clone());
            info!(%relay, name, %from, again = !redeemed.fresh, "a relay joined");
            if redeemed.fresh && shared.driver.send(Input::Joined { relay, name }).await.is_err() {
                // Stopping: the member is in the store and is read from there at the next start.
                info!(%relay, "joined while the scheduler stops");
            }
            join_response::Body::Accepted(accepted(redeemed, shared))
        }
        Err(error) => {
            warn!(%from, %error, "refused to let a relay join");
            let retry = matches!(error, RegistryError::Store(StoreError::Conflict));
            join_response::Body::Refused(Refused { reason: public_reason(&error), retry })
        }
    }
}

async fn redeem(
    request: JoinRequest,
    shared: &Shared,
) -> Result<Redeemed<Vec<CertificateDer<'static>>>, RegistryError> {
    let key = key_hash(&request.csr_der)?;
    let hash = secret_hash(&request.secret);
    let (authority, lifetime) =
        (shared.authority.clone(), shared.settings.load().certificate_lifetime);
    let certify = move |relay: RelayId| {
        let identity = Identity::new(Role::Relay, relay.0, authority.mesh())
            .map_err(overway_pki::AuthorityError::from)?;
        Ok(authority.issue(&request.csr_der, &identity, lifetime, SystemTime::now())?)
    };
    shared.registry_call(move |registry| registry.redeem(&hash, key, unix_seconds(), certify)).await
}

/// The hash of the public key that a certification request is for.
fn key_hash(csr_der: &[u8]) -> Result<KeyHash, RegistryError> {
    let (_, request) = X509CertificationRequest::from_der(csr_der)
        .map_err(|_| overway_pki::AuthorityError::Request)?;
    Ok(secret_hash(request.certification_request_info.subject_pki.raw))
}

fn accepted(redeemed: Redeemed<Vec<CertificateDer<'static>>>, shared: &Shared) -> Accepted {
    Accepted {
        chain_der: redeemed.certificate.iter().map(|certificate| certificate.to_vec()).collect(),
        relay: u32::from(redeemed.relay.0),
        name: redeemed.name,
        mesh: shared.authority.mesh().to_owned(),
        schedulers: shared.settings.load().advertise.clone(),
    }
}

/// What a stranger may hear: the state of the scheduler's disk is none of it.
fn public_reason(error: &RegistryError) -> String {
    match error {
        RegistryError::Store(_) => "the scheduler's store failed; see its log".to_owned(),
        RegistryError::Name
        | RegistryError::NameTaken(_)
        | RegistryError::NoSuchName(_)
        | RegistryError::TooManyTokens
        | RegistryError::UnknownToken
        | RegistryError::Expired
        | RegistryError::Used
        | RegistryError::NoIds
        | RegistryError::Certificate(_) => error.to_string(),
    }
}
