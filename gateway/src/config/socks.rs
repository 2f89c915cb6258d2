//! `[[socks]]`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use overway_config::{ConfigError, Document, Spanned};
use overway_wire::{Class, Redundancy};
use serde::Deserialize;

use super::service::destinations;
use super::{FLOW_IDLE_TIMEOUT, Limits, Protocol, class, idle_timeout, redundancy};
use crate::destinations::Destinations;
use crate::socks::CREDENTIAL_BYTES_MAX;
use crate::target::is_host_name;

const SUFFIX_DEFAULT: &str = "overway";
/// Services that a listener may be limited to.
const SERVICES_RANGE: RangeInclusive<usize> = 1..=1_024;
/// Users of one listener: each is compared with each that logs in.
const USERS_MAX: usize = 1_024;

/// A `[[socks]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSocks {
    pub(super) listen: Spanned<String>,
    suffix: Option<Spanned<String>>,
    services: Option<Spanned<Vec<Spanned<String>>>>,
    exit: Option<Spanned<String>>,
    allow: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    user: Vec<RawUser>,
    class: Option<Spanned<String>>,
    policy: Option<Spanned<String>>,
    redundancy: Option<Spanned<String>>,
    clients_max: Option<Spanned<usize>>,
    clients_per_second: Option<Spanned<u32>>,
    idle_timeout_s: Option<Spanned<f64>>,
    udp_idle_timeout_s: Option<Spanned<f64>>,
}

/// A `[[socks.user]]` as it is written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    name: Spanned<String>,
    password: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
}

/// An address on which SOCKS5 clients are listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksConfig {
    /// Where it listens (TCP). Port 0: the system chooses one.
    pub listen: SocketAddr,
    /// The end of names that are services', without its dot, in lower case.
    pub suffix: String,
    /// The only services that clients may use; `None`: all.
    pub services: Option<BTreeSet<String>>,
    /// What leads to what is no service; `None`: nothing does.
    pub exit: Option<SocksExit>,
    /// Who may use it; empty: whoever reaches it, which only loopback addresses can have.
    pub users: Vec<SocksUser>,
    /// How streams travel.
    pub class: Class,
    /// The policy that limits the paths, by name; while the relay does not know it, clients are refused.
    pub policy: Option<String>,
    /// How much of its flows goes more than once, both ways.
    pub redundancy: Redundancy,
    /// How many it lets in: connections, UDP associations included.
    pub limits: Limits,
    /// Silence after which a connection is reset; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Silence after which a flow ends.
    pub flow_idle_timeout: Duration,
}

/// How a SOCKS listener's clients reach what is no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksExit {
    /// A service with an exit, of some relay.
    pub service: String,
    /// What may be asked of it here; it has a list of its own, too.
    pub allow: Destinations,
}

/// Who may use a SOCKS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksUser {
    /// 1 to 255 bytes.
    pub name: String,
    /// The password, or where it is.
    pub password: Password,
}

/// A password of 1 to 255 bytes. It is not shown when printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// As it is.
    Inline(String),
    /// The first line of a file, read when the gateway starts.
    File(PathBuf),
}

impl SocksConfig {
    pub(super) fn from_raw(document: &Document, raw: &RawSocks) -> Result<Self, ConfigError> {
        let mut config = Self::new(document.address(&raw.listen)?);
        if let Some(suffix) = &raw.suffix {
            config.suffix = checked_suffix(document, suffix)?;
        }
        if let Some(services) = &raw.services {
            let names = document.entries(services, SERVICES_RANGE)?;
            let names = names.iter().map(|name| document.name(name));
            config.services = Some(names.collect::<Result<_, _>>()?);
        }
        config.exit = exit(document, raw)?;
        config.users = users(document, raw)?;
        if let Some(name) = &raw.class {
            config.class = class(document, Protocol::Tcp, name)?;
        }
        config.policy = raw.policy.as_ref().map(|name| document.name(name)).transpose()?;
        if let Some(name) = &raw.redundancy {
            config.redundancy = redundancy(document, name)?;
        }
        config.limits =
            Limits::from_raw(document, raw.clients_max.as_ref(), raw.clients_per_second.as_ref())?;
        if let Some(number) = &raw.idle_timeout_s {
            config.idle_timeout = Some(idle_timeout(document, number)?);
        }
        if let Some(number) = &raw.udp_idle_timeout_s {
            config.flow_idle_timeout = idle_timeout(document, number)?;
        }
        Ok(config)
    }

