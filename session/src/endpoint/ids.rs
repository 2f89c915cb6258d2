//! The ids of the flows that an endpoint opens: 31 bits each, and none given twice before all were.
//!
//! A flow's keys hang on its session and its id, and its sequence begins at zero: an id that came again on the same session
//! would seal two datagrams with one key and one nonce, which lets whoever sees both read them. Drawn at random, of 50,000
//! ids on a long session two would be alike about as often as not. So ids are counted, from a random start.
//!
//! At an edge other edges' ids are not to be guessed: whoever took one at a far end first would keep its owner from it.
//! There the count goes through a permutation that only this process knows: a Feistel network of four rounds (Luby and
//! Rackoff 1988) with HMAC-SHA256, on 32 bits, walked on until the result has 31 (Black and Rogaway 2002).

use std::sync::atomic::{AtomicU32, Ordering};

use overway_wire::FlowId;
use ring::hmac;

use crate::flow::ACCEPTED;

const ROUNDS: u8 = 4;

/// Gives ids.
#[derive(Debug)]
pub(super) struct FlowIds {
    next: AtomicU32,
    permutation: Option<hmac::Key>,
}

impl FlowIds {
    /// Ids in their order, from this one on.
    pub(super) const fn in_order(start: u32) -> Self {
        Self { next: AtomicU32::new(start), permutation: None }
    }

    /// Ids that nobody guesses who does not know the secret.
    pub(super) fn hidden(start: u32, secret: &[u8; 32]) -> Self {
        let permutation = Some(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Self { next: AtomicU32::new(start), permutation }
    }

    /// The next.
    pub(super) fn draw(&self) -> FlowId {
        let counted = self.next.fetch_add(1, Ordering::Relaxed) & !ACCEPTED;
        FlowId(self.permutation.as_ref().map_or(counted, |key| permuted(key, counted)))
    }
}

fn permuted(key: &hmac::Key, mut value: u32) -> u32 {
    loop {
        value = network(key, value);
        if value & ACCEPTED == 0 {
            return value;
        }
    }
}

fn network(key: &hmac::Key, value: u32) -> u32 {
    let [a, b, c, d] = value.to_be_bytes();
    let (mut left, mut right) = ([a, b], [c, d]);
    for round in 0..ROUNDS {
        let tag = hmac::sign(key, &[round, right[0], right[1]]);
        let tag = tag.as_ref();
        (left, right) = (right, [left[0] ^ tag[0], left[1] ^ tag[1]]);
    }
    u32::from_be_bytes([left[0], left[1], right[0], right[1]])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_id_comes_twice_and_each_is_one_that_an_opener_may_choose() {
        // Of as many drawn at random about twenty pairs would be alike.
        for ids in [FlowIds::in_order(u32::MAX - 9), FlowIds::hidden(u32::MAX - 9, &[7; 32])] {
            let drawn: BTreeSet<u32> = (0..300_000).map(|_| ids.draw().0).collect();
            assert_eq!(drawn.len(), 300_000);
            assert!(drawn.last().is_some_and(|&last| last & ACCEPTED == 0));
        }
    }

    #[test]
    fn hidden_ids_are_spread_and_another_secrets_are_others() {
        let draw = |secret| {
            let ids = FlowIds::hidden(0, &[secret; 32]);
            (0..1_000).map(|_| ids.draw().0).collect::<Vec<_>>()
        };
        let (one, other) = (draw(1), draw(2));
        assert_ne!(one, other);
        let halves = one.iter().filter(|&&id| id < 1 << 30).count();
        assert!((400..600).contains(&halves), "{halves} of 1,000 in the lower half");
        assert!(one.windows(2).all(|pair| pair[1] != pair[0] + 1));
    }
}
