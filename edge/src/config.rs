//! The edge's configuration file.
//!
//! ```toml
//! [edge]
//! tenant = "shop"
//! key_file = "edge.key"               # made by `overway edge keygen`
//! token_file = "edge.jwt"             # from the tenant's backend; read again when it changes
//! tenant_keys_file = "shop.jwks.json" # the tenant's public keys; read again when it changes
//! state_dir = "state"                 # keeps the relays that it has learnt of; none: they are not kept
//! handback = true                     # a better endpoint that is well again gets new connections from the one in use
//!
//! [access]
//! relays = ["203.0.113.7:4434", "198.51.100.9:4434"]
//! ca_file = "mesh-ca.pem"             # the mesh's CA
//! tcp_port = 443                      # of the relays, used where UDP does not come through; 0: never
//! discover = ["http://203.0.113.7:8080"] # where to ask for nearer relays, beside the relays; none unless said
//! discover_ca_file = "web-ca.pem"      # who signs certificates of https:// URLs of these; the system's CAs unless said
//! nearest = true                      # false: only the relays above, never others
//!
//! [admin]                             # none unless said
//! listen = "127.0.0.1:9403"
//!
//! [[offer]]                           # how a [[service]] is offered; as below unless said
//! service = "web"
//! priority = 1                        # a greater one is used only where none of a smaller is well
//! weight = 1                          # share among those of one priority
//! check = "tcp"                       # or "http", or "none"; udp has none
//! check_path = "/"                    # http: what is asked for; 2xx and 3xx is well
//! check_interval_s = 1.0
//! ```
//!
//! `[[service]]`, `[[forward]]` and `[[socks]]` are those of a relay's gateway.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use overway_client::TCP_PORT;
use overway_config::{ConfigError, Document, RawLog, Spanned};
use overway_gateway::{GatewayConfig, Protocol, RawForward, RawService, RawSocks};
use overway_tenant::TenantName;
use serde::Deserialize;

/// Access relays that an edge may know: it holds two, and needs a few to turn to.
const RELAYS_MAX: usize = 64;
/// URLs at which an edge asks.
const DISCOVER_MAX: usize = 8;
const PRIORITY_RANGE: RangeInclusive<u32> = 0..=1_000_000;
const WEIGHT_RANGE: RangeInclusive<u32> = 1..=1_000_000;
/// Shorter would be a load of its own, longer no check.
const CHECK_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3_600);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the longest path that a check asks for.
const CHECK_PATH_BYTES_MAX: usize = 1_024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    edge: RawEdge,
    access: RawAccess,
    admin: Option<RawAdmin>,
    #[serde(default)]
    offer: Vec<RawOffer>,
    #[serde(default)]
    service: Vec<RawService>,
    #[serde(default)]
    forward: Vec<RawForward>,
    #[serde(default)]
    socks: Vec<RawSocks>,
    log: Option<RawLog>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEdge {
    tenant: Spanned<String>,
    key_file: PathBuf,
    token_file: PathBuf,
    tenant_keys_file: PathBuf,
    state_dir: Option<PathBuf>,
    handback: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccess {
    relays: Spanned<Vec<Spanned<String>>>,
    ca_file: PathBuf,
    tcp_port: Option<u16>,
    discover: Option<Spanned<Vec<Spanned<String>>>>,
    discover_ca_file: Option<Spanned<PathBuf>>,
    #[serde(default = "yes")]
    nearest: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOffer {
    service: Spanned<String>,
    priority: Option<Spanned<u32>>,
    weight: Option<Spanned<u32>>,
    check: Option<Spanned<String>>,
    check_path: Option<Spanned<String>>,
    check_interval_s: Option<Spanned<f64>>,
}

/// An edge's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose edge it is.
    pub tenant: TenantName,
    /// Its own key, PKCS #8 PEM.
    pub key_file: PathBuf,
    /// Its token.
    pub token_file: PathBuf,
    /// Its tenant's public keys, a JWK set.
    pub tenant_keys_file: PathBuf,
    /// Whether a better endpoint of a service that is well again gets new connections from the one in use.
    pub handback: bool,
    /// Access relays that it may attach to.
    pub relays: Vec<SocketAddr>,
    /// The relays' TCP port, tried where UDP does not come through; `None`: never.
    pub tcp_port: Option<u16>,
    /// URLs at which it asks for nearer ones, beside these.
    pub discover: Vec<String>,
    /// The CAs whose word counts for those with `https://`; `None`: the system's.
    pub discover_ca_file: Option<PathBuf>,
    /// Whether it asks at all.
    pub nearest: bool,
    /// Where it keeps those that it has learnt of.
    pub state_dir: Option<PathBuf>,
    /// The mesh's CA, PEM.
    pub ca_file: PathBuf,
    /// Admin HTTP, if wanted.
    pub admin: Option<SocketAddr>,
    /// How services are offered; one for each name of a service.
    pub offers: Vec<OfferConfig>,
    /// Services, forwards and SOCKS listeners.
    pub gateway: GatewayConfig,
    /// What is logged, if the file says so.
    pub log: Option<String>,
}

/// How a service is offered to the tenant's other edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferConfig {
    /// Its name.
    pub service: String,
    /// Endpoints of a greater one are used only where none of a smaller is well.
    pub priority: u32,
    /// Share among endpoints of one priority.
    pub weight: u32,
    /// How it is found out whether it is well.
    pub check: Check,
    /// How often.
    pub interval: Duration,
}

