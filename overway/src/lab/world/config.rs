//! The configuration files of a mesh.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use overway_relay::fault::RawFault;
use serde::Serialize;

use super::layout::{Layout, config_file, state_dir};
use crate::lab::profile::Profile;

/// Greatest offset of a process's clock: a month, so that nothing can lean on a common clock.
const CLOCK_OFFSET_MS_MAX: f64 = 30.0 * 86_400_000.0;
/// Greatest drift of a process's clock: that of a poor crystal.
const CLOCK_DRIFT_PPM_MAX: i32 = 50;

/// The servers behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Of UDP; the lab's own is a sink.
    pub sink: SocketAddr,
    /// Of TCP; the lab's own is a web server.
    pub web: SocketAddr,
}

impl Targets {
    /// One program that serves both.
    pub fn both(address: SocketAddr) -> Self {
        Self { sink: address, web: address }
    }
}

#[derive(Debug, Serialize)]
struct SchedulerFile {
    scheduler: SchedulerSection,
    admin: Listen,
}

#[derive(Debug, Serialize)]
struct SchedulerSection {
    state_dir: PathBuf,
    listen: SocketAddr,
}

#[derive(Debug, Serialize)]
struct RelayFile<'a> {
    relay: RelaySection<'a>,
    mesh: Mesh,
    scheduler: Addresses,
    admin: Listen,
    access: ListenAll,
    service: Vec<Service>,
    forward: Vec<Forward>,
    fault: RawFault,
}

#[derive(Debug, Serialize)]
struct RelaySection<'a> {
    name: &'a str,
    state_dir: PathBuf,
    region: &'a str,
    provider: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    capacity_mbps: f64,
    price_per_gb: f64,
}

#[derive(Debug, Serialize)]
struct Mesh {
    listen: [SocketAddr; 1],
    workers: u8,
}

#[derive(Debug, Serialize)]
struct Addresses {
    addresses: [SocketAddr; 1],
}

#[derive(Debug, Serialize)]
pub(super) struct Listen {
    pub(super) listen: SocketAddr,
}

#[derive(Debug, Serialize)]
struct ListenAll {
    listen: [SocketAddr; 1],
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) protocol: &'static str,
    pub(super) target: SocketAddr,
}

#[derive(Debug, Serialize)]
pub(super) struct Forward {
    pub(super) listen: SocketAddr,
    pub(super) protocol: &'static str,
    pub(super) service: String,
}

/// Writes every file.
pub(super) fn write(
    dir: &Path,
    profile: &Profile,
    layout: &Layout,
    targets: Targets,
    seed: u64,
    workers: u8,
) -> anyhow::Result<()> {
    let scheduler = SchedulerFile {
        scheduler: SchedulerSection {
            state_dir: state_dir(dir, "scheduler"),
            listen: layout.scheduler.control,
        },
        admin: Listen { listen: layout.scheduler.admin },
    };
    write_file(&config_file(dir, "scheduler"), &toml::to_string(&scheduler)?)?;
    for relay in 0..profile.relays().len() {
        let text = relay_text(dir, profile, layout, targets, (seed, workers), relay)?;
        write_file(&config_file(dir, profile.relay_name(relay)), &text)?;
    }
    Ok(())
}

fn relay_text(
    dir: &Path,
    profile: &Profile,
    layout: &Layout,
    targets: Targets,
    (seed, workers): (u64, u8),
    relay: usize,
) -> anyhow::Result<String> {
    let about = &profile.relays()[relay];
    let place = layout.relays[relay];
    let offers = layout.wires.iter().any(|wire| wire.exit == relay);
    let service =
        |(protocol, target)| Service { name: service_name(&about.name), protocol, target };
    let offered = [("udp", targets.sink), ("tcp", targets.web)];
    let services = offered.into_iter().filter(|_| offers).map(service).collect();
    let leaving = layout.wires.iter().filter(|wire| wire.entry == relay);
    let forwards = leaving.flat_map(|wire| {
        let name = service_name(profile.relay_name(wire.exit));
        [("udp", wire.udp), ("tcp", wire.tcp)].map(|(protocol, listen)| Forward {
            listen,
            protocol,
            service: name.clone(),
        })
    });
    let file = RelayFile {
        relay: RelaySection {
            name: &about.name,
            state_dir: state_dir(dir, &about.name),
            region: &about.region,
            provider: &about.provider,
            location: about.location.map(|(north, east)| format!("{north},{east}")),
            capacity_mbps: about.capacity_mbps,
            price_per_gb: about.price_per_gb,
        },
        mesh: Mesh { listen: [place.mesh], workers },
        scheduler: Addresses { addresses: [layout.scheduler.control] },
        admin: Listen { listen: place.admin },
        access: ListenAll { listen: [place.access] },
        service: services,
        forward: forwards.collect(),
        fault: fault(profile, layout, seed, relay),
    };
    Ok(toml::to_string(&file)?)
}

