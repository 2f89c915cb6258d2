//! The least that forwarding can cost: a UDP socket that sends on what it gets, and the ends of its load.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context;
use bytes::BytesMut;
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;

use crate::common::socket;

use super::subject;
use super::traffic::{Source, Traffic};

/// Bytes that a receive may bring at once.
const RECEIVE_BYTES: usize = 1 << 16;

/// Forwards whole batches by the kernel's segmentation and coalescing, as quinn's sockets do.
pub(super) fn forward_batches(to: SocketAddr) -> anyhow::Result<()> {
    let socket = socket()?;
    let state = UdpSocketState::new((&socket).into())?;
    socket.set_nonblocking(false)?;
    subject::say(&socket.local_addr()?.to_string())?;
    let mut batch = Batch::new();
    loop {
        let count = batch.receive(&state, &socket)?;
        for (meta, bytes) in batch.metas.iter().zip(&batch.buffers).take(count) {
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: &bytes[..meta.len],
                segment_size: Some(meta.stride).filter(|&stride| stride < meta.len),
                src_ip: None,
            };
            state.send((&socket).into(), &transmit)?;
        }
    }
}

/// Forwards one datagram a system call.
pub(super) fn forward_each(to: SocketAddr) -> anyhow::Result<()> {
    let socket = socket()?;
    subject::say(&socket.local_addr()?.to_string())?;
    let mut bytes = vec![0; RECEIVE_BYTES];
    loop {
        let length = socket.recv(&mut bytes)?;
        socket.send_to(&bytes[..length], to)?;
    }
}

/// Buffers of one call that receives.
struct Batch {
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Batch {
    fn new() -> Self {
        let buffers = (0..BATCH_SIZE).map(|_| vec![0; RECEIVE_BYTES]).collect();
        Self { buffers, metas: [RecvMeta::default(); BATCH_SIZE] }
    }

    fn receive(&mut self, state: &UdpSocketState, socket: &UdpSocket) -> io::Result<usize> {
        let mut slices = self.buffers.iter_mut().map(|bytes| IoSliceMut::new(bytes));
        let mut slices: [_; BATCH_SIZE] =
            std::array::from_fn(|_| slices.next().expect("there are as many buffers"));
        state.recv(socket.into(), &mut slices, &mut self.metas)
    }
}

/// Both ends of a load of plain UDP.
pub(super) struct Ends {
    source: Rc<UdpSocket>,
    sink: SocketAddr,
    offload: bool,
}

impl Ends {
    /// Binds both and starts to count what arrives.
    pub(super) fn start(traffic: &Rc<Traffic>, offload: bool) -> anyhow::Result<Self> {
        Self::between((socket()?, socket()?), traffic, offload)
    }

    /// The same on these sockets, source and sink.
    pub(super) fn between(
        (source, sink): (UdpSocket, UdpSocket),
        traffic: &Rc<Traffic>,
        offload: bool,
    ) -> anyhow::Result<Self> {
        let address = sink.local_addr()?;
        let state = UdpSocketState::new((&sink).into())?;
        let sink = tokio::net::UdpSocket::from_std(sink)?;
        tokio::task::spawn_local(count(sink, state, Rc::clone(traffic)));
        Ok(Self { source: Rc::new(source), sink: address, offload })
    }

    /// Where frames are counted.
    pub(super) fn sink(&self) -> SocketAddr {
        self.sink
    }

    /// What sends datagrams of so many bytes to an address.
    pub(super) fn source(&self, to: SocketAddr, bytes: usize) -> anyhow::Result<Box<dyn Source>> {
        let state = UdpSocketState::new((&*self.source).into()).context("no UDP options")?;
        let segments = if self.offload { state.max_gso_segments() } else { 1 };
        // quinn's own batches, so that what comes to the forwarder is like.
        let segments = segments.min(10);
        let socket = Rc::clone(&self.source);
        Ok(Box::new(Datagrams { socket, state, to, bytes, segments, batch: BytesMut::new() }))
    }
}

async fn count(socket: tokio::net::UdpSocket, state: UdpSocketState, traffic: Rc<Traffic>) {
    let mut batch = Batch::new();
    loop {
        // An error is told by the next receive as well, and nothing arriving is the figure.
        if socket.readable().await.is_err() {
            return;
        }
        let mut receive = || {
            let mut slices = batch.buffers.iter_mut().map(|bytes| IoSliceMut::new(bytes));
            let mut slices: [_; BATCH_SIZE] =
                std::array::from_fn(|_| slices.next().expect("there are as many buffers"));
            state.recv((&socket).into(), &mut slices, &mut batch.metas)
        };
        let Ok(count) = socket.try_io(Interest::READABLE, &mut receive) else { continue };
        let now = Instant::now();
        for (meta, bytes) in batch.metas.iter().zip(&batch.buffers).take(count) {
            let datagrams = bytes[..meta.len].chunks(meta.stride.max(1));
            datagrams.for_each(|datagram| traffic.arrive(datagram, now));
        }
        traffic.settle();
        tokio::task::yield_now().await;
    }
}

struct Datagrams {
    socket: Rc<UdpSocket>,
    state: UdpSocketState,
    to: SocketAddr,
    bytes: usize,
    segments: usize,
    batch: BytesMut,
}

impl Source for Datagrams {
    fn emit(&mut self, traffic: &Traffic, count: u64) {
        let now = Instant::now();
        for at in 1..=count {
            let start = self.batch.len();
            self.batch.resize(start + self.bytes, 0);
            traffic.stamp(&mut self.batch[start..], now);
            if at == count || self.batch.len() >= self.segments * self.bytes {
                let transmit = Transmit {
                    destination: self.to,
                    ecn: None,
                    contents: &self.batch,
                    segment_size: Some(self.bytes).filter(|&bytes| bytes < self.batch.len()),
                    src_ip: None,
                };
                // What the system does not take is lost, and counted so.
                let _ = self.state.send((&*self.socket).into(), &transmit);
                self.batch.clear();
            }
        }
    }
}
