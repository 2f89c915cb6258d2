//! The clients of a UDP socket: each has a task that owns its flow, and a queue before it.
//!
//! While the flow is being opened the queue fills, then its newest datagrams are dropped. A flow that ends,
//! or cannot be opened, leaves the client's place as it is: the client's next datagram opens another. The
//! place is given up when nothing was sent either way for the idle time-out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use overway_session::{ClientAddresses, Flow, Terms, Wanted};
use overway_wire::Class;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;

use crate::DATAGRAM_BYTES_MAX;
use crate::config::Limits;
use crate::flow::send;
use crate::idle::Idle;
use crate::open::{self, Shared, open_first};
use crate::rate::Rate;
use crate::stats::{DatagramDrop, Present};

/// Datagrams of one client that wait for its flow. A flow opens in two round trips at most; 64 are more
/// than a second of voice.
const QUEUE_DATAGRAMS: usize = 64;
/// Pause after a flow could not be opened; a client that sends on does not make us try each time.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// The clients of one socket, by what tells them apart. Belongs to the task that reads the socket; the
/// clients' tasks end with it.
pub(crate) struct Clients<K> {
    shared: Arc<Shared>,
    clients_max: usize,
    rate: Rate,
    queues: HashMap<K, mpsc::Sender<Bytes>>,
    /// Each ends with the key of its client.
    tasks: JoinSet<K>,
}

/// A client, and how it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) way: Arc<Way>,
    /// Where answers go.
    pub(crate) address: SocketAddr,
    /// What the far end is told of it.
    pub(crate) addresses: Option<ClientAddresses>,
    /// Where an exit is to lead its datagrams.
    pub(crate) target: Option<String>,
    /// Goes before each answer.
    pub(crate) prefix: Bytes,
}

/// Where clients' datagrams go and come from.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) to: open::Way,
    pub(crate) idle_timeout: Duration,
}

/// What a client's task owns.
struct Run {
    client: Client,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Bytes>,
    idle: Idle,
}

impl<K: Clone + Eq + Hash + Send + 'static> Clients<K> {
    /// None yet, and no room for any until [`Self::limit`] has been called.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (queues, tasks) = (HashMap::new(), JoinSet::new());
        Self { shared, clients_max: 0, rate: Rate::new(None), queues, tasks }
    }

    /// Lets in so many from now on; who has a place keeps it.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.clients_max = limits.clients_max;
        self.rate = Rate::new(limits.clients_per_second);
    }

    /// Ends all clients, and waits for their tasks.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
    }

    /// Gives a datagram to its client, which is made if there is none. What is not carried is counted.
    pub(crate) fn handle_datagram(
        &mut self,
        key: K,
        datagram: &[u8],
        client: impl FnOnce() -> Result<Client, DatagramDrop>,
    ) {
        if let Err(reason) = self.give(key, datagram, client) {
            self.shared.counters.discard(reason, 1);
        }
    }

    fn give(
        &mut self,
        key: K,
        datagram: &[u8],
        client: impl FnOnce() -> Result<Client, DatagramDrop>,
    ) -> Result<(), DatagramDrop> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramDrop::Oversize);
        }
        let mut datagram = Bytes::copy_from_slice(datagram);
        if let Some(queue) = self.queues.get(&key) {
            match queue.try_send(datagram) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(DatagramDrop::QueueFull),
                // Its task gave up the place a moment ago.
                Err(TrySendError::Closed(back)) => datagram = back,
            }
        } else if self.queues.len() >= self.clients_max || self.shared.draining.is_cancelled() {
            return Err(DatagramDrop::NoPlace);
        } else if !self.rate.admits(Instant::now()) {
            return Err(DatagramDrop::TooFast);
        }
        self.add(key, client()?, datagram);
        Ok(())
    }

    /// Whether there is such a client.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.queues.get(key).is_some_and(|queue| !queue.is_closed())
    }

    fn add(&mut self, key: K, client: Client, first: Bytes) {
        let (sender, queue) = mpsc::channel(QUEUE_DATAGRAMS);
        sender.try_send(first).expect("a new queue has room");
        self.queues.insert(key.clone(), sender);
        let idle = Idle::new(client.way.idle_timeout);
        let run = Run { client, shared: Arc::clone(&self.shared), queue, idle };
        self.tasks.spawn(async move {
            run.run().await;
            key
        });
    }

    /// Forgets the next client that ends; never ready while there is none. May be dropped and called again.
    pub(crate) async fn forget_ended(&mut self) {
        match self.tasks.join_next().await {
            // Unless it has a new task already.
            Some(Ok(key)) => {
                if self.queues.get(&key).is_some_and(mpsc::Sender::is_closed) {
                    self.queues.remove(&key);
                }
            }
            // A task that panicked does not say whose it was.
            Some(Err(_)) => self.queues.retain(|_, queue| !queue.is_closed()),
            None => std::future::pending().await,
        }
    }
}

impl Run {
    /// Opens flows and carries datagrams until the client is idle.
    async fn run(mut self) {
        let _active = Present::new(&self.shared.counters.flows_active);
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
        self.shared.counters.flows_expired.increment();
        // What came in this very moment; the next datagram gets a new task.
        self.queue.close();
        self.drop_queued();
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
        let (shared, to) = (&self.shared, &self.client.way.to);
        let Client { addresses, target, .. } = &self.client;
        let (client, target) = (*addresses, target.as_deref());
        let wanted = Wanted { client, target, ..Wanted::from(&to.service) };
        let terms = |policy| Terms::new(Class::Realtime, policy);
        let opened = open_first(shared, to, terms, |relay, terms| {
            shared.endpoint.open_flow(relay, terms.policy, to.redundancy, wanted)
        });
        let opened = opened.await;
        match opened {
            Ok(flow) => {
                shared.counters.flows_opened.increment();
                Some(flow)
            }
            Err(reason) => {
                shared.counters.refuse(reason);
                let client = self.client.address;
                tracing::debug!(service = to.service, %client, %reason, "refused");
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
                        self.answer(answer).await;
                    }
                    None => return Some(()),
                },
                () = self.idle.expired() => return None,
            }
        }
    }

    /// Whether the flow lives.
    fn send(&self, flow: &Flow, datagram: &[u8]) -> bool {
        send(flow, datagram, &self.shared.counters)
    }

    async fn answer(&self, answer: Bytes) {
        let Client { way, address, prefix, .. } = &self.client;
        let length = answer.len();
        let whole = if prefix.is_empty() {
            answer
        } else {
            let mut whole = BytesMut::with_capacity(prefix.len() + length);
            whole.put_slice(prefix);
            whole.put_slice(&answer);
            whole.freeze()
        };
        match way.socket.send_to(&whole, address).await {
            Ok(_) => self.shared.counters.sent_from_mesh(length),
            Err(error) => {
                tracing::trace!(client = %address, %error, "an answer was not sent");
                self.shared.counters.discard(DatagramDrop::Socket, 1);
            }
        }
    }

    /// Drops what waited in vain, and waits before the next try.
    async fn pause(&mut self) {
        self.shared.counters.discard(DatagramDrop::NoFlow, 1);
        self.drop_queued();
        tokio::time::sleep(REOPEN_PAUSE).await;
    }

    fn drop_queued(&mut self) {
        while self.queue.try_recv().is_ok() {
            self.shared.counters.discard(DatagramDrop::NoFlow, 1);
        }
    }
}
