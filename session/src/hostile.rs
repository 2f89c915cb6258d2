//! What messages of far ends are put through, for fuzzers and tests.
//!
//! Each function reads bytes as a session does, panics if something holds that must not, and says whether they were a
//! message that is acted upon.

use std::time::Duration;

use overway_wire::RelayId;

use crate::edge::{WORD_BYTES_MAX, Word};
use crate::open::{Answer, MESSAGE_BYTES_MAX, REASON_BYTES_MAX, Request, shortened};
use crate::order_delay::OrderDelay;
use crate::wanted;

/// What edges say to one another of themselves comes back as it was, and names no relay 0.
///
/// # Panics
/// If that does not hold.
pub fn word(bytes: &[u8]) -> bool {
    let Some(word) = decode::<Word>(bytes, WORD_BYTES_MAX) else { return false };
    let Some(whereabouts) = word.whereabouts() else { return word.token.is_some() };
    let addresses = [Some(whereabouts.first), whereabouts.second];
    assert!(addresses.into_iter().flatten().all(|address| address.relay != RelayId(0)));
    assert_eq!(word.revision(word.boot).boot, word.boot);
    true
}

/// What ends say to one another of how long frames wait for order comes back as it was, and whatever it is a mean is no
/// longer than all of it.
///
/// # Panics
/// If that does not hold.
pub fn order_word(bytes: &[u8]) -> bool {
    let Some(said) = OrderDelay::decode(bytes) else { return false };
    assert_eq!(said.encode(), bytes);
    let heard = said.plus(said).since(said);
    assert!(heard.mean(1) <= Duration::from_micros(said.micros));
    true
}

/// What an opener asks for comes back as it was, and its terms and its client's addresses are such as can be written.
///
/// # Panics
/// If that does not hold.
pub fn request(bytes: &[u8]) -> bool {
    let Some(request) = decode::<Request>(bytes, MESSAGE_BYTES_MAX) else { return false };
    let terms = request.flow_terms();
    assert_eq!(terms.sound(), terms);
    if let Some(client) = request.client() {
        assert_eq!(wanted::encode(client.source), request.client_source);
        assert_eq!(wanted::encode(client.destination), request.client_destination);
    }
    request.is_sound()
}

/// What a far end answers comes back as it was, and its reason is short enough to be shown.
///
/// # Panics
/// If that does not hold.
pub fn answer(bytes: &[u8]) -> bool {
    let Some(answer) = decode::<Answer>(bytes, MESSAGE_BYTES_MAX) else { return false };
    if let Some(reason) = &answer.refused {
        let shown = shortened(reason);
        assert!(shown.len() <= REASON_BYTES_MAX && reason.starts_with(shown));
    }
    true
}

fn decode<M: prost::Message + Default + PartialEq>(bytes: &[u8], bytes_max: usize) -> Option<M> {
    let message = M::decode(bytes).ok().filter(|_| bytes.len() <= bytes_max)?;
    assert!(M::decode(&message.encode_to_vec()[..]).is_ok_and(|again| again == message));
    Some(message)
}

#[cfg(test)]
mod tests {
    use overway_wire::{FlowId, Redundancy};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::edge::Attached;
    use crate::{ClientAddresses, Wanted};

    fn spoken(token: Option<String>, first: u32, second: u32) -> Vec<u8> {
        let attached = Some(Attached { number: 7, first, second });
        Word { token, boot: 9, attached }.encode_to_vec()
    }

    fn asked(service: &str, target: Option<&str>) -> Vec<u8> {
        let client = ClientAddresses {
            source: "192.0.2.1:80".parse().unwrap(),
            destination: "[2001:db8::1]:443".parse().unwrap(),
        };
        let wanted = Wanted { service, client: Some(client), target, peer: None };
        Request::flow(wanted, FlowId(7), Redundancy::Always.into()).encode_to_vec()
    }

    #[test]
    fn what_ends_say_is_read_and_nonsense_is_not() {
        assert!(word(&spoken(Some("t".into()), 3 << 16 | 9, 0)));
        assert!(!word(&spoken(None, 9, 3 << 16 | 9)), "of relay 0");
        assert!(!word(&spoken(Some("t".repeat(WORD_BYTES_MAX)), 3 << 16, 0)));
        assert!(request(&asked("web", Some("db.example:5432"))));
        assert!(!request(&asked("", None)) && !request(&[0xff; 20]));
        assert!(answer(&Answer { refused: Some("no".into()), stamps: true }.encode_to_vec()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn messages_that_were_changed_hold(
            first: u32,
            second: u32,
            service in "[a-z]{0,70}",
            changes in prop::collection::vec((0..90_usize, any::<u8>()), 0..4),
            length in 0..200_usize,
        ) {
            let words = [spoken(Some(service.clone()), first, second), asked(&service, Some(&service))];
            for mut bytes in words {
                bytes.truncate(length);
                for &(at, byte) in &changes {
                    if let Some(changed) = bytes.get_mut(at) {
                        *changed = byte;
                    }
                }
                word(&bytes);
                request(&bytes);
                answer(&bytes);
            }
        }
    }
}
