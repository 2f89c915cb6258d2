//! The flows of an endpoint: by what a frame finds its own, and what ties each to its stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use overway_quality::FlowMeter;
use overway_wire::{Address, FlowId, PolicyId};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::Notify;

use super::{ACCEPTED, Flow, FlowTerms, Held, Inbox, Shared, Target};
use crate::fabric::{FabricSender, Inbound};
use crate::far::{Party, Peer};
use crate::felt::{Ended, Reports, Subject};
use crate::seal::FlowKeys;
use crate::stats::Counters;

/// Flows of an endpoint at most; further ones are refused.
const FLOWS_MAX: usize = 65_536;

/// The flows of an endpoint, by the source of a gateway's frames and the id that they bear.
#[derive(Debug)]
pub(crate) struct FlowTable {
    sender: Arc<dyn FabricSender>,
    counters: Arc<Counters>,
    /// Whether the far ends are edges.
    edges: bool,
    flows: RwLock<HashMap<FlowKey, Arc<Shared>>>,
    /// Last reports of flows that are gone.
    ended: Ended,
}

/// How a flow travels, and what it is.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) policy: PolicyId,
    pub(crate) terms: FlowTerms,
    /// Whether the far end is known to know of stamps.
    pub(crate) stamps: bool,
    pub(crate) subject: Subject,
    /// The session that it was opened by.
    pub(crate) session: Option<Connection>,
}

/// What [`Target::source`] says, and the id.
type FlowKey = (Option<Address>, FlowId);

/// Why a flow cannot be entered in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    #[error("too many flows")]
    Full,
    #[error("flow id is in use")]
    InUse,
}

impl FlowTable {
    pub(crate) fn new(sender: Arc<dyn FabricSender>, counters: Arc<Counters>, edges: bool) -> Self {
        Self { sender, counters, edges, flows: RwLock::default(), ended: Ended::default() }
    }

    /// Enters a flow: from now on its datagrams are taken.
    pub(crate) fn enter(
        self: &Arc<Self>,
        far: Target,
        manner: Manner,
        id: FlowId,
        opened_here: bool,
        keys: FlowKeys,
    ) -> Result<FlowLife, TableError> {
        let accepted = FlowId(id.0 | ACCEPTED);
        let (own, its) = if opened_here { (id, accepted) } else { (accepted, id) };
        let key = (far.source(), its);
        let Manner { policy, terms, stamps, subject, session } = manner;
        let now = subject.since;
        let mut meter = FlowMeter::new(now);
        if let Some(session) = &session {
            meter.handle_rtt(session.rtt(), now);
        }
        let shared = Arc::new(Shared {
            far,
            policy,
            terms,
            id: own,
            keys,
            sender: Arc::clone(&self.sender),
            counters: Arc::clone(&self.counters),
            subject,
            session,
            stamps: AtomicBool::new(stamps),
            sequence: AtomicU64::new(0),
            number: AtomicU32::new(0),
            inbox: Mutex::new(Inbox::new(meter, now)),
            arrived: Notify::new(),
            ending: Notify::new(),
        });
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        if flows.len() >= FLOWS_MAX {
            return Err(TableError::Full);
        }
        if flows.contains_key(&key) {
            return Err(TableError::InUse);
        }
        flows.insert(key, Arc::clone(&shared));
        drop(flows);
        Ok(FlowLife { shared, entry: Entry { table: Arc::clone(self), key } })
    }

    /// Takes reports: of flows that are gone first, then of those that were taken longest ago.
    pub(crate) fn take_reports(&self, out: &mut Reports, now: Instant) {
        self.ended.take(out);
        let flows: Vec<Arc<Shared>> = {
            let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
            flows.values().map(Arc::clone).collect()
        };
        let mut waiting: Vec<(Instant, Arc<Shared>)> =
            flows.into_iter().map(|flow| (flow.taken(), flow)).collect();
        // What has just been taken is not taken again.
        waiting.retain(|&(taken, _)| taken < now);
        waiting.sort_unstable_by_key(|&(taken, _)| taken);
        for (_, flow) in waiting {
            if !out.has_room() {
                return;
            }
            flow.report(false, now).into_iter().for_each(|report| out.push(report));
        }
    }

    /// Whether a flow of a service is open.
    pub(crate) fn has(&self, service: &str) -> bool {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        flows.values().any(|flow| flow.subject.service == service)
    }

    /// Ends the flows that were opened here to a service at a far end; says how many.
    pub(crate) fn give_up(&self, far: Party, service: &str) -> usize {
        let is_such = |flow: &&Arc<Shared>| {
            let is_ours = flow.id.0 & ACCEPTED == 0;
            is_ours && flow.subject.service == service && flow.subject.party == far
        };
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        let given_up: Vec<Arc<Shared>> = flows.values().filter(is_such).map(Arc::clone).collect();
        drop(flows);
        given_up.iter().for_each(|flow| flow.end());
        given_up.len()
    }

    /// Takes a frame of kind Datagram.
    pub(crate) fn handle_frame(&self, frame: Inbound, now: Instant) {
        let key = (Some(frame.source).filter(|_| !self.edges), frame.flow);
        let flow =
            self.flows.read().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        match flow {
            Some(flow) => flow.handle_frame(frame, now),
            None => self.counters.datagrams_unknown_flow.increment(),
        }
    }
}

/// A flow's place in the table; dropping it takes the flow out.
#[derive(Debug)]
struct Entry {
    table: Arc<FlowTable>,
    key: FlowKey,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut flows = self.table.flows.write().unwrap_or_else(PoisonError::into_inner);
        let flow = flows.remove(&self.key);
        drop(flows);
        self.table.ended.push(flow.and_then(|flow| flow.report(true, Instant::now())));
    }
}

/// A flow that is in the table and whose stream is still being answered.
#[derive(Debug)]
pub(crate) struct FlowLife {
    pub(super) shared: Arc<Shared>,
    entry: Entry,
}

impl FlowLife {
    /// The far end has said that it knows of stamps.
    pub(crate) fn set_stamps(&self, stamps: bool) {
        self.shared.stamps.store(stamps, Ordering::Relaxed);
    }

    /// Ties the flow to its stream, on a task that ends with both.
    pub(crate) fn run(
        self,
        mut send: SendStream,
        mut recv: RecvStream,
        peer: Option<Peer>,
    ) -> Flow {
        let Self { shared, entry } = self;
        let held = Arc::new(Held(Arc::clone(&shared)));
        let flow = Flow { shared: Arc::clone(&shared), peer, _held: held };
        tokio::spawn(async move {
            tokio::select! {
                () = shared.ending.notified() => {}
                // The far end says nothing on this stream: whatever comes is its end.
                _ = recv.read_chunk(1, true) => {}
            }
            drop(entry);
            shared.end();
            // Both fail only if the stream has ended already.
            let _ = send.finish();
            let _ = recv.stop(VarInt::from_u32(0));
        });
        flow
    }
}
