//! The mesh in virtual time: relays, a scheduler, the network between them, and one queue of events.
//!
//! ```text
//!            +--------------- packets ---------------+
//!            v                                       |
//!   queue --event--> site (process: core + shell) ---+--> watch (invariants), trace, figures
//!     ^              scheduler <-- pipes --> client  |
//!     +---------- timers, ticks, arrivals -----------+
//! ```
//!
//! Events happen in order of their time, and at one time in the order in which they were made. Nothing
//! else decides what is next, so the seed decides everything.

mod control;
mod faults;
mod frames;
mod relays;
mod scheduler;
mod view;

pub(crate) use view::Unrest;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use overway_scheduler_core::Scheduler;
use overway_wire::{BootId, RelayId};

use crate::cells::Cells;
use crate::fault::{Applied, Planned};
use crate::figures::Figures;
use crate::geography::{self, Place};
use crate::network::Network;
use crate::packet::Packet;
use crate::pipe::{PAUSE_MIN, Parcel, Pipe, PipeId, Way};
use crate::process::TICK;
use crate::repaired::Repaired;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::site::{Client, Site};
use crate::trace::Trace;
use crate::traffic::Flow;
use crate::watch::{Violation, Watch};

/// Addresses at which a scheduler may be; one serves at a time.
pub(crate) const SCHEDULER_ADDRESSES: u64 = 2;
/// A process's timers go off at whole milliseconds, as tokio's do.
const TIMER_GRAIN_US: u64 = 1_000;
/// A clock's offset, up to 31 years.
const CLOCK_OFFSET_US_MAX: u64 = 1_000_000_000_000_000;
/// A clock's drift, either way.
const DRIFT_PPM_MAX: u64 = 50;

/// A scheduler's process.
#[derive(Debug)]
pub(crate) struct SchedulerProcess {
    pub(crate) core: Scheduler,
    pub(crate) term: u64,
    pub(crate) address: u64,
    pub(crate) sessions: BTreeMap<RelayId, PipeId>,
    pub(crate) armed: Option<Instant>,
    pub(crate) frozen: bool,
}

/// Providers, of which the relays are in turn.
const PROVIDERS: u16 = 5;

/// What happens at a time.
#[derive(Debug)]
enum Happening {
    /// A packet reaches a relay.
    Arrive(Packet),
    /// A relay's core wants to be woken.
    Timer(RelayId, BootId),
    /// A relay's shell looks after its connections.
    Tick(RelayId),
    /// A control message reaches its end.
    Parcel(PipeId, Way, Parcel),
    /// The scheduler's core wants to be woken.
    SchedulerTimer(u64),
    /// The scheduler's shell looks after its connections.
    SchedulerTick,
    /// Ends attach to a relay's process.
    Attach(RelayId, BootId),
    /// A flow sends its next frame.
    Frame(usize),
    /// A fault begins.
    Begin(Planned),
    /// A fault ends.
    End(usize),
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    number: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The mesh in virtual time. See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) base: Instant,
    pub(crate) now: Instant,
    queue: BinaryHeap<Reverse<Entry>>,
    numbers: u64,
    pub(crate) network: Network,
    pub(crate) cells: Cells,
    pub(crate) sites: BTreeMap<RelayId, Site>,
    pub(crate) scheduler: Option<SchedulerProcess>,
    pub(crate) term: u64,
    pub(crate) pipes: BTreeMap<PipeId, Pipe>,
    pipe_numbers: u64,
    /// Relays that do not reach the scheduler, and how many faults are the reason.
    pub(crate) control_cut: BTreeMap<RelayId, u32>,
    control_delay: BTreeMap<(RelayId, u64), Duration>,
    /// Where every flow is that ever was; the ones in use are in `slots`.
    pub(crate) flows: Vec<Flow>,
    /// The flow that is in use in each slot.
    pub(crate) slots: Vec<usize>,
    pub(crate) applied: Vec<Option<Applied>>,
    pub(crate) watch: Watch,
    pub(crate) repaired: Repaired,
    pub(crate) trace: Trace,
    pub(crate) figures: Figures,
    pub(crate) chance: Rng,
    pub(crate) fault_chance: Rng,
}

