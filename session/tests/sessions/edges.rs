//! Edges against one another: two addresses each, which die and move, tokens, and those who should not be heard.

mod lost;
mod refusals;
mod sealed;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overway_session::{EdgeIdentity, FarEnd, SessionConfig};
use overway_tenant::{Claims, EdgeId, EdgeKey, Kid, Names, TenantKey, TenantKeys, mint};
use overway_wire::{Address, Whereabouts};
use tokio::sync::watch;

use super::*;
use crate::fabric::whereabouts;

const A1: Address = at(11);
const A2: Address = at(12);
const A3: Address = at(13);
const B1: Address = at(21);
const B2: Address = at(22);
const B3: Address = at(23);
const B4: Address = at(24);
const C1: Address = at(31);
const D1: Address = at(41);

const fn at(relay: u16) -> Address {
    Address::new(RelayId(relay), overway_wire::AttachmentId(7))
}

/// A tenant with one key.
struct Tenant {
    name: &'static str,
    /// Of its edges.
    config: SessionConfig,
    key: TenantKey,
    keys: watch::Sender<Arc<TenantKeys>>,
}

/// An edge and what it is told.
struct Edge {
    endpoint: SessionEndpoint,
    id: EdgeId,
    /// Where it was at first.
    addresses: Vec<Address>,
    whereabouts: watch::Sender<Option<Whereabouts>>,
    token: watch::Sender<String>,
}

fn kid() -> Kid {
    "key".parse().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The key of the edge of that number.
fn key(number: u8) -> EdgeKey {
    EdgeKey::from_seed([number; 32])
}

/// What an edge may, if nothing is said: all, for an hour.
fn all_for(tenant: &str, edge: EdgeId) -> Claims {
    Claims {
        tenant: tenant.parse().unwrap(),
        name: "edge".to_owned(),
        services: Names::Any,
        offers: Names::Any,
        classes: Class::ALL.into(),
        issued: now() - 100,
        not_before: None,
        expires: now() + 3_600,
        id: "token".parse().unwrap(),
        edge,
    }
}

impl Tenant {
    fn new(name: &'static str) -> Self {
        let key = TenantKey::from_seed([9; 32]);
        let mut keys = TenantKeys::new(name.parse().unwrap());
        keys.keys.insert(kid(), key.public());
        let config = SessionConfig::default();
        Self { name, config, key, keys: watch::Sender::new(Arc::new(keys)) }
    }

    fn token(&self, edge: EdgeId, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = all_for(self.name, edge);
        change(&mut claims);
        mint(&claims, &self.key, &kid()).unwrap()
    }

    /// An edge of that number, attached there, with a token changed in some way.
    fn edge_with(
        &self,
        mesh: &Mesh,
        number: u8,
        addresses: &[Address],
        change: impl FnOnce(&mut Claims),
    ) -> Edge {
        let id = key(number).id();
        let (port, whereabouts) = mesh.edge_port(addresses);
        let (token, shown) = watch::channel(self.token(id, change));
        let identity = EdgeIdentity {
            key: Arc::new(key(number)),
            tenant: self.name.parse().unwrap(),
            token: shown,
            keys: self.keys.subscribe(),
        };
        let endpoint = SessionEndpoint::for_edge(self.config, port, identity).unwrap();
        Edge { endpoint, id, addresses: addresses.to_vec(), whereabouts, token }
    }

    fn edge(&self, mesh: &Mesh, number: u8, addresses: &[Address]) -> Edge {
        self.edge_with(mesh, number, addresses, |_| {})
    }
}

impl Edge {
    fn far(&self) -> FarEnd {
        FarEnd::Edge { id: self.id, whereabouts: whereabouts(&self.addresses) }
    }

    /// Attaches it elsewhere, beside where it was.
    fn move_to(&self, mesh: &Mesh, addresses: &[Address]) {
        mesh.attach(self.addresses[0], addresses);
        self.whereabouts.send_replace(whereabouts(addresses));
    }

    async fn open(&self, far: &Edge) -> Result<Stream, OpenError> {
        soon(self.endpoint.open_stream(far.far(), Class::Bulk, "echo")).await
    }
}

async fn stream_between(opener: &Edge, far: &Edge) -> (Stream, Stream) {
    let opened = opener.endpoint.open_stream(far.far(), Class::Bulk, "echo");
    let accepted = async { next_stream(&far.endpoint).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    (opened.unwrap(), accepted.unwrap())
}

async fn flow_between(opener: &Edge, far: &Edge, redundancy: Redundancy) -> (Flow, Flow) {
    let opened = opener.endpoint.open_flow(far.far(), PolicyId(0), redundancy, "voice");
    let accepted = async { next_flow(&far.endpoint).await.accept().await };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;
    (opened.unwrap(), accepted.unwrap())
}

/// Sends a word each way.
async fn talk(near: &mut Stream, away: &mut Stream) {
    for (from, to) in [(&mut near.send, &mut away.recv), (&mut away.send, &mut near.recv)] {
        from.write_all(b"word").await.unwrap();
        let mut read = [0; 4];
        soon(to.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, b"word");
    }
}

/// Sends `bytes` from one to the other, and does `meanwhile` at each of so many equal parts.
async fn carry_across(near: &mut Stream, away: &mut Stream, bytes: &[u8], meanwhile: &[&dyn Fn()]) {
    let send = async {
        for (part, change) in bytes
            .chunks(bytes.len() / (meanwhile.len() + 1))
            .zip(meanwhile.iter().map(Some).chain(std::iter::repeat(None)))
        {
            near.send.write_all(part).await.unwrap();
            if let Some(change) = change {
                change();
            }
        }
        near.send.finish().unwrap();
    };
    let receive = async { away.recv.read_to_end(usize::MAX).await.unwrap() };
    let ((), received) = soon(async { tokio::join!(send, receive) }).await;
    assert!(received == bytes);
}

/// Has the far end talk until answers go to its address.
async fn until_frames_go_to(address: Address, mesh: &Mesh, near: &mut Stream, away: &mut Stream) {
    mesh.tap();
    let mut gone = false;
    while !gone {
        away.send.write_all(b"word").await.unwrap();
        let mut read = [0; 4];
        soon(near.recv.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, b"word");
        gone = mesh.tapped().iter().any(|tapped| tapped.frame.destination == address);
    }
}

#[tokio::test]
async fn edges_open_streams_by_key_wherever_they_are() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));

    let opened = a.endpoint.open_stream(b.far(), Class::Interactive, "echo");
    let accepted = async {
        let asked = next_stream(&b.endpoint).await;
        assert_eq!(asked.from(), a.far());
        assert_eq!(asked.claims().map(|claims| claims.edge), Some(a.id));
        asked.accept().await
    };
    let (opened, accepted) = soon(async { tokio::join!(opened, accepted) }).await;

    talk(&mut opened.unwrap(), &mut accepted.unwrap()).await;
    // Known now, so that nothing has to be said of where it is.
    let again = b.endpoint.open_stream(a.id, Class::Interactive, "back");
    let accepted = async { next_stream(&a.endpoint).await.accept().await };
    let (again, accepted) = soon(async { tokio::join!(again, accepted) }).await;
    talk(&mut again.unwrap(), &mut accepted.unwrap()).await;
    assert_eq!((a.endpoint.stats().sessions_opened, b.endpoint.stats().sessions_opened), (1, 1));
}

