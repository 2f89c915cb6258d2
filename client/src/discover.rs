//! Where else the edge could attach: asked, measured, remembered.
//!
//! ```text
//!   file --> known relays <-- answer -- ask: a relay (Nearest, before any attach), or GET /v1/access of a URL
//!                 |                       ^
//!                 +---- the first few ----+  each asking measures a round trip
//! ```
//!
//! One task. At its start it reads the last answer from a file, then asks at once: the first few relays of the list, all
//! together, and the URLs. What they answer is put into the list ([`crate::relays`]), and the first few of that are asked
//! too. From then on it asks again every five minutes, or when the edge has no attachment.
//!
//! Nothing of an answer is trusted: it leads an edge to no relay but those that show a certificate of the mesh.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use overway_dispatch::Nearest;
use overway_wire::RelayId;
use overway_wire::access::CloseCode;
use overway_wire::access::messages::{FromEdge, NEAREST_MAX, Nearest as Ask, ToEdge, to_edge};
use overway_wire::control::ACCESS_ADDRESSES_MAX;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::Shared;
use crate::attachment::codec;
use crate::relays::{Learned, Standing};
use crate::transport::{Connection, Transport};

mod url;

use url::{ANSWER_MAX, AskError, BYTES_MAX, Question};

/// Relays that are asked at once.
const RACED: usize = 4;
/// Between two rounds. Each asking costs a relay a handshake: of 10,000 edges, 33 a second.
const INTERVAL: Duration = Duration::from_secs(300);
/// The first pause after a round without an answer; it doubles, up to the interval.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// How an edge learns of relays beside those that it was given.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Where to ask beside the relays: `http://` and a relay's `access.http_listen`, or `http://` or `https://` and what
    /// stands before that or before a scheduler. `/v1/access` is added where no path is said.
    pub urls: Vec<String>,
    /// The certificates, in PEM, of the CAs whose word counts for `https://` URLs. None: those that the system trusts, as
    /// far as they are in a file that the environment (`SSL_CERT_FILE`) names, or in one of the usual places.
    pub ca_pem: Option<Vec<u8>>,
    /// The edge's tenant, so that only relays of its cell are answered.
    pub tenant: Option<String>,
    /// Where the last answer is kept, so that the edge finds its relays after a restart when those that it was given are
    /// gone. None: nowhere.
    pub file: Option<PathBuf>,
}

/// Asks until the edge stops.
pub(crate) async fn run<T: Transport>(shared: Arc<Shared<T>>, discovery: Discovery) {
    let mut kept = match &discovery.file {
        Some(file) => read(file).await,
        None => Vec::new(),
    };
    if !kept.is_empty() {
        tracing::debug!(relays = kept.len(), "access relays are known from before");
        learn(&shared, &kept);
    }
    let (mut pause, mut asked_again) = (PAUSE_MIN, false);
    loop {
        let answer = round(&shared, &discovery).await;
        let wait = match answer {
            Some(answer) => {
                let is_new = answer.iter().any(|new| kept.iter().all(|old| old.relay != new.relay));
                learn(&shared, &answer);
                keep(&discovery, &mut kept, answer).await;
                pause = PAUSE_MIN;
                // Who was just learnt of is measured at once, and then not before others.
                asked_again = is_new && !asked_again;
                if asked_again { Duration::ZERO } else { INTERVAL.mul_f64(jitter()) }
            }
            None => {
                let wait = pause.mul_f64(jitter());
                pause = (pause * 2).min(INTERVAL);
                wait
            }
        };
        if !wait_for(&shared, wait).await {
            return;
        }
    }
}

/// Waits, less if no attachment is left for a while; false: the edge stops.
async fn wait_for<T: Transport>(shared: &Shared<T>, wait: Duration) -> bool {
    let end = Instant::now() + wait;
    while Instant::now() < end {
        let step = end.saturating_duration_since(Instant::now()).min(PAUSE_MIN * 10);
        tokio::select! {
            () = tokio::time::sleep(step) => {}
            () = shared.stop.cancelled() => return false,
        }
        if shared.standing().places.iter().all(Option::is_none) {
            break;
        }
    }
    !shared.stop.is_cancelled()
}

/// From 0.8 to 1.2, so that edges that began together do not ask together.
fn jitter() -> f64 {
    0.8 + 0.4 * fastrand::f64()
}

fn learn<T: Transport>(shared: &Shared<T>, answer: &[Learned]) {
    shared.transport.learn_tcp(answer.iter().flat_map(tcp_pairs).collect());
    shared.relays().learn(answer, Instant::now());
    shared.changed.notify_waiters();
}