impl World {
    /// Makes a world in which everything starts at `base`. With `text` the trace has lines.
    pub(crate) fn new(scenario: Scenario, seed: u64, text: bool, base: Instant) -> Self {
        let mut chance = Rng::new(seed);
        let places = geography::places(scenario.relays, &mut chance.fork());
        let network = geography::network(&places, &mut chance.fork());
        let fault_chance = chance.fork();
        let cells = if scenario.cells { Cells::of(&places) } else { Cells::default() };
        let watch = Watch::new(base, scenario.attached_twice, cells.clone());
        let mut world = Self {
            base,
            now: base,
            queue: BinaryHeap::new(),
            numbers: 0,
            network,
            cells,
            sites: BTreeMap::new(),
            scheduler: None,
            term: 0,
            pipes: BTreeMap::new(),
            pipe_numbers: 0,
            control_cut: BTreeMap::new(),
            control_delay: BTreeMap::new(),
            flows: Vec::new(),
            slots: Vec::new(),
            applied: Vec::new(),
            watch,
            repaired: Repaired::default(),
            trace: Trace::new(text),
            figures: Figures::default(),
            chance,
            fault_chance,
            scenario,
        };
        world.start_scheduler();
        for place in places {
            world.settle_place(place);
        }
        world.schedule(TICK, Happening::SchedulerTick);
        world
    }

    fn settle_place(&mut self, place: Place) {
        let Place { id, lines, .. } = place;
        let (region, provider) = (place.region(), format!("provider-{}", id.0 % PROVIDERS));
        let capacity_bps = self.scenario.capacity_bps;
        for address in 0..SCHEDULER_ADDRESSES {
            let delay = self.chance.span(Duration::from_millis(1), Duration::from_millis(100));
            self.control_delay.insert((id, address), delay);
        }
        let drift =
            self.chance.between(0, 2 * DRIFT_PPM_MAX).cast_signed() - DRIFT_PPM_MAX.cast_signed();
        let site = Site {
            id,
            lines,
            capacity_bps,
            region,
            provider,
            drift_ppm: i32::try_from(drift).expect("a drift is small"),
            process: None,
            frozen: None,
            disk: None,
            boots: 0,
            dials: 0,
            client: Client::Pause { until: self.now, next: PAUSE_MIN },
            attempts: 0,
        };
        self.sites.insert(id, site);
        self.start_process(id);
        let phase = self.chance.span(Duration::ZERO, TICK);
        self.schedule(phase, Happening::Tick(id));
    }

    /// Virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.base)
    }

    /// What was found wrong so far.
    pub(crate) fn violations(&self) -> &[Violation] {
        self.watch.violations()
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.queue.peek().is_some_and(|Reverse(entry)| entry.at <= end) {
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            self.now = entry.at;
            self.happen(entry.what);
        }
        self.now = end;
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive(packet) => self.arrive(packet),
            Happening::Timer(relay, boot) => self.timer(relay, boot),
            Happening::Tick(relay) => {
                self.tick(relay);
                self.schedule(TICK, Happening::Tick(relay));
            }
            Happening::Parcel(pipe, way, parcel) => self.parcel(pipe, way, parcel),
            Happening::SchedulerTimer(term) => self.scheduler_timer(term),
            Happening::SchedulerTick => {
                self.scheduler_tick();
                self.schedule(TICK, Happening::SchedulerTick);
            }
            Happening::Attach(relay, boot) => self.attach_ends(relay, boot, true),
            Happening::Frame(slot) => self.send_frame(slot),
            Happening::Begin(planned) => self.begin(planned),
            Happening::End(fault) => self.end(fault),
        }
    }

    fn schedule(&mut self, after: Duration, what: Happening) {
        self.schedule_at(self.now + after, what);
    }

    fn schedule_at(&mut self, at: Instant, what: Happening) {
        self.numbers += 1;
        self.queue.push(Reverse(Entry { at, number: self.numbers, what }));
    }

    /// The whole millisecond at or after a time.
    fn grain(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.base);
        // Rounded down to a microsecond, a time just after now would be now, for ever.
        let since = crate::rng::micros(since + Duration::from_nanos(999));
        self.base + Duration::from_micros(since.next_multiple_of(TIMER_GRAIN_US))
    }

    pub(crate) fn say(&mut self, text: std::fmt::Arguments<'_>) {
        let at = self.elapsed();
        self.trace.say(at, text);
    }
}
