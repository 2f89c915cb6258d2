//! The `overway` program; everything is in the library, so that other programs can embed it.

use std::process::ExitCode;

fn main() -> ExitCode {
    overway::run(std::env::args_os())
}
