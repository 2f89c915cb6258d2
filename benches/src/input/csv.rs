//! The latency CSV: a header, then one row for each ordered pair of hosts. Fields may be quoted.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

use super::{Rtts, cell};

/// The columns that are read, in whatever order they stand.
const COLUMNS: [&str; 5] = ["src_region", "src_tier", "dst_region", "dst_tier", "avg_rtt"];

/// Parses the text; errors name the line.
pub(super) fn parse(text: &str) -> anyhow::Result<Rtts> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let (_, header) = lines.next().context("line 1: the header is missing")?;
    let header = fields(header).context("line 1")?;
    let places = COLUMNS.map(|name| header.iter().position(|field| field.trim() == name));
    let missing = COLUMNS.iter().zip(places).find(|(_, place)| place.is_none());
    if let Some((name, _)) = missing {
        bail!("line 1: the column {name} is missing");
    }
    let places = places.map(|place| place.expect("no column is missing"));
    let mut pairs = BTreeMap::new();
    for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let (pair, rtt) = row(line, header.len(), places).with_context(|| format!("line {at}"))?;
        let twice = pairs.insert(pair.clone(), rtt).is_some();
        ensure!(!twice, "line {at}: {} to {} stands here twice", pair.0, pair.1);
    }
    ensure!(!pairs.is_empty(), "no pair is measured");
    Ok(rtts(&pairs))
}

type Pair = (String, String);

fn row(line: &str, columns: usize, places: [usize; 5]) -> anyhow::Result<(Pair, f64)> {
    let fields = fields(line)?;
    ensure!(fields.len() == columns, "{} fields, but the header has {columns}", fields.len());
    let [source, source_tier, destination, destination_tier, rtt] =
        places.map(|place| fields[place].trim());
    let rtt: f64 =
        rtt.parse().with_context(|| format!("avg_rtt is to be a number of ms, not {rtt:?}"))?;
    let host = |region, tier| format!("{region} {tier}");
    Ok(((host(source, source_tier), host(destination, destination_tier)), rtt))
}

/// The fields of a line by RFC 4180: quoted ones may hold commas, and quotes doubled.
fn fields(line: &str) -> anyhow::Result<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        let field = fields.last_mut().expect("there is always a field");
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    ensure!(!quoted, "a quote is not closed");
    Ok(fields)
}

/// Hosts in order of name.
fn rtts(pairs: &BTreeMap<Pair, f64>) -> Rtts {
    let mut names: Vec<String> =
        pairs.keys().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    names.sort();
    names.dedup();
    let at = |name| names.binary_search(name).expect("every name was collected");
    let mut cells = vec![vec![None; names.len()]; names.len()];
    for ((from, to), &rtt) in pairs.iter().filter(|((from, to), _)| from != to) {
        cells[at(from)][at(to)] = cell(rtt);
    }
    Rtts { names, cells }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::Micros;

    const HEADER: &str = "src_region,src_tier,dst_region,dst_tier,avg_rtt";

    fn error(lines: &[&str]) -> String {
        format!("{:#}", parse(&lines.join("\n")).unwrap_err())
    }

    #[test]
    fn quoted_fields_and_other_orders_of_columns_are_read() {
        let text = "avg_rtt,\"src_region\",src_tier,dst_region,dst_tier,note\r\n\
            \"1.25\",\"a, or \"\"b\"\"\",P,c,S,\"x,y\"\r\n\r\n";

        let rtts = parse(text).unwrap();

        assert_eq!(rtts.names, ["a, or \"b\" P", "c S"]);
        assert_eq!(rtts.cells[0][1], Some(Micros(1_250)));
        assert_eq!(rtts.cells[1][0], None);
    }

    #[test]
    fn tiers_of_a_region_are_hosts_of_their_own() {
        let rtts = parse(&[HEADER, "a,P,a,S,0.5", "a,P,a,P,0.1"].join("\n")).unwrap();

        assert_eq!(rtts.names, ["a P", "a S"]);
        assert_eq!(rtts.cells[0], [None, Some(Micros(500))]);
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        assert!(error(&[]).contains("line 1: the header is missing"));
        assert!(error(&["src_region,src_tier"]).contains("line 1: the column dst_region"));
        assert!(error(&[HEADER, "a,P,b,P,1", "b,P,a,P,fast"]).starts_with("line 3: avg_rtt"));
        assert!(error(&[HEADER, "a,P,b,P"]).starts_with("line 2: 4 fields"));
        assert!(error(&[HEADER, "a,P,b,\"P,1"]).starts_with("line 2: a quote"));
        assert!(error(&[HEADER, "a,P,b,P,1", "a,P,b,P,2"]).contains("line 3: a P to b P"));
        assert!(error(&[HEADER]).contains("no pair"));
    }
}
