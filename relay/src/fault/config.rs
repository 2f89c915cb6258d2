//! The `[fault]` section, and the JSON form of a rule.

use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use overway_wire::{BitsPerSec, Ticks};
use serde::{Deserialize, Serialize};

use super::table::{RULES_MAX, Rule, Rules};

/// Longest delay, jitter or bottleneck queue: twenty times round the earth. More would only fill queues.
const DELAY_MS_MAX: f64 = 10_000.0;
/// Longest mean run of losses.
const LOSS_BURST_MAX: f64 = 100_000.0;
/// Fastest bottleneck: a terabit per second.
const RATE_MBPS_MAX: f64 = 1e6;
/// Slowest bottleneck: a byte takes 8 ms, and a datagram some ten seconds.
const RATE_MBPS_MIN: f64 = 0.001;
/// Greatest clock offset: ten thousand days, which a clock of microseconds holds by far.
const CLOCK_OFFSET_MS_MAX: f64 = 864e9;
/// Greatest drift: ten times that of a bad crystal.
const CLOCK_DRIFT_PPM_MAX: i32 = 1_000;

/// The `[fault]` section as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawFault {
    /// Seed of every decision.
    pub seed: u64,
    /// What the process adds to its own clock, in milliseconds.
    pub clock_offset_ms: f64,
    /// By how much its clock runs fast, in parts per million; negative if slow.
    pub clock_drift_ppm: i32,
    /// What is done to the datagrams of which source.
    pub link: Vec<RawRule>,
}

/// A `[[fault.link]]` table as written; also a rule's JSON form in the admin API.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// The address that the datagrams come from, as this relay sees it.
    pub source: SocketAddr,
    /// Constant one-way delay in milliseconds.
    #[serde(default)]
    pub delay_ms: f64,
    /// Greatest additional random delay in milliseconds.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Share of datagrams lost, from 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// Mean number of datagrams lost in a row.
    #[serde(default = "no_burst")]
    pub loss_burst: f64,
    /// Rate of the bottleneck in Mbit/s, counting UDP payload; absent is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_mbps: Option<f64>,
    /// Longest wait in front of the bottleneck in milliseconds.
    #[serde(default = "default_queue_ms")]
    pub queue_ms: f64,
    /// Drops datagrams with more bytes of UDP payload than this; absent drops none for their length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Drops everything.
    #[serde(default)]
    pub cut: bool,
}

/// The `[fault]` section, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultConfig {
    /// Seed of every decision.
    pub seed: u64,
    /// What the process adds to its own clock.
    pub clock_offset: Ticks,
    /// By how much its clock runs fast, in parts per million; negative if slow.
    pub clock_drift_ppm: i32,
    /// What is done to the datagrams of which source.
    pub rules: Rules,
}

/// What is wrong with a `[fault]` section or a rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FaultConfigError {
    /// A number of the section itself is out of its range.
    #[error("fault: {key} = {value} must be from {from} to {to}")]
    Section {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The least value.
        from: f64,
        /// The greatest value.
        to: f64,
    },
    /// A number of a rule is out of its range.
    #[error("fault.link of {link}: {key} = {value} must be from {from} to {to}")]
    Rule {
        /// The rule's source.
        link: SocketAddr,
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The least value.
        from: f64,
        /// The greatest value.
        to: f64,
    },
    /// Two rules have the same source.
    #[error("fault.link: source = \"{0}\" is there twice; keep one of them")]
    Duplicate(SocketAddr),
    /// There are more than [`RULES_MAX`] rules.
    #[error("fault.link: {0} rules, at most {RULES_MAX} are possible")]
    TooMany(usize),
}

impl TryFrom<RawFault> for FaultConfig {
    type Error = FaultConfigError;

    fn try_from(raw: RawFault) -> Result<Self, FaultConfigError> {
        let within = |key, value: f64, from: f64, to: f64| {
            let error = FaultConfigError::Section { key, value, from, to };
            if (from..=to).contains(&value) { Ok(value) } else { Err(error) }
        };
        let offset_ms = within("clock_offset_ms", raw.clock_offset_ms, 0.0, CLOCK_OFFSET_MS_MAX)?;
        let drift_max = f64::from(CLOCK_DRIFT_PPM_MAX);
        within("clock_drift_ppm", f64::from(raw.clock_drift_ppm), -drift_max, drift_max)?;
        if raw.link.len() > RULES_MAX {
            return Err(FaultConfigError::TooMany(raw.link.len()));
        }

        let mut rules = Rules::new();
        for link in raw.link {
            let (source, rule) = link.try_into()?;
            match rules.entry(source) {
                Entry::Vacant(place) => place.insert(rule),
                Entry::Occupied(_) => return Err(FaultConfigError::Duplicate(source)),
            };
        }
        let offset_micros = millis(offset_ms).as_micros();
        Ok(Self {
            seed: raw.seed,
            clock_offset: Ticks(u64::try_from(offset_micros).expect("checked against its maximum")),
            clock_drift_ppm: raw.clock_drift_ppm,
            rules,
        })
    }
}

impl TryFrom<RawRule> for (SocketAddr, Rule) {
    type Error = FaultConfigError;