/// How it is found out whether a service is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is taken to be.
    None,
    /// Its target accepts connections.
    Tcp,
    /// Its target answers a GET of this path with 2xx or 3xx.
    Http(String),
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
}

impl TryFrom<&Document> for Config {
    type Error = ConfigError;

    fn try_from(document: &Document) -> Result<Self, ConfigError> {
        let raw: RawConfig = document.parse()?;
        let entries = document.entries(&raw.access.relays, 1..=RELAYS_MAX)?;
        document.unique(entries)?;
        let relays =
            entries.iter().map(|entry| document.address(entry)).collect::<Result<_, _>>()?;
        let tenant: Result<TenantName, _> = raw.edge.tenant.get_ref().parse();
        let tenant = tenant.map_err(|error| document.error(raw.edge.tenant.span(), error))?;
        let admin = raw.admin.as_ref().map(|admin| admin_address(document, &admin.listen));
        let gateway = GatewayConfig::from_raw(document, &raw.service, &raw.forward, &raw.socks)?;
        Ok(Self {
            tenant,
            key_file: document.resolve(&raw.edge.key_file),
            token_file: document.resolve(&raw.edge.token_file),
            tenant_keys_file: document.resolve(&raw.edge.tenant_keys_file),
            handback: raw.edge.handback.unwrap_or(true),
            relays,
            tcp_port: Some(raw.access.tcp_port.unwrap_or(TCP_PORT)).filter(|&port| port != 0),
            discover: discover(document, &raw.access)?,
            discover_ca_file: discover_ca_file(document, &raw.access)?,
            nearest: raw.access.nearest,
            state_dir: raw.edge.state_dir.as_ref().map(|dir| document.resolve(dir)),
            ca_file: document.resolve(&raw.access.ca_file),
            admin: admin.transpose()?,
            offers: offers(document, &raw.offer, &gateway)?,
            gateway,
            log: raw.log.map(|log| log.filter(document)).transpose()?,
        })
    }
}

/// The URLs at which to ask for relays.
fn discover(document: &Document, raw: &RawAccess) -> Result<Vec<String>, ConfigError> {
    let Some(list) = &raw.discover else { return Ok(Vec::new()) };
    if !raw.nearest {
        let message = "is where to ask for nearer relays, and nearest = false asks for none";
        return Err(document.error(list.span(), message));
    }
    let entries = document.entries(list, 1..=DISCOVER_MAX)?;
    document.unique(entries)?;
    let url = |entry: &Spanned<String>| {
        let said = entry.get_ref();
        let rest = said.strip_prefix("http://").or_else(|| said.strip_prefix("https://"));
        match rest {
            Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
                Ok(said.clone())
            }
            Some(_) | None => {
                let message = format!(
                    "{said:?} is no http:// or https:// URL; expected one such as http://203.0.113.7:8080"
                );
                Err(document.error(entry.span(), message))
            }
        }
    };
    entries.iter().map(url).collect()
}

