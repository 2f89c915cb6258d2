//! Why something from a relay is refused. Each text is fit for the operator.

use overway_topology::POLICIES_MAX;
use overway_wire::{Epoch, PolicyId, RelayId};

/// Why a hello is refused. Its text is the reason to send in `Refused`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// No common control version.
    #[error(
        "the relay speaks control versions {min} to {max}, this scheduler {ours_min} to {ours_max}"
    )]
    Version {
        /// The relay's least.
        min: u32,
        /// The relay's greatest.
        max: u32,
        /// This build's least.
        ours_min: u32,
        /// This build's greatest.
        ours_max: u32,
    },
    /// Not a member.
    #[error("{0} is not a member of this mesh; add it with `overway node add`")]
    Unknown(RelayId),
    /// Was a member.
    #[error("{0} was removed from this mesh; join again with a new token")]
    Removed(RelayId),
    /// A name other than the member's.
    #[error("the relay calls itself \"{said}\", but its id belongs to \"{expected}\"")]
    Name {
        /// What the hello says.
        said: String,
        /// The member's name.
        expected: String,
    },
    /// No address, or too many.
    #[error("the relay advertises {count} addresses; 1 to {max} are allowed")]
    AddressCount {
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// Not an address that others could send to.
    #[error("\"{0}\" is not an address that relays can send to; give IP:PORT of one interface")]
    Address(String),
    /// The same address twice.
    #[error("address {0} is advertised twice")]
    AddressTwice(String),
    /// Too many services.
    #[error("the relay offers {count} services; at most {max} are allowed")]
    ServiceCount {
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// The policy is a tenant's.
    #[error("policy {} is that of tenant {}; give that another first", .policy.0, .tenant.0)]
    PolicyInUse {
        /// The policy.
        policy: PolicyId,
        /// The tenant's number.
        tenant: PolicyId,
    },
    /// No such tenant.
    #[error("there is no tenant {}", .0.0)]
    UnknownTenant(PolicyId),
    /// A number that the tenant cannot have.
    #[error("{0} cannot be the tenant's number: it is none, or another's")]
    TenantNumber(u32),
    /// A policy that there is not.
    #[error("there is no policy {0} for the tenant")]
    TenantPolicy(u32),
    /// Too many tenants.
    #[error("there are {0} tenants, which is as many as there can be; remove one")]
    TenantsFull(usize),
    /// Another tenant has the name.
    #[error("tenant {} has the name \"{name}\" already", .id.0)]
    TenantName {
        /// The name.
        name: String,
        /// Who has it.
        id: PolicyId,
    },
    /// A text that is empty where it must not be, or too long.
    #[error(
        "the relay's {what} has {bytes} bytes; at most {max} are allowed, and a name is not empty"
    )]
    Text {
        /// Which text.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The mesh is full.
    #[error("the mesh has {0} relays, which is as many as it can have")]
    MeshFull(usize),
    /// The relay has state of a later scheduler than this one, whose store is thus older than the mesh. The
    /// caller may go on with a greater term: [`crate::Scheduler::handle_term`].
    #[error(
        "the relay has epoch {relay}, this scheduler is at {scheduler}, its store being older than the \
         mesh; dial again while it raises its term"
    )]
    Behind {
        /// The relay's last epoch.
        relay: Epoch,
        /// This scheduler's.
        scheduler: Epoch,
    },
    /// The relay says that it has state of a term which no scheduler of this mesh can have come to.
    #[error("the relay has term {relay}, this scheduler {scheduler}: no mesh comes that far")]
    AbsurdTerm {
        /// The relay's last term.
        relay: u64,
        /// This scheduler's.
        scheduler: u64,
    },
}

/// Why a message of a relay is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The relay has no session, or has it no longer, its reports not counting up: it has to dial anew.
    #[error("the relay has no session")]
    NotConnected,
    /// A hello in the middle of a session.
    #[error("a session has one hello, its first message")]
    SecondHello,
    /// A report that cannot be true.
    #[error("report refused: {0}")]
    Report(#[from] ReportError),
}

/// Why a report is refused; nothing of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum ReportError {
    /// Its number is not above the last one's.
    #[error("its sequence does not count up")]
    Sequence,
    /// More links than a relay can have.
    #[error("it has more links than a relay can have")]
    TooManyLinks,
    /// A link that the reporter does not have.
    #[error("it is about a link that the reporter does not have")]
    NotItsLink,
}

/// Why an operator's wish is not granted. Each text is fit for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// Not a member.
    #[error("{0} is not a member of this mesh")]
    UnknownRelay(RelayId),
    /// A link from a relay to itself.
    #[error("{0} has no link to itself; name two relays")]
    SameRelay(RelayId),
    /// Nothing to undo.
    #[error("{0} is not being drained")]
    NotDrained(String),
    /// Too many drains.
    #[error("there are {0} drains, which is as many as there can be; undo some")]
    DrainsFull(usize),
    /// Policy 0.
    #[error("policy 0 is the unrestricted one; it cannot be changed")]
    Unrestricted,
    /// No such policy.
    #[error("there is no policy {}", .0.0)]
    UnknownPolicy(PolicyId),
    /// Too many policies.
    #[error("there are {POLICIES_MAX} policies, which is as many as there can be; remove one")]
    PoliciesFull,
    /// Another policy has the name.
    #[error("policy {} has the name \"{name}\" already", .id.0)]
    PolicyName {
        /// The name.
        name: String,
        /// Who has it.
        id: PolicyId,
    },
    /// The policy is a tenant's.
    #[error("policy {} is that of tenant {}; give that another first", .policy.0, .tenant.0)]
    PolicyInUse {
        /// The policy.
        policy: PolicyId,
        /// The tenant's number.
        tenant: PolicyId,
    },
    /// No such tenant.
    #[error("there is no tenant {}", .0.0)]
    UnknownTenant(PolicyId),
    /// A number that the tenant cannot have.
    #[error("{0} cannot be the tenant's number: it is none, or another's")]
    TenantNumber(u32),
    /// A policy that there is not.
    #[error("there is no policy {0} for the tenant")]
    TenantPolicy(u32),
    /// Too many tenants.
    #[error("there are {0} tenants, which is as many as there can be; remove one")]
    TenantsFull(usize),
    /// Another tenant has the name.
    #[error("tenant {} has the name \"{name}\" already", .id.0)]
    TenantName {
        /// The name.
        name: String,
        /// Who has it.
        id: PolicyId,
    },
    /// A text that is empty where it must not be, or too long.
    #[error(
        "the policy's {what} has {bytes} bytes; at most {max} are allowed, and it must not be empty"
    )]
    Text {
        /// Which text.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// More regions or providers than a policy may have.
    #[error("the policy has {count} {what}; at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
}
