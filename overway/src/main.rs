//! The `overway` program; everything is in the library, so that other programs can embed it.

use std::process::ExitCode;

/// musl's own takes one lock for all threads, and returns memory to the system at once. See docs/PERFORMANCE.md.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    overway::run(std::env::args_os())
}
