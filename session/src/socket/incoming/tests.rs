use overway_wire::{AttachmentId, FrameKind, PolicyId, RelayId};

use super::*;
use crate::socket::Told;

const MS: Duration = Duration::from_millis(1);
const OLD: FlowId = FlowId(1);
const NEW: FlowId = FlowId(2);

struct Bench {
    incoming: Incoming,
    counters: Counters,
    told: Told,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let (_, receiver) = mpsc::channel(1);
        let ((restarts, restarted), (unattached, not_there), (sought, to_seek)) =
            (mpsc::channel(8), mpsc::channel(2), mpsc::channel(1));
        let telling = Telling { restarts, unattached, sought };
        let told = Told { restarts: restarted, unattached: not_there, sought: to_seek };
        let incoming = Incoming::new(receiver, telling, Naming::ByAddress(FlowId(0)));
        let (counters, now) = (Counters::default(), Instant::now());
        Self { incoming, counters, told, now }
    }

    /// Takes a frame; returns how many packets QUIC gets for it.
    fn frame(&mut self, flow: FlowId, terms: impl Into<Terms>, sequence: u64) -> usize {
        self.frame_from(far(1), flow, terms, sequence)
    }

    fn frame_from(
        &mut self,
        source: Address,
        flow: FlowId,
        terms: impl Into<Terms>,
        sequence: u64,
    ) -> usize {
        let Terms { class, policy, redundancy } = terms.into();
        let flow = terms::marked(flow, redundancy);
        let frame = Inbound {
            source,
            kind: FrameKind::Session,
            class,
            policy,
            ecn: FrameEcn::Capable,
            flow,
            sequence,
            payload: Bytes::from_static(b"packet"),
        };
        self.incoming.sort(frame, self.now, &self.counters);
        self.incoming.ready.drain(..).count()
    }

    fn hails_due(&mut self, standing: &[Address]) -> Vec<Address> {
        let standing = standing.iter().copied().collect();
        let due = self.incoming.hails_due(&standing, self.now);
        for &far in &due {
            self.incoming.handle_hail(far, self.now);
        }
        due
    }
}

fn far(relay: u16) -> Address {
    Address::new(RelayId(relay), AttachmentId::GATEWAY)
}

#[test]
fn quic_gets_the_frames_of_both_incarnations_while_one_is_in_doubt() {
    for class in Class::ALL {
        let mut bench = Bench::new();
        assert_eq!(bench.frame(OLD, class, 70), 1);
        assert_eq!(bench.frame(NEW, class, 0), 1);
        assert_eq!(bench.frame(NEW, class, 1), 1);
        assert_eq!(bench.frame(OLD, class, 71), 1);
        assert_eq!(bench.frame(OLD, class, 72), 1);
        assert_eq!(bench.counters.snapshot().far_restarts, 0);
    }
}

#[test]
fn lanes_of_any_number_of_incarnations_are_those_of_two() {
    let mut bench = Bench::new();
    for flow in 0..1_000 {
        for class in Class::ALL {
            bench.frame(FlowId(flow), class, 5);
            // Beyond a gap, so that it is held.
            bench.frame(FlowId(flow), class, 7);
        }
        assert!(bench.incoming.far_ends[&far(1)].lanes.len() <= 2 * Class::ALL.len());
        assert!(bench.incoming.holding.len() <= 2 * Class::ALL.len());
    }
}

#[test]
fn what_a_newcomer_held_is_given_out_when_it_goes() {
    let mut bench = Bench::new();
    bench.frame(OLD, Class::Bulk, 0);
    bench.frame(NEW, Class::Bulk, 0);
    assert_eq!(bench.frame(NEW, Class::Bulk, 2), 0);

    assert_eq!(bench.frame(OLD, Class::Bulk, 1), 2);

    assert_eq!(bench.incoming.poll_timeout(), None);
}

