//! What a user reads, word for word.

use std::collections::BTreeMap;
use std::time::Duration;

use overway_config::{ConfigError, Document, Spanned};
use proptest::prelude::{any, prop, proptest};
use proptest::strategy::Strategy;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    relay: RawRelay,
    mesh: Option<RawMesh>,
    #[serde(default)]
    service: Vec<RawService>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what matters is whether it can be read")]
struct RawRelay {
    name: Spanned<String>,
    region: Option<String>,
    capacity_mbps: Option<u32>,
    loss: Option<f64>,
    transit: Option<bool>,
    port: Option<u16>,
    letter: Option<char>,
    budget: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMesh {
    listen: Spanned<Vec<Spanned<String>>>,
    upstream: Option<Spanned<String>>,
    silence_ms: Option<Spanned<f64>>,
    hops: Option<Spanned<u8>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what matters is whether it can be read")]
struct RawService {
    name: Spanned<String>,
    protocol: Option<Protocol>,
    limits: Option<BTreeMap<String, u8>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

/// Reads a document as a program would: all that TOML and types can say, then the program's own checks.
fn load(document: &Document) -> Result<Raw, ConfigError> {
    let raw: Raw = document.parse()?;
    document.name(&raw.relay.name)?;
    document.unique(raw.service.iter().map(|service| &service.name))?;
    if let Some(mesh) = &raw.mesh {
        for text in document.entries(&mesh.listen, 1..=2)? {
            document.address(text)?;
        }
        if let Some(upstream) = &mesh.upstream {
            document.host_port(upstream)?;
        }
        if let Some(silence) = &mesh.silence_ms {
            let allowed = Duration::from_millis(1)..=Duration::from_secs(10);
            document.duration(silence, Duration::from_millis(1), allowed)?;
        }
        if let Some(hops) = &mesh.hops {
            document.in_range(hops, 1..=3)?;
        }
    }
    Ok(raw)
}

fn message(text: &str) -> String {
    load(&Document::new("relay.toml", text))
        .map_or_else(|error| error.to_string(), |_| "good".into())
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(message(text), *expected, "of:\n{text}");
    }
}

/// A good relay table of two lines; what follows starts on line 3.
macro_rules! after_relay {
    ($rest:literal) => {
        concat!("[relay]\nname = \"frankfurt\"\n", $rest)
    };
}

#[test]
fn a_good_document_is_read() {
    check(&[
        (after_relay!(""), "good"),
        (
            after_relay!("[mesh]\nlisten = [\"[::1]:4401\"]\nupstream = \"a-b.example:4400\""),
            "good",
        ),
        (
            after_relay!("loss = 1\nport = 65535\n[[service]]\nname='a'\n[[service]]\nname='b'"),
            "good",
        ),
    ]);
}

#[test]
fn an_unknown_key_brings_the_likely_one_and_all_known_ones() {
    check(&[
        (
            after_relay!("regoin = \"eu\""),
            "relay.toml:3: relay.regoin: is not a key here; did you mean \"region\"? known keys: \
             name, region, capacity_mbps, loss, transit, port, letter, budget",
        ),
        (
            after_relay!("[mehs]\nlisten = []"),
            "relay.toml:3: mehs: is not a key here; did you mean \"mesh\"? \
             known keys: relay, mesh, service",
        ),
        (
            after_relay!("[[service]]\nname = \"a\"\n[[service]]\nname = \"b\"\nzzz = 1"),
            "relay.toml:7: service.zzz: is not a key here; known keys: name, protocol, limits",
        ),
        (
            after_relay!("\"strange key\" = 1"),
            "relay.toml:3: relay.\"strange key\": is not a key here; known keys: \
             name, region, capacity_mbps, loss, transit, port, letter, budget",
        ),
        (
            "relay = { name = \"a\", Name = \"b\" }",
            "relay.toml:1: relay.Name: is not a key here; did you mean \"name\"? known keys: \
             name, region, capacity_mbps, loss, transit, port, letter, budget",
        ),
    ]);
}

#[test]
fn a_wrong_type_is_told_with_the_right_one() {
    check(&[
        ("[relay]\nname = 5", "relay.toml:2: relay.name: 5 is a number; expected text in quotes"),
        ("[relay]\nname = [1]", "relay.toml:2: relay.name: [1] is a list; expected text in quotes"),
        (
            "[relay]\nname = 1979-05-27",
            "relay.toml:2: relay.name: 1979-05-27 is a date or a time; expected text in quotes",
        ),
        (
            "[relay.name]",
            "relay.toml:1: relay.name: [relay.name] is a table; expected text in quotes",
        ),
        ("relay = 5", "relay.toml:1: relay: 5 is a number; expected a table"),
        (
            "[[relay]]\nname = \"a\"",
            "relay.toml:1: relay: [[relay]] is a list of tables; expected one, in single brackets",
        ),
        (
            after_relay!("[service]\nname = \"web\""),
            "relay.toml:3: service: [service] is one table; expected a list: [[service]]",
        ),
        (
            after_relay!("transit = \"yes\""),
            "relay.toml:3: relay.transit: \"yes\" is text; expected true or false",
        ),
        (
            after_relay!("loss = \"0.1\""),
            "relay.toml:3: relay.loss: \"0.1\" is text; expected a number",
        ),
        (
            after_relay!("port = \"80\""),
            "relay.toml:3: relay.port: \"80\" is text; expected a whole number from 0 to 65535",
        ),
        (
            after_relay!("port = 80.5"),
            "relay.toml:3: relay.port: 80.5 is a number; expected a whole number from 0 to 65535",
        ),
        (
            after_relay!("[mesh]\nlisten = \"127.0.0.1:4400\""),
            "relay.toml:4: mesh.listen: \"127.0.0.1:4400\" is text; \
             expected a list in brackets, [...]",
        ),
        (
            after_relay!("[mesh]\nlisten = [\n  \"127.0.0.1:4400\",\n  true,\n]"),
            "relay.toml:6: mesh.listen: true is a truth value; expected text in quotes",
        ),
        (
            after_relay!("letter = \"ab\""),
            "relay.toml:3: relay.letter: \"ab\" is text; expected a character",
        ),
        (
            after_relay!("[[service]]\nname = \"a\"\nlimits = { b = { c = 1 } }"),
            "relay.toml:5: service.limits.b: { c = 1 } is a table; \
             expected a whole number from 0 to 255",
        ),
        (
            after_relay!("[[service]]\nname = \"a\"\nprotocol = 6"),
            "relay.toml:5: service.protocol: 6 cannot stand here; expected text in quotes",
        ),
    ]);
}

#[test]
fn a_number_that_its_type_cannot_hold_is_told_with_the_bounds() {
    check(&[
        (
            after_relay!("port = 70000"),
            "relay.toml:3: relay.port: 70000 is out of range; \
             expected a whole number from 0 to 65535",
        ),
        (
            after_relay!("capacity_mbps = -1"),
            "relay.toml:3: relay.capacity_mbps: -1 is out of range; \
             expected a whole number from 0 to 4294967295",
        ),
        (
            after_relay!("budget = 99999999999999999999"),
            "relay.toml:3: relay.budget: 99999999999999999999 is out of range; \
             expected a whole number from -9223372036854775808 to 9223372036854775807",
        ),
    ]);
}

#[test]
fn a_wrong_choice_brings_the_right_ones() {
    check(&[
        (
            after_relay!("[[service]]\nname = \"a\"\nprotocol = \"tpc\""),
            "relay.toml:5: service.protocol: \"tpc\" is not a choice here; did you mean \"tcp\"? \
             expected \"tcp\" or \"udp\"",
        ),
        (
            after_relay!("[[service]]\nname = \"a\"\nprotocol = \"sctp, `x`, expected `y`\""),
            "relay.toml:5: service.protocol: \"sctp, `x`, expected `y`\" is not a choice here; \
             expected \"tcp\" or \"udp\"",
        ),
    ]);
}

#[test]
fn a_missing_key_is_told_with_its_table() {
    check(&[
        ("", "relay.toml: relay: is missing; the file needs it"),
        ("# nothing\n", "relay.toml: relay: is missing; the file needs it"),
        ("[mesh]\nlisten = []", "relay.toml: relay: is missing; the file needs it"),
        ("\n[relay]\nregion = \"eu\"", "relay.toml:2: relay.name: is missing; [relay] needs it"),
        ("relay.region = \"eu\"", "relay.toml:1: relay.name: is missing; [relay] needs it"),
        ("relay = {}", "relay.toml:1: relay.name: is missing; [relay] needs it"),
        (
            after_relay!("[[service]]\nname = \"a\"\n[[service]]\n"),
            "relay.toml:5: service.name: is missing; [service] needs it",
        ),
    ]);
}

#[test]
fn what_is_given_twice_is_told_with_both_lines() {
    check(&[
        (
            after_relay!("name = \"paris\""),
            "relay.toml:3: relay.name: is given twice; it stands already on line 2",
        ),
        (
            after_relay!("\n[mesh]\nlisten = []\n\n[relay]\n"),
            "relay.toml:7: relay: is given twice; it stands already on line 1",
        ),
        (
            after_relay!("[[service]]\nname = \"a\"\n[[service]]\nname = \"b\"\nname = \"c\""),
            "relay.toml:7: service.name: is given twice; it stands already on line 6",
        ),
        (
            after_relay!("[[service]]\nname = \"a\"\nlimits.x = 1\nlimits.x = 2"),
            "relay.toml:6: service.limits.x: is given twice; it stands already on line 5",
        ),
        (
            "\n\nrelay = { name = \"a\", name = \"b\" }",
            "relay.toml:3: relay.name: is given twice; it stands already on line 3",
        ),
        (
            after_relay!("[a.b]\n[c]\nx = 1\n[a.b]"),
            "relay.toml:6: a.b: is given twice; it stands already on line 3",
        ),
        (
            after_relay!("[[service]]\nname = \"web\"\n\n[[service]]\nname = \"web\""),
            "relay.toml:7: service.name: \"web\" is given twice; it stands already on line 4",
        ),
    ]);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    check(&[
        ("[relay\nname = \"a\"", "relay.toml:1: not TOML: unclosed table, expected `]`"),
        ("[relay]\nname", "relay.toml:2: not TOML: key with no value, expected `=`"),
        (
            "[relay]\nname = frankfurt\n",
            "relay.toml:2: relay.name: not TOML: frankfurt is not a value; text stands in quotes",
        ),
        (
            "[relay]\nname = New York\n",
            "relay.toml:2: relay.name: not TOML: New York is not a value; text stands in quotes",
        ),
        ("[relay]\nname =\n", "relay.toml:2: not TOML: a value is missing"),
        (
            "[relay]\nname = \"frank\nfurt\"\n",
            "relay.toml:2: not TOML: invalid basic string, expected `\"`",
        ),
    ]);
}

#[test]
fn an_address_that_is_none_is_told_with_an_example() {
    check(&[
        (
            after_relay!("[mesh]\nlisten = [\n  \"127.0.0.1:1\",\n  \"0.0.0.0:99999\",\n]"),
            "relay.toml:6: mesh.listen: \"0.0.0.0:99999\" is not an address; \
             expected IP:PORT such as 0.0.0.0:4400",
        ),
        (
            after_relay!("[mesh]\nlisten = [\"localhost:4400\"]"),
            "relay.toml:4: mesh.listen: \"localhost:4400\" is not an address; \
             expected IP:PORT such as 0.0.0.0:4400, not a host name",
        ),
        (
            after_relay!("[mesh]\nlisten = [\"127.0.0.1:1\"]\nupstream = \"127.0.0.300:4400\""),
            "relay.toml:5: mesh.upstream: \"127.0.0.300:4400\" is not HOST:PORT; \
             expected such as scheduler.example:4400",
        ),
        (
            after_relay!("[mesh]\nlisten = []"),
            "relay.toml:4: mesh.listen: has 0 entries; expected 1 to 2",
        ),
    ]);
}

#[test]
fn names_and_numbers_out_of_bounds_are_told_with_the_bounds() {
    check(&[
        (
            "[relay]\nname = \"Frankfurt\"",
            "relay.toml:2: relay.name: \"Frankfurt\" is not a name; \
             expected 1 to 63 of a-z, 0-9 and hyphen, with no hyphen first",
        ),
        (
            after_relay!("[mesh]\nlisten = [\"127.0.0.1:1\"]\nhops = 4"),
            "relay.toml:5: mesh.hops: 4 is out of range; expected 1 to 3",
        ),
        (
            after_relay!("[mesh]\nlisten = [\"127.0.0.1:1\"]\nsilence_ms = 0.5"),
            "relay.toml:5: mesh.silence_ms: 0.5 is out of range; expected 1 to 10000",
        ),
        (
            after_relay!("[mesh]\nlisten = [\"127.0.0.1:1\"]\nsilence_ms = nan"),
            "relay.toml:5: mesh.silence_ms: NaN is out of range; expected 1 to 10000",
        ),
    ]);
}

#[test]
fn lines_are_counted_with_either_line_end() {
    let unix = "[relay]\nname = \"a\"\n\nnope = 1\n";

    assert!(message(unix).starts_with("relay.toml:4: relay.nope: "));
    assert!(message(&unix.replace('\n', "\r\n")).starts_with("relay.toml:4: relay.nope: "));
}

#[test]
fn an_error_has_its_parts() {
    let error = load(&Document::new("relay.toml", "[relay]\nname = 5")).unwrap_err();

    assert_eq!((error.file(), error.line(), error.key()), ("relay.toml", Some(2), "relay.name"));
    assert_eq!(error.message(), "5 is a number; expected text in quotes");
}

#[test]
fn decimals_of_a_unit_are_exact() {
    #[derive(Deserialize)]
    struct Times {
        at: Vec<Spanned<f64>>,
    }
    let document = Document::new("t", "at = [40.25, 0.1, 90, 0.000001]");
    let times: Times = document.parse().unwrap();
    let read = |index: usize, unit: Duration| {
        document.duration(&times.at[index], unit, Duration::ZERO..=Duration::MAX).unwrap()
    };

    assert_eq!(read(0, Duration::from_millis(1)), Duration::from_micros(40_250));
    assert_eq!(read(1, Duration::from_millis(1)), Duration::from_micros(100));
    assert_eq!(read(2, Duration::from_secs(86_400)), Duration::from_secs(90 * 86_400));
    assert_eq!(read(3, Duration::from_millis(1)), Duration::from_nanos(1));
}

#[test]
fn a_file_is_read_and_its_relative_paths_start_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.toml");
    std::fs::write(&path, after_relay!("")).unwrap();

    let document = Document::read(&path).unwrap();

    assert_eq!(load(&document).unwrap().relay.name.get_ref(), "frankfurt");
    assert_eq!(document.file(), path.display().to_string());
    assert_eq!(document.resolve("frankfurt"), directory.path().join("frankfurt"));
    assert_eq!(document.resolve("/var/lib"), std::path::Path::new("/var/lib"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.toml");
    let shown = path.display();
    let read = || Document::read(&path).unwrap_err().to_string();

    assert_eq!(read(), format!("{shown}: cannot be read: No such file or directory (os error 2)"));
    std::fs::write(&path, b"[relay]\nname = \"\xff\"").unwrap();
    assert_eq!(read(), format!("{shown}:2: is not text in UTF-8"));
    std::fs::write(&path, vec![b'\n'; 5 * 1024 * 1024]).unwrap();
    assert_eq!(read(), format!("{shown}: cannot be read: it is longer than 4 MiB"));
}

/// Pieces that make texts which are almost a document.
fn almost_toml() -> impl Strategy<Value = String> {
    let pieces = [
        "[relay]\n",
        "[mesh]\n",
        "[[service]]\n",
        "[[",
        "]]\n",
        "[relay.",
        "name",
        "listen",
        "é",
        "\"",
        "'",
        "\"\"\"",
        " = ",
        ".",
        ",",
        "{",
        "}",
        "[",
        "]",
        "\n",
        "\r\n",
        "#",
        "1",
        "-1",
        "0.5",
        "nan",
        "true",
        "1979-05-27",
        "\"a\"",
        "\u{feff}",
        "\\",
        "name = \"a\"\n",
        "silence_ms = 1\n",
        "limits = {",
        "protocol = \"tcp\"\n",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in any::<String>()) {
        assert!(!message(&text).contains('\n'));
    }

    #[test]
    fn any_text_that_is_almost_a_document_is_read_or_refused_in_one_line(text in almost_toml()) {
        assert!(!message(&text).contains('\n'));
    }
}

#[test]
fn deep_nesting_is_refused() {
    for deep in ["[".repeat(100_000), "a.".repeat(100_000), "a = {".repeat(100_000)] {
        assert!(message(&format!("x = {deep}")).contains("not TOML"));
        assert!(message(&deep).contains("not TOML"));
    }
}
