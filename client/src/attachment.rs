//! One attachment, from the dialling to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use overway_probe::{AttachmentProbe, Rate, State, attachment_config};
use overway_session::Inbound;
use overway_telemetry::SPANS;
use overway_wire::access::messages::{Draining, FromEdge, Offer, to_edge};
use overway_wire::access::{AccessDatagram, AccessHeader, CloseCode, Direction};
use overway_wire::frame::FrameEcn;
use overway_wire::{Address, AttachmentId, PolicyId};
use tokio::sync::{Notify, watch};

use crate::Shared;
use crate::ring::Sent;
use crate::services::Question;
use crate::transport::{Connection, Transport};
use crate::uplink::LineId;

mod better;
mod handshake;
mod leaving;

use better::{Better, take_rest};
pub(crate) use handshake::{AttachError, codec};
use handshake::{Joined, Reader, Writer, attach, decode, refused, renewal, say};
use leaving::Leaving;

/// From the first packet to the relay's answer: as long as a relay waits for the attach.
const ATTACH_MAX: Duration = Duration::from_secs(5);
/// An attachment that has carried nothing for so long is given up for another: longer than a radio's pause, shorter
/// than a person's patience.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// How often an attachment looks at the clocks, and at what has changed, while flows are active,
const TICK: Duration = Duration::from_secs(1);
/// and otherwise.
const TICK_IDLE: Duration = Duration::from_secs(5);
/// How often it looks whether it may leave a relay that drains.
const LEAVING_TICK: Duration = Duration::from_millis(100);
/// Late by more than half a heartbeat of an active attachment: this process slept.
const LATE: Duration = Duration::from_millis(15);
/// The wall clock ran on by so much more than the monotonic one: the machine slept, or its clock was set.
const JUMP: Duration = Duration::from_secs(2);
/// Frames sent, and datagrams taken, before others get a turn.
const BATCH: usize = 64;
/// Questions under way at one relay; the oldest is forgotten, and its asker told so.
const QUESTIONS_MAX: usize = 64;

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An attached edge's end of the connection.
pub(crate) struct Attachment<T: Transport> {
    shared: Arc<Shared<T>>,
    connection: T::Connection,
    place: usize,
    line: LineId,
    filled: Arc<Notify>,
    remote: SocketAddr,
    tenant: PolicyId,
    probe: AttachmentProbe,
    state: State,
    down_since: Option<Instant>,
    ticked: (Instant, SystemTime),
    questions: Vec<Question>,
    /// While the relay drains, or the edge moves.
    leaving: Option<Leaving>,
    /// It leaves by itself.
    is_moving: bool,
    /// When a frame came or went last.
    carried: Instant,
}

impl<T: Transport> Attachment<T> {
    /// Dials a relay, proves the edge to it, and serves the attachment until it ends, by one connection or another.
    pub(crate) async fn run(
        shared: &Arc<Shared<T>>,
        place: usize,
        remote: SocketAddr,
    ) -> AttachError {
        // Never entered: what runs a connection would keep the span that it began in.
        let span = tracing::debug_span!(target: SPANS, "attach", %remote, place);
        let attaching = tokio::time::timeout(ATTACH_MAX, attach(shared, place, remote)).await;
        drop(span);
        let mut joined = match attaching {
            Ok(Ok(joined)) => joined,
            Ok(Err(error)) => return error,
            Err(_elapsed) => return AttachError::TimedOut,
        };
        loop {
            let mut this = Self::begin(shared, place, remote, &joined);
            match this.serve_or_better(joined.reader, joined.writer).await {
                Ok(better) => {
                    this.shared.counters.lost.increment();
                    take_rest(shared, this.connection, this.tenant);
                    joined = better;
                }
                Err(end) => {
                    let is_stopped = matches!(end, AttachError::Stopped);
                    let code = if is_stopped { CloseCode::Stopping } else { CloseCode::Unused };
                    this.connection.close(code);
                    this.shared.uplink.remove(this.line, Instant::now());
                    this.shared.detached(this.place);
                    return end;
                }
            }
        }
    }

