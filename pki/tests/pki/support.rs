//! A mesh for tests: an authority, nodes with credentials, and TLS handshakes in memory.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

pub(crate) fn identity(role: Role, id: u16) -> Identity {
    Identity::new(role, id, "blue").unwrap()
}

pub(crate) fn credentials(authority: &Authority, role: Role, id: u16) -> Arc<Credentials> {
    issued_at(authority, role, id, SystemTime::now())
}

/// Credentials of a node that joined at `now`, for 90 days.
pub(crate) fn issued_at(
    authority: &Authority,
    role: Role,
    id: u16,
    now: SystemTime,
) -> Arc<Credentials> {
    let (pending, csr) = PendingKey::generate().unwrap();
    let identity = Identity::new(role, id, authority.mesh()).unwrap();
    let chain = authority.issue(&csr, &identity, LIFETIME, now).unwrap();
    Arc::new(Credentials::from_join(&pending, chain, authority.fingerprint(), now).unwrap())
}

/// Both ends after a handshake, or what each had against the other.
pub(crate) type Outcome = Result<(ClientConnection, ServerConnection), Refused>;

#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) by_client: Option<String>,
    pub(crate) by_server: Option<String>,
}

/// Lets the two ends talk until both are done or one gives up.
pub(crate) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    server_name: &str,
) -> Outcome {
    let name = ServerName::try_from(server_name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut refused = Refused { by_client: None, by_server: None };

    while client.wants_write() || server.wants_write() {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let mut unread = &flight[..];
        while !unread.is_empty() && refused.by_server.is_none() {
            server.read_tls(&mut unread).unwrap();
            refused.by_server = server.process_new_packets().err().map(|error| error.to_string());
        }

        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut unread = &flight[..];
        while !unread.is_empty() && refused.by_client.is_none() {
            client.read_tls(&mut unread).unwrap();
            refused.by_client = client.process_new_packets().err().map(|error| error.to_string());
        }
    }

    let done = !client.is_handshaking() && !server.is_handshaking();
    if done && refused.by_client.is_none() && refused.by_server.is_none() {
        Ok((client, server))
    } else {
        Err(refused)
    }
}

/// Sends a word over an established connection, from the client to the server.
pub(crate) fn talk(client: &mut ClientConnection, server: &mut ServerConnection) -> String {
    client.writer().write_all(b"hello").unwrap();
    let mut flight = Vec::new();
    client.write_tls(&mut flight).unwrap();
    server.read_tls(&mut &flight[..]).unwrap();
    server.process_new_packets().unwrap();
    let mut heard = [0; 5];
    server.reader().read_exact(&mut heard).unwrap();
    String::from_utf8(heard.to_vec()).unwrap()
}
