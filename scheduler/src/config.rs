//! `scheduler.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use overway_config::{ConfigError, Document, RawLog, Spanned};
use serde::Deserialize;

use crate::CERTIFICATE_LIFETIME;

/// The unit of `certificates.lifetime_days`.
const DAY: Duration = Duration::from_secs(86_400);
/// The shortest life of certificates: renewal is looked for twelve times in it.
const LIFETIME_MIN: Duration = Duration::from_secs(2);
/// Addresses that a token names; it has room for no more.
const ADVERTISE_MAX: usize = 8;

/// A scheduler's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where the store, the CA and the scheduler's own credentials are.
    pub state_dir: PathBuf,
    /// Control and join, QUIC. Port 0: one is drawn.
    pub listen: SocketAddr,
    /// Where relays reach it, as tokens name it; empty: the address bound.
    pub advertise: Vec<SocketAddr>,
    /// The admin interface, on loopback. Port 0: one is drawn.
    pub admin_listen: SocketAddr,
    /// Whether changes by programs need the admin token; those of web pages always do.
    pub admin_token_required: bool,
    /// Life of certificates that it signs, its own included.
    pub certificate_lifetime: Duration,
    /// A file of the MaxMind format that says where clients' addresses are.
    pub locations: Option<PathBuf>,
    /// What is logged, if the file says so.
    pub log: Option<String>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// In one line: the file, the line, the key, what is wrong, and what would be right.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_document(&Document::read(path)?)
    }

    /// Checks a document.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_document(document: &Document) -> Result<Self, ConfigError> {
        Self::try_from((document, document.parse()?))
    }
}

