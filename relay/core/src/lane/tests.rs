use std::collections::{BTreeMap, VecDeque};

use overway_probe::LocalClock;
use overway_wire::frame::{ELEMENT_BYTES, FIXED_BYTES};
use overway_wire::{
    Address, BootId, FlowId, FrameKind, LinkIndex, Path, PathElement, PolicyId, RelayId, Ticks,
};
use proptest::prelude::*;

use super::*;

const MILLI: Duration = Duration::from_millis(1);
/// What a full frame of these tests costs.
const FULL: usize = FIXED_BYTES + ELEMENT_BYTES + PAYLOAD_BYTES_MAX + DATAGRAM_BYTES;

fn header(class: Class, policy: u16, sequence: u64) -> Header {
    let step = PathElement::new(RelayId(2), LinkIndex::default());
    Header {
        kind: FrameKind::Session,
        class,
        ecn: FrameEcn::Capable,
        copy: false,
        hops_left: 8,
        position: 0,
        policy: PolicyId(policy),
        source: Address::default(),
        destination: Address { relay: RelayId(2), ..Address::default() },
        budget: Millis(300),
        flow: FlowId(1),
        sequence,
        path: Path::new(&[step]).unwrap(),
        alternate: None,
    }
}

fn payload(bytes: usize) -> Bytes {
    Bytes::from_static(&[0; PAYLOAD_BYTES_MAX]).slice(..bytes)
}

pub(crate) fn queued(class: Class, policy: u16, sequence: u64, bytes: usize) -> Queued {
    Queued::new(&header(class, policy, sequence), payload(bytes), false, Instant::now())
}

fn config(now: Instant) -> Config {
    Config::new(RelayId(1), BootId(1), LocalClock::new(now, Ticks(0), 0))
}

/// A lane, what it is configured with, and the time.
struct Bench {
    lane: LaneState,
    config: Config,
    now: Instant,
    sequence: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(8 << 20)
    }

    fn with(queue_bytes_max: usize) -> Self {
        let now = Instant::now();
        let config = Config { queue_bytes_max, ..config(now) };
        Self { lane: LaneState::new(&config), config, now, sequence: 0 }
    }

    fn push(&mut self, class: Class, policy: u16, bytes: usize) {
        self.try_push(class, policy, bytes).unwrap();
    }

    fn try_push(&mut self, class: Class, policy: u16, bytes: usize) -> Result<(), DropReason> {
        self.sequence += 1;
        self.lane.push(&header(class, policy, self.sequence), payload(bytes), false, self.now)
    }

    fn pop(&mut self) -> Option<Queued> {
        let left = self.lane.pop(&self.config, usize::MAX, self.now)?;
        self.lane.classes.take(left)
    }

    /// Takes `count` frames at once, and says of each what `key` says.
    fn take<T>(&mut self, count: usize, key: impl Fn(&Queued) -> T) -> Vec<T> {
        (0..count).map(|_| key(&self.pop().unwrap())).collect()
    }

    /// Frames dropped for want of room, for their age, and for their budget.
    fn shed(&self, class: Class) -> [u64; 3] {
        let QueueStats { evicted, aged, expired, .. } = self.lane.stats(class);
        [evicted, aged, expired]
    }
}

fn class(queued: &Queued) -> Class {
    queued.header.class
}

fn policy(queued: &Queued) -> u16 {
    queued.header.policy.0
}

#[test]
fn interactive_frames_go_first_and_bulk_ones_get_an_eighth() {
    let mut bench = Bench::new();
    for _ in 0..16 {
        bench.push(Class::Bulk, 0, 0);
        bench.push(Class::Interactive, 0, 0);
    }

    let first = bench.take(16, class);

    assert_eq!(first.iter().filter(|&&class| class == Class::Bulk).count(), 2);
    assert_eq!(first[..7], [Class::Interactive; 7]);
}

