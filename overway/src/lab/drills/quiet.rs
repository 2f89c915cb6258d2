//! What goes wrong while nobody disturbs anything.

use std::time::{Duration, Instant};

use crate::lab::world::World;

/// Counters of all relays together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Links that went down.
    pub downs: u64,
    /// Links that became suspect.
    pub suspects: u64,
    /// Times that a relay woke late.
    pub self_stalls: u64,
}

/// Undisturbed time, in pieces.
#[derive(Debug, Default)]
pub struct Quiet {
    total: Duration,
    seen: Counters,
    since: Option<(Instant, Counters)>,
}

impl Counters {
    /// Reads the counters of all relays.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn read(world: &World) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for relay in 0..world.profile().relays().len() {
            let status = world.relay_status(relay)?;
            sum.downs += status.downs;
            sum.suspects += status.suspects;
            sum.self_stalls += status.self_stalls;
        }
        Ok(sum)
    }
}

impl Quiet {
    /// From now on nothing is disturbed.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn begin(&mut self, world: &World) -> anyhow::Result<()> {
        self.since = Some((Instant::now(), Counters::read(world)?));
        Ok(())
    }

    /// Until now nothing was disturbed.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn end(&mut self, world: &World) -> anyhow::Result<()> {
        let Some((since, before)) = self.since.take() else { return Ok(()) };
        let now = Counters::read(world)?;
        self.total += since.elapsed();
        self.seen.downs += now.downs.saturating_sub(before.downs);
        self.seen.suspects += now.suspects.saturating_sub(before.suspects);
        self.seen.self_stalls += now.self_stalls.saturating_sub(before.self_stalls);
        Ok(())
    }

    /// Undisturbed time so far.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// What happened in it.
    pub fn seen(&self) -> Counters {
        self.seen
    }

    /// Downs per hour of it.
    pub fn downs_per_hour(&self) -> f64 {
        self.seen.downs as f64 * 3_600.0 / self.total.as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downs_are_scaled_to_an_hour() {
        let seen = Counters { downs: 2, ..Counters::default() };
        let quiet = Quiet { total: Duration::from_secs(60), seen, since: None };

        assert!((quiet.downs_per_hour() - 120.0).abs() < 1e-9);
        assert_eq!(Quiet::default().downs_per_hour(), 0.0);
    }
}
