//! A server that pours bytes into every connection, and a client that counts them, over plain TCP.
//!
//! Every [`BLOCK`] of the stream begins with its own position, and the client looks at that: bytes that were lost, repeated
//! or put in another order do not pass for a stream. Making and looking cost next to nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes between two positions.
const BLOCK: usize = 4 << 10;
/// Bytes written at once.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Silence that is noted.
const SILENCE_MIN: Duration = Duration::from_millis(2);
/// Silences kept; later ones are not.
const SILENCES_MAX: usize = 1 << 20;
/// Pauses of a paced server.
const PACE: Duration = Duration::from_millis(2);
/// A read that waits for so long has failed.
const READ_MAX: Duration = Duration::from_secs(30);

/// A server, until it is dropped.
pub(crate) struct Pourer {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
}

impl Pourer {
    /// Listens on a loopback port; pours as fast as the connection takes it, or at this rate.
    pub(crate) fn start(mbps: Option<f64>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ending = Arc::new(AtomicBool::new(false));
        let inner = Arc::clone(&ending);
        std::thread::Builder::new().name("bench-pourer".into()).spawn(move || {
            for connection in listener.incoming() {
                if inner.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                // Ends with its connection. Without a thread the client sees it closed.
                let _ = std::thread::Builder::new()
                    .name("bench-pour".into())
                    .spawn(move || pour(connection, mbps));
            }
        })?;
        Ok(Self { address, ending })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Pourer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the thread, which then looks.
        let _ = TcpStream::connect(self.address);
    }
}

fn pour(mut connection: TcpStream, mbps: Option<f64>) {
    let mut bytes = vec![0; WRITE_BYTES];
    let (started, mut position) = (Instant::now(), 0_u64);
    loop {
        if let Some(mbps) = mbps {
            while position as f64 * 8.0 > mbps * 1e6 * started.elapsed().as_secs_f64() {
                std::thread::sleep(PACE);
            }
        }
        for (at, block) in bytes.chunks_mut(BLOCK).enumerate() {
            block[..8].copy_from_slice(&(position + (at * BLOCK) as u64).to_be_bytes());
        }
        if connection.write_all(&bytes).is_err() {
            // The client has gone.
            return;
        }
        position += WRITE_BYTES as u64;
    }
}

/// A client's connection, and what came on it.
pub(crate) struct Pull {
    shared: Arc<Shared>,
    connection: TcpStream,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    bytes: AtomicU64,
    wrong: AtomicBool,
    over: AtomicBool,
    /// Ends of silences, and how long they were.
    silences: Mutex<Vec<(Instant, Duration)>>,
}

impl Pull {
    /// Connects and reads until it is dropped.
    pub(crate) fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(to)?;
        connection.set_read_timeout(Some(READ_MAX))?;
        let mut reader = connection.try_clone()?;
        let shared = Arc::new(Shared {
            bytes: AtomicU64::new(0),
            wrong: AtomicBool::new(false),
            over: AtomicBool::new(false),
            silences: Mutex::default(),
        });
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("bench-pull".into()).spawn(move || {
            inner.read(&mut reader);
            inner.over.store(true, Ordering::Relaxed);
        })?;
        Ok(Self { shared, connection, thread: Some(thread) })
    }

    /// Bytes that came so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Whether the connection has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    /// Whether all that came was right, and more may come.
    pub(crate) fn is_whole(&self) -> bool {
        self.trouble().is_none()
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        if self.shared.wrong.load(Ordering::Relaxed) {
            Some("WRONG BYTES CAME")
        } else {
            self.is_over().then_some("THE CONNECTION ENDED")
        }
    }

    /// The longest time without a byte that ended between two moments.
    pub(crate) fn silence(&self, from: Instant, to: Instant) -> Duration {
        let silences = self.shared.silences.lock().unwrap_or_else(PoisonError::into_inner);
        let within = silences.iter().filter(|(end, _)| (from..=to).contains(end));
        within.map(|&(_, length)| length).max().unwrap_or_default()
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // An error means that it is closed already.
        let _ = self.connection.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It panicked; that was printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn read(&self, reader: &mut TcpStream) {
        let mut buffer = vec![0; READ_BYTES];
        let (mut position, mut last) = (0, Instant::now());
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            let now = Instant::now();
            let silence = now - last;
            last = now;
            if silence >= SILENCE_MIN && position > 0 {
                let mut silences = self.silences.lock().unwrap_or_else(PoisonError::into_inner);
                if silences.len() < SILENCES_MAX {
                    silences.push((now, silence));
                }
            }
            if !is_right(position, &buffer[..length]) {
                self.wrong.store(true, Ordering::Relaxed);
            }
            position += length as u64;
            self.bytes.store(position, Ordering::Relaxed);
        }
    }
}

/// Whether the positions that are whole in these bytes are what they say.
fn is_right(position: u64, bytes: &[u8]) -> bool {
    let block = BLOCK as u64;
    let first = position.next_multiple_of(block);
    let at = |offset: u64| usize::try_from(offset - position).ok();
    (first..position + bytes.len() as u64).step_by(BLOCK).all(|offset| {
        let said = at(offset).and_then(|at| bytes.get(at..at + 8));
        said.is_none_or(|said| said == offset.to_be_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_poured_is_counted_and_right() {
        let pourer = Pourer::start(None).unwrap();
        let pull = Pull::start(pourer.address()).unwrap();
        while pull.bytes() < 3_000_000 {
            std::thread::yield_now();
        }

        assert!(pull.is_whole());
    }

    #[test]
    fn bytes_in_a_wrong_place_are_noticed() {
        let mut bytes = vec![0; 3 * BLOCK];
        bytes[BLOCK..BLOCK + 8].copy_from_slice(&(BLOCK as u64).to_be_bytes());
        bytes[2 * BLOCK..2 * BLOCK + 8].copy_from_slice(&(2 * BLOCK as u64).to_be_bytes());

        assert!(is_right(0, &bytes) && is_right(100, &bytes[100..]));
        assert!(!is_right(8, &bytes));
    }
}
