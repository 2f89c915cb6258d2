//! `[[service]]`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use overway_config::{ConfigError, Document, Spanned};
use overway_session::ClientAddresses;
use serde::Deserialize;

use super::{
    CLIENTS_MAX_DEFAULT, CLIENTS_MAX_RANGE, FLOW_IDLE_TIMEOUT, Protocol, ProxyProtocol, SECOND,
    idle_timeout, proxy_protocol,
};
use crate::destinations::{Destination, Destinations};
use crate::target::{ServiceTarget, Target};

/// How long a target may take to accept. Also the most that can be configured, for the opener waits
/// little longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=CONNECT_TIMEOUT;
/// Entries of a list of destinations: each is compared with each request.
const DESTINATIONS_RANGE: RangeInclusive<usize> = 1..=1_024;
/// Edges that are believed: a tenant's front ends.
const TOLD_BY_RANGE: RangeInclusive<usize> = 1..=256;
const PROXY_MODES: [(&str, ProxyProtocol); 3] = [
    ("tcp", ProxyProtocol::Tcp),
    ("udp-first", ProxyProtocol::UdpFirst),
    ("udp-every", ProxyProtocol::UdpEvery),
];

/// A `[[service]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    pub(super) name: Spanned<String>,
    pub(super) protocol: Protocol,
    target: Option<Spanned<String>>,
    exit: Option<Spanned<Vec<Spanned<String>>>>,
    proxy_protocol: Option<Spanned<String>>,
    told_by: Option<Spanned<Vec<Spanned<String>>>>,
    clients_max: Option<Spanned<usize>>,
    connect_timeout_s: Option<Spanned<f64>>,
    idle_timeout_s: Option<Spanned<f64>>,
}

/// A target and the name under which it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// What it speaks.
    pub protocol: Protocol,
    /// The name that forwards ask for.
    pub name: String,
    /// Where it is, or may be.
    pub target: ServiceTarget,
    /// Whether, and where, the target is told who its clients are.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The edges, by the names in their tokens, that are believed who their clients are; `None`: all are. Relays are believed.
    pub told_by: Option<BTreeSet<String>>,
    /// TCP connections or UDP flows at once; further ones are refused.
    pub clients_max: usize,
    /// How long the target may take to accept, its name's resolution included.
    pub connect_timeout: Duration,
    /// Silence after which a connection is reset or a flow ends. `None`: connections never, flows by the default.
    pub idle_timeout: Option<Duration>,
}

impl ServiceConfig {
    /// What the target is told of a client, of whom whoever asks says this; `edge` is that one's name, if it is no relay.
    pub(crate) fn told(
        &self,
        client: Option<ClientAddresses>,
        edge: Option<&str>,
    ) -> Option<ClientAddresses> {
        let is_believed = match (&self.told_by, edge) {
            (Some(names), Some(edge)) => names.contains(edge),
            (None, _) | (_, None) => true,
        };
        client.filter(|_| is_believed)
    }

    pub(super) fn from_raw(document: &Document, raw: &RawService) -> Result<Self, ConfigError> {
        let target = match (&raw.target, &raw.exit) {
            (Some(target), None) => fixed(document, target)?,
            (None, Some(exit)) => destinations(document, exit)?.into(),
            (None, None) => {
                let message = "has no target; expected such as target = \"127.0.0.1:8080\"";
                return Err(document.error(raw.name.span(), message));
            }
            (Some(_), Some(exit)) => {
                let message = "cannot stand beside a target; expected one of the two";
                return Err(document.error(exit.span(), message));
            }
        };
        let mut config = Self::new(raw.protocol, document.name(&raw.name)?, target);
        if let Some(name) = &raw.proxy_protocol {
            let mode = proxy_protocol(document, raw.protocol, name, PROXY_MODES)?;
            config.proxy_protocol = Some(mode);
        }
        if let Some(names) = &raw.told_by {
            if config.proxy_protocol.is_none() {
                let message =
                    "says whose word on clients is passed on; expected proxy_protocol beside it";
                return Err(document.error(names.span(), message));
            }
            let entries = document.entries(names, TOLD_BY_RANGE)?;
            document.unique(entries)?;
            config.told_by = Some(entries.iter().map(|name| name.get_ref().clone()).collect());
        }
        if let Some(number) = &raw.clients_max {
            config.clients_max = document.in_range(number, CLIENTS_MAX_RANGE)?;
        }
        if let Some(number) = &raw.connect_timeout_s {
            config.connect_timeout = document.duration(number, SECOND, CONNECT_TIMEOUT_RANGE)?;
        }
        if let Some(number) = &raw.idle_timeout_s {
            config.idle_timeout = Some(idle_timeout(document, number)?);
        }
        Ok(config)
    }

    /// A service with the default limits.
    pub fn new(
        protocol: Protocol,
        name: impl Into<String>,
        target: impl Into<ServiceTarget>,
    ) -> Self {
        Self {
            protocol,
            name: name.into(),
            target: target.into(),
            proxy_protocol: None,
            told_by: None,
            clients_max: CLIENTS_MAX_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: default_idle_timeout(protocol),
        }
    }
}

/// What is silent for so long ends: a TCP connection is as old as its ends want it to be.
pub(super) fn default_idle_timeout(protocol: Protocol) -> Option<Duration> {
    match protocol {
        Protocol::Tcp => None,
        Protocol::Udp => Some(FLOW_IDLE_TIMEOUT),
    }
}

fn fixed(document: &Document, target: &Spanned<String>) -> Result<ServiceTarget, ConfigError> {
    let given = target.get_ref();
    let target: Target = given.parse().map_err(|error| {
        let message = format!("{given:?} {error}; expected such as 127.0.0.1:8080");
        document.error(target.span(), message)
    })?;
    Ok(target.into())
}

/// A list of what may be connected to.
pub(super) fn destinations(
    document: &Document,
    list: &Spanned<Vec<Spanned<String>>>,
) -> Result<Destinations, ConfigError> {
    let entries = document.entries(list, DESTINATIONS_RANGE)?;
    let destination = |entry: &Spanned<String>| {
        let given = entry.get_ref();
        given.parse::<Destination>().map_err(|error| {
            let message = format!("{given:?} {error}; expected such as *.example.com:443");
            document.error(entry.span(), message)
        })
    };
    entries.iter().map(destination).collect()
}
