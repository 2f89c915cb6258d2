//! What is known of one relay, and which of several is preferred.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use overway_wire::RelayId;

use crate::uplink::LINES;

/// Relays no farther than this beyond the nearest are about as near,
const NEAR: Duration = Duration::from_millis(5);
/// or no farther than this part of it.
const NEAR_PERCENT: u32 = 20;

#[derive(Debug)]
pub(super) struct Known {
    pub(super) address: SocketAddr,
    /// Once it has answered.
    pub(super) relay: Option<RelayId>,
    pub(super) failures: u32,
    pub(super) not_before: Instant,
    /// Not learnt, but given: it stays.
    pub(super) is_given: bool,
    /// What was answered of it last.
    pub(super) told: Option<Told>,
    /// Round trip as this edge has measured it, and when.
    pub(super) measured: Option<(Duration, Instant)>,
    /// Since when it is clearly nearer than what a place has.
    pub(super) better_since: [Option<Instant>; LINES],
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) position: usize,
    pub(super) region: String,
    pub(super) provider: String,
    pub(super) rtt: Option<Duration>,
    pub(super) standing: Standing,
}

/// A relay of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    pub(crate) relay: RelayId,
    /// Where edges attach; the first is used.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where they attach over TLS on TCP, if that was said.
    pub(crate) tcp_addresses: Vec<SocketAddr>,
    pub(crate) region: String,
    pub(crate) provider: String,
    /// Measured by the relay that answered, or estimated.
    pub(crate) rtt: Option<Duration>,
    pub(crate) standing: Standing,
}

/// How a relay stands for this edge, by its last word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    #[default]
    Open,
    Filling,
    Reserve,
    Full,
    Draining,
}

impl Standing {
    /// By its name in answers; one of a later version is open.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "filling" => Self::Filling,
            "reserve" => Self::Reserve,
            "full" => Self::Full,
            "draining" => Self::Draining,
            _ => Self::Open,
        }
    }
}

impl Known {
    pub(super) fn new(address: SocketAddr, is_given: bool, now: Instant) -> Self {
        Self {
            address,
            relay: None,
            failures: 0,
            not_before: now,
            is_given,
            told: None,
            measured: None,
            better_since: [None; LINES],
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.told.as_ref().map(|told| told.standing).unwrap_or_default()
    }

    /// It would refuse, as far as is known.
    pub(super) fn is_unwilling(&self) -> bool {
        self.standing() >= Standing::Full
    }

    pub(super) fn may_be_taken(&self, now: Instant) -> bool {
        self.standing() == Standing::Open && self.failures == 0 && self.not_before <= now
    }

    /// As measured, or else as told.
    pub(super) fn rtt(&self) -> Option<Duration> {
        let told = || self.told.as_ref().and_then(|told| told.rtt);
        self.measured.map(|(rtt, _)| rtt).or_else(told)
    }

    pub(super) fn position(&self) -> usize {
        self.told.as_ref().map_or(usize::MAX, |told| told.position)
    }

    /// Whether it may fail together with another: the same provider or region, as far as these are known.
    pub(super) fn shares_fate(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (&self.told, &other.told) else { return false };
        let same = |one: &str, two: &str| !one.is_empty() && one == two;
        same(&one.provider, &two.provider) || same(&one.region, &two.region)
    }
}

/// The most preferred of some relays, `other` being what the other place uses; see the module.
pub(super) fn preferred<'a>(
    candidates: impl Iterator<Item = (usize, &'a Known)>,
    other: Option<&Known>,
) -> Option<usize> {
    let candidates: Vec<(usize, &Known)> = candidates.collect();
    let nearest = candidates.iter().filter_map(|(_, known)| known.rtt()).min();
    let is_near = |known: &Known| match (nearest, known.rtt()) {
        (Some(nearest), Some(rtt)) => rtt <= nearest + NEAR.max(nearest * NEAR_PERCENT / 100),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let near = candidates.into_iter().filter(|(_, known)| is_near(known));
    let best = near.min_by_key(|(at, known)| {
        let shares_fate = other.is_some_and(|other| known.shares_fate(other));
        (known.standing(), shares_fate, known.position(), *at)
    });
    best.map(|(at, _)| at)
}
