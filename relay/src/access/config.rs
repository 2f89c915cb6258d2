//! `[access]`: where edges, ends outside the mesh, attach to this relay.
//!
//! ```toml
//! [access]
//! listen = ["203.0.113.6:4443"]     # UDP; open to everybody
//! tcp_listen = "203.0.113.6:443"     # TLS on TCP, for edges that UDP is blocked for; none unless said
//! advertise = ["203.0.113.6:4443"]  # as clients reach it; those of listen unless said
//! tcp_advertise = ["203.0.113.6:443"] # the same for tcp_listen; its port at the addresses above unless said
//! attachments_max = 4096            # edges at once
//! weight = 100                      # share of clients among relays as near; 0: in reserve
//! http_listen = "203.0.113.6:8080"  # GET /v1/access for clients; none unless said
//! http_trust = ["198.51.100.4/32"]  # who may ask there for other addresses than its own
//! locations = "GeoLite2-City.mmdb"  # where addresses are, in the MaxMind format; none unless said
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use overway_config::{ConfigError, Document, Spanned};
use overway_wire::control::{ACCESS_WEIGHT_DEFAULT, ACCESS_WEIGHT_MAX};
use serde::Deserialize;

/// Addresses of one relay's access side: one of each family.
const LISTEN_MAX: usize = overway_wire::control::ACCESS_ADDRESSES_MAX;
/// Edges at once, unless said. Each takes up to a megabyte of queue when it does not keep up.
const ATTACHMENTS_DEFAULT: u64 = 4_096;
/// A quarter of what an address can name, so that ids are not given again soon.
const ATTACHMENTS_MAX: u64 = 16_384;
/// Networks of back ends and proxies.
const TRUST_MAX: usize = 64;

/// An `[access]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAccess {
    listen: Spanned<Vec<Spanned<String>>>,
    advertise: Option<Spanned<Vec<Spanned<String>>>>,
    tcp_listen: Option<Spanned<String>>,
    tcp_advertise: Option<Spanned<Vec<Spanned<String>>>>,
    attachments_max: Option<Spanned<u64>>,
    weight: Option<Spanned<u64>>,
    http_listen: Option<Spanned<String>>,
    http_trust: Option<Spanned<Vec<Spanned<String>>>>,
    locations: Option<PathBuf>,
}

/// Where edges attach, and what clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// UDP addresses.
    pub listen: Vec<SocketAddr>,
    /// Addresses told to clients; empty: those bound.
    pub advertise: Vec<SocketAddr>,
    /// The TCP address, for edges that UDP is blocked for.
    pub tcp_listen: Option<SocketAddr>,
    /// TCP addresses told to clients; empty: the port of `tcp_listen`, where clients reach the relay.
    pub tcp_advertise: Vec<SocketAddr>,
    /// Edges at once.
    pub attachments_max: usize,
    /// Its share of clients among relays that are about as near; 0: none while others have room.
    pub weight: u32,
    /// Where clients ask for the nearest relays by HTTP, if they may.
    pub http_listen: Option<SocketAddr>,
    /// Who may ask there for other addresses than its own.
    pub http_trust: Vec<IpNet>,
    /// A file of the MaxMind format that says where addresses are.
    pub locations: Option<PathBuf>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tcp_listen: None,
            tcp_advertise: Vec::new(),
            advertise: Vec::new(),
            attachments_max: usize::try_from(ATTACHMENTS_DEFAULT).unwrap_or(usize::MAX),
            weight: ACCESS_WEIGHT_DEFAULT,
            http_listen: None,
            http_trust: Vec::new(),
            locations: None,
        }
    }
}

impl AccessConfig {
    /// Checks what is written.
    pub(crate) fn from_raw(document: &Document, raw: &RawAccess) -> Result<Self, ConfigError> {
        let addresses = |list| {
            let entries = document.entries(list, 1..=LISTEN_MAX)?;
            document.unique(entries)?;
            entries.iter().map(|entry| document.address(entry)).collect::<Result<Vec<_>, _>>()
        };
        let attachments_max = match &raw.attachments_max {
            Some(said) => document.in_range(said, 1..=ATTACHMENTS_MAX)?,
            None => ATTACHMENTS_DEFAULT,
        };
        let weight = match &raw.weight {
            Some(said) => document.in_range(said, 0..=u64::from(ACCESS_WEIGHT_MAX))?,
            None => u64::from(ACCESS_WEIGHT_DEFAULT),
        };
        let http_listen =
            raw.http_listen.as_ref().map(|text| document.address(text)).transpose()?;
        if let (Some(said), None) = (&raw.http_trust, http_listen) {
            let message = "says who may ask for others; expected http_listen beside it";
            return Err(document.error(said.span(), message));
        }
        if let (Some(said), None) = (&raw.tcp_advertise, &raw.tcp_listen) {
            let message = "says where tcp_listen is reached; expected tcp_listen beside it";
            return Err(document.error(said.span(), message));
        }
        Ok(Self {
            listen: addresses(&raw.listen)?,
            advertise: raw.advertise.as_ref().map(addresses).transpose()?.unwrap_or_default(),
            tcp_listen: raw.tcp_listen.as_ref().map(|said| document.address(said)).transpose()?,
            tcp_advertise: raw
                .tcp_advertise
                .as_ref()
                .map(addresses)
                .transpose()?
                .unwrap_or_default(),
            attachments_max: usize::try_from(attachments_max).unwrap_or(usize::MAX),
            weight: u32::try_from(weight).unwrap_or(ACCESS_WEIGHT_MAX),
            http_listen,
            http_trust: raw.http_trust.as_ref().map_or(Ok(Vec::new()), |list| {
                let entries = document.entries(list, 1..=TRUST_MAX)?;
                entries.iter().map(|entry| network(document, entry)).collect()
            })?,
            locations: raw.locations.as_ref().map(|path| document.resolve(path)),
        })
    }
}

fn network(document: &Document, text: &Spanned<String>) -> Result<IpNet, ConfigError> {
    let said = text.get_ref();
    said.parse().map_err(|_| {
        let message = format!("{said:?} is no network; expected one such as 192.0.2.0/24");
        document.error(text.span(), message)
    })
}
