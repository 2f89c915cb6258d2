//! The relay's configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use overway_config::{ConfigError, Document, RawLog, Spanned};
use overway_gateway::{GatewayConfig, RawForward, RawService, RawSocks};
use overway_relay_core::Fec;
use overway_wire::control::{Line, Location, WORKERS_MAX};
use overway_wire::{BitsPerSec, PricePerGb};
use serde::Deserialize;

use crate::access::{AccessConfig, RawAccess};
use crate::fault::{FaultConfig, RawFault};

mod lines;

/// Provider lines of one relay: two links a pair is what the design allows by default.
const LINES_MAX: usize = 2;
/// Schedulers that a relay may know; more than any election has members.
const SCHEDULERS_MAX: usize = 16;
/// A terabit per second.
const CAPACITY_MBPS_MAX: f64 = 1e6;
/// A price above which no unit of currency makes sense.
const PRICE_MAX: f64 = 10_000.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    relay: RawRelay,
    mesh: RawMesh,
    scheduler: RawScheduler,
    admin: RawAdmin,
    access: Option<RawAccess>,
    #[serde(default)]
    line: Vec<lines::RawLine>,
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    forward: Vec<RawForward>,
    #[serde(default)]
    socks: Vec<RawSocks>,
    fault: Option<Spanned<RawFault>>,
    log: Option<RawLog>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelay {
    name: Spanned<String>,
    state_dir: PathBuf,
    #[serde(default)]
    region: String,
    #[serde(default)]
    provider: String,
    location: Option<Spanned<String>>,
    capacity_mbps: Option<Spanned<f64>>,
    price_per_gb: Option<Spanned<f64>>,
    #[serde(default = "yes")]
    transit: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMesh {
    listen: Spanned<Vec<Spanned<String>>>,
    advertise: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default = "yes")]
    offload: bool,
    fec: Option<Spanned<String>>,
    workers: Option<Spanned<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScheduler {
    addresses: Spanned<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Spanned<String>,
}

const fn yes() -> bool {
    true
}

/// A relay's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay's name, as given by `node add`.
    pub name: String,
    /// Where identity and last good state are kept.
    pub state_dir: PathBuf,
    /// Region, for policy and for people.
    pub region: String,
    /// Provider, for diversity.
    pub provider: String,
    /// Where it is, for maps.
    pub location: Option<Location>,
    /// Capacity of its line, 0 if not said.
    pub capacity: BitsPerSec,
    /// Price of its outgoing traffic.
    pub price: PricePerGb,
    /// Whether it carries others' traffic.
    pub transit: bool,
    /// Mesh addresses, one per provider line.
    pub listen: Vec<SocketAddr>,
    /// Addresses told to others; empty: those bound.
    pub advertise: Vec<SocketAddr>,
    /// Whether the system may cut batches into packets (segmentation offload, GSO), where it can. Off
    /// only helps where a driver does it wrongly.
    pub offload: bool,
    /// Whether neighbours are sent repairs, and theirs made use of.
    pub fec: Fec,
    /// Threads that carry the mesh's frames, at least one.
    pub workers: u8,
    /// What is known of the line behind each address of `listen`, in their order; empty if nothing more
    /// than the relay's own capacity and price.
    pub lines: Vec<Line>,
    /// Schedulers, tried in turn.
    pub schedulers: Vec<SocketAddr>,
    /// Admin HTTP.
    pub admin: SocketAddr,
    /// Where edges attach, if they may.
    pub access: Option<AccessConfig>,
    /// Services, forwards and SOCKS listeners.
    pub gateway: GatewayConfig,
    /// Fault injection, off unless configured.
    pub fault: Option<FaultConfig>,
    /// What is logged, if the file says so.
    pub log: Option<String>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// One line that names file, line, key, and what would be right.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let document = Document::read(path)?;
        Self::try_from(&document)
    }

    /// What the line behind each address of `listen` carries, in their order; 0 if not said.
    pub fn lines_bps(&self) -> Vec<u64> {
        let said = |at: usize| self.lines.get(at).map_or(0, |line| line.capacity_bps);
        let of = |at| if said(at) == 0 { self.capacity.0 } else { said(at) };
        (0..self.listen.len()).map(of).collect()
    }
}

impl TryFrom<&Document> for Config {
    type Error = ConfigError;

