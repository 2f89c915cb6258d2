//! A configuration file's text, and the one kind of error about it.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::explain;
use crate::index::Index;

/// The longest file that is read: thousands of times what a configuration has.
pub const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A configuration file: its name, its text, and where each key stands in it.
#[derive(Clone, Debug)]
pub struct Document {
    file: String,
    directory: PathBuf,
    text: String,
    index: Index,
}

impl Document {
    /// Makes a document of a text; `file` is what errors call it.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self::with_directory(file.into(), PathBuf::new(), text.into())
    }

    /// Reads a file. It must be UTF-8, and no longer than [`DOCUMENT_BYTES_MAX`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let bytes = read_bounded(path).map_err(|error| {
            ConfigError::new(&file, None, "", format_args!("cannot be read: {error}"))
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            ConfigError::new(&file, Some(line), "", "is not text in UTF-8")
        })?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self::with_directory(file, directory, text))
    }

    /// Takes the text apart into `T`, which is to refuse unknown keys (`deny_unknown_fields`).
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        if let Some(error) = self.index.syntax_error() {
            return Err(explain::syntax(self, error));
        }
        toml::from_str(&self.text).map_err(|error| explain::content(self, &error))
    }

    /// An error about what stands at `span`, which is that of a [`Spanned`](crate::Spanned) value of
    /// this document. Line and key are found from it; `message` says what is wrong and, after a
    /// semicolon, what would be right.
    pub fn error(&self, span: Range<usize>, message: impl fmt::Display) -> ConfigError {
        let key = self.index.path_at(&span);
        ConfigError::new(&self.file, Some(self.line(span.start)), key, message)
    }

    /// What errors call the document.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The path that a text in the document stands for: if relative, then from the document's directory.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) const fn index(&self) -> &Index {
        &self.index
    }

    /// What the text has at `span`; nothing if that is not a place in it.
    pub(crate) fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The line, from 1, in which the byte at `offset` stands.
    pub(crate) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|&&byte| byte == b'\n').count()
    }

    fn with_directory(file: String, directory: PathBuf, text: String) -> Self {
        let index = Index::of(&text);
        Self { file, directory, text, index }
    }
}

/// What is wrong with a document: one line, `FILE:LINE: KEY: MESSAGE`, line and key where there are any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    key: String,
    message: String,
}

impl ConfigError {
    pub(crate) fn new(
        file: &str,
        line: Option<usize>,
        key: impl Into<String>,
        message: impl fmt::Display,
    ) -> Self {
        let message = message.to_string();
        Self { file: file.to_owned(), line, key: key.into(), message }
    }

    /// The document's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1.
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// The key with the tables it is in, such as `mesh.listen`; empty if the error is about none.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.file.clone();
        if let Some(line) = self.line {
            text += &format!(":{line}");
        }
        text += ": ";
        if !self.key.is_empty() {
            text += &format!("{}: ", self.key);
        }
        text += &self.message;
        // It stays one line whatever names and values the file has.
        for character in text.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 4 MiB"));
    }
    Ok(bytes)
}
