//! Configuration files to start from. None is ever overwritten.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use overway_scheduler::join::Joined;

use super::failure::Failure;

/// The state directory as it is to stand in `config`, which resolves it from where it is itself.
pub(crate) fn state_dir(directory: &Path, config: &Path) -> Result<PathBuf, Failure> {
    let beside = config.parent().is_none_or(|parent| parent.as_os_str().is_empty());
    if beside || directory.is_absolute() {
        return Ok(directory.to_owned());
    }
    std::path::absolute(directory).map_err(Failure::failed)
}

/// Writes a new file; returns whether it did, which it does not if there is one.
pub(crate) fn write(path: &Path, text: &str) -> Result<bool, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = match file {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => Err(error),
    };
    written
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(true)
}

/// A scheduler's configuration.
pub(crate) fn scheduler(state_dir: &Path, advertise: &[SocketAddr]) -> String {
    let first = advertise.first().copied().unwrap_or_else(|| ([127, 0, 0, 1], 4400).into());
    format!(
        r#"# Overway scheduler. Check it with: overway validate FILE

[scheduler]
# Membership, drains and policies (mesh.redb), the mesh's CA (ca.pem, ca.key) and this scheduler's own key (node.key).
state_dir = {state_dir}
# UDP: control connections of relays, and joins.
listen = {listen}
# Where relays reach it, as join tokens name it.
advertise = {advertise}

[admin]
# TCP: status, explanations, metrics and what `overway node`, `drain` and `policy` change. Loopback only.
listen = "127.0.0.1:9400"

[certificates]
# Life of relays' certificates. They renew themselves when a third of it is left.
lifetime_days = 90
"#,
        state_dir = quoted(&state_dir.display()),
        listen = quoted(&listen_for(first)),
        advertise = list(advertise),
    )
}

/// A relay's configuration.
pub(crate) fn relay(joined: &Joined, state_dir: &Path) -> String {
    let own = own_address(&joined.schedulers);
    let mesh = SocketAddr::new(own, 4401);
    let mut text = format!(
        r#"# Overway relay. Check it with: overway validate FILE

[relay]
name = {name}
# Key, certificates, and the last good routes.
state_dir = {state_dir}
# For policy and for diversity of paths.
# region = "eu-central"
# provider = "example-isp"
# For the map: latitude and longitude in degrees, north and east positive.
# location = "50.1,8.7"
# capacity_mbps = 1000
# price_per_gb = 0.01
# Whether it may carry others' traffic.
# transit = true

[mesh]
# UDP: one address for each provider line, at most two. Guessed from the way to the scheduler.
listen = {listen}
# What other relays dial, if that is another address (NAT with a fixed mapping).
# advertise = ["203.0.113.7:4401"]
# Threads that carry frames. Left out, one for each processor.
# workers = 4

[scheduler]
addresses = {schedulers}

[admin]
# TCP: /metrics, /livez and /readyz.
listen = "127.0.0.1:9401"

"#,
        name = quoted(&joined.name),
        state_dir = quoted(&state_dir.display()),
        listen = list(&[mesh]),
        schedulers = list(&joined.schedulers),
    );
    text.push_str(GATEWAY);
    text
}

/// Examples of what a relay's gateway does.
const GATEWAY: &str = r#"# A service that this relay offers to the mesh. It connects to this target and nothing else.
# [[service]]
# name = "web"
# protocol = "tcp"
# target = "127.0.0.1:8080"

# A port here that leads to a service, wherever in the mesh it is.
# [[forward]]
# listen = "127.0.0.1:9000"
# protocol = "tcp"
# service = "web"
# class = "interactive"
"#;

/// Loopback stays loopback; otherwise every interface, for an advertised address may be another's (NAT).
fn listen_for(advertised: SocketAddr) -> SocketAddr {
    let ip = match advertised.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, advertised.port())
}

/// The address that this machine uses towards the first scheduler. Connecting a UDP socket sends nothing.
fn own_address(schedulers: &[String]) -> IpAddr {
    let towards = |scheduler: &String| {
        let scheduler: SocketAddr = scheduler.parse().ok()?;
        let any: IpAddr = match scheduler {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(scheduler).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    schedulers.iter().find_map(towards).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A TOML string.
fn quoted(text: &impl ToString) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list<T: ToString>(items: &[T]) -> String {
    let mut text = String::from("[");
    for (at, item) in items.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{}", quoted(item));
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::RelayId;

    fn joined() -> Joined {
        Joined {
            relay: RelayId(3),
            name: "rome".into(),
            mesh: "demo".into(),
            schedulers: vec!["127.0.0.1:4400".into()],
        }
    }

    fn in_file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_schedulers_starter_is_a_good_configuration() {
        let advertise: Vec<SocketAddr> =
            vec!["203.0.113.5:4400".parse().unwrap(), "[2001:db8::5]:4400".parse().unwrap()];

        let file = in_file(&scheduler(Path::new("a \"b\""), &advertise));

        let config = overway_scheduler::Config::load(file.path()).unwrap();
        assert_eq!(config.listen, "0.0.0.0:4400".parse().unwrap());
        assert!(config.state_dir.ends_with("a \"b\""));
    }

    #[test]
    fn the_relays_starter_is_a_good_configuration() {
        let file = in_file(&relay(&joined(), Path::new("rome")));

        assert!(overway_relay::Config::load(file.path()).is_ok());
    }

    #[test]
    fn the_relays_starter_is_good_with_every_comment_taken_out() {
        let text = relay(&joined(), Path::new("rome"));
        let is_setting = |line: &str| line.starts_with("# [[") || line.contains(" = ");
        let all: Vec<&str> = text
            .lines()
            .map(|line| if is_setting(line) { line.trim_start_matches("# ") } else { line })
            .collect();

        let file = in_file(&all.join("\n"));

        assert!(overway_relay::Config::load(file.path()).is_ok());
    }

    #[test]
    fn a_file_that_is_there_is_kept() {
        let file = in_file("mine");

        assert!(!write(file.path(), "theirs").unwrap());

        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "mine");
    }
}