/// The file by which certificates of such URLs are judged.
fn discover_ca_file(document: &Document, raw: &RawAccess) -> Result<Option<PathBuf>, ConfigError> {
    let Some(said) = &raw.discover_ca_file else { return Ok(None) };
    let mut urls = raw.discover.iter().flat_map(Spanned::get_ref);
    if !urls.any(|url| url.get_ref().starts_with("https://")) {
        let message = "is for https:// URLs; expected one in discover beside it";
        return Err(document.error(said.span(), message));
    }
    Ok(Some(document.resolve(said.get_ref())))
}

fn admin_address(document: &Document, listen: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
    let address = document.address(listen)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let message =
        "the admin API has no access control; listen on a loopback address such as 127.0.0.1:9403";
    Err(document.error(listen.span(), message))
}

/// One offer for each name of a service.
fn offers(
    document: &Document,
    raw: &[RawOffer],
    gateway: &GatewayConfig,
) -> Result<Vec<OfferConfig>, ConfigError> {
    document.unique(raw.iter().map(|offer| &offer.service))?;
    let names = gateway.service_names();
    if let Some(stray) = raw.iter().find(|offer| !names.contains(offer.service.get_ref())) {
        let name = stray.service.get_ref();
        let message = format!("there is no [[service]] with the name {name:?}");
        return Err(document.error(stray.service.span(), message));
    }
    let offer = |name: String| {
        let said = raw.iter().find(|offer| *offer.service.get_ref() == name);
        let is_tcp = gateway
            .services
            .iter()
            .any(|service| service.name == name && service.protocol == Protocol::Tcp);
        OfferConfig::new(document, name, said, is_tcp)
    };
    names.into_iter().map(offer).collect()
}

impl OfferConfig {
    fn new(
        document: &Document,
        service: String,
        said: Option<&RawOffer>,
        is_tcp: bool,
    ) -> Result<Self, ConfigError> {
        let check = if is_tcp { Check::Tcp } else { Check::None };
        let mut offer = Self { service, priority: 1, weight: 1, check, interval: CHECK_INTERVAL };
        let Some(said) = said else { return Ok(offer) };
        if let Some(priority) = &said.priority {
            offer.priority = document.in_range(priority, PRIORITY_RANGE)?;
        }
        if let Some(weight) = &said.weight {
            offer.weight = document.in_range(weight, WEIGHT_RANGE)?;
        }
        if let Some(interval) = &said.check_interval_s {
            offer.interval =
                document.duration(interval, Duration::from_secs(1), CHECK_INTERVAL_RANGE)?;
        }
        if let Some(check) = &said.check {
            offer.check = Check::named(document, check, said.check_path.as_ref(), is_tcp)?;
        } else if let Some(path) = &said.check_path {
            return Err(document.error(path.span(), "only check = \"http\" asks for a path"));
        }
        Ok(offer)
    }
}

impl Check {
    fn named(
        document: &Document,
        name: &Spanned<String>,
        path: Option<&Spanned<String>>,
        is_tcp: bool,
    ) -> Result<Self, ConfigError> {
        let given = name.get_ref();
        let check = match given.as_str() {
            "none" => Self::None,
            "tcp" if is_tcp => Self::Tcp,
            "http" if is_tcp => {
                Self::Http(path.map_or(Ok("/".to_owned()), |path| check_path(document, path))?)
            }
            "tcp" | "http" => {
                let message = format!("a udp service has no {given:?} check; expected \"none\"");
                return Err(document.error(name.span(), message));
            }
            _ => {
                let message =
                    format!("{given:?} is no check; expected \"tcp\", \"http\" or \"none\"");
                return Err(document.error(name.span(), message));
            }
        };
        match (&check, path) {
            (Self::None | Self::Tcp, Some(path)) => {
                Err(document.error(path.span(), "only check = \"http\" asks for a path"))
            }
            (Self::None | Self::Tcp | Self::Http(_), _) => Ok(check),
        }
    }
}