    fn begin(
        shared: &Arc<Shared<T>>,
        place: usize,
        remote: SocketAddr,
        joined: &Joined<T::Connection>,
    ) -> Self {
        let Joined { connection, attached, .. } = joined;
        let now = Instant::now();
        let attachment = AttachmentId(u16::try_from(attached.attachment).unwrap_or(0));
        let address = Address::new(connection.relay(), attachment);
        shared.attached(place, (remote, connection.transport()), attached, address);
        let (line, filled) = shared.uplink.insert(place, address, now);
        let probe = AttachmentProbe::new(attachment_config(), shared.boot, shared.clock, now);
        Self {
            shared: Arc::clone(shared),
            connection: connection.clone(),
            place,
            line,
            filled,
            remote,
            tenant: PolicyId(u16::try_from(attached.tenant).unwrap_or(0)),
            probe,
            state: State::Up,
            down_since: None,
            ticked: (now, SystemTime::now()),
            questions: Vec::new(),
            leaving: None,
            is_moving: false,
            carried: now,
        }
    }

    /// Serves the attachment until it ends, or a better connection has its place.
    async fn serve_or_better(
        &mut self,
        reader: Reader<T::Connection>,
        writer: Writer<T::Connection>,
    ) -> Result<Joined<T::Connection>, AttachError> {
        let (shared, is_attaching) = (Arc::clone(&self.shared), AtomicBool::new(false));
        let better = Better {
            shared: &shared,
            transport: self.connection.transport(),
            place: self.place,
            remote: self.remote,
            is_attaching: &is_attaching,
        };
        let mut better = pin!(better.attach());
        let end = tokio::select! {
            biased;
            joined = &mut better => return Ok(joined),
            end = self.serve(reader, writer) => end,
        };
        if is_attaching.load(Ordering::Relaxed) && !matches!(end, AttachError::Stopped) {
            return tokio::time::timeout(SILENT_MAX, better).await.map_err(|_elapsed| end);
        }
        Err(if self.connection.is_replaced() { AttachError::Replaced } else { end })
    }

