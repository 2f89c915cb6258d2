//! Which access relays a client should try, as this relay answers it: by the pushed state, whether or not a scheduler is
//! there, and by what it knows of itself.
//!
//! Who may ask: an attached edge, on its control stream; whoever connects to the access side, once before it attaches;
//! whoever connects to `[access] http_listen`; the operator, at the admin address. Clients have to be able to ask before
//! they have anything to show, and all of these are read only: an answer has relays' names, addresses and the reasons of
//! their order, which whoever attaches learns anyway.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use overway_dispatch::{
    AccessSide, Answer, Cell, Client, Load, Locations, Mesh, Nearest, Networks,
};
use overway_relay_core::{Fib, Settings};
use overway_wire::access::messages::{AccessRelays, NearRelay};
use overway_wire::control::{AccessState, Distances, Location};
use overway_wire::{Micros, PolicyId, RelayId};
use tokio::sync::watch;

use super::stats::Counters;
use super::{AccessConfig, Drain};
use crate::lines::Lines;

/// For so long an answer may be made of the same reading of the pushed state, which takes some milliseconds for a large
/// mesh: the loads in it are older.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether the scheduler has to be told something else of the load,
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// and of the distances: 40 KB at the most, which change slowly.
const DISTANCES_INTERVAL: Duration = Duration::from_secs(30);
/// Parts of a relay's room by which its load is told: a step is an eighth of what lies between the thresholds of
/// `overway_dispatch`.
const LOAD_STEPS: u64 = 40;
/// The weight of the last second in the rate of the lines.
const BUSY_GAIN: f64 = 0.25;

/// What the relay is, as clients are told.
#[derive(Clone, Debug, Default)]
pub struct OwnSide {
    /// Its id.
    pub relay: RelayId,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its provider.
    pub provider: String,
    /// Where it is.
    pub location: Option<Location>,
}

/// Answers clients.
#[derive(Debug)]
pub struct Dispatcher {
    relay: RelayId,
    configured: ArcSwap<Configured>,
    fib: watch::Receiver<Arc<Fib>>,
    known: Mutex<Known>,
    read: Mutex<Option<(Instant, Arc<Mesh>)>>,
}

/// What the configuration says, which a reload may change.
#[derive(Debug)]
struct Configured {
    own: OwnSide,
    weight: u32,
    attachments_max: u32,
    /// Told to clients; empty: those bound.
    advertise: Vec<SocketAddr>,
    /// The same for TLS on TCP; empty: worked out of what is bound.
    tcp_advertise: Vec<SocketAddr>,
    locations: Option<Locations>,
}

impl Configured {
    fn new(own: OwnSide, config: &AccessConfig, locations: Option<Locations>) -> Self {
        Self {
            own,
            weight: config.weight,
            attachments_max: u32::try_from(config.attachments_max).unwrap_or(u32::MAX),
            advertise: config.advertise.clone(),
            tcp_advertise: config.tcp_advertise.clone(),
            locations,
        }
    }
}

/// What changes.
#[derive(Debug, Default)]
struct Known {
    bound: Vec<SocketAddr>,
    bound_tcp: Option<SocketAddr>,
    counters: Option<Arc<Counters>>,
    busy_permille: u32,
    draining: Option<watch::Receiver<Drain>>,
    networks: Networks,
}

impl Dispatcher {
    /// Of a relay with this access side, by its table.
    ///
    /// # Errors
    /// The file of locations cannot be read, or is none.
    pub fn new(
        own: OwnSide,
        config: &AccessConfig,
        fib: watch::Receiver<Arc<Fib>>,
    ) -> anyhow::Result<Self> {
        let (relay, locations) = (own.relay, Self::read_locations(config)?);
        let configured = ArcSwap::from_pointee(Configured::new(own, config, locations));
        Ok(Self { relay, configured, fib, known: Mutex::default(), read: Mutex::default() })
    }

