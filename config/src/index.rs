//! Where each key of a document stands. Made of the tree that toml recovers even from a text with
//! mistakes in it.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// The keys of a document, and its first mistake of syntax.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    syntax_error: Option<SyntaxError>,
}

/// A mistake that makes a text no TOML.
#[derive(Clone, Debug)]
pub(crate) struct SyntaxError {
    /// In toml's words.
    pub(crate) message: String,
    /// Where; may be empty.
    pub(crate) span: Range<usize>,
}

/// A key with its value, or an element of a list.
#[derive(Clone, Debug)]
struct Entry {
    /// With the tables it is in, such as `mesh.listen`. An element's is its list's.
    path: String,
    /// None for an element.
    key: Option<Range<usize>>,
    /// A table's is that of its header, `[mesh]`.
    value: Range<usize>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A table that stands below its header.
    HeaderTable,
    /// A table in braces.
    InlineTable,
    /// Anything else, a table that is only implied by a longer key among them.
    Other,
}

impl Index {
    pub(crate) fn of(text: &str) -> Self {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let mut entries = Vec::new();
        visit_table(text, "", tree.get_ref(), &mut entries);
        Self { entries, syntax_error: first(&errors) }
    }

    pub(crate) const fn syntax_error(&self) -> Option<&SyntaxError> {
        self.syntax_error.as_ref()
    }

    /// The path of the smallest key or value that `span` lies in; empty if there is none.
    pub(crate) fn path_at(&self, span: &Range<usize>) -> &str {
        if span.is_empty() {
            return "";
        }
        self.entries
            .iter()
            .flat_map(|entry| {
                entry.key.iter().chain([&entry.value]).map(move |range| (range, &*entry.path))
            })
            .filter(|(range, _)| range.start <= span.start && span.end <= range.end)
            .min_by_key(|(range, _)| range.len())
            .map_or("", |(_, path)| path)
    }

    /// The path of the smallest table in braces around `offset`.
    pub(crate) fn braces_around(&self, offset: usize) -> Option<&str> {
        self.entries
            .iter()
            .filter(|entry| entry.shape == Shape::InlineTable && entry.value.contains(&offset))
            .min_by_key(|entry| entry.value.len())
            .map(|entry| &*entry.path)
    }

    /// The path of the last header before `offset`; empty above the first.
    pub(crate) fn header_before(&self, offset: usize) -> &str {
        self.entries
            .iter()
            .filter(|entry| entry.shape == Shape::HeaderTable && entry.value.end <= offset)
            .max_by_key(|entry| entry.value.start)
            .map_or("", |entry| &entry.path)
    }

    /// The path of the last key in the text.
    pub(crate) fn last_path(&self) -> Option<&str> {
        let keyed = self.entries.iter().filter(|entry| entry.key.is_some());
        keyed.max_by_key(|entry| entry.key.as_ref().map(|key| key.start)).map(|entry| &*entry.path)
    }

    /// Where the last key of that path before `offset` stands.
    pub(crate) fn last_before(&self, path: &str, offset: usize) -> Option<usize> {
        self.entries
            .iter()
            .filter(|entry| entry.path == path)
            .filter_map(|entry| entry.key.as_ref())
            .map(|key| key.start)
            .filter(|&start| start < offset)
            .max()
    }
}

/// The path of `key` in the table `table`.
pub(crate) fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

// Recursion is bounded: toml refuses to nest deeper than 80 levels.
fn visit_table(text: &str, path: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let path = join(path, &bare_or_quoted(key.get_ref()));
        visit_value(text, &path, Some(key.span()), value, entries);
    }
}

fn visit_value(
    text: &str,
    path: &str,
    key: Option<Range<usize>>,
    value: &Spanned<DeValue<'_>>,
    entries: &mut Vec<Entry>,
) {
    let span = value.span();
    let first = text.as_bytes().get(span.start);
    let shape = match (value.get_ref().is_table(), first) {
        (true, Some(b'[')) => Shape::HeaderTable,
        (true, Some(b'{')) => Shape::InlineTable,
        (true | false, _) => Shape::Other,
    };
    entries.push(Entry { path: path.to_owned(), key, value: span, shape });
    match value.get_ref() {
        DeValue::Table(table) => visit_table(text, path, table, entries),
        DeValue::Array(array) => {
            for element in array.iter() {
                visit_value(text, path, None, element, entries);
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

fn first(errors: &[Error]) -> Option<SyntaxError> {
    errors
        .iter()
        .map(|error| SyntaxError {
            message: error.message().to_owned(),
            span: error.span().unwrap_or_default(),
        })
        .min_by_key(|error| error.span.start)
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { format!("{key:?}") }
}
