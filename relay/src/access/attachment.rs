//! One attached edge: its frames, its heartbeats, its control stream, and its end.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::SinkExt as _;
use overway_probe::{AttachmentProbe, Rate, State, attachment_config};
use overway_relay_core::CellStanding;
use overway_wire::access::messages::{
    Attach, Draining, Limited, OfferedService, ToEdge, cut_reason, from_edge,
};
use overway_wire::access::{CloseCode, EXPORTER_BYTES};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::admission::{Admitted, Refusal};
use super::connection::Connection;
use super::drain::Drain;
use super::listener::{Receive, Send, Shared, encoded, hear, refused};
use super::quota::Beyond;
use super::registry::Place;
use super::stats::AccessDrop;

mod control;
mod frames;
mod pace;

use pace::Pace;

/// A flow is active for this long after its last frame, as on links.
const ACTIVE_FOR: Duration = Duration::from_secs(2);
/// How often an attachment looks whether its edge is still let in.
const REVIEW: Duration = Duration::from_secs(1);
/// How often its round trip counts for its network; not before it is measured well.
const OBSERVE: Duration = Duration::from_secs(10);
/// Late by more than half a heartbeat of an active attachment: this process slept.
const LATE: Duration = Duration::from_millis(15);
/// How long an edge stays at a relay of a partner when its own cell is reached again.
const HAND_BACK: Duration = Duration::from_secs(30);
/// How often an edge is told of a limit that its frames are beyond.
const LIMITED_EVERY: Duration = Duration::from_secs(1);
/// Limits that it may be told of; see [`overway_wire::access::messages::QuotaLimit`].
const LIMITS: usize = 4;
/// Messages that wait to be written; an edge that reads none of so many is closed.
const MESSAGES_MAX: usize = 16;
/// Of these, for the relay's own words: while there is room for no more than that, what the edge says waits unread.
const MESSAGES_OWN: usize = 8;
/// What an edge may say at once,
const HEARD_BURST: u32 = 512;
/// and then in a second: a sidecar's questions for sixty services, twice each. The rest waits unread, for one answer costs
/// up to a tenth of a millisecond of the thread that all edges share,
const HEARD_PER_SECOND: u32 = 128;
/// and one that puts thousands of relays in order some milliseconds: it counts as so many.
const NEAREST_COUNTS: u32 = 32;

/// What an edge has proved itself by; judged again when tokens or keys may have been revoked.
pub(super) struct Proof {
    pub(super) attach: Attach,
    pub(super) exporter: [u8; EXPORTER_BYTES],
}

type Sending = Pin<Box<dyn Future<Output = ()>>>;

/// An attached edge.
pub(super) struct Attachment {
    shared: Rc<Shared>,
    connection: Connection,
    proof: Proof,
    admitted: Admitted,
    place: Place,
    messages: mpsc::Sender<Bytes>,
    receive: Option<Receive>,
    probe: AttachmentProbe,
    state: State,
    is_renewed: bool,
    /// How fast it may speak.
    heard: Pace,
    reviewed: Instant,
    active_until: Option<Instant>,
    offers: Vec<OfferedService>,
    /// Until when it may stay; set while the relay only stands in for its cell, and the cell is reached again.
    stays_until: Option<Instant>,
    /// When it last said what it feels.
    felt: Option<Instant>,
    /// When its round trip counts for its network again.
    observe_due: Instant,
    /// When it was told last that its tenant uses what it may, by limit.
    limited: [Option<Instant>; LIMITS],
}

/// Why an attachment ends.
enum End {
    /// The connection closed, by the edge or by silence.
    Closed,
    /// Another connection of the same edge took its place.
    Replaced,
    /// The edge said so.
    Detached,
    /// By the relay, which tells why.
    Dismissed(CloseCode),
}

