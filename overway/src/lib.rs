//! Overway's one program: `scheduler`, `relay`, `pki`, `node`, `status`, `routes`, `explain`, `what-if`,
//! `trace`, `top`, `events`, `check`, `support-bundle`, `drain`, `policy`, `cell`, `transit`, `validate`, `lab`.
//!
//! Each subcommand is a module of `cli`. The long-running ones build a tokio runtime of their own and
//! stop at SIGTERM or SIGINT; those that talk to a scheduler use its admin interface and nothing else.
//!
//! Exit codes: 0 done (or healthy), 1 failed (or unreachable), 2 wrong usage or configuration,
//! 3 degraded (`status`), warnings (`check`), or some route would have no path (`what-if`). An error is one line on standard error.

mod cli;
pub mod lab;

pub use cli::run;