#[test]
fn a_restart_is_told_within_a_second_and_a_half_of_the_first_frame() {
    let mut bench = Bench::new();
    bench.frame(OLD, Class::Bulk, 0);
    bench.now += 100 * MS;
    let first = bench.now;
    for sequence in 0.. {
        bench.frame(NEW, Class::Realtime, sequence);
        if let Ok(told) = bench.told.restarts.try_recv() {
            assert_eq!(told, (far(1), OLD));
            break;
        }
        assert_eq!(bench.hails_due(&[]), [far(1)]);
        bench.now += 250 * MS;
        assert!(bench.now <= first + 1_500 * MS);
    }
    assert_eq!(bench.hails_due(&[]), []);
    assert_eq!(bench.frame(OLD, Class::Bulk, 1), 0);
    assert_eq!(bench.counters.snapshot().frames_stale, 1);
    assert_eq!(bench.frame(NEW, Class::Bulk, 9), 1);
}

#[test]
fn a_far_end_with_sessions_is_hailed_when_it_is_quiet() {
    let mut bench = Bench::new();
    bench.frame(OLD, Class::Bulk, 0);
    bench.now += QUIET - MS;
    assert_eq!(bench.hails_due(&[far(1), far(2)]), []);
    bench.now += MS;

    // Without sessions it may be as quiet as it likes; one that was never heard is not hailed.
    assert_eq!(bench.hails_due(&[]), []);
    assert_eq!(bench.hails_due(&[far(1), far(2)]), [far(1)]);
    assert_eq!(bench.hails_due(&[far(1)]), []);
    bench.now += QUIET_HAIL_EVERY;
    assert_eq!(bench.hails_due(&[far(1)]), [far(1)]);

    bench.frame(OLD, Class::Bulk, 1);
    bench.now += QUIET_HAIL_EVERY;
    assert_eq!(bench.hails_due(&[far(1)]), []);
}

#[test]
fn a_session_belongs_to_the_incarnation_heard_last_in_its_class() {
    let mut bench = Bench::new();
    bench.frame(OLD, Class::Bulk, 0);
    bench.now += MS;
    bench.frame(NEW, Class::Realtime, 0);

    assert_eq!(bench.incoming.incarnation_of(far(1), Class::Realtime.into()), Some(NEW));
    assert_eq!(bench.incoming.incarnation_of(far(1), Class::Bulk.into()), Some(OLD));
    assert_eq!(bench.incoming.incarnation_of(far(1), Class::Interactive.into()), None);
}

#[test]
fn a_forged_sequence_stops_realtime_frames_for_a_moment_only() {
    let mut bench = Bench::new();
    bench.frame(OLD, Class::Realtime, 0);
    bench.frame(OLD, Class::Realtime, u64::MAX - 1);
    let mut passed = 0;
    for sequence in 1..1_000 {
        bench.now += MS;
        passed += bench.frame(OLD, Class::Realtime, sequence);
    }
    assert_eq!(passed, 800);
}

#[test]
fn frames_of_one_policy_do_not_wait_for_those_of_another() {
    let mut bench = Bench::new();
    let terms = |policy| Terms::new(Class::Bulk, PolicyId(policy));
    bench.frame(OLD, terms(1), 0);
    assert_eq!(bench.frame(OLD, terms(1), 2), 0);

    assert_eq!(bench.frame(OLD, terms(2), 0), 1);
    assert_eq!(bench.frame(OLD, terms(1), 1), 2);
}

#[test]
fn a_far_end_has_no_more_lanes_than_allowed_and_the_quietest_gives_up_its_order() {
    let mut bench = Bench::new();
    let terms = |policy| Terms::new(Class::Bulk, PolicyId(policy));
    bench.frame(OLD, terms(0), 0);
    assert_eq!(bench.frame(OLD, terms(0), 2), 0);
    let mut passed = 0;
    for policy in 1..=u16::try_from(LANES_MAX).unwrap() {
        bench.now += MS;
        passed += bench.frame(OLD, terms(policy), 0);
    }

    assert_eq!(passed, LANES_MAX + 1);
    assert_eq!(bench.incoming.far_ends[&far(1)].lanes.len(), LANES_MAX);
    assert!(bench.incoming.holding.is_empty());
}

