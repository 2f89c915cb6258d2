//! Tokens, as a backend makes them and a relay judges them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use overway_tenant::{
    Claims, EdgeKey, LIFETIME_MAX, Names, TOKEN_BYTES_MAX, TenantKey, TenantKeys, TokenError, mint,
    verify,
};
use overway_wire::Class;
use proptest::prelude::{Strategy, any, proptest};
use proptest::sample::Index;

const NOW: u64 = 1_800_000_000;
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#;

fn key() -> TenantKey {
    TenantKey::from_seed([7; 32])
}

fn keys() -> TenantKeys {
    let mut keys = TenantKeys::new("acme".parse().unwrap());
    keys.keys.insert("k1".parse().unwrap(), key().public());
    keys
}

fn claims() -> Claims {
    Claims {
        tenant: "acme".parse().unwrap(),
        name: "phone".to_owned(),
        services: Names::of(["chat"]),
        offers: Names::none(),
        classes: BTreeSet::from([Class::Realtime, Class::Interactive]),
        issued: NOW,
        not_before: None,
        expires: NOW + 3_600,
        id: "t1".parse().unwrap(),
        edge: EdgeKey::from_seed([9; 32]).id(),
    }
}

fn token() -> String {
    mint(&claims(), &key(), &"k1".parse().unwrap()).unwrap()
}

/// A token of any header and payload with a good signature.
fn signed(header: &str, payload: &[u8]) -> String {
    let input = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(payload)
    );
    let signature = key().sign(input.as_bytes());
    format!("{input}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn judged(token: &str) -> Result<Claims, TokenError> {
    verify(token, &keys(), at(NOW))
}

#[test]
fn a_token_is_judged_good_and_says_what_was_put_in() {
    assert_eq!(judged(&token()), Ok(claims()));
    assert!(claims().is_for(&EdgeKey::from_seed([9; 32]).public()));
    assert!(!claims().is_for(&EdgeKey::from_seed([8; 32]).public()));
}

/// Ed25519 draws no random numbers, so the same claims and key make the same token.
#[test]
fn the_text_of_a_token_stays_as_it_is() {
    let mut parts = token();
    let signature = parts.split_off(parts.rfind('.').unwrap());

    let payload = br#"{"classes":["realtime","interactive"],"cnf":{"jkt":"JKT"},"exp":1800003600,"iat":1800000000,"jti":"t1","offers":[],"services":["chat"],"sub":"phone","tenant":"acme"}"#;
    let payload = String::from_utf8(payload.to_vec()).unwrap();
    let payload = payload.replace("JKT", &claims().edge.to_string());
    assert_eq!(signed(HEADER, payload.as_bytes()), format!("{parts}{signature}"));
}