    async fn serve(
        &mut self,
        mut reader: Reader<T::Connection>,
        mut writer: Writer<T::Connection>,
    ) -> AttachError {
        let (connection, filled) = (self.connection.clone(), Arc::clone(&self.filled));
        let shared = Arc::clone(&self.shared);
        let (mut token, mut offers) = watched(&shared);
        let mut sending: Option<Sending> = None;
        loop {
            let now = Instant::now();
            self.set_rate(now);
            if sending.is_none() {
                sending = self.send_waiting(now);
            }
            self.send_heartbeats(now);
            let due = self.due(now);
            let said: Option<FromEdge> = tokio::select! {
                received = connection.receive() => match received {
                    Some(first) => {
                        self.take_datagrams(first);
                        None
                    }
                    None => return AttachError::Closed(connection.closed_because()),
                },
                () = tokio::time::sleep_until(due.into()) => {
                    if let Some(end) = self.timeout(due) {
                        return end;
                    }
                    None
                }
                () = wait(&mut sending) => {
                    sending = None;
                    None
                }
                () = filled.notified(), if sending.is_none() => None,
                heard = reader.next() => match self.heard(heard) {
                    Ok(()) => None,
                    Err(end) => return end,
                },
                Ok(()) = token.changed() => {
                    let renewed = renewal(&shared, &connection, token.borrow_and_update().clone());
                    match renewed {
                        Ok(attach) => Some(attach.into()),
                        Err(error) => return error.into(),
                    }
                }
                Ok(()) = offers.changed() => {
                    let offer = offers.borrow_and_update().clone();
                    // Nothing offered, and nothing offered before: nothing to say.
                    (self.shared.services.has_offered()).then(|| offer.into())
                }
                question = shared.services.next_question(self.place) => {
                    let message = question.resolve.clone().into();
                    if self.questions.len() >= QUESTIONS_MAX {
                        self.questions.remove(0);
                    }
                    self.questions.push(question);
                    Some(message)
                }
                reports = shared.services.next_reports(self.place) => Some(reports.into()),
                () = shared.stop.cancelled() => return AttachError::Stopped,
            };
            if let Some(message) = said {
                let saying = say::<T::Connection>(&mut writer, &message);
                // Meanwhile nothing else is looked at.
                match tokio::time::timeout(SILENT_MAX, saying).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error,
                    Err(_elapsed) => return AttachError::Silent,
                }
            }
        }
    }

    fn tick(&self, now: Instant) -> Duration {
        if self.shared.uplink.is_active(now) { TICK } else { TICK_IDLE }
    }

    fn due(&self, now: Instant) -> Instant {
        let tick = match self.leaving {
            Some(_) => now + LEAVING_TICK,
            None => self.ticked.0 + self.tick(now),
        };
        self.probe.poll_timeout().map_or(tick, |due| due.min(tick))
    }

    fn timeout(&mut self, due: Instant) -> Option<AttachError> {
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        if late >= LATE {
            self.probe.handle_stall(late, now);
        }
        self.probe.handle_timeout(now);
        if now.saturating_duration_since(self.ticked.0) >= self.tick(now) {
            self.look_at_clocks(now);
            self.move_if_bettered(now);
        }
        self.follow_state(now);
        let silent = self.down_since.map(|since| now.saturating_duration_since(since));
        if silent.is_some_and(|silent| silent >= SILENT_MAX) {
            return Some(AttachError::Silent);
        }
        let elsewhere = self.shared.uplink.first().is_some_and(|first| first != self.place);
        let (carried, is_empty) = (self.carried, self.shared.uplink.is_empty(self.line));
        let leaving = self.leaving.as_mut()?;
        let end = if self.is_moving { AttachError::Moved } else { AttachError::Drained };
        leaving.is_done(elsewhere, carried, is_empty, now).then_some(end)
    }

    /// The monotonic clock stands still while a machine sleeps, on some systems.
    fn look_at_clocks(&mut self, now: Instant) {
        let wall = SystemTime::now();
        let (mono_before, wall_before) = std::mem::replace(&mut self.ticked, (now, wall));
        let elapsed = wall.duration_since(wall_before).unwrap_or_default();
        if elapsed > now.saturating_duration_since(mono_before) + JUMP {
            tracing::debug!(remote = %self.remote, "the clock jumped; asking for a sign of life");
            self.probe.doubt(now);
        }
    }

    fn follow_state(&mut self, now: Instant) {
        let state = self.probe.state();
        if state != self.state {
            let remote = self.remote;
            match state {
                State::Unknown | State::Up => tracing::info!(%remote, "attachment is back"),
                State::Suspect => {
                    self.shared.counters.suspects.increment();
                    tracing::debug!(%remote, "attachment is suspect");
                }
                State::Down => {
                    self.shared.counters.downs.increment();
                    tracing::info!(%remote, "attachment is down");
                }
            }
            self.state = state;
            self.down_since = (state == State::Down).then_some(now);
        }
        let rtt = self.probe.rtt(now);
        self.shared.uplink.judge(self.line, state, rtt, now);
        self.shared.judged(self.place, state, rtt);
        if self.down_since == Some(now) && self.shared.uplink.is_cut_off() {
            self.shared.refresh();
        }
    }

    fn set_rate(&mut self, now: Instant) {
        let active = self.shared.uplink.is_active(now);
        let rate = match (active, self.shared.services.is_offering()) {
            (true, _) => Rate::Active,
            (false, true) => Rate::Backup,
            (false, false) => Rate::Idle,
        };
        // A silent one is asked for a sign of life until it is given up.
        if self.down_since.is_none() {
            self.probe.set_rate(rate, now);
        }
    }

    fn send_heartbeats(&mut self, now: Instant) {
        while let Some(heartbeat) = self.probe.poll_transmit(now) {
            let mut bytes = Vec::with_capacity(72);
            heartbeat.encode(&mut bytes);
            self.connection.send(bytes.into());
        }
    }

    /// Sends what waits as far as there is room; otherwise the first that there is none for is what comes back.
    fn send_waiting(&mut self, now: Instant) -> Option<Sending> {
        for _ in 0..BATCH {
            let probe = &mut self.probe;
            let (number, sent) = self.shared.uplink.take(self.line, || probe.handle_sent(), now)?;
            self.shared.counters.frames_sent.increment();
            self.carried = now;
            let datagram = encode_up(number, &sent);
            if self.connection.room() >= datagram.len() {
                self.connection.send(datagram);
                continue;
            }
            return Some(Box::pin(self.connection.send_when_free(datagram)));
        }
        // More may wait: come back after the others.
        Some(Box::pin(tokio::task::yield_now()))
    }

    fn take_datagrams(&mut self, first: Bytes) {
        let now = Instant::now();
        let mut frames = Vec::new();
        let connection = self.connection.clone();
        let others = std::iter::from_fn(|| connection.receive_now()).take(BATCH - 1);
        for datagram in std::iter::once(first).chain(others) {
            match AccessDatagram::decode(&datagram) {
                Ok(AccessDatagram::Heartbeat(heartbeat)) => {
                    self.probe.handle_heartbeat(&heartbeat, now);
                    self.shared.uplink.acknowledge(self.line, self.probe.acknowledged());
                }
                Ok(AccessDatagram::Frame(header, payload))
                    if header.direction == Direction::Down =>
                {
                    self.probe.handle_frame(header.number, datagram.len(), now);
                    frames.push(inbound(&header, datagram.slice_ref(payload), self.tenant));
                }
                Ok(AccessDatagram::Frame(..)) | Err(_) => {
                    self.shared.counters.malformed.increment();
                }
            }
        }
        self.follow_state(now);
        if frames.is_empty() {
            return;
        }
        self.shared.uplink.touch(now);
        self.carried = now;
        self.shared.deliver(frames);
    }

    fn heard(
        &mut self,
        heard: Option<Result<bytes::BytesMut, std::io::Error>>,
    ) -> Result<(), AttachError> {
        match decode(heard)? {
            Some(to_edge::Body::Refused(refusal)) => Err(refused(refusal)),
            Some(to_edge::Body::Draining(draining)) => {
                self.drain(&draining);
                Ok(())
            }
            Some(to_edge::Body::Offers(offers)) => {
                if !offers.refused.is_empty() {
                    let services = offers.refused.join(", ");
                    tracing::warn!(services, "the token does not allow to offer these");
                }
                Ok(())
            }
            Some(to_edge::Body::Resolved(resolved)) => {
                let asked = |question: &Question| question.resolve.request == resolved.request;
                if let Some(at) = self.questions.iter().position(asked) {
                    self.questions.swap_remove(at).answer(resolved);
                }
                Ok(())
            }
            Some(to_edge::Body::Limited(limited)) => {
                self.shared.limited(self.remote, limited);
                Ok(())
            }
            // Said twice; not asked here; a message of a later version.
            Some(to_edge::Body::Attached(_) | to_edge::Body::AccessRelays(_)) | None => Ok(()),
        }
    }
}

