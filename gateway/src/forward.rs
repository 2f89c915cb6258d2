//! The listening side of TCP: each accepted connection becomes one session stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_session::{ClientAddresses, Stream, Terms, Wanted};
use overway_wire::Class;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::ForwardConfig;
use crate::listener::{Admitted, Door, Listener, addresses_of};
use crate::open::{self, Shared, open_first};
use crate::proxy::{self, ReadError};
use crate::splice::{reset, socket_error, splice};
use crate::stats::Refusal;

/// How long a trusted source may take for its PROXY header. The specification has receivers wait three seconds
/// at least, so that a lost packet is sent again.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection's stream is like.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) to: open::Way,
    pub(crate) class: Class,
    pub(crate) idle_timeout: Option<Duration>,
}

/// Whose connection it is, and where an exit is to lead it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) client: Option<ClientAddresses>,
    pub(crate) target: Option<&'a str>,
}

/// Accepts a forward's connections until `until` is ready, or the gateway drains.
pub(crate) async fn run(
    listener: &Listener,
    config: &ForwardConfig,
    until: impl Future<Output = ()>,
) {
    let ForwardConfig { class, limits, idle_timeout, proxy_protocol, trusted, .. } = config;
    let to = open::Way {
        service: config.service.clone(),
        policy: config.policy.clone(),
        redundancy: config.redundancy,
    };
    let way = Arc::new(Way { to, class: *class, idle_timeout: *idle_timeout });
    let has_header = proxy_protocol.is_some();
    let door = Door { limits: *limits, trusted: has_header.then_some(trusted.as_slice()) };
    let shared = listener.shared();
    let connection = |admitted| connect(Arc::clone(shared), Arc::clone(&way), has_header, admitted);
    listener.run(door, until, connection).await;
}

/// One connection, from its opening to its end.
async fn connect(shared: Arc<Shared>, way: Arc<Way>, has_header: bool, admitted: Admitted) {
    let Admitted { mut tcp, client, place: _place } = admitted;
    let mut addresses = Ok(addresses_of(&tcp, client));
    if has_header {
        let told = tokio::select! {
            told = told_client(&mut tcp) => told,
            () = shared.ending.cancelled() => Err(Refusal::Stopping),
        };
        addresses = addresses.and_then(|own| told.map(|told| told.or(own)));
    }
    let opened = match addresses {
        Ok(client) => open_stream(&shared, &way, &tcp, Asked { client, target: None }).await,
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok(stream) => carry(&shared, &way, client, tcp, stream).await,
        Err(reason) => {
            note_refused(&shared, &way, client, reason);
            reset(tcp);
        }
    }
}

/// Whom the PROXY header tells of, if of anybody.
async fn told_client(tcp: &mut TcpStream) -> Result<Option<ClientAddresses>, Refusal> {
    match timeout(PROXY_HEADER_TIMEOUT, proxy::read(tcp)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(ReadError::Empty)) => Err(Refusal::ClientLeft),
        Ok(Err(ReadError::Header)) | Err(_) => Err(Refusal::ProxyHeader),
    }
}

/// Opens the stream of a connection, unless the client leaves or the gateway ends first.
pub(crate) async fn open_stream(
    shared: &Shared,
    way: &Way,
    tcp: &TcpStream,
    Asked { client, target }: Asked<'_>,
) -> Result<Stream, Refusal> {
    let wanted = Wanted { client, target, ..Wanted::from(&way.to.service) };
    let terms = |policy| Terms::new(way.class, policy).with_redundancy(way.to.redundancy);
    let open = open_first(shared, &way.to, terms, |relay, terms| {
        shared.endpoint.open_stream(relay, terms, wanted)
    });
    tokio::select! {
        opened = open => opened,
        _ = socket_error(tcp) => Err(Refusal::ClientLeft),
        () = shared.ending.cancelled() => Err(Refusal::Stopping),
    }
}

/// Carries a connection whose stream is open.
pub(crate) async fn carry(
    shared: &Shared,
    way: &Way,
    client: SocketAddr,
    tcp: TcpStream,
    stream: Stream,
) {
    let end = splice(shared, tcp, stream, way.idle_timeout).await;
    tracing::debug!(service = way.to.service, %client, ?end, "over");
}

pub(crate) fn note_refused(shared: &Shared, way: &Way, client: SocketAddr, reason: Refusal) {
    shared.counters.refuse(reason);
    tracing::debug!(service = way.to.service, %client, %reason, "refused");
}
