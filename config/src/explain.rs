//! Saying in a user's words what toml and serde say in theirs.
//!
//! Both give a place and a sentence. The sentences that serde makes for derived types are taken apart
//! here; one that is of no known form, such as that of a type's own `Deserialize`, is passed on as it is.

use std::ops::Range;

use crate::index::{Index, SyntaxError, join};
use crate::{ConfigError, Document};

/// Characters of the longest value that an error repeats.
const SNIPPET_CHARS_MAX: usize = 60;

/// A text that is no TOML.
pub(crate) fn syntax(document: &Document, error: &SyntaxError) -> ConfigError {
    if error.message == "duplicate key" {
        return duplicate(document, &error.span);
    }
    let line = document.line(error.span.start);
    let key = document.index().path_at(&error.span);
    // What toml makes of a bare word; it takes one that starts with t or f for a truth value.
    let is_bare_word = error.message.starts_with("string values must be quoted")
        || error.message.starts_with("invalid boolean");
    let told = match document.slice(&error.span) {
        "" if is_bare_word => "a value is missing".to_owned(),
        word if is_bare_word => format!("{word} is not a value; text stands in quotes"),
        _ => error.message.clone(),
    };
    ConfigError::new(document.file(), Some(line), key, format_args!("not TOML: {told}"))
}

/// A text that is TOML, but not what the type takes.
pub(crate) fn content(document: &Document, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or_default();
    let message = error.message();
    if message.starts_with("missing field `") {
        return missing(document, &span, message);
    }
    let told = if message.starts_with("unknown field `") {
        unknown_key(document.slice(&span), message)
    } else if message.starts_with("unknown variant `") {
        unknown_choice(message)
    } else if let Some((found, expected)) = mismatch(message) {
        wrong_type(&snippet(document, &span), found, expected)
    } else if message == "wanted string or table" {
        wrong_type(&snippet(document, &span), "value", "a string")
    } else {
        message.to_owned()
    };
    if span.is_empty() {
        // A type's own error about the document as a whole.
        return ConfigError::new(document.file(), None, "", told);
    }
    document.error(span, told)
}

fn duplicate(document: &Document, span: &Range<usize>) -> ConfigError {
    let text = document.text();
    let line_start = document.slice(&(0..span.start)).rfind('\n').map_or(0, |end| end + 1);
    let (before, from_line) = text.split_at(line_start);
    let line = from_line.lines().next().unwrap_or_default();
    let key = document.slice(span);

    let path = if line.trim_start().starts_with('[') {
        Index::of(line).last_path().unwrap_or(key).to_owned()
    } else if let Some(table) = document.index().braces_around(span.start) {
        join(table, key)
    } else {
        let dotted = Index::of(&format!("{} = 0", document.slice(&(line_start..span.end))));
        let table = document.index().header_before(span.start);
        join(table, dotted.last_path().unwrap_or(key))
    };

    // Of a table given twice the tree has kept the second; the text before it still knows the first.
    let first = Index::of(before)
        .last_before(&path, span.start)
        .or_else(|| document.index().last_before(&path, span.start));
    let message = match first {
        Some(first) => {
            format!("is given twice; it stands already on line {}", document.line(first))
        }
        None => "is given twice; keep one".to_owned(),
    };
    ConfigError::new(document.file(), Some(document.line(span.start)), path, message)
}

fn missing(document: &Document, span: &Range<usize>, message: &str) -> ConfigError {
    let key = between_backticks(message).next().unwrap_or_default();
    let table = document.index().path_at(span);
    if table.is_empty() {
        let told = "is missing; the file needs it";
        return ConfigError::new(document.file(), None, key, told);
    }
    let line = document.line(span.start);
    let told = format!("is missing; [{table}] needs it");
    ConfigError::new(document.file(), Some(line), join(table, key), told)
}

fn unknown_key(key: &str, message: &str) -> String {
    let known = expected_names(message);
    if known.is_empty() {
        return "is not a key here; none is known".to_owned();
    }
    let given = key.trim_matches(['"', '\'']);
    let meant = suggestion(given, &known);
    format!("is not a key here;{meant} known keys: {}", known.join(", "))
}