impl<T: Transport> Attachment<T> {
    /// Leaves for a nearer relay, as if this one drained.
    fn move_if_bettered(&mut self, now: Instant) {
        let rtt = self.probe.rtt(now);
        if self.leaving.is_none() && self.shared.is_bettered(self.place, rtt, now) {
            tracing::info!(remote = %self.remote, ?rtt, "another relay is nearer");
            self.is_moving = true;
            self.leaving = Some(Leaving::new(u32::MAX));
            self.shared.draining(self.place, self.line, true);
        }
    }

    fn drain(&mut self, draining: &Draining) {
        let is_draining = !draining.undone;
        if is_draining {
            tracing::info!(remote = %self.remote, "the relay is draining");
        } else {
            tracing::info!(remote = %self.remote, "the relay stays after all");
        }
        self.is_moving = false;
        self.leaving = is_draining.then(|| Leaving::new(draining.within_ms));
        self.shared.draining(self.place, self.line, is_draining);
    }
}

fn inbound(header: &AccessHeader, payload: Bytes, tenant: PolicyId) -> Inbound {
    Inbound {
        source: header.far,
        kind: header.kind,
        class: header.class,
        policy: tenant,
        ecn: header.ecn,
        flow: header.flow,
        sequence: header.sequence,
        payload,
    }
}

fn encode_up(number: u32, sent: &Sent) -> Bytes {
    let frame = &sent.frame;
    let header = AccessHeader {
        direction: Direction::Up,
        number,
        kind: frame.kind,
        class: frame.class,
        ecn: FrameEcn::Capable,
        redundancy: frame.redundancy,
        copy: sent.is_copy,
        far: frame.destination,
        alternate: frame.alternate.filter(|other| other.relay != frame.destination.relay),
        budget: frame.budget,
        flow: frame.flow,
        sequence: frame.sequence,
    };
    header.with_payload(&frame.payload)
}

/// Waits for what is being sent, if anything.
async fn wait(sending: &mut Option<Sending>) {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

/// What an attachment tells its relay of when it changes: the token, which it has just shown, and what is offered, which
/// it tells at once.
fn watched<T>(shared: &Shared<T>) -> (watch::Receiver<String>, watch::Receiver<Offer>) {
    let mut token = shared.token.clone();
    token.mark_unchanged();
    let mut offers = shared.services.offers();
    offers.mark_changed();
    (token, offers)
}
