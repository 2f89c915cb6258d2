//! The files of a mesh without a scheduler: identities, configurations, and what a scheduler would have pushed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use overway_pki::{Authority, Credentials, Identity, PendingKey, Role};
use overway_relay::fault::{RawFault, RawRule};
use overway_wire::control::{self, Item, Node, Peer, Route, RoutePath, Service, Update};
use overway_wire::{Class, LinkIndex, PathElement, RelayId};
use prost::Message as _;

use super::Place;
use super::plan::{Access, Forward, Plan, Protocol};

/// Longer than any run.
const LIFETIME: Duration = Duration::from_secs(86_400);
/// Greatest offset of a process's clock: an hour, so that nothing leans on a common clock.
const CLOCK_OFFSET_MS_MAX: f64 = 3_600_000.0;

/// Writes everything; returns the relays' configuration files.
pub(super) fn write(
    directory: &Path,
    plan: &Plan,
    places: &[Place],
    forwards: &[SocketAddr],
    scheduler: SocketAddr,
) -> anyhow::Result<Vec<PathBuf>> {
    let authority = Authority::create("bench")?;
    let seen = Seen::new(plan, places)?;
    let write_one = |relay: usize| {
        let home = directory.join(format!("relay-{relay}"));
        credentials(&authority, id(relay))?.save(&home)?;
        fs::write(home.join("pushed.bin"), pushed(plan, &seen, relay).encode_to_vec())?;
        let path = home.join("relay.toml");
        let text = config_text(plan, &seen, forwards, scheduler, relay, &home)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    (0..plan.relays()).map(write_one).collect()
}

/// Where relays see one another.
struct Seen<'a> {
    places: &'a [Place],
    /// The address of the second relay to the first.
    otherwise: BTreeMap<(usize, usize), SocketAddr>,
}

impl<'a> Seen<'a> {
    fn new(plan: &Plan, places: &'a [Place]) -> anyhow::Result<Self> {
        let mut otherwise = BTreeMap::new();
        if let Some((near, far, line)) = &plan.bottleneck {
            let [to_far, to_near] = line.cross(places[*near].mesh, places[*far].mesh)?;
            otherwise.extend([((*near, *far), to_far), ((*far, *near), to_near)]);
        }
        Ok(Self { places, otherwise })
    }

    /// The address of a neighbour to a relay.
    fn address(&self, relay: usize, neighbour: usize) -> SocketAddr {
        let otherwise = self.otherwise.get(&(relay, neighbour)).copied();
        otherwise.unwrap_or(self.places[neighbour].mesh)
    }
}

/// A relay's id by its number.
fn id(relay: usize) -> RelayId {
    RelayId(u16::try_from(relay + 1).expect("a benchmark has a handful of relays"))
}

/// An identity of a mesh's authority.
pub(crate) fn credentials(authority: &Authority, id: RelayId) -> anyhow::Result<Credentials> {
    let (pending, request) = PendingKey::generate()?;
    let identity = Identity::new(Role::Relay, id.0, authority.mesh())?;
    let now = SystemTime::now();
    let chain = authority.issue(&request, &identity, LIFETIME, now)?;
    Ok(Credentials::from_join(&pending, chain, authority.fingerprint(), now)?)
}

fn pushed(plan: &Plan, seen: &Seen<'_>, relay: usize) -> Update {
    let mut put: Vec<Item> = Vec::new();
    for other in 0..plan.relays() {
        put.push(
            Node { relay: id(other).0.into(), name: format!("relay-{other}"), ..Node::default() }
                .into(),
        );
        if other != relay {
            put.extend(routes(plan, relay, other));
        }
    }
    for (neighbour, line) in plan.neighbours(relay) {
        let peer = Peer {
            neighbour: id(neighbour).0.into(),
            remote_address: seen.address(relay, neighbour).to_string(),
            role: control::Role::Candidate.into(),
            capacity_bps: bits_per_second(line.capacity_mbps),
            ..Peer::default()
        };
        put.push(peer.into());
    }
    if let Some(access) = &plan.access {
        put.extend(access.tenants.iter().cloned().map(Item::from));
    }
    for (at, forward) in plan.forwards.iter().enumerate() {
        let relays = vec![id(forward.exit).0.into()];
        put.push(Service { name: service_name(at), relays }.into());
    }
    Update { epoch_term: 1, epoch_sequence: 1, revision: 1, put, ..Update::default() }
}

/// The routes from one relay to another, the same for every class.
fn routes(plan: &Plan, from: usize, to: usize) -> impl Iterator<Item = Item> {
    let step = |&relay: &usize| PathElement::new(id(relay), LinkIndex::default());
    let path = |path: &Vec<usize>| {
        let steps: Vec<PathElement> = path[1..].iter().map(step).collect();
        let path_of = overway_wire::Path::new(&steps).expect("a path without a loop, not too long");
        let delay_us = u32::try_from(plan.delay(path).as_micros()).unwrap_or(u32::MAX);
        RoutePath { steps: encoded(&path_of), delay_us, weight: 0 }
    };
    let paths: Vec<RoutePath> = plan.paths(from, to).iter().map(path).collect();
    let route = move |class: Class| Route {
        destination: id(to).0.into(),
        class: class.code().into(),
        paths: paths.clone(),
        policy: 0,
    };
    Class::ALL.into_iter().map(move |class| route(class).into())
}

