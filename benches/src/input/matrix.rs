//! The plain matrix: as many lines as there are hosts, each with as many numbers.

use std::io::Read;

use anyhow::{Context, ensure};

use super::{Rtts, cell};

/// First bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Unpacked bytes that are read at most: a matrix of as many relays as there can be is smaller, and a file that
/// unpacks to more is not meant well.
const BYTES_MAX: u64 = 1 << 30;

/// The text of a file, unpacked if it is gzipped.
pub(super) fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    let bytes = if bytes.starts_with(&GZIP) { unpacked(&bytes)? } else { bytes };
    String::from_utf8(bytes).context("not text")
}

fn unpacked(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(bytes).take(BYTES_MAX + 1).read_to_end(&mut all);
    read.context("cannot unpack")?;
    ensure!(all.len() as u64 <= BYTES_MAX, "unpacks to more than {BYTES_MAX} bytes");
    Ok(all)
}

/// Parses the text; errors name the line. Lines without numbers are skipped.
pub(super) fn parse(text: &str) -> anyhow::Result<Rtts> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let lines: Vec<_> = lines.filter(|(_, line)| !line.trim().is_empty()).collect();
    let count = lines.len();
    ensure!(count > 0, "no numbers");
    let rows = lines
        .into_iter()
        .enumerate()
        .map(|(row, (at, line))| cells(line, row, count).with_context(|| format!("line {at}")));
    let cells = rows.collect::<anyhow::Result<_>>()?;
    Ok(Rtts { names: (0..count).map(|at| format!("host {at}")).collect(), cells })
}

fn cells(
    line: &str,
    row: usize,
    count: usize,
) -> anyhow::Result<Vec<Option<overway_wire::Micros>>> {
    let number = |(column, text): (usize, &str)| {
        let number: f64 =
            text.parse().with_context(|| format!("{text:?} is to be a number of ms"))?;
        Ok(cell(number).filter(|_| column != row))
    };
    let cells = line.split_whitespace().enumerate().map(number);
    let cells: Vec<_> = cells.collect::<anyhow::Result<_>>()?;
    let found = cells.len();
    ensure!(
        found == count,
        "{found} numbers, but there are {count} lines: one is to match the other"
    );
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::Micros;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn rows_are_sources_and_the_diagonal_is_not_looked_at() {
        let rtts = parse("9\t1.5  nan\n\n2 9 -1\n 3 0 9\n").unwrap();

        let row = |to: [u32; 3]| to.map(|us| (us > 0).then_some(Micros(us))).to_vec();
        let expected = vec![row([0, 1_500, 0]), row([2_000, 0, 0]), row([3_000, 0, 0])];
        assert_eq!(rtts.cells, expected);
        assert_eq!(rtts.names[2], "host 2");
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        assert_eq!(error(" \n"), "no numbers");
        assert!(error("0 1\n1 x\n").starts_with("line 2: \"x\""));
        assert!(error("0 1\n\n1\n").starts_with("line 3: 1 numbers, but there are 2 lines"));
    }

    #[test]
    fn a_broken_archive_is_an_error() {
        assert!(text(vec![0x1f, 0x8b, 8, 0, 0]).is_err());
        assert!(text(vec![0xff, 0xfe]).is_err());
        assert_eq!(text(b"0".to_vec()).unwrap(), "0");
    }
}
