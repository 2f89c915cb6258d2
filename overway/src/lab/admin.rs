//! What the lab asks of relays and the scheduler: their admin interfaces, over HTTP on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use overway_relay::fault::RawRule;
use overway_scheduler::api::{CellRequest, KeyRequest, NodeRequest, TenantRequest, TokenBody};
use overway_tenant::JwkSet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;

/// Time for an answer. Admin interfaces answer within milliseconds unless their process is frozen or
/// the machine overloaded.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// What a relay says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct RelayStatus {
    /// Its id.
    pub relay: u16,
    /// Its name.
    pub name: String,
    /// Whether it has a control connection.
    pub scheduler_connected: bool,
    /// How often its process woke late.
    pub self_stalls: u64,
    /// How often a link went down.
    pub downs: u64,
    /// How often a link became suspect.
    pub suspects: u64,
    /// Its links.
    pub links: Vec<LinkStatus>,
    /// The path that frames to each relay would take now.
    pub paths: Vec<PathStatus>,
    /// The tenants that it was told of.
    pub tenants: Vec<TenantStatus>,
}

/// What an edge says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EdgeStatus {
    /// Whether it is attached and knows whom its forwards lead to.
    pub(super) ready: bool,
    /// The relay of its first address.
    pub(super) first: Option<u16>,
    /// That of its second.
    pub(super) second: Option<u16>,
}

/// One of a relay's links.
#[derive(Clone, Debug, Deserialize)]
pub struct LinkStatus {
    /// The relay at the other end.
    pub neighbour: u16,
    /// Which parallel link.
    pub index: u8,
    /// `up`, `suspect`, `down` or `unknown`, from the neighbour.
    pub inbound: String,
    /// The same, towards it.
    pub outbound: String,
}

/// The path that frames of one class to one relay would take.
#[derive(Clone, Debug, Deserialize)]
pub struct PathStatus {
    /// The relay.
    pub destination: u16,
    /// `realtime`, `interactive` or `bulk`.
    pub class: String,
    /// Relays after this one, the destination last; `None` without a path.
    pub path: Option<Vec<u16>>,
}

/// What a relay knows of a tenant.
#[derive(Clone, Debug, Deserialize)]
pub struct TenantStatus {
    /// Its name.
    pub name: String,
    /// Endpoints of its services.
    pub endpoints: usize,
}

impl LinkStatus {
    /// Whether it carries both ways.
    pub fn is_up(&self) -> bool {
        self.inbound == "up" && self.outbound == "up"
    }
}

/// Asks admin interfaces.
#[derive(Clone, Debug)]
pub(super) struct Client(Agent);

impl Client {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER_TIME_MAX))
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Self(config.into())
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        address: SocketAddr,
        path: &str,
    ) -> anyhow::Result<T> {
        let url = format!("http://{address}{path}");
        answer(self.0.get(&url).call(), &url)?.read_json().with_context(|| url)
    }

    pub(super) fn text(&self, address: SocketAddr, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{address}{path}");
        answer(self.0.get(&url).call(), &url)?.read_to_string().with_context(|| url)
    }

    pub(super) fn is_ready(&self, address: SocketAddr) -> bool {
        let answer = self.0.get(format!("http://{address}/readyz")).call();
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(super) fn relay_status(&self, address: SocketAddr) -> anyhow::Result<RelayStatus> {
        self.get(address, "/v1/status")
    }

    /// Invites a node; the token that it is to redeem.
    pub(super) fn invite(&self, scheduler: SocketAddr, name: &str) -> anyhow::Result<String> {
        let url = format!("http://{scheduler}/v1/nodes");
        let request = NodeRequest { name: name.to_owned(), ttl_s: None };
        let body: TokenBody = answer(self.0.post(&url).send_json(request), &url)?.read_json()?;
        Ok(body.token)
    }

    /// Makes a cell, or changes it.
    pub(super) fn put_cell(
        &self,
        scheduler: SocketAddr,
        name: &str,
        request: &CellRequest,
    ) -> anyhow::Result<()> {
        let url = format!("http://{scheduler}/v1/cells/{name}");
        answer(self.0.put(&url).send_json(request), &url).map(drop)
    }

    /// The sum of some counters of a process, over all labels that their names do not have.
    pub(super) fn counted(&self, admin: SocketAddr, names: &[&str]) -> anyhow::Result<u64> {
        let text = self.text(admin, "/metrics")?;
        let value = |name| summed(&text, name).with_context(|| format!("{name} is not counted"));
        names.iter().map(|name| value(name)).sum()
    }

    /// Makes a tenant with these keys, of a cell if one is given.
    pub(super) fn add_tenant(
        &self,
        scheduler: SocketAddr,
        name: &str,
        cell: Option<&str>,
        keys: &JwkSet,
    ) -> anyhow::Result<()> {
        let url = format!("http://{scheduler}/v1/tenants");
        let (name, cell) = (name.to_owned(), cell.map(str::to_owned));
        let request = TenantRequest { name: name.clone(), cell, ..TenantRequest::default() };
        answer(self.0.post(&url).send_json(request), &url)?;
        let url = format!("{url}/{name}/keys");
        for key in &keys.keys {
            let request = KeyRequest { key: key.clone(), replaces: None };
            answer(self.0.post(&url).send_json(request), &url)?;
        }
        Ok(())
    }

    pub(super) fn set_fault(&self, relay: SocketAddr, rule: &RawRule) -> anyhow::Result<()> {
        let url = format!("http://{relay}/v1/fault");
        answer(self.0.put(&url).send_json(rule), &url).map(drop)
    }

    pub(super) fn restore_fault(
        &self,
        relay: SocketAddr,
        source: SocketAddr,
    ) -> anyhow::Result<()> {
        let url = format!("http://{relay}/v1/fault?source={source}");
        answer(self.0.delete(&url).call(), &url).map(drop)
    }

    /// Sends a verb to a lab. What the lab refuses it says in words for people.
    pub(super) fn perform<T: DeserializeOwned>(
        &self,
        lab: SocketAddr,
        request: &impl serde::Serialize,
    ) -> anyhow::Result<T> {
        let mut response = self.0.post(format!("http://{lab}/v1/lab")).send_json(request)?;
        if !response.status().is_success() {
            bail!("{}", response.body_mut().read_to_string()?.trim());
        }
        Ok(response.body_mut().read_json()?)
    }
}

/// The body of a successful answer; otherwise what the answer says is wrong.
fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    url: &str,
) -> anyhow::Result<ureq::Body> {
    let mut response = response.with_context(|| url.to_owned())?;
    if !response.status().is_success() {
        let said = response.body_mut().read_to_string().unwrap_or_default();
        bail!("{url} answered {}: {}", response.status(), said.trim());
    }
    Ok(response.into_body())
}

/// The sum of a counter over its labels, `None` if it is not there.
fn summed(text: &str, name: &str) -> Option<u64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (_, value) = rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' '))??;
        value.parse::<u64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_not_taken_for_a_longer_one() {
        let text = "# TYPE a_total counter\na_total{reason=\"x y\"} 2\na_total{reason=\"z\"} 3\na_total_b 7\nb 1\n";

        assert_eq!(summed(text, "a_total"), Some(5));
        assert_eq!(summed(text, "a_total{reason=\"z\"}"), Some(3));
        assert_eq!((summed(text, "b"), summed(text, "c")), (Some(1), None));
    }
}
