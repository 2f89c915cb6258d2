//! The client's side: what a file's reader felt.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::Pattern;

/// Silence after which a transfer has failed: streams must outlive a failover, not an hour.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest line of an HTTP response's head that is read.
const HEAD_LINE_BYTES_MAX: u64 = 8 << 10;

/// A file on its way.
#[derive(Debug)]
pub struct Fetch {
    shared: Arc<Shared>,
    started: Instant,
    thread: Option<JoinHandle<Fetched>>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    /// The client, until it has ended.
    child: Mutex<Option<Child>>,
}

/// A file that came, or what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The client: `curl`, or a word on what was used instead.
    pub client: &'static str,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that were asked for.
    pub expected: u64,
    /// Whether the SHA-256 is that of the file.
    pub digest_ok: bool,
    /// Longest time between two reads.
    pub stall: Duration,
    /// From the first byte to the last.
    pub took: Duration,
    /// What the client says went wrong.
    pub problem: Option<String>,
}

impl Fetched {
    /// Whether every byte came, was right, and the one connection lived to its end.
    pub fn is_whole(&self) -> bool {
        self.problem.is_none() && self.digest_ok && self.bytes == self.expected
    }

    /// What came of it, for people.
    pub fn text(&self) -> String {
        let Self { bytes, expected, stall, problem, .. } = self;
        let stall = stall.as_secs_f64() * 1e3;
        match problem {
            _ if self.is_whole() => format!("whole, with a longest stall of {stall:.0} ms"),
            None => format!("NOT whole ({bytes} of {expected} bytes, longest stall {stall:.0} ms)"),
            Some(problem) => format!("NOT whole ({bytes} of {expected} bytes: {problem})"),
        }
    }

    /// Mean rate in Mbit/s.
    pub fn mbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.took.as_secs_f64().max(1e-3)
    }
}

impl Fetch {
    /// Starts to fetch `count` bytes of the seed's file through a forward, paced by the server to `mbps`
    /// if given, with `curl` if there is one.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn start(
        forward: SocketAddr,
        seed: u64,
        count: u64,
        mbps: Option<f64>,
    ) -> io::Result<Self> {
        Self::with(find_curl().as_deref(), forward, seed, count, mbps)
    }

    pub(super) fn with(
        curl: Option<&Path>,
        forward: SocketAddr,
        seed: u64,
        count: u64,
        mbps: Option<f64>,
    ) -> io::Result<Self> {
        let pace = mbps.map_or(String::new(), |mbps| format!("?mbps={mbps}"));
        let target = format!("/bytes/{count}{pace}");
        let shared = Arc::new(Shared::default());
        let (inner, started) = (Arc::clone(&shared), Instant::now());
        let reader: Reader = match curl {
            Some(curl) => Box::new(shared.spawn(curl, forward, &target)?),
            None => Box::new(Late::Address(forward, target)),
        };
        let client = if curl.is_some() { "curl" } else { "a plain GET (no curl here)" };
        let thread = std::thread::Builder::new()
            .name("lab-fetch".into())
            .spawn(move || inner.read(client, reader, seed, count))?;
        Ok(Self { shared, started, thread: Some(thread) })
    }

    /// Bytes that came so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Time since its start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the client now; what came so far is what came.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Waits for its end.
    pub fn join(mut self) -> Fetched {
        let thread = self.thread.take().expect("taken here alone");
        thread.join().expect("the reading thread turns every error into a problem")
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.end();
    }
}

type Reader = Box<dyn Read + Send>;

impl Shared {
    fn spawn(
        &self,
        curl: &Path,
        forward: SocketAddr,
        target: &str,
    ) -> io::Result<impl Read + Send + use<>> {
        use std::os::unix::process::CommandExt as _;
        // -q: nobody's .curlrc. One connection, no retries: curl makes none unless told.
        let silence = SILENCE_MAX.as_secs().to_string();
        let mut child = Command::new(curl)
            .args(["-q", "--http1.1", "-sS", "--fail", "--no-buffer", "--noproxy", "*"])
            .args(["--speed-limit", "1", "--speed-time", &silence])
            .arg(format!("http://{forward}{target}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let out = child.stdout.take().expect("piped above");
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(out)
    }

    fn read(&self, client: &'static str, mut reader: Reader, seed: u64, count: u64) -> Fetched {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let (mut stall, mut bytes, mut problem) = (Duration::ZERO, 0, None);
        let (mut first, mut last) = (None, Instant::now());
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let now = Instant::now();
                    if first.is_some() {
                        stall = stall.max(now - last);
                    }
                    last = now;
                    first.get_or_insert(now);
                    hash.update(&buffer[..length]);
                    bytes += length as u64;
                    self.bytes.store(bytes, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    problem = Some(error.to_string());
                    break;
                }
            }
        }
        let took = first.map_or(Duration::ZERO, |first| last - first);
        let problem = problem.or_else(|| self.verdict());
        let digest: [u8; 32] = hash.finalize().into();
        let digest_ok = bytes == count && digest == Pattern::new(seed).digest(count);
        Fetched { client, bytes, expected: count, digest_ok, stall, took, problem }
    }

    /// What `curl` says at its end, if it failed.
    fn verdict(&self) -> Option<String> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let mut said = String::new();
        if let Some(stderr) = &mut child.stderr {
            // What it says is only for people.
            let _ = stderr.read_to_string(&mut said);
        }
        match child.wait() {
            Ok(status) if status.success() => None,
            Ok(status) => Some(format!("{status}: {}", said.trim())),
            Err(error) => Some(error.to_string()),
        }
    }

    fn end(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Errors mean that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A GET over a connection of our own; made at the first read, so that a refusal is the reader's.
enum Late {
    Address(SocketAddr, String),
    Body(BufReader<TcpStream>),
}

impl Read for Late {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Body(body) => body.read(buffer),
            Self::Address(address, target) => {
                let mut body = request(*address, target)?;
                let read = body.read(buffer);
                *self = Self::Body(body);
                read
            }
        }
    }
}

fn request(address: SocketAddr, target: &str) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.by_ref().take(HEAD_LINE_BYTES_MAX).read_line(&mut status)?;
    if !status.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("the server answered {:?}", status.trim())));
    }
    loop {
        let mut line = String::new();
        let length = reader.by_ref().take(HEAD_LINE_BYTES_MAX).read_line(&mut line)?;
        if length == 0 || line == "\r\n" {
            return Ok(reader);
        }
    }
}

/// The first `curl` of the search path.
pub(super) fn find_curl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("curl")).find(|curl| curl.is_file())
}
