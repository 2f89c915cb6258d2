//! What users feel, as relays tell it.

use std::time::{Duration, Instant};

use overway_quality::Felt;
use overway_wire::quality::Quality;
use overway_wire::{PolicyId, RelayId};

use super::Scheduler;
use crate::quality::{QualityKey, QualityStatus};

impl Scheduler {
    /// Takes what users feel at a relay.
    pub(super) fn take_quality(&mut self, id: RelayId, quality: Quality) {
        let registration = self.relays.get(&id).and_then(|relay| relay.registration.as_ref());
        let region = registration.map(|registration| registration.region.clone());
        let taken = self.qualities.take(region.as_deref().unwrap_or_default(), quality, self.now);
        self.stats.qualities += 1;
        self.stats.qualities_refused += taken.refused;
        self.stats.qualities_other += taken.other;
    }

    /// What users felt in the last `window`, at most `QUALITY_WINDOW_MAX`, and up to half a minute more; in order of
    /// the keys.
    pub fn quality(&self, window: Duration, now: Instant) -> Vec<QualityStatus> {
        let name = |tenant: PolicyId| self.tenants.get(&tenant).map(|tenant| tenant.name.clone());
        let within = self.qualities.within(window, now);
        let status = |(key, felt, totals): (&QualityKey, Felt, &Felt)| QualityStatus {
            key: key.clone(),
            tenant_name: name(key.tenant),
            felt,
            totals: totals.clone(),
        };
        within.map(status).collect()
    }
}
