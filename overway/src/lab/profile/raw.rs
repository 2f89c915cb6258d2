//! What a profile's file says, and the checks that turn it into a [`Profile`].

use std::time::Duration;

use overway_config::{ConfigError, Document, Spanned};
use serde::Deserialize;

use super::cells::{self, RawCell};
use super::{LineProfile, Profile, RELAYS_MAX, RELAYS_MIN, RelayProfile};

/// Longest delay or jitter: a relay's budget for a frame is spent by then.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// Most that a line may lose: beyond it relays cannot even shake hands.
const LOSS_MAX: f64 = 0.9;

/// A profile's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfile {
    name: String,
    relay: Spanned<Vec<RawRelay>>,
    pair: Spanned<Vec<Spanned<RawPair>>>,
    #[serde(default)]
    cell: Option<Spanned<Vec<RawCell>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelay {
    name: Spanned<String>,
    provider: Spanned<String>,
    region: Spanned<String>,
    #[serde(default)]
    location: Option<Spanned<String>>,
    capacity_mbps: Spanned<f64>,
    price_per_gb: Spanned<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPair {
    between: Spanned<Vec<Spanned<String>>>,
    delay_ms: Spanned<Vec<Spanned<f64>>>,
    #[serde(default)]
    jitter_ms: Option<Spanned<f64>>,
    #[serde(default)]
    loss: Option<Spanned<f64>>,
    #[serde(default)]
    rate_mbps: Option<Spanned<f64>>,
}

/// Checks everything; the first thing that is wrong is the error.
pub(super) fn check(document: &Document, raw: &RawProfile) -> Result<Profile, ConfigError> {
    let raw_relays = document.entries(&raw.relay, RELAYS_MIN..=RELAYS_MAX)?;
    document.unique(raw_relays.iter().map(|relay| &relay.name))?;
    let relays = raw_relays.iter().map(|relay| check_relay(document, relay));
    let relays = relays.collect::<Result<Vec<_>, _>>()?;

    let mut lines: Vec<Vec<Option<LineProfile>>> = vec![vec![None; relays.len()]; relays.len()];
    for pair in raw.pair.get_ref() {
        let [a, b] = check_ends(document, &pair.get_ref().between, &relays)?;
        if lines[a][b].is_some() {
            let between = format!("{} and {}", relays[a].name, relays[b].name);
            let message = format!("{between} are given twice; keep one of them");
            return Err(document.error(pair.get_ref().between.span(), message));
        }
        let [there, back] = check_pair(document, pair.get_ref())?;
        lines[a][b] = Some(there);
        lines[b][a] = Some(back);
    }
    for a in 0..relays.len() {
        lines[a][a] = Some(LineProfile::default());
        if let Some(b) = lines[a].iter().position(Option::is_none) {
            let between = format!("{:?}, {:?}", relays[a].name, relays[b].name);
            let message = format!("a pair is missing; expected one with between = [{between}]");
            return Err(document.error(raw.pair.span(), message));
        }
    }
    let lines = lines.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
    let cells = raw.cell.as_ref().map(|raw| cells::check(document, raw, &relays)).transpose()?;
    Ok(Profile { name: raw.name.clone(), relays, lines, cells: cells.unwrap_or_default() })
}

fn check_relay(document: &Document, raw: &RawRelay) -> Result<RelayProfile, ConfigError> {
    Ok(RelayProfile {
        name: document.name(&raw.name)?,
        provider: document.name(&raw.provider)?,
        region: document.name(&raw.region)?,
        location: raw.location.as_ref().map(|text| document.degrees(text)).transpose()?,
        capacity_mbps: document.in_range(&raw.capacity_mbps, 1.0..=100_000.0)?,
        price_per_gb: document.in_range(&raw.price_per_gb, 0.0..=1_000.0)?,
    })
}

fn check_ends(
    document: &Document,
    between: &Spanned<Vec<Spanned<String>>>,
    relays: &[RelayProfile],
) -> Result<[usize; 2], ConfigError> {
    let names = document.entries(between, 2..=2)?;
    document.unique(names)?;
    let find = |name: &Spanned<String>| {
        let at = relays.iter().position(|relay| relay.name == *name.get_ref());
        let message = || format!("{:?} is no relay of this profile", name.get_ref());
        at.ok_or_else(|| document.error(name.span(), message()))
    };
    Ok([find(&names[0])?, find(&names[1])?])
}

fn check_pair(document: &Document, pair: &RawPair) -> Result<[LineProfile; 2], ConfigError> {
    let millis = |value: &Spanned<f64>| {
        document.duration(value, Duration::from_millis(1), Duration::ZERO..=DELAY_MAX)
    };
    let delays = document.entries(&pair.delay_ms, 2..=2)?;
    let jitter = pair.jitter_ms.as_ref().map_or(Ok(Duration::ZERO), millis)?;
    let loss = match &pair.loss {
        Some(loss) => document.in_range(loss, 0.0..=LOSS_MAX)?,
        None => 0.0,
    };
    let rate = pair.rate_mbps.as_ref().map(|rate| document.in_range(rate, 0.1..=100_000.0));
    let rate_mbps = rate.transpose()?;
    let line = |delay| LineProfile { delay, jitter, loss, rate_mbps };
    Ok([line(millis(&delays[0])?), line(millis(&delays[1])?)])
}