    /// A listener that leads to every service, with no users and the default limits.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            suffix: SUFFIX_DEFAULT.to_owned(),
            services: None,
            exit: None,
            users: Vec::new(),
            class: Class::Interactive,
            policy: None,
            redundancy: Redundancy::default(),
            limits: Limits::default(),
            idle_timeout: None,
            flow_idle_timeout: FLOW_IDLE_TIMEOUT,
        }
    }
}

fn checked_suffix(document: &Document, suffix: &Spanned<String>) -> Result<String, ConfigError> {
    let given = suffix.get_ref();
    let name = given.strip_prefix('.').unwrap_or(given);
    if is_host_name(name) && name.split('.').all(|label| !label.is_empty()) {
        return Ok(name.to_ascii_lowercase());
    }
    let message = format!("{given:?} is not the end of a host name; expected such as \"overway\"");
    Err(document.error(suffix.span(), message))
}

fn exit(document: &Document, raw: &RawSocks) -> Result<Option<SocksExit>, ConfigError> {
    match (&raw.exit, &raw.allow) {
        (None, None) => Ok(None),
        (Some(service), Some(allow)) => {
            let service = document.name(service)?;
            Ok(Some(SocksExit { service, allow: destinations(document, allow)? }))
        }
        (Some(service), None) => {
            let message =
                "leads nowhere unless told what is allowed; add such as allow = [\"*:443\"]";
            Err(document.error(service.span(), message))
        }
        (None, Some(allow)) => {
            let message = "needs a service that leads there; add such as exit = \"out\"";
            Err(document.error(allow.span(), message))
        }
    }
}

fn users(document: &Document, raw: &RawSocks) -> Result<Vec<SocksUser>, ConfigError> {
    if raw.user.is_empty() {
        let listen = document.address(&raw.listen)?;
        if listen.ip().is_loopback() {
            return Ok(Vec::new());
        }
        let message = format!(
            "without users, whoever reaches {listen} could use every service; add a \
             [[socks.user]], or listen on a loopback address such as 127.0.0.1:1080"
        );
        return Err(document.error(raw.listen.span(), message));
    }
    if raw.user.len() > USERS_MAX {
        let message = format!("has {} users; expected {USERS_MAX} at most", raw.user.len());
        return Err(document.error(raw.listen.span(), message));
    }
    document.unique(raw.user.iter().map(|user| &user.name))?;
    raw.user.iter().map(|raw| SocksUser::from_raw(document, raw)).collect()
}

impl SocksUser {
    fn from_raw(document: &Document, raw: &RawUser) -> Result<Self, ConfigError> {
        let password = match (&raw.password, &raw.password_file) {
            (Some(password), None) => {
                Password::Inline(credential(document, password, "the password")?)
            }
            (None, Some(file)) => Password::File(document.resolve(file.get_ref())),
            (None, None) | (Some(_), Some(_)) => {
                let message = "needs one of password_file and password";
                return Err(document.error(raw.name.span(), message));
            }
        };
        Ok(Self { name: credential(document, &raw.name, "the name")?, password })
    }
}

/// A name or password as RFC 1929 can carry it. The message does not repeat it.
fn credential(
    document: &Document,
    text: &Spanned<String>,
    what: &str,
) -> Result<String, ConfigError> {
    let length = text.get_ref().len();
    if (1..=CREDENTIAL_BYTES_MAX).contains(&length) {
        return Ok(text.get_ref().clone());
    }
    let message = format!("{what} has {length} bytes; expected 1 to {CREDENTIAL_BYTES_MAX}");
    Err(document.error(text.span(), message))
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl fmt::Debug for RawUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawUser").field("name", &self.name).finish_non_exhaustive()
    }
}
