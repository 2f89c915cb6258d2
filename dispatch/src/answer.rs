//! What a client is answered, as JSON has it.

use std::net::{IpAddr, SocketAddr};

use overway_wire::RelayId;
use serde::{Deserialize, Serialize};

use crate::distance::{Basis, Distance};
use crate::mesh::Client;
use crate::order::{Candidate, Standing};

/// Relays in an answer, unless more are asked for.
pub const LIMIT_DEFAULT: usize = 8;
/// Relays in an answer at most.
pub const LIMIT_MAX: usize = 32;

/// The query of `GET /v1/access`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The client's address; unless said the caller's own.
    pub client: Option<IpAddr>,
    /// The client's tenant: only relays of its cell are answered.
    pub tenant: Option<String>,
    /// Relays in the answer, at most [`LIMIT_MAX`]; [`LIMIT_DEFAULT`] unless said.
    pub limit: Option<usize>,
    /// Tells clients of one address apart, among whom relays are shared; unless said the address.
    pub key: Option<String>,
}

impl Asked {
    /// The key of a client of this address.
    pub fn key(&self, address: IpAddr) -> u64 {
        match &self.key {
            Some(key) => Client::key_of(key.as_bytes()),
            None => Client::key_of(address.to_canonical().to_string().as_bytes()),
        }
    }

    /// How many relays are to be answered.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
    }
}

/// The body of `GET /v1/access`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The client's address, as it was seen or given.
    pub client: Option<IpAddr>,
    /// In the order in which the client is to try them.
    pub relays: Vec<Nearest>,
}

/// One access relay of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nearest {
    /// Its id.
    pub relay: u16,
    /// Its name.
    pub name: String,
    /// Where edges attach (UDP).
    pub addresses: Vec<SocketAddr>,
    /// Where they attach over TLS on TCP; empty if the relay does not say so.
    #[serde(default)]
    pub tcp_addresses: Vec<SocketAddr>,
    /// Its region; empty if not said.
    pub region: String,
    /// Its provider; empty if not said.
    pub provider: String,
    /// The round trip to the client, measured or estimated; `null` if nothing is known.
    pub rtt_ms: Option<f64>,
    /// How it stands for this client: `open`, `filling`, `reserve`, `full` or `draining`.
    pub state: String,
    /// Whether it is of a partner of the client's cell, of which no relay is reached.
    #[serde(default)]
    pub partner: bool,
    /// Why it is where it is: how its distance is known first, then what else counts.
    pub why: Vec<Why>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// For programs: `measured`, `via`, `located`, `unknown`, `load`, `weight`, `partner`, or a standing.
    pub reason: String,
    /// The figure that counts, if there is one: milliseconds, per cent, or a weight.
    pub value: Option<f64>,
    /// For people.
    pub text: String,
}

impl Why {
    fn new(reason: &str, value: Option<f64>, text: String) -> Self {
        Self { reason: reason.to_owned(), value, text }
    }
}

impl Nearest {
    /// All reasons in one line.
    pub fn why_text(&self) -> String {
        let texts: Vec<&str> = self.why.iter().map(|why| why.text.as_str()).collect();
        texts.join("; ")
    }
}

/// Why a relay is where it is. `name` names relays.
pub(crate) fn why<'a>(
    candidate: &Candidate,
    standing: Standing,
    is_partner: bool,
    name: impl Fn(RelayId) -> &'a str,
) -> Vec<Why> {
    let mut reasons = vec![of_distance(candidate.distance, name)];
    let percent = candidate.fill_permille.min(1_000).div_ceil(10);
    reasons.push(Why::new("load", Some(percent.into()), format!("{percent} % full")));
    reasons.push(Why::new(
        "weight",
        Some(candidate.weight.into()),
        format!("weight {}", candidate.weight),
    ));
    if is_partner {
        let text = "of a partner of the tenant's cell, of which none is reached".to_owned();
        reasons.push(Why::new("partner", None, text));
    }
    let text = match standing {
        Standing::Open => return reasons,
        Standing::Filling => "fills up: relays with more room go first",
        Standing::Reserve => "in reserve: for when no other has room",
        Standing::Full => "has no room",
        Standing::Draining => "is drained: it sends its edges away",
    };
    reasons.push(Why::new(standing.name(), None, text.to_owned()));
    reasons
}

fn of_distance<'a>(distance: Distance, name: impl Fn(RelayId) -> &'a str) -> Why {
    let Distance::Known(rtt, basis) = distance else {
        let text = "how far it is from the client is not known";
        return Why::new("unknown", None, text.to_owned());
    };
    let ms = f64::from(rtt.0) / 1e3;
    match basis {
        Basis::Measured => {
            let text = format!("{ms:.1} ms measured from the client's network");
            Why::new("measured", Some(ms), text)
        }
        Basis::Via(relay) => {
            let text = format!("about {ms:.0} ms by way of {}, which was measured", name(relay));
            Why::new("via", Some(ms), text)
        }
        Basis::Located(km) => {
            let text = format!("about {ms:.0} ms, {km} km from the client's place");
            Why::new("located", Some(ms), text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_wire::Micros;

    #[test]
    fn reasons_are_for_programs_and_people() {
        let candidate = Candidate {
            relay: RelayId(1),
            distance: Distance::of(Micros(12_340), Basis::Via(RelayId(2))),
            weight: 50,
            fill_permille: 912,
            is_draining: false,
        };
        let reasons = why(&candidate, Standing::Filling, false, |_| "fra");
        let texts: Vec<&str> = reasons.iter().map(|why| why.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "about 12 ms by way of fra, which was measured",
                "92 % full",
                "weight 50",
                "fills up: relays with more room go first"
            ]
        );
        let names: Vec<&str> = reasons.iter().map(|why| why.reason.as_str()).collect();
        assert_eq!(names, ["via", "load", "weight", "filling"]);
        assert_eq!(reasons[1].value, Some(92.0));
    }

    #[test]
    fn an_answer_is_read_back_as_it_was_written() {
        let nearest = Nearest {
            relay: 3,
            name: "fra".into(),
            addresses: vec!["[2001:db8::1]:4434".parse().unwrap()],
            tcp_addresses: vec!["[2001:db8::1]:443".parse().unwrap()],
            region: String::new(),
            provider: String::new(),
            rtt_ms: None,
            state: "open".into(),
            partner: true,
            why: vec![Why::new("unknown", None, "x".into())],
        };
        let answer = Answer { client: "192.0.2.1".parse().ok(), relays: vec![nearest] };
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
        assert!(json.contains(r#""rtt_ms":null"#), "{json}");
        let older = json.replace(r#""tcp_addresses":["[2001:db8::1]:443"],"#, "");
        let older = older.replace(r#""partner":true,"#, "");
        let read = serde_json::from_str::<Answer>(&older).unwrap();
        assert!(older != json && read.relays[0].tcp_addresses.is_empty(), "of a process of before");
    }
}
