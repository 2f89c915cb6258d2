//! Checks of single values, with the error made from where the value stands.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use crate::{ConfigError, Document};

/// A DNS label's.
const NAME_BYTES_MAX: usize = 63;

impl Document {
    /// An IP address with a port, such as `0.0.0.0:4400` or `[::]:4400`.
    pub fn address(&self, text: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
        let error = |expected: &str| {
            let message = format!("{:?} is not an address; expected {expected}", text.get_ref());
            self.error(text.span(), message)
        };
        match text.get_ref().parse() {
            Ok(address) => Ok(address),
            // The commonest mistake: names are looked up nowhere that an address is asked for.
            Err(_) if is_host_port(text.get_ref()) => {
                Err(error("IP:PORT such as 0.0.0.0:4400, not a host name"))
            }
            Err(_) => Err(error("IP:PORT such as 0.0.0.0:4400")),
        }
    }

    /// An IP address or a host name, with a port, such as `scheduler.example:4400`. Given back as it is:
    /// whether a name can be resolved is known when it is used.
    pub fn host_port(&self, text: &Spanned<String>) -> Result<String, ConfigError> {
        let given = text.get_ref();
        if given.parse::<SocketAddr>().is_ok() || is_host_port(given) {
            return Ok(given.clone());
        }
        let message =
            format!("{given:?} is not HOST:PORT; expected such as scheduler.example:4400");
        Err(self.error(text.span(), message))
    }

    /// A place as `LATITUDE,LONGITUDE` in degrees, such as `52.5,13.4`: north and east are positive.
    pub fn degrees(&self, text: &Spanned<String>) -> Result<(f64, f64), ConfigError> {
        let given = text.get_ref();
        let number = |text: &str, max: f64| {
            let degrees: f64 = text.trim().parse().ok()?;
            (degrees.abs() <= max).then_some(degrees)
        };
        let both = given.split_once(',');
        let place =
            both.and_then(|(north, east)| Some((number(north, 90.0)?, number(east, 180.0)?)));
        place.ok_or_else(|| {
            let message = format!(
                "{given:?} is not a place; expected \"LATITUDE,LONGITUDE\" in degrees such as \"52.5,13.4\""
            );
            self.error(text.span(), message)
        })
    }

    /// A name: 1 to 63 of a to z, 0 to 9 and hyphen, not starting with a hyphen.
    pub fn name(&self, text: &Spanned<String>) -> Result<String, ConfigError> {
        let name = text.get_ref();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with('-');
        if good {
            return Ok(name.clone());
        }
        let message = format!(
            "{name:?} is not a name; expected 1 to 63 of a-z, 0-9 and hyphen, with no hyphen first"
        );
        Err(self.error(text.span(), message))
    }

    /// A number (or anything with an order) within bounds.
    pub fn in_range<T: Copy + PartialOrd + Display>(
        &self,
        value: &Spanned<T>,
        range: RangeInclusive<T>,
    ) -> Result<T, ConfigError> {
        let number = *value.get_ref();
        if range.contains(&number) {
            return Ok(number);
        }
        let (least, greatest) = range.into_inner();
        let message = format!("{number} is out of range; expected {least} to {greatest}");
        Err(self.error(value.span(), message))
    }

    /// A length of time, from a number of `unit`s, decimals allowed. Bounds are told in the same unit.
    pub fn duration(
        &self,
        value: &Spanned<f64>,
        unit: Duration,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let number = *value.get_ref();
        // Decimals of a second are not exact in binary; what is meant is a whole number of nanoseconds.
        let nanoseconds = (number * unit.as_secs_f64() * 1e9).round() / 1e9;
        match Duration::try_from_secs_f64(nanoseconds) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            Ok(_) | Err(_) => {
                let units = |bound: &Duration| bound.as_secs_f64() / unit.as_secs_f64();
                let (least, greatest) = (units(range.start()), units(range.end()));
                let message = format!("{number} is out of range; expected {least} to {greatest}");
                Err(self.error(value.span(), message))
            }
        }
    }

    /// A list with that many entries.
    pub fn entries<'a, T>(
        &self,
        list: &'a Spanned<Vec<T>>,
        count: RangeInclusive<usize>,
    ) -> Result<&'a [T], ConfigError> {
        let entries = list.get_ref();
        if count.contains(&entries.len()) {
            return Ok(entries);
        }
        let (least, most) = count.into_inner();
        let message = format!("has {} entries; expected {least} to {most}", entries.len());
        Err(self.error(list.span(), message))
    }

    /// Values of which no two may be equal, such as names.
    pub fn unique<'a, T: Ord + Debug + 'a>(
        &self,
        values: impl IntoIterator<Item = &'a Spanned<T>>,
    ) -> Result<(), ConfigError> {
        let mut seen = BTreeMap::new();
        for value in values {
            if let Some(first) = seen.insert(value.get_ref(), value.span().start) {
                let line = self.line(first);
                let message = format!(
                    "{:?} is given twice; it stands already on line {line}",
                    value.get_ref()
                );
                return Err(self.error(value.span(), message));
            }
        }
        Ok(())
    }
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits alone is a mistyped IPv4 address, not a host.
    let last_is_number =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253
        && host.split('.').all(label)
        && !last_is_number
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}