impl Attachment {
    pub(super) fn new(
        shared: Rc<Shared>,
        connection: Connection,
        proof: Proof,
        admitted: Admitted,
        place: Place,
        (send, receive): (Send, Receive),
    ) -> Self {
        let now = Instant::now();
        let (messages, to_write) = mpsc::channel(MESSAGES_MAX);
        tokio::task::spawn_local(write_all(send, to_write));
        let probe = AttachmentProbe::new(attachment_config(), shared.boot, shared.clock, now);
        Self {
            shared,
            connection,
            proof,
            admitted,
            place,
            messages,
            receive: Some(receive),
            probe,
            state: State::Up,
            is_renewed: false,
            heard: Pace::new(HEARD_BURST, HEARD_PER_SECOND, now),
            reviewed: now,
            active_until: None,
            offers: Vec::new(),
            stays_until: None,
            felt: None,
            observe_due: now,
            limited: [None; LIMITS],
        }
    }

    /// Has a message written.
    pub(super) fn say(&self, message: &ToEdge) {
        if self.messages.try_send(encoded(message)).is_err() {
            self.connection.close(CloseCode::Malformed);
        }
    }

    /// Serves the edge until its attachment ends.
    pub(super) async fn serve(mut self: Box<Self>) {
        let attachment = self.place.attachment.0;
        let (tenant, edge) = (self.admitted.claims.tenant.as_str(), self.admitted.edge);
        tracing::debug!(attachment, tenant, %edge, "edge attached");
        let mut sending = None;
        let end = self.run(&mut sending).await;
        let why = match end {
            End::Closed => "closed",
            End::Replaced => "replaced",
            End::Detached => "detached",
            End::Dismissed(_) => "dismissed",
        };
        match end {
            End::Closed => {}
            End::Replaced => self.hand_over(sending),
            End::Detached => self.connection.close(CloseCode::Unused),
            End::Dismissed(code) => {
                self.shared.counters.ended_by_relay.increment();
                // What was said last is still to be written.
                let _ = tokio::time::timeout(REVIEW, self.connection.closed()).await;
                self.connection.close(code);
            }
        }
        tracing::debug!(attachment, why, "attachment ended");
        let mut registry = self.shared.registry.borrow_mut();
        if registry.detach(self.place.attachment, self.place.connection) {
            self.shared.counters.drop_frames(AccessDrop::Ended, self.place.queue.clear());
            self.offer(&[]);
        }
        self.shared.counters.ended.increment();
        self.shared.counters.attachments.set(registry.len() as u64);
    }

