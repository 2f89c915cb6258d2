use std::task::{Context, Poll};

use overway_wire::{AttachmentId, RelayId};

use crate::Full;
use crate::felt::Reports;
use crate::seal::SECRET_BYTES;

use super::table::TableError;
use super::*;

const GATEWAY: Target = Target::Gateway(Address::new(RelayId(0), AttachmentId(0)));
const POLICY: PolicyId = PolicyId(9);

fn manner() -> Manner {
    let (service, far) = ("voice".to_owned(), "r5".to_owned());
    let (party, since) = (crate::far::Party::Relay(RelayId(5)), Instant::now());
    let subject = Subject { service, class: Class::Realtime, party, far, since };
    let terms = FlowTerms { redundancy: Redundancy::Always, deadline: DEADLINE };
    Manner { policy: POLICY, terms, stamps: true, subject, session: None }
}

/// Keeps what is sent; takes nothing when it is told to be full.
#[derive(Debug, Default)]
struct Kept {
    frames: Mutex<Vec<Outbound>>,
    full: bool,
}

impl FabricSender for Kept {
    fn try_send(&self, frames: &mut Vec<Outbound>) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        self.frames.lock().unwrap().append(frames);
        Ok(())
    }

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

struct End {
    wire: Arc<Kept>,
    table: Arc<FlowTable>,
    counters: Arc<Counters>,
    life: FlowLife,
}

fn end(client: bool, full: bool) -> End {
    let wire = Arc::new(Kept { full, ..Kept::default() });
    let counters = Arc::new(Counters::default());
    let sender: Arc<dyn FabricSender> = Arc::<Kept>::clone(&wire);
    let table = Arc::new(FlowTable::new(sender, Arc::clone(&counters), false));
    let keys = FlowKeys::new(&[5; SECRET_BYTES], client);
    let life = table.enter(GATEWAY, manner(), FlowId(1), client, keys).unwrap();
    End { wire, table, counters, life }
}

fn carry(from: &End, to: &End) -> Vec<Inbound> {
    let frames: Vec<Inbound> =
        from.wire.frames.lock().unwrap().drain(..).map(|frame| inbound(&frame)).collect();
    for frame in &frames {
        to.table.handle_frame(frame.clone(), Instant::now());
    }
    frames
}

fn inbound(frame: &Outbound) -> Inbound {
    Inbound {
        source: frame.destination,
        kind: frame.kind,
        class: frame.class,
        policy: frame.policy,
        ecn: overway_wire::frame::FrameEcn::NotCapable,
        flow: frame.flow,
        sequence: frame.sequence,
        payload: frame.payload.clone(),
    }
}

fn taken(end: &End) -> Vec<Bytes> {
    end.life.shared.inbox().queue.drain(..).collect()
}

#[test]
fn datagrams_arrive_once_however_often_their_frames_do() {
    let (opener, acceptor) = (end(true, false), end(false, false));
    let datagram = [9; DATAGRAM_BYTES_MAX];
    opener.life.shared.send(&datagram).unwrap();
    let modes: Vec<Redundancy> =
        opener.wire.frames.lock().unwrap().iter().map(|frame| frame.redundancy).collect();
    assert_eq!(modes, [Redundancy::Always; 2]);

    let frames = carry(&opener, &acceptor);
    assert!(frames.iter().all(|frame| frame.policy == POLICY));
    for frame in frames {
        acceptor.table.handle_frame(frame, Instant::now());
    }

    assert_eq!(taken(&acceptor), [&datagram[..]]);
    assert_eq!(acceptor.counters.snapshot().datagrams_duplicate, 2);
}

