//! Runs `overway` in a directory of its own.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far beyond what anything here takes: only a hang reaches it.
pub(crate) const HANG: Duration = Duration::from_secs(30);

/// A directory to run in.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

/// A scheduler that runs, and is killed if the test fails.
pub(crate) struct Running {
    child: Child,
    pub(crate) admin: String,
}

/// A relay that runs, and is killed at the end.
pub(crate) struct Relay(Child);

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overway"));
        command.args(args).current_dir(self.path()).env_remove("OVERWAY_LOG");
        command.env_remove("OVERWAY_ADMIN").stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done(self.command(args).output().unwrap())
    }

    /// The same, in an environment with these.
    #[cfg(feature = "otlp")]
    pub(crate) fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Done {
        Done(self.command(args).envs(environment.iter().copied()).output().unwrap())
    }

    /// Makes a mesh whose scheduler draws its ports.
    pub(crate) fn init(&self) {
        assert_eq!(self.run(&["pki", "init", "--mesh", "demo"]).code(), 0);
        let path = self.path().join("scheduler.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let drawn = text.replace("127.0.0.1:9400", "127.0.0.1:0").replacen(
            "listen = \"127.0.0.1:4400\"",
            "listen = \"127.0.0.1:0\"",
            1,
        );
        let without = drawn.lines().filter(|line| !line.starts_with("advertise"));
        std::fs::write(path, without.collect::<Vec<_>>().join("\n")).unwrap();
    }

    /// Starts the scheduler and waits until it is ready.
    pub(crate) fn scheduler(&self) -> Running {
        self.scheduler_with(&[])
    }

    /// The same, in an environment with these.
    pub(crate) fn scheduler_with(&self, environment: &[(&str, &str)]) -> Running {
        self.scheduler_to(environment, Stdio::null())
    }

    /// The same, with its log in a file.
    #[cfg(feature = "otlp")]
    pub(crate) fn scheduler_logging(&self, environment: &[(&str, &str)], log: &str) -> Running {
        self.scheduler_to(environment, std::fs::File::create(self.path().join(log)).unwrap().into())
    }

    fn scheduler_to(&self, environment: &[(&str, &str)], log: Stdio) -> Running {
        let mut command = self.command(&["scheduler"]);
        command.envs(environment.iter().copied());
        let mut child = command.stderr(log).spawn().unwrap();
        let file = self.path().join("scheduler/admin.addr");
        let started = Instant::now();
        loop {
            if let Ok(address) = std::fs::read_to_string(&file) {
                return Running { child, admin: format!("http://{}", address.trim()) };
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the scheduler ended: {status}");
            }
            assert!(started.elapsed() < HANG, "the scheduler does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Place {
    /// Has a relay join and runs it.
    pub(crate) fn relay(&self, scheduler: &Running, name: &str, region: &str) -> Relay {
        self.prepare(scheduler, name, region);
        self.start(name)
    }

    /// Has a relay join; its ports are drawn.
    pub(crate) fn prepare(&self, scheduler: &Running, name: &str, region: &str) {
        let added = self.run(&["node", "add", name, "--admin", &scheduler.admin]);
        let config = format!("{name}.toml");
        let token = added.out().trim().to_owned();
        let joined = self.run(&["relay", "join", &token, "--config", &config]);
        assert_eq!(joined.code(), 0, "{joined:?}");
        let path = self.path().join(&config);
        let text = std::fs::read_to_string(&path).unwrap();
        let drawn = text
            .replace(":4401\"", ":0\"")
            .replace("127.0.0.1:9401", "127.0.0.1:0")
            .replace("# region = \"eu-central\"", &format!("region = \"{region}\""));
        std::fs::write(path, drawn).unwrap();
    }

    /// Runs a relay that has joined.
    pub(crate) fn start(&self, name: &str) -> Relay {
        self.start_with(name, &[])
    }

    /// The same, in an environment with these.
    pub(crate) fn start_with(&self, name: &str, environment: &[(&str, &str)]) -> Relay {
        let mut command = self.command(&["relay", "--config", &format!("{name}.toml")]);
        command.envs(environment.iter().copied());
        let log = std::fs::File::create(self.path().join(format!("{name}.log"))).unwrap();
        Relay(command.stderr(log).spawn().unwrap())
    }

    /// The address that stands in a relay's log behind these words.
    pub(crate) fn logged(&self, name: &str, before: &str) -> SocketAddr {
        let path = self.path().join(format!("{name}.log"));
        let started = Instant::now();
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            let found = text.split_once(before).and_then(|(_, rest)| {
                let (address, _) = rest.split_once(char::is_whitespace)?;
                address.parse().ok()
            });
            if let Some(address) = found {
                return address;
            }
            assert!(started.elapsed() < HANG, "{before} is not in: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a relay's log has these words.
    #[cfg(feature = "otlp")]
    pub(crate) fn logged_line(&self, name: &str, words: &str) {
        let path = self.path().join(format!("{name}.log"));
        let started = Instant::now();
        while !std::fs::read_to_string(&path).unwrap().contains(words) {
            assert!(started.elapsed() < HANG, "{words} is not in the log of {name}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn append(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        let held = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{held}\n{text}")).unwrap();
    }

    /// Runs again and again until it ends well.
    pub(crate) fn eventually(&self, args: &[&str]) -> Done {
        self.until(args, |done| done.code() == 0)
    }

    /// The same, until it ends as it should.
    pub(crate) fn until(&self, args: &[&str], is_it: impl Fn(&Done) -> bool) -> Done {
        let started = Instant::now();
        loop {
            let done = self.run(args);
            if is_it(&done) {
                return done;
            }
            assert!(started.elapsed() < HANG, "{args:?}: {done:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Relay {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Sends SIGTERM, and returns the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < HANG, "the scheduler does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Done(Output);

impl Done {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }
}

/// Answers every connection with one line.
pub(crate) fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"served\n"));
        }
    });
    address
}