    /// Ends a connection whose place another has taken: over TCP with what it was given, for the edge reads on.
    fn hand_over(&self, sending: Option<Sending>) {
        let connection = self.connection.clone();
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(REVIEW, async {
                if let Some(sending) = sending {
                    sending.await;
                }
                connection.end(CloseCode::Replaced).await;
            })
            .await;
            connection.close(CloseCode::Replaced);
        });
    }

    async fn run(&mut self, sending: &mut Option<Sending>) -> End {
        let mut receive = self.receive.take().expect("an attachment is served once");
        let (connection, queue) =
            (self.connection.clone(), std::sync::Arc::clone(&self.place.queue));
        let (replaced, mut draining) = (self.place.replaced.clone(), self.shared.draining.clone());
        // An edge that was let in knows of none; what began in this moment it has yet to hear.
        if *draining.borrow_and_update() != Drain::No {
            draining.mark_changed();
        }
        let messages = self.messages.clone();
        loop {
            let now = Instant::now();
            if sending.is_none() {
                *sending = self.send_waiting(now);
            }
            self.send_heartbeats(now);
            let due = self.due(now);
            if due <= now
                && let Some(end) = self.timeout(due)
            {
                return end;
            }
            tokio::select! {
                () = replaced.cancelled() => return End::Replaced,
                received = connection.receive() => match received {
                    Some(first) => self.take_datagrams(first),
                    None => return End::Closed,
                },
                () = tokio::time::sleep_until(due.into()) => {
                    if let Some(end) = self.timeout(due) {
                        return end;
                    }
                }
                () = wait(sending) => *sending = None,
                () = queue.filled(), if sending.is_none() => {}
                message = hear_when_room(&messages, &mut receive), if self.heard.may(now) => match message {
                    // The place may be another's since; what that one said last counts.
                    Ok(_) if replaced.is_cancelled() => return End::Replaced,
                    Ok(message) => {
                        self.heard.note(counts(message.as_ref()), now);
                        if let Some(end) = message.and_then(|message| self.hear(message)) {
                            return end;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "control stream of an edge");
                        return End::Dismissed(CloseCode::Malformed);
                    }
                },
                Ok(()) = draining.changed() => {
                    let drain = *draining.borrow_and_update();
                    if drain == Drain::Over {
                        return self.dismiss(&Refusal::Draining);
                    }
                    self.say(&drain.told().into());
                }
            }
        }
    }

    fn due(&self, now: Instant) -> Instant {
        let review = self.reviewed + REVIEW;
        let due = self.heard.next(now).map_or(review, |next| next.min(review));
        self.probe.poll_timeout().map_or(due, |probe| probe.min(due))
    }

    fn timeout(&mut self, due: Instant) -> Option<End> {
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        if late >= LATE {
            self.probe.handle_stall(late, now);
        }
        self.probe.handle_timeout(now);
        self.follow_state();
        if now.saturating_duration_since(self.reviewed) < REVIEW {
            return None;
        }
        self.reviewed = now;
        self.set_rate(now);
        self.observe(now);
        self.review(now)
    }

    /// Tells how far the edge's network is.
    fn observe(&mut self, now: Instant) {
        if let Some(rtt) = self.probe.rtt(now).filter(|_| now >= self.observe_due) {
            self.observe_due = now + OBSERVE;
            self.shared.dispatcher.observe(self.connection.remote_address().ip(), rtt, now);
        }
    }

    /// Whether the edge is still let in.
    fn review(&mut self, now: Instant) -> Option<End> {
        if self.stays_until.is_some_and(|until| until <= now) {
            return Some(self.dismiss(&Refusal::Reserve { cell: self.admitted.cell.clone() }));
        }
        let wall = SystemTime::now();
        let expired = self.admitted.claims.expires_at() < wall;
        let is_news = self.is_renewed || self.shared.admission.has_changed(&self.admitted);
        if (is_news || expired)
            && let Some(end) = self.judge_again(wall, now)
        {
            return Some(end);
        }
        // Who is told to leave anyway is told nothing else.
        if *self.shared.draining.borrow() == Drain::No {
            self.hand_back(now);
        }
        None
    }

    /// Also while the relay drains: who may not stay may not leave at leisure either.
    fn judge_again(&mut self, wall: SystemTime, now: Instant) -> Option<End> {
        self.is_renewed = false;
        let Proof { attach, exporter } = &self.proof;
        match self.shared.admission.admit(attach, exporter, wall) {
            Ok(admitted) if self.is_same(&admitted) => {
                self.place.allowance.borrow_mut().follow(&admitted, now);
                self.admitted = admitted;
                self.withdraw_forbidden();
                None
            }
            Ok(_) => Some(End::Dismissed(CloseCode::Refused)),
            Err(refusal) => Some(self.dismiss(&refusal)),
        }
    }

    fn dismiss(&self, refusal: &Refusal) -> End {
        self.shared.counters.refuse(refusal.code());
        tracing::info!(attachment = self.place.attachment.0, %refusal, "edge dismissed");
        self.say(&refused(refusal).into());
        End::Dismissed(CloseCode::Refused)
    }

    /// Asks the edge to go where it belongs, once its own cell is reached again.
    fn hand_back(&mut self, now: Instant) {
        if self.admitted.standing != CellStanding::Reserve {
            if self.stays_until.take().is_some() {
                self.say(&Draining { within_ms: 0, undone: true }.into());
            }
        } else if self.stays_until.is_none() {
            let (attachment, cell) = (self.place.attachment.0, &self.admitted.cell);
            tracing::info!(attachment, cell, "the cell is reached again; its edge is to go there");
            self.stays_until = Some(now + HAND_BACK);
            let within_ms = u32::try_from(HAND_BACK.as_millis()).unwrap_or(u32::MAX);
            self.say(&Draining { within_ms, undone: false }.into());
        }
    }

    /// Counts a frame beyond a limit, and tells the edge now and then.
    fn limit(&mut self, beyond: Beyond, now: Instant) {
        self.shared.counters.drop_frames(beyond.drop_reason(), 1);
        let told = &mut self.limited[beyond.limit() as usize];
        let recent = |at: Instant| now.saturating_duration_since(at) < LIMITED_EVERY;
        if told.is_some_and(recent) {
            return;
        }
        *told = Some(now);
        let reason = cut_reason(beyond.to_string());
        let tenant = self.admitted.claims.tenant.as_str();
        tracing::debug!(tenant, attachment = self.place.attachment.0, reason, "beyond its quota");
        self.say(&Limited { limit: beyond.limit().into(), reason }.into());
    }

    /// A token may be renewed, an edge's place not given to another.
    fn is_same(&self, admitted: &Admitted) -> bool {
        (admitted.tenant, admitted.edge) == (self.admitted.tenant, self.admitted.edge)
    }

    fn follow_state(&mut self) {
        let state = self.probe.state();
        if state != self.state {
            match state {
                State::Unknown | State::Up => {}
                State::Suspect => self.shared.counters.suspects.increment(),
                State::Down => self.shared.counters.downs.increment(),
            }
            tracing::debug!(attachment = self.place.attachment.0, ?state, "attachment");
            let registry = self.shared.registry.borrow();
            registry.set_answering(&self.place, state != State::Down);
            drop(registry);
            // Who does not answer here offers nothing here.
            match (std::mem::replace(&mut self.state, state), state) {
                (_, State::Down) => self.offer(&[]),
                (State::Down, _) => self.offer(&self.offers),
                (_, _) => {}
            }
        }
    }

    fn set_rate(&mut self, now: Instant) {
        let active = self.active_until.is_some_and(|until| now < until);
        let rate = match (active, self.offers.is_empty()) {
            (true, _) => Rate::Active,
            (false, false) => Rate::Backup,
            (false, true) => Rate::Idle,
        };
        self.probe.set_rate(rate, now);
    }

    fn handle_activity(&mut self, now: Instant) {
        let was_active = self.active_until.is_some_and(|until| now < until);
        self.active_until = Some(now + ACTIVE_FOR);
        if !was_active {
            self.set_rate(now);
        }
    }

    fn send_heartbeats(&mut self, now: Instant) {
        while let Some(heartbeat) = self.probe.poll_transmit(now) {
            let mut bytes = Vec::with_capacity(72);
            heartbeat.encode(&mut bytes);
            self.connection.send(bytes.into());
        }
    }
}