#[tokio::test]
async fn edges_that_dial_each_other_at_once_reach_each_other() {
    for seed in 1..=3 {
        let (mesh, tenant) = (Mesh::new(seed), Tenant::new("acme"));
        let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));

        let streams = async { tokio::join!(stream_between(&a, &b), stream_between(&b, &a)) };
        let ((mut a_near, mut a_away), (mut b_near, mut b_away)) = soon(streams).await;

        talk(&mut a_near, &mut a_away).await;
        talk(&mut b_near, &mut b_away).await;
    }
}

#[tokio::test]
async fn copies_by_both_addresses_loss_and_disorder_harm_no_stream() {
    for seed in 1..=2 {
        let (mesh, tenant) = (Mesh::new(seed), Tenant::new("acme"));
        let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
        mesh.set_doubling(true);
        mesh.set_faults(Faults { lost: 0.05, delayed: 0.3, garbled: 0.01, ..Faults::default() });
        let (mut near, mut away) = stream_between(&a, &b).await;

        carry_across(&mut near, &mut away, &pattern(1 << 20), &[]).await;

        let stats = b.endpoint.stats();
        assert!(stats.frames_duplicate > 100 && stats.frames_reordered > 0, "{stats:?}");
    }
}

#[tokio::test]
async fn a_stream_survives_the_death_of_either_ends_first_address() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut near, mut away) = stream_between(&a, &b).await;

    let deaths: [&dyn Fn(); 2] = [&|| mesh.kill(A1), &|| mesh.kill(B1)];
    carry_across(&mut near, &mut away, &pattern(4 << 20), &deaths).await;

    away.send.write_all(b"still here").await.unwrap();
    let mut read = [0; 10];
    soon(near.recv.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"still here");
    assert_eq!((a.endpoint.stats().sessions_opened, b.endpoint.stats().sessions_opened), (1, 1));
}

#[tokio::test]
async fn a_stream_follows_an_end_that_is_attached_elsewhere_altogether() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut near, mut away) = stream_between(&a, &b).await;
    let (voice_near, voice_away) = flow_between(&a, &b, Redundancy::default()).await;

    b.move_to(&mesh, &[B3, B4]);
    // The word travels on the session itself.
    until_frames_go_to(B3, &mesh, &mut near, &mut away).await;
    mesh.kill(B1);
    mesh.kill(B2);

    carry_across(&mut near, &mut away, &pattern(1 << 20), &[]).await;
    voice_near.send(b"are you there?").unwrap();
    assert_eq!(soon(voice_away.recv()).await.as_deref(), Some(&b"are you there?"[..]));
    assert_eq!((voice_near.far(), a.endpoint.stats().sessions_opened), (B3, 2));
}

