//! The same world with thin lines, and flows that fill half of one.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use overway::lab::profile::{Profile, WORLD};
use overway_config::Document;

/// What every relay's line carries, and what it is configured to carry. Little enough that half of it is
/// no strain for a machine of two cores that has to play all the relays.
const CAPACITY_MBPS: f64 = 20.0;
/// The flows' share of it together.
const SHARE: f64 = 0.5;
/// Bytes of a frame.
pub(super) const FRAME_BYTES: usize = 1_000;
/// What a frame grows by on a line: seal, fabric header, hop message, QUIC, UDP and IP.
const OVERHEAD_BYTES: usize = 130;

/// The text of a profile: a file's, or the default one's.
pub(super) fn text(path: Option<&Path>) -> anyhow::Result<(String, String)> {
    match path {
        Some(path) => {
            let name = path.display().to_string();
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
            Ok((name, text))
        }
        None => Ok(("world.toml".to_owned(), WORLD.to_owned())),
    }
}

/// The profile with thin lines.
pub(super) fn thin(name: &str, text: &str) -> anyhow::Result<Profile> {
    let mut table: toml::Table = text.parse()?;
    for (key, field) in [("relay", "capacity_mbps"), ("pair", "rate_mbps")] {
        let entries = table.get_mut(key).and_then(toml::Value::as_array_mut);
        for entry in entries.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
            entry.insert(field.to_owned(), CAPACITY_MBPS.into());
        }
    }
    Ok(Profile::parse(&Document::new(name, &toml::to_string(&table)?))?)
}

/// Time between two frames of each of so many flows that fill their share together.
pub(super) fn spacing(flows: usize) -> Duration {
    let bits = ((FRAME_BYTES + OVERHEAD_BYTES) * 8 * flows) as f64;
    Duration::from_secs_f64(bits / (CAPACITY_MBPS * 1e6 * SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_thin_and_as_long_as_before() {
        let (name, text) = text(None).unwrap();
        let thin = thin(&name, &text).unwrap();
        let world = Profile::world();

        assert!(thin.relays().iter().all(|relay| relay.capacity_mbps == CAPACITY_MBPS));
        assert_eq!(thin.line(3, 4).rate_mbps, Some(CAPACITY_MBPS));
        assert_eq!(thin.line(3, 4).delay, world.line(3, 4).delay);
        assert_eq!(thin.round_trip(0, 1), world.round_trip(0, 1));
    }

    #[test]
    fn ten_flows_fill_half_of_the_line() {
        let frames = 10.0 / spacing(10).as_secs_f64();

        let mbps = frames * ((FRAME_BYTES + OVERHEAD_BYTES) * 8) as f64 / 1e6;
        assert!((mbps - 10.0).abs() < 0.01, "{mbps}");
    }
}
