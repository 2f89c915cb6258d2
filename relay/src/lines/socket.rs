//! A UDP socket that counts what it sends.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Headers of IP and UDP, which a provider counts too.
const HEADERS_V4: u64 = 20 + 8;
const HEADERS_V6: u64 = 40 + 8;

/// Adds the bytes of every packet that the system took to a counter.
pub(super) struct MeteredSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    sent: Arc<AtomicU64>,
}

impl MeteredSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, sent: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { inner, sent })
    }
}

/// Bytes on the line of a transmit, which may be several packets.
fn line_bytes(transmit: &Transmit<'_>) -> u64 {
    let bytes = transmit.contents.len();
    let packets = bytes.div_ceil(transmit.segment_size.unwrap_or(bytes).max(1));
    let headers = if transmit.destination.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    bytes as u64 + packets as u64 * headers
}

impl AsyncUdpSocket for MeteredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.sent.fetch_add(line_bytes(transmit), Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, metas)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for MeteredSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_a_batch_has_its_headers_counted() {
        let transmit = |destination: &str, bytes: usize, segment_size| {
            let contents = vec![0; bytes];
            let destination = destination.parse().unwrap();
            line_bytes(&Transmit {
                destination,
                ecn: None,
                contents: &contents,
                segment_size,
                src_ip: None,
            })
        };

        assert_eq!(transmit("127.0.0.1:1", 1_000, None), 1_028);
        assert_eq!(transmit("[::1]:1", 1_000, None), 1_048);
        assert_eq!(transmit("127.0.0.1:1", 2_500, Some(1_000)), 2_500 + 3 * 28);
    }
}
