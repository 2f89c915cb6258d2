//! The world that a lab emulates: relays, and the lines between every two of them.
//!
//! A profile is a TOML file, `profiles/world.toml` unless another is given. It says the one-way delay of
//! every line each way, how much it jitters, and what it loses; the clocks' offsets and drifts are not in
//! it but drawn from the lab's seed. Relays are numbered here by their place in the file.

mod cells;
mod exact;
mod raw;

use std::path::Path;
use std::time::Duration;

use overway_config::{ConfigError, Document};
use overway_relay::fault::{RawRule, Rule};
use overway_wire::Micros;

pub use cells::CellProfile;
pub use exact::{Improvement, improvement, pairs};

/// The default profile, as TOML.
pub const WORLD: &str = include_str!("../../profiles/world.toml");
/// The fewest relays that a path with an intermediate, and a way around it, need.
const RELAYS_MIN: usize = 4;
/// The most relays of a lab: each is a process with three connections to every other.
const RELAYS_MAX: usize = 40;

/// A world, checked: every ordered pair of relays has a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    name: String,
    relays: Vec<RelayProfile>,
    /// By sender, then receiver. The diagonal is not looked at.
    lines: Vec<Vec<LineProfile>>,
    cells: Vec<CellProfile>,
}

/// A relay's place and means.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayProfile {
    /// Its name, a city's in the default profile.
    pub name: String,
    /// Who runs its machine.
    pub provider: String,
    /// The provider's name for the place.
    pub region: String,
    /// Where it is in degrees, latitude and longitude, if that is known.
    pub location: Option<(f64, f64)>,
    /// What its line carries, in Mbit/s.
    pub capacity_mbps: f64,
    /// What a gigabyte sent costs, in currency units.
    pub price_per_gb: f64,
}

/// One direction of the line between two relays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LineProfile {
    /// Constant one-way delay.
    pub delay: Duration,
    /// Greatest additional delay, uniform for each datagram.
    pub jitter: Duration,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Bottleneck in Mbit/s, if there is one.
    pub rate_mbps: Option<f64>,
}

impl Profile {
    /// The default profile.
    pub fn world() -> Self {
        Self::parse(&Document::new("world.toml", WORLD)).expect("a test parses it")
    }

    /// Reads a profile from a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&Document::read(path)?)
    }

    /// Makes a profile of a document.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(document: &Document) -> Result<Self, ConfigError> {
        raw::check(document, &document.parse()?)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The relays, in order.
    pub fn relays(&self) -> &[RelayProfile] {
        &self.relays
    }

    /// The cells that its relays are grouped into; none if it does not say.
    pub fn cells(&self) -> &[CellProfile] {
        &self.cells
    }

    /// The relays of the regions of a cell, in order.
    pub fn relays_of(&self, cell: &CellProfile) -> Vec<usize> {
        let of = |relay: &usize| cell.regions.contains(&self.relays[*relay].region);
        (0..self.relays.len()).filter(of).collect()
    }

    /// The number of a relay of that name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.relays.iter().position(|relay| relay.name == name)
    }

    /// The name of a relay.
    pub fn relay_name(&self, relay: usize) -> &str {
        &self.relays[relay].name
    }

    /// The line from one relay to another.
    pub fn line(&self, from: usize, to: usize) -> LineProfile {
        self.lines[from][to]
    }

    /// What a relay's datagrams to another take on average.
    pub fn mean_delay(&self, from: usize, to: usize) -> Micros {
        let line = self.line(from, to);
        Micros::from(line.delay + line.jitter / 2)
    }

    /// The average delay of a path, its relays from the first to the last.
    pub fn path_delay(&self, relays: &[usize]) -> Micros {
        let steps = relays.windows(2).map(|step| self.mean_delay(step[0], step[1]).0);
        Micros(steps.fold(0, u32::saturating_add))
    }

    /// The longest round trip between two neighbours, jitter included.
    pub fn round_trip(&self, a: usize, b: usize) -> Duration {
        let (there, back) = (self.line(a, b), self.line(b, a));
        there.delay + there.jitter + back.delay + back.jitter
    }
}

impl LineProfile {
    /// The fault rule that makes datagrams from `source` take this line.
    pub fn rule(&self, source: std::net::SocketAddr) -> RawRule {
        RawRule {
            source,
            delay_ms: self.delay.as_secs_f64() * 1e3,
            jitter_ms: self.jitter.as_secs_f64() * 1e3,
            loss: self.loss,
            loss_burst: 1.0,
            rate_mbps: self.rate_mbps,
            queue_ms: Rule::QUEUE.as_secs_f64() * 1e3,
            mtu: None,
            cut: false,
        }
    }
}

#[cfg(test)]
mod tests;