#[tokio::test]
async fn both_ends_may_move_again_and_again() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, b) = (tenant.edge(&mesh, 1, &[A1]), tenant.edge(&mesh, 2, &[B1]));
    let (mut near, mut away) = stream_between(&a, &b).await;

    let moves: [&dyn Fn(); 4] = [
        &|| a.move_to(&mesh, &[A2, A1]),
        &|| b.move_to(&mesh, &[B2, B1]),
        &|| a.move_to(&mesh, &[A3, A2]),
        &|| b.move_to(&mesh, &[B3, B2]),
    ];
    carry_across(&mut near, &mut away, &pattern(4 << 20), &moves).await;

    until_frames_go_to(B3, &mesh, &mut near, &mut away).await;
}

#[tokio::test]
async fn a_flow_survives_the_death_of_either_ends_first_address_without_repeating() {
    for redundancy in Redundancy::ALL {
        let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
        let (a, b) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
        let (near, away) = flow_between(&a, &b, redundancy).await;
        mesh.tap();
        let mut seen = BTreeSet::new();
        for number in 0..300_u32 {
            match number {
                100 => mesh.kill(A1),
                200 => mesh.kill(B1),
                _ => {}
            }
            near.send(&number.to_be_bytes()).unwrap();
            let datagram = soon(away.recv()).await.unwrap();
            assert!(seen.insert(datagram.to_vec()), "{redundancy:?}: {number} twice");
        }
        assert_eq!(seen.len(), 300);

        let frames = mesh.tapped();
        let datagrams =
            frames.iter().filter(|it| it.frame.kind == overway_wire::FrameKind::Datagram);
        let copies = if redundancy == Redundancy::Always { 300 } else { 0 };
        assert_eq!(datagrams.clone().count(), 300 + copies, "{redundancy:?}");
        assert_eq!(b.endpoint.stats().datagrams_duplicate, copies as u64, "{redundancy:?}");
        if redundancy == Redundancy::Always {
            let is_copy = |it: &&crate::fabric::Tapped| it.frame.redundancy == Redundancy::Off;
            let of_copies: Vec<_> = datagrams.filter(is_copy).collect();
            assert!(of_copies.iter().all(|it| it.frame.destination == B2));
            assert_eq!(of_copies.len(), copies);
        }
    }
}

#[tokio::test]
async fn an_edge_that_starts_anew_is_noticed_and_reached_again() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, first) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut stream, _kept) = stream_between(&a, &first).await;
    let second = tenant.edge(&mesh, 2, &[B1, B2]);

    stream.send.write_all(b"anybody there?").await.unwrap();
    let read = soon(stream.recv.read_chunk(10, true)).await;
    assert!(matches!(read, Err(ReadError::ConnectionLost(ConnectionError::Reset))), "{read:?}");

    let (mut near, mut away) = stream_between(&a, &second).await;
    talk(&mut near, &mut away).await;
}

#[tokio::test]
async fn an_edge_that_starts_anew_elsewhere_ends_its_earlier_sessions_by_its_first_word() {
    let (mesh, tenant) = (Mesh::new(1), Tenant::new("acme"));
    let (a, first) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut stream, _kept) = stream_between(&a, &first).await;
    mesh.kill(B1);
    mesh.kill(B2);
    let second = tenant.edge(&mesh, 2, &[B3, B4]);

    let (mut near, mut away) = stream_between(&second, &a).await;

    let read = soon(stream.recv.read_chunk(10, true)).await;
    let ended = ReadError::ConnectionLost(ConnectionError::LocallyClosed);
    assert_eq!(read, Err(ended));
    assert_eq!(a.endpoint.stats().far_restarts, 1);
    talk(&mut near, &mut away).await;
}

#[tokio::test]
async fn an_edge_that_is_silent_is_sought_where_it_is_said_to_be() {
    let (mesh, mut tenant) = (Mesh::new(1), Tenant::new("acme"));
    tenant.config.handshake_timeout = Duration::from_secs(1);
    let (a, first) = (tenant.edge(&mesh, 1, &[A1, A2]), tenant.edge(&mesh, 2, &[B1, B2]));
    let (mut stream, _kept) = stream_between(&a, &first).await;
    mesh.kill(B1);
    mesh.kill(B2);
    // It has not been told of its far ends, and waits for them.
    let second = tenant.edge(&mesh, 2, &[B3, B4]);

    let (near, away) = flow_between(&a, &second, Redundancy::default()).await;

    near.send(b"there you are").unwrap();
    assert_eq!(soon(away.recv()).await.as_deref(), Some(&b"there you are"[..]));
    let read = soon(stream.recv.read_chunk(10, true)).await;
    assert_eq!(read, Err(ReadError::ConnectionLost(ConnectionError::LocallyClosed)));
}
