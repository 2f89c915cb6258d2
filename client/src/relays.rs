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

/// The first pause after a failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause: whoever comes back is found again within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A relay that refuses what the edge shows is left alone for so long, or until there is another token.
const PAUSE_REFUSED: Duration = Duration::from_secs(60);

/// Relays no farther than this beyond the nearest are about as near,
const NEAR: Duration = Duration::from_millis(5);
/// or no farther than this part of it.
const NEAR_PERCENT: u32 = 20;
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

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    /// Once it has answered.
    relay: Option<RelayId>,
    failures: u32,
    not_before: Instant,
    /// Not learnt, but given: it stays.
    is_given: bool,
    /// What was answered of it last.
    told: Option<Told>,
    /// Round trip as this edge has measured it, and when.
    measured: Option<(Duration, Instant)>,
    /// Since when it is clearly nearer than what a place has.
    better_since: [Option<Instant>; LINES],
}

#[derive(Debug)]
struct Told {
    position: usize,
    region: String,
    provider: String,
    rtt: Option<Duration>,
    standing: Standing,
}

/// A relay of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    pub(crate) relay: RelayId,
    /// Where edges attach; the first is used.
    pub(crate) addresses: Vec<SocketAddr>,
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

impl Known {
    fn new(address: SocketAddr, is_given: bool, now: Instant) -> Self {
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

    fn standing(&self) -> Standing {
        self.told.as_ref().map(|told| told.standing).unwrap_or_default()
    }

    /// It would refuse, as far as is known.
    fn is_unwilling(&self) -> bool {
        self.standing() >= Standing::Full
    }

    fn may_be_taken(&self, now: Instant) -> bool {
        self.standing() == Standing::Open && self.failures == 0 && self.not_before <= now
    }

    /// As measured, or else as told.
    fn rtt(&self) -> Option<Duration> {
        let told = || self.told.as_ref().and_then(|told| told.rtt);
        self.measured.map(|(rtt, _)| rtt).or_else(told)
    }

    fn position(&self) -> usize {
        self.told.as_ref().map_or(usize::MAX, |told| told.position)
    }

    /// Whether it may fail together with another: the same provider or region, as far as these are known.
    fn shares_fate(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (&self.told, &other.told) else { return false };
        let same = |one: &str, two: &str| !one.is_empty() && one == two;
        same(&one.provider, &two.provider) || same(&one.region, &two.region)
    }
}

/// The most preferred of some relays, `other` being what the other place uses; see the module.
fn preferred<'a>(
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
mod tests {
    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    #[test]
    fn two_places_never_use_one_relay() {
        let now = Instant::now();
        let list = addresses(3);
        let mut relays = Relays::new(&list, now);
        assert_eq!(relays.next(0, now), Next::Dial(list[0]));
        assert!(relays.answered(0, RelayId(7)));
        relays.succeeded(0);
        assert_eq!(relays.next(1, now), Next::Dial(list[1]));
        // Another address of the same relay.
        assert!(!relays.answered(1, RelayId(7)));
        relays.passed_over(1);

        assert_eq!(relays.next(1, now), Next::Dial(list[2]));
        assert!(relays.answered(1, RelayId(8)));
        relays.failed(1, None, 0.0, now);
        assert_eq!(relays.next(1, now), Next::Wait(now + PAUSE_MIN / 2));
        relays.failed(0, None, 1.0, now);
        assert_eq!(relays.next(1, now), Next::Dial(list[1]), "free again");
    }

    #[test]
    fn relays_that_are_no_longer_given_are_left_when_their_attachment_ends() {
        let now = Instant::now();
        let list = addresses(4);
        let mut relays = Relays::new(&list[..2], now);
        assert_eq!(relays.next(0, now), Next::Dial(list[0]));
        assert_eq!(relays.next(1, now), Next::Dial(list[1]));

        relays.give(&list[1..3], now);

        assert_eq!(relays.to_measure(9).len(), 3, "the first is in use");
        relays.failed(0, None, 0.0, now);
        assert_eq!(relays.next(0, now), Next::Dial(list[2]));
        assert_eq!(relays.to_measure(9).len(), 2);
    }