#[test]
fn what_comes_and_what_does_not_is_reported_also_of_a_flow_that_ended() {
    let (opener, acceptor) = (end(true, false), end(false, false));
    for number in 0..10_u8 {
        opener.life.shared.send(&[number; 20]).unwrap();
        if number == 4 {
            opener.wire.frames.lock().unwrap().pop();
        }
    }
    carry(&opener, &acceptor);
    let End { table, life, .. } = acceptor;
    let later = Instant::now() + Duration::from_secs(2);

    let take = || {
        let mut out = Reports::new(9, 9_999);
        table.take_reports(&mut out, later);
        out.taken
    };

    let report = take().remove(0);

    let felt = report.felt.clone().unwrap();
    assert_eq!((felt.due, felt.on_time, felt.lost), (10, 9, 1));
    assert_eq!((felt.gaps, report.ended, report.kind()), (8, false, FlowKind::Datagrams));
    assert_eq!((&*report.service, &*report.far, report.id), ("voice", "r5", 1));
    assert_eq!(take(), [], "nothing new");

    opener.life.shared.send(&[7]).unwrap();
    for frame in opener.wire.frames.lock().unwrap().drain(..) {
        table.handle_frame(inbound(&frame), Instant::now());
    }
    drop(life);
    let last = take();
    assert_eq!((last.len(), last[0].ended), (1, true));
    assert_eq!(last[0].felt.as_ref().unwrap().due, 1);
}

#[test]
fn a_flipped_bit_is_dropped_and_the_true_frame_still_counts() {
    let (opener, acceptor) = (end(true, false), end(false, false));
    acceptor.life.shared.send(b"answer").unwrap();
    let true_frame = inbound(&acceptor.wire.frames.lock().unwrap()[0]);
    let mut flipped = true_frame.payload.to_vec();
    flipped[0] ^= 1;

    let forged = Inbound { payload: flipped.into(), ..true_frame.clone() };
    opener.table.handle_frame(forged, Instant::now());
    opener.table.handle_frame(true_frame, Instant::now());

    assert_eq!(taken(&opener), [&b"answer"[..]]);
    assert_eq!(opener.counters.snapshot().datagrams_forged, 1);
}

#[test]
fn frames_of_no_flow_and_of_a_flow_that_is_gone_are_counted() {
    let (opener, acceptor) = (end(true, false), end(false, false));
    opener.life.shared.send(b"late").unwrap();
    let End { table, counters, life, .. } = acceptor;
    let frame = inbound(&opener.wire.frames.lock().unwrap()[0]);

    table.handle_frame(Inbound { flow: FlowId(2), ..frame.clone() }, Instant::now());
    assert_eq!(counters.snapshot().datagrams_unknown_flow, 1);

    drop(life);
    table.handle_frame(frame, Instant::now());
    assert_eq!(counters.snapshot().datagrams_unknown_flow, 2);
}

#[test]
fn a_full_fabric_and_a_slow_owner_cost_datagrams_not_memory() {
    let full = end(true, true);
    full.life.shared.send(b"dropped").unwrap();
    assert_eq!(full.counters.snapshot().datagrams_dropped_full, 1);

    let (opener, acceptor) = (end(true, false), end(false, false));
    for number in 0..=QUEUE_MAX {
        opener.life.shared.send(&number.to_be_bytes()).unwrap();
    }
    carry(&opener, &acceptor);
    let taken = taken(&acceptor);
    assert_eq!(taken.len(), QUEUE_MAX);
    assert_eq!(taken[0], 1_usize.to_be_bytes()[..]);
    assert_eq!(acceptor.counters.snapshot().datagrams_dropped_slow, 1);
}

#[test]
fn a_datagram_too_long_is_refused() {
    let opener = end(true, false);

    let sent = opener.life.shared.send(&[0; DATAGRAM_BYTES_MAX + 1]);

    assert_eq!(sent, Err(SendError::TooLong));
}

#[test]
fn a_flow_id_in_use_is_refused() {
    let opener = end(true, false);
    let keys = FlowKeys::new(&[5; SECRET_BYTES], true);

    let again = opener.table.enter(GATEWAY, manner(), FlowId(1), true, keys);

    assert_eq!(again.err(), Some(TableError::InUse));
}
