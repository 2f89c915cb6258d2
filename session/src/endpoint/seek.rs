//! Edges that are silent, sought where somebody else says that they are: see [`crate::names`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use overway_wire::Address;
use tokio::sync::mpsc;

use super::{Inner, SessionEndpoint};
use crate::far::FarEnd;
use crate::pool::Session;

impl SessionEndpoint {
    /// A directory says where edges are attached. Those with which there are sessions, and of which nothing came for a
    /// second, are sought there too if that is elsewhere: streams and flows go on once one answers. To be said again as
    /// long as it is so; the tries become rarer, down to one in four seconds. What is said of an edge that is heard, and
    /// what is wrong, changes nothing.
    pub fn seek(&self, far_ends: &[FarEnd]) {
        let now = Instant::now();
        let silent = self.inner.pool.silent(now);
        let due: BTreeSet<Address> =
            silent.iter().filter(|session| is_due(session, far_ends, now)).map(name).collect();
        for name in due {
            self.inner.call(name);
        }
    }
}

impl Inner {
    /// Answers frames that come from where an edge has not said that it is, while it is silent: it has moved.
    pub(super) async fn watch_sought(self: Arc<Self>, mut sought: mpsc::Receiver<Address>) {
        while let Some(name) = sought.recv().await {
            self.call(name);
        }
    }

    /// Tries whether an edge hears this end where it is sought, and tells it where this end is.
    fn call(&self, name: Address) {
        let sessions = self.pool.by_name(name);
        let edges = || sessions.iter().filter_map(|session| session.edge.as_ref());
        if let Some(edge) = edges().next() {
            tracing::debug!(edge = %edge.id, "a silent edge is sought where it may be");
            self.socket.repeat(&edge.far, Instant::now());
        }
        edges().for_each(|edge| edge.urge());
    }
}

fn name(session: &Session) -> Address {
    session.far
}

fn is_due(session: &Session, far_ends: &[FarEnd], now: Instant) -> bool {
    let Some(edge) = &session.edge else { return false };
    let told = far_ends.iter().find_map(|far| match far {
        FarEnd::Edge { id, whereabouts } if *id == edge.id => *whereabouts,
        FarEnd::Edge { .. } | FarEnd::Relay(_) => None,
    });
    told.is_some_and(|told| edge.far.seek(told, now))
}
