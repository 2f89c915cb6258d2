//! Going on with another configuration. What can fail is done first, and changes nothing where it does.

use std::collections::BTreeSet;
use std::sync::Arc;

use overway_client::Edge;
use overway_gateway::{Gateway, GatewayConfig};
use overway_telemetry::reload::{self, Reloaded};
use tokio::sync::watch;

use crate::Config;
use crate::offers::Offers;

/// What of a running edge may change, and what it goes by now.
pub(crate) struct Live {
    /// As it was applied; what needs a restart is as it was at the start.
    pub(crate) held: Config,
    pub(crate) edge: Edge,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) offers: watch::Sender<Offers>,
    /// Services to which forwards lead.
    pub(crate) named: watch::Sender<BTreeSet<String>>,
}

impl reload::Live<Config> for Live {
    async fn apply(&mut self, mut next: Config) -> anyhow::Result<Reloaded> {
        let mut told = Reloaded::default();
        keep_fixed(&self.held, &mut next, &mut told);
        told.applied.extend(self.gateway.reload(next.gateway.clone()).await?);
        // Nothing fails from here on.
        if told.live("access.relays", &self.held.relays, &next.relays) {
            self.edge.attachments().give_relays(&next.relays);
        }
        told.live("offer", &self.held.offers, &next.offers);
        let offers = Offers::new(&next.offers, &next.gateway, Some(&*self.offers.borrow()));
        self.offers.send_if_modified(|held| {
            let is_other = !held.is_same(&offers);
            if is_other {
                *held = offers;
            }
            is_other
        });
        let named = keep_at_hand(&self.edge, &next.gateway);
        for service in self.named.send_replace(named.clone()).difference(&named) {
            self.edge.let_go(service);
        }
        overway_telemetry::log::reload(self.held.log.as_deref(), next.log.as_deref(), &mut told);
        self.held = next;
        Ok(told)
    }
}

/// Keeps the services at hand to which forwards lead; says which these are.
pub(crate) fn keep_at_hand(edge: &Edge, gateway: &GatewayConfig) -> BTreeSet<String> {
    let named = gateway.forwards.iter().map(|forward| forward.service.clone());
    named.filter(|service| edge.keep_at_hand(service)).collect()
}

/// Keeps what cannot change while the edge runs, and names it. Destructured, so that a new key is either fixed or not.
fn keep_fixed(held: &Config, next: &mut Config, told: &mut Reloaded) {
    macro_rules! keep {
        ($($key:literal: $field:ident),+ $(,)?) => {
            let Config { $($field,)+ relays: _, offers: _, gateway: _, log: _ } = next;
            $(
                told.fixed($key, &held.$field, $field);
                $field.clone_from(&held.$field);
            )+
        };
    }
    keep!(
        "edge.tenant": tenant,
        "edge.key_file": key_file,
        "edge.token_file": token_file,
        "edge.tenant_keys_file": tenant_keys_file,
        "edge.state_dir": state_dir,
        "edge.handback": handback,
        "access.ca_file": ca_file,
        "access.tcp_port": tcp_port,
        "access.discover": discover,
        "access.discover_ca_file": discover_ca_file,
        "access.nearest": nearest,
        "admin.listen": admin,
    );
}

#[cfg(test)]
mod tests {
    use overway_config::Document;

    use super::*;

    const HELD: &str = "\
[edge]
tenant = \"shop\"
key_file = \"edge.key\"
token_file = \"edge.jwt\"
tenant_keys_file = \"shop.jwks.json\"
[access]
relays = [\"127.0.0.1:4434\"]
ca_file = \"ca.pem\"
";

    fn config(text: &str) -> Config {
        Config::try_from(&Document::new("edge.toml", text)).unwrap()
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let text =
            HELD.replace("edge.key", "other.key").replace("4434\"", "4434\", \"127.0.0.1:1\"");
        let text = text + "[admin]\nlisten = \"127.0.0.1:9403\"\n";
        let (held, mut next, mut told) = (config(HELD), config(&text), Reloaded::default());

        keep_fixed(&held, &mut next, &mut told);

        assert_eq!(told.needs_restart, ["edge.key_file", "admin.listen"]);
        assert_eq!((next.admin, next.key_file), (None, held.key_file));
        assert_eq!(next.relays.len(), 2);
    }
}
