//! The internet between the relays: what becomes of a packet on a directed link.
//!
//! Each directed link has a delay, a little jitter, and conditions which faults lay upon it and take off
//! again: cuts, loss in bursts (the two-state chain of Gilbert, 1960), added delay. Packets of one link
//! may overtake one another by as much as the jitter. Rates are not limited.

use std::time::Duration;

use overway_wire::{LinkId, LinkIndex, RelayId};

use crate::rng::Rng;

/// Parallel links between two relays, at most.
const LINES_MAX: usize = 2;

/// Loss in bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Share of packets lost, in parts per million; below a million.
    pub(crate) ppm: u64,
    /// Packets in a row that a burst takes on average, at least 1.
    pub(crate) burst: u64,
}

/// A directed link.
#[derive(Clone, Debug, Default)]
struct Line {
    base: Duration,
    added: Duration,
    cuts: u32,
    /// Of a fault.
    loss: Option<Loss>,
    /// Of the line itself.
    usual_loss: Option<Loss>,
    /// Inside a burst.
    losing: bool,
}

/// Every directed link.
#[derive(Debug)]
pub(crate) struct Network {
    relays: usize,
    lines: Vec<Option<Line>>,
    jitter: Duration,
    rng: Rng,
}

impl Network {
    /// Makes a network for relays 1 to `relays` without links.
    pub(crate) fn new(relays: u16, jitter: Duration, rng: Rng) -> Self {
        let relays = usize::from(relays) + 1;
        Self { relays, lines: vec![None; relays * relays * LINES_MAX], jitter, rng }
    }

    /// Puts a link in place.
    pub(crate) fn put(&mut self, id: LinkId, base: Duration) {
        let at = self.at(id);
        if let Some(line) = self.lines.get_mut(at) {
            *line = Some(Line { base, ..Line::default() });
        }
    }

    /// How long a packet that leaves now travels, or `None` if it is lost.
    pub(crate) fn carry(&mut self, id: LinkId) -> Option<Duration> {
        let at = self.at(id);
        let line = self.lines.get_mut(at)?.as_mut()?;
        if line.cuts > 0 {
            return None;
        }
        if let Some(Loss { ppm, burst }) = line.loss.or(line.usual_loss) {
            let turn = if line.losing {
                1_000_000 / burst.max(1)
            } else {
                ppm * 1_000_000 / (burst.max(1) * (1_000_000 - ppm.min(999_999)))
            };
            line.losing ^= self.rng.chance(turn);
            if line.losing {
                return None;
            }
        }
        Some(line.base + line.added + self.rng.span(Duration::ZERO, self.jitter))
    }

    /// The delay of a link, jitter left out; `None` if there is no such link.
    pub(crate) fn delay(&self, id: LinkId) -> Option<Duration> {
        self.line(id).map(|line| line.base + line.added)
    }

    /// Mean of what jitter adds.
    pub(crate) fn jitter_mean(&self) -> Duration {
        self.jitter / 2
    }

    /// Cuts a link, once more.
    pub(crate) fn cut(&mut self, id: LinkId) {
        self.change(id, |line| line.cuts += 1);
    }

    /// Takes one cut off.
    pub(crate) fn mend(&mut self, id: LinkId) {
        self.change(id, |line| line.cuts = line.cuts.saturating_sub(1));
    }

    /// Sets or ends a link's loss.
    pub(crate) fn lose(&mut self, id: LinkId, loss: Option<Loss>) {
        self.change(id, |line| (line.loss, line.losing) = (loss, false));
    }

    /// Sets or ends what all links lose while no fault makes it more.
    pub(crate) fn lose_everywhere(&mut self, loss: Option<Loss>) {
        for line in self.lines.iter_mut().flatten() {
            (line.usual_loss, line.losing) = (loss, false);
        }
    }

    /// Adds delay to a link.
    pub(crate) fn slow(&mut self, id: LinkId, by: Duration) {
        self.change(id, |line| line.added += by);
    }

