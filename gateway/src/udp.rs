//! The listening side of UDP: each client, by its source address, has one flow.
//!
//! ```text
//! socket --> reader --> queue of the client (64) --> its task --> flow --> mesh
//!    ^-------------------------------------------------'  ^---------'
//! ```
//!
//! One task reads the socket and finds the client; each client has a task that owns its flow and answers
//! by the same socket. While the flow is being opened the queue fills, then its newest datagrams are
//! dropped. A flow that ends, or cannot be opened, leaves the client's place as it is: the client's next
//! datagram opens another. The place is given up when nothing was sent either way for the idle time-out.
//!
//! On a host with several addresses, listen on one of them and not on all, for otherwise the kernel
//! chooses which address answers come from.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overway_session::Flow;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;

use crate::DATAGRAM_BYTES_MAX;
use crate::config::ForwardConfig;
use crate::flow::{Idle, send};
use crate::open::{self, Shared, open_first};
use crate::stats::{DatagramDrop, Present};

/// Datagrams of one client that wait for its flow. A flow opens in two round trips at most; 64 are more
/// than a second of voice.
const QUEUE_DATAGRAMS: usize = 64;
/// Pause after a flow could not be opened; a client that sends on does not make us try each time.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// A bound UDP forward.
pub(crate) struct UdpForward {
    way: Arc<Way>,
    clients_max: usize,
}

/// What a forward's clients need of it.
struct Way {
    socket: UdpSocket,
    to: open::Way,
    idle_timeout: Duration,
    shared: Arc<Shared>,
}

/// The clients of a forward. Belongs to the task that reads the socket.
struct Clients {
    queues: HashMap<SocketAddr, mpsc::Sender<Bytes>>,
    /// Each ends with the address of its client.
    tasks: JoinSet<SocketAddr>,
}

/// One client. Belongs to the client's task.
struct Client {
    way: Arc<Way>,
    address: SocketAddr,
    queue: mpsc::Receiver<Bytes>,
    idle: Idle,
}

impl UdpForward {
    pub(crate) fn new(socket: UdpSocket, config: ForwardConfig, shared: Arc<Shared>) -> Self {
        let ForwardConfig { service, policy, redundancy, idle_timeout, clients_max, .. } = config;
        let to = open::Way { service, policy, redundancy };
        Self { way: Arc::new(Way { socket, to, idle_timeout, shared }), clients_max }
    }

    /// Carries datagrams until the gateway ends. Clients' tasks end with it.
    pub(crate) async fn run(self) {
        let Self { way, clients_max } = self;
        let mut clients = Clients { queues: HashMap::new(), tasks: JoinSet::new() };
        // One byte more, so that a datagram which is too long is seen to be.
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        loop {
            tokio::select! {
                received = way.socket.recv_from(&mut buffer) => match received {
                    Ok((count, client)) => {
                        clients.handle_datagram(&way, clients_max, client, &buffer[..count]);
                    }
                    // An earlier answer did not reach its client; the next datagram is not concerned.
                    Err(error) => tracing::debug!(%error, "a UDP socket was told of an error"),
                },
                Some(ended) = clients.tasks.join_next() => clients.remove(ended.ok()),
                () = way.shared.ending.cancelled() => return,
            }
        }
    }
}

