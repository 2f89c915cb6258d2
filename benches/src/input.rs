//! Delays between relays, from files and from seeds: what the benchmarks of routing work on.
//!
//! ```text
//! latency CSV  --\
//!                 +--> Rtts (round trips, named hosts) --half--> OneWay --\
//! plain matrix --/                                                         +--> topology()
//! seed --> planetlab_resampled, clustered, uniform ---------> OneWay -----/
//! ```
//!
//! Files hold round trips in milliseconds; here they are whole microseconds, and a one-way delay is half
//! of one. A cell without a measurement is `None`, and no link stands there. Every generator gives directed
//! delays, and the same ones for the same arguments.

mod csv;
mod matrix;
mod synthetic;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use overway_topology::{LinkMeasure, RelayAttributes, Topology, WindowSample};
use overway_wire::{ClockDiff, LinkId, LinkIndex, Micros, RelayId};

pub(crate) use synthetic::{clustered, planetlab_resampled, scattered, uniform};

/// One-way delays: row = sender, column = receiver, `None` where there is no link.
pub(crate) type OneWay = Vec<Vec<Option<Micros>>>;

/// Samples of a window that is full of heartbeats of a link in use, for measurements that are not in doubt.
const SAMPLES: [u32; 2] = [33, 1_000];

/// Measured round trips between named hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rtts {
    /// Of the rows and columns.
    pub(crate) names: Vec<String>,
    /// Row = source; `None` on the diagonal and where nothing was measured.
    pub(crate) cells: Vec<Vec<Option<Micros>>>,
}

/// Where measured round trips come from.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct MeasuredArgs {
    /// Measured round trips: CSV with the columns `src_region`, `src_tier`, `dst_region`, `dst_tier` and
    /// `avg_rtt` in ms.
    #[arg(long, value_name = "FILE")]
    pub(crate) latency_csv: Option<PathBuf>,
    /// Measured round trips: a plain matrix in ms, row = source, separated by white space; may be gzipped.
    #[arg(long, value_name = "FILE")]
    pub(crate) matrix: Option<PathBuf>,
}