    fn try_from(document: &Document) -> Result<Self, ConfigError> {
        let raw: RawConfig = document.parse()?;
        let listen = addresses(document, &raw.mesh.listen, 1..=LINES_MAX)?;
        let advertise = match &raw.mesh.advertise {
            Some(list) => addresses(document, list, listen.len()..=listen.len())?,
            None => Vec::new(),
        };
        reachable(document, &raw.mesh, &advertise)?;
        let schedulers = addresses(document, &raw.scheduler.addresses, 1..=SCHEDULERS_MAX)?;
        let admin = document.address(&raw.admin.listen)?;
        if !admin.ip().is_loopback() {
            let message = "the admin API has no access control yet; listen on a loopback address \
                such as 127.0.0.1:9401";
            return Err(document.error(raw.admin.listen.span(), message));
        }
        let number = |value: &Option<Spanned<f64>>, max: f64, scale: f64| match value {
            Some(value) => Ok(document.in_range(value, 0.0..=max)? * scale),
            None => Ok(0.0),
        };
        let access = raw.access.as_ref().map(|access| AccessConfig::from_raw(document, access));
        let fault = raw.fault.map(|fault| {
            let span = fault.span();
            FaultConfig::try_from(fault.into_inner())
                .map_err(|error| document.error(span, error.to_string()))
        });
        let location = raw.relay.location.as_ref().map(|text| {
            let (latitude, longitude) = document.degrees(text)?;
            Ok(Location::from_degrees(latitude, longitude))
        });
        Ok(Self {
            name: document.name(&raw.relay.name)?,
            state_dir: document.resolve(&raw.relay.state_dir),
            region: raw.relay.region,
            provider: raw.relay.provider,
            location: location.transpose()?.flatten(),
            capacity: BitsPerSec(whole(number(&raw.relay.capacity_mbps, CAPACITY_MBPS_MAX, 1e6)?)),
            price: price(number(&raw.relay.price_per_gb, PRICE_MAX, 1e5)?),
            transit: raw.relay.transit,
            lines: lines::lines(document, &raw.line, &listen)?,
            listen,
            advertise,
            offload: raw.mesh.offload,
            fec: raw.mesh.fec.as_ref().map_or(Ok(Fec::default()), |name| fec(document, name))?,
            workers: workers(document, raw.mesh.workers.as_ref())?,
            schedulers,
            admin,
            access: access.transpose()?,
            gateway: GatewayConfig::from_raw(document, &raw.service, &raw.forward, &raw.socks)?,
            fault: fault.transpose()?,
            log: raw.log.map(|log| log.filter(document)).transpose()?,
        })
    }
}

fn addresses(
    document: &Document,
    list: &Spanned<Vec<Spanned<String>>>,
    count: std::ops::RangeInclusive<usize>,
) -> Result<Vec<SocketAddr>, ConfigError> {
    let entries = document.entries(list, count)?;
    document.unique(entries)?;
    entries.iter().map(|entry| document.address(entry)).collect()
}

/// Other relays dial what is advertised: that must be an address of this machine and a port.
fn reachable(
    document: &Document,
    mesh: &RawMesh,
    advertise: &[SocketAddr],
) -> Result<(), ConfigError> {
    let entries = mesh.advertise.as_ref().unwrap_or(&mesh.listen);
    for entry in entries.get_ref() {
        let address = document.address(entry)?;
        let usable =
            !address.ip().is_unspecified() && (address.port() != 0 || advertise.is_empty());
        if !usable {
            let message = format!(
                "other relays cannot dial {address}; put this machine's own address and port into \
                mesh.advertise, such as advertise = [\"203.0.113.7:4400\"]"
            );
            return Err(document.error(entry.span(), message));
        }
    }
    Ok(())
}

fn fec(document: &Document, name: &Spanned<String>) -> Result<Fec, ConfigError> {
    match name.get_ref().as_str() {
        "off" => Ok(Fec::Off),
        "adaptive" => Ok(Fec::Adaptive),
        given => {
            let message = format!("{given:?} is none; expected \"off\" or \"adaptive\"");
            Err(document.error(name.span(), message))
        }
    }
}