    #[test]
    fn one_relay_leaves_nothing_for_the_second_place() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        assert!(matches!(relays.next(0, now), Next::Dial(_)));
        assert_eq!(relays.next(1, now), Next::Nowhere);
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_refusals_are_obeyed() {
        let mut now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        let mut pause = |refused| {
            assert!(matches!(relays.next(0, now), Next::Dial(_)));
            relays.failed(0, refused, 1.0, now);
            let Next::Wait(until) = relays.next(0, now) else { panic!("no pause") };
            let pause = until - now;
            now = until;
            pause
        };
        let pauses: Vec<_> = (0..9).map(|_| pause(None).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        let after = Some(Duration::from_secs(5));
        assert_eq!(pause(Some(Refused { retry_after: after })).as_secs(), 5);
        assert_eq!(pause(Some(Refused { retry_after: None })).as_secs(), 60);

        assert!(matches!(relays.next(0, now), Next::Dial(_)));
        relays.failed(0, None, 1.0, now);
        relays.forgive(now);
        assert!(matches!(relays.next(0, now), Next::Dial(_)));
    }

    fn learned(relay: u16, rtt_ms: u64) -> Learned {
        Learned {
            relay: RelayId(relay),
            addresses: vec![SocketAddr::from(([127, 0, 1, 1], relay))],
            region: format!("region-{relay}"),
            provider: format!("provider-{relay}"),
            rtt: (rtt_ms > 0).then(|| Duration::from_millis(rtt_ms)),
            standing: Standing::Open,
        }
    }

    fn dial(relays: &mut Relays, place: usize, now: Instant) -> u16 {
        let Next::Dial(address) = relays.next(place, now) else { panic!("nothing to dial") };
        address.port()
    }

    #[test]
    fn the_nearest_that_was_told_of_or_measured_is_taken_before_what_was_given() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        relays.learn(&[learned(20, 50), learned(21, 20), learned(22, 80)], now);
        assert_eq!(dial(&mut relays, 0, now), 21);
        relays.measured(learned(22, 0).addresses[0], RelayId(22), Duration::from_millis(9), now);
        assert_eq!(dial(&mut relays, 1, now), 22);
        relays.failed(0, None, 1.0, now);
        assert_eq!(dial(&mut relays, 0, now), 20, "the next without a failure");
        relays.failed(0, None, 1.0, now);
        assert_eq!(dial(&mut relays, 0, now), 1, "what was given stays");
    }

    #[test]
    fn of_those_about_as_near_the_second_is_of_another_provider_and_region() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        let same = |relay| Learned { provider: "p".into(), ..learned(relay, 20) };
        relays.learn(&[same(20), same(21), Learned { provider: "q".into(), ..same(22) }], now);
        assert_eq!(dial(&mut relays, 0, now), 20);
        assert_eq!(dial(&mut relays, 1, now), 22);

        // One that is far is not taken for that.
        let mut relays = Relays::new(&addresses(1), now);
        relays.learn(&[same(20), same(21), learned(22, 90)], now);
        assert_eq!((dial(&mut relays, 0, now), dial(&mut relays, 1, now)), (20, 21));
    }

