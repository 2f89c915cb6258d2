//! `[[line]]`: what is known of the provider's line behind an address of `mesh.listen`.
//!
//! ```toml
//! [[line]]
//! listen = "203.0.113.7:4400"   # one of mesh.listen
//! provider = "acme"             # the relay's own unless said
//! capacity_mbps = 1000          # the relay's own unless said, like the price
//! price_per_gb = 0.02           # of what goes out beyond the commit
//! commit_gb = 10000             # paid for each calendar month (UTC) in any case
//! cap_gb = 50000                # in a month; beyond it the line is left alone where another way leads on
//! ```

use overway_config::{ConfigError, Document, Spanned};
use overway_wire::PricePerGb;
use overway_wire::control::Line;
use serde::Deserialize;
use std::net::SocketAddr;

use super::{CAPACITY_MBPS_MAX, PRICE_MAX, price, whole};

/// An exabyte in a month: more than any line carries.
const VOLUME_GB_MAX: u64 = 1_000_000_000;

/// A `[[line]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLine {
    listen: Spanned<String>,
    #[serde(default)]
    provider: String,
    capacity_mbps: Option<Spanned<f64>>,
    price_per_gb: Option<Spanned<f64>>,
    commit_gb: Option<Spanned<u64>>,
    cap_gb: Option<Spanned<u64>>,
}

/// What is said of each line of `listen`, in its order; nothing at all if nothing is said of any.
pub(super) fn lines(
    document: &Document,
    raw: &[RawLine],
    listen: &[SocketAddr],
) -> Result<Vec<Line>, ConfigError> {
    let mut lines = vec![Line::default(); if raw.is_empty() { 0 } else { listen.len() }];
    let mut said = Vec::new();
    for raw in raw {
        let address = document.address(&raw.listen)?;
        said.push(Spanned::new(raw.listen.span(), address));
        let Some(at) = listen.iter().position(|&other| other == address) else {
            let known: Vec<String> = listen.iter().map(ToString::to_string).collect();
            let message =
                format!("{address} is not in mesh.listen; expected one of {}", known.join(", "));
            return Err(document.error(raw.listen.span(), message));
        };
        lines[at] = line(document, raw)?;
    }
    document.unique(&said)?;
    Ok(lines)
}

fn line(document: &Document, raw: &RawLine) -> Result<Line, ConfigError> {
    let number = |value: &Option<Spanned<f64>>, max: f64, scale: f64| match value {
        Some(value) => Ok(document.in_range(value, 0.0..=max)? * scale),
        None => Ok(0.0),
    };
    let volume = |value: &Option<Spanned<u64>>| match value {
        Some(value) => document.in_range(value, 1..=VOLUME_GB_MAX),
        None => Ok(0),
    };
    let PricePerGb(price_per_gb) = price(number(&raw.price_per_gb, PRICE_MAX, 1e5)?);
    let (commit_gb, cap_gb) = (volume(&raw.commit_gb)?, volume(&raw.cap_gb)?);
    if let Some(cap) = raw.cap_gb.as_ref().filter(|_| cap_gb < commit_gb) {
        let message = format!(
            "{cap_gb} is less than commit_gb, {commit_gb}, which is paid for in any case; expected as \
            much or more"
        );
        return Err(document.error(cap.span(), message));
    }
    Ok(Line {
        capacity_bps: whole(number(&raw.capacity_mbps, CAPACITY_MBPS_MAX, 1e6)?),
        price_per_gb,
        commit_gb,
        cap_gb,
        provider: raw.provider.clone(),
    })
}
