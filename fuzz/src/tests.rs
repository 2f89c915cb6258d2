//! Some thousand inputs for each, from seeds, without a fuzzer.

use proptest::prelude::*;

use super::*;

/// Bytes that begin like something.
fn bytes(firsts: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(firsts);
    let rest =
        prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), any::<u8>()], 0..200);
    (first, rest).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

/// Steps of [`recovery`] that neither open lanes anew nor forge.
fn steps() -> impl Strategy<Value = u8> {
    any::<u8>().prop_filter("a lane or a forgery", |step| (step >> 1 & 7) < 6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn frames_hold(bytes in bytes(&[0x11, 0x12, 0x13, 0x21])) {
        frame(&bytes);
    }

    #[test]
    fn hop_messages_hold(bytes in bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 9])) {
        hop_message(&bytes);
    }

    #[test]
    fn access_datagrams_hold(bytes in bytes(&[0x02, 0x11, 0x12])) {
        access(&bytes);
    }

    #[test]
    fn access_streams_hold(bytes in bytes(&[0, 1, 0xff])) {
        access_stream(&bytes);
    }

    #[test]
    fn edges_messages_hold(bytes in bytes(&[0x0a, 0x12, 0x1a, 0x22, 0x2a])) {
        to_edge(&bytes);
        from_edge(&bytes);
    }

    #[test]
    fn proxy_headers_hold(mut bytes in bytes(&[0x20, 0x21]), family in any::<u8>()) {
        let length = u8::try_from(bytes.len() - 1).unwrap_or(u8::MAX);
        bytes.splice(1..1, [family, 0, length]);
        bytes.splice(0..0, *b"\r\n\r\n\0\r\nQUIT\n");
        proxy_header(&bytes);
    }

    #[test]
    fn socks_messages_hold(bytes in bytes(&[0, 1, 5])) {
        socks(&bytes);
    }

    #[test]
    fn session_messages_hold(bytes in bytes(&[0x08, 0x0a, 0x10, 0x11, 0x12, 0x1a, 0x3a])) {
        session_word(&bytes);
        session_request(&bytes);
        session_answer(&bytes);
    }

    #[test]
    fn words_of_order_hold(bytes in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xff]), 15..19)) {
        session_order_word(&bytes);
    }

    #[test]
    fn notices_hold(bytes in bytes(&[0, 1, 2])) {
        notice(&bytes);
    }

    #[test]
    fn join_tokens_hold(text in "(ovw1-)?[A-Za-z0-9_-]{0,200}") {
        join_token(text.as_bytes());
    }

    #[test]
    fn edge_tokens_hold(
        text in "[A-Za-z0-9_-]{0,50}\\.[A-Za-z0-9_-]{0,200}\\.[A-Za-z0-9_-]{0,90}",
        name in "[a-zA-Z-]{0,9}",
        time in any::<i64>(),
        class in "(realtime|bulk|fast)",
    ) {
        edge_token(text.as_bytes());
        let claims = format!(
            r#"{{"tenant":"acme","sub":"{name}","services":["{name}"],"classes":["{class}"],"iat":{time},"exp":{time},
            "jti":"j","cnf":{{"jkt":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}}}}"#
        );
        edge_token(claims.as_bytes());
    }

    #[test]
    fn messages_to_relays_hold(bytes in bytes(&[0, 1])) {
        to_relay(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn messages_to_schedulers_hold(bytes in bytes(&[0])) {
        to_scheduler(&bytes);
    }

    #[test]
    fn recovery_holds(steps in prop::collection::vec(any::<u8>(), 0..400)) {
        recovery(&steps);
    }

    #[test]
    fn no_frame_comes_twice_whatever_is_done_to_datagrams(
        long in any::<bool>(),
        mut steps in prop::collection::vec(steps(), 0..400),
    ) {
        steps.insert(0, u8::from(long));
        recovery(&steps);
    }
}

#[test]
fn a_message_of_each_kind_goes_through() {
    // An update with a peer and a route, as a scheduler writes it.
    let update = overway_wire::control::Update { revision: 1, ..Default::default() };
    let message = overway_wire::control::ToRelay {
        body: Some(overway_wire::control::to_relay::Body::Update(update)),
    };
    let encoded = prost::Message::encode_to_vec(&message);
    let mut input = u16::try_from(encoded.len()).unwrap().to_be_bytes().to_vec();
    input.extend(encoded);
    to_relay(&input);
    let report = overway_wire::control::Report { sequence: 1, ..Default::default() };
    let message = overway_wire::control::ToScheduler {
        body: Some(overway_wire::control::to_scheduler::Body::Report(report)),
    };
    let encoded = prost::Message::encode_to_vec(&message);
    let mut input = u16::try_from(encoded.len()).unwrap().to_be_bytes().to_vec();
    input.extend(encoded);
    to_scheduler(&input);
}

/// A function of this crate that says whether bytes are anything.
type Reader = fn(&[u8]) -> bool;

#[test]
fn a_fuzzers_seeds_are_what_they_are_for_and_hold_when_they_are_cut_or_changed() {
    let readers: [(&str, Reader); 6] = [
        ("proxy_header", proxy_header),
        ("socks", socks),
        ("session_word", session_word),
        ("session_request", session_request),
        ("session_answer", session_answer),
        ("session_order_word", session_order_word),
    ];
    for (target, read) in readers {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cargo-fuzz/seeds");
        let folder = std::path::Path::new(folder).join(target);
        let seeds = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let seeds: Vec<_> = seeds.map(|path| (std::fs::read(&path).unwrap(), path)).collect();
        assert!(seeds.len() >= 2, "{}", folder.display());
        for (seed, path) in seeds {
            assert!(read(&seed), "{} is read as nothing", path.display());
            for at in 0..seed.len() {
                read(&seed[..at]);
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = seed.clone();
                    changed[at] = byte;
                    read(&changed);
                }
            }
        }
    }
}