impl Clients {
    fn handle_datagram(
        &mut self,
        way: &Arc<Way>,
        clients_max: usize,
        client: SocketAddr,
        datagram: &[u8],
    ) {
        let counters = &way.shared.counters;
        if datagram.len() > DATAGRAM_BYTES_MAX {
            counters.discard(DatagramDrop::Oversize, 1);
            return;
        }
        let mut datagram = Bytes::copy_from_slice(datagram);
        if let Some(queue) = self.queues.get(&client) {
            match queue.try_send(datagram) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    counters.discard(DatagramDrop::QueueFull, 1);
                    return;
                }
                // Its task gave up the place a moment ago.
                Err(TrySendError::Closed(back)) => datagram = back,
            }
        } else if self.queues.len() >= clients_max || way.shared.draining.is_cancelled() {
            counters.discard(DatagramDrop::NoPlace, 1);
            return;
        }
        self.add(way, client, datagram);
    }

    fn add(&mut self, way: &Arc<Way>, address: SocketAddr, first: Bytes) {
        let (sender, queue) = mpsc::channel(QUEUE_DATAGRAMS);
        sender.try_send(first).expect("a new queue has room");
        self.queues.insert(address, sender);
        let idle = Idle::new(way.idle_timeout);
        let client = Client { way: Arc::clone(way), address, queue, idle };
        self.tasks.spawn(client.run());
    }

    /// Forgets a client whose task has ended, unless it has a new one already.
    fn remove(&mut self, ended: Option<SocketAddr>) {
        match ended {
            Some(client) => {
                if self.queues.get(&client).is_some_and(mpsc::Sender::is_closed) {
                    self.queues.remove(&client);
                }
            }
            // A task that panicked does not say whose it was.
            None => self.queues.retain(|_, queue| !queue.is_closed()),
        }
    }
}

impl Client {
    /// Opens flows and carries datagrams until the client is idle.
    async fn run(mut self) -> SocketAddr {
        let way = Arc::clone(&self.way);
        let _active = Present::new(&way.shared.counters.flows_active);
        while let Some(first) = self.next_datagram().await {
            match self.open().await {
                Some(flow) => {
                    self.send(&flow, &first);
                    if self.carry(&flow).await.is_none() {
                        break;
                    }
                }
                None => self.pause().await,
            }
        }
        way.shared.counters.flows_expired.increment();
        // What came in this very moment; the next datagram gets a new task.
        self.queue.close();
        self.drop_queued();
        self.address
    }

    /// The next datagram while there is no flow; `None` once the client is idle.
    async fn next_datagram(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            datagram = self.queue.recv() => {
                self.idle.touch();
                datagram
            }
            () = self.idle.expired() => None,
        }
    }

    async fn open(&self) -> Option<Flow> {
        let Way { to, shared, .. } = &*self.way;
        let opened = open_first(shared, to, |far, policy| {
            shared.endpoint.open_flow(far, policy, to.redundancy, &to.service)
        });
        let opened = opened.await;
        match opened {
            Ok(flow) => {
                shared.counters.flows_opened.increment();
                Some(flow)
            }
            Err(reason) => {
                shared.counters.refuse(reason);
                tracing::debug!(service = to.service, client = %self.address, %reason, "refused");
                None
            }
        }
    }

    /// Carries both ways. `Some` when the flow has ended, `None` when the client is idle.
    async fn carry(&mut self, flow: &Flow) -> Option<()> {
        loop {
            tokio::select! {
                datagram = self.queue.recv() => {
                    self.idle.touch();
                    if !self.send(flow, &datagram?) {
                        return Some(());
                    }
                }
                answer = flow.recv() => match answer {
                    Some(answer) => {
                        self.idle.touch();
                        self.answer(&answer).await;
                    }
                    None => return Some(()),
                },
                () = self.idle.expired() => return None,
            }
        }
    }

    /// Whether the flow lives.
    fn send(&self, flow: &Flow, datagram: &[u8]) -> bool {
        send(flow, datagram, &self.way.shared.counters)
    }

    async fn answer(&self, answer: &[u8]) {
        let counters = &self.way.shared.counters;
        match self.way.socket.send_to(answer, self.address).await {
            Ok(count) => counters.sent_from_mesh(count),
            Err(error) => {
                tracing::trace!(client = %self.address, %error, "an answer was not sent");
                counters.discard(DatagramDrop::Socket, 1);
            }
        }
    }

    /// Drops what waited in vain, and waits before the next try.
    async fn pause(&mut self) {
        self.way.shared.counters.discard(DatagramDrop::NoFlow, 1);
        self.drop_queued();
        tokio::time::sleep(REOPEN_PAUSE).await;
    }

    fn drop_queued(&mut self) {
        while self.queue.try_recv().is_ok() {
            self.way.shared.counters.discard(DatagramDrop::NoFlow, 1);
        }
    }
}
