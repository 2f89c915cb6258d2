//! The small pieces of a frame's way: reading its header, looking up a route, the queue and ring of a transit relay, a
//! number that came before.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use overway_relay_core::Shard;
use overway_wire::hop::{HopMessage, Lane};
use overway_wire::{Class, Header, PolicyId, RelayId};

#[path = "../tests/chain/mod.rs"]
mod chain;

use chain::Chain;

const BATCH: usize = 64;

fn header(c: &mut Criterion) {
    let message = Chain::new(Shard::default(), 1).batch(Class::Bulk, 1, 1_200).remove(0);
    let (_, frame) = HopMessage::decode(&message)
        .expect("a relay wrote it")
        .frames()
        .next()
        .expect("it has one");
    c.bench_function("header decode", |b| b.iter(|| Header::decode(black_box(frame))));
    let (header, _) = Header::decode(frame).expect("a relay wrote it");
    let mut out = Vec::with_capacity(64);
    c.bench_function("header encode", |b| {
        b.iter(|| {
            out.clear();
            black_box(&header).encode(&mut out);
        });
    });
}

fn fib(c: &mut Criterion) {
    let chain = Chain::new(Shard::default(), 1);
    let fib = chain.relays[0].fib();
    c.bench_function("route look-up", |b| {
        b.iter(|| fib.route(black_box(RelayId(3)), Class::Bulk, PolicyId::default()).len());
    });
}

/// A batch through the middle relay: recovery, queue, ring and the message that goes out, for each frame.
fn transit(c: &mut Criterion) {
    let mut group = c.benchmark_group("transit");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, class, payload) in [
        ("bulk 1200", Class::Bulk, 1_200),
        ("bulk 160", Class::Bulk, 160),
        ("realtime 160", Class::Realtime, 160),
    ] {
        let mut chain = Chain::new(Shard::default(), 1);
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let messages = chain.batch(class, BATCH, payload);
                    let mut out = Vec::with_capacity(BATCH);
                    let start = Instant::now();
                    chain.transit(Lane::of(class), messages.into_iter(), |lane, message| {
                        out.push((lane, message));
                    });
                    sum += start.elapsed();
                    for (lane, message) in out {
                        chain.hand((1, RelayId(3)), lane, &message);
                    }
                    chain.settle(Duration::from_millis(1));
                }
                sum
            });
        });
    }
    group.finish();
}

/// Frames that came before: what a replayed sequence costs.
fn duplicates(c: &mut Criterion) {
    let mut chain = Chain::new(Shard::default(), 1);
    let messages = chain.batch(Class::Bulk, BATCH, 1_200);
    chain.transit(Lane::Bulk, messages.iter().cloned(), |_, _| {});
    let mut group = c.benchmark_group("duplicate");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("bulk 1200", |b| {
        b.iter(|| chain.transit(Lane::Bulk, messages.iter().cloned(), |_, _| {}));
    });
    group.finish();
}

criterion_group!(small, header, fib, transit, duplicates);
criterion_main!(small);
