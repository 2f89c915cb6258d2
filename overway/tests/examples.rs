//! The configurations in the documentation are read by the types that the program reads them with.

use std::path::PathBuf;

use overway_config::{ConfigError, Document};

/// What a part of a relay's configuration is completed with.
const RELAY: &str = r#"
[relay]
name = "frankfurt"
state_dir = "frankfurt"
[mesh]
listen = ["203.0.113.6:4401"]
[scheduler]
addresses = ["203.0.113.5:4400"]
[admin]
listen = "127.0.0.1:9401"
"#;

fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relay(text: &str) -> Result<(), ConfigError> {
    overway_relay::Config::try_from(&Document::new("relay.toml", text)).map(|_| ())
}

fn scheduler(text: &str) -> Result<(), ConfigError> {
    overway_scheduler::Config::from_document(&Document::new("scheduler.toml", text)).map(|_| ())
}

fn edge(text: &str) -> Result<(), ConfigError> {
    overway_edge::Config::try_from(&Document::new("edge.toml", text)).map(|_| ())
}

/// The text with its optional keys in force: `#key` becomes `key`, and `# words` stay a comment.
fn with_everything(text: &str) -> String {
    let in_force = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_alphabetic() || first == '[') => {
            format!("{rest}\n")
        }
        Some(_) | None => format!("{line}\n"),
    };
    text.lines().map(in_force).collect()
}

/// Every key that the program knows and the text, with everything in force, does not have.
fn missing_keys(text: &str, load: fn(&str) -> Result<(), ConfigError>) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let headers = lines.iter().enumerate().filter(|(_, line)| line.starts_with('['));
    let places = std::iter::once(0).chain(headers.map(|(at, _)| at + 1));
    let mut missing = Vec::new();
    for place in places {
        let mut wrong = lines.clone();
        wrong.insert(place, "no-such-key = 0");
        let error = load(&wrong.join("\n")).unwrap_err().to_string();
        let (_, known) =
            error.split_once("known keys: ").expect("an unknown key is told the known");
        let header = place.checked_sub(1).map_or("", |at| lines[at]);
        missing.extend(known.split(", ").filter(|key| !has(text, header, key)).map(str::to_owned));
    }
    missing
}

/// Whether a key, or a table of its name, stands under some header of this text.
fn has(text: &str, header: &str, key: &str) -> bool {
    let parent = header.trim_matches(['[', ']']);
    let table = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
    let mut inside = parent.is_empty();
    text.lines().any(|line| {
        if line.starts_with('[') {
            inside = line == header;
            return line.trim_matches(['[', ']']) == table;
        }
        inside && line.split_once(" = ").is_some_and(|(name, _)| name == key)
    })
}

/// The TOML blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("```toml\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_example_of_a_relay_is_good_as_it_is_and_with_every_key() {
    let text = read("docs/examples/relay.toml");

    assert_eq!(relay(&text), Ok(()));
    let everything = with_everything(&text);
    assert_eq!(relay(&everything), Ok(()));
    assert_eq!(missing_keys(&everything, relay), Vec::<String>::new());
}

#[test]
fn the_example_of_a_scheduler_is_good_as_it_is_and_with_every_key() {
    let text = read("docs/examples/scheduler.toml");

    assert_eq!(scheduler(&text), Ok(()));
    let everything = with_everything(&text);
    assert_eq!(scheduler(&everything), Ok(()));
    assert_eq!(missing_keys(&everything, scheduler), Vec::<String>::new());
}

#[test]
fn the_example_of_an_edge_is_good_as_it_is_and_with_every_key() {
    let text = read("docs/examples/edge.toml");

    assert_eq!(edge(&text), Ok(()));
    let everything = with_everything(&text);
    assert_eq!(edge(&everything), Ok(()));
    assert_eq!(missing_keys(&everything, edge), Vec::<String>::new());
}

#[test]
fn fault_injection_is_off_in_the_example() {
    let document = Document::new("relay.toml", read("docs/examples/relay.toml"));

    assert_eq!(overway_relay::Config::try_from(&document).unwrap().fault, None);
}

#[test]
fn the_readmes_configurations_are_good() {
    let pages = ["README.md", "docs/SERVICES.md"];
    let blocks: Vec<_> = pages.into_iter().flat_map(|page| blocks(&read(page))).collect();

    assert!(!blocks.is_empty());
    for block in blocks {
        let has = |section| block.lines().any(|line| line == section);
        let read = if has("[relay]") {
            relay(&block)
        } else if has("[edge]") {
            edge(&block)
        } else if has("[scheduler]") {
            scheduler(&block)
        } else {
            relay(&format!("{RELAY}{block}"))
        };
        assert_eq!(read, Ok(()), "{block}");
    }
}