    fn try_from(raw: RawRule) -> Result<Self, FaultConfigError> {
        let within = |key, value: f64, from: f64, to: f64| {
            let error = FaultConfigError::Rule { link: raw.source, key, value, from, to };
            if (from..=to).contains(&value) { Ok(value) } else { Err(error) }
        };
        let rate = raw
            .rate_mbps
            .map(|mbps| within("rate_mbps", mbps, RATE_MBPS_MIN, RATE_MBPS_MAX))
            .transpose()?;
        let rule = Rule {
            delay: millis(within("delay_ms", raw.delay_ms, 0.0, DELAY_MS_MAX)?),
            jitter: millis(within("jitter_ms", raw.jitter_ms, 0.0, DELAY_MS_MAX)?),
            loss: within("loss", raw.loss, 0.0, 1.0)?,
            loss_burst: within("loss_burst", raw.loss_burst, 1.0, LOSS_BURST_MAX)?,
            rate: rate.map(bits_per_sec),
            queue: millis(within("queue_ms", raw.queue_ms, 0.0, DELAY_MS_MAX)?),
            mtu: raw.mtu,
            cut: raw.cut,
        };
        Ok((raw.source, rule))
    }
}

impl From<(SocketAddr, Rule)> for RawRule {
    fn from((source, rule): (SocketAddr, Rule)) -> Self {
        let Rule { delay, jitter, loss, loss_burst, rate, queue, mtu, cut } = rule;
        Self {
            source,
            delay_ms: delay.as_secs_f64() * 1e3,
            jitter_ms: jitter.as_secs_f64() * 1e3,
            loss,
            loss_burst,
            rate_mbps: rate.map(|rate| rate.0 as f64 / 1e6),
            queue_ms: queue.as_secs_f64() * 1e3,
            mtu,
            cut,
        }
    }
}

fn no_burst() -> f64 {
    Rule::default().loss_burst
}

fn default_queue_ms() -> f64 {
    Rule::QUEUE.as_secs_f64() * 1e3
}

/// A span that was checked to be neither negative nor too long.
fn millis(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1e3)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rate was checked to lie within a kilobit and a terabit per second"
)]
fn bits_per_sec(mbps: f64) -> BitsPerSec {
    BitsPerSec((mbps * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = r#"
        seed = 7
        clock_offset_ms = 86400123.5
        clock_drift_ppm = -20
        [[link]]
        source = "127.0.0.1:4402"
        delay_ms = 40.25
        jitter_ms = 1
        loss = 0.001
        rate_mbps = 200
        [[link]]
        source = "[::1]:4403"
        loss = 0.02
        loss_burst = 3
    "#;

    fn parse(text: &str) -> Result<FaultConfig, FaultConfigError> {
        toml::from_str::<RawFault>(text).expect("valid TOML").try_into()
    }

    #[test]
    fn a_section_is_read_with_its_units() {
        let config = parse(SECTION).unwrap();

        assert_eq!(config.seed, 7);
        assert_eq!(config.clock_offset, Ticks(86_400_123_500));
        assert_eq!(config.clock_drift_ppm, -20);
        let first = Rule {
            delay: Duration::from_micros(40_250),
            jitter: Duration::from_millis(1),
            loss: 0.001,
            rate: Some(BitsPerSec(200_000_000)),
            ..Rule::default()
        };
        let second = Rule { loss: 0.02, loss_burst: 3.0, ..Rule::default() };
        let sources = ["127.0.0.1:4402", "[::1]:4403"].map(|source| source.parse().unwrap());
        assert_eq!(config.rules, [(sources[0], first), (sources[1], second)].into());
    }

    #[test]
    fn every_number_has_its_range() {
        let wrong = [
            "delay_ms = -1",
            "delay_ms = nan",
            "delay_ms = 1e9",
            "jitter_ms = -0.5",
            "loss = 1.5",
            "loss_burst = 0",
            "rate_mbps = 0",
            "rate_mbps = inf",
            "queue_ms = -1",
        ];
        for line in wrong {
            let text = format!("[[link]]\nsource = \"127.0.0.1:4402\"\n{line}");
            let error = parse(&text).unwrap_err().to_string();
            let key = line.split(' ').next().unwrap();
            assert!(error.contains(key) && error.contains("127.0.0.1:4402"), "{line}: {error}");
        }
        assert!(parse("clock_offset_ms = -1").is_err());
        assert!(parse("clock_drift_ppm = 1001").is_err());
    }

    #[test]
    fn a_source_may_have_one_rule() {
        let twice = "[[link]]\nsource = \"127.0.0.1:1\"\n".repeat(2);

        let error = parse(&twice).unwrap_err();

        assert_eq!(error, FaultConfigError::Duplicate("127.0.0.1:1".parse().unwrap()));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<RawFault>("sead = 7").is_err());
        let json = r#"{"source": "127.0.0.1:1", "delay": 4}"#;
        assert!(serde_json::from_str::<RawRule>(json).is_err());
    }

    #[test]
    fn a_rule_survives_its_json_form() {
        let json = r#"{"source": "127.0.0.1:4402", "delay_ms": 40.25, "loss": 0.5, "mtu": 1280, "cut": true}"#;
        let raw: RawRule = serde_json::from_str(json).unwrap();
        let (source, rule) = raw.try_into().unwrap();

        let back = serde_json::to_string(&RawRule::from((source, rule))).unwrap();
        let again: RawRule = serde_json::from_str(&back).unwrap();

        assert_eq!(again.try_into(), Ok((source, rule)));
    }
}
