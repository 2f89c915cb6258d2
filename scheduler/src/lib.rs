//! The scheduler process: sockets, disk and HTTP around [`overway_scheduler_core::Scheduler`].
//!
//! | task | does | ends when |
//! | --- | --- | --- |
//! | driver (`driver`), a thread | owns the core: inputs in, messages and events out, the timer | `shutdown` |
//! | control (`control`) | accepts QUIC connections; one task for each | `shutdown`, after closing them |
//! | connection (`control::connection`) | one relay's stream: reads, writes, renews certificates | its connection ends, or the driver ends its session |
//! | join (`join`) | one relay's join | it was answered, or a few seconds have passed |
//! | admin (`admin`) | HTTP on loopback | `shutdown`, after what is under way |
//! | sampler (`dashboard`) | looks at the core for the dashboard's overviews and history | `shutdown` |
//! | memory (`run`) | keeps members' hellos in the store | `shutdown` |
//! | terms (`run`) | raises the store's term when relays know of a later scheduler | `shutdown` |
//! | renewal (`run`) | renews the scheduler's own certificate | `shutdown` |
//! | reloads (`reload`) | goes on with another configuration when it is asked to | `shutdown` |
//!
//! | channel | from, to | bound and policy |
//! | --- | --- | --- |
//! | inputs | all, to the driver | 256, the sender waits: streams of relays fill and hold them back |
//! | outbound | driver, to a connection | 16, then the session is closed and the relay dials anew |
//! | memories | driver, to memory | 256, the newest is dropped: the relay's next hello is as good |
//! | terms | driver, to terms | 1, the newest is dropped: the relay dials again |
//! | events | core, to readers | a ring of an hour and 10,000, the oldest goes |
//! | feed | driver, to browsers that follow | 4,096, then the stream is ended and the browser comes anew |
//! | overviews | sampler, to browsers that follow | 1, the newest replaces it |
//!
//! Nobody but the driver touches the core, so there are no locks around it. It has a thread of its own, and
//! the planner's work has more (`threads`), so that a plan holds up no connection. The store is called from
//! threads that may block. What a member, its id and its token are is in `registry`; the disk is in
//! `store`. If a task ends by itself the scheduler stops: relays go on without one, and whoever
//! supervises the process starts it anew.

mod admin;
pub mod api;
pub mod backup;
mod clock;
mod config;
mod control;
mod counters;
mod dashboard;
mod driver;
mod events;
mod framing;
mod init;
pub mod join;
mod metrics;
mod nearest;
mod registry;
mod reload;
mod run;
mod store;
mod threads;
mod usage;

pub use config::Config;
pub use init::{CERTIFICATE_LIFETIME, InitError, init};
pub use metrics::sample::{quality_sample, sample as metrics_sample};
pub use registry::{
    CELLS_MAX, DRAINS_MAX, Invited, NAME_CHARS_MAX, NAMES_MAX, RETRY_SECONDS, Redeemed, Registry,
    RegistryError, Removed, TOKENS_MAX, TenantError, WishError, check_name, invited,
};
pub use run::{ADMIN_ADDRESS_FILE, CONTROL_ADDRESS_FILE, run};
pub use store::{
    Change, DiskStore, DrainRecord, DrainTarget, KeyHash, KeyRecord, Member, PolicyRecord,
    RevokedKeyRecord, SecretHash, Snapshot, Store, StoreError, TenantRecord, Token, TokenUse,
    UnixSeconds, Wishes, WishesChange,
};

/// This build, for people.
pub const SOFTWARE: &str = concat!("overway ", env!("CARGO_PKG_VERSION"));