#[test]
fn every_other_algorithm_is_refused_before_a_key_is_looked_up() {
    let payload = claims().to_json();
    for alg in [
        "\"none\"",
        "\"None\"",
        "\"HS256\"",
        "\"ES256\"",
        "\"eddsa\"",
        "\"\"",
        "null",
        "[\"EdDSA\"]",
    ] {
        let header = HEADER.replace("\"EdDSA\"", alg).replace("k1", "nobody's");
        let verdict = judged(&signed(&header, &payload));
        assert_eq!(verdict, Err(TokenError::Algorithm(alg.to_owned())));
    }
    let nothing = judged(&signed(r#"{"kid":"k1"}"#, &payload));
    assert_eq!(nothing, Err(TokenError::Algorithm("null".to_owned())));
    // `none` as it is usually tried: with no signature.
    let header = BASE64URL_NOPAD.encode(HEADER.replace("EdDSA", "none").as_bytes());
    let unsigned = format!("{header}.{}.", BASE64URL_NOPAD.encode(&payload));
    assert_eq!(judged(&unsigned), Err(TokenError::Algorithm("\"none\"".to_owned())));
}

/// The classic confusion: the public key, which everybody knows, taken as the secret of an HMAC.
#[test]
fn an_hmac_with_the_public_key_is_no_signature() {
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key().public().0);
    for header in [HEADER.replace("EdDSA", "HS256"), HEADER.to_owned()] {
        let input = format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header.as_bytes()),
            BASE64URL_NOPAD.encode(&claims().to_json())
        );
        let tag = ring::hmac::sign(&secret, input.as_bytes());
        assert!(judged(&format!("{input}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))).is_err());
    }
}

#[test]
fn a_header_that_asks_for_more_is_refused() {
    let judged = |header: &str| judged(&signed(header, &claims().to_json()));
    let more = |member: &str| HEADER.replace('}', &format!(",{member}}}"));

    assert_eq!(judged(&more(r#""crit":["exp"]"#)), Err(TokenError::Critical));
    assert_eq!(judged(&more(r#""crit":null"#)), Err(TokenError::Critical));
    assert_eq!(judged(&HEADER.replace("JWT", "at+jwt")).unwrap_err().reason(), "malformed");
    assert!(matches!(judged(&more(r#""kid":"k2""#)), Err(TokenError::Header(_))));
    assert_eq!(judged(r#"{"alg":"EdDSA"}"#), Err(TokenError::NoKid));
    assert!(matches!(judged(&HEADER.replace("\"k1\"", "1")), Err(TokenError::Kid(_))));
    // A key in the header counts for nothing; the named one does.
    assert!(judged(&more(r#""jwk":{"kty":"OKP"}"#)).is_ok());
    assert!(judged(r#"{"alg":"EdDSA","kid":"k1"}"#).is_ok());
}

#[test]
fn a_key_counts_for_its_own_tenant_until_it_is_revoked() {
    let unknown = TenantKeys::new("acme".parse().unwrap());
    let tenant = claims().tenant;
    let kid: overway_tenant::Kid = "k1".parse().unwrap();
    assert_eq!(
        verify(&token(), &unknown, at(NOW)),
        Err(TokenError::UnknownKey { tenant: tenant.clone(), kid: kid.clone() })
    );

    let other = TenantKeys { tenant: "other".parse().unwrap(), ..keys() };
    assert_eq!(verify(&token(), &other, at(NOW)), Err(TokenError::UnknownTenant(tenant)));
    let foreign = Claims { tenant: "other".parse().unwrap(), ..claims() };
    let foreign = mint(&foreign, &TenantKey::from_seed([8; 32]), &kid).unwrap();
    assert_eq!(verify(&foreign, &other, at(NOW)), Err(TokenError::Signature(kid.clone())));

    let mut revoked = keys();
    revoked.revoked_kids.insert(kid.clone());
    assert_eq!(verify(&token(), &revoked, at(NOW)), Err(TokenError::RevokedKey(kid)));
}

#[test]
fn a_token_can_be_revoked_by_its_id() {
    let mut keys = keys();
    keys.revoked_tokens.insert("t1".parse().unwrap());

    assert_eq!(verify(&token(), &keys, at(NOW)), Err(TokenError::Revoked("t1".parse().unwrap())));
    let next = Claims { id: "t2".parse().unwrap(), ..claims() };
    let next = mint(&next, &key(), &"k1".parse().unwrap()).unwrap();
    assert!(verify(&next, &keys, at(NOW)).is_ok());
}

#[test]
fn times_hold_with_thirty_seconds_of_leeway() {
    let timed = |issued, not_before, expires| {
        let claims = Claims { issued, not_before, expires, ..claims() };
        judged(&signed(HEADER, &claims.to_json())).map(|_| ())
    };

    assert_eq!(timed(NOW - 60, None, NOW - 29), Ok(()));
    assert_eq!(timed(NOW - 60, None, NOW - 30), Err(TokenError::Expired(30)));
    assert_eq!(timed(NOW, Some(NOW + 30), NOW + 60), Ok(()));
    assert_eq!(timed(NOW, Some(NOW + 31), NOW + 60), Err(TokenError::NotYet(31)));
    assert_eq!(timed(NOW + 30, None, NOW + 60), Ok(()));
    assert_eq!(timed(NOW + 31, None, NOW + 60), Err(TokenError::IssuedLater(31)));
    let longest = LIFETIME_MAX.as_secs();
    assert_eq!(timed(NOW, None, NOW + longest), Ok(()));
    let longer = TokenError::LivesTooLong(longest + 1);
    assert_eq!(timed(NOW, None, NOW + longest + 1), Err(longer.clone()));
    let minted = Claims { expires: NOW + longest + 1, ..claims() };
    assert_eq!(mint(&minted, &key(), &"k1".parse().unwrap()), Err(longer));
    assert!(timed(0, Some(u64::MAX), u64::MAX).is_err());
}

#[test]
fn a_token_is_bounded_and_has_one_text() {
    let token = token();
    let long = format!("{token}{}", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(judged(&long), Err(TokenError::TooLong(long.len())));
    for (text, error) in [
        (String::new(), TokenError::Parts),
        ("a.b".to_owned(), TokenError::Parts),
        (format!("{token}.x"), TokenError::Parts),
        (format!(" {token}"), TokenError::Encoding("header")),
        (format!("{token}=="), TokenError::Encoding("signature")),
        (format!("{token}\n"), TokenError::Encoding("signature")),
    ] {
        assert_eq!(judged(&text), Err(error), "{text}");
    }
    let names: BTreeSet<_> = (0..64).map(|n| format!("{n:0>63}")).collect();
    let wide = Claims { services: Names::Only(names), ..claims() };
    assert!(matches!(mint(&wide, &key(), &"k1".parse().unwrap()), Err(TokenError::TooLong(_))));
}

#[test]
fn every_flipped_bit_is_refused() {
    let token = token();
    for place in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.clone().into_bytes();
            bytes[place] ^= 1 << bit;
            let text = String::from_utf8(bytes).unwrap();
            assert!(judged(&text).is_err(), "byte {place}, bit {bit}");
        }
    }
    // And those of the signature itself, under whatever text.
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    for bit in 0..512 {
        let mut flipped = signature.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let text = format!("{input}.{}", BASE64URL_NOPAD.encode(&flipped));
        assert_eq!(judged(&text), Err(TokenError::Signature("k1".parse().unwrap())));
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_without_panic(
        text in any::<String>(),
        header in any::<Vec<u8>>(),
        payload in any::<Vec<u8>>(),
        json in "[\\[\\]{}\":,a-z0-9. -]{0,200}",
    ) {
        assert!(judged(&text).is_err());
        assert!(judged(&signed(HEADER, &payload)).is_err());
        assert!(judged(&signed(HEADER, json.as_bytes())).is_err());
        assert!(judged(&signed(&json, &claims().to_json())).is_err());
        assert!(judged(&signed(&String::from_utf8_lossy(&header), &payload)).is_err());
    }

    #[test]
    fn what_is_not_the_token_is_refused(at in any::<Index>(), other in any::<u8>(), cut in any::<Index>()) {
        let token = token();
        assert!(judged(&token[..cut.index(token.len())]).is_err());
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = other;
        if let Ok(text) = String::from_utf8(bytes) && text != token {
            assert!(judged(&text).is_err());
        }
    }

    #[test]
    fn every_claim_comes_back(
        names in proptest::collection::btree_set("[a-z0-9][a-z0-9-]{0,20}", 0..20),
        name in "[^\\p{Cc}]{1,16}",
        id in "[!-~]{1,64}",
        seconds in 1..LIFETIME_MAX.as_secs(),
        classes in proptest::collection::btree_set((0..3_u8).prop_map(|n| Class::from_code(n).unwrap()), 1..=3),
    ) {
        let claims = Claims {
            services: Names::Only(names),
            name,
            id: id.parse().unwrap(),
            expires: NOW + seconds,
            classes,
            ..claims()
        };
        let token = mint(&claims, &key(), &"k1".parse().unwrap()).unwrap();
        assert_eq!(judged(&token), Ok(claims));
    }
}
