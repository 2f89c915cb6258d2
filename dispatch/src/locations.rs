//! Where addresses are, by a file of the MaxMind format.

use std::net::IpAddr;

use maxminddb::Reader;
use overway_wire::control::Location;
use serde::Deserialize;

/// A file of locations: GeoLite2 City, DB-IP City, or another of that layout (`location.latitude` and
/// `location.longitude` in each record).
pub struct Locations {
    reader: Reader<Vec<u8>>,
}

/// Why bytes are no such file.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is no file of the MaxMind format ({0}); expected a city database such as GeoLite2-City.mmdb"
)]
pub struct LocationsError(String);

/// What is read of a record.
#[derive(Deserialize)]
struct Record {
    location: Option<Degrees>,
}

#[derive(Deserialize)]
struct Degrees {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Locations {
    /// Takes a file's bytes.
    ///
    /// # Errors
    /// They are none of the format.
    pub fn new(bytes: Vec<u8>) -> Result<Self, LocationsError> {
        let reader = Reader::from_source(bytes);
        Ok(Self { reader: reader.map_err(|error| LocationsError(error.to_string()))? })
    }

    /// Where an address is, if the file says so.
    pub fn of(&self, address: IpAddr) -> Option<Location> {
        let found = self.reader.lookup(address.to_canonical()).ok()?;
        let Degrees { latitude, longitude } = found.decode::<Record>().ok()??.location?;
        Location::from_degrees(latitude?, longitude?)
    }
}

impl std::fmt::Debug for Locations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locations").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one network, 128.0.0.0/1, at 52.5, 13.4; written by hand after the format's specification 2.0.
    fn file() -> Vec<u8> {
        let text =
            |text: &str| [&[0x40 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let double = |value: f64| [&[0x68][..], &value.to_be_bytes()].concat();
        let record = [
            vec![0xe1],
            text("location"),
            vec![0xe2],
            text("latitude"),
            double(52.5),
            text("longitude"),
            double(13.4),
        ];
        // One node of two 24-bit records: nothing below 128, the data section's first byte above.
        let tree = [0, 0, 1, 0, 0, 17];
        let metadata = [
            vec![0xe9],
            text("node_count"),
            vec![0xc1, 1],
            text("record_size"),
            vec![0xa1, 24],
            text("ip_version"),
            vec![0xa1, 4],
            text("database_type"),
            text("Test"),
            text("languages"),
            vec![0x00, 0x04],
            text("binary_format_major_version"),
            vec![0xa1, 2],
            text("binary_format_minor_version"),
            vec![0xa0],
            text("description"),
            vec![0xe0],
            text("build_epoch"),
            vec![0x01, 0x02, 1],
        ];
        let marker = b"\xab\xcd\xefMaxMind.com".to_vec();
        [tree.to_vec(), vec![0; 16], record.concat(), marker, metadata.concat()].concat()
    }

    #[test]
    fn an_address_is_where_the_file_says() {
        let locations = Locations::new(file()).unwrap();
        let berlin = Location::from_degrees(52.5, 13.4);
        assert_eq!(locations.of("192.0.2.1".parse().unwrap()), berlin);
        assert_eq!(locations.of("::ffff:192.0.2.1".parse().unwrap()), berlin);
        assert_eq!(locations.of("10.0.0.1".parse().unwrap()), None);
        assert_eq!(locations.of("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn other_bytes_are_refused_and_cut_ones_do_not_panic() {
        assert!(Locations::new(b"hello".to_vec()).unwrap_err().to_string().contains("MaxMind"));
        let whole = file();
        for cut in 0..whole.len() {
            if let Ok(locations) = Locations::new(whole[..cut].to_vec()) {
                let _ = locations.of("192.0.2.1".parse().unwrap());
            }
        }
    }
}
