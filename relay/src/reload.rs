//! Going on with another configuration.
//!
//! What can fail is done first, and changes nothing where it does. Then everything that may change while the relay
//! runs is changed, each by its own way:
//!
//! | what | how it changes |
//! | --- | --- |
//! | services, forwards, SOCKS listeners | [`Gateway::reload`] |
//! | transit, repairs, what lines carry | settings of the mesh, a watch |
//! | what the scheduler is told of the relay, and who it is | a watch; the relay says hello anew |
//! | what clients are told of the access side | [`Dispatcher::configure`] |
//! | edges at once, who may ask for others | an atomic number, a watch |
//! | fault rules | [`FaultTable::configure`] |
//! | certificate and key | [`Credentials::adopt`] |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use ipnet::IpNet;
use overway_gateway::Gateway;
use overway_pki::Credentials;
use overway_relay_core::Settings;
use overway_telemetry::reload::{self, Reloaded};
use overway_wire::BootId;
use tokio::sync::watch;

use crate::Config;
use crate::access::{AccessConfig, AttachmentsMax, Dispatcher, OwnSide};
use crate::control::Said;
use crate::fault::{FaultConfig, FaultTable};
use crate::run::hello;

/// What of a running relay may change, and what it goes by now.
pub(crate) struct Live {
    /// As it was applied; what needs a restart is as it was at the start.
    pub(crate) held: Config,
    pub(crate) boot: BootId,
    /// The mesh's addresses, as bound.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) settings: watch::Sender<Settings>,
    pub(crate) told: Told,
    pub(crate) fault: Option<Arc<FaultTable>>,
}

/// Who is told of the relay, and how.
pub(crate) struct Told {
    /// The scheduler.
    pub(crate) said: watch::Sender<Said>,
    /// Clients.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The access side, how many edges there may be.
    pub(crate) attachments_max: Option<AttachmentsMax>,
    /// Who asks for clients, whether it may.
    pub(crate) http_trust: watch::Sender<Vec<IpNet>>,
}

impl reload::Live<Config> for Live {
    async fn apply(&mut self, mut next: Config) -> anyhow::Result<Reloaded> {
        let mut told = Reloaded::default();
        keep_fixed(&self.held, &mut next, &mut told);
        let side = next.access.clone().unwrap_or_default();
        let locations = Dispatcher::read_locations(&side)?;
        let directory = &next.state_dir;
        let read = self.credentials.reread(directory, SystemTime::now());
        let read = read.with_context(|| format!("the identity in {}", directory.display()))?;
        told.applied.extend(self.gateway.reload(next.gateway.clone()).await?);
        // Nothing fails from here on.
        if let Some(read) = read {
            self.credentials.adopt(read);
            told.applied.push("certificate".to_owned());
        }
        note_live(&self.held, &next, &mut told);
        self.settings.send_if_modified(|held| replace(held, settings(&next)));
        let Told { said, dispatcher, attachments_max, http_trust } = &self.told;
        let saying = saying(&next, self.boot, &self.addresses);
        said.send_if_modified(|held| replace(held, saying));
        dispatcher.configure(own_side(&next, &self.credentials), &side, locations);
        if let Some(max) = attachments_max {
            max.set(side.attachments_max);
        }
        http_trust.send_replace(side.http_trust);
        if let (Some(table), Some(fault)) = (&self.fault, &next.fault) {
            table.configure(&fault.rules);
        }
        overway_telemetry::log::reload(self.held.log.as_deref(), next.log.as_deref(), &mut told);
        self.held = next;
        Ok(told)
    }
}

fn replace<T: PartialEq>(held: &mut T, next: T) -> bool {
    let is_other = *held != next;
    *held = next;
    is_other
}

/// What the mesh goes by.
pub(crate) fn settings(config: &Config) -> Settings {
    Settings { transit: config.transit, fec: config.fec, lines_bps: config.lines_bps() }
}

/// What the relay says of itself, and to whom.
pub(crate) fn saying(config: &Config, boot: BootId, bound: &[SocketAddr]) -> Said {
    Said { schedulers: config.schedulers.clone(), hello: hello(config, boot, bound) }
}

/// The relay as clients are told of it.
pub(crate) fn own_side(config: &Config, credentials: &Credentials) -> OwnSide {
    OwnSide {
        relay: overway_wire::RelayId(credentials.identity().id),
        name: config.name.clone(),
        region: config.region.clone(),
        provider: config.provider.clone(),
        location: config.location,
    }
}

/// Keeps what cannot change while the relay runs, and names it.
fn keep_fixed(held: &Config, next: &mut Config, told: &mut Reloaded) {
    if next.listen != held.listen {
        // They are of the addresses.
        next.lines.clone_from(&held.lines);
    }
    macro_rules! keep {
        ($($key:literal: $field:ident),+ $(,)?) => {$(
            told.fixed($key, &held.$field, &next.$field);
            next.$field.clone_from(&held.$field);
        )+};
    }
    keep!(
        "relay.name": name,
        "relay.state_dir": state_dir,
        "mesh.listen": listen,
        "mesh.advertise": advertise,
        "mesh.offload": offload,
        "mesh.workers": workers,
        "admin.listen": admin,
    );
    next.access = match (&held.access, next.access.take()) {
        (Some(held), Some(next)) => Some(keep_access(held, next, told)),
        (held, next) => {
            told.fixed("access", held, &next);
            held.clone()
        }
    };
    next.fault = match (&held.fault, next.fault.take()) {
        (Some(held), Some(next)) => Some(keep_fault(held, next, told)),
        (held, next) => {
            told.fixed("fault", held, &next);
            held.clone()
        }
    };
}