fn unknown_choice(message: &str) -> String {
    let known = expected_names(message);
    let given = message
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.rsplit_once("`, "))
        .map_or("", |(given, _)| given);
    let meant = suggestion(given, &known);
    let choices: Vec<_> = known.iter().map(|name| format!("{name:?}")).collect();
    format!("{given:?} is not a choice here;{meant} expected {}", choices.join(" or "))
}

/// What serde found and what it expected, each in its words.
fn mismatch(message: &str) -> Option<(&str, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .or_else(|| message.strip_prefix("invalid length "))?;
    rest.rsplit_once(", expected ")
}

fn wrong_type(snippet: &str, found: &str, expected: &str) -> String {
    let wanted = wanted(expected);
    if found == "map" && snippet.starts_with("[[") {
        return format!("{snippet} is a list of tables; expected one, in single brackets");
    }
    if found == "map" && snippet.starts_with('[') {
        return match expected {
            "a sequence" => format!("{snippet} is one table; expected a list: [{snippet}]"),
            _ => format!("{snippet} is a table; expected {wanted}"),
        };
    }
    let is_number = found.starts_with("integer") || found.starts_with("floating point");
    if found.starts_with("integer") && integer_range(expected).is_some() {
        return format!("{snippet} is out of range; expected {wanted}");
    }
    let kind = if is_number {
        "a number"
    } else if found.starts_with("string") {
        "text"
    } else if found.starts_with("boolean") {
        "a truth value"
    } else if found == "sequence" {
        "a list"
    } else if found == "map" && snippet.starts_with(|first: char| first.is_ascii_digit()) {
        "a date or a time"
    } else if found == "map" {
        "a table"
    } else {
        return format!("{snippet} cannot stand here; expected {wanted}");
    };
    format!("{snippet} is {kind}; expected {wanted}")
}

/// What would be right, in a user's words.
fn wanted(expected: &str) -> String {
    if let Some(range) = integer_range(expected) {
        return range;
    }
    match expected {
        "a string" => "text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list in brackets, [...]".to_owned(),
        "a map" => "a table".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        _ if expected.starts_with("struct ") => "a table".to_owned(),
        _ => expected.to_owned(),
    }
}

fn integer_range(expected: &str) -> Option<String> {
    let (least, greatest) = match expected {
        "u8" => ("0", u64::from(u8::MAX).to_string()),
        "u16" => ("0", u64::from(u16::MAX).to_string()),
        "u32" => ("0", u64::from(u32::MAX).to_string()),
        // A TOML integer goes no further.
        "u64" | "usize" => ("0", i64::MAX.to_string()),
        "i8" => ("-128", i8::MAX.to_string()),
        "i16" => ("-32768", i16::MAX.to_string()),
        "i32" => ("-2147483648", i32::MAX.to_string()),
        "i64" | "isize" => ("-9223372036854775808", i64::MAX.to_string()),
        _ => return None,
    };
    Some(format!("a whole number from {least} to {greatest}"))
}

/// What the file has at `span`, shortened.
fn snippet(document: &Document, span: &Range<usize>) -> String {
    let text = document.slice(span).trim();
    let first_line = text.lines().next().unwrap_or_default();
    let mut snippet: String = first_line.chars().take(SNIPPET_CHARS_MAX).collect();
    if snippet.len() < text.len() {
        snippet += "...";
    }
    if snippet.is_empty() { "this".to_owned() } else { snippet }
}

fn suggestion(given: &str, known: &[&str]) -> String {
    // Closer than a third of its length, or by one letter if it is short.
    let near = |name: &&str| {
        let distance = strsim::osa_distance(given, name);
        (distance <= (name.chars().count() / 3).max(1)).then_some(distance)
    };
    let nearest = known.iter().filter_map(|name| Some((near(name)?, name))).min();
    nearest.map_or_else(String::new, |(_, name)| format!(" did you mean {name:?}?"))
}

/// The names that serde lists after "expected".
fn expected_names(message: &str) -> Vec<&str> {
    message
        .rsplit_once(", expected ")
        .map_or_else(Vec::new, |(_, list)| between_backticks(list).collect())
}

fn between_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