#[test]
fn bulk_gets_its_eighth_by_bytes_whatever_the_lengths() {
    for (small, large) in [(Class::Interactive, Class::Bulk), (Class::Bulk, Class::Interactive)] {
        let mut bench = Bench::new();
        for _ in 0..3_000 {
            bench.push(small, 0, 0);
            bench.push(large, 0, PAYLOAD_BYTES_MAX);
        }
        let mut cost = BTreeMap::new();
        for (class, bytes) in bench.take(1_000, |queued| (class(queued), queued.cost())) {
            *cost.entry(class).or_insert(0) += bytes;
        }
        let (interactive, bulk) = (cost[&Class::Interactive], cost[&Class::Bulk]);
        assert!(bulk.abs_diff(interactive / 7) <= COST_MAX, "{cost:?}");
    }
}

#[test]
fn what_bulk_sent_alone_is_not_held_against_it() {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        bench.push(Class::Bulk, 0, PAYLOAD_BYTES_MAX);
    }
    bench.take(900, class);
    for _ in 0..16 {
        bench.push(Class::Interactive, 0, PAYLOAD_BYTES_MAX);
    }
    let bulk = bench.take(16, class).iter().filter(|&&class| class == Class::Bulk).count();

    assert_eq!(bulk, 2);
}

#[test]
fn a_tenant_that_floods_waits_behind_itself() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        bench.push(Class::Bulk, 7, PAYLOAD_BYTES_MAX);
    }
    bench.push(Class::Bulk, 8, PAYLOAD_BYTES_MAX);
    bench.push(Class::Bulk, 9, 0);

    assert_eq!(bench.take(5, policy), [7, 8, 9, 7, 7]);
}

#[test]
fn small_frames_get_no_more_of_the_wire_than_large_ones() {
    let mut bench = Bench::new();
    for _ in 0..10_000 {
        bench.push(Class::Bulk, 1, 10);
        bench.push(Class::Bulk, 2, 600);
    }
    let mut cost = [0; 3];
    for (policy, bytes) in bench.take(8_000, |queued| (policy(queued), queued.cost())) {
        cost[usize::from(policy)] += bytes;
    }
    assert!(cost[1].abs_diff(cost[2]) <= 2 * COST_MAX, "{cost:?}");
}

#[test]
fn what_waited_too_long_is_dropped_and_waiting_is_taken_off_the_budget() {
    let mut bench = Bench::new();
    bench.push(Class::Bulk, 0, 0);
    bench.now += bench.config.queue_age_max + MILLI;
    bench.push(Class::Bulk, 0, 0);

    bench.now += 100 * MILLI;
    let mut queued = bench.pop().unwrap();
    queued.spend_waiting(bench.now);

    assert_eq!(queued.header.budget, Millis(200));
    assert_eq!(bench.shed(Class::Bulk), [0, 1, 0]);
    assert!(bench.lane.is_empty() && bench.lane.classes.cost() == 0);
}

#[test]
fn only_realtime_frames_are_dropped_when_their_budget_is_used_up() {
    let mut bench = Bench::new();
    for class in Class::ALL {
        bench.push(class, 0, 0);
        bench.push(class, 0, 0);
    }
    bench.now += 301 * MILLI;

    assert_eq!(bench.take(4, class)[..2], [Class::Interactive; 2]);
    assert_eq!(bench.shed(Class::Realtime), [0, 0, 2]);
    assert!(bench.pop().is_none());
}

#[test]
fn a_realtime_frame_without_a_budget_keeps_to_the_hard_age() {
    let mut bench = Bench::new();
    let endless = Header { budget: Millis(u16::MAX), ..header(Class::Realtime, 0, 1) };
    for _ in 0..2 {
        bench.lane.push(&endless, payload(0), false, bench.now).unwrap();
        bench.now += bench.config.queue_age_max;
    }
    bench.now += MILLI;

    assert!(bench.pop().is_none());
    assert_eq!(bench.shed(Class::Realtime), [0, 2, 0]);
}

