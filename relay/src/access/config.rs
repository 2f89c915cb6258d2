//! `[access]`: where edges, ends outside the mesh, attach to this relay.
//!
//! ```toml
//! [access]
//! listen = ["203.0.113.6:4443"]   # UDP; open to everybody
//! attachments_max = 4096          # edges at once
//! ```

use std::net::SocketAddr;

use overway_config::{ConfigError, Document, Spanned};
use serde::Deserialize;

/// Addresses of one relay's access side: one of each family.
const LISTEN_MAX: usize = 2;
/// Edges at once, unless said. Each takes up to a megabyte of queue when it does not keep up.
const ATTACHMENTS_DEFAULT: u64 = 4_096;
/// A quarter of what an address can name, so that ids are not given again soon.
const ATTACHMENTS_MAX: u64 = 16_384;

/// An `[access]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAccess {
    listen: Spanned<Vec<Spanned<String>>>,
    attachments_max: Option<Spanned<u64>>,
}

/// Where edges attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// UDP addresses.
    pub listen: Vec<SocketAddr>,
    /// Edges at once.
    pub attachments_max: usize,
}

impl AccessConfig {
    /// Checks what is written.
    pub(crate) fn from_raw(document: &Document, raw: &RawAccess) -> Result<Self, ConfigError> {
        let entries = document.entries(&raw.listen, 1..=LISTEN_MAX)?;
        document.unique(entries)?;
        let listen = entries.iter().map(|entry| document.address(entry));
        let attachments_max = match &raw.attachments_max {
            Some(said) => document.in_range(said, 1..=ATTACHMENTS_MAX)?,
            None => ATTACHMENTS_DEFAULT,
        };
        Ok(Self {
            listen: listen.collect::<Result<_, _>>()?,
            attachments_max: usize::try_from(attachments_max).unwrap_or(usize::MAX),
        })
    }
}
