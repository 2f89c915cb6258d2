//! Disturbing the lines between relays, through the receiving relays' fault interface.

use std::sync::PoisonError;

use anyhow::{Context, bail};
use overway_relay::fault::RawRule;

use super::World;

/// What is done to a line, on top of what the profile says.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Degradation {
    /// Share of datagrams lost, instead of the profile's.
    pub loss: Option<f64>,
    /// Additional delay in milliseconds.
    pub delay_ms: f64,
    /// Greatest additional jitter in milliseconds.
    pub jitter_ms: f64,
    /// A bottleneck in Mbit/s, instead of the profile's.
    pub rate_mbps: Option<f64>,
    /// Nothing passes.
    pub cut: bool,
}

impl Degradation {
    /// Nothing passes.
    pub const CUT: Self =
        Self { loss: None, delay_ms: 0.0, jitter_ms: 0.0, rate_mbps: None, cut: true };

    /// The rule that a line's own becomes.
    fn applied(&self, rule: &RawRule) -> RawRule {
        let Self { loss, delay_ms, jitter_ms, rate_mbps, cut } = *self;
        RawRule {
            loss: loss.unwrap_or(rule.loss),
            delay_ms: rule.delay_ms + delay_ms,
            jitter_ms: rule.jitter_ms + jitter_ms,
            rate_mbps: rate_mbps.or(rule.rate_mbps),
            cut,
            ..rule.clone()
        }
    }
}

impl World {
    /// Disturbs the line from one relay to another, that way only.
    ///
    /// # Errors
    /// The receiving relay does not answer, or refuses the numbers.
    pub fn degrade(&self, from: usize, to: usize, by: &Degradation) -> anyhow::Result<()> {
        if from == to {
            bail!("a line is between two relays, not from one to itself");
        }
        let source = self.layout.relays[from].mesh;
        let rule = by.applied(&self.profile.line(from, to).rule(source));
        let set = self.client.set_fault(self.relay_admin(to), &rule);
        set.with_context(|| format!("at {}", self.profile.relay_name(to)))?;
        self.disturbed.lock().unwrap_or_else(PoisonError::into_inner).insert((from, to));
        Ok(())
    }

    /// Puts the profile's rule back on a line, that way only.
    ///
    /// # Errors
    /// The receiving relay does not answer.
    pub fn restore(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let source = self.layout.relays[from].mesh;
        self.client.restore_fault(self.relay_admin(to), source)?;
        self.disturbed.lock().unwrap_or_else(PoisonError::into_inner).remove(&(from, to));
        Ok(())
    }

    /// The lines whose rules are not the profile's, as (from, to).
    pub fn disturbed(&self) -> Vec<(usize, usize)> {
        let disturbed = self.disturbed.lock().unwrap_or_else(PoisonError::into_inner);
        disturbed.iter().copied().collect()
    }

    /// Forgets what was done to the lines towards a relay: a new process has its configuration's rules.
    pub(super) fn forget_disturbed(&self, to: usize) {
        let mut disturbed = self.disturbed.lock().unwrap_or_else(PoisonError::into_inner);
        disturbed.retain(|line| line.1 != to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::profile::Profile;

    #[test]
    fn a_degraded_line_keeps_the_rest_of_its_profile() {
        let source = "127.0.0.1:1".parse().unwrap();
        let rule = Profile::world().line(0, 1).rule(source);
        let worse = Degradation { loss: Some(0.15), delay_ms: 100.0, ..Degradation::default() };

        let degraded = worse.applied(&rule);

        let expected = RawRule { loss: 0.15, delay_ms: rule.delay_ms + 100.0, ..rule.clone() };
        assert_eq!(degraded, expected);
        assert_eq!(Degradation::CUT.applied(&rule), RawRule { cut: true, ..rule });
    }
}