/// Each address of a relay with the TCP address that goes with it: of the same family if there is one.
fn tcp_pairs(learned: &Learned) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
    learned.addresses.iter().take(ACCESS_ADDRESSES_MAX).filter_map(|&address| {
        let tcp = || learned.tcp_addresses.iter();
        let same = tcp().find(|tcp| tcp.is_ipv4() == address.is_ipv4());
        same.or_else(|| tcp().next()).map(|&tcp| (address, tcp))
    })
}

/// Asks the first few relays and the URLs; the answer is the first relay's that gave one, or else a URL's.
async fn round<T: Transport>(shared: &Shared<T>, discovery: &Discovery) -> Option<Vec<Learned>> {
    let targets = shared.relays().to_measure(RACED);
    let asked = targets.into_iter().map(|remote| async move {
        let answered = tokio::time::timeout(ANSWER_MAX, ask(shared, discovery, remote)).await;
        let answered = answered.ok().flatten();
        let now = Instant::now();
        match &answered {
            Some((relay, rtt, _)) => shared.relays().measured(remote, *relay, *rtt, now),
            None => shared.relays().unmeasured(remote),
        }
        answered
    });
    let key = shared.key.public().id().to_string();
    let tenant = discovery.tenant.clone();
    let urls = discovery.urls.iter().map(|url| {
        let (url, key, tenant) = (url.clone(), key.clone(), tenant.clone());
        fetch(Question { url, key, tenant, ca_pem: discovery.ca_pem.clone() })
    });
    let (by_relays, by_urls) = tokio::join!(join_all(asked), join_all(urls));
    let by_relays = by_relays.into_iter().flatten().map(|(_, _, answer)| answer);
    let mut answers = by_relays.chain(by_urls.into_iter().flatten());
    answers.find(|answer| !answer.is_empty())
}

/// Asks one relay, without attaching; measures the round trip of the question.
async fn ask<T: Transport>(
    shared: &Shared<T>,
    discovery: &Discovery,
    remote: SocketAddr,
) -> Option<(RelayId, Duration, Vec<Learned>)> {
    let connection = shared.transport.dial(remote).await.ok()?;
    let _close = Close(connection.clone());
    let (reader, writer) = connection.open_control().await.ok()?;
    let (mut reader, mut writer) =
        (FramedRead::new(reader, codec()), FramedWrite::new(writer, codec()));
    let question = Ask {
        request: 1,
        limit: u32::try_from(NEAREST_MAX).unwrap_or(u32::MAX),
        key: shared.key.public().id().0.to_vec(),
        tenant: discovery.tenant.clone().unwrap_or_default(),
    };
    let began = Instant::now();
    writer.send(Bytes::from(FromEdge::from(question).encode_to_vec())).await.ok()?;
    loop {
        let bytes = reader.next().await?.ok()?;
        if let Some(to_edge::Body::AccessRelays(answer)) = ToEdge::decode(bytes).ok()?.body {
            let rtt = began.elapsed();
            let learned = answer.relays.iter().take(NEAREST_MAX).filter_map(|near| {
                let read = |texts: &[String]| -> Vec<SocketAddr> {
                    let texts = texts.iter().take(ACCESS_ADDRESSES_MAX);
                    texts.filter_map(|text| text.parse().ok()).collect()
                };
                let relay = u16::try_from(near.relay).ok().map(RelayId)?;
                Some(Learned {
                    relay,
                    addresses: read(&near.addresses),
                    tcp_addresses: read(&near.tcp_addresses),
                    region: near.region.clone(),
                    provider: near.provider.clone(),
                    rtt: (near.rtt_us > 0).then(|| Duration::from_micros(near.rtt_us.into())),
                    standing: Standing::of(&near.state),
                })
            });
            return Some((connection.relay(), rtt, learned.collect()));
        }
    }
}

/// Closes a connection on which only was asked.
struct Close<C: Connection>(C);

impl<C: Connection> Drop for Close<C> {
    fn drop(&mut self) {
        self.0.close(CloseCode::Unused);
    }
}

/// Asks a URL.
async fn fetch(question: Question) -> Option<Vec<Learned>> {
    let url = question.url.clone();
    match tokio::task::spawn_blocking(move || question.ask()).await.ok()? {
        Ok(answer) => Some(answer.relays.iter().take(NEAREST_MAX).map(learned).collect()),
        Err(error @ AskError::Unanswered(_)) => {
            tracing::debug!(url, %error, "no access relays from there");
            None
        }
        // It will not mend by itself.
        Err(error) => {
            tracing::warn!(url, %error, "no access relays from there");
            None
        }
    }
}

