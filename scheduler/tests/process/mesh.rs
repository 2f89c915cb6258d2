//! A scheduler to test against, and a relay's end of a control connection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overway_config::Document;
use overway_pki::{ALPN_CONTROL, Credentials, JoinToken, client_config};
use overway_scheduler::{ADMIN_ADDRESS_FILE, CONTROL_ADDRESS_FILE, Config, init, join};
use overway_telemetry::reload::Reloading;
use overway_wire::control::{Hello, LinkReport, Report, State, ToRelay, ToScheduler, Window};
use prost::Message;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes: only a hang reaches it.
const HANG: Duration = Duration::from_secs(30);

/// A running scheduler with a directory of its own.
pub(crate) struct Mesh {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) admin: String,
    pub(crate) control: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Mesh {
    /// Makes a mesh and starts its scheduler.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        init(&dir.path().join("scheduler"), "demo").unwrap();
        Self::start_in(dir).await
    }

    /// Starts a scheduler on the mesh that is in `dir`.
    pub(crate) async fn start_in(dir: tempfile::TempDir) -> Self {
        Self::start_with(dir, "").await
    }

    /// The same, with more lines under `[admin]`.
    pub(crate) async fn start_with(dir: tempfile::TempDir, admin: &str) -> Self {
        let state_dir = dir.path().join("scheduler");
        let text = format!(
            "[scheduler]\nstate_dir = {state_dir:?}\nlisten = \"127.0.0.1:0\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n"
        );
        let config = Config::from_document(&Document::new("scheduler.toml", text)).unwrap();
        let shutdown = CancellationToken::new();
        let mut running =
            tokio::spawn(overway_scheduler::run(config, Reloading::off(), shutdown.clone()));
        let addresses = async {
            let control = address(&state_dir.join(CONTROL_ADDRESS_FILE)).await;
            (control, address(&state_dir.join(ADMIN_ADDRESS_FILE)).await)
        };
        let (control, admin) = tokio::select! {
            ended = &mut running => panic!("the scheduler ended: {ended:?}"),
            addresses = addresses => addresses,
        };
        Self { dir, admin: format!("http://{admin}"), control, shutdown, running }
    }

    /// Stops the scheduler and gives its directory back.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        within(self.running).await.unwrap().unwrap();
        self.dir
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.admin);
        request(move |agent| agent.get(&url).call()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &'static str) -> (u16, String) {
        let url = format!("{}{path}", self.admin);
        let json = "application/json";
        request(move |agent| agent.post(&url).header("content-type", json).send(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: serde_json::Value) -> (u16, String) {
        let (url, body) = (format!("{}{path}", self.admin), body.to_string());
        let json = "application/json";
        request(move |agent| agent.put(&url).header("content-type", json).send(body)).await
    }

    /// Posts, and must succeed.
    pub(crate) async fn send(&self, path: &str, body: serde_json::Value) {
        let (code, body) = self.try_send(path, body).await;
        assert_eq!(code, 200, "{body}");
    }

    pub(crate) async fn try_send(&self, path: &str, body: serde_json::Value) -> (u16, String) {
        let (url, body) = (format!("{}{path}", self.admin), body.to_string());
        let json = "application/json";
        request(move |agent| agent.post(&url).header("content-type", json).send(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.admin);
        request(move |agent| agent.delete(&url).call()).await
    }

    /// Asks with these headers; an empty object goes with `PUT`.
    pub(crate) async fn ask(
        &self,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> (u16, String) {
        let (url, headers) = (format!("{}{path}", self.admin), headers.to_vec());
        request(move |agent| {
            let asked = ureq::http::Request::builder().method(method).uri(url);
            let asked =
                headers.into_iter().fold(asked, |asked, (name, value)| asked.header(name, value));
            match method {
                "PUT" => {
                    let asked = asked.header("content-type", "application/json");
                    agent.run(asked.body("{}").unwrap())
                }
                _ => agent.run(asked.body(()).unwrap()),
            }
        })
        .await
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        let (code, body) = self.get("/v1/status").await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Invites a node and returns its token.
    pub(crate) async fn invite(&self, name: &str) -> JoinToken {
        let body: &'static str = format!(r#"{{"name":"{name}"}}"#).leak();
        let (code, body) = self.post("/v1/nodes", body).await;
        assert_eq!(code, 201, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["token"].as_str().unwrap().parse().unwrap()
    }

    /// Joins a node and returns where its credentials are.
    pub(crate) async fn join(&self, name: &str) -> PathBuf {
        let token = self.invite(name).await;
        let directory = self.dir.path().join(name);
        join::redeem(&token, &directory).await.unwrap();
        directory
    }

    /// Dials the control endpoint with the credentials in `directory`.
    pub(crate) async fn dial(&self, directory: &Path) -> Result<Link, quinn::ConnectionError> {
        self.dial_at(self.control, directory).await
    }

    /// Dials an address with other protocols to choose from; the connection, and the port that it comes from.
    pub(crate) async fn dial_for(
        &self,
        protocols: &[&[u8]],
        at: SocketAddr,
        directory: &Path,
    ) -> (Connection, u16) {
        let credentials = Arc::new(Credentials::load(directory).unwrap());
        let tls = QuicClientConfig::try_from(client_config(&credentials, protocols)).unwrap();
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let config = ClientConfig::new(Arc::new(tls));
        let name = credentials.any_scheduler_name();
        (within(endpoint.connect_with(config, at, &name).unwrap()).await.unwrap(), port)
    }

    /// Dials it at another address that leads there.
    pub(crate) async fn dial_at(
        &self,
        control: SocketAddr,
        directory: &Path,
    ) -> Result<Link, quinn::ConnectionError> {
        let credentials = Arc::new(Credentials::load(directory).unwrap());
        let tls = QuicClientConfig::try_from(client_config(&credentials, &[ALPN_CONTROL])).unwrap();
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let config = ClientConfig::new(Arc::new(tls));
        let name = credentials.any_scheduler_name();
        let connection = within(endpoint.connect_with(config, control, &name).unwrap()).await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(Link { connection, send, recv, credentials, _endpoint: endpoint })
    }
}

/// A relay's end of a control connection.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) credentials: Arc<Credentials>,
    send: SendStream,
    recv: RecvStream,
    _endpoint: Endpoint,
}

impl Link {
    pub(crate) async fn say(&mut self, message: impl Into<ToScheduler>) {
        let bytes = message.into().encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap();
        self.send.write_all(&length.to_be_bytes()).await.unwrap();
        self.send.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> ToRelay {
        let mut length = [0; 4];
        within(self.recv.read_exact(&mut length)).await.unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        within(self.recv.read_exact(&mut bytes)).await.unwrap();
        ToRelay::decode(&bytes[..]).unwrap()
    }

    pub(crate) async fn closed(&self) -> quinn::ConnectionError {
        within(self.connection.closed()).await
    }
}

/// Relays that say hello and go on reporting, without any data plane.
pub(crate) struct Fleet {
    relays: Vec<JoinHandle<()>>,
}

/// A relay of a fleet, and its one-way delays to those before it, the same both ways.
pub(crate) struct Fake {
    pub(crate) name: &'static str,
    pub(crate) region: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) delays_us: &'static [u32],
}

impl Fleet {
    /// Has these join and report; their ids count from 1.
    pub(crate) async fn start(mesh: &Mesh, fakes: &[Fake]) -> Self {
        let mut relays = Vec::new();
        for (at, fake) in fakes.iter().enumerate() {
            let directory = mesh.join(fake.name).await;
            let mut link = mesh.dial(&directory).await.unwrap();
            let addresses = vec![format!("127.0.0.1:{}", 4_401 + at)];
            let (region, provider) = (fake.region.to_owned(), fake.provider.to_owned());
            link.say(Hello { addresses, region, provider, ..hello(fake.name) }).await;
            let delay = |other: usize| match other.cmp(&at) {
                std::cmp::Ordering::Less => fake.delays_us[other],
                std::cmp::Ordering::Greater => fakes[other].delays_us[at],
                std::cmp::Ordering::Equal => 0,
            };
            let others = (0..fakes.len()).filter(|&other| other != at);
            let reports = others.map(|other| link_report(other, delay(other))).collect();
            relays.push(tokio::spawn(link.keep_reporting(reports)));
        }
        Self { relays }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.relays.iter().for_each(JoinHandle::abort);
    }
}

fn link_report(neighbour: usize, delay_us: u32) -> LinkReport {
    let window = |samples| {
        let one_way_diff_us = i64::from(delay_us);
        Some(Window { one_way_diff_us, rtt_us: 2 * delay_us, samples, ..Window::default() })
    };
    LinkReport {
        neighbour: u32::try_from(neighbour).unwrap() + 1,
        inbound: State::Up.into(),
        outbound: State::Up.into(),
        fast: window(30),
        slow: window(900),
        ..LinkReport::default()
    }
}

impl Link {
    /// Says this again and again, and takes no notice of what it hears.
    async fn keep_reporting(mut self, links: Vec<LinkReport>) {
        let mut recv = self.recv;
        let deaf =
            tokio::spawn(async move { while recv.read_chunk(1 << 16, true).await.is_ok() {} });
        for sequence in 1.. {
            let report = Report { sequence, full: true, links: links.clone(), ..Report::default() };
            let bytes = ToScheduler::from(report).encode_to_vec();
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            let sent = self.send.write_all(&[&length[..], &bytes].concat()).await;
            if sent.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        deaf.abort();
    }
}

/// A UDP wire between one client and whatever it is plugged into.
pub(crate) struct Wire {
    pub(crate) front: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
}

impl Wire {
    pub(crate) async fn new() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let front = UdpSocket::bind(loopback).await.unwrap();
        let back = UdpSocket::bind(loopback).await.unwrap();
        let (target, plugged) = watch::channel(None);
        let wire = Self { front: front.local_addr().unwrap(), target };
        tokio::spawn(async move {
            let (mut there, mut here) = ([0; 2_000], [0; 2_000]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut there) => {
                        client = Some(from);
                        let target = *plugged.borrow();
                        if let Some(target) = target {
                            back.send_to(&there[..length], target).await.unwrap();
                        }
                    }
                    Ok((length, from)) = back.recv_from(&mut here) => {
                        let is_plugged = *plugged.borrow() == Some(from);
                        if let (true, Some(client)) = (is_plugged, client) {
                            front.send_to(&here[..length], client).await.unwrap();
                        }
                    }
                }
            }
        });
        wire
    }

    pub(crate) fn plug(&self, target: Option<SocketAddr>) {
        self.target.send_replace(target);
    }
}

pub(crate) fn hello(name: &str) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        boot: 7,
        name: name.to_owned(),
        addresses: vec!["127.0.0.1:4401".into()],
        ..Hello::default()
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, future).await.expect("hangs")
}

/// Asks again and again until `holds`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    within(async {
        loop {
            match ask().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

async fn address(path: &Path) -> SocketAddr {
    eventually(|| async { std::fs::read_to_string(path).ok()?.trim().parse().ok() }).await
}

async fn request(
    call: impl FnOnce(ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>
    + Send
    + 'static,
) -> (u16, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let blocking = tokio::task::spawn_blocking(move || {
        let mut response = call(config.into()).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    });
    within(blocking).await.unwrap()
}
