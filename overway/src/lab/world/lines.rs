//! Disturbing what relays hear of one another and of the scheduler, through the receiving relays' fault interface.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use anyhow::{Context, bail};
use overway_relay::fault::RawRule;

use super::{Node, World};
use crate::lab::profile::{self, LineProfile};

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
    /// Disturbs the line from another relay or from the scheduler to a relay, that way only.
    ///
    /// # Errors
    /// There is no such line, or the receiving relay does not answer, or refuses the numbers.
    pub fn degrade(&self, from: Node, to: usize, by: &Degradation) -> anyhow::Result<()> {
        let set = self.client.set_fault(self.relay_admin(to), &by.applied(&self.rule(from, to)?));
        set.with_context(|| format!("at {}", self.profile.relay_name(to)))?;
        self.disturbances().insert((from, to));
        Ok(())
    }

    /// Puts the profile's rule back on a line, that way only.
    ///
    /// # Errors
    /// The receiving relay does not answer.
    pub fn restore(&self, from: Node, to: usize) -> anyhow::Result<()> {
        self.client.restore_fault(self.relay_admin(to), self.rule(from, to)?.source)?;
        self.disturbances().remove(&(from, to));
        Ok(())
    }

    /// Cuts relays off: neither they nor the others hear one another, and they hear nothing of the scheduler, which loses
    /// them when they give it up.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn cut_off(&self, relays: &[usize]) -> anyhow::Result<()> {
        let mut around = self.around(relays).into_iter();
        around.try_for_each(|(from, to)| self.degrade(from, to, &Degradation::CUT))
    }

    /// Undoes [`Self::cut_off`].
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn rejoin(&self, relays: &[usize]) -> anyhow::Result<()> {
        self.around(relays).into_iter().try_for_each(|(from, to)| self.restore(from, to))
    }

    /// Whether each of these relays has noticed that it has no scheduler and no link to another.
    pub fn is_cut_off(&self, relays: &[usize]) -> bool {
        let is_inside = |id: u16| self.number(id).is_some_and(|relay| relays.contains(&relay));
        relays.iter().all(|&relay| {
            self.relay_status(relay).is_ok_and(|status| {
                let mut links = status.links.iter();
                !status.scheduler_connected
                    && links.all(|link| !link.is_up() || is_inside(link.neighbour))
            })
        })
    }

    /// Every line between one of these relays and another, both ways, and those from the scheduler.
    fn around(&self, relays: &[usize]) -> Vec<(Node, usize)> {
        let is_inside = |relay: usize| relays.contains(&relay);
        let between = profile::pairs(self.profile.relays().len())
            .filter(|&(from, to)| is_inside(from) != is_inside(to))
            .map(|(from, to)| (Node::Relay(from), to));
        between.chain(relays.iter().map(|&relay| (Node::Scheduler, relay))).collect()
    }

    /// The lines whose rules are not the profile's.
    pub fn disturbed(&self) -> Vec<(Node, usize)> {
        self.disturbances().iter().copied().collect()
    }

    /// A line, for people.
    pub fn line_text(&self, (from, to): (Node, usize)) -> String {
        format!("{} > {}", self.name(from), self.profile.relay_name(to))
    }

    /// What a relay does by the profile to what it hears.
    fn rule(&self, from: Node, to: usize) -> anyhow::Result<RawRule> {
        match from {
            Node::Relay(from) if from != to => {
                Ok(self.profile.line(from, to).rule(self.layout.relays[from].mesh))
            }
            Node::Scheduler => Ok(LineProfile::default().rule(self.layout.scheduler.control)),
            Node::Relay(_) => bail!("a line is between two relays, not from one to itself"),
            Node::Edge(_) => bail!("edges have no lines of their own"),
        }
    }

    fn disturbances(&self) -> MutexGuard<'_, BTreeSet<(Node, usize)>> {
        self.disturbed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was done to the lines towards a relay: a new process has its configuration's rules.
    pub(super) fn forget_disturbed(&self, to: usize) {
        self.disturbances().retain(|line| line.1 != to);
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
