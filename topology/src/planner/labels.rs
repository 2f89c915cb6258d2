//! What relays have in common, as small numbers: provider and region. Zero is what was not said; it is never
//! taken for different from anything.

use std::collections::BTreeMap;

use crate::Topology;

use super::kernel::NONE;
use super::numbers::Numbers;

/// Labels by number of relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Each relay's own number: as a label it tells every relay from every other.
    pub(super) own: Vec<u32>,
    pub(super) provider: Kind,
    pub(super) region: Kind,
}

/// One kind of label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) of: Vec<u32>,
    /// Labels, zero included.
    pub(super) count: usize,
}

impl Labels {
    pub(super) fn new(topology: &Topology, numbers: &Numbers) -> Self {
        let own = (0..).take(numbers.stride()).collect();
        let provider = Kind::new(topology, numbers, |relay| &relay.provider);
        let region = Kind::new(topology, numbers, |relay| &relay.region);
        Self { own, provider, region }
    }
}

impl Kind {
    fn new(
        topology: &Topology,
        numbers: &Numbers,
        text: impl Fn(&crate::RelayAttributes) -> &String,
    ) -> Self {
        let mut known = BTreeMap::from([(String::new(), 0)]);
        let mut of = vec![0; numbers.stride()];
        for (id, relay) in topology.relays() {
            let next = u32::try_from(known.len()).expect("there are fewer labels than relays");
            let label = *known.entry(text(relay).clone()).or_insert(next);
            if let Some(number) = numbers.of(id) {
                of[number] = label;
            }
        }
        Self { of, count: known.len() }
    }

    /// Whether any two relays have different labels: otherwise no path avoids those of another.
    pub(super) fn differ(&self) -> bool {
        self.count > 2
    }

    /// The mask, less the relays whose label was not said.
    pub(super) fn mask(&self, mask: &[u32]) -> Vec<u32> {
        let both = mask.iter().zip(&self.of);
        both.map(|(mask, label)| if *label == 0 { NONE } else { *mask }).collect()
    }
}
