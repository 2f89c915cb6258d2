//! What a run is made of. Everything else is drawn from the seed.

use std::time::Duration;

use overway_probe::ProbeConfig;
use overway_scheduler_core::NeighbourConfig;
use overway_wire::Redundancy;

/// A run's size and phases. The default is what every seed must pass.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Relays, all members from the start.
    pub relays: u16,
    /// Flows at any time.
    pub flows: u16,
    /// From nothing to a mesh at rest.
    pub warm_up: Duration,
    /// Failures of one transit relay with nothing else amiss, measured one by one.
    pub drills: u16,
    /// How long faults of every kind overlap.
    pub storm: Duration,
    /// Mean time between the beginnings of two faults of the storm.
    pub fault_spacing: Duration,
    /// Of a million packets, so many are lost on every link in the storm.
    pub loss_ppm: u64,
    /// Of a million frames sent while every link loses, so many may be lost.
    pub residual_ppm_max: u64,
    /// After the storm: how long until every pair reaches one another and all relays are in step.
    pub reach_bound: Duration,
    /// After the storm: how long until the paths are within the hysteresis of the best. Longer, since the
    /// slow window forgets by a third in half a minute, and a path that was left waits before it is taken
    /// again.
    pub settle_bound: Duration,
    /// Up to so many relays everybody probes everybody; above, the scheduler bounds the sets.
    pub full_mesh_max: usize,
    /// The bounded sets.
    pub neighbours: NeighbourConfig,
    /// What each provider line carries.
    pub capacity_bps: u64,
    /// Whether ends that flows go to are attached to two relays each. The drills then fail access relays too.
    pub attached_twice: bool,
    /// Whether two of three flows are of tenants in cells. Drills then cut a cell off, and part one.
    pub cells: bool,
    /// Payload of a frame, at least 20 bytes.
    pub frame_bytes: usize,
    /// How much of flows goes twice: each in turn.
    pub redundancy: &'static [Redundancy],
    /// Timers of the probes.
    pub probe: ProbeConfig,
    /// What is made wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

/// Something made wrong on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Ends have no replay window.
    NoReplayWindow,
    /// Frames do not name their destination's other address.
    NoAlternate,
    /// A relay is cut off for good, without being counted as a fault.
    LastingCut,
    /// Control connections carry nothing to one relay after the storm.
    DeafRelay,
    /// The policies of cells allow every relay.
    OpenCells,
    /// Tenants are pushed without their cell.
    UnnamedCells,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            relays: 30,
            flows: 40,
            warm_up: Duration::from_secs(16),
            drills: 3,
            storm: Duration::from_secs(25),
            fault_spacing: Duration::from_millis(600),
            loss_ppm: 0,
            residual_ppm_max: 0,
            reach_bound: Duration::from_secs(45),
            settle_bound: Duration::from_secs(180),
            full_mesh_max: 1_000,
            neighbours: NeighbourConfig::default(),
            capacity_bps: 1_000_000_000,
            attached_twice: false,
            cells: false,
            frame_bytes: 20,
            redundancy: &[
                Redundancy::Adaptive,
                Redundancy::Always,
                Redundancy::Adaptive,
                Redundancy::Off,
            ],
            probe: ProbeConfig::default(),
            sabotage: None,
        }
    }
}

impl Scenario {
    /// More relays than probe one another in full, each with about a third of the others as neighbours.
    pub fn bounded() -> Self {
        // Reviews far apart, for each changes links, and the mesh is to be seen at rest between them.
        let neighbours = NeighbourConfig {
            long: 4,
            hubs: 3,
            near: 4,
            wide: 2,
            trials: 1,
            most: 26,
            review: Duration::from_secs(60),
            review_first: Duration::from_secs(20),
        };
        // A scheduler that dies in the storm leaves no memory of reviews: every relay has its eight first ones anew,
        // 20 s apart, each of which gives and takes links of best paths. Then comes the first minute without one, in
        // which the longest hold, of 20 s, ends.
        let settle_bound = Duration::from_secs(240);
        Self { relays: 40, full_mesh_max: 24, neighbours, settle_bound, ..Self::default() }
    }

    /// Ends that are attached to two relays, whose relays fail under their flows.
    pub fn attached_twice() -> Self {
        Self { attached_twice: true, drills: 6, ..Self::default() }
    }

    /// Tenants in cells, of which one is cut off while a relay in it fails, and one falls apart.
    pub fn in_cells() -> Self {
        Self { cells: true, relays: 36, flows: 60, ..Self::default() }
    }

    /// A storm of loss on every link at once, and no other fault: what each hop recovers by itself.
    pub fn lossy() -> Self {
        let never = Duration::from_secs(86_400);
        Self {
            loss_ppm: 10_000,
            residual_ppm_max: 100,
            fault_spacing: never,
            drills: 0,
            ..Self::default()
        }
    }

    /// The same on lines that a few flows fill, so that demand is split over paths. There are no drills: on such
    /// lines there is no room for copies, and the promise does not hold.
    pub fn narrow() -> Self {
        Self {
            capacity_bps: 2_500_000,
            frame_bytes: 1_000,
            redundancy: &[Redundancy::Adaptive],
            drills: 0,
            ..Self::bounded()
        }
    }
}