fn learned(near: &Nearest) -> Learned {
    Learned {
        relay: RelayId(near.relay),
        addresses: near.addresses.clone(),
        tcp_addresses: near.tcp_addresses.clone(),
        region: near.region.clone(),
        provider: near.provider.clone(),
        rtt: near.rtt_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok()),
        standing: Standing::of(&near.state),
    }
}

/// What is kept in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    relays: Vec<KeptRelay>,
}

#[derive(Serialize, Deserialize)]
struct KeptRelay {
    relay: u16,
    addresses: Vec<SocketAddr>,
    #[serde(default)]
    tcp_addresses: Vec<SocketAddr>,
    region: String,
    provider: String,
}

async fn read(file: &Path) -> Vec<Learned> {
    let bytes = match tokio::fs::read(file).await {
        Ok(bytes) if bytes.len() as u64 <= BYTES_MAX => bytes,
        // Not there, at the first start.
        Ok(_) | Err(_) => return Vec::new(),
    };
    let Ok(kept) = serde_json::from_slice::<Kept>(&bytes) else {
        tracing::warn!(file = %file.display(), "the access relays kept from before cannot be read");
        return Vec::new();
    };
    let learned = |kept: KeptRelay| Learned {
        relay: RelayId(kept.relay),
        addresses: kept.addresses,
        tcp_addresses: kept.tcp_addresses,
        region: kept.region,
        provider: kept.provider,
        rtt: None,
        standing: Standing::Open,
    };
    kept.relays.into_iter().take(NEAREST_MAX).map(learned).collect()
}

/// Keeps an answer, in memory and, if it names others than the last, in the file: whole, or not at all.
async fn keep(discovery: &Discovery, kept: &mut Vec<Learned>, answer: Vec<Learned>) {
    let named = |relays: &[Learned]| -> Vec<(RelayId, Vec<SocketAddr>, Vec<SocketAddr>)> {
        let named = |it: &Learned| (it.relay, it.addresses.clone(), it.tcp_addresses.clone());
        let mut named: Vec<_> = relays.iter().map(named).collect();
        named.sort();
        named
    };
    let is_news = named(kept) != named(&answer);
    *kept = answer;
    let Some(file) = discovery.file.as_ref().filter(|_| is_news) else { return };
    let relay = |it: &Learned| KeptRelay {
        relay: it.relay.0,
        addresses: it.addresses.clone(),
        tcp_addresses: it.tcp_addresses.clone(),
        region: it.region.clone(),
        provider: it.provider.clone(),
    };
    let bytes = serde_json::to_vec_pretty(&Kept { relays: kept.iter().map(relay).collect() });
    let bytes = bytes.expect("relays and addresses are JSON");
    let new = file.with_extension("new");
    let written = async {
        tokio::fs::write(&new, bytes).await?;
        tokio::fs::rename(&new, file).await
    };
    if let Err(error) = written.await {
        tracing::warn!(file = %file.display(), %error, "the access relays cannot be kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_with_the_tcp_address_of_its_family() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let addresses = vec![address("192.0.2.1:4443"), address("[2001:db8::1]:4443")];
        let learned = |tcp: &[&str]| Learned {
            relay: RelayId(3),
            addresses: addresses.clone(),
            tcp_addresses: tcp.iter().map(|&text| address(text)).collect(),
            region: String::new(),
            provider: String::new(),
            rtt: None,
            standing: Standing::Open,
        };
        let ports = |tcp: &[&str]| -> Vec<u16> {
            tcp_pairs(&learned(tcp)).map(|(_, tcp)| tcp.port()).collect()
        };

        assert_eq!(ports(&["[2001:db8::1]:6", "192.0.2.1:4"]), [4, 6]);
        assert_eq!(ports(&["192.0.2.1:4"]), [4, 4]);
        assert!(ports(&[]).is_empty());
    }

    #[tokio::test]
    async fn what_was_answered_is_read_again_and_a_broken_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.json");
        let discovery = Discovery { file: Some(file.clone()), ..Discovery::default() };
        let answer = vec![Learned {
            relay: RelayId(3),
            addresses: vec!["[2001:db8::1]:4434".parse().unwrap()],
            tcp_addresses: vec!["[2001:db8::1]:443".parse().unwrap()],
            region: "eu".into(),
            provider: "p".into(),
            rtt: Some(Duration::from_millis(5)),
            standing: Standing::Filling,
        }];
        assert_eq!(read(&file).await, []);
        keep(&discovery, &mut Vec::new(), answer.clone()).await;

        let again = read(&file).await;
        let expected = Learned { rtt: None, standing: Standing::Open, ..answer[0].clone() };
        assert_eq!(again, [expected]);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(read(&file).await, []);
    }
}