#[test]
fn who_floods_gives_way_to_a_newcomer_with_his_oldest_frame() {
    let mut bench = Bench::with(100 * FULL);
    for _ in 0..200 {
        bench.push(Class::Bulk, 1, PAYLOAD_BYTES_MAX);
    }
    bench.push(Class::Bulk, 2, PAYLOAD_BYTES_MAX);

    bench.pop();
    let shed: Vec<_> = bench.lane.take_shed().filter(|&(_, count)| count > 0).collect();
    assert_eq!(shed, [(DropReason::QueueFull, 101)]);
    assert_eq!(bench.take(2, |queued| queued.header.sequence), [201, 103]);
    assert_eq!(bench.shed(Class::Bulk), [101, 0, 0]);
}

#[test]
fn bulk_gives_way_to_interactive_but_keeps_an_eighth_of_the_room() {
    let mut bench = Bench::with(800 * FULL);
    for _ in 0..800 {
        bench.push(Class::Bulk, 1, PAYLOAD_BYTES_MAX);
    }
    for _ in 0..2_000 {
        bench.push(Class::Interactive, 1, PAYLOAD_BYTES_MAX);
    }
    let waiting = |class| bench.lane.stats(class).waiting;
    assert_eq!((waiting(Class::Interactive), waiting(Class::Bulk)), (700, 100));

    for _ in 0..1_000 {
        bench.push(Class::Bulk, 2, PAYLOAD_BYTES_MAX);
    }
    let waiting = |class| bench.lane.stats(class).waiting;
    assert_eq!((waiting(Class::Interactive), waiting(Class::Bulk)), (700, 100));
}

#[test]
fn interactive_alone_does_not_keep_bulk_out() {
    let mut bench = Bench::with(800 * FULL);
    for _ in 0..800 {
        bench.push(Class::Interactive, 1, PAYLOAD_BYTES_MAX);
    }
    for _ in 0..200 {
        bench.push(Class::Bulk, 2, PAYLOAD_BYTES_MAX);
    }
    assert_eq!(bench.lane.stats(Class::Bulk).waiting, 100);
}

#[test]
fn a_frame_for_which_nobody_can_give_way_is_refused() {
    let mut bench = Bench::with(FULL - 1);
    let refused = bench.try_push(Class::Bulk, 1, PAYLOAD_BYTES_MAX);
    assert_eq!(refused, Err(DropReason::QueueFull));
    bench.push(Class::Bulk, 1, 0);
}

/// Sends a frame of each tenant a millisecond, takes `per_ms` frames in it, and counts the marks of each.
fn marks(class: Class, ms: usize, per_ms: usize, tenants: &[(u16, usize)]) -> BTreeMap<u16, usize> {
    let mut bench = Bench::new();
    let mut marks: BTreeMap<u16, usize> = tenants.iter().map(|&(tenant, _)| (tenant, 0)).collect();
    for _ in 0..ms {
        bench.now += MILLI;
        for &(tenant, frames) in tenants {
            (0..frames).for_each(|_| bench.push(class, tenant, PAYLOAD_BYTES_MAX));
        }
        for _ in 0..per_ms {
            let Some(queued) = bench.pop() else { break };
            let marked = queued.header.ecn == FrameEcn::CongestionExperienced;
            *marks.get_mut(&policy(&queued)).unwrap() += usize::from(marked);
        }
    }
    assert_eq!(bench.shed(class), [0; 3]);
    marks
}

#[test]
fn who_fills_a_queue_is_marked_and_who_sends_little_is_not() {
    let marks = marks(Class::Bulk, 500, 10, &[(1, 10), (2, 1)]);
    assert!(marks[&1] >= 4 && marks[&2] == 0, "{marks:?}");
}

#[test]
fn a_queue_that_empties_is_not_marked() {
    assert_eq!(marks(Class::Bulk, 2_000, 10, &[(1, 5), (2, 5)]), [(1, 0), (2, 0)].into());
}