fn check_path(document: &Document, path: &Spanned<String>) -> Result<String, ConfigError> {
    let given = path.get_ref();
    let is_path = given.starts_with('/')
        && given.len() <= CHECK_PATH_BYTES_MAX
        && given.bytes().all(|byte| byte.is_ascii_graphic());
    if is_path {
        return Ok(given.clone());
    }
    let message = "expected a path such as \"/healthz\": printable ASCII without spaces that begins with \"/\"";
    Err(document.error(path.span(), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = r#"
        [edge]
        tenant = "shop"
        key_file = "edge.key"
        token_file = "/run/edge.jwt"
        tenant_keys_file = "shop.jwks.json"
        [access]
        relays = ["203.0.113.7:4434", "198.51.100.9:4434"]
        ca_file = "ca.pem"
        [[service]]
        name = "web"
        protocol = "tcp"
        target = "127.0.0.1:8080"
        [[service]]
        name = "voice"
        protocol = "udp"
        target = "127.0.0.1:5004"
    "#;

    fn read(more: &str) -> Result<Config, String> {
        let document = Document::new("/etc/edge.toml", format!("{EDGE}\n{more}"));
        Config::try_from(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn where_to_ask_for_relays_is_a_url_and_asking_can_be_turned_off() {
        let config = read("").unwrap();
        assert!(config.nearest && config.discover.is_empty() && config.state_dir.is_none());
        let with = |more: &str| {
            let text = EDGE.replace(
                "[[service]]\n        name = \"web\"",
                &format!("{more}\n[[service]]\nname = \"web\""),
            );
            let document = Document::new("/etc/edge.toml", text);
            Config::try_from(&document).map_err(|error| error.to_string())
        };
        let config = with("discover = [\"http://a.example\"]").unwrap();
        assert_eq!(config.discover, ["http://a.example"]);
        let config = with("discover = [\"https://a\"]\ndiscover_ca_file = \"c.pem\"").unwrap();
        assert!(config.discover_ca_file.unwrap().ends_with("c.pem"));
        assert!(!with("nearest = false").unwrap().nearest);
        for (more, words) in [
            ("discover = [\"a.example\"]", "is no http"),
            ("discover = []", "discover"),
            ("discover = [\"http://a\"]\ndiscover_ca_file = \"c\"", "is for https"),
            ("nearest = false\ndiscover = [\"http://a\"]", "asks for none"),
        ] {
            let error = with(more).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn files_are_found_beside_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.toml");
        std::fs::write(&path, EDGE).unwrap();

        let config = Config::load(&path).unwrap();

        assert_eq!(config.key_file, dir.path().join("edge.key"));
        assert_eq!(config.token_file, Path::new("/run/edge.jwt"));
        assert_eq!((config.relays.len(), config.admin, config.handback), (2, None, true));
        assert_eq!(config.tcp_port, Some(443));
        let without = EDGE.replace("[access]", "[access]\ntcp_port = 0");
        let document = Document::new("edge.toml", without);
        assert_eq!(Config::try_from(&document).unwrap().tcp_port, None);
    }

    #[test]
    fn every_service_is_offered_as_usual_unless_said() {
        let offers = read("").unwrap().offers;

        let usual = |service: &str, check| OfferConfig {
            service: service.into(),
            priority: 1,
            weight: 1,
            check,
            interval: CHECK_INTERVAL,
        };
        assert_eq!(offers, [usual("voice", Check::None), usual("web", Check::Tcp)]);

        let more = "[[offer]]\nservice = \"web\"\npriority = 2\nweight = 5\ncheck = \"http\"\n\
            check_path = \"/up\"\ncheck_interval_s = 0.5";
        let web = &read(more).unwrap().offers[1];
        assert_eq!((web.priority, web.weight), (2, 5));
        assert_eq!(web.check, Check::Http("/up".into()));
        assert_eq!(web.interval, Duration::from_millis(500));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("[[offer]]\nservice = \"wib\"", "there is no [[service]]"),
            ("[[offer]]\nservice = \"web\"\nweight = 0", "weight"),
            ("[[offer]]\nservice = \"web\"\ncheck = \"ping\"", "is no check"),
            ("[[offer]]\nservice = \"voice\"\ncheck = \"tcp\"", "udp service"),
            ("[[offer]]\nservice = \"web\"\ncheck_path = \"/\"", "only check"),
            ("[[offer]]\nservice = \"web\"\ncheck = \"http\"\ncheck_path = \"x\"", "begins with"),
            ("[admin]\nlisten = \"0.0.0.0:9403\"", "no access control"),
            ("[adnim]\nlisten = \"127.0.0.1:1\"", "adnim"),
        ];
        for (more, expected) in wrong {
            let error = read(more).unwrap_err();
            assert!(error.contains(expected) && error.contains("edge.toml"), "{more}: {error}");
        }
    }
}