impl MeasuredArgs {
    /// Reads the file that was given, if one was.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Rtts>> {
        match (&self.latency_csv, &self.matrix) {
            (Some(path), _) => Rtts::read_latency_csv(path).map(Some),
            (None, Some(path)) => Rtts::read_matrix(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl Rtts {
    /// Reads a CSV with one row for each ordered pair; a host is a region and a tier.
    pub(crate) fn read_latency_csv(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(text).with_context(|| format!("{}", path.display()))?;
        csv::parse(&text).map_err(|error| error.context(path.display().to_string()))
    }

    /// Reads a square matrix, gzipped or not.
    pub(crate) fn read_matrix(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = matrix::text(bytes).and_then(|text| matrix::parse(&text));
        parsed.map_err(|error| error.context(path.display().to_string()))
    }

    /// Hosts.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Half of each round trip.
    pub(crate) fn one_way(&self) -> OneWay {
        let half = |rtt: &Option<Micros>| rtt.map(|rtt| Micros(rtt.0 / 2));
        self.cells.iter().map(|row| row.iter().map(half).collect()).collect()
    }
}

/// The relay of a row: ids begin at 1.
pub(crate) fn relay(row: usize) -> RelayId {
    RelayId(u16::try_from(row + 1).expect("a topology's rows are fewer than its ids"))
}

/// The row of a relay.
pub(crate) fn row(relay: RelayId) -> usize {
    usize::from(relay.0) - 1
}

/// The only link from one row to another.
pub(crate) fn link(from: usize, to: usize) -> LinkId {
    LinkId::new(relay(from), relay(to), LinkIndex::default())
}

/// A mesh with these delays: every relay is transit, every link up, without loss or jitter, and all clocks
/// agree.
pub(crate) fn topology(delays: &OneWay) -> anyhow::Result<Topology> {
    let mut topology = Topology::new();
    for at in 0..delays.len() {
        let attributes = RelayAttributes { transit: true, ..RelayAttributes::default() };
        topology.put_relay(relay(at), attributes)?;
    }
    for (from, row) in delays.iter().enumerate() {
        for (to, delay) in row.iter().enumerate() {
            if let Some(delay) = delay.filter(|_| from != to) {
                let back = delays[to][from].unwrap_or(delay);
                topology.put_link(link(from, to), clean(delay, back))?;
            }
        }
    }
    Ok(topology)
}

/// What is measured of a link with this delay there and back that neither loses nor jitters.
pub(crate) fn clean(delay: Micros, back: Micros) -> LinkMeasure {
    let [fast, slow] = SAMPLES.map(|samples| WindowSample {
        one_way_diff: ClockDiff(i64::from(delay.0)),
        rtt: Micros(delay.0.saturating_add(back.0)),
        samples,
        ..WindowSample::default()
    });
    LinkMeasure { usable: true, fast, slow, ..LinkMeasure::default() }
}

/// A round trip in milliseconds as a cell: what is not above zero is no measurement.
fn cell(rtt_ms: f64) -> Option<Micros> {
    (rtt_ms.is_finite() && rtt_ms > 0.0).then(|| micros(rtt_ms * 1e3))
}

/// Rounded, at least 1 and at most what fits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits before"
)]
fn micros(us: f64) -> Micros {
    Micros(us.round().clamp(1.0, f64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const CSV: &str = "src_region,src_tier,src_instance_class,dst_region,dst_tier,dst_instance_class,\
        min_rtt,avg_rtt,max_rtt,mdev_rtt\n\
        a,PREMIUM,m,b,PREMIUM,m,9,10.5,11,0.1\n\
        b,PREMIUM,m,a,PREMIUM,m,9,11.0,11,0.1\n";

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn both_kinds_of_file_give_round_trips_and_their_halves() {
        let (_dir, csv) = written("rtt.csv", CSV.as_bytes());
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(b"0 10.5\n11 0\n").unwrap();
        let (_gz_dir, matrix) = written("rtt.gz", &gz.finish().unwrap());

        let from_csv = MeasuredArgs { latency_csv: Some(csv), matrix: None }.read().unwrap();
        let from_matrix = MeasuredArgs { latency_csv: None, matrix: Some(matrix) }.read().unwrap();

        let cells = vec![vec![None, Some(Micros(10_500))], vec![Some(Micros(11_000)), None]];
        assert_eq!(from_csv.as_ref().unwrap().cells, cells);
        assert_eq!(from_matrix.unwrap().cells, cells);
        assert_eq!(from_csv.unwrap().one_way()[0][1], Some(Micros(5_250)));
        assert_eq!(MeasuredArgs::default().read().unwrap(), None);
    }

    #[test]
    fn errors_name_the_file() {
        let (_dir, path) = written("bad.txt", b"0 1\n1\n");

        for error in [Rtts::read_matrix(&path), Rtts::read_latency_csv(&path)] {
            assert!(format!("{:#}", error.unwrap_err()).contains("bad.txt: "));
        }
    }

    #[test]
    fn a_topology_has_a_link_for_each_measured_cell() {
        let delays = vec![vec![None, Some(Micros(7))], vec![Some(Micros(9)), None], vec![]];
        let topology = topology(&delays).unwrap();

        assert_eq!(topology.relays().len(), 3);
        assert_eq!(topology.links().len(), 2);
        assert_eq!(topology.link(link(0, 1)).unwrap().slow.rtt, Micros(16));
        assert_eq!(row(link(0, 1).to), 1);
    }

    #[test]
    fn what_is_not_above_zero_is_no_measurement() {
        for absent in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(cell(absent), None);
        }
        assert_eq!(cell(0.000_1), Some(Micros(1)));
        assert_eq!(cell(1e12), Some(Micros(u32::MAX)));
    }
}