    #[test]
    fn one_that_fills_up_comes_after_its_equals_and_one_that_drains_after_all() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        let standing = |relay, standing| Learned { standing, ..learned(relay, 20) };
        let answer =
            [standing(20, Standing::Filling), standing(21, Standing::Draining), learned(22, 21)];
        relays.learn(&answer, now);
        assert_eq!(dial(&mut relays, 0, now), 22);
        assert_eq!(dial(&mut relays, 1, now), 20);
        relays.failed(1, None, 1.0, now);
        assert_eq!(dial(&mut relays, 1, now), 1, "rather one of which nothing is known");
    }

    #[test]
    fn what_is_learnt_is_bounded_and_forgotten_while_what_is_given_or_used_stays() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(2), now);
        let many: Vec<Learned> = (100..300).map(|relay| learned(relay, 20)).collect();
        relays.learn(&many, now);
        assert_eq!(relays.known.len(), RELAYS_MAX);
        assert_eq!(dial(&mut relays, 0, now), 100);
        assert_eq!(dial(&mut relays, 1, now), 101);

        relays.learn(&[learned(9, 20), learned(101, 20)], now);
        let ports: Vec<u16> = relays.known.iter().map(|known| known.address.port()).collect();
        assert_eq!(ports, [1, 2, 100, 101, 9]);
        let used = relays.used.map(|used| relays.known[used.unwrap().at].address.port());
        assert_eq!(used, [100, 101], "places keep what they use");
    }

    #[test]
    fn a_relay_that_has_another_address_is_dialled_there() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        relays.learn(&[learned(20, 5)], now);
        assert_eq!(dial(&mut relays, 0, now), 20);
        let moved = Learned { addresses: vec![([127, 0, 2, 1], 99).into()], ..learned(20, 5) };
        relays.learn(std::slice::from_ref(&moved), now);
        assert_eq!(relays.known[1].address.port(), 20, "not while it is in use");
        relays.failed(0, None, 1.0, now);
        relays.learn(&[moved], now);
        assert_eq!(dial(&mut relays, 0, now), 99, "as one that has not failed");
        assert_eq!(relays.known.len(), 2);
    }

    #[test]
    fn a_relay_that_was_given_and_is_learnt_is_one() {
        let now = Instant::now();
        let mut relays = Relays::new(&addresses(1), now);
        let same = Learned { addresses: addresses(1), ..learned(5, 20) };
        relays.learn(&[same.clone(), learned(6, 20)], now);
        assert_eq!(relays.known.len(), 2);
        relays.learn(&[Learned { addresses: vec![], ..same }], now);
        assert_eq!(relays.known.len(), 1, "by its id, too");
    }

    #[test]
    fn a_place_moves_when_another_was_clearly_nearer_for_a_minute_and_not_for_one_measurement() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut relays = Relays::new(&addresses(1), start);
        relays.learn(&[learned(20, 0), learned(21, 0)], start);
        assert_eq!(dial(&mut relays, 0, start), 20);
        let (ms, old) = (Duration::from_millis, Duration::from_secs(600));
        let other = learned(21, 0).addresses[0];
        let measured = |relays: &mut Relays, rtt, now| {
            relays.measured(other, RelayId(21), ms(rtt), now);
        };
        measured(&mut relays, 30, at(0));
        assert!(!relays.is_bettered(0, ms(80), old, at(1)));
        assert!(!relays.is_bettered(0, ms(80), old, at(90)), "measured once");
        measured(&mut relays, 72, at(95));
        assert!(!relays.is_bettered(0, ms(80), old, at(96)), "8 ms are nothing");
        measured(&mut relays, 30, at(100));
        assert!(!relays.is_bettered(0, ms(80), old, at(101)), "it begins anew");
        measured(&mut relays, 30, at(160));
        assert!(!relays.is_bettered(0, ms(80), old, at(160)));
        assert!(relays.is_bettered(0, ms(80), old, at(161)));
        // One that is used by the other place is none to move to.
        relays.used[1] = Some(Used { at: 2, relay: Some(RelayId(21)) });
        assert!(!relays.is_bettered(0, ms(80), old, at(162)));
    }

    #[test]
    fn a_new_attachment_moves_at_once_and_nobody_moves_to_and_fro() {
        let start = Instant::now();
        let mut relays = Relays::new(&addresses(1), start);
        relays.learn(&[learned(20, 0), learned(21, 0)], start);
        assert_eq!(dial(&mut relays, 0, start), 20);
        let rtt = |relay: u16, seconds: u64| {
            // Both swing by half, one against the other.
            let swing = (seconds / 20) % 2 == u64::from(relay % 2);
            Duration::from_millis(if swing { 60 } else { 40 })
        };
        let address = |relay| learned(relay, 0).addresses[0];
        relays.measured(address(21), RelayId(21), Duration::from_millis(5), start);
        let young = Duration::from_secs(2);
        assert!(relays.is_bettered(0, Duration::from_millis(40), young, start));

        for seconds in 0..3_600 {
            let now = start + Duration::from_secs(seconds);
            relays.measured(address(21), RelayId(21), rtt(21, seconds), now);
            let age = Duration::from_secs(100 + seconds);
            assert!(!relays.is_bettered(0, rtt(20, seconds), age, now), "at {seconds} s");
        }
    }
}
