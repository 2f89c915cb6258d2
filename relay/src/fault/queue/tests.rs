use super::*;
use proptest::prelude::*;

const BUFFER_BYTES: usize = 64 * 1_500;

fn source(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn lines(rule: Rule) -> Lines {
    Lines::new(7, Arc::new([(source(1), rule)].into()))
}

fn meta(from: SocketAddr, len: usize, stride: usize) -> RecvMeta {
    RecvMeta { addr: from, len, stride, ecn: None, dst_ip: None }
}

/// Hands in one datagram which holds `number`.
fn receive(lines: &mut Lines, from: SocketAddr, number: u32, now: Instant) {
    lines.handle_received(&meta(from, 4, 4), &number.to_be_bytes(), now);
}

/// Takes out all that is due, as the numbers it holds by source.
fn due(lines: &mut Lines, now: Instant) -> Vec<(SocketAddr, u32)> {
    let mut buffer = [0; BUFFER_BYTES];
    let mut taken = Vec::new();
    while let Some(run) = lines.poll_run(now, &mut buffer) {
        for number in buffer[..run.len].chunks(run.stride) {
            taken.push((run.addr, u32::from_be_bytes(number.try_into().unwrap())));
        }
    }
    taken
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_datagram_is_due_after_its_delay_and_not_before() {
    let now = Instant::now();
    let mut lines = lines(Rule { delay: millis(40), ..Rule::default() });

    receive(&mut lines, source(1), 5, now);

    assert_eq!(lines.poll_timeout(), Some(now + millis(40)));
    assert_eq!(due(&mut lines, now + millis(40) - Duration::from_nanos(1)), []);
    assert_eq!(due(&mut lines, now + millis(40)), [(source(1), 5)]);
    assert_eq!(lines.poll_timeout(), None);
}

#[test]
fn jitter_stays_within_its_bounds_on_a_sparse_flow() {
    let mut now = Instant::now();
    let mut lines = lines(Rule { delay: millis(40), jitter: millis(10), ..Rule::default() });
    let mut total = Duration::ZERO;

    for number in 0..1_000 {
        receive(&mut lines, source(1), number, now);
        let delay = lines.poll_timeout().unwrap() - now;
        assert!((millis(40)..millis(50)).contains(&delay), "{delay:?}");
        total += delay;
        now += millis(100);
        assert_eq!(due(&mut lines, now).len(), 1);
    }

    let mean = total / 1_000;
    assert!((millis(44)..millis(46)).contains(&mean), "{mean:?}");
}

fn losses(rule: Rule, count: usize) -> Vec<bool> {
    let now = Instant::now();
    let mut lines = lines(rule);
    (0..count)
        .map(|_| {
            receive(&mut lines, source(1), 0, now);
            due(&mut lines, now).is_empty()
        })
        .collect()
}

fn share_and_mean_burst(losses: &[bool]) -> (f64, f64) {
    let lost = losses.iter().filter(|&&lost| lost).count() as f64;
    let bursts = losses.chunk_by(|a, b| a == b).filter(|run| run[0]).count() as f64;
    (lost / losses.len() as f64, lost / bursts)
}

#[test]
fn losses_have_the_configured_share_and_mean_burst() {
    for (loss, loss_burst) in [(0.01, 1.0), (0.15, 1.0), (0.03, 4.0), (0.3, 10.0)] {
        let rule = Rule { loss, loss_burst, ..Rule::default() };

        let (share, burst) = share_and_mean_burst(&losses(rule, 200_000));

        assert!((share / loss - 1.0).abs() < 0.1, "share {share} of {loss}");
        let wanted = loss_burst.max(1.0 / (1.0 - loss));
        assert!((burst / wanted - 1.0).abs() < 0.1, "burst {burst} of {wanted}");
    }
}

#[test]
fn a_share_of_one_loses_everything_and_none_loses_nothing() {
    let all = Rule { loss: 1.0, ..Rule::default() };
    assert!(losses(all, 100).into_iter().all(|lost| lost));
    assert!(!losses(Rule::default(), 100).into_iter().any(|lost| lost));
}

#[test]
fn the_same_seed_meets_the_same_losses_whatever_other_sources_do() {
    let rule = Rule { loss: 0.5, ..Rule::default() };
    let alone = losses(rule, 200);

    let now = Instant::now();
    let rules: Rules = [(source(1), rule), (source(2), rule)].into();
    let mut both = Lines::new(7, Arc::new(rules));
    let together: Vec<bool> = (0..200)
        .map(|number| {
            receive(&mut both, source(2), number, now);
            receive(&mut both, source(1), number, now);
            !due(&mut both, now).contains(&(source(1), number))
        })
        .collect();

    assert_eq!(alone, together);
}

#[test]
fn a_bottleneck_spaces_datagrams_and_drops_its_tail() {
    let now = Instant::now();
    // 125 bytes take 1 ms at 1 Mbit/s.
    let rate = Some(BitsPerSec(1_000_000));
    let mut lines = lines(Rule { rate, queue: millis(10), ..Rule::default() });

    lines.handle_received(&meta(source(1), 2_500, 125), &[0; 2_500], now);

    // The one in service, ten waiting up to 10 ms; the other nine of twenty find the queue full.
    assert_eq!(lines.stats().overflowed, 9);
    for served in 1..=11 {
        assert_eq!(lines.poll_timeout(), Some(now + millis(served)));
        let mut buffer = [0; BUFFER_BYTES];
        assert_eq!(lines.poll_run(now + millis(served), &mut buffer).unwrap().len, 125);
    }
    assert_eq!(lines.poll_timeout(), None);
}

#[test]
fn what_is_under_way_from_one_source_is_bounded() {
    let now = Instant::now();
    let mut lines = lines(Rule { delay: millis(1_000), ..Rule::default() });
    let burst = vec![0; 64 * 1_200];

    let bursts = 2 * QUEUE_BYTES_MAX / burst.len();
    for _ in 0..bursts {
        lines.handle_received(&meta(source(1), burst.len(), 1_200), &burst, now);
    }

    let held = lines.lines[&source(1)].queued_bytes;
    assert!(held <= QUEUE_BYTES_MAX && held > QUEUE_BYTES_MAX - 2_000, "{held}");
    let queued = (held / (1_200 + PACKET_OVERHEAD_BYTES)) as u64;
    assert_eq!(lines.stats().crowded, bursts as u64 * 64 - queued);
}

#[test]
fn a_run_joins_equal_lengths_and_ends_with_a_shorter_one() {
    let now = Instant::now();
    let mut lines = lines(Rule::default());
    for length in [100, 100, 60, 100, 120] {
        lines.handle_received(&meta(source(1), length, length), &vec![1; length], now);
    }
    let marked = RecvMeta { ecn: Some(EcnCodepoint::Ce), ..meta(source(1), 120, 120) };
    lines.handle_received(&marked, &[1; 120], now);

    let mut buffer = [0; BUFFER_BYTES];
    let runs = std::iter::from_fn(|| lines.poll_run(now, &mut buffer));
    let shapes: Vec<_> = runs.map(|run| (run.len, run.stride, run.ecn)).collect();

    let ce = Some(EcnCodepoint::Ce);
    assert_eq!(shapes, [(260, 100, None), (100, 100, None), (120, 120, None), (120, 120, ce)]);
}

#[test]
fn a_run_fills_the_buffer_and_no_more() {
    let now = Instant::now();
    let mut lines = lines(Rule::default());
    lines.handle_received(&meta(source(1), 900, 100), &[1; 900], now);
    lines.handle_received(&meta(source(1), 500, 500), &[1; 500], now);

    let mut buffer = [0; 450];
    let runs = std::iter::from_fn(|| lines.poll_run(now, &mut buffer));

    assert_eq!(runs.map(|run| run.len).collect::<Vec<_>>(), [400, 400, 100]);
    assert_eq!(lines.stats().oversize, 1);
}

#[test]
fn a_cut_drops_what_is_under_way_and_all_that_comes() {
    let now = Instant::now();
    let rule = Rule { delay: millis(40), ..Rule::default() };
    let mut lines = lines(rule);
    receive(&mut lines, source(1), 1, now);

    lines.handle_rules(Arc::new([(source(1), Rule { cut: true, ..rule })].into()));
    assert_eq!(lines.poll_timeout(), None);
    receive(&mut lines, source(1), 2, now);
    assert_eq!(due(&mut lines, now + millis(100)), []);
    assert_eq!(lines.stats().cut, 2);

    lines.handle_rules(Arc::new([(source(1), rule)].into()));
    receive(&mut lines, source(1), 3, now);
    assert_eq!(due(&mut lines, now + millis(40)), [(source(1), 3)]);
}

#[test]
fn a_line_without_its_rule_delivers_what_it_holds_and_ends() {
    let now = Instant::now();
    let mut lines = lines(Rule { delay: millis(40), ..Rule::default() });
    receive(&mut lines, source(1), 1, now);

    lines.handle_rules(Arc::default());
    receive(&mut lines, source(1), 2, now);
    assert!(lines.has_line(source(1)), "or 2 would overtake 1");

    assert_eq!(due(&mut lines, now + millis(40)), [(source(1), 1), (source(1), 2)]);
    assert!(!lines.has_line(source(1)));
}

fn arb_rule() -> impl Strategy<Value = Rule> {
    let times = (0..50_u64, 0..20_u64, 0..20_u64);
    (times, 0.0..0.6, 1.0..5.0, proptest::option::of(1_000..10_000_000_u64)).prop_map(
        |((delay, jitter, queue), loss, loss_burst, rate)| Rule {
            delay: millis(delay),
            jitter: millis(jitter),
            loss,
            loss_burst,
            rate: rate.map(BitsPerSec),
            queue: millis(queue),
            mtu: None,
            cut: false,
        },
    )
}

proptest! {
    #[test]
    fn each_source_keeps_its_order_and_every_datagram_is_accounted_for(
        seed: u64,
        rules in proptest::collection::vec(arb_rule(), 2..5),
        arrivals in proptest::collection::vec((0..3_u64, 0..2_u16), 1..200),
    ) {
        let start = Instant::now();
        let mut now = start;
        let in_force = |index: usize| -> Rules {
            (0..2).map(|port| (source(port), rules[(index + usize::from(port)) % rules.len()])).collect()
        };
        let mut lines = Lines::new(seed, Arc::new(in_force(0)));
        let mut delivered: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
        let mut take = |lines: &mut Lines, now| {
            for (from, number) in due(lines, now) {
                delivered.entry(from).or_default().push(number);
            }
        };

        for (number, &(pause, port)) in (0..).zip(&arrivals) {
            now += millis(pause);
            take(&mut lines, now);
            if number % 50 == 49 {
                lines.handle_rules(Arc::new(in_force(number as usize / 50)));
            }
            receive(&mut lines, source(port), number, now);
        }
        while let Some(next) = lines.poll_timeout() {
            prop_assert!(next < now + Duration::from_secs(60));
            take(&mut lines, next);
        }

        let count: usize = delivered.values().map(Vec::len).sum();
        let stats = lines.stats();
        prop_assert!(delivered.values().all(|numbers| numbers.is_sorted()));
        prop_assert_eq!(stats.delivered, count as u64);
        prop_assert_eq!(stats.delivered + stats.lost + stats.overflowed, arrivals.len() as u64);
    }
}
