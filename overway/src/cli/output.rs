//! Standard output.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use super::failure::Failure;

/// Writes `body` as the admin interface has it.
pub(crate) fn print_json(body: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(body).map_err(Failure::failed)?;
    print(&(json + "\n"))
}

/// Writes all of `text`. A reader that has gone, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// As [`print`]; says whether somebody reads, for what goes on until nobody does.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!("cannot write the output: {error}"))),
    }
}
