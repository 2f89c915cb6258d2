//! `GET /v1/access` for clients, on `[access] http_listen`: read only, without credentials, and bounded in everything.
//!
//! | what | limit | beyond it |
//! | --- | --- | --- |
//! | connections at once | 256 | they wait in the system's backlog |
//! | of them from one address (IPv6: one /64), unless it is trusted | 16 | closed |
//! | life of a connection | 10 s | closed |
//! | requests of one network (/24, /48) | 10 a second, 10 at once | 429 |
//! | networks that are remembered | 4,096 | 429, until one has asked nothing for a second |
//!
//! It is plain HTTP: what it says is no secret, and a false answer leads an edge to no relay but those that have a
//! certificate of the mesh. Behind a proxy (for TLS) the proxy asks with `client=`, and is in `http_trust`.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use axum::{Json, Router};
use ipnet::IpNet;
use overway_dispatch::Asked;
use overway_wire::control::NetworkPrefix;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::nearest::{Asker, Dispatcher};
use super::places::{Place, Places};

const CONNECTIONS_MAX: usize = 256;
const CONNECTIONS_AT_MAX: usize = 16;
const CONNECTION_LIFE: Duration = Duration::from_secs(10);
const REQUESTS_PER_SECOND: u32 = 10;
const NETWORKS_MAX: usize = 4_096;

/// Who may ask what.
struct Public {
    dispatcher: Arc<Dispatcher>,
    trust: watch::Receiver<Vec<IpNet>>,
    limits: Mutex<Limits>,
    clock: fn() -> Instant,
}

/// Binds the address; the future that comes back serves until the token is cancelled. Callers in the networks of `trust`
/// as it is at the time may ask for others. Also says which address was bound.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_clients(
    address: SocketAddr,
    trust: watch::Receiver<Vec<IpNet>>,
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, impl Future<Output = ()>)> {
    serve_by(Instant::now, address, trust, dispatcher, stop).await
}

/// The same, with requests counted by this clock.
async fn serve_by(
    clock: fn() -> Instant,
    address: SocketAddr,
    trust: watch::Receiver<Vec<IpNet>>,
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on access.http_listen {address}"))?;
    let bound = listener.local_addr()?;
    tracing::info!(address = %bound, "access HTTP");
    let limits = Mutex::new(Limits::default());
    let bounded = Bounded::new(listener, trust.clone());
    let router = Router::new().route("/v1/access", get(nearest)).with_state(Arc::new(Public {
        dispatcher,
        trust,
        limits,
        clock,
    }));
    let service = router.into_make_service_with_connect_info::<Remote>();
    Ok((bound, async move {
        tokio::select! {
            served = axum::serve(bounded, service) => {
                if let Err(error) = served {
                    tracing::warn!(%error, "access HTTP ended");
                }
            }
            () = stop.cancelled() => {}
        }
    }))
}

async fn nearest(
    State(public): State<Arc<Public>>,
    ConnectInfo(Remote(caller)): ConnectInfo<Remote>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let caller = caller.ip().to_canonical();
    let is_trusted = is_in(&public.trust.borrow(), caller);
    if !is_trusted && !public.admits(caller, (public.clock)()) {
        return problem(StatusCode::TOO_MANY_REQUESTS, "too many requests; ask again in a second");
    }
    let asked = match query {
        Ok(Query(asked)) => asked,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    if asked.client.is_some() && !is_trusted {
        let words = "client= is for those whom access.http_trust names; without it the answer is \
                     for your own address";
        return problem(StatusCode::FORBIDDEN, words);
    }
    // Whether there is such a tenant is nothing for strangers: one that is not known leaves all relays.
    let tenant = asked.tenant.as_deref().and_then(|name| public.dispatcher.tenant(name));
    Json(public.dispatcher.asked(&asked, caller, tenant)).into_response()
}

impl Dispatcher {
    /// What a query is answered.
    pub fn asked(
        &self,
        asked: &Asked,
        caller: IpAddr,
        tenant: Option<overway_wire::PolicyId>,
    ) -> overway_dispatch::Answer {
        let address = asked.client.unwrap_or(caller).to_canonical();
        let key = asked.key.clone().unwrap_or_else(|| address.to_string());
        let asker = Asker { address, key: key.as_bytes(), tenant, measured: None };
        self.answer(asker, asked.limit())
    }
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address.to_canonical()))
}

fn problem(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

impl Public {
    fn admits(&self, caller: IpAddr, now: Instant) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.admits(NetworkPrefix::of(caller), now)
    }
}

/// For each network the time at which its bucket is full again (GCRA, ITU-T I.371).
#[derive(Debug, Default)]
struct Limits {
    full_at: HashMap<NetworkPrefix, Instant>,
}

impl Limits {
    fn admits(&mut self, network: NetworkPrefix, now: Instant) -> bool {
        if self.full_at.len() >= NETWORKS_MAX && !self.full_at.contains_key(&network) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= NETWORKS_MAX {
                return false;
            }
        }
        let full_at = self.full_at.entry(network).or_insert(now);
        let next = (*full_at).max(now) + Duration::from_secs(1) / REQUESTS_PER_SECOND;
        let is_admitted = next.saturating_duration_since(now) <= Duration::from_secs(1);
        if is_admitted {
            *full_at = next;
        }
        is_admitted
    }
}

