//! Which relay to dial next: the list, what is known of each, and how long to leave one alone that failed.
//!
//! The list is what the edge was given, and what it has learnt since ([`crate::discover`]). Of those that can be dialled now
//! the nearest is taken, by what the edge has measured itself or else was told; among those about as near one that has
//! room, then for the second place one of another provider or region, then in the order that was answered, which is drawn
//! for each edge so that they spread.
//!
//! A place moves to another relay that is clearly nearer (10 ms and a quarter) for a minute, measured more than once; a new
//! attachment, on which little depends yet, as soon as that is measured once. It does not come back before the same is
//! true of the old one, so that no two take turns.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use overway_wire::RelayId;

use crate::RELAYS_MAX;
use crate::uplink::LINES;

mod known;

use known::{Known, Told, preferred};
pub(crate) use known::{Learned, Standing};

/// The first pause after a failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause: whoever comes back is found again within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A relay that refuses what the edge shows is left alone for so long, or until there is another token.
const PAUSE_REFUSED: Duration = Duration::from_secs(60);

/// A place moves only for so much,
const BETTER_BY: Duration = Duration::from_millis(10);
/// and this part of its round trip,
const BETTER_PERCENT: u32 = 25;
/// and when it has been so for this long;
const BETTER_FOR: Duration = Duration::from_secs(60);
/// an attachment that is not older than this moves at once.
const SETTLING: Duration = Duration::from_secs(30);

/// The relays that an edge knows.
#[derive(Debug)]
pub(crate) struct Relays {
    known: Vec<Known>,
    /// What each place uses.
    used: [Option<Used>; LINES],
}

#[derive(Clone, Copy, Debug)]
struct Used {
    at: usize,
    relay: Option<RelayId>,
}

/// Where to dial next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This one; it is the place's from now on.
    Dial(SocketAddr),
    /// None before then.
    Wait(Instant),
    /// None, as long as the other place is where it is.
    Nowhere,
}

impl Relays {
    pub(crate) fn new(addresses: &[SocketAddr], now: Instant) -> Self {
        let known = |&address| Known::new(address, true, now);
        Self { known: addresses.iter().map(known).collect(), used: [None; LINES] }
    }

    /// The relay to dial for a place: of those that the other place does not use one with the fewest failures, the most
    /// preferred among these.
    pub(crate) fn next(&mut self, place: usize, now: Instant) -> Next {
        let free = || self.known.iter().enumerate().filter(|(at, _)| self.is_free(place, *at));
        let turn =
            |known: &Known| (known.not_before.max(now), known.is_unwilling(), known.failures);
        let Some(first) = free().map(|(_, known)| turn(known)).min() else { return Next::Nowhere };
        if first.0 > now {
            return Next::Wait(first.0);
        }
        let candidates = free().filter(|(_, known)| turn(known) == first);
        let other = self.used[1 - place].map(|used| &self.known[used.at]);
        let Some(at) = preferred(candidates, other) else { return Next::Nowhere };
        self.used[place] = Some(Used { at, relay: self.known[at].relay });
        Next::Dial(self.known[at].address)
    }

    /// Whether the other place leaves a relay to this one.
    fn is_free(&self, place: usize, at: usize) -> bool {
        let relay = self.known[at].relay;
        !self.used[1 - place]
            .is_some_and(|other| other.at == at || (other.relay.is_some() && other.relay == relay))
    }

    /// Takes an answer: relays of it that were not known, and what it says of those that were. Learnt ones of earlier
    /// answers that it does not name, and that no place uses, are forgotten.
    pub(crate) fn learn(&mut self, answer: &[Learned], now: Instant) {
        for known in &mut self.known {
            known.told = None;
        }
        for (position, learned) in answer.iter().enumerate() {
            let at = self.known.iter().position(|known| {
                known.relay == Some(learned.relay) || learned.addresses.contains(&known.address)
            });
            let is_used = self.used.iter().flatten().any(|used| Some(used.at) == at);
            let known = match at.map(|at| &mut self.known[at]) {
                Some(known) => {
                    let is_elsewhere = !learned.addresses.contains(&known.address);
                    if let Some(&address) = learned.addresses.first()
                        && is_elsewhere
                        && !known.is_given
                        && !is_used
                    {
                        *known = Known::new(address, false, now);
                    }
                    known
                }
                None => {
                    let Some(&address) = learned.addresses.first() else { continue };
                    self.known.push(Known::new(address, false, now));
                    self.known.last_mut().expect("one was pushed")
                }
            };
            known.relay = Some(learned.relay);
            known.told = Some(Told {
                position,
                region: learned.region.clone(),
                provider: learned.provider.clone(),
                rtt: learned.rtt,
                standing: learned.standing,
            });
        }
        self.forget();
    }

    /// Goes on with another list of those that it is given. Those in use stay so until their attachment ends.
    pub(crate) fn give(&mut self, addresses: &[SocketAddr], now: Instant) {
        for known in &mut self.known {
            known.is_given = addresses.contains(&known.address);
        }
        for &address in addresses {
            if !self.known.iter().any(|known| known.address == address) {
                self.known.push(Known::new(address, true, now));
            }
        }
        self.forget();
    }

    /// Takes out what is neither given, nor told of, nor used; and then the last of what is too many.
    fn forget(&mut self) {
        self.forget_where(|known| known.told.is_none(), 0);
        self.forget_where(|_| true, RELAYS_MAX);
    }

