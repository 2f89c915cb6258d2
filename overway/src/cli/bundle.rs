//! `overway support-bundle`.

mod redact;

use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::admin::{AdminArgs, Client, RelayArgs};
use super::failure::Failure;
use super::output;
use redact::redact;

/// The end of a log that is taken.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// The most of any other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Pack what helps others to help: status, events, metrics, versions, and configuration and logs as given.
///
/// Everything goes through one redaction: values of keys, tokens and passwords, PEM blocks, JWTs, join tokens, and whatever
/// looks random enough to be a secret. Names and addresses stay. Look at the archive before you send it. What could not be had is
/// said in errors.txt, so it works while half of the mesh is down.
///
/// Examples:
///   overway support-bundle --config relay.toml --log-file relay.log
///   overway support-bundle --out case-17.tar.gz
///
/// Exit code 0: written, 1: it cannot be written, 2: wrong usage.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BundleArgs {
    /// Where to write.
    #[arg(long, value_name = "FILE", default_value = "overway-support.tar.gz")]
    out: PathBuf,
    /// A configuration file to put in, redacted. May be given several times.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// A log to put in, its last 8 MB, redacted. May be given several times.
    #[arg(long, value_name = "FILE")]
    log_file: Vec<PathBuf>,
    /// Print the names of what is in it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    relay: RelayArgs,
}

/// What goes into an archive: names and texts, redacted.
#[derive(Debug, Default)]
struct Contents {
    files: Vec<(String, String)>,
    errors: String,
}

impl Contents {
    /// Puts a text in, or why there is none.
    fn add(&mut self, name: &str, text: Result<String, String>) {
        match text {
            Ok(text) => self.files.push((name.to_owned(), redact(&text))),
            Err(error) => {
                self.errors.push_str(&redact(&format!("{name}: {error}")));
                self.errors.push('\n');
            }
        }
    }

    fn add_files(&mut self, directory: &str, paths: &[PathBuf], bytes_max: u64) {
        for (at, path) in (1..).zip(paths) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.add(&format!("{directory}/{at}-{name}"), read_end(path, bytes_max));
        }
    }

    /// Writes all as a gzipped tar.
    fn pack(self, out: impl Write) -> std::io::Result<Vec<String>> {
        let Self { mut files, errors } = self;
        if !errors.is_empty() {
            files.push(("errors.txt".to_owned(), errors));
        }
        let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut names = Vec::new();
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now.as_secs());
            archive.append_data(&mut header, format!("overway-support/{name}"), text.as_bytes())?;
            names.push(name);
        }
        archive.into_inner()?.finish()?;
        Ok(names)
    }
}

/// Gathers, packs and says what is in it.
pub(crate) fn run(args: &BundleArgs) -> Result<ExitCode, Failure> {
    let contents = gather(args)?;
    let out = args.out.display();
    let wrong = |error| Failure::Failed(format!("cannot write {out}: {error}"));
    let file = create_private(&args.out).map_err(wrong)?;
    let names = contents.pack(file).map_err(wrong)?;
    if args.json {
        output::print_json(&json!({ "file": args.out, "contents": names }))?;
    } else {
        output::print(&format!("{out}: {}\n", names.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(args: &BundleArgs) -> Result<Contents, Failure> {
    let (scheduler, relay) = (Client::new(&args.admin)?, Client::of_relay(&args.relay)?);
    let mut contents = Contents::default();
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": std::env::consts::OS,
        "machine": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().ok(),
    });
    contents.add("about.json", Ok(format!("{about:#}\n")));
    let json = |client: &Client, path: &str| {
        let value = client.get::<Value>(path).map_err(|failure| failure.text().to_owned())?;
        Ok(format!("{value:#}\n"))
    };
    for path in ["status", "overview", "events", "drains", "policies", "nodes"] {
        contents.add(&format!("scheduler/{path}.json"), json(&scheduler, &format!("/v1/{path}")));
    }
    contents.add("relay/status.json", json(&relay, "/v1/status"));
    for (name, client) in [("scheduler", &scheduler), ("relay", &relay)] {
        let text = client.text("/metrics").map_err(|failure| failure.text().to_owned());
        contents.add(&format!("{name}/metrics.txt"), text);
    }
    contents.add_files("config", &args.config, FILE_BYTES_MAX);
    contents.add_files("logs", &args.log_file, LOG_BYTES_MAX);
    Ok(contents)
}

/// The last so many bytes of a file as text, without the line of which they would be a part: what tells that it is secret
/// may have stood before.
fn read_end(path: &Path, bytes_max: u64) -> Result<String, String> {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        if length > bytes_max {
            let first = bytes.iter().position(|&byte| byte == b'\n');
            bytes.drain(..first.map_or(bytes.len(), |end| end + 1));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
}

/// Only its owner reads it, also where it was there before.
fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;

    #[test]
    fn the_end_of_a_long_log_begins_with_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        std::fs::write(&path, "password=hunter2\nlast\n").unwrap();

        assert_eq!(read_end(&path, 12).as_deref(), Ok("last\n"));
        assert_eq!(read_end(&path, 3).as_deref(), Ok(""));
        assert_eq!(read_end(&path, 22).as_deref(), Ok("password=hunter2\nlast\n"));
    }

    #[test]
    fn an_archive_that_others_could_read_is_closed_to_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.tar.gz");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();

        create_private(&path).unwrap();

        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.metadata().unwrap().len(), 0);
    }

    #[test]
    fn no_secret_is_in_the_archive() {
        let authority = overway_pki::Authority::create("demo").unwrap();
        let (key, _) = overway_pki::PendingKey::generate().unwrap();
        let token = overway_pki::JoinToken::new(
            vec!["203.0.113.5:4400".to_owned()],
            authority.fingerprint(),
            "rome",
            SystemTime::now(),
        )
        .unwrap()
        .to_string();
        drop(key);
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca");
        authority.save(&ca).unwrap();
        let mut secrets =
            vec![token.clone(), "hunter2".to_owned(), "c2VjcmV0IGJlYXJlciB0b2tlbg".to_owned()];
        let mut log = format!("joined by {token} with password=hunter2\n");
        for entry in std::fs::read_dir(&ca).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            if text.contains("PRIVATE KEY") {
                secrets
                    .extend(text.lines().filter(|line| !line.contains("---")).map(str::to_owned));
            }
            log.push_str(&text);
        }
        assert!(secrets.len() > 3, "the authority has a key");
        let (log_file, config) =
            (directory.path().join("a.log"), directory.path().join("relay.toml"));
        std::fs::write(&log_file, log).unwrap();
        let text = "name = \"rome\"\n[proxy]\npassword = \"hunter2\"\nauthorization = \"Bearer c2VjcmV0IGJlYXJlciB0b2tlbg\"\n";
        std::fs::write(&config, text).unwrap();
        let mut contents = Contents::default();
        contents.add_files("config", &[config, directory.path().join("none")], FILE_BYTES_MAX);
        contents.add_files("logs", &[log_file], LOG_BYTES_MAX);
        contents.add("made.json", Err("token=hunter2".to_owned()));
        let mut packed = Vec::new();

        let names = contents.pack(&mut packed).unwrap();

        assert_eq!(names, ["config/1-relay.toml", "logs/1-a.log", "errors.txt"]);
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        let all = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            assert!(!all.contains(&secret), "{secret} is in the archive");
        }
        assert!(all.contains("name = \"rome\"") && all.contains("joined by"));
    }
}