/// How much of its pace a message takes.
const fn counts(message: Option<&from_edge::Body>) -> u32 {
    match message {
        Some(from_edge::Body::Nearest(_)) => NEAREST_COUNTS,
        Some(
            from_edge::Body::Attach(_)
            | from_edge::Body::Detach(_)
            | from_edge::Body::Offer(_)
            | from_edge::Body::Health(_)
            | from_edge::Body::Resolve(_)
            | from_edge::Body::FlowReports(_),
        )
        | None => 1,
    }
}

/// The next message, once there is room for an answer and the relay's own words. Safe to cancel.
async fn hear_when_room(
    messages: &mpsc::Sender<Bytes>,
    receive: &mut Receive,
) -> anyhow::Result<Option<from_edge::Body>> {
    // Given back at once; it fails only when the edge's writer has ended, which its connection does with it.
    drop(messages.reserve_many(MESSAGES_OWN + 1).await);
    hear(receive).await
}

/// Waits for what is being sent, if anything.
async fn wait(sending: &mut Option<Sending>) {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

/// Writes an edge's messages until its attachment ends.
async fn write_all(mut send: Send, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if send.send(message).await.is_err() {
            return;
        }
    }
    // The edge reads to the end, if it is still there.
    let _ = send.get_mut().shutdown().await;
}
