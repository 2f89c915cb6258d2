//! What is sent again, and what is not however often it is asked for.

use overway_wire::frame::FrameEcn;
use overway_wire::hop::{DATA_PREFIX_BYTES, HopMessage};
use overway_wire::{
    Address, Class, FlowId, FrameKind, Header, LinkIndex, Millis, Path, PathElement, PolicyId,
    RelayId,
};

use super::*;

const RTT: Duration = Duration::from_millis(40);
const PAYLOAD: [u8; 1_000] = [7; 1_000];

struct Sender {
    ring: Ring,
    resends: Resends,
    start: Instant,
    now: Instant,
}

fn sender(twins: bool) -> Sender {
    let now = Instant::now();
    let ring = Ring::new(32 << 20, Duration::from_secs(1));
    Sender { ring, resends: Resends::new(twins, now), start: now, now }
}

fn header() -> Header {
    let step = PathElement::new(RelayId(2), LinkIndex::default());
    Header {
        kind: FrameKind::Session,
        class: Class::Bulk,
        ecn: FrameEcn::Capable,
        copy: false,
        hops_left: 8,
        position: 0,
        policy: PolicyId::default(),
        source: Address::default(),
        destination: Address { relay: RelayId(2), ..Address::default() },
        budget: Millis(300),
        flow: FlowId(1),
        sequence: 0,
        path: Path::new(&[step]).unwrap(),
        alternate: None,
    }
}

impl Sender {
    fn at(&mut self, millis: u64) -> &mut Self {
        self.now = self.start + Duration::from_millis(millis);
        self
    }

    fn send(&mut self, numbers: impl IntoIterator<Item = u32>) -> &mut Self {
        for number in numbers {
            let message = encode(number, &header(), &PAYLOAD);
            let frame = message.slice(DATA_PREFIX_BYTES..);
            self.resends.earn(frame.len(), self.now);
            self.ring.push(number, frame, false, self.now);
        }
        self
    }

    fn ask(&mut self, ranges: &[(u32, u16)]) -> &mut Self {
        let ranges = ranges.iter().map(|&(first, count)| NackRange { first, count });
        self.resends.handle_nack(ranges, &mut self.ring, RTT, self.now);
        self
    }

    /// The numbers that go out now, with the budgets of their frames.
    fn sent(&mut self) -> Vec<(u32, Millis)> {
        self.resends.handle_timeout(self.now);
        let messages = std::iter::from_fn(|| self.resends.pop(&mut self.ring, self.now));
        let read = |message: Bytes| {
            let Some((number, frame)) = HopMessage::decode(&message).unwrap().frames().next()
            else {
                panic!("not a frame: {message:?}");
            };
            let (header, payload) = Header::decode(frame).unwrap();
            assert_eq!(payload, PAYLOAD);
            (number, header.budget)
        };
        messages.map(read).collect()
    }
}

#[test]
fn a_frame_is_sent_again_under_its_number_with_what_is_left_of_its_budget() {
    let mut sender = sender(false);
    sender.send([u32::MAX, 0, 1, 2]);

    let sent = sender.at(50).ask(&[(u32::MAX, 2), (2, 1)]).sent();

    assert_eq!(sent, [u32::MAX, 0, 2].map(|number| (number, Millis(250))));
    assert_eq!(sender.at(60).sent(), []);
}

#[test]
fn twins_go_three_milliseconds_after_their_frames_whatever_was_sent_again() {
    let mut sender = sender(true);
    for number in 0..500 {
        sender.at(number.into()).send([number]);
        sender.resends.double(number, sender.now);
        let due = number.checked_sub(3).map(|number| (number, Millis(297)));
        assert_eq!(sender.sent(), Vec::from_iter(due));
    }
    sender.ring.acknowledge(500, 500);

    assert_eq!(sender.at(510).sent(), [], "what the neighbour has meanwhile needs none");
    let RecoveryStats { twins_sent, resent, absent, over_budget, .. } = *sender.resends.stats();
    assert_eq!((twins_sent, resent, absent, over_budget), (497, 0, 0, 0));
}

#[test]
fn realtime_frames_are_sent_twice_three_milliseconds_apart() {
    let mut sender = sender(true);
    sender.send(0..3);

    assert_eq!(sender.at(50).ask(&[(1, 1)]).sent(), [(1, Millis(250))]);
    assert_eq!(sender.resends.due(), Some(sender.start + Duration::from_millis(53)));
    assert_eq!(sender.at(54).ask(&[(1, 1)]).sent(), [(1, Millis(246))]);

    assert_eq!(sender.at(99).sent(), []);
    let RecoveryStats { resent, repeated, wanted, .. } = *sender.resends.stats();
    assert_eq!((resent, repeated, wanted), (2, 1, 2));
}

#[test]
fn a_frame_is_sent_again_three_times_and_not_before_the_answer_can_have_come() {
    let mut sender = sender(false);
    sender.send([0]);
    let mut times = Vec::new();
    for millis in 50..250 {
        if !sender.at(millis).ask(&[(0, 1)]).sent().is_empty() {
            times.push(millis);
        }
    }

    assert_eq!(times, [50, 70, 90]);
}

#[test]
fn a_frame_whose_time_is_up_is_not_sent_again() {
    let mut sender = sender(false);
    sender.send([0]);

    assert_eq!(sender.at(301).ask(&[(0, 1)]).sent(), []);
    assert_eq!(sender.resends.stats().expired, 1);
    assert_eq!(sender.at(1_001).ask(&[(0, 1)]).sent(), []);
    assert_eq!(sender.resends.stats().absent, 1);
}

#[test]
fn a_question_for_everything_costs_a_look_at_so_many_numbers() {
    let mut sender = sender(false);
    sender.send(0..2_000);

    sender.at(10).ask(&[(0, u16::MAX); 64]);

    let sent = sender.sent().len();
    let stats = sender.resends.stats();
    assert_eq!(stats.wanted, u64::from(NACK_NUMBERS_MAX));
    assert!(sent <= NACK_NUMBERS_MAX as usize);
    sender.at(11).ask(&[(100_000, u16::MAX); 64]);
    assert_eq!(sender.sent(), []);
    assert_eq!(sender.resends.stats().absent, u64::from(NACK_NUMBERS_MAX));
}

#[test]
fn resends_take_a_fifth_and_a_burst_whatever_is_asked_for() {
    let mut sender = sender(true);
    let (mut bytes, mut number) = (0, 0_u32);
    for millis in 0..5_000 {
        sender.at(millis).send([number, number + 1]);
        number += 2;
        sender.ask(&[(number.wrapping_sub(500), 500)]);
        bytes += sender.sent().len() * 1_031;
        assert!(sender.resends.ready.len() <= READY_MAX);
    }

    let carried = 10_000 * 1_031;
    let burst = usize::try_from(BURST_BYTES).unwrap();
    assert!(bytes <= carried / 5 + 5 * burst, "{bytes} sent again");
    assert!(bytes >= carried / 5, "{bytes} sent again");
    assert!(sender.resends.stats().over_budget > 0);
}
