//! What is to be done to the datagrams of each source, shared and changed at run time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use overway_wire::BitsPerSec;

use super::config::FaultConfig;

/// The most rules of one table: two links to each of a thousand relays, and as much again.
pub const RULES_MAX: usize = 4_096;

/// What is done to the datagrams of one source; the default does nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Constant one-way delay.
    pub delay: Duration,
    /// Greatest additional delay, drawn uniformly for each datagram.
    pub jitter: Duration,
    /// Share of datagrams lost, from 0 to 1.
    pub loss: f64,
    /// Mean number of datagrams lost in a row, at least 1. Independent losses already make runs of
    /// `1 / (1 - loss)`, so that a smaller number here means independent losses.
    pub loss_burst: f64,
    /// Rate of the bottleneck, if there is one; it is not zero.
    pub rate: Option<BitsPerSec>,
    /// Longest wait in front of the bottleneck; a datagram that would wait longer is dropped.
    pub queue: Duration,
    /// Longest datagram that gets through, in bytes of UDP payload, if there is a limit.
    pub mtu: Option<u16>,
    /// Everything is dropped.
    pub cut: bool,
}

/// The rules by source address.
pub type Rules = BTreeMap<SocketAddr, Rule>;

/// The rules of a relay's sockets.
#[derive(Debug)]
pub struct FaultTable {
    seed: u64,
    configured: ArcSwap<Rules>,
    current: ArcSwap<Rules>,
}

/// The table already has [`RULES_MAX`] rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {RULES_MAX} fault rules already")]
pub struct TooManyRules;

impl FaultTable {
    /// Makes a table with the configuration's rules in force.
    pub fn new(config: &FaultConfig) -> Arc<Self> {
        Arc::new(Self {
            seed: config.seed,
            configured: ArcSwap::from_pointee(config.rules.clone()),
            current: ArcSwap::from_pointee(config.rules.clone()),
        })
    }

    /// Replaces the whole rule of `source`, from the next datagram on.
    ///
    /// # Errors
    /// When there is no rule for this source and no room for another.
    pub fn set(&self, source: SocketAddr, rule: Rule) -> Result<(), TooManyRules> {
        let before = self.current.rcu(|current| {
            let mut rules = Rules::clone(current);
            if rules.contains_key(&source) || rules.len() < RULES_MAX {
                rules.insert(source, rule);
            }
            rules
        });
        if before.contains_key(&source) || before.len() < RULES_MAX {
            Ok(())
        } else {
            Err(TooManyRules)
        }
    }

    /// Puts the configured rule of `source` back in force, or none if none is configured.
    pub fn restore(&self, source: SocketAddr) {
        let configured = self.configured.load();
        self.current.rcu(|current| {
            let mut rules = Rules::clone(current);
            match configured.get(&source) {
                Some(&rule) => rules.insert(source, rule),
                None => rules.remove(&source),
            };
            rules
        });
    }

    /// Takes other rules for those that are configured. They are in force at once for the sources whose configured rule
    /// is another than before; all others keep what they have. There are [`RULES_MAX`] at the most: those set at run
    /// time give way.
    pub fn configure(&self, rules: &Rules) {
        let before = self.configured.swap(Arc::new(rules.clone()));
        self.current.rcu(|current| {
            let kept = current.iter().filter(|(source, _)| before.get(source) == rules.get(source));
            let mut next: Rules = rules.clone();
            for (&source, &rule) in kept {
                if next.contains_key(&source) || next.len() < RULES_MAX {
                    next.insert(source, rule);
                }
            }
            next
        });
    }

    /// The rules in force now.
    pub fn snapshot(&self) -> Arc<Rules> {
        self.current.load_full()
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }
}

impl Rule {
    /// Longest wait in front of a bottleneck unless the rule says otherwise: what a line's modem or
    /// shaper commonly holds, and more than a burst of one GSO batch (77 kB) takes at 13 Mbit/s.
    pub const QUEUE: Duration = Duration::from_millis(50);
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            loss_burst: 1.0,
            rate: None,
            queue: Self::QUEUE,
            mtu: None,
            cut: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_set_rule_is_in_force_until_the_configured_one_is_restored() {
        let configured = Rule { delay: Duration::from_millis(7), ..Rule::default() };
        let config =
            FaultConfig { rules: [(source(1), configured)].into(), ..FaultConfig::default() };
        let table = FaultTable::new(&config);

        table.set(source(1), Rule { cut: true, ..configured }).unwrap();
        table.set(source(2), Rule { cut: true, ..Rule::default() }).unwrap();
        assert!(table.snapshot()[&source(1)].cut);
        assert!(table.snapshot()[&source(2)].cut);

        table.restore(source(1));
        table.restore(source(2));
        assert_eq!(*table.snapshot(), config.rules);
    }

    #[test]
    fn other_configured_rules_are_in_force_where_they_differ_and_those_set_at_run_time_stay() {
        let delayed = |millis| Rule { delay: Duration::from_millis(millis), ..Rule::default() };
        let rules: Rules = [(source(1), delayed(1)), (source(2), delayed(2))].into();
        let table = FaultTable::new(&FaultConfig { rules, ..FaultConfig::default() });
        for at in [1, 3] {
            table.set(source(at), delayed(90)).unwrap();
        }

        table.configure(&[(source(1), delayed(1)), (source(4), delayed(4))].into());

        let expected =
            [(source(1), delayed(90)), (source(3), delayed(90)), (source(4), delayed(4))];
        assert_eq!(*table.snapshot(), expected.into());
        table.restore(source(1));
        assert_eq!(table.snapshot()[&source(1)], delayed(1));
    }

    #[test]
    fn a_full_table_refuses_new_sources_and_still_changes_known_ones() {
        let table = FaultTable::new(&FaultConfig::default());
        let ports = 0..u16::try_from(RULES_MAX).unwrap();
        for port in ports.clone() {
            table.set(source(port), Rule::default()).unwrap();
        }

        assert_eq!(table.set(source(ports.end), Rule::default()), Err(TooManyRules));
        assert_eq!(table.set(source(0), Rule { cut: true, ..Rule::default() }), Ok(()));
        assert_eq!(table.snapshot().len(), RULES_MAX);
    }
}
