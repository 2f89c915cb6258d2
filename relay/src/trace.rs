//! Traces that begin at this relay: probes that go the way of frames of a class, and what relays on it answer.
//!
//! A [`Tracer`] sends a probe each interval as a frame of the relay itself, through the queues that local ends use, and
//! hands on what the mesh's workers hear of it, each as one line of JSON. A trace ends after its last probe and
//! [`LINGER`], or when whoever asked for it has gone. What is heard and when is measured by the cores; here nothing is
//! timed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use overway_relay_core::{Fib, Traced};
use overway_session::Outbound;
use overway_wire::frame::PAYLOAD_BYTES_MAX;
use overway_wire::trace::{PROBE_BYTES_MIN, Trace, TraceRecords};
use overway_wire::{
    Address, AttachmentId, Class, FlowId, FrameKind, Millis, PolicyId, Redundancy, RelayId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::local::LocalQueues;
use crate::mesh::Mesh;

/// Traces that one relay runs at once.
pub const TRACES_MAX: usize = 8;
/// What may wait for whoever reads a trace: some seconds of the densest.
pub const HEARD_MAX: usize = 4_096;
/// How long answers to the last probe are waited for.
pub const LINGER: Duration = Duration::from_secs(2);
/// Shortest and longest time between two probes.
pub const INTERVAL_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// A probe's budget, as a session's frame has it.
const BUDGET_MS: u16 = 2_000;

/// What is asked for: the body of `POST /v1/trace`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The relay to trace, by name or id.
    pub to: String,
    /// `realtime`, `interactive` or `bulk`.
    #[serde(default = "interactive")]
    pub class: String,
    /// The policy or tenant that the probes go under, by name.
    #[serde(default)]
    pub policy: Option<String>,
    /// Milliseconds between two probes, 10 to 60,000.
    #[serde(default = "second")]
    pub interval_ms: u64,
    /// How many probes; without it they go on.
    #[serde(default)]
    pub count: Option<u64>,
    /// Bytes of a probe's payload, 142 to 1,200.
    #[serde(default)]
    pub bytes: Option<usize>,
}

fn interactive() -> String {
    Class::Interactive.name().to_owned()
}

fn second() -> u64 {
    1_000
}

/// One line of the answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceLine {
    /// The first: what is traced.
    Begun {
        /// The relay that traces.
        from: TracedRelay,
        /// The relay traced.
        to: TracedRelay,
        /// The class.
        class: String,
        /// Milliseconds between probes.
        interval_ms: u64,
    },
    /// A probe was sent.
    Sent {
        /// Its number, from 0.
        sequence: u64,
    },
    /// A relay has told of a probe.
    Heard(Heard),
    /// All probes were sent, and their answers waited for.
    Ended,
}

/// A relay by id, and by name if the table has one.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TracedRelay {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: Option<String>,
}

/// What a relay told of a probe.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Heard {
    /// The probe's number.
    pub sequence: u64,
    /// The relay that told it; the tracing relay itself when the probe set off.
    pub from: u16,
    /// The tracing relay's clock when it was heard, in microseconds.
    pub arrived_us: u64,
    /// Steps of the path that the probe had made.
    pub steps: u8,
    /// The path that the probe was on, after the tracing relay.
    pub path: Vec<Step>,
    /// The underlay address that the next step leads to, if the path goes on.
    pub next_address: Option<String>,
    /// What each relay so far has written, the tracing relay first.
    pub records: Vec<Record>,
}

/// One step of a path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Step {
    /// The relay that it leads to.
    pub relay: TracedRelay,
    /// The parallel link.
    pub link: u8,
}

/// What one relay wrote into a probe.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Record {
    /// The relay.
    pub relay: u16,
    /// The parallel link by which the probe came.
    pub link: u8,
    /// Whether the line lost the probe, and recovery brought it.
    pub recovered: bool,
    /// Whether it met a queue that was building up.
    pub marked: bool,
    /// Whether it was a second copy.
    pub copy: bool,
    /// The relay's own clock then, in microseconds.
    pub clock_us: u64,
    /// The relay's clock less that of the relay before it, in microseconds, if it knows.
    pub offset_us: Option<i64>,
}