/// What the file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    scheduler: RawScheduler,
    admin: RawAdmin,
    certificates: Option<RawCertificates>,
    access: Option<RawAccess>,
    log: Option<RawLog>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccess {
    locations: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScheduler {
    state_dir: Spanned<String>,
    listen: Spanned<String>,
    advertise: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Spanned<String>,
    #[serde(default)]
    require_token: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCertificates {
    lifetime_days: Option<Spanned<f64>>,
}

impl TryFrom<(&Document, RawConfig)> for Config {
    type Error = ConfigError;

    fn try_from((document, raw): (&Document, RawConfig)) -> Result<Self, ConfigError> {
        let RawConfig { scheduler, admin, certificates, access, log } = raw;
        let lifetime = certificates.and_then(|certificates| certificates.lifetime_days);
        Ok(Self {
            state_dir: state_dir(document, &scheduler.state_dir)?,
            listen: document.address(&scheduler.listen)?,
            advertise: advertise(document, &scheduler)?,
            admin_listen: admin_listen(document, &admin.listen)?,
            admin_token_required: admin.require_token,
            certificate_lifetime: match &lifetime {
                Some(days) => {
                    document.duration(days, DAY, LIFETIME_MIN..=overway_pki::LIFETIME_MAX)?
                }
                None => CERTIFICATE_LIFETIME,
            },
            locations: access.map(|access| document.resolve(&access.locations)),
            log: log.map(|log| log.filter(document)).transpose()?,
        })
    }
}

fn state_dir(document: &Document, text: &Spanned<String>) -> Result<PathBuf, ConfigError> {
    if text.get_ref().is_empty() {
        let message = "\"\" is no directory; expected the one that `overway pki init` has made";
        return Err(document.error(text.span(), message));
    }
    Ok(document.resolve(text.get_ref()))
}

fn advertise(document: &Document, raw: &RawScheduler) -> Result<Vec<SocketAddr>, ConfigError> {
    let Some(given) = &raw.advertise else {
        if document.address(&raw.listen)?.ip().is_unspecified() {
            let message = "every address is listened on, so none can be told to relays; set \
                           scheduler.advertise to those that relays can reach";
            return Err(document.error(raw.listen.span(), message));
        }
        return Ok(Vec::new());
    };
    let entries = document.entries(given, 1..=ADVERTISE_MAX)?;
    document.unique(entries)?;
    entries.iter().map(|text| reachable(document, text)).collect()
}

fn reachable(document: &Document, text: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
    let address = document.address(text)?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        let message = format!(
            "\"{address}\" is no address that relays can dial; expected IP:PORT of one interface"
        );
        return Err(document.error(text.span(), message));
    }
    Ok(address)
}

fn admin_listen(document: &Document, text: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
    let address = document.address(text)?;
    if !address.ip().is_loopback() {
        let message = format!(
            "\"{address}\" is not on loopback, and whoever reaches the admin interface may read \
             everything, the admin token on its way included: TLS for it is not there yet; \
             expected 127.0.0.1:PORT or [::1]:PORT"
        );
        return Err(document.error(text.span(), message));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
[scheduler]
state_dir = \"state\"
listen = \"127.0.0.1:4400\"
[admin]
listen = \"127.0.0.1:0\"
";

    fn load(text: &str) -> Result<Config, String> {
        let document = Document::new("scheduler.toml", text);
        Config::from_document(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = load(GOOD).unwrap();

        assert_eq!(config.state_dir, PathBuf::from("state"));
        assert_eq!(config.advertise, []);
        assert_eq!(config.certificate_lifetime, 90 * DAY);
        assert!(!config.admin_token_required);
    }

    #[test]
    fn everything_can_be_said() {
        let admin = "advertise = [\"203.0.113.5:4400\"]\n[admin]\nrequire_token = true";
        let text = GOOD.replace("[admin]", admin);
        let more = "[certificates]\nlifetime_days = 0.0001\n[access]\nlocations = \"city.mmdb\"\n";
        let config = load(&format!("{text}{more}")).unwrap();

        assert_eq!(config.advertise, ["203.0.113.5:4400".parse().unwrap()]);
        assert_eq!(config.certificate_lifetime, Duration::from_micros(8_640_000));
        assert_eq!(config.locations, Some(PathBuf::from("city.mmdb")));
        assert!(config.admin_token_required);
    }

    #[test]
    fn mistakes_are_named_with_line_key_and_remedy() {
        let any = "0.0.0.0:4400";
        let long = "[certificates]\nlifetime_days = 9000";
        let cases = [
            (GOOD.replace("listen = \"127.0.0.1:4400\"", ""), &["listen"][..]),
            (GOOD.replace("state_dir", "state_dri"), &["scheduler.toml:2", "state_dir"]),
            (GOOD.replace("\"state\"", "\"\""), &["scheduler.toml:2: scheduler.state_dir", "init"]),
            (GOOD.replace("\"state\"", "7"), &["scheduler.toml:2: scheduler.state_dir"]),
            (GOOD.replace("127.0.0.1:4400", "localhost"), &["scheduler.toml:3: scheduler.listen"]),
            (GOOD.replace("127.0.0.1:4400", any), &["scheduler.toml:3", "scheduler.advertise"]),
            (GOOD.replace("127.0.0.1:0", "10.0.0.1:1"), &["scheduler.toml:5: admin.listen", "TLS"]),
            (GOOD.replace("[admin]", "advertise = []\n[admin]"), &["scheduler.advertise"]),
            (GOOD.replace("[admin]", "advertise = [\"1.2.3.4:0\"]\n[admin]"), &["relays can dial"]),
            (
                GOOD.replace("[admin]", "advertise = [\"1.2.3.4:5\", \"1.2.3.4:5\"]\n[admin]"),
                &["scheduler.advertise"],
            ),
            (format!("{GOOD}{long}"), &["scheduler.toml:7: certificates.lifetime_days"]),
            (format!("{GOOD}[teapot]\n"), &["scheduler.toml:6", "teapot"]),
        ];
        for (text, expected) in cases {
            let error = load(&text).expect_err(&text);
            assert_eq!(error.lines().count(), 1, "{error}");
            for words in expected {
                assert!(error.contains(words), "{words:?} is not in {error:?}");
            }
        }
    }
}