fn keep_access(held: &AccessConfig, next: AccessConfig, told: &mut Reloaded) -> AccessConfig {
    told.fixed("access.listen", &held.listen, &next.listen);
    told.fixed("access.tcp_listen", &held.tcp_listen, &next.tcp_listen);
    told.fixed("access.http_listen", &held.http_listen, &next.http_listen);
    let AccessConfig { listen, tcp_listen, http_listen, .. } = held.clone();
    AccessConfig { listen, tcp_listen, http_listen, ..next }
}

fn keep_fault(held: &FaultConfig, next: FaultConfig, told: &mut Reloaded) -> FaultConfig {
    told.fixed("fault.seed", &held.seed, &next.seed);
    told.fixed("fault.clock_offset_ms", &held.clock_offset, &next.clock_offset);
    told.fixed("fault.clock_drift_ppm", &held.clock_drift_ppm, &next.clock_drift_ppm);
    FaultConfig { rules: next.rules, ..held.clone() }
}

/// Names what has changed. Destructured, so that a new key is either fixed or told.
fn note_live(held: &Config, next: &Config, told: &mut Reloaded) {
    let Config {
        region,
        provider,
        location,
        capacity,
        price,
        transit,
        fec,
        lines,
        schedulers,
        access,
        fault,
        name: _,
        state_dir: _,
        listen: _,
        advertise: _,
        offload: _,
        workers: _,
        admin: _,
        gateway: _,
        log: _,
    } = next;
    told.live("relay.region", &held.region, region);
    told.live("relay.provider", &held.provider, provider);
    told.live("relay.location", &held.location, location);
    told.live("relay.capacity_mbps", &held.capacity, capacity);
    told.live("relay.price_per_gb", &held.price, price);
    told.live("relay.transit", &held.transit, transit);
    told.live("mesh.fec", &held.fec, fec);
    told.live("line", &held.lines, lines);
    told.live("scheduler.addresses", &held.schedulers, schedulers);
    let (was, is) = (held.access.clone().unwrap_or_default(), access.clone().unwrap_or_default());
    told.live("access.advertise", &was.advertise, &is.advertise);
    told.live("access.tcp_advertise", &was.tcp_advertise, &is.tcp_advertise);
    told.live("access.attachments_max", &was.attachments_max, &is.attachments_max);
    told.live("access.weight", &was.weight, &is.weight);
    told.live("access.http_trust", &was.http_trust, &is.http_trust);
    told.live("access.locations", &was.locations, &is.locations);
    told.live("fault.link", &held.fault, fault);
}

#[cfg(test)]
mod tests {
    use overway_config::Document;

    use super::*;

    const HELD: &str = "\
[relay]
name = \"rome\"
state_dir = \"rome\"
[mesh]
listen = [\"127.0.0.1:4401\"]
[scheduler]
addresses = [\"127.0.0.1:4400\"]
[admin]
listen = \"127.0.0.1:9401\"
[access]
listen = [\"127.0.0.1:4443\"]
[fault]
seed = 7
";

    fn config(text: &str) -> Config {
        Config::try_from(&Document::new("relay.toml", text)).unwrap()
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named_and_the_rest_is_told() {
        let text = HELD
            .replace("4401", "5401")
            .replace("seed = 7", "seed = 8\n[[fault.link]]\nsource = \"127.0.0.1:1\"\ncut = true")
            .replace("4443\"]", "5443\"]\nweight = 7")
            .replace("name =", "capacity_mbps = 10\nname =")
            .replace("[scheduler]", "workers = 7\nfec = \"off\"\n[scheduler]");
        let held = config(&HELD.replace("[scheduler]", "workers = 3\n[scheduler]"));
        let (mut next, mut told) = (config(&text), Reloaded::default());

        keep_fixed(&held, &mut next, &mut told);
        note_live(&held, &next, &mut told);

        let fixed = ["mesh.listen", "mesh.workers", "access.listen", "fault.seed"];
        assert_eq!(told.needs_restart, fixed);
        let live = ["relay.capacity_mbps", "mesh.fec", "access.weight", "fault.link"];
        assert_eq!(told.applied, live);
        assert_eq!((next.listen, next.workers), (held.listen, 3));
        assert_eq!(next.access.unwrap().weight, 7);
        let fault = next.fault.unwrap();
        assert_eq!((fault.seed, fault.rules.len()), (7, 1));
    }

    #[test]
    fn sections_that_come_or_go_need_a_restart() {
        let without = HELD.split("[access]").next().unwrap();
        for (held, next) in [(HELD, without), (without, HELD)] {
            let (held, mut next) = (config(held), config(next));
            let mut told = Reloaded::default();

            keep_fixed(&held, &mut next, &mut told);

            assert_eq!(told.needs_restart, ["access", "fault"]);
            assert_eq!(next.access, held.access);
        }
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let (held, mut next, mut told) = (config(HELD), config(HELD), Reloaded::default());

        keep_fixed(&held, &mut next, &mut told);
        note_live(&held, &next, &mut told);

        assert_eq!(told, Reloaded::default());
    }
}