/// Why there is no trace.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// No relay of that name or id is known here.
    #[error("no relay of this mesh is named {0:?}, as far as this relay knows")]
    NoSuchRelay(String),
    /// No policy or tenant of that name is known here.
    #[error("no policy or tenant is named {0:?}")]
    NoSuchPolicy(String),
    /// The relay itself.
    #[error("{0:?} is this relay itself")]
    Itself(String),
    /// Something is out of its range.
    #[error("{0}")]
    Range(String),
    /// Too many run already.
    #[error("{TRACES_MAX} traces run here already")]
    TooMany,
}

/// Who waits for what is heard of which trace.
#[derive(Debug, Default)]
pub struct Traces(Mutex<HashMap<FlowId, mpsc::Sender<Traced>>>);

impl Traces {
    /// Tells whoever traces what was heard; a trace that has ended needs nothing, one that does not keep up misses it.
    pub(crate) fn tell(&self, traced: Traced) {
        let traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trace) = traces.get(&traced.flow) {
            let _ = trace.try_send(traced);
        }
    }

    fn begin(self: &Arc<Self>) -> Result<(Running, mpsc::Receiver<Traced>), Refused> {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if traces.len() >= TRACES_MAX {
            return Err(Refused::TooMany);
        }
        let flow = loop {
            let flow = FlowId(fastrand::u32(..));
            if !traces.contains_key(&flow) {
                break flow;
            }
        };
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        traces.insert(flow, tell);
        Ok((Running { traces: Arc::clone(self), flow }, heard))
    }
}

/// A trace; dropping it ends it.
struct Running {
    traces: Arc<Traces>,
    flow: FlowId,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut traces = self.traces.0.lock().unwrap_or_else(PoisonError::into_inner);
        traces.remove(&self.flow);
    }
}

/// Sends traces.
#[derive(Clone, Debug)]
pub struct Tracer {
    /// This relay.
    pub local: RelayId,
    /// Its name.
    pub name: String,
    /// Where frames go in.
    pub frames: Arc<LocalQueues>,
    /// Where what is heard comes out.
    pub traces: Arc<Traces>,
    /// The table in use.
    pub fib: watch::Receiver<Arc<Fib>>,
}

impl Tracer {
    /// What a relay's traces are sent with.
    pub fn of(mesh: &Mesh, local: RelayId, name: &str) -> Self {
        Self {
            local,
            name: name.to_owned(),
            frames: Arc::clone(&mesh.local),
            traces: Arc::clone(&mesh.traces),
            fib: mesh.fib.clone(),
        }
    }

