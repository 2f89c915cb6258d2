use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use overway_pki::{
    ALPN_MESH, Authority, ClientAuth, Role, client_config, peer_identity, server_config,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::pki_types::CertificateDer;

use crate::support::{credentials, identity};

#[tokio::test]
async fn the_configurations_serve_quic() {
    let authority = Authority::create("blue").unwrap();
    let (one, two) =
        (credentials(&authority, Role::Relay, 1), credentials(&authority, Role::Relay, 2));
    let server = server_config(&two, &[ALPN_MESH], ClientAuth::Required(&[Role::Relay]));
    let server =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    let client = quinn::ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(client_config(&one, &[ALPN_MESH])).unwrap(),
    ));
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = quinn::Endpoint::server(server, loopback).unwrap();
    let dialler = quinn::Endpoint::client(loopback).unwrap();
    let address = listener.local_addr().unwrap();
    let name = two.identity().server_name();

    let accept = async { listener.accept().await.unwrap().await.unwrap() };
    let dial = async { dialler.connect_with(client, address, &name).unwrap().await.unwrap() };
    let (accepted, dialled) = tokio::join!(accept, dial);

    let peer = |connection: &quinn::Connection| {
        let certs = connection.peer_identity().unwrap();
        peer_identity(certs.downcast_ref::<Vec<CertificateDer<'static>>>().unwrap()).unwrap()
    };
    assert_eq!(peer(&accepted), identity(Role::Relay, 1));
    assert_eq!(peer(&dialled), identity(Role::Relay, 2));
}