/// The name under which a relay offers the lab's servers.
fn service_name(relay: &str) -> String {
    format!("lab-{relay}")
}

/// What a relay's socket does to what arrives, and the clock that its process believes in.
fn fault(profile: &Profile, layout: &Layout, seed: u64, relay: usize) -> RawFault {
    let mut random = fastrand::Rng::with_seed(seed ^ ((relay as u64 + 1) << 32));
    let others = (0..profile.relays().len()).filter(|&other| other != relay);
    RawFault {
        // TOML's integers have a sign.
        seed: random.u64(..) >> 1,
        // Whole milliseconds, so that the text is exact.
        clock_offset_ms: (random.f64() * CLOCK_OFFSET_MS_MAX).round(),
        clock_drift_ppm: random.i32(-CLOCK_DRIFT_PPM_MAX..=CLOCK_DRIFT_PPM_MAX),
        link: others.map(|from| profile.line(from, relay).rule(layout.relays[from].mesh)).collect(),
    }
}

pub(super) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(seed: u64) -> (Profile, Layout, Vec<String>) {
        let profile = Profile::world();
        let layout = Layout::new(profile.relays().len(), &[(0, 1), (2, 1)], 0).unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let targets = Targets { sink: address, web: address };
        let text =
            |relay| relay_text(Path::new("/lab"), &profile, &layout, targets, (seed, 1), relay);
        let texts = (0..profile.relays().len()).map(|relay| text(relay).unwrap()).collect();
        (profile, layout, texts)
    }

    #[test]
    fn a_relay_hears_every_other_over_the_line_of_the_profile() {
        let (profile, layout, texts) = texts(1);

        let file: toml::Table = texts[3].parse().unwrap();

        let fault: RawFault = file["fault"].clone().try_into().unwrap();
        assert_eq!(fault.link.len(), profile.relays().len() - 1);
        for rule in fault.link {
            let from = layout.relays.iter().position(|place| place.mesh == rule.source).unwrap();
            assert_eq!(rule, profile.line(from, 3).rule(rule.source));
        }
    }

    #[test]
    fn clocks_differ_and_come_from_the_seed() {
        let offset = |text: &String| {
            let file: toml::Table = text.parse().unwrap();
            file["fault"]["clock_offset_ms"].as_float().unwrap()
        };

        let first: Vec<f64> = texts(1).2.iter().map(offset).collect();
        let again: Vec<f64> = texts(1).2.iter().map(offset).collect();
        let other: Vec<f64> = texts(2).2.iter().map(offset).collect();

        assert_eq!(first, again);
        assert!(first.iter().zip(&other).all(|(a, b)| a != b));
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn forwards_are_at_the_entry_and_services_at_the_exit() {
        let (_, layout, texts) = texts(1);

        let entry: toml::Table = texts[0].parse().unwrap();
        let exit: toml::Table = texts[1].parse().unwrap();

        let forwards = entry["forward"].as_array().unwrap();
        assert_eq!(forwards[0]["listen"].as_str(), Some(layout.wires[0].udp.to_string().as_str()));
        assert_eq!(forwards.len(), 2);
        assert_eq!(exit["service"].as_array().unwrap().len(), 2);
        assert_eq!(forwards[0]["service"], exit["service"][0]["name"]);
    }
}