/// An edge that moves sends from its new address before its word says so.
#[test]
fn the_order_does_not_wait_for_what_came_past_it() {
    let mut bench = Bench::new();
    let names = Arc::new(crate::names::Names::default());
    bench.incoming.naming = Naming::ByName(Arc::clone(&names));
    let dialled = names.dial(overway_wire::Whereabouts::at(far(1)), bench.now).unwrap();
    let answer = FlowId(dialled.own_incarnation().0 | crate::names::ACCEPTED);
    let revision = |number| crate::names::Revision { boot: 1, number };
    let at = overway_wire::Whereabouts::at;
    let edge = overway_tenant::EdgeId([1; 32]);
    dialled.prove(edge, revision(0), Some(at(far(1)))).unwrap();
    assert_eq!(bench.frame_from(far(1), answer, Class::Bulk, 0), 1);
    assert_eq!(bench.frame_from(far(1), answer, Class::Bulk, 2), 0);

    // Whatever their numbers, they are not kept, and nothing is kept for them.
    for sequence in [9, 7, 7] {
        assert_eq!(bench.frame_from(far(2), answer, Class::Bulk, sequence), 1);
    }
    dialled.prove(edge, revision(1), Some(at(far(2)))).unwrap();
    assert_eq!(bench.frame_from(far(2), answer, Class::Bulk, 10), 2);
    assert_eq!(bench.frame_from(far(2), answer, Class::Bulk, 12), 0);
    assert_eq!(bench.frame_from(far(2), answer, Class::Bulk, 11), 2);
}

#[test]
fn a_relay_is_believed_about_its_own_ends_alone() {
    let mut bench = Bench::new();
    let end = Address::new(RelayId(3), AttachmentId(7));
    let mut payload = Vec::new();
    Notice::Unattached(end).encode(&mut payload);
    let notice = |relay, attachment| Inbound {
        source: Address::new(RelayId(relay), attachment),
        kind: FrameKind::Notice,
        class: Class::Interactive,
        policy: PolicyId(0),
        ecn: FrameEcn::Capable,
        flow: FlowId(0),
        sequence: 0,
        payload: payload.clone().into(),
    };
    for (relay, attachment) in [(4, AttachmentId::RELAY), (3, AttachmentId(7))] {
        bench.incoming.hear_notice(&notice(relay, attachment), &bench.counters);
    }
    assert!(bench.told.unattached.try_recv().is_err());
    assert_eq!(bench.counters.snapshot().frames_unexpected, 2);

    for _ in 0..5 {
        bench.incoming.hear_notice(&notice(3, AttachmentId::RELAY), &bench.counters);
    }
    assert_eq!(bench.told.unattached.try_recv(), Ok(end));
    assert_eq!(
        bench.told.unattached.try_recv(),
        Ok(end),
        "what there was no room for is forgotten"
    );
    assert!(bench.told.unattached.try_recv().is_err());
}

#[test]
fn connections_know_how_long_frames_of_their_far_end_and_terms_are_held() {
    let mut bench = Bench::new();
    bench.frame(OLD, Class::Bulk, 0);
    // The lane is there before the connection, as where a far end dials.
    let bulk = bench.incoming.ordered(far(1), Class::Bulk.into());
    let interactive = bench.incoming.ordered(far(1), Class::Interactive.into());
    let other = bench.incoming.ordered(far(2), Class::Bulk.into());
    bench.frame(OLD, Class::Bulk, 2);
    bench.frame(OLD, Class::Interactive, 0);
    bench.now += 7 * MS;
    bench.frame(OLD, Class::Bulk, 1);

    assert_eq!((bulk.delay().micros, bulk.delay().frames), (7_000, 2));
    assert_eq!((interactive.delay().micros, interactive.delay().frames), (0, 1));
    assert_eq!(other.delay().frames, 0);
    // A second connection is told by the same lane.
    assert!(Arc::ptr_eq(&bulk, &bench.incoming.ordered(far(1), Class::Bulk.into())));
}

#[test]
fn of_connections_that_ended_nothing_is_kept() {
    let mut bench = Bench::new();
    for relay in 1..=5 * u16::try_from(ORDERED_TIDY).unwrap() {
        bench.incoming.ordered(far(relay), Class::Bulk.into());
    }
    assert!(bench.incoming.ordered.len() <= ORDERED_TIDY);
}