#[test]
fn realtime_queues_are_marked_sooner() {
    let at_40_ms = |class| marks(class, 40, 2, &[(1, 3)])[&1];
    assert_eq!((at_40_ms(Class::Realtime), at_40_ms(Class::Bulk)), (1, 0));
}

#[test]
fn frames_whose_ends_do_not_react_are_neither_marked_nor_dropped() {
    let mut bench = Bench::new();
    let deaf = Header { ecn: FrameEcn::NotCapable, ..header(Class::Bulk, 0, 1) };
    for _ in 0..900 {
        bench.now += MILLI;
        bench.lane.push(&deaf, payload(PAYLOAD_BYTES_MAX), false, bench.now).unwrap();
        bench.lane.push(&deaf, payload(PAYLOAD_BYTES_MAX), false, bench.now).unwrap();
        assert_eq!(bench.pop().unwrap().header.ecn, FrameEcn::NotCapable);
    }
    let stats = bench.lane.stats(Class::Bulk);
    assert_eq!((stats.marked, stats.waiting), (0, 900));
    assert_eq!(bench.shed(Class::Bulk), [0; 3]);
    assert_eq!(stats.waited_max, 450 * MILLI);
}

#[test]
fn thousands_of_tenants_share_a_bounded_number_of_queues_in_order() {
    let mut bench = Bench::with(64 << 20);
    let tenants = || (0..=u16::MAX).step_by(7);
    for _ in 0..3 {
        tenants().for_each(|tenant| bench.push(Class::Bulk, tenant, 0));
    }
    let mut last = BTreeMap::new();
    for (tenant, sequence) in
        bench.take(3 * tenants().count(), |queued| (policy(queued), queued.header.sequence))
    {
        assert!(last.insert(tenant, sequence) < Some(sequence));
    }
    assert!(bench.lane.is_empty());
}

#[test]
fn what_was_not_acknowledged_goes_before_what_waits() {
    let mut bench = Bench::new();
    (0..4).for_each(|_| bench.push(Class::Bulk, 5, 0));
    for number in 0..2 {
        let queued = bench.pop().unwrap();
        let frame = encode(number, &queued.header, &queued.payload).slice(hop::DATA_PREFIX_BYTES..);
        bench.lane.ring.push(number, frame, false, bench.now);
    }

    bench.lane.requeue_unacknowledged(bench.now);

    assert_eq!(bench.take(4, |queued| queued.header.sequence), [1, 2, 3, 4]);
}

#[test]
fn failover_sees_every_frame_higher_classes_first() {
    let mut bench = Bench::new();
    for (class, tenant) in [(Class::Bulk, 1), (Class::Interactive, 2), (Class::Interactive, 1)] {
        (0..2).for_each(|_| bench.push(class, tenant, 0));
    }
    bench.lane.waiting().for_each(|queued| queued.copied = queued.header.sequence % 2 == 0);

    let (_, queued) = bench.lane.take_unacknowledged(bench.now);

    let seen: Vec<_> =
        queued.iter().map(|queued| (queued.header.sequence, queued.copied)).collect();
    assert_eq!(seen, [(3, false), (4, true), (5, false), (6, true), (1, false), (2, true)]);
    assert!(bench.lane.is_empty() && bench.lane.classes.cost() == 0);

    (0..3).for_each(|_| bench.push(Class::Bulk, 1, 0));
    assert_eq!((bench.lane.clear(), bench.lane.clear()), (3, 0));
}

