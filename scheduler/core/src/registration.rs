//! What a hello says, checked.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use overway_wire::control::{self, Hello, Location, VERSION_MAX, VERSION_MIN, WORKERS_MAX};
use overway_wire::{BitsPerSec, BootId, PricePerGb};

use crate::HelloError;

/// Registered relays that a mesh may have: routes grow with the square, and those of 5,000 relays in three classes
/// are 75 million.
pub const MESH_RELAYS_MAX: usize = 5_000;
/// Addresses that a hello may list; links use the first two.
pub const ADDRESSES_MAX: usize = 16;
/// Parallel links between two relays, and addresses of a relay in use: a second provider line is worth
/// much, a third little, and each link is probed.
pub(crate) const LINKS_MAX: usize = 2;
/// Services that one relay may offer.
pub const SERVICES_MAX: usize = 64;
/// Bytes of the longest name of a relay, region, provider or service.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of the longest software text.
const SOFTWARE_BYTES_MAX: usize = 256;

/// Prices are per so many bytes.
const BYTES_PER_GB: u64 = 1_000_000_000;

/// A relay as its last hello describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The process.
    pub(crate) boot: BootId,
    /// One to [`ADDRESSES_MAX`].
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) region: String,
    pub(crate) provider: String,
    pub(crate) software: String,
    /// Absent if not said, or nowhere on the earth: it is for maps, and no reason to refuse a relay.
    pub(crate) location: Option<Location>,
    /// 0 if not said.
    pub(crate) capacity: BitsPerSec,
    pub(crate) price: PricePerGb,
    pub(crate) transit: bool,
    /// Workers of its data plane, 1 to [`WORKERS_MAX`].
    pub(crate) workers: u8,
    pub(crate) services: BTreeSet<String>,
    /// Of the addresses in use, in their order.
    pub(crate) tariffs: Vec<Tariff>,
}

/// What a provider's line carries and costs. Zero: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tariff {
    pub(crate) capacity: BitsPerSec,
    /// Of what goes out beyond the commit.
    pub(crate) price: PricePerGb,
    /// Gigabytes of each month that are paid for in any case.
    pub(crate) commit_gb: u64,
    /// Gigabytes of each month beyond which the line is not to be used.
    pub(crate) cap_gb: u64,
    pub(crate) provider: String,
}

impl Registration {
    /// Checks what the hello says of the relay itself.
    pub(crate) fn check(hello: Hello) -> Result<Self, HelloError> {
        text("region", &hello.region, NAME_BYTES_MAX)?;
        text("provider", &hello.provider, NAME_BYTES_MAX)?;
        text("software text", &hello.software, SOFTWARE_BYTES_MAX)?;
        let addresses = addresses(&hello.addresses)?;
        let services = services(hello.services)?;
        let whole = control::Line {
            capacity_bps: hello.capacity_bps,
            price_per_gb: hello.price_per_gb,
            ..control::Line::default()
        };
        let tariffs = (0..addresses.len().min(LINKS_MAX))
            .map(|line| tariff(hello.lines.get(line).unwrap_or(&whole), &hello.provider))
            .collect::<Result<Vec<Tariff>, HelloError>>()?;
        Ok(Self {
            boot: BootId(hello.boot),
            addresses,
            region: hello.region,
            provider: hello.provider,
            software: hello.software,
            location: hello.location.filter(Location::is_valid),
            capacity: BitsPerSec(hello.capacity_bps),
            price: PricePerGb(hello.price_per_gb),
            transit: !hello.no_transit,
            workers: u8::try_from(hello.workers).unwrap_or(WORKERS_MAX).clamp(1, WORKERS_MAX),
            services,
            tariffs,
        })
    }

    /// Addresses in use, 1 to [`LINKS_MAX`].
    pub(crate) fn lines(&self) -> usize {
        self.addresses.len().min(LINKS_MAX)
    }

    /// What all lines in use carry; 0 if one of them is not known.
    pub(crate) fn total_capacity(&self) -> BitsPerSec {
        let known = self.tariffs.iter().all(|tariff| tariff.capacity.0 > 0);
        let sum = |sum: u64, tariff: &Tariff| sum.saturating_add(tariff.capacity.0);
        BitsPerSec(if known { self.tariffs.iter().fold(0, sum) } else { 0 })
    }

    /// What is known of the line behind an address in use.
    pub(crate) fn line(&self, line: usize) -> &Tariff {
        &self.tariffs[line.min(self.tariffs.len() - 1)]
    }
}

impl Tariff {
    /// What a gigabyte more costs, after so many bytes in this month: nothing while they are paid for in any case.
    pub(crate) fn price_after(&self, sent_bytes: u64) -> PricePerGb {
        let paid = self.commit_gb.saturating_mul(BYTES_PER_GB);
        if sent_bytes < paid { PricePerGb(0) } else { self.price }
    }

    /// Whether this month's volume is used up.
    pub(crate) fn is_spent(&self, sent_bytes: u64) -> bool {
        self.cap_gb > 0 && sent_bytes >= self.cap_gb.saturating_mul(BYTES_PER_GB)
    }
}

