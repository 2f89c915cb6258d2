//! What tenants have sent, kept in the store.
//!
//! Relays report sums, not differences; so what is not kept yet when the scheduler ends is reported again, unless the
//! relay ends too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use overway_scheduler_core::RelayUsage;
use overway_wire::{PolicyId, RelayId};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::control::Shared;

/// How often what changed is kept: of a relay and a scheduler that end together so much is lost.
const KEEP_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Message)]
struct UsageMessage {
    #[prost(message, repeated, tag = "1")]
    relays: Vec<RelayMessage>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct RelayMessage {
    #[prost(uint32, tag = "1")]
    relay: u32,
    #[prost(uint32, tag = "2")]
    month: u32,
    #[prost(uint32, tag = "3")]
    boot: u32,
    #[prost(uint64, tag = "4")]
    kept_bytes: u64,
    #[prost(uint64, tag = "5")]
    counted_bytes: u64,
}

/// What of a tenant's usage outlasts the process.
fn encode(usage: &[RelayUsage]) -> Vec<u8> {
    let relay = |usage: &RelayUsage| {
        let RelayUsage { relay, month, boot, kept_bytes, counted_bytes, .. } = *usage;
        RelayMessage { relay: relay.0.into(), month, boot, kept_bytes, counted_bytes }
    };
    UsageMessage { relays: usage.iter().map(relay).collect() }.encode_to_vec()
}

/// What was kept; nothing of what makes no sense.
pub(crate) fn decode(record: &[u8]) -> Vec<RelayUsage> {
    let message = UsageMessage::decode(record).unwrap_or_default();
    let relay = |message: &RelayMessage| {
        let RelayMessage { relay, month, boot, kept_bytes, counted_bytes } = *message;
        let relay = RelayId(u16::try_from(relay).ok()?);
        let counts =
            RelayUsage { relay, month, boot, kept_bytes, counted_bytes, ..RelayUsage::default() };
        Some(counts)
    };
    message.relays.iter().filter_map(relay).collect()
}

/// Keeps what changed, again and again.
pub(crate) async fn keep(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut kept = BTreeMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(KEEP_EVERY)).await.is_some() {
        let look = shared.driver.look(|core, _| core.usage().collect::<Vec<_>>()).await;
        // The scheduler stops.
        let Ok(usage) = look else { return Ok(()) };
        let usage: BTreeMap<PolicyId, Vec<u8>> =
            usage.iter().map(|(number, usage)| (*number, encode(usage))).collect();
        if usage == kept {
            continue;
        }
        let wanted = usage.clone();
        match shared.registry_call(move |registry| registry.keep_usage(&wanted)).await {
            Ok(()) => kept = usage,
            Err(error) => warn!(%error, "cannot keep what tenants have sent"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_and_read_back_without_what_is_of_the_moment() {
        let usage = RelayUsage {
            relay: RelayId(3),
            attachments: 5,
            flows: 6,
            month: 24_322,
            boot: 7,
            kept_bytes: 8,
            counted_bytes: 9,
        };

        let read = decode(&encode(&[usage]));

        assert_eq!(read, [RelayUsage { attachments: 0, flows: 0, ..usage }]);
        assert!(decode(&[0xff; 3]).is_empty());
    }
}
