use std::time::Duration;

use super::*;
use crate::{Cuts, Miss, Policy, RelayAttributes, Sequential, Verdict, WindowSample};
use overway_wire::{ClockDiff, Path, PolicyId};

mod candidates;
mod explain;
mod stability;

const KEY: RouteKey = RouteKey {
    source: RelayId(1),
    destination: RelayId(2),
    class: Class::Realtime,
    policy: PolicyId(0),
};

/// A full mesh of four relays. From 1 to 2 the direct link takes 100 ms, over 3 it is 40, over 4 60, over
/// both 70.
struct Bench {
    topology: Topology,
    planner: Planner,
    now: Instant,
}

fn link(from: u16, to: u16) -> LinkId {
    LinkId::new(RelayId(from), RelayId(to), LinkIndex::default())
}

fn clean(delay_ms: u32) -> LinkMeasure {
    let window = WindowSample {
        one_way_diff: ClockDiff(i64::from(delay_ms) * 1_000),
        rtt: Micros(delay_ms * 2_000),
        samples: 1_000,
        ..WindowSample::default()
    };
    let fast = WindowSample { samples: 33, ..window };
    LinkMeasure { usable: true, fast, slow: window, ..LinkMeasure::default() }
}

impl Bench {
    fn new() -> Self {
        let mut topology = Topology::new();
        for id in 1..=4 {
            let transit = RelayAttributes { transit: true, ..RelayAttributes::default() };
            topology.put_relay(RelayId(id), transit).unwrap();
        }
        let planner = Planner::new(PlannerConfig::default());
        let mut bench = Self { topology, planner, now: Instant::now() };
        for (one, other, ms) in
            [(1, 2, 100), (1, 3, 20), (3, 2, 20), (1, 4, 30), (4, 2, 30), (3, 4, 20)]
        {
            bench.put(one, other, clean(ms));
            bench.put(other, one, clean(ms));
        }
        bench
    }

    /// Past the settling of new pairs.
    fn settled() -> Self {
        let mut bench = Self::new();
        bench.run(30);
        bench
    }

    fn put(&mut self, from: u16, to: u16, measure: LinkMeasure) {
        self.topology.put_link(link(from, to), measure).unwrap();
    }

    fn change(&mut self, from: u16, to: u16, change: impl FnOnce(&mut LinkMeasure)) {
        let mut measure = *self.topology.link(link(from, to)).unwrap();
        change(&mut measure);
        self.put(from, to, measure);
    }

    fn usable(&mut self, from: u16, to: u16, usable: bool) {
        self.change(from, to, |measure| measure.usable = usable);
    }

    /// 15 % in both windows, or none.
    fn lossy(&mut self, from: u16, to: u16, lossy: bool) {
        self.change(from, to, |measure| {
            measure.fast.lost = if lossy { 5 } else { 0 };
            measure.slow.lost = if lossy { 150 } else { 0 };
        });
    }

    fn plan(&mut self) -> Vec<RouteKey> {
        let changed = self.planner.plan(&mut self.topology, &Sequential, self.now);
        self.now += Duration::from_secs(1);
        changed
    }

    fn candidates(&mut self) -> Vec<Candidate> {
        self.plan();
        self.planner.candidates(KEY)
    }

    /// Plans once a second; returns the intermediates in use at the end.
    fn run(&mut self, seconds: usize) -> Vec<u16> {
        let last = (0..seconds).map(|_| self.candidates()).last().unwrap();
        via(&last[0].path)
    }

    /// Seconds until the path in use goes over `relay`.
    fn seconds_until_via(&mut self, relay: u16) -> Option<usize> {
        (0..300).find(|_| self.run(1).contains(&relay))
    }
}

fn via(path: &Path) -> Vec<u16> {
    path.intermediates().iter().map(|step| step.relay.0).collect()
}

fn relay(provider: &str, region: &str) -> RelayAttributes {
    let (provider, region) = (provider.to_owned(), region.to_owned());
    RelayAttributes { provider, region, transit: true, draining: false }
}

/// A fifth relay, half way between the first two.
fn with_fifth(bench: &mut Bench, delay_ms: u32) {
    bench.topology.put_relay(RelayId(5), relay("", "")).unwrap();
    for other in [1, 2] {
        bench.put(5, other, clean(delay_ms));
        bench.put(other, 5, clean(delay_ms));
    }
}