/// One for each processor that the process may use, unless the file says how many.
fn workers(document: &Document, said: Option<&Spanned<u64>>) -> Result<u8, ConfigError> {
    let workers = match said {
        Some(said) => document.in_range(said, 1..=u64::from(WORKERS_MAX))?,
        // A system that does not say has one.
        None if cfg!(unix) => {
            std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
        }
        None => 1,
    };
    Ok(u8::try_from(workers).unwrap_or(WORKERS_MAX).min(WORKERS_MAX))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to 10^12")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

fn price(milli_cents: f64) -> PricePerGb {
    PricePerGb(u32::try_from(whole(milli_cents)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[relay]
name = "frankfurt"
state_dir = "frankfurt"
capacity_mbps = 200
price_per_gb = 0.02
[mesh]
listen = ["127.0.0.1:4401"]
[scheduler]
addresses = ["127.0.0.1:4400"]
[admin]
listen = "127.0.0.1:9401"
[[service]]
name = "web"
protocol = "tcp"
target = "127.0.0.1:8080"
[fault]
seed = 7
"#;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::try_from(&Document::new("relay.toml", text))
    }

    #[test]
    fn a_configuration_is_read_with_its_units() {
        let config = load(GOOD).unwrap();

        assert_eq!(config.capacity, BitsPerSec(200_000_000));
        assert_eq!(config.location, None);
        let placed = GOOD.replace("capacity_mbps", "location = \"50.1, -8.7\"\ncapacity_mbps");
        let place = Location { latitude_e6: 50_100_000, longitude_e6: -8_700_000 };
        assert_eq!(load(&placed).unwrap().location, Some(place));
        assert_eq!(config.price, PricePerGb(2_000));
        assert!(config.transit && config.fault.is_some());
        assert_eq!(config.gateway.services.len(), 1);
        assert_eq!(config.fec, Fec::Adaptive);
        let off = load(&GOOD.replace("[scheduler]", "fec = \"off\"\n[scheduler]")).unwrap();
        assert_eq!(off.fec, Fec::Off);
        assert!((1..=16).contains(&config.workers), "{}", config.workers);
        let two = load(&GOOD.replace("[scheduler]", "workers = 2\n[scheduler]")).unwrap();
        assert_eq!(two.workers, 2);
    }

    #[test]
    fn edges_may_attach_where_the_file_says() {
        assert_eq!(load(GOOD).unwrap().access, None);
        let said = "[access]\nlisten = [\"0.0.0.0:4443\", \"[::]:4443\"]\n";

        let config = load(&[GOOD, said].concat()).unwrap();

        let listen = ["0.0.0.0:4443", "[::]:4443"].map(|address| address.parse().unwrap());
        let access = AccessConfig { listen: listen.to_vec(), ..AccessConfig::default() };
        assert_eq!(config.access, Some(access));
        let more = "weight = 0\nadvertise = [\"203.0.113.6:1\"]\nhttp_listen = \"0.0.0.0:80\"\nhttp_trust = [\"10.0.0.0/8\"]\nlocations = \"c.mmdb\"\n";
        let config =
            load(&GOOD.replace("[scheduler]", &format!("{said}{more}[scheduler]"))).unwrap();
        let access = config.access.unwrap();
        assert_eq!((access.weight, access.http_trust.len()), (0, 1));
        assert_eq!(access.advertise, ["203.0.113.6:1".parse().unwrap()]);
        assert!(access.locations.unwrap().ends_with("c.mmdb"));
    }

    const LINE: &str = "[[line]]\nlisten = \"127.0.0.1:4401\"\n";

    #[test]
    fn lines_are_read_with_their_units_and_in_the_order_of_the_addresses() {
        let two = GOOD.replace("\"127.0.0.1:4401\"", "\"127.0.0.1:4401\", \"127.0.0.1:4402\"");
        assert!(load(&two).unwrap().lines.is_empty());
        let said = "[[line]]\nlisten = \"127.0.0.1:4402\"\nprovider = \"acme\"\ncapacity_mbps = 0.5\n\
            price_per_gb = 0.01\ncommit_gb = 10\ncap_gb = 20\n";

        let config = load(&[&*two, said].concat()).unwrap();

        let line = Line {
            capacity_bps: 500_000,
            price_per_gb: 1_000,
            commit_gb: 10,
            cap_gb: 20,
            provider: "acme".to_owned(),
        };
        assert_eq!(config.lines, [Line::default(), line]);
        assert_eq!(config.lines_bps(), [200_000_000, 500_000]);
        assert_eq!(load(&two).unwrap().lines_bps(), [200_000_000; 2]);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_with_line_key_and_remedy() {
        let cases = [
            (
                "listen = \"127.0.0.1:9\"\n",
                "relay.toml:20: line.listen: 127.0.0.1:9 is not in mesh.listen; expected one of 127.0.0.1:4401",
            ),
            (
                &*[LINE.trim_start_matches("[[line]]\n"), LINE].concat(),
                "relay.toml:22: line.listen: 127.0.0.1:4401 is given twice; it stands already on line 20",
            ),
            (
                "listen = \"127.0.0.1:4401\"\ncommit_gb = 9\ncap_gb = 8\n",
                "relay.toml:22: line.cap_gb: 8 is less than commit_gb, 9, which is paid for in any case; expected as much or more",
            ),
            (
                "listen = \"127.0.0.1:4401\"\ncap_gb = 0\n",
                "relay.toml:21: line.cap_gb: 0 is out of range; expected 1 to 1000000000",
            ),
            (
                "listen = \"127.0.0.1:4401\"\nprice_per_gb = -1.0\n",
                "relay.toml:21: line.price_per_gb: -1 is out of range; expected 0 to 10000",
            ),
        ];
        for (wrong, message) in cases {
            let error = load(&[GOOD, "[[line]]\n", wrong].concat()).unwrap_err().to_string();
            assert_eq!(error, message);
        }
    }

    #[test]
    fn the_example_of_the_lines_documentation_is_good() {
        let source =
            include_str!("config/lines.rs").lines().skip_while(|line| *line != "//! ```toml");
        let example = source.skip(1).take_while(|line| *line != "//! ```");
        let text: Vec<_> = example.map(|line| line.trim_start_matches("//!")).collect();
        let good = GOOD.replace("127.0.0.1:4401", "203.0.113.7:4400");

        let config = load(&[&*good, &text.join("\n")].concat()).unwrap();

        assert_eq!(config.lines[0].commit_gb, 10_000);
    }

    #[test]
    fn what_is_wrong_is_told_with_line_key_and_remedy() {
        let cases = [
            ("name = \"frankfurt\"", "nmae = \"frankfurt\"", "relay.toml:3", "nmae"),
            ("127.0.0.1:4401", "127.0.0.1:99999", "relay.toml:8", "IP:PORT"),
            ("[\"127.0.0.1:4401\"]", "[\"0.0.0.0:4401\"]", "relay.toml:8", "mesh.advertise"),
            ("[\"127.0.0.1:4401\"]", "[]", "relay.toml:8", "mesh.listen"),
            (
                "[\"127.0.0.1:4401\"]",
                "[\"127.0.0.1:4401\"]\nworkers = 17",
                "relay.toml:9",
                "expected 1 to 16",
            ),
            ("127.0.0.1:9401", "0.0.0.0:9401", "relay.toml:12", "loopback"),
            ("capacity_mbps = 200", "capacity_mbps = \"fast\"", "relay.toml:5", "capacity_mbps"),
            ("capacity_mbps = 200", "capacity_mbps = -1", "relay.toml:5", "capacity_mbps"),
            ("capacity_mbps = 200", "location = \"north\"", "relay.toml:5", "LATITUDE,LONGITUDE"),
            ("capacity_mbps = 200", "location = \"90.1,0\"", "relay.toml:5", "relay.location"),
            ("[scheduler]", "fec = \"on\"\n[scheduler]", "relay.toml:9", "mesh.fec"),
            ("[scheduler]", "[access]\nlisten = []\n[scheduler]", "relay.toml:10", "access.listen"),
            (
                "[scheduler]",
                "[access]\nlisten = [\"0.0.0.0:4443\"]\nattachments_max = 0\n[scheduler]",
                "relay.toml:11",
                "expected 1 to 16384",
            ),
            ("seed = 7", "seed = 7\nclock_drift_ppm = 100000", "relay.toml:17", "clock_drift_ppm"),
        ];
        for (right, wrong, place, word) in cases {
            assert!(GOOD.contains(right));
            let error = load(&GOOD.replace(right, wrong)).unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(word), "{wrong}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
