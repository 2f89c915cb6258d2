//! Which relays there are, the lines between them, and what is forwarded: arithmetic, no sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overway_wire::control::{ROUTE_PATHS_MAX, Tenant};
use overway_wire::frame::PATH_ELEMENTS_MAX;

use super::bottleneck::Bottleneck;

/// What a forward or a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

/// One line, the same each way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// One of its ends.
    pub(crate) a: usize,
    /// The other.
    pub(crate) b: usize,
    /// What it does to a datagram.
    pub(crate) quality: Quality,
}

/// What a line does to a datagram, either way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quality {
    /// Constant one-way delay.
    pub(crate) delay: Duration,
    /// Share of datagrams lost.
    pub(crate) loss: f64,
    /// The bottleneck in Mbit/s, if there is one.
    pub(crate) rate_mbps: Option<f64>,
    /// Longest wait in front of it.
    pub(crate) queue: Duration,
    /// What the relays are told that it carries.
    pub(crate) capacity_mbps: f64,
}

/// A listener at one relay that leads to a target behind another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forward {
    /// The relay that listens.
    pub(crate) entry: usize,
    /// The relay that has the target.
    pub(crate) exit: usize,
    /// What both speak.
    pub(crate) protocol: Protocol,
    /// The target.
    pub(crate) target: SocketAddr,
    /// The class of its frames, where it may be chosen.
    pub(crate) class: Option<&'static str>,
    /// Further keys of its table, as TOML.
    pub(crate) more: String,
}

/// The relays' access sides.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Whose edges they let in.
    pub(crate) tenants: Vec<Tenant>,
    /// How many at each.
    pub(crate) attachments_max: usize,
}

/// The whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The lines; relays are numbered from zero without a gap.
    pub(crate) lines: Vec<Line>,
    /// What goes over them.
    pub(crate) forwards: Vec<Forward>,
    /// Who may attach to the relays, if edges do.
    pub(crate) access: Option<Access>,
    /// The two relays whose line goes through this, if one does; what the first sends has to queue.
    pub(crate) bottleneck: Option<(usize, usize, Arc<Bottleneck>)>,
    /// Seed of losses and clocks.
    pub(crate) seed: u64,
}

impl Plan {
    /// A row of relays with so many lines between the first and the last.
    pub(crate) fn row(lines: usize, quality: Quality, seed: u64) -> Self {
        let line = |a| Line { a, b: a + 1, quality };
        Self { lines: (0..lines).map(line).collect(), seed, ..Self::default() }
    }

    /// The number of relays.
    pub(crate) fn relays(&self) -> usize {
        self.lines.iter().map(|line| line.a.max(line.b) + 1).max().unwrap_or(0)
    }

    /// The neighbours of a relay and the lines to them.
    pub(crate) fn neighbours(&self, relay: usize) -> impl Iterator<Item = (usize, Quality)> + '_ {
        self.lines.iter().filter_map(move |line| match relay {
            _ if relay == line.a => Some((line.b, line.quality)),
            _ if relay == line.b => Some((line.a, line.quality)),
            _ => None,
        })
    }

    /// The one-way delay of a path.
    pub(crate) fn delay(&self, path: &[usize]) -> Duration {
        let step = |pair: &[usize]| {
            let mut lines = self.neighbours(pair[0]);
            lines.find(|&(to, _)| to == pair[1]).map_or(Duration::ZERO, |(_, line)| line.delay)
        };
        path.windows(2).map(step).sum()
    }

    /// Every path without a loop between two relays, both ends included, the fastest first; as many as a route holds.
    pub(crate) fn paths(&self, from: usize, to: usize) -> Vec<Vec<usize>> {
        let mut found = Vec::new();
        self.extend(&mut vec![from], to, &mut found);
        found.sort_by_key(|path| (self.delay(path), path.len(), path.clone()));
        found.truncate(ROUTE_PATHS_MAX);
        found
    }

    fn extend(&self, path: &mut Vec<usize>, to: usize, found: &mut Vec<Vec<usize>>) {
        let Some(&last) = path.last() else { return };
        if last == to {
            return found.push(path.clone());
        }
        if path.len() > PATH_ELEMENTS_MAX {
            return;
        }
        let next: Vec<usize> = self.neighbours(last).map(|(next, _)| next).collect();
        for next in next {
            if !path.contains(&next) {
                path.push(next);
                self.extend(path, to, found);
                path.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUALITY: Quality = Quality {
        delay: Duration::from_millis(15),
        loss: 0.0,
        rate_mbps: None,
        queue: Duration::from_millis(100),
        capacity_mbps: 1_000.0,
    };

    #[test]
    fn a_row_has_one_path_each_way() {
        let plan = Plan::row(4, QUALITY, 1);

        assert_eq!(plan.relays(), 5);
        assert_eq!(plan.paths(0, 4), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(plan.paths(3, 1), [vec![3, 2, 1]]);
        assert_eq!(plan.delay(&[0, 1, 2, 3, 4]), Duration::from_millis(60));
    }

    #[test]
    fn a_slower_relay_beside_the_row_is_the_second_path() {
        let mut plan = Plan::row(4, QUALITY, 1);
        let quality = Quality { delay: Duration::from_millis(17), ..QUALITY };
        plan.lines.extend([Line { a: 1, b: 5, quality }, Line { a: 5, b: 3, quality }]);

        assert_eq!(plan.paths(0, 4), [vec![0, 1, 2, 3, 4], vec![0, 1, 5, 3, 4]]);
        assert_eq!(plan.paths(1, 4)[1], [1, 5, 3, 4]);
    }
}
