//! What a relay and a scheduler do with what the other says.

use std::time::{Duration, Instant};

use overway_probe::LocalClock;
use overway_relay_core::{Config, Relay};
use overway_scheduler_core::Scheduler;
use overway_wire::control::{Hello, ToRelay, ToScheduler, VERSION_MAX, VERSION_MIN, to_relay};
use overway_wire::{BootId, Class, RelayId, Ticks};
use prost::Message as _;

/// A relay takes messages, each behind its length as two bytes, and stays able to answer.
pub fn to_relay(bytes: &[u8]) {
    let start = Instant::now();
    let clock = LocalClock::new(start, Ticks(0), 0);
    let mut relay = Relay::new(Config::new(RelayId(1), BootId(1), clock));
    for (at, message) in (1..).zip(pieces(bytes)) {
        let now = start + Duration::from_millis(at);
        let Ok(ToRelay { body: Some(to_relay::Body::Update(update)) }) = ToRelay::decode(message)
        else {
            continue;
        };
        let (before, base) = (relay.pushed().revision(), update.base);
        let ack = relay.handle_update(update, now);
        assert_eq!(ack.revision, relay.pushed().revision());
        assert!(base == 0 || base == before || ack.resync, "an update of another base was taken");
        // What was taken can be saved, and restored.
        let mut other = Relay::new(Config::new(RelayId(1), BootId(2), clock));
        if relay.pushed().revision() > 0 {
            other.restore(relay.pushed().to_update(), now).expect("it was taken before");
        }
        for &destination in relay.fib().names.keys().take(8) {
            for class in Class::ALL {
                relay.choose(destination, class, now);
            }
        }
        relay.link_reports(now);
    }
}

/// A scheduler with three members takes messages from one, each behind its length as two bytes, and goes on planning.
pub fn to_scheduler(bytes: &[u8]) {
    let start = Instant::now();
    let mut scheduler = Scheduler::new(overway_scheduler_core::Config::default(), 1, start);
    for id in 1..=3_u16 {
        scheduler.handle_member(RelayId(id), format!("r{id}"));
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            name: format!("r{id}"),
            addresses: vec![format!("127.0.0.1:{id}")],
            ..Hello::default()
        };
        scheduler.handle_hello(RelayId(id), hello, start).expect("it is a member");
    }
    let mut now = start;
    for message in pieces(bytes) {
        now += Duration::from_millis(250);
        if let Ok(message) = ToScheduler::decode(message) {
            // Refused or not: it goes on.
            let _ = scheduler.handle_message(RelayId(1), message, now);
        }
        scheduler.handle_timeout(now);
        while let Some((relay, message)) = scheduler.poll_transmit() {
            assert!((1..=3).contains(&relay.0));
            assert!(message.encoded_len() <= overway_wire::control::MESSAGE_BYTES_MAX);
        }
        while scheduler.poll_event().is_some() {}
    }
}

/// Bytes cut into messages, at most sixty-four.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next = move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        bytes = rest;
        Some(piece)
    };
    std::iter::from_fn(next).take(64)
}
