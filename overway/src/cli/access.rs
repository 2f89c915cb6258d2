//! `overway access`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use overway_dispatch::Answer;

use super::admin::{AdminArgs, Client};
use super::failure::Failure;
use super::output;
use super::text::{Table, count};

/// Show which access relays a client should try, in order, and why.
///
/// The distance is what relays have measured with clients of the same network (/24, or /48 of IPv6), or
/// else an estimate from places; among relays that are about as near, clients are spread by weight and
/// room left. A scheduler is asked, or any relay (--admin with its admin address): each answers from the
/// same pushed state, also when no scheduler is left.
///
/// Examples:
///   overway access                              for a client on this machine
///   overway access --client 203.0.113.77
///   overway access --client 203.0.113.77 --tenant shop
///   overway access --admin http://127.0.0.1:9402
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct AccessArgs {
    /// The client's address; unless said the one from which this command asks.
    #[arg(long, value_name = "ADDR")]
    client: Option<IpAddr>,
    /// The client's tenant: only relays of its cell are shown.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// What tells the client from others of its address, such as its edge's id.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Relays to show, at most 32.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// Print JSON, as `GET /v1/access` has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks and prints.
pub(crate) fn run(args: &AccessArgs) -> Result<ExitCode, Failure> {
    let client = args.client.map(|client| client.to_string());
    let limit = args.limit.map(|limit| limit.to_string());
    let said =
        [("client", &client), ("tenant", &args.tenant), ("key", &args.key), ("limit", &limit)];
    let query: Vec<(&str, &str)> =
        said.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let answer: Answer = Client::new(&args.admin)?.get_with("/v1/access", &query)?;
    match args.json {
        true => output::print_json(&answer)?,
        false => output::print(&text(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Answer) -> String {
    let client = answer.client.map_or_else(|| "the client".to_owned(), |client| client.to_string());
    if answer.relays.is_empty() {
        return format!(
            "No access relay for {client}: none has an [access] section, or none is reached.\n"
        );
    }
    let mut table = Table::new(&["RELAY", "ADDRESS", "RTT", "STATE", "WHY"]);
    for relay in &answer.relays {
        let udp = relay.addresses.iter().map(ToString::to_string);
        let tcp = relay.tcp_addresses.iter().map(|address| format!("tcp:{address}"));
        let addresses: Vec<String> = udp.chain(tcp).collect();
        let state = match relay.partner {
            true => format!("{}, partner", relay.state),
            false => relay.state.clone(),
        };
        let rtt = relay.rtt_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:.1} ms"));
        let why = relay.why_text();
        table.row([relay.name.clone(), addresses.join(" "), rtt, state, why]);
    }
    let relays = count(answer.relays.len() as u64, "access relay");
    format!("{relays} for {client}, the first first:\n{}", table.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_dispatch::{Nearest, Why};

    #[test]
    fn an_answer_is_a_table_in_the_order_of_trying() {
        let why = |text: &str| Why { reason: "load".into(), value: None, text: text.into() };
        let relay = |name: &str, rtt_ms| Nearest {
            relay: 1,
            name: name.into(),
            addresses: vec!["203.0.113.6:4434".parse().unwrap()],
            tcp_addresses: vec!["203.0.113.6:443".parse().unwrap()],
            region: String::new(),
            provider: String::new(),
            rtt_ms,
            state: "open".into(),
            partner: rtt_ms.is_none(),
            why: vec![why("near"), why("2 % full")],
        };
        let client = "192.0.2.1".parse().ok();
        let relays = vec![relay("rome", Some(12.34)), relay("oslo", None)];
        let text_of = text(&Answer { client, relays });
        let lines: Vec<&str> = text_of.lines().collect();
        assert_eq!(lines[0], "2 access relays for 192.0.2.1, the first first:");
        assert!(lines[1].starts_with("RELAY  ADDRESS"), "{text_of}");
        assert!(
            lines[2].contains("12.3 ms  ") && lines[2].ends_with("near; 2 % full"),
            "{text_of}"
        );
        assert!(lines[3].contains("unknown") && lines[3].contains("open, partner"), "{text_of}");
        assert!(lines[2].contains("tcp:203.0.113.6:443  ") && !lines[2].contains("partner"));
        assert!(text(&Answer { client, relays: vec![] }).starts_with("No access relay"));
    }
}
