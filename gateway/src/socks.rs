//! SOCKS5 (RFC 1928): clients that say for each connection or datagram where it is to go.
//!
//! ```text
//! client                       listener
//!   | -- methods ---------------> |   none, or name and password (RFC 1929) if there are users
//!   | <--------------- method --- |
//!   | -- name and password -----> |
//!   | <--------------- status --- |
//!   | -- command, destination --> |   CONNECT or UDP ASSOCIATE
//!   | <---------------- reply --- |   after the far gateway's answer
//!   | <== the connection =======> |
//! ```
//!
//! A name below the suffix, `web.overway`, is the service of that name; its port says nothing, for the service has
//! one. Everything else is refused, unless the listener and an exit both list it.
//!
//! All of a negotiation must come within a time limit, and what is read has a bound by its format. What is no SOCKS5
//! is told by its first byte, mostly, and reset.
//!
//! A UDP association has a socket of its own, one client, and a flow for each destination; it ends with the
//! connection that asked for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::SocksConfig;
use crate::forward::{Asked, Way, carry, note_refused, open_stream};
use crate::listener::{Admitted, Door, Listener, addresses_of};
use crate::open::{self, Shared};
use crate::splice::reset;
use crate::stats::Refusal;
use crate::target::Target;

mod associate;
pub(crate) mod hostile;
mod message;
mod users;

use associate::Association;
use message::{Command, Fault, METHOD_NONE, METHOD_PASSWORD, Request};

pub use users::PasswordError;
use users::Users;

pub(crate) use users::CREDENTIAL_BYTES_MAX;

/// How long a client may take to say what it wants. Four messages and three round trips.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a service's name at most, as configurations may give it.
const SERVICE_NAME_BYTES_MAX: usize = 63;
/// Says nothing of an address, as it may in replies to CONNECT.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a listener's connections share.
pub(crate) struct Context {
    config: SocksConfig,
    users: Users,
    shared: Arc<Shared>,
}

/// Where a destination leads.
#[derive(Debug)]
struct Route {
    to: open::Way,
    /// What an exit is told.
    target: Option<String>,
}

/// Accepts a SOCKS listener's connections until `until` is ready, or the gateway drains.
pub(crate) async fn run(
    listener: &Listener,
    context: &Arc<Context>,
    until: impl Future<Output = ()>,
) {
    let door = Door { limits: context.config.limits, trusted: None };
    listener.run(door, until, |admitted| serve(Arc::clone(context), admitted)).await;
}

/// One connection, from its negotiation to its end.
async fn serve(context: Arc<Context>, admitted: Admitted) {
    let Admitted { mut tcp, client, place } = admitted;
    let negotiated = tokio::select! {
        negotiated = timeout(NEGOTIATION_TIMEOUT, negotiate(&mut tcp, &context.users)) => {
            negotiated.unwrap_or(Err(Refusal::SocksTimedOut))
        }
        () = context.shared.ending.cancelled() => Err(Refusal::Stopping),
    };
    match negotiated {
        Ok(Request { command: Command::Connect, destination }) => {
            connect(&context, tcp, client, &destination).await;
        }
        Ok(Request { command: Command::Associate, destination }) => {
            match Association::bind(&context, tcp, client, destination).await {
                // A shutdown waits for connections to finish; this one would not.
                Ok(association) => {
                    context.shared.background.spawn(association.run(place));
                }
                Err((tcp, reason)) => refuse(&context, tcp, client, reason).await,
            }
        }
        Err(reason) => {
            context.shared.counters.refuse(reason);
            tracing::debug!(%client, %reason, "refused");
            match reason {
                // It has been told.
                Refusal::SocksCredentials | Refusal::SocksCommand => close(tcp).await,
                _ => reset(tcp),
            }
        }
    }
}

/// Reads what the client wants, and tells it if it cannot have that.
async fn negotiate(tcp: &mut TcpStream, users: &Users) -> Result<Request, Refusal> {
    let methods = message::read_methods(tcp).await.map_err(refusal)?;
    let wanted = if users.is_empty() { METHOD_NONE } else { METHOD_PASSWORD };
    if !methods.contains(&wanted) {
        write(tcp, &message::method(None)).await?;
        return Err(Refusal::SocksCredentials);
    }
    write(tcp, &message::method(Some(wanted))).await?;
    if !users.is_empty() {
        let (name, password) = message::read_credentials(tcp).await.map_err(refusal)?;
        let known = users.know(&name, &password);
        write(tcp, &message::status(known)).await?;
        if !known {
            return Err(Refusal::SocksCredentials);
        }
    }
    match message::read_request(tcp).await {
        Ok(request) => Ok(request),
        Err(fault) => {
            if let Some(code) = fault.code() {
                write(tcp, &message::reply(code, NOWHERE)).await?;
            }
            Err(refusal(fault))
        }
    }
}

