//! A file's way through the mesh: an ordinary HTTP server as a service's target, and a client that checks
//! every byte.
//!
//! The server sends `GET /bytes/COUNT` as a stream of pseudo-random bytes that the seed determines, with
//! `Content-Length`; `?mbps=N` paces it. The client is the system's `curl` with one connection and no
//! retries, its output piped into SHA-256 as it comes; without a `curl`, a plain GET does the same.

mod client;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

pub use client::{Fetch, Fetched};

/// Bytes of the longest file: an hour at a gigabit per second.
const FILE_BYTES_MAX: u64 = 450_000_000_000;
/// Bytes handed to the connection at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks of a paced file are this long in time, so that it flows rather than bursts.
const PACE: Duration = Duration::from_millis(20);

/// The page for people who try `curl` on a forward.
const PAGE: &str = "\
Hello. This page came through the lab's mesh: from the relay whose forward you asked, over the relays of\n\
the best path, to the relay that offers this service.\n\
Try: curl -o /dev/null http://THIS-ADDRESS/bytes/100000000\n";

/// The bytes of all files of one seed: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), little-endian.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    state: u64,
}

impl Pattern {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for bytes in buffer.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = (word ^ (word >> 31)).to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }

    /// The SHA-256 of the first `count` bytes.
    pub(crate) fn digest(mut self, count: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut left = count;
        while left > 0 {
            let length = chunk(left, CHUNK_BYTES);
            self.fill(&mut buffer[..length]);
            hash.update(&buffer[..length]);
            left -= length as u64;
        }
        hash.finalize().into()
    }
}

/// Serves on a loopback port until the runtime ends.
pub(crate) async fn serve(seed: u64) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/", get(|| async { PAGE }))
        .route("/bytes/{count}", get(bytes))
        .with_state(Pattern::new(seed));
    tokio::spawn(async move {
        // It ends with the runtime; errors of single connections are handled within.
        let _ = axum::serve(listener, router).await;
    });
    Ok(address)
}

#[derive(serde::Deserialize)]
struct Pace {
    mbps: Option<f64>,
}

async fn bytes(
    State(pattern): State<Pattern>,
    Path(count): Path<u64>,
    Query(Pace { mbps }): Query<Pace>,
) -> Response {
    if count > FILE_BYTES_MAX || mbps.is_some_and(|mbps| !(0.1..=100_000.0).contains(&mbps)) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let ticks = mbps.map(|mbps| {
        let mut interval = tokio::time::interval(PACE);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        (interval, paced_chunk(mbps))
    });
    let body =
        stream::unfold((pattern, count, ticks), |(mut pattern, left, mut ticks)| async move {
            if left == 0 {
                return None;
            }
            let mut most = CHUNK_BYTES;
            if let Some((interval, paced)) = &mut ticks {
                interval.tick().await;
                most = *paced;
            }
            let length = chunk(left, most);
            let mut buffer = vec![0; length];
            pattern.fill(&mut buffer);
            let next = (pattern, left - length as u64, ticks);
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(buffer)), next))
        });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, count.to_string()),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// Bytes of one [`PACE`] at a rate, in whole words of the pattern.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rate was checked to lie within 0.1 and 100,000 Mbit/s"
)]
fn paced_chunk(mbps: f64) -> usize {
    ((mbps * 1e6 / 8.0 * PACE.as_secs_f64()) as usize).next_multiple_of(8)
}

/// What of `left` bytes goes into the next chunk. Chunks but the last are whole words.
fn chunk(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_however_it_is_cut_into_chunks() {
        let (mut whole, mut parts) = (vec![0; 1_000], vec![0; 1_000]);
        Pattern::new(7).fill(&mut whole);
        let mut pattern = Pattern::new(7);
        for part in parts.chunks_mut(8 * 13) {
            pattern.fill(part);
        }

        assert_eq!(whole, parts);
        let hash: [u8; 32] = Sha256::digest(&whole).into();
        assert_eq!(Pattern::new(7).digest(1_000), hash);
        assert_ne!(Pattern::new(8).digest(1_000), hash);
    }

    #[test]
    fn a_fetched_file_is_whole_and_its_hash_is_right() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let address = runtime.block_on(serve(7)).unwrap();

        for (client, count) in [(client::find_curl(), 3_000_001), (None, 70_000)] {
            let fetched = Fetch::with(client.as_deref(), address, 7, count, None).unwrap().join();

            assert!(fetched.is_whole(), "{fetched:?}");
            assert_eq!(fetched.bytes, count);
        }
    }

    #[test]
    fn a_file_of_another_seed_is_not_taken_for_the_right_one() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let address = runtime.block_on(serve(8)).unwrap();

        let fetched = Fetch::with(None, address, 7, 1_000, None).unwrap().join();

        assert!(!fetched.is_whole(), "{fetched:?}");
        assert_eq!(fetched.bytes, 1_000);
    }

    #[test]
    fn a_client_that_is_refused_says_so() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);

        for client in [client::find_curl(), None] {
            let fetched = Fetch::with(client.as_deref(), address, 7, 1_000, None).unwrap().join();

            assert!(!fetched.is_whole());
            assert!(fetched.problem.is_some(), "{fetched:?}");
        }
    }
}
