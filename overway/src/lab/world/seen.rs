//! What the processes of a mesh have counted, and what they were told.

use super::World;

/// How a frame comes to a relay: from an edge, from an end at the relay itself, or from another relay.
const FRAMES_IN: [&str; 3] = [
    "overway_relay_access_frames_up_total",
    "overway_relay_frames_originated_total",
    "overway_relay_frames_received_total",
];
const REFUSED_CELL: &str = "overway_relay_access_refused_total{reason=\"cell\"}";

impl World {
    /// Connections that an edge's service has served since its process began.
    ///
    /// # Errors
    /// The edge does not answer.
    pub fn edge_served(&self, edge: usize) -> anyhow::Result<u64> {
        let name = "overway_edge_gateway_connections_served_total";
        self.client.counted(self.edge(edge).admin, &[name])
    }

    /// How many frames have come to these relays since their processes began. One that an edge sent counts twice.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn frames_in(&self, relays: &[usize]) -> anyhow::Result<u64> {
        let count = |&relay: &usize| self.client.counted(self.relay_admin(relay), &FRAMES_IN);
        relays.iter().map(count).sum()
    }

    /// Edges that these relays have refused since their processes began, because they are of another cell.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn refused_for_cell(&self, relays: &[usize]) -> anyhow::Result<u64> {
        let count = |&relay: &usize| self.client.counted(self.relay_admin(relay), &[REFUSED_CELL]);
        relays.iter().map(count).sum()
    }

    /// How many of these relays know of an endpoint of a tenant's services.
    ///
    /// # Errors
    /// A relay does not answer.
    pub fn told_of(&self, tenant: &str, relays: &[usize]) -> anyhow::Result<usize> {
        let mut count = 0;
        for &relay in relays {
            let tenants = self.relay_status(relay)?.tenants;
            let is_told = tenants.iter().any(|known| known.name == tenant && known.endpoints > 0);
            count += usize::from(is_told);
        }
        Ok(count)
    }
}
