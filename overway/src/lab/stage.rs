//! What people see of a lab while it works, and how they stop it.
//!
//! On a terminal a *status* line is redrawn in place with a *board* of a few lines below it, and *said*
//! lines scroll above. Elsewhere said lines are printed, and the status when nothing else was for a while.
//! With `NO_COLOR` set, or not on a terminal, there are no colours.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Silence after which a status is printed where it cannot be redrawn.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Time between two redraws: smooth enough for eyes, and next to nothing to a terminal.
const REDRAW: Duration = Duration::from_millis(150);
/// How often a pause looks whether it is to end.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Columns supposed where the terminal does not say.
const COLUMNS: usize = 100;

/// A lab was asked to stop.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

/// Set once, by a signal or a verb.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

/// The console of one lab.
#[derive(Debug)]
pub struct Stage {
    stop: Stop,
    terminal: bool,
    colour: bool,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    status: String,
    board: Vec<String>,
    /// Lines of these that stand on the terminal now.
    lines: usize,
    last: Instant,
    quiet: bool,
}

/// A colour, or another way of standing out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Good news.
    Green,
    /// Bad news.
    Red,
    /// Faults that the lab makes.
    Yellow,
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
}

impl Stop {
    /// Asks the lab to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stage {
    /// A console on standard output.
    #[expect(clippy::new_without_default, reason = "it looks at the terminal and the environment")]
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let shown = Shown {
            status: String::new(),
            board: Vec::new(),
            lines: 0,
            last: Instant::now(),
            quiet: false,
        };
        Self { stop: Stop::default(), terminal, colour, shown: Mutex::new(shown) }
    }

    /// A console that prints nothing.
    pub fn silent() -> Self {
        let stage = Self { terminal: false, colour: false, ..Self::new() };
        stage.lock().quiet = true;
        stage
    }

    /// What stops this lab.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Prints a line, which stays.
    pub fn say(&self, line: impl AsRef<str>) {
        let mut shown = self.lock();
        if shown.quiet {
            return;
        }
        let mut out = self.erase(&mut shown);
        out.push_str(line.as_ref());
        out.push('\n');
        self.draw(&mut shown, out);
    }

    /// Shows what goes on now.
    pub fn status(&self, text: impl Into<String>) {
        let mut shown = self.lock();
        shown.status = text.into();
        let pause = if self.terminal { REDRAW } else { SILENCE_MAX };
        if shown.quiet || shown.last.elapsed() < pause {
            return;
        }
        if self.terminal {
            let out = self.erase(&mut shown);
            self.draw(&mut shown, out);
        } else {
            shown.last = Instant::now();
            print(&format!("{}\n", shown.status));
        }
    }

    /// Shows these lines below the status from now on. Only terminals have a board.
    pub fn set_board(&self, lines: Vec<String>) {
        let mut shown = self.lock();
        shown.board = lines;
        if self.terminal && !shown.quiet && shown.last.elapsed() >= REDRAW {
            let out = self.erase(&mut shown);
            self.draw(&mut shown, out);
        }
    }

    /// Takes status and board away.
    pub fn clear(&self) {
        let mut shown = self.lock();
        let out = self.erase(&mut shown);
        shown.status.clear();
        shown.board.clear();
        print(&out);
    }

    /// Waits, unless the lab is stopped.
    ///
    /// # Errors
    /// The lab was asked to stop.
    pub fn pause(&self, span: Duration) -> Result<(), Stopped> {
        let end = Instant::now() + span;
        loop {
            if self.stop.is_set() {
                return Err(Stopped);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(STOP_CHECK));
        }
    }

    /// A text in a colour, if there are colours.
    pub fn ink(&self, ink: Ink, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Green => 32,
            Ink::Red => 31,
            Ink::Yellow => 33,
            Ink::Bold => 1,
            Ink::Dim => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Whether a status can be redrawn in place.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What removes status and board from the terminal.
    fn erase(&self, shown: &mut Shown) -> String {
        let lines = std::mem::take(&mut shown.lines);
        if self.terminal && lines > 0 { format!("\x1b[{lines}A\r\x1b[J") } else { String::new() }
    }

    /// Prints `out`, and status and board below it.
    fn draw(&self, shown: &mut Shown, mut out: String) {
        if self.terminal {
            let columns = columns();
            let status = std::iter::once(&shown.status).filter(|status| !status.is_empty());
            for line in status.chain(&shown.board) {
                out.push_str(&clipped(line, columns));
                out.push('\n');
                shown.lines += 1;
            }
        }
        shown.last = Instant::now();
        print(&out);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads on: the lab's work and its exit code are not concerned.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0).unwrap_or(COLUMNS)
}

/// The line's visible characters up to `columns`, since a wrapped line cannot be redrawn.
fn clipped(line: &str, columns: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut visible, mut escape, mut coloured) = (0, false, false);
    for character in line.chars() {
        if character == '\x1b' {
            (escape, coloured) = (true, true);
        } else if escape {
            escape = character != 'm';
        } else {
            visible += 1;
            if visible >= columns {
                break;
            }
        }
        kept.push(character);
    }
    if coloured {
        kept.push_str("\x1b[0m");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_clipped_by_what_is_seen_of_it() {
        assert_eq!(clipped("abcdef", 4), "abc");
        assert_eq!(clipped("\x1b[32mabcdef\x1b[0m", 4), "\x1b[32mabc\x1b[0m");
        assert_eq!(clipped("ab", 4), "ab");
    }

    #[test]
    fn a_pause_ends_when_the_lab_is_stopped() {
        let stage = Stage::silent();
        stage.stop().set();

        assert!(stage.pause(Duration::from_secs(3_600)).is_err());
    }
}
