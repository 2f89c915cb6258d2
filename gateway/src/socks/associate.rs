//! UDP ASSOCIATE: one client's datagrams, each with its destination.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use overway_session::ClientAddresses;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};

use super::{Context, Route, message, write};
use crate::DATAGRAM_BYTES_MAX;
use crate::clients::{Client, Clients, Way};
use crate::config::Limits;
use crate::listener::Place;
use crate::socket::{SERVED_FLOW_BUFFER_BYTES, bind_udp, prepare_tcp};
use crate::stats::{DatagramDrop, Refusal};
use crate::target::Target;

/// Destinations of one association at a time; datagrams to further ones are dropped until one is idle.
const DESTINATIONS_MAX: usize = 64;
/// The longest header: a name of 255 bytes.
const HEADER_BYTES_MAX: usize = 262;

/// An association whose client has been told where to send.
pub(super) struct Association {
    context: Arc<Context>,
    /// Its end is the association's.
    tcp: TcpStream,
    socket: Arc<UdpSocket>,
    /// Where clients are told to send.
    local: SocketAddr,
    /// Of the TCP connection; datagrams must come from the same host.
    client: SocketAddr,
    /// Where datagrams come from: what the request said, or else where the first proper one came from.
    source: Option<SocketAddr>,
}

impl Association {
    /// Binds a socket beside the connection's, and tells the client.
    pub(super) async fn bind(
        context: &Arc<Context>,
        mut tcp: TcpStream,
        client: SocketAddr,
        declared: Target,
    ) -> Result<Self, (TcpStream, Refusal)> {
        let bound = tcp.local_addr().and_then(|local| {
            let socket = bind_udp(SocketAddr::new(local.ip(), 0), SERVED_FLOW_BUFFER_BYTES)?;
            Ok((socket.local_addr()?, socket))
        });
        // There was no port or descriptor left.
        let Ok((local, socket)) = bound else { return Err((tcp, Refusal::Full)) };
        // The association is to end, too, when the client's host vanishes.
        if let Err(error) = prepare_tcp(&tcp) {
            tracing::debug!(%error, "cannot set options of a connection");
        }
        let reply = message::reply(message::SUCCEEDED, local);
        if let Err(reason) = write(&mut tcp, &reply).await {
            return Err((tcp, reason));
        }
        let declared = match declared {
            Target::Address(address) => Some(address),
            Target::Name { .. } => None,
        };
        let source = declared.filter(|source| source.port() != 0 && same_host(*source, client));
        let (context, socket) = (Arc::clone(context), Arc::new(socket));
        Ok(Self { context, tcp, socket, local, client, source })
    }

    /// Carries datagrams until the client ends its connection, or the gateway ends.
    pub(super) async fn run(mut self, _place: Place) {
        let limits = Limits { clients_max: DESTINATIONS_MAX, clients_per_second: None };
        let shared = Arc::clone(&self.context.shared);
        let mut clients = Clients::new(Arc::clone(&shared));
        clients.limit(limits);
        // One byte more, so that a datagram which is too long is seen to be.
        let mut buffer = [0; HEADER_BYTES_MAX + DATAGRAM_BYTES_MAX + 1];
        let mut byte = [0];
        loop {
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((count, source)) => {
                        self.handle_datagram(&mut clients, source, &buffer[..count]);
                    }
                    // An earlier answer did not reach the client; the next datagram is not concerned.
                    Err(error) => tracing::debug!(%error, "a UDP socket was told of an error"),
                },
                // The client has nothing more to say on it: whatever comes is its end.
                _ = self.tcp.read(&mut byte) => return,
                () = clients.forget_ended() => {}
                () = shared.ending.cancelled() => return,
            }
        }
    }

    fn handle_datagram(
        &mut self,
        clients: &mut Clients<Target>,
        source: SocketAddr,
        datagram: &[u8],
    ) {
        match self.accept(source, datagram) {
            Ok((destination, route, length)) => {
                let (header, data) = datagram.split_at(length);
                let client = || Ok(self.client(source, route, header));
                clients.handle_datagram(destination, data, client);
            }
            Err(reason) => self.context.shared.counters.discard(reason, 1),
        }
    }

    /// Where a datagram is to go, and the length of its header.
    fn accept(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(Target, Route, usize), DatagramDrop> {
        let known = self.source.map_or(same_host(source, self.client), |known| {
            same_host(source, known) && source.port() == known.port()
        });
        if !known {
            return Err(DatagramDrop::Untrusted);
        }
        let (destination, length) =
            message::parse_datagram(datagram).map_err(|_| DatagramDrop::SocksMalformed)?;
        let route = self.context.route(&destination).map_err(|_| DatagramDrop::NotAllowed)?;
        self.source = Some(source);
        Ok((destination, route, length))
    }

    fn client(&self, source: SocketAddr, Route { to, target }: Route, header: &[u8]) -> Client {
        let idle_timeout = self.context.config.flow_idle_timeout;
        Client {
            way: Arc::new(Way { socket: Arc::clone(&self.socket), to, idle_timeout }),
            address: source,
            addresses: Some(ClientAddresses { source, destination: self.local }),
            target,
            // Answers come from where the client's datagrams went, in its own words.
            prefix: Bytes::copy_from_slice(header),
        }
    }
}

fn same_host(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip().to_canonical() == other.ip().to_canonical()
}