fn encoded(path: &overway_wire::Path) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    path.encode(&mut bytes);
    bytes.to_vec()
}

fn service_name(forward: usize) -> String {
    format!("bench-{forward}")
}

fn config_text(
    plan: &Plan,
    seen: &Seen<'_>,
    forwards: &[SocketAddr],
    scheduler: SocketAddr,
    relay: usize,
    home: &Path,
) -> anyhow::Result<String> {
    let Place { mesh, admin, access } = seen.places[relay];
    let mut text = format!(
        "[relay]\nname = \"relay-{relay}\"\nstate_dir = \"{}\"\n\
         [mesh]\nlisten = [\"{mesh}\"]\nworkers = 1\n[scheduler]\naddresses = [\"{scheduler}\"]\n\
         [admin]\nlisten = \"{admin}\"\n",
        home.display()
    );
    if let Some(Access { attachments_max, .. }) = &plan.access {
        write!(text, "[access]\nlisten = [\"{access}\"]\nattachments_max = {attachments_max}\n")?;
    }
    for (at, (forward, listen)) in plan.forwards.iter().zip(forwards).enumerate() {
        let Forward { entry, exit, protocol, target, class, more } = forward;
        let (name, protocol) = (service_name(at), protocol.name());
        if *exit == relay {
            write!(
                text,
                "[[service]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\ntarget = \"{target}\"\n"
            )?;
        }
        if *entry == relay {
            let class = class.map_or(String::new(), |class| format!("class = \"{class}\"\n"));
            write!(
                text,
                "[[forward]]\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\nservice = \"{name}\"\n{class}{more}"
            )?;
        }
    }
    let mut random = fastrand::Rng::with_seed(plan.seed ^ ((relay as u64 + 1) << 32));
    let rule = |(neighbour, line): (usize, super::plan::Quality)| RawRule {
        source: seen.address(relay, neighbour),
        delay_ms: line.delay.as_secs_f64() * 1e3,
        jitter_ms: 0.0,
        loss: line.loss,
        loss_burst: 1.0,
        rate_mbps: line.rate_mbps,
        queue_ms: line.queue.as_secs_f64() * 1e3,
        mtu: None,
        cut: false,
    };
    let fault = RawFault {
        // TOML's integers have a sign.
        seed: random.u64(..) >> 1,
        clock_offset_ms: (random.f64() * CLOCK_OFFSET_MS_MAX).round(),
        clock_drift_ppm: random.i32(-20..=20),
        link: plan.neighbours(relay).map(rule).collect(),
    };
    let section = toml::Table::from_iter([("fault".to_owned(), toml::Value::try_from(fault)?)]);
    text.push_str(&toml::to_string(&section)?);
    Ok(text)
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a line's capacity in Mbit/s, which is neither negative nor beyond a terabit"
)]
fn bits_per_second(mbps: f64) -> u64 {
    (mbps * 1e6).round() as u64
}

/// Whether the relays of this build understand these further keys of a forward of datagrams.
pub(crate) fn understands(more: &str) -> bool {
    let text = format!(
        "[relay]\nname = \"a\"\nstate_dir = \"a\"\n[mesh]\nlisten = [\"127.0.0.1:4400\"]\n\
         [scheduler]\naddresses = [\"127.0.0.1:4401\"]\n[admin]\nlisten = \"127.0.0.1:4402\"\n\
         [[forward]]\nlisten = \"127.0.0.1:4403\"\nprotocol = \"udp\"\nservice = \"a\"\n{more}"
    );
    let document = overway_config::Document::new("bench.toml", &text);
    overway_relay::Config::try_from(&document).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::plan::Quality;

    #[test]
    fn relays_read_their_configurations() {
        let quality = Quality {
            delay: Duration::from_millis(15),
            loss: 0.01,
            rate_mbps: Some(100.0),
            queue: Duration::from_millis(50),
            capacity_mbps: 100.0,
        };
        let mut plan = Plan::row(2, quality, 1);
        let target = "127.0.0.1:9".parse().unwrap();
        plan.access = Some(Access { tenants: Vec::new(), attachments_max: 9 });
        plan.forwards.push(Forward {
            entry: 0,
            exit: 2,
            protocol: Protocol::Tcp,
            target,
            class: Some("bulk"),
            more: String::new(),
        });
        let place = |port| Place {
            mesh: SocketAddr::from(([127, 0, 0, 1], port)),
            admin: SocketAddr::from(([127, 0, 0, 1], port + 1)),
            access: SocketAddr::from(([127, 0, 0, 1], port + 2)),
        };
        let directory = tempfile::tempdir().unwrap();
        let places = [place(1_000), place(2_000), place(3_000)];

        let paths = write(directory.path(), &plan, &places, &[target], target).unwrap();

        let config = overway_relay::Config::load(&paths[1]).unwrap();
        assert_eq!(config.access.unwrap().attachments_max, 9);
        assert_eq!(config.fault.unwrap().rules.len(), 2);
        assert_eq!(overway_relay::Config::load(&paths[0]).unwrap().gateway.forwards.len(), 1);
        assert!(understands("idle_timeout_s = 5.0\n") && !understands("nonsense = 1\n"));
    }
}
