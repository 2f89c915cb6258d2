//! Which relay to dial next: the list, what is known of each, and how long to leave one alone that failed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use overway_wire::RelayId;

use crate::uplink::LINES;

/// The first pause after a failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause: whoever comes back is found again within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A relay that refuses what the edge shows is left alone for so long, or until there is another token.
const PAUSE_REFUSED: Duration = Duration::from_secs(60);

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
        let known = |&address| Known { address, relay: None, failures: 0, not_before: now };
        Self { known: addresses.iter().map(known).collect(), used: [None; LINES] }
    }

    /// The relay to dial for a place: of those that the other place does not use the one with the fewest failures, the
    /// first of the list among these.
    pub(crate) fn next(&mut self, place: usize, now: Instant) -> Next {
        let other = self.used[1 - place];
        let is_free = |(at, known): &(usize, &Known)| {
            let same = other.is_some_and(|other| {
                other.at == *at || (other.relay.is_some() && other.relay == known.relay)
            });
            !same
        };
        let free = self.known.iter().enumerate().filter(is_free);
        let best = free.min_by_key(|(at, known)| (known.not_before.max(now), known.failures, *at));
        match best {
            Some((at, known)) if known.not_before <= now => {
                self.used[place] = Some(Used { at, relay: known.relay });
                Next::Dial(known.address)
            }
            Some((_, known)) => Next::Wait(known.not_before),
            None => Next::Nowhere,
        }
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
}