async fn connect(context: &Context, tcp: TcpStream, client: SocketAddr, destination: &Target) {
    let SocksConfig { class, idle_timeout, .. } = context.config;
    let Route { to, target } = match context.route(destination) {
        Ok(route) => route,
        Err(reason) => return refuse(context, tcp, client, reason).await,
    };
    let way = Way { to, class, idle_timeout };
    let asked = Asked { client: addresses_of(&tcp, client), target: target.as_deref() };
    let mut tcp = tcp;
    match open_stream(&context.shared, &way, &tcp, asked).await {
        Ok(stream) => {
            // If it fails the client has gone, which the splice finds out, too, and tells the far end.
            let _ = write(&mut tcp, &message::reply(message::SUCCEEDED, NOWHERE)).await;
            carry(&context.shared, &way, client, tcp, stream).await;
        }
        Err(reason) => {
            note_refused(&context.shared, &way, client, reason);
            answer_no(tcp, reason).await;
        }
    }
}

/// Counts a refusal and tells the client.
async fn refuse(context: &Context, tcp: TcpStream, client: SocketAddr, reason: Refusal) {
    context.shared.counters.refuse(reason);
    tracing::debug!(%client, %reason, "refused");
    answer_no(tcp, reason).await;
}

async fn answer_no(mut tcp: TcpStream, reason: Refusal) {
    // If it fails the client has gone.
    let _ = write(&mut tcp, &message::reply(message::code(reason), NOWHERE)).await;
    close(tcp).await;
}

/// Ends a connection whose client has been told why.
async fn close(mut tcp: TcpStream) {
    // Fails only if the client has gone.
    let _ = tcp.shutdown().await;
}

async fn write(tcp: &mut TcpStream, bytes: &[u8]) -> Result<(), Refusal> {
    tcp.write_all(bytes).await.map_err(|_| Refusal::ClientLeft)
}

fn refusal(fault: Fault) -> Refusal {
    match fault {
        Fault::Left => Refusal::ClientLeft,
        Fault::Malformed => Refusal::SocksMalformed,
        Fault::Command | Fault::AddressType => Refusal::SocksCommand,
    }
}

impl Context {
    /// Reads the passwords that are in files.
    pub(crate) fn new(config: &SocksConfig, shared: &Arc<Shared>) -> Result<Self, PasswordError> {
        let users = Users::load(&config.users)?;
        Ok(Self { config: config.clone(), users, shared: Arc::clone(shared) })
    }

    /// Whether the other was made of the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.users == other.users
    }

    /// Where the configuration lets a destination lead.
    fn route(&self, destination: &Target) -> Result<Route, Refusal> {
        let config = &self.config;
        let (service, target) = match (config.service(destination), &config.exit) {
            (Some(service), _) => {
                let listed = |listed: &std::collections::BTreeSet<_>| listed.contains(&service);
                if !config.services.as_ref().is_none_or(listed) {
                    return Err(Refusal::NotAllowed);
                }
                (service, None)
            }
            (None, Some(exit)) => {
                let allowed = match destination {
                    Target::Address(address) => exit.allow.has_address(*address),
                    Target::Name { host, port } => exit.allow.has_name(host, *port),
                };
                if !allowed {
                    return Err(Refusal::NotAllowed);
                }
                (exit.service.clone(), Some(destination.to_string()))
            }
            (None, None) => return Err(Refusal::NotAllowed),
        };
        let (policy, redundancy) = (config.policy.clone(), config.redundancy);
        Ok(Route { to: open::Way { service, policy, redundancy }, target })
    }
}

impl SocksConfig {
    /// The service that a destination's name means.
    fn service(&self, destination: &Target) -> Option<String> {
        let Target::Name { host, .. } = destination else { return None };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let name = host.strip_suffix(&self.suffix)?.strip_suffix('.')?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let sound = (1..=SERVICE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        sound.then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_the_suffix_are_services_whatever_their_port() {
        let config = SocksConfig::new(NOWHERE);
        let service = |text: &str| config.service(&text.parse().unwrap());

        for text in ["web.overway:80", "WEB.Overway:1", "web.overway.:80"] {
            assert_eq!(service(text).as_deref(), Some("web"), "{text}");
        }
        for text in [
            "overway:80",
            ".overway:80",
            "weboverway:80",
            "a.web.overway:80",
            "we_b.overway:80",
            "web.overway.example:80",
            "192.0.2.1:80",
        ] {
            assert_eq!(service(text), None, "{text}");
        }
    }
}