    /// Begins a trace; the stream has its lines, each with its end of line, and ends it when it is dropped.
    ///
    /// # Errors
    /// Says what is wrong with the request.
    pub fn start(
        &self,
        request: &TraceRequest,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + use<>, Refused> {
        let asked = self.read(request)?;
        let (running, heard) = self.traces.begin()?;
        let begun = TraceLine::Begun {
            from: TracedRelay { id: self.local.0, name: Some(self.name.clone()) },
            to: self.named(asked.to),
            class: asked.class.name().to_owned(),
            interval_ms: asked.interval.period().as_millis().try_into().unwrap_or(u64::MAX),
        };
        let trace = Ongoing {
            tracer: self.clone(),
            asked,
            running,
            heard,
            sent: 0,
            ends: None,
            first: Some(begun),
            over: false,
        };
        Ok(futures_util::stream::unfold(trace, |mut trace| async move {
            let line = trace.next().await?;
            let mut text = serde_json::to_vec(&line).expect("a line has no key that is no string");
            text.push(b'\n');
            Some((Ok(Bytes::from(text)), trace))
        }))
    }

    fn read(&self, request: &TraceRequest) -> Result<Asked, Refused> {
        let fib = Arc::clone(&self.fib.borrow());
        let known = || Refused::NoSuchRelay(request.to.clone());
        let named = fib.names.iter().find(|(_, name)| **name == request.to).map(|(&id, _)| id);
        let by_id = || {
            let id = request.to.parse().map(RelayId).ok()?;
            (id == self.local || fib.names.contains_key(&id)).then_some(id)
        };
        let itself = (request.to == self.name).then_some(self.local);
        let to = itself.or(named).or_else(by_id).ok_or_else(known)?;
        if to == self.local {
            return Err(Refused::Itself(request.to.clone()));
        }
        let class = Class::from_name(&request.class).ok_or_else(|| {
            let class = &request.class;
            Refused::Range(format!("{class:?} is no class: realtime, interactive or bulk"))
        })?;
        let policy = match &request.policy {
            None => PolicyId::default(),
            Some(name) => {
                let known = fib.policy_named(name).or_else(|| fib.tenant_named(name));
                known.ok_or_else(|| Refused::NoSuchPolicy(name.clone()))?
            }
        };
        if !INTERVAL_MS.contains(&request.interval_ms) {
            let (least, most) = (INTERVAL_MS.start(), INTERVAL_MS.end());
            return Err(Refused::Range(format!("the interval is {least} to {most} ms")));
        }
        let bytes = request.bytes.unwrap_or(PROBE_BYTES_MIN);
        if !(PROBE_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&bytes) {
            let text = format!("a probe has {PROBE_BYTES_MIN} to {PAYLOAD_BYTES_MAX} bytes");
            return Err(Refused::Range(text));
        }
        let mut interval = tokio::time::interval(Duration::from_millis(request.interval_ms));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        Ok(Asked { to, class, policy, interval, count: request.count, bytes })
    }

    fn named(&self, relay: RelayId) -> TracedRelay {
        let name = if relay == self.local {
            Some(self.name.clone())
        } else {
            self.fib.borrow().names.get(&relay).cloned()
        };
        TracedRelay { id: relay.0, name }
    }

    fn told(&self, traced: &Traced) -> Heard {
        let Traced { from, sequence, answer, arrived, .. } = traced;
        let step = |step: &overway_wire::PathElement| Step {
            relay: self.named(step.relay),
            link: step.link.value(),
        };
        let record = |record: &overway_wire::trace::TraceRecord| Record {
            relay: record.relay.0,
            link: record.link.value(),
            recovered: record.recovered,
            marked: record.marked,
            copy: record.copy,
            clock_us: record.clock.0,
            offset_us: record.offset.map(|offset| offset.0),
        };
        Heard {
            sequence: *sequence,
            from: from.0,
            arrived_us: arrived.0,
            steps: answer.steps,
            path: answer.path.elements().iter().map(step).collect(),
            next_address: answer.next.map(|address| address.to_string()),
            records: answer.records.as_slice().iter().map(record).collect(),
        }
    }
}

/// What is asked for, read.
struct Asked {
    to: RelayId,
    class: Class,
    policy: PolicyId,
    interval: tokio::time::Interval,
    count: Option<u64>,
    bytes: usize,
}

struct Ongoing {
    tracer: Tracer,
    asked: Asked,
    running: Running,
    heard: mpsc::Receiver<Traced>,
    sent: u64,
    ends: Option<tokio::time::Instant>,
    first: Option<TraceLine>,
    over: bool,
}

impl Ongoing {
    /// The next line; `None` after the last.
    async fn next(&mut self) -> Option<TraceLine> {
        if self.over {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let ends = self.ends;
        let over = async {
            match ends {
                Some(ends) => tokio::time::sleep_until(ends).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            traced = self.heard.recv() => {
                // The sender is held by the trace itself.
                traced.map(|traced| TraceLine::Heard(self.tracer.told(&traced)))
            }
            () = over => {
                self.over = true;
                Some(TraceLine::Ended)
            }
            _ = self.asked.interval.tick(), if ends.is_none() => {
                let sequence = self.sent;
                self.send();
                if self.asked.count.is_some_and(|count| self.sent >= count) {
                    self.ends = Some(tokio::time::Instant::now() + LINGER);
                }
                Some(TraceLine::Sent { sequence })
            }
        }
    }

    /// Sends the next probe. Where local queues are full it is lost as an application's frame would wait there.
    fn send(&mut self) {
        let mut payload = Vec::with_capacity(self.asked.bytes);
        Trace::Probe(TraceRecords::default()).encode(self.asked.bytes, &mut payload);
        let frame = Outbound {
            kind: FrameKind::Trace,
            class: self.asked.class,
            policy: self.asked.policy,
            redundancy: Redundancy::default(),
            destination: Address::new(self.asked.to, AttachmentId::RELAY),
            alternate: None,
            flow: self.running.flow,
            sequence: self.sent,
            budget: Millis(BUDGET_MS),
            payload: payload.into(),
        };
        self.sent += 1;
        let _ = self.tracer.frames.try_send_from(AttachmentId::RELAY, &mut vec![frame]);
    }
}
