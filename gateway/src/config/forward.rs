//! `[[forward]]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use overway_config::{ConfigError, Document, Spanned};
use overway_wire::{Class, Redundancy};
use serde::Deserialize;

use super::service::default_idle_timeout;
use super::{Limits, Protocol, ProxyProtocol, class, idle_timeout, proxy_protocol, redundancy};
use crate::destinations::network;

/// Networks of proxies: each is compared with each newcomer.
const TRUSTED_RANGE: RangeInclusive<usize> = 1..=256;
const PROXY_MODES: [(&str, ProxyProtocol); 3] = [
    ("accept", ProxyProtocol::Tcp),
    ("accept-first", ProxyProtocol::UdpFirst),
    ("accept-every", ProxyProtocol::UdpEvery),
];

/// A `[[forward]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawForward {
    pub(super) listen: Spanned<String>,
    pub(super) protocol: Protocol,
    service: Spanned<String>,
    class: Option<Spanned<String>>,
    policy: Option<Spanned<String>>,
    redundancy: Option<Spanned<String>>,
    proxy_protocol: Option<Spanned<String>>,
    trusted: Option<Spanned<Vec<Spanned<String>>>>,
    clients_max: Option<Spanned<usize>>,
    clients_per_second: Option<Spanned<u32>>,
    idle_timeout_s: Option<Spanned<f64>>,
}

/// An address to listen on and the service to which it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// What its clients speak.
    pub protocol: Protocol,
    /// Where it listens. Port 0: the system chooses one.
    pub listen: SocketAddr,
    /// The service's name.
    pub service: String,
    /// How its streams travel (TCP). Datagrams are always realtime.
    pub class: Class,
    /// The policy that limits its paths, by name; while the relay does not know it, clients are refused.
    pub policy: Option<String>,
    /// How much of its streams or flows goes more than once, both ways. Not for bulk.
    pub redundancy: Redundancy,
    /// Whether, and where, its clients' proxies say who they are. Without such a header nobody is let in then.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The proxies. With `proxy_protocol` nobody else is let in; without it this says nothing.
    pub trusted: Vec<IpNet>,
    /// How many it lets in.
    pub limits: Limits,
    /// Silence after which a connection is reset or a client forgotten. `None`: connections never, clients by the
    /// default.
    pub idle_timeout: Option<Duration>,
}

impl ForwardConfig {
    pub(super) fn from_raw(document: &Document, raw: &RawForward) -> Result<Self, ConfigError> {
        let service = document.name(&raw.service)?;
        let mut config = Self::new(raw.protocol, document.address(&raw.listen)?, service);
        if let Some(name) = &raw.class {
            config.class = class(document, raw.protocol, name)?;
        }
        config.policy = raw.policy.as_ref().map(|name| document.name(name)).transpose()?;
        if let Some(name) = &raw.redundancy {
            if config.class == Class::Bulk {
                let message =
                    "is not for class \"bulk\", of which nothing goes twice; expected no such key";
                return Err(document.error(name.span(), message));
            }
            config.redundancy = redundancy(document, name)?;
        }
        if let Some(name) = &raw.proxy_protocol {
            let mode = proxy_protocol(document, raw.protocol, name, PROXY_MODES)?;
            config.proxy_protocol = Some(mode);
        }
        config.trusted = trusted(document, raw)?;
        config.limits =
            Limits::from_raw(document, raw.clients_max.as_ref(), raw.clients_per_second.as_ref())?;
        if let Some(number) = &raw.idle_timeout_s {
            config.idle_timeout = Some(idle_timeout(document, number)?);
        }
        Ok(config)
    }

    /// A forward with the default class, redundancy and limits, no policy and no proxies.
    pub fn new(protocol: Protocol, listen: SocketAddr, service: impl Into<String>) -> Self {
        let class = match protocol {
            Protocol::Tcp => Class::Interactive,
            Protocol::Udp => Class::Realtime,
        };
        Self {
            protocol,
            listen,
            service: service.into(),
            class,
            policy: None,
            redundancy: Redundancy::default(),
            proxy_protocol: None,
            trusted: Vec::new(),
            limits: Limits::default(),
            idle_timeout: default_idle_timeout(protocol),
        }
    }
}

fn trusted(document: &Document, raw: &RawForward) -> Result<Vec<IpNet>, ConfigError> {
    match (&raw.proxy_protocol, &raw.trusted) {
        (None, None) => Ok(Vec::new()),
        (Some(mode), None) => {
            let message = "needs the proxies' addresses; add such as trusted = [\"192.0.2.7/32\"]";
            Err(document.error(mode.span(), message))
        }
        (None, Some(list)) => {
            let message = "says whose PROXY headers are taken; expected proxy_protocol beside it";
            Err(document.error(list.span(), message))
        }
        (Some(_), Some(list)) => {
            let entry = |entry: &Spanned<String>| {
                network(entry.get_ref()).ok_or_else(|| {
                    let given = entry.get_ref();
                    let message = format!("{given:?} is no network; expected such as 192.0.2.0/24");
                    document.error(entry.span(), message)
                })
            };
            document.entries(list, TRUSTED_RANGE)?.iter().map(entry).collect()
        }
    }
}