/// What may happen to a lane.
#[derive(Clone, Debug)]
enum Step {
    Push { class: Class, tenant: u16, bytes: usize },
    Pop { count: usize },
    Sleep { ms: u64 },
    Requeue { class: Class, tenant: u16 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let class = || prop_oneof![Just(Class::Interactive), Just(Class::Bulk)];
    // Ids that meet in a queue, and few others.
    let tenant = || prop_oneof![0_u16..3, 256_u16..258, 0_u16..600];
    prop_oneof![
        6 => (class(), tenant(), 0..=PAYLOAD_BYTES_MAX)
            .prop_map(|(class, tenant, bytes)| Step::Push { class, tenant, bytes }),
        2 => (1_usize..6).prop_map(|count| Step::Pop { count }),
        1 => (0_u64..400).prop_map(|ms| Step::Sleep { ms }),
        1 => (class(), tenant()).prop_map(|(class, tenant)| Step::Requeue { class, tenant }),
    ]
}

proptest! {
    #[test]
    fn frames_leave_in_order_or_are_counted_and_bytes_stay_in_bounds(
        steps in proptest::collection::vec(any_step(), 1..800),
    ) {
        let mut bench = Bench::with(100 * COST_MAX);
        let mut waiting: BTreeMap<(Class, u16), VecDeque<u64>> = BTreeMap::new();
        let (mut missing, mut dropped) = (0, 0);
        for step in steps {
            match step {
                Step::Push { class, tenant, bytes } => {
                    bench.push(class, tenant, bytes);
                    waiting.entry((class, tenant)).or_default().push_back(bench.sequence);
                }
                Step::Requeue { class, tenant } => {
                    bench.sequence += 1;
                    let queued = Queued { since: bench.now, ..queued(class, tenant, bench.sequence, 0) };
                    if bench.lane.classes.push_front(queued) {
                        waiting.entry((class, tenant)).or_default().push_front(bench.sequence);
                    }
                }
                Step::Sleep { ms } => bench.now += Duration::from_millis(ms),
                Step::Pop { count } => for _ in 0..count {
                    let Some(queued) = bench.pop() else { break };
                    let expected = waiting.get_mut(&(queued.header.class, queued.header.policy.0)).unwrap();
                    // Those before it were dropped.
                    while let Some(sequence) = expected.pop_front()
                        && sequence != queued.header.sequence
                    {
                        missing += 1;
                    }
                },
            }
            prop_assert!(bench.lane.classes.cost() <= 100 * COST_MAX);
        }
        let left: Vec<_> = bench.lane.waiting().map(|queued| queued.cost()).collect();
        prop_assert_eq!(bench.lane.classes.cost(), left.iter().sum::<usize>());
        // Every frame that did not come out still waits, or was counted.
        dropped += bench.lane.classes.take_untold().iter().sum::<u64>();
        let held: usize = waiting.values().map(VecDeque::len).sum();
        prop_assert_eq!(held + missing, left.len() + usize::try_from(dropped).unwrap());
    }

    /// Three quanta are the bound of deficit round robin over any time; see Shreedhar and Varghese, theorem 2.
    #[test]
    fn tenants_that_always_have_frames_send_as_much_within_three_quanta(
        lengths in proptest::collection::vec(
            proptest::collection::vec(0..=PAYLOAD_BYTES_MAX, 1..8), 2..5,
        ),
        others in proptest::collection::vec((100_u16..110, 0..=PAYLOAD_BYTES_MAX), 0..400),
        takes in 50_usize..400,
    ) {
        let mut bench = Bench::with(usize::MAX);
        let tenants = lengths.len();
        for at in 0..400 {
            for (tenant, lengths) in (0..).zip(&lengths) {
                bench.push(Class::Bulk, tenant, lengths[at % lengths.len()]);
            }
        }
        let mut others = others.into_iter();
        let mut sent = vec![0_isize; tenants];
        let mut range = vec![(0, 0); tenants * tenants];
        for _ in 0..takes {
            if let Some((tenant, bytes)) = others.next() {
                bench.push(Class::Bulk, tenant, bytes);
            }
            let queued = bench.pop().unwrap();
            if let Some(sent) = sent.get_mut(usize::from(policy(&queued))) {
                *sent += isize::try_from(queued.cost()).unwrap();
            }
            for (at, range) in range.iter_mut().enumerate() {
                let ahead = sent[at / tenants] - sent[at % tenants];
                *range = (range.0.min(ahead), range.1.max(ahead));
                prop_assert!(range.1 - range.0 <= 3 * isize::try_from(COST_MAX).unwrap());
            }
        }
    }
}
