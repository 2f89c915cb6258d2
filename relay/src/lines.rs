//! What the relay's provider lines have carried: bytes sent, as a provider counts them, in this calendar
//! month.
//!
//! ```text
//! endpoint --> MeteredSocket --> UDP socket         for each line and worker
//!                   | adds
//!                   v
//!                meter ---> ledger (month, bytes) <--> lines.json in the state directory
//!                                   |
//!                                   +--> reports, metrics, status
//! ```
//!
//! Months are UTC's. The file is written every few seconds and at the end, so a crash forgets that much. A
//! file that cannot be read is one warning and a count from zero. A clock that says an earlier month than
//! the ledger's is not believed: what was sent cannot become unsent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use overway_wire::control::LineUse;
use quinn::AsyncUdpSocket;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::state;

mod socket;

use overway_tenant::Month;
use socket::MeteredSocket;

/// How often the ledger is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// What a rate is measured over at the least.
const RATE_WINDOW: Duration = Duration::from_millis(500);
/// Bytes of a ledger's file; one line takes a hundred.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Lines remembered, those included that are no longer configured. Beyond it the latter are forgotten.
const ENTRIES_MAX: usize = 64;

/// The relay's lines.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    lines: Vec<Line>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Line {
    /// Its name in the file: the address listened on, as configured.
    name: String,
    /// Bytes sent since the start.
    sent: Arc<AtomicU64>,
}

/// What one line has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineTotals {
    /// Bytes since the process's start.
    pub sent_bytes: u64,
    /// Bytes in this calendar month.
    pub sent_bytes_month: u64,
}

#[derive(Debug)]
struct Ledger {
    saved: Saved,
    /// Of each line the meter's reading that `saved` includes.
    booked: Vec<u64>,
    rates: Rates,
}

/// As it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    month: Month,
    sent_bytes: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Rates {
    since: Option<Instant>,
    readings: Vec<u64>,
    bps: Vec<u64>,
}

impl Lines {
    /// Reads what was sent this month before the start.
    pub fn load(state_dir: &Path, listen: &[SocketAddr], now: SystemTime) -> Arc<Self> {
        let path = state_dir.join("lines.json");
        let saved = read(&path).unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "what the lines sent this month is unknown; counting from zero");
            None
        });
        let saved = saved.unwrap_or_default();
        let month = Month::of(now);
        if saved.month > month {
            let (ledger, clock) = (saved.month, month);
            tracing::warn!(%ledger, %clock, "the clock says an earlier month than the lines' ledger");
        }
        let line = |address: &SocketAddr| Line { name: address.to_string(), sent: Arc::default() };
        let ledger = Ledger { saved, booked: vec![0; listen.len()], rates: Rates::default() };
        let lines = listen.iter().map(line).collect();
        Arc::new(Self { path, lines, ledger: Mutex::new(ledger) })
    }

    /// The socket with a meter on it.
    pub(crate) fn metered(
        &self,
        line: usize,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> Arc<dyn AsyncUdpSocket> {
        MeteredSocket::new(socket, Arc::clone(&self.lines[line].sent))
    }

    /// What each line has sent, in the order of the configuration.
    pub fn totals(&self, now: SystemTime) -> Vec<LineTotals> {
        let readings = self.readings();
        let saved = self.book(now).saved.clone();
        let total = |(line, sent_bytes): (&Line, u64)| LineTotals {
            sent_bytes,
            sent_bytes_month: saved.sent_bytes.get(&line.name).copied().unwrap_or_default(),
        };
        self.lines.iter().zip(readings).map(total).collect()
    }

    /// The same as the scheduler is told.
    pub(crate) fn report(&self, now: Instant, today: SystemTime) -> Vec<LineUse> {
        let totals = self.totals(today);
        let rates = self.ledger().rates.measure(totals.iter().map(|line| line.sent_bytes), now);
        let line = |(total, sent_bps): (LineTotals, u64)| LineUse {
            sent_bytes_month: total.sent_bytes_month,
            sent_bps,
        };
        totals.into_iter().zip(rates).map(line).collect()
    }

    /// Writes the ledger to disk.
    ///
    /// # Errors
    /// The directory cannot be written; the old file stands.
    pub fn save(&self, now: SystemTime) -> io::Result<()> {
        let saved = self.book(now).saved.clone();
        let text = serde_json::to_vec(&saved).map_err(io::Error::other)?;
        state::replace(&self.path, &text)
    }

    /// Saves now and then until the token is cancelled.
    pub(crate) async fn keep_saved(self: Arc<Self>, stop: CancellationToken) {
        let mut last = None;
        while stop.run_until_cancelled(tokio::time::sleep(SAVE_INTERVAL)).await.is_some() {
            let saved = self.book(SystemTime::now()).saved.clone();
            if last.as_ref() != Some(&saved) {
                let lines = Arc::clone(&self);
                let written = tokio::task::spawn_blocking(move || lines.save(SystemTime::now()));
                complain(written.await.unwrap_or_else(|error| Err(io::Error::other(error))));
                last = Some(saved);
            }
        }
    }

    fn readings(&self) -> Vec<u64> {
        self.lines.iter().map(|line| line.sent.load(Ordering::Relaxed)).collect()
    }

    /// Books what the meters have counted since, and begins a new month if one has begun.
    fn book(&self, now: SystemTime) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger();
        let Ledger { saved, booked, .. } = &mut *ledger;
        let month = Month::of(now);
        if month > saved.month {
            *saved = Saved { month, sent_bytes: BTreeMap::new() };
        }
        for (line, booked) in self.lines.iter().zip(booked) {
            let sent = line.sent.load(Ordering::Relaxed);
            let total = saved.sent_bytes.entry(line.name.clone()).or_default();
            *total = total.saturating_add(sent - *booked);
            *booked = sent;
        }
        if saved.sent_bytes.len() > ENTRIES_MAX {
            saved.sent_bytes.retain(|name, _| self.lines.iter().any(|line| line.name == *name));
        }
        ledger
    }

    /// A panic elsewhere leaves the ledger whole: each change is an addition.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of a ledger that could not be written.