/// Accepts only so many at once, and of one source fewer: whoever says nothing keeps nobody else out.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
    trust: watch::Receiver<Vec<IpNet>>,
    places: Arc<Places>,
}

impl Bounded {
    fn new(listener: TcpListener, trust: watch::Receiver<Vec<IpNet>>) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let places = Places::new(CONNECTIONS_MAX, CONNECTIONS_AT_MAX);
        Self { listener, room, trust, places }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
struct Remote(SocketAddr);

impl axum::extract::connect_info::Connected<IncomingStream<'_, Bounded>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    let place = self.places.take(remote.ip());
                    if place.is_some() || is_in(&self.trust.borrow(), remote.ip()) {
                        let end = Box::pin(tokio::time::sleep(CONNECTION_LIFE));
                        return (Brief { stream, end, _permit: permit, _place: place }, remote);
                    }
                }
                Err(error) => {
                    // Most of all: no descriptors are left.
                    tracing::debug!(%error, "access HTTP");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in a while, whatever the other end does.
struct Brief {
    stream: TcpStream,
    end: Pin<Box<tokio::time::Sleep>>,
    _permit: OwnedSemaphorePermit,
    /// None for who is trusted and has taken all of its own.
    _place: Option<Place>,
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_ten_requests_at_once_and_ten_a_second() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        let (one, other) = (NetworkPrefix::V4([1, 2, 3]), NetworkPrefix::V4([1, 2, 4]));
        assert_eq!((0..50).filter(|_| limits.admits(one, start)).count(), 10);
        assert!(limits.admits(other, start));
        let later = start + Duration::from_millis(500);
        assert_eq!((0..50).filter(|_| limits.admits(one, later)).count(), 5);
    }

    #[test]
    fn the_networks_remembered_are_bounded_and_room_comes_with_time() {
        let (mut limits, start) = (Limits::default(), Instant::now());
        let network = |n: usize| {
            let bytes = u32::try_from(n).unwrap().to_be_bytes();
            NetworkPrefix::V4([bytes[1], bytes[2], bytes[3]])
        };
        assert!((0..NETWORKS_MAX).all(|n| limits.admits(network(n), start)));
        assert!(!limits.admits(network(NETWORKS_MAX), start));
        assert!(limits.admits(network(0), start), "who is known goes on");
        assert!(limits.admits(network(NETWORKS_MAX), start + Duration::from_secs(1)));
    }

    async fn get(address: SocketAddr, query: &str) -> (u16, String) {
        get_from([127, 0, 0, 1], address, query).await
    }

    async fn get_from(source: [u8; 4], address: SocketAddr, query: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request =
            format!("GET {query} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    /// Stands still: whatever time the requests take, they come in the same second.
    fn stopped_clock() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    async fn serving(trust: &[&str]) -> (SocketAddr, CancellationToken) {
        let fib = overway_relay_core::Fib::default();
        let dispatcher = super::super::nearest::tests::dispatcher(fib, super::super::Drain::No);
        let trust: Vec<IpNet> = trust.iter().map(|network| network.parse().unwrap()).collect();
        let trust = watch::channel(trust).1;
        let (any, stop) = (SocketAddr::from(([127, 0, 0, 1], 0)), CancellationToken::new());
        let serving = serve_by(stopped_clock, any, trust, Arc::new(dispatcher), stop.clone());
        let (address, serving) = serving.await.unwrap();
        tokio::spawn(serving);
        (address, stop)
    }

    #[tokio::test]
    async fn strangers_are_answered_for_their_own_address_alone_and_not_too_often() {
        let (address, stop) = serving(&[]).await;
        let (code, answer) = get(address, "/v1/access?limit=2&tenant=unknown").await;
        assert_eq!(code, 200, "{answer}");
        assert!(answer.contains("\"client\":\"127.0.0.1\"") && answer.contains("rome"), "{answer}");
        let (code, answer) = get(address, "/v1/access?client=192.0.2.1").await;
        assert_eq!(code, 403, "{answer}");
        assert!(answer.contains("http_trust"), "{answer}");
        assert_eq!(get(address, "/v1/access?near=me").await.0, 400);
        assert_eq!(get(address, "/metrics").await.0, 404);
        // The three above that asked for relays were counted.
        for expected in [200, 200, 200, 200, 200, 200, 200, 429, 429] {
            assert_eq!(get(address, "/v1/access").await.0, expected);
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn whoever_connects_and_says_nothing_keeps_others_from_nothing() {
        let (address, stop) = serving(&[]).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_AT_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // One beyond is closed at once; those before are accepted by then.
        let mut beyond = TcpStream::connect(address).await.unwrap();
        let mut read = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut beyond, &mut read).await;
        assert!(read.is_err() || read.unwrap() == 0);
        for stream in &silent {
            let error = stream.try_read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }

        let (code, answer) = get_from([127, 0, 0, 2], address, "/v1/access").await;
        assert_eq!(code, 200, "{answer}");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_back_end_that_is_trusted_asks_for_its_clients() {
        let (address, stop) = serving(&["127.0.0.0/8"]).await;
        for _ in 0..30 {
            let (code, answer) = get(address, "/v1/access?client=192.0.2.1").await;
            assert_eq!(code, 200, "{answer}");
            assert!(answer.contains("192.0.2.1"), "{answer}");
        }
        stop.cancel();
    }
}
