//! What happened, as one number and, if wanted, as text.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::rng::micros;

/// Lines kept until they are taken; beyond it the oldest is dropped. The reader takes them in time.
const LINES_MAX: usize = 1 << 20;

/// Hashes every event in order (FNV-1a, 64 bits). Two runs with the same hash went the same way.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// Makes a trace; with `text`, of lines too.
    pub(crate) fn new(text: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: text.then(VecDeque::new) }
    }

    /// The hash of what happened so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Takes the lines written since the last call.
    pub(crate) fn take_lines(&mut self) -> impl Iterator<Item = String> + use<> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default().into_iter()
    }

    /// Notes an event by its numbers and bytes, without text: for what is too frequent to read.
    pub(crate) fn note(&mut self, at: Duration, numbers: &[u64], bytes: &[u8]) {
        self.events += 1;
        self.eat(&micros(at).to_be_bytes());
        for number in numbers {
            self.eat(&number.to_be_bytes());
        }
        self.eat(bytes);
    }

    /// Notes an event by its text.
    pub(crate) fn say(&mut self, at: Duration, text: fmt::Arguments<'_>) {
        let text = text.to_string();
        self.note(at, &[], text.as_bytes());
        self.tell(at, format_args!("{text}"));
    }

    /// Writes a line about an event that is noted already.
    pub(crate) fn tell(&mut self, at: Duration, text: fmt::Arguments<'_>) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{:>11.6} {text}", at.as_secs_f64()));
    }

    fn eat(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
