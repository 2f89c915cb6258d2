//! The relay's side of joining.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overway_pki::{
    Credentials, CredentialsError, JOIN_SERVER_NAME, JoinToken, PendingKey, join_client_config,
};
use overway_wire::RelayId;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use rustls::pki_types::CertificateDer;

use super::{JoinRequest, JoinResponse, MESSAGE_BYTES_MAX, Refused, join_response};
use crate::framing;

/// Rounds over all schedulers before giving up; with [`ATTEMPT_TIME_MAX`] this stays within the minute in
/// which the same key may ask again.
const ROUNDS_MAX: u32 = 3;
/// Time for one attempt at one address.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause between rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// Addresses tried for each scheduler's name.
const ADDRESSES_MAX: usize = 4;

/// The relay has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub relay: RelayId,
    /// Its name.
    pub name: String,
    /// The mesh's name.
    pub mesh: String,
    /// Where schedulers listen.
    pub schedulers: Vec<String>,
}

/// Why the relay has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There are credentials already.
    #[error("{} exists already: this node has joined; to join anew, move the directory away", .0.display())]
    AlreadyJoined(PathBuf),
    /// The token has ended, by this machine's clock.
    #[error("the token has expired: ask for a new one (overway node add)")]
    Expired,
    /// A scheduler said no.
    #[error("the scheduler refused: {0}")]
    Refused(String),
    /// No scheduler answered.
    #[error("no scheduler could be reached: {0}")]
    Unreachable(String),
    /// What the scheduler sent is no certificate of this key and mesh, or cannot be saved.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The scheduler sent an id that is none.
    #[error("the scheduler's answer makes no sense: {0} is not a relay's id")]
    Id(u32),
}

/// Redeems `token` and writes `node.pem`, `node.key` and `ca.pem` into `directory`, which is made if it
/// is not there. The key is made here and never leaves.
///
/// # Errors
/// If there are credentials already, the token is refused, or nobody answers.
pub async fn redeem(token: &JoinToken, directory: &Path) -> Result<Joined, JoinError> {
    let key_file = directory.join("node.key");
    if key_file.exists() {
        return Err(JoinError::AlreadyJoined(key_file));
    }
    if token.is_expired(SystemTime::now()) {
        return Err(JoinError::Expired);
    }
    let (pending, csr_der) = PendingKey::generate()?;
    let request = JoinRequest { secret: token.secret.as_bytes().to_vec(), csr_der };
    let accepted = ask_in_rounds(token, &request).await?;
    let relay = u16::try_from(accepted.relay).map_err(|_| JoinError::Id(accepted.relay))?;
    let chain: Vec<CertificateDer<'static>> =
        accepted.chain_der.into_iter().map(CertificateDer::from).collect();
    let credentials = Credentials::from_join(&pending, chain, token.ca_sha256, SystemTime::now())?;
    credentials.save(directory)?;
    Ok(Joined {
        relay: RelayId(relay),
        name: accepted.name,
        mesh: accepted.mesh,
        schedulers: accepted.schedulers,
    })
}

async fn ask_in_rounds(
    token: &JoinToken,
    request: &JoinRequest,
) -> Result<super::Accepted, JoinError> {
    let config = client_config(token);
    let mut last = String::new();
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for scheduler in &token.schedulers {
            match ask_scheduler(scheduler, &config, request).await {
                Ok(join_response::Body::Accepted(accepted)) => return Ok(accepted),
                Ok(join_response::Body::Refused(Refused { reason, retry })) if !retry => {
                    return Err(JoinError::Refused(reason));
                }
                Ok(join_response::Body::Refused(Refused { reason, retry: _ })) => {
                    last = format!("{scheduler}: {reason}");
                }
                Err(error) => last = format!("{scheduler}: {error}"),
            }
        }
    }
    Err(JoinError::Unreachable(last))
}

fn client_config(token: &JoinToken) -> ClientConfig {
    let tls = QuicClientConfig::try_from(join_client_config(token.ca_sha256))
        .expect("the configuration is TLS 1.3 with QUIC's initial cipher suite");
    ClientConfig::new(Arc::new(tls))
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("its name does not resolve: {0}")]
    Resolve(std::io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("no UDP socket: {0}")]
    Socket(std::io::Error),
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Write(#[from] quinn::WriteError),
    #[error(transparent)]
    Read(#[from] framing::ReadError),
    #[error("it closed the stream without an answer")]
    NoAnswer,
    #[error("it did not answer within {ATTEMPT_TIME_MAX:?}")]
    TimedOut,
}

async fn ask_scheduler(
    scheduler: &str,
    config: &ClientConfig,
    request: &JoinRequest,
) -> Result<join_response::Body, AttemptError> {
    let addresses = tokio::net::lookup_host(scheduler).await.map_err(AttemptError::Resolve)?;
    let mut failed = AttemptError::NoAddress;
    for address in addresses.take(ADDRESSES_MAX) {
        match tokio::time::timeout(ATTEMPT_TIME_MAX, ask_address(address, config, request)).await {
            Ok(Ok(body)) => return Ok(body),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = AttemptError::TimedOut,
        }
    }
    Err(failed)
}

async fn ask_address(
    address: SocketAddr,
    config: &ClientConfig,
    request: &JoinRequest,
) -> Result<join_response::Body, AttemptError> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = Endpoint::client(any).map_err(AttemptError::Socket)?;
    let connection = endpoint.connect_with(config.clone(), address, JOIN_SERVER_NAME)?.await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    framing::write(&mut send, request).await?;
    let response: Option<JoinResponse> = framing::read(&mut recv, MESSAGE_BYTES_MAX).await?;
    connection.close(quinn::VarInt::from_u32(0), b"answered");
    endpoint.wait_idle().await;
    response.and_then(|response| response.body).ok_or(AttemptError::NoAnswer)
}
