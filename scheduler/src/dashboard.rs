//! The built-in dashboard: a page in the binary, and what it shows beyond the rest of the admin interface.
//!
//! ```text
//! core --look--> sampler --> the last overview --> streams to browsers
//!                       \--> history, an hour in steps of ten seconds
//! driver --events--> feed -------------------------^
//! ```
//!
//! One task, the *sampler*, looks at the core: every ten seconds for the history, and about once a second while
//! somebody watches, however many they are. A look takes time in proportion to links; it is taken seldom enough
//! to need at most a twentieth of the core's time, and to send a browser at most 100 KB a second.
//!
//! A *stream* is one browser's, by server-sent events (WHATWG HTML, section 9.2): events, each once and in order,
//! and overviews, the last one. One that falls 4,096 events behind is ended; the browser comes again, and says
//! what it had last. There are at most [`STREAMS_MAX`].
//!
//! The page ([`assets`]) is built beforehand from `scheduler/dashboard/` and lies there in `dist/`; nothing in it comes
//! from elsewhere. It only reads, until the operator signs in with the admin token.

pub(crate) mod assets;
mod history;
mod sampler;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, Semaphore, watch};

use crate::events::unix_ms;
pub(crate) use history::{FeltKey, History, Subject};
pub(crate) use sampler::{LINKS_MAX, run};
pub(crate) use stream::{Stream, resume_after};

/// Browsers that follow at a time. Each holds a connection, and at most one overview and a batch of events.
pub(crate) const STREAMS_MAX: usize = 64;

/// What the sampler gathers and streams hand on.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// Tells this process's events from an earlier one's.
    pub(crate) boot: u64,
    history: Mutex<History>,
    /// The last overview as JSON; empty before the first.
    overview: watch::Sender<Arc<str>>,
    /// Somebody began to watch.
    woken: Notify,
    streams: Arc<Semaphore>,
}

impl Dashboard {
    pub(crate) fn new() -> Self {
        Self {
            boot: unix_ms(SystemTime::now()),
            history: Mutex::default(),
            overview: watch::Sender::new("".into()),
            woken: Notify::new(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// What is remembered.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        // Samples that a panic cut short are no worse than missing ones.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
