//! Who offers the services that the gateway's clients ask for.

use overway_client::Edge;
use overway_gateway::{Resolver, Resolving};
use overway_wire::PolicyId;

/// What the edge's access relays say.
pub(crate) struct Services(pub(crate) Edge);

impl Resolver for Services {
    fn far_ends<'a>(&'a self, service: &'a str, _policy: PolicyId) -> Resolving<'a> {
        Box::pin(async move { self.0.resolve(service).await.unwrap_or_default() })
    }

    /// An edge's traffic is under its tenant's policy, which relays write: no other is known here.
    fn policy(&self, _name: &str) -> Option<PolicyId> {
        None
    }
}