    /// Takes added delay off.
    pub(crate) fn hasten(&mut self, id: LinkId, by: Duration) {
        self.change(id, |line| line.added = line.added.saturating_sub(by));
    }

    /// Every link, by id.
    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        let numbers = (0_u16..).zip(0..self.relays).map(|(id, _)| RelayId(id));
        let ids = numbers.clone().flat_map(move |from| numbers.clone().map(move |to| (from, to)));
        let ids = ids.flat_map(|(from, to)| {
            [0, 1].into_iter().filter_map(LinkIndex::new).map(move |at| LinkId::new(from, to, at))
        });
        ids.filter(|&id| self.line(id).is_some())
    }

    fn change(&mut self, id: LinkId, change: impl FnOnce(&mut Line)) {
        let at = self.at(id);
        self.lines.get_mut(at).and_then(Option::as_mut).map(change);
    }

    fn line(&self, id: LinkId) -> Option<&Line> {
        self.lines.get(self.at(id))?.as_ref()
    }

    fn at(&self, id: LinkId) -> usize {
        let pair = usize::from(id.from.0) * self.relays + usize::from(id.to.0);
        pair * LINES_MAX + usize::from(id.index.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(from: u16, to: u16) -> LinkId {
        LinkId::new(RelayId(from), RelayId(to), LinkIndex::default())
    }

    fn network() -> Network {
        let mut network = Network::new(3, Duration::from_micros(300), Rng::new(5));
        network.put(link(1, 2), Duration::from_millis(10));
        network.put(link(2, 1), Duration::from_millis(12));
        network
    }

    #[test]
    fn a_cut_of_one_direction_leaves_the_other() {
        let mut network = network();
        network.cut(link(1, 2));

        assert_eq!(network.carry(link(1, 2)), None);
        assert!(network.carry(link(2, 1)).is_some());
        network.mend(link(1, 2));
        assert!(network.carry(link(1, 2)).is_some());
        assert_eq!(network.links().collect::<Vec<_>>(), [link(1, 2), link(2, 1)]);
    }

    #[test]
    fn loss_takes_its_share_in_bursts_of_its_length() {
        let mut network = network();
        network.lose(link(1, 2), Some(Loss { ppm: 200_000, burst: 4 }));
        let lost: Vec<bool> = (0..100_000).map(|_| network.carry(link(1, 2)).is_none()).collect();

        let share = lost.iter().filter(|lost| **lost).count();
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();

        assert!((18_000..22_000).contains(&share), "{share} of 100,000 lost");
        assert!((35..45).contains(&(share * 10 / bursts)), "{share} lost in {bursts} bursts");
    }

    #[test]
    fn a_line_has_its_own_loss_again_when_a_fault_ends() {
        let mut network = network();
        let share = |network: &mut Network| {
            let lost = (0..100_000).filter(|_| network.carry(link(1, 2)).is_none());
            lost.count()
        };
        network.lose_everywhere(Some(Loss { ppm: 10_000, burst: 1 }));
        network.lose(link(1, 2), Some(Loss { ppm: 200_000, burst: 1 }));
        assert!((18_000..22_000).contains(&share(&mut network)));
        network.lose(link(1, 2), None);
        assert!((800..1_200).contains(&share(&mut network)));
        network.lose_everywhere(None);
        assert_eq!(share(&mut network), 0);
    }

    #[test]
    fn delay_is_added_and_taken_off() {
        let mut network = network();
        network.slow(link(1, 2), Duration::from_millis(30));
        assert_eq!(network.delay(link(1, 2)), Some(Duration::from_millis(40)));
        network.hasten(link(1, 2), Duration::from_millis(30));
        let carried = network.carry(link(1, 2)).unwrap();
        assert!(carried >= Duration::from_millis(10) && carried < Duration::from_millis(11));
    }
}
