//! Loading configuration from TOML, with errors of one line each that name the file, the line, the key,
//! what is wrong, and what would be right:
//!
//! ```text
//! relay.toml:12: mesh.listen: "0.0.0.0:99999" is not an address; expected IP:PORT such as 0.0.0.0:4400
//! relay.toml:3: relay.regoin: is not a key here; did you mean "region"? known keys: name, region
//! ```
//!
//! # Model
//!
//! A [`Document`] is a file's name and text, and an index of where each key stands in it. It is read in
//! two steps. [`Document::parse`] takes the text apart into a raw type, whose fields are what TOML has
//! (text, numbers, lists) and which refuses unknown keys. Then each part of the program turns its own
//! section of the raw type into a configuration that cannot be wrong, with the checks below and, for its
//! own rules, [`Document::error`]. Raw fields that can be wrong are [`Spanned`], so that an error finds
//! its line and key by itself. The first error found is the one that is told.
//!
//! # From raw to checked
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//!
//! use overway_config::{ConfigError, Document, Spanned};
//! use serde::Deserialize;
//!
//! /// What the file says. Unknown keys are errors; nothing is flattened.
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct RawConfig {
//!     mesh: RawMesh,
//!     #[serde(default)]
//!     service: Vec<RawService>,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct RawMesh {
//!     listen: Spanned<Vec<Spanned<String>>>,
//!     silence_ms: Option<Spanned<f64>>,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct RawService {
//!     name: Spanned<String>,
//! }
//!
//! /// What the program uses; it cannot be wrong.
//! #[derive(Debug)]
//! struct Config {
//!     listen: Vec<SocketAddr>,
//!     silence: Duration,
//!     services: Vec<String>,
//! }
//!
//! impl TryFrom<(&Document, RawConfig)> for Config {
//!     type Error = ConfigError;
//!
//!     fn try_from((document, raw): (&Document, RawConfig)) -> Result<Self, ConfigError> {
//!         let listen = document.entries(&raw.mesh.listen, 1..=2)?;
//!         document.unique(listen)?;
//!         document.unique(raw.service.iter().map(|service| &service.name))?;
//!         let millisecond = Duration::from_millis(1);
//!         let allowed = Duration::from_millis(10)..=Duration::from_secs(10);
//!         Ok(Self {
//!             listen: listen.iter().map(|text| document.address(text)).collect::<Result<_, _>>()?,
//!             silence: match &raw.mesh.silence_ms {
//!                 Some(number) => document.duration(number, millisecond, allowed)?,
//!                 None => Duration::from_millis(90),
//!             },
//!             services: raw
//!                 .service
//!                 .iter()
//!                 .map(|service| document.name(&service.name))
//!                 .collect::<Result<_, _>>()?,
//!         })
//!     }
//! }
//!
//! fn load(document: &Document) -> Result<Config, ConfigError> {
//!     Config::try_from((document, document.parse()?))
//! }
//!
//! let good = Document::new(
//!     "relay.toml",
//!     "[mesh]\nlisten = [\"127.0.0.1:4401\"]\nsilence_ms = 62.5\n[[service]]\nname = \"web\"\n",
//! );
//! let config = load(&good)?;
//! assert_eq!(config.silence, Duration::from_micros(62_500));
//! assert_eq!((config.listen[0].port(), config.services[0].as_str()), (4401, "web"));
//!
//! let bad = Document::new("relay.toml", "[mesh]\nlisten = [\"0.0.0.0:99999\"]\n");
//! assert_eq!(
//!     load(&bad).unwrap_err().to_string(),
//!     "relay.toml:2: mesh.listen: \"0.0.0.0:99999\" is not an address; \
//!      expected IP:PORT such as 0.0.0.0:4400",
//! );
//! # Ok::<(), ConfigError>(())
//! ```

mod checks;
mod document;
mod explain;
mod index;
mod log;

pub use document::{ConfigError, DOCUMENT_BYTES_MAX, Document};
pub use log::RawLog;
pub use toml::Spanned;