fn tariff(said: &control::Line, provider: &str) -> Result<Tariff, HelloError> {
    text("line's provider", &said.provider, NAME_BYTES_MAX)?;
    let provider = if said.provider.is_empty() { provider } else { &said.provider };
    Ok(Tariff {
        capacity: BitsPerSec(said.capacity_bps),
        price: PricePerGb(said.price_per_gb),
        commit_gb: said.commit_gb,
        cap_gb: said.cap_gb,
        provider: provider.to_owned(),
    })
}

/// The control version to use with a relay.
pub(crate) fn version(hello: &Hello) -> Result<u32, HelloError> {
    let greatest = hello.version_max.min(VERSION_MAX);
    if greatest < hello.version_min.max(VERSION_MIN) {
        return Err(HelloError::Version {
            min: hello.version_min,
            max: hello.version_max,
            ours_min: VERSION_MIN,
            ours_max: VERSION_MAX,
        });
    }
    Ok(greatest)
}

fn addresses(said: &[String]) -> Result<Vec<SocketAddr>, HelloError> {
    if said.is_empty() || said.len() > ADDRESSES_MAX {
        return Err(HelloError::AddressCount { count: said.len(), max: ADDRESSES_MAX });
    }
    let mut addresses = Vec::with_capacity(said.len());
    for text in said {
        // Cut, so that an absurd text does not fill the log.
        let shown = || text.chars().take(NAME_BYTES_MAX).collect::<String>();
        let address = text.parse::<SocketAddr>().map_err(|_| HelloError::Address(shown()))?;
        let ip = address.ip();
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(HelloError::Address(shown()));
        }
        if addresses.contains(&address) {
            return Err(HelloError::AddressTwice(shown()));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn services(said: Vec<String>) -> Result<BTreeSet<String>, HelloError> {
    if said.len() > SERVICES_MAX {
        return Err(HelloError::ServiceCount { count: said.len(), max: SERVICES_MAX });
    }
    for name in &said {
        text("service name", name, NAME_BYTES_MAX)?;
        if name.is_empty() {
            return Err(HelloError::Text { what: "service name", bytes: 0, max: NAME_BYTES_MAX });
        }
    }
    Ok(said.into_iter().collect())
}

fn text(what: &'static str, text: &str, max: usize) -> Result<(), HelloError> {
    let bytes = text.len();
    if bytes > max { Err(HelloError::Text { what, bytes, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(addresses: &[&str]) -> Hello {
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        Hello { version_min: 1, version_max: 1, addresses, ..Hello::default() }
    }

    #[test]
    fn addresses_that_nobody_can_send_to_are_refused() {
        for bad in ["", "host:1", "10.0.0.1", "10.0.0.1:0", "0.0.0.0:9", "[::]:9", "224.0.0.1:9"] {
            let refused = Registration::check(hello(&[bad]));
            assert_eq!(refused, Err(HelloError::Address(bad.to_owned())));
        }
    }

    #[test]
    fn one_to_sixteen_different_addresses_are_taken() {
        let many: Vec<String> = (1..=17).map(|port| format!("10.0.0.1:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();

        assert!(Registration::check(hello(&many[..16])).is_ok());
        assert_eq!(
            Registration::check(hello(&many)),
            Err(HelloError::AddressCount { count: 17, max: 16 })
        );
        assert!(matches!(
            Registration::check(hello(&[])),
            Err(HelloError::AddressCount { count: 0, .. })
        ));
        assert!(matches!(
            Registration::check(hello(&["10.0.0.1:1", "10.0.0.1:1"])),
            Err(HelloError::AddressTwice(_))
        ));
    }

    #[test]
    fn the_greatest_common_version_is_used() {
        let speaks = |version_min, version_max| Hello { version_min, version_max, ..hello(&[]) };

        assert_eq!(version(&speaks(1, 1)), Ok(1));
        assert_eq!(version(&speaks(0, 7)), Ok(VERSION_MAX));
        assert!(matches!(
            version(&speaks(VERSION_MAX + 1, VERSION_MAX + 2)),
            Err(HelloError::Version { .. })
        ));
        assert!(matches!(version(&speaks(0, 0)), Err(HelloError::Version { .. })));
        assert!(matches!(version(&speaks(1, 0)), Err(HelloError::Version { .. })));
    }

    #[test]
    fn a_place_that_is_not_on_the_earth_counts_as_not_said() {
        let at = |latitude_e6| {
            let location = Some(Location { latitude_e6, longitude_e6: 0 });
            Registration::check(Hello { location, ..hello(&["10.0.0.1:1"]) }).unwrap().location
        };

        assert_eq!(at(90_000_000).map(|place| place.latitude_e6), Some(90_000_000));
        assert_eq!(at(90_000_001), None);
    }

    #[test]
    fn services_have_names_and_are_not_too_many() {
        let offers = |services: Vec<String>| Hello { services, ..hello(&["10.0.0.1:1"]) };

        assert!(Registration::check(offers(vec!["web".into()])).is_ok());
        assert!(matches!(
            Registration::check(offers(vec![String::new()])),
            Err(HelloError::Text { what: "service name", bytes: 0, .. })
        ));
        assert!(matches!(
            Registration::check(offers(vec!["web".into(); 65])),
            Err(HelloError::ServiceCount { count: 65, .. })
        ));
    }
}