    /// Reads the file that says where addresses are, if there is to be one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn read_locations(config: &AccessConfig) -> anyhow::Result<Option<Locations>> {
        let Some(path) = &config.locations else { return Ok(None) };
        let named = |error: anyhow::Error| {
            error.context(format!("access.locations cannot be used: {}", path.display()))
        };
        let bytes = std::fs::read(path).map_err(|error| named(error.into()))?;
        Ok(Some(Locations::new(bytes).map_err(|error| named(error.into()))?))
    }

    /// Goes on with another configuration, and a file of [`Self::read_locations`].
    pub(crate) fn configure(
        &self,
        own: OwnSide,
        config: &AccessConfig,
        locations: Option<Locations>,
    ) {
        self.configured.store(Arc::new(Configured::new(own, config, locations)));
        // Answers that were made of the old one are not given again.
        self.read().take();
    }

    /// The access side is bound, and counts here. Clients are told the TCP address with each address at which they reach
    /// the relay, unless the configuration says another.
    pub(super) fn started(
        &self,
        (bound, tcp): (&[SocketAddr], Option<SocketAddr>),
        counters: Arc<Counters>,
        draining: watch::Receiver<Drain>,
    ) {
        let mut known = self.known();
        known.counters = Some(counters);
        known.draining = Some(draining);
        let told = bound.iter().filter(|address| !address.ip().is_unspecified());
        known.bound = told.copied().collect();
        known.bound_tcp = tcp;
        if known.bound.is_empty() && self.configured.load().advertise.is_empty() {
            tracing::warn!(
                "the access side listens on every address, so none can be told to clients; set \
                 access.advertise"
            );
        }
    }

    /// An edge of this address has this round trip.
    pub(super) fn observe(&self, address: IpAddr, rtt: Duration, now: Instant) {
        self.known().networks.observe(address, rtt, now);
    }

    /// What a client is answered. `measured` is its own round trip, if it is known.
    pub fn answer(&self, asker: Asker<'_>, limit: usize) -> Answer {
        let Asker { address, key, tenant, measured } = asker;
        let fib = Arc::clone(&self.fib.borrow());
        // A tenant that is not known leaves nothing: least of all everything.
        let cell = tenant.and_then(|tenant| fib.attachable(tenant, self.relay));
        let cell = cell.map(|(own, partners)| Cell { own, partners });
        let own = measured.map(|rtt| Micros(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)));
        let own = own.or_else(|| self.known().networks.rtt(address));
        let configured = self.configured.load();
        let client = Client {
            address: Some(address.to_canonical()),
            location: configured.locations.as_ref().and_then(|locations| locations.of(address)),
            key: Client::key_of(key),
            cell: cell.as_ref(),
            measured: own.map(|rtt| (self.relay, rtt)),
        };
        self.mesh(&fib).answer(&client, limit)
    }

    /// The number of the tenant of that name, if it is known.
    pub fn tenant(&self, name: &str) -> Option<PolicyId> {
        let fib = self.fib.borrow();
        let named = fib.tenants.iter().find(|(_, tenant)| tenant.pushed.name == name);
        named.map(|(&number, _)| number)
    }

    /// The pushed state with what this relay knows of itself.
    fn mesh(&self, fib: &Fib) -> Arc<Mesh> {
        let now = Instant::now();
        let side = self.side();
        let mut read = self.read();
        if let Some((_, mesh)) = read.as_ref().filter(|(at, _)| *at + READ_AGAIN > now) {
            return Arc::clone(mesh);
        }
        let prefixes = fib.access_prefixes.values().map(|prefixes| &**prefixes);
        let name = |id: RelayId| fib.names.get(&id).cloned();
        let mut mesh = Mesh::read(fib.access_relays.values(), prefixes, name);
        if !side.addresses.is_empty() {
            mesh.put(self.relay, side);
        }
        let mesh = Arc::new(mesh);
        *read = Some((now, Arc::clone(&mesh)));
        mesh
    }

    fn side(&self) -> AccessSide {
        let (known, configured) = (self.known(), self.configured.load());
        let Configured { own, weight, attachments_max, advertise, tcp_advertise, .. } =
            &**configured;
        AccessSide {
            name: own.name.clone(),
            addresses: known.addresses(advertise),
            tcp_addresses: known.tcp_addresses(tcp_advertise, advertise),
            region: own.region.clone(),
            provider: own.provider.clone(),
            location: own.location,
            weight: *weight,
            load: Load {
                attachments: known.attachments(),
                attachments_max: *attachments_max,
                busy_permille: known.busy_permille,
            },
            is_draining: known.is_draining(),
        }
    }

    /// What the scheduler is told: the load rounded up, so that it is no news all the time.
    fn state(&self) -> AccessState {
        let side = self.side();
        let step = |value: u32, of: u32| {
            let step = u64::from(of).div_ceil(LOAD_STEPS).max(1);
            let up = u64::from(value).div_ceil(step) * step;
            u32::try_from(up.min(u64::from(of.max(value)))).unwrap_or(u32::MAX)
        };
        AccessState {
            addresses: texts(&side.addresses),
            tcp_addresses: texts(&side.tcp_addresses),
            weight: side.weight,
            attachments: step(side.load.attachments, side.load.attachments_max),
            attachments_max: side.load.attachments_max,
            busy_permille: step(side.load.busy_permille, 1_000),
            draining: side.is_draining,
        }
    }

    /// Keeps what the scheduler is told up to date; the settings say what each line carries. Ends only with its task.
    pub(crate) async fn keep_told(
        self: Arc<Self>,
        lines: Arc<Lines>,
        settings: watch::Receiver<Settings>,
        told: AccessTold,
    ) {
        let mut interval = tokio::time::interval(LOAD_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut before, mut busy): (Option<(Instant, Vec<u64>)>, f64) = (None, 0.0);
        let mut distances_due = Instant::now();
        loop {
            interval.tick().await;
            let now = Instant::now();
            let sent: Vec<u64> =
                lines.totals(SystemTime::now()).iter().map(|line| line.sent_bytes).collect();
            let lines_bps = settings.borrow().lines_bps.clone();
            if let Some((at, earlier)) = &before {
                let shares =
                    busiest(earlier, &sent, &lines_bps, now.saturating_duration_since(*at));
                busy += (shares - busy) * BUSY_GAIN;
            }
            before = Some((now, sent));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let permille = (busy.clamp(0.0, 1.0) * 1e3) as u32;
            self.known().busy_permille = permille;
            replace(&told.state, self.state());
            if now >= distances_due {
                distances_due = now + DISTANCES_INTERVAL;
                let report = self.known().networks.report(now);
                replace(&told.distances, report);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, Option<(Instant, Arc<Mesh>)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its address.
    pub address: IpAddr,
    /// What tells it from others of its address.
    pub key: &'a [u8],
    /// Its tenant's number, if that is known.
    pub tenant: Option<PolicyId>,
    /// Its round trip to this relay, if that is measured.
    pub measured: Option<Duration>,
}

/// What the scheduler is told of the access side, and where that is read.
pub(crate) fn told_access() -> (AccessTold, AccessHeard) {
    let told = AccessTold::default();
    let heard =
        AccessHeard { state: told.state.subscribe(), distances: told.distances.subscribe() };
    (told, heard)
}

/// What is to be told to the scheduler of the access side. Without one, nothing ever is.
#[derive(Debug)]
pub(crate) struct AccessHeard {
    /// How it stands.
    pub(crate) state: watch::Receiver<AccessState>,
    /// How far its edges' networks are.
    pub(crate) distances: watch::Receiver<Distances>,
}

/// What is told to the scheduler of the access side.
#[derive(Debug, Default)]
pub(crate) struct AccessTold {
    /// How it stands.
    pub(crate) state: watch::Sender<AccessState>,
    /// How far its edges' networks are.
    pub(crate) distances: watch::Sender<Distances>,
}

impl Known {
    /// Those told to clients.
    fn addresses(&self, advertise: &[SocketAddr]) -> Vec<SocketAddr> {
        if advertise.is_empty() { self.bound.clone() } else { advertise.to_vec() }
    }

    /// The same for TLS on TCP.
    fn tcp_addresses(&self, said: &[SocketAddr], advertise: &[SocketAddr]) -> Vec<SocketAddr> {
        match self.bound_tcp {
            Some(tcp) if said.is_empty() => reached_at(tcp, advertise, &self.bound),
            _ => said.to_vec(),
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| *draining.borrow() != Drain::No)
    }

    fn attachments(&self) -> u32 {
        let count = self.counters.as_ref().map_or(0, |counters| counters.attachments.read());
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn replace<T: PartialEq>(told: &watch::Sender<T>, new: T) {
    told.send_if_modified(|known| {
        let changed = *known != new;
        *known = new;
        changed
    });
}

/// The part of its capacity that the busiest line of known capacity has used, 0 to about 1.
#[expect(clippy::cast_precision_loss, reason = "shares need no more than 53 bits")]
fn busiest(earlier: &[u64], now: &[u64], lines_bps: &[u64], elapsed: Duration) -> f64 {
    let used = now.iter().zip(earlier).map(|(now, earlier)| now.saturating_sub(*earlier) * 8);
    let known = used.zip(lines_bps).filter(|(_, bps)| **bps > 0);
    let seconds = elapsed.as_secs_f64().max(1e-3);
    known.map(|(bits, &bps)| bits as f64 / seconds / bps as f64).fold(0.0, f64::max)
}

/// Where clients reach a bound TCP address: on the hosts that are advertised; else where it is bound, or where it is bound
/// everywhere on the hosts of the addresses that are told.
fn reached_at(tcp: SocketAddr, advertised: &[SocketAddr], told: &[SocketAddr]) -> Vec<SocketAddr> {
    let hosts = match (advertised, tcp.ip().is_unspecified()) {
        ([], false) => return vec![tcp],
        ([], true) => told,
        (advertised, _) => advertised,
    };
    // One bound to every IPv6 address takes IPv4 as well.
    let serves = |host: &&SocketAddr| tcp.is_ipv6() || host.is_ipv4();
    let hosts = hosts.iter().filter(serves);
    let mut reached: Vec<SocketAddr> =
        hosts.map(|host| SocketAddr::new(host.ip(), tcp.port())).collect();
    reached.dedup();
    reached
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// An answer as it goes to an edge.
pub(super) fn message(request: u32, answer: &Answer) -> AccessRelays {
    let relay = |nearest: &Nearest| NearRelay {
        relay: nearest.relay.into(),
        name: nearest.name.clone(),
        addresses: texts(&nearest.addresses),
        tcp_addresses: texts(&nearest.tcp_addresses),
        partner: nearest.partner,
        region: nearest.region.clone(),
        provider: nearest.provider.clone(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        rtt_us: nearest.rtt_ms.map_or(0, |ms| ((ms * 1e3) as u32).max(1)),
        state: nearest.state.clone(),
        why: nearest.why_text(),
    };
    AccessRelays { request, relays: answer.relays.iter().map(relay).collect() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use overway_wire::control::AccessRelay;

    pub(in crate::access) fn dispatcher(fib: Fib, drain: Drain) -> Dispatcher {
        let own = OwnSide { relay: RelayId(1), name: "rome".into(), ..OwnSide::default() };
        let config = AccessConfig { attachments_max: 400, ..AccessConfig::default() };
        let dispatcher = Dispatcher::new(own, &config, watch::channel(Arc::new(fib)).1).unwrap();
        let counters = Arc::<Counters>::default();
        counters.attachments.set(101);
        let drain = watch::channel(drain).1;
        let bound = ["203.0.113.1:4434".parse().unwrap()];
        let tcp = "0.0.0.0:443".parse().ok();
        dispatcher.started((&bound, tcp), counters, drain);
        dispatcher
    }

    fn asker(tenant: Option<u16>) -> Asker<'static> {
        let address = IpAddr::from([192, 0, 2, 1]);
        Asker { address, key: b"x", tenant: tenant.map(PolicyId), measured: None }
    }

    #[test]
    fn a_relay_knows_itself_without_any_scheduler_and_others_by_what_was_pushed() {
        let state = AccessState {
            addresses: vec!["203.0.113.2:4434".into()],
            weight: 100,
            attachments_max: 10,
            ..AccessState::default()
        };
        let mut fib = Fib::default();
        let alone = dispatcher(fib.clone(), Drain::No).answer(asker(None), 8);
        let names: Vec<&str> = alone.relays.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["rome"]);

        let pushed = AccessRelay { relay: 2, state: Some(state), ..AccessRelay::default() };
        Arc::make_mut(&mut fib.access_relays).insert(RelayId(2), pushed);
        let both = dispatcher(fib, Drain::No);
        assert_eq!(both.answer(asker(None), 8).relays.len(), 2);
        // A tenant that is not known is answered nothing.
        assert_eq!(both.answer(asker(Some(7)), 8).relays, []);
    }

    #[test]
    fn what_it_measures_counts_at_once_and_is_told_with_its_load_in_steps() {
        let draining = dispatcher(Fib::default(), Drain::Leaving(None));
        let dispatcher = dispatcher(Fib::default(), Drain::No);
        dispatcher.observe([192, 0, 2, 9].into(), Duration::from_millis(12), Instant::now());
        let answer = dispatcher.answer(asker(None), 8);
        assert_eq!(answer.relays[0].rtt_ms, Some(12.0));
        let measured = Asker { measured: Some(Duration::from_millis(3)), ..asker(None) };
        assert_eq!(dispatcher.answer(measured, 8).relays[0].rtt_ms, Some(3.0));

        let state = dispatcher.state();
        assert_eq!((state.attachments, state.attachments_max), (110, 400));
        assert_eq!(state.addresses, ["203.0.113.1:4434"]);
        assert_eq!(state.tcp_addresses, ["203.0.113.1:443"]);
        assert!(draining.state().draining && !state.draining);
        assert_eq!(draining.answer(asker(None), 8).relays[0].state, "draining");
    }

    #[test]
    fn a_tcp_address_is_told_as_clients_reach_it() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let public = [address("203.0.113.6:4443"), address("[2001:db8::6]:4443")];
        let reached =
            |tcp, advertised: &[SocketAddr]| reached_at(address(tcp), advertised, &public);

        assert_eq!(reached("10.0.0.5:443", &[]), [address("10.0.0.5:443")]);
        assert_eq!(reached("10.0.0.5:443", &public), [address("203.0.113.6:443")], "behind a NAT");
        assert_eq!(reached("0.0.0.0:443", &[]), [address("203.0.113.6:443")]);
        let both = [address("203.0.113.6:443"), address("[2001:db8::6]:443")];
        assert_eq!(reached("[::]:443", &[]), both);
    }

    #[test]
    fn the_busiest_line_of_known_capacity_counts() {
        let second = Duration::from_secs(1);
        let busy = busiest(&[0, 0, 0], &[500, 250, 9_000], &[8_000, 8_000, 0], second);
        assert!((busy - 0.5).abs() < 1e-9);
        assert!(busiest(&[9], &[3], &[8], second) < 1e-9, "counted anew");
    }
}
