//! Reading QUIC datagrams in batches.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// A datagram that has arrived already.
pub(crate) fn read_now(connection: &quinn::Connection) -> Option<Bytes> {
    let next = pin!(connection.read_datagram());
    match next.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(datagram) => datagram.ok(),
        Poll::Pending => None,
    }
}