pub(crate) fn complain(saved: io::Result<()>) {
    if let Err(error) = saved {
        tracing::warn!(%error, "what the lines sent cannot be saved");
    }
}

impl Rates {
    /// Bits per second of each line since they were measured last; anew if that is long enough ago.
    fn measure(&mut self, readings: impl Iterator<Item = u64>, now: Instant) -> Vec<u64> {
        let readings: Vec<u64> = readings.collect();
        let age = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if self.since.is_none() {
            self.bps = vec![0; readings.len()];
        } else if age >= RATE_WINDOW {
            let bits = |(new, old): (&u64, &u64)| u128::from(new.saturating_sub(*old)) * 8;
            let rate = |bits: u128| bits * 1_000_000 / age.as_micros().max(1);
            let rates = readings.iter().zip(&self.readings).map(bits).map(rate);
            self.bps = rates.map(|bps| u64::try_from(bps).unwrap_or(u64::MAX)).collect();
        } else {
            return self.bps.clone();
        }
        self.since = Some(now);
        self.readings = readings;
        self.bps.clone()
    }
}

fn read(path: &Path) -> io::Result<Option<Saved>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any ledger"));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn listen() -> Vec<SocketAddr> {
        vec!["127.0.0.1:4401".parse().unwrap(), "127.0.0.1:4402".parse().unwrap()]
    }

    /// Noon of a day since the epoch.
    fn noon(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * day + DAY / 2
    }

    fn send(lines: &Lines, line: usize, bytes: u64) {
        lines.lines[line].sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn month(lines: &Lines, now: SystemTime) -> Vec<u64> {
        lines.totals(now).iter().map(|line| line.sent_bytes_month).collect()
    }

    #[test]
    fn a_month_counts_on_over_restarts_and_lines_keep_theirs_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::load(dir.path(), &listen(), noon(10));
        send(&lines, 0, 100);
        send(&lines, 1, 7);
        lines.save(noon(10)).unwrap();
        send(&lines, 1, 1_000);

        let turned: Vec<_> = listen().into_iter().rev().collect();
        let again = Lines::load(dir.path(), &turned, noon(11));
        send(&again, 1, 11);

        assert_eq!(month(&lines, noon(10)), [100, 1_007]);
        assert_eq!(month(&again, noon(11)), [7, 111]);
        assert_eq!(again.totals(noon(11))[1].sent_bytes, 11);
    }

    #[test]
    fn a_new_month_begins_at_zero_and_an_earlier_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::load(dir.path(), &listen(), noon(30));
        send(&lines, 0, 100);
        assert_eq!(month(&lines, noon(30)), [100, 0]);

        assert_eq!(month(&lines, noon(31)), [0, 0]);
        send(&lines, 0, 5);
        assert_eq!(month(&lines, noon(31)), [5, 0]);
        assert_eq!(month(&lines, noon(30)), [5, 0], "the clock was set back");
    }

    #[test]
    fn a_broken_ledger_is_one_that_starts_at_zero() {
        let dir = tempfile::tempdir().unwrap();
        for broken in ["", "{\"month\":\"2026-13\",\"sent_bytes\":{}}", "{\"month\":7}", "\u{1}"] {
            fs::write(dir.path().join("lines.json"), broken).unwrap();
            let lines = Lines::load(dir.path(), &listen(), noon(40));
            assert_eq!(month(&lines, noon(40)), [0, 0]);
            lines.save(noon(40)).unwrap();
        }
        assert!(read(&dir.path().join("lines.json")).unwrap().is_some());
    }

    #[test]
    fn a_rate_is_of_the_time_since_the_last_one_and_not_of_an_instant() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::load(dir.path(), &listen(), noon(1));
        let start = Instant::now();
        let rates = |at: Instant| {
            let uses = lines.report(at, noon(1));
            uses.iter().map(|line| line.sent_bps).collect::<Vec<_>>()
        };
        assert_eq!(rates(start), [0, 0]);
        send(&lines, 1, 250_000);

        assert_eq!(rates(start + Duration::from_millis(1)), [0, 0]);
        assert_eq!(rates(start + Duration::from_secs(2)), [0, 1_000_000]);
        assert_eq!(rates(start + Duration::from_millis(2_001)), [0, 1_000_000]);
        assert_eq!(rates(start + Duration::from_secs(3)), [0, 0]);
    }
}