    /// Takes out such relays that are neither given nor used, the last first, until no more than `least` are left.
    fn forget_where(&mut self, is_such: impl Fn(&Known) -> bool, least: usize) {
        for at in (0..self.known.len()).rev() {
            let known = &self.known[at];
            let is_used = self.used.iter().flatten().any(|used| used.at == at);
            if self.known.len() <= least || known.is_given || is_used || !is_such(known) {
                continue;
            }
            self.known.remove(at);
            for used in self.used.iter_mut().flatten() {
                used.at -= usize::from(used.at > at);
            }
        }
    }

    /// Addresses that are worth measuring, the most preferred first; those that places use come last, for they can be
    /// asked at least. One in a pause after a failure is left alone, unless nothing else is there.
    pub(crate) fn to_measure(&self, most: usize) -> Vec<SocketAddr> {
        let is_used = |at: usize| self.used.iter().flatten().any(|used| used.at == at);
        let mut order: Vec<usize> = (0..self.known.len()).collect();
        order.sort_by_key(|&at| {
            let known = &self.known[at];
            (is_used(at), known.failures > 0, known.is_unwilling(), known.position(), at)
        });
        order.into_iter().take(most).map(|at| self.known[at].address).collect()
    }

    /// A relay has answered a question after so long.
    pub(crate) fn measured(
        &mut self,
        remote: SocketAddr,
        relay: RelayId,
        rtt: Duration,
        now: Instant,
    ) {
        if let Some(known) = self.known.iter_mut().find(|known| known.address == remote) {
            known.relay = Some(relay);
            known.measured = Some((rtt, now));
        }
    }

    /// A relay did not answer a question.
    pub(crate) fn unmeasured(&mut self, remote: SocketAddr) {
        if let Some(known) = self.known.iter_mut().find(|known| known.address == remote) {
            known.measured = None;
            known.better_since = [None; LINES];
        }
    }

    /// Whether the place, attached for `age` with this round trip, should move: another relay is clearly and lastingly
    /// nearer.
    pub(crate) fn is_bettered(
        &mut self,
        place: usize,
        rtt: Duration,
        age: Duration,
        now: Instant,
    ) -> bool {
        let Some(used) = self.used[place] else { return false };
        self.known[used.at].measured = Some((rtt, now));
        let mut is_bettered = false;
        for at in 0..self.known.len() {
            let is_candidate = at != used.at
                && self.known[at].relay != used.relay
                && self.is_free(place, at)
                && self.known[at].may_be_taken(now);
            let known = &mut self.known[at];
            let nearer = known.measured.filter(|_| is_candidate);
            let nearer = nearer.filter(|(other, _)| is_better(*other, rtt));
            let Some((_, measured)) = nearer else {
                known.better_since[place] = None;
                continue;
            };
            let since = *known.better_since[place].get_or_insert(now);
            let lasted = now.saturating_duration_since(since) >= BETTER_FOR && measured > since;
            is_bettered |= lasted || age <= SETTLING;
        }
        is_bettered
    }

    /// Which relay has answered the place's dialling; false if the other place is at that one already.
    pub(crate) fn answered(&mut self, place: usize, relay: RelayId) -> bool {
        let Some(used) = &mut self.used[place] else { return false };
        used.relay = Some(relay);
        self.known[used.at].relay = Some(relay);
        self.used[1 - place].is_none_or(|other| other.relay != Some(relay))
    }

    /// The place is attached.
    pub(crate) fn succeeded(&mut self, place: usize) {
        if let Some(used) = self.used[place] {
            self.known[used.at].failures = 0;
        }
    }

    /// The place is free again: after a failure or the end of an attachment, with the pause that a refusal asked for.
    /// `jitter` is drawn from 0 to 1, so that those who lost a relay together do not come back together.
    pub(crate) fn failed(
        &mut self,
        place: usize,
        refused: Option<Refused>,
        jitter: f64,
        now: Instant,
    ) {
        let Some(used) = self.used[place].take() else { return };
        let known = &mut self.known[used.at];
        let doubled = PAUSE_MIN.saturating_mul(1 << known.failures.min(10)).min(PAUSE_MAX);
        let pause = match refused {
            None => doubled,
            Some(Refused { retry_after: Some(after) }) => after.clamp(PAUSE_MIN, PAUSE_REFUSED),
            Some(Refused { retry_after: None }) => PAUSE_REFUSED,
        };
        known.failures = known.failures.saturating_add(1);
        known.not_before = now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        // It may have been kept for its use alone.
        self.forget();
    }

    /// The place is free, of its own will.
    pub(crate) fn left(&mut self, place: usize, now: Instant) {
        if let Some(used) = self.used[place].take() {
            // So that it does not turn round in the doorway.
            self.known[used.at].not_before = now + PAUSE_MIN;
        }
        for known in &mut self.known {
            known.better_since[place] = None;
        }
    }

    /// The place is free, and nothing speaks against its relay but that the other place has it.
    pub(crate) fn passed_over(&mut self, place: usize) {
        self.used[place] = None;
    }

    /// Something changed that may have been the reason of all failures: a new token, a new network.
    pub(crate) fn forgive(&mut self, now: Instant) {
        for known in &mut self.known {
            known.not_before = now;
        }
    }
}

fn is_better(one: Duration, than: Duration) -> bool {
    let gain = than.saturating_sub(one);
    gain >= BETTER_BY && gain >= than * BETTER_PERCENT / 100
}

/// A relay does not want the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// When it may, with the same token.
    pub(crate) retry_after: Option<Duration>,
}

#[cfg(test)]
mod tests;
