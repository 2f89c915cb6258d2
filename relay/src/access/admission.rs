//! Who may attach: a token of a tenant that the relay knows, shown by whoever holds the key that it names.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::SystemTime;

use overway_relay_core::CellStanding;
use overway_tenant::{
    Claims, EdgeId, EdgePublicKey, Month, Quota, Tenant, TenantKeys, TenantName, Tenants,
    TokenError, verify,
};
use overway_wire::PolicyId;
use overway_wire::access::EXPORTER_BYTES;
use overway_wire::access::messages::{Attach, RefusalCode, VERSION_MAX, VERSION_MIN};

/// After so long an edge may try a relay again that has no room, or does not know its tenant yet.
const RETRY_LATER_MS: u32 = 5_000;

/// Judges edges.
pub trait Admission: Send + Sync + 'static {
    /// Whether an edge may attach. `exporter` is what this connection's TLS exporter gives.
    ///
    /// # Errors
    /// Why not.
    fn admit(
        &self,
        attach: &Attach,
        exporter: &[u8; EXPORTER_BYTES],
        now: SystemTime,
    ) -> Result<Admitted, Refusal>;

    /// Whether an edge that was admitted might be no more, or on other terms.
    fn has_changed(&self, admitted: &Admitted) -> bool;
}

/// An edge that may attach.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Who it is.
    pub edge: EdgeId,
    /// What its tenant lets it do.
    pub claims: Claims,
    /// Its tenant's number, the policy of its frames.
    pub tenant: PolicyId,
    /// What its tenant's edges may use together.
    pub quota: Quota,
    /// The name of its tenant's cell; empty: none.
    pub cell: String,
    /// What this relay is to its tenant's cell. At [`CellStanding::Reserve`] an edge stays that is attached already, for
    /// a while; it is told to leave.
    pub standing: CellStanding,
    /// The month in which they have sent what they may, as the scheduler says.
    pub exhausted: Option<Month>,
    /// The protocol's version.
    pub version: u32,
    /// What the table was when this was judged; see [`TenantTable::generation`].
    pub generation: u64,
}

impl Admitted {
    /// The same, for an edge that is not attached here yet.
    ///
    /// # Errors
    /// [`Refusal::Reserve`].
    pub(crate) fn into_newcomer(self) -> Result<Self, Refusal> {
        match self.standing {
            CellStanding::Own | CellStanding::Partner => Ok(self),
            CellStanding::Reserve | CellStanding::Outside => {
                Err(Refusal::Reserve { cell: self.cell })
            }
        }
    }
}

/// Why an edge may not attach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The message makes no sense.
    #[error("the attach message is malformed: {0}")]
    Malformed(&'static str),
    /// No common version.
    #[error(
        "this relay speaks access versions {VERSION_MIN} to {VERSION_MAX}, the edge {0} to {1}"
    )]
    Version(u32, u32),
    /// The token does not count.
    #[error(transparent)]
    Token(TokenError),
    /// The token is another key's.
    #[error("the token is bound to another key than the one shown; mint it for this edge's id")]
    Key,
    /// The key is not held, or the signature is of another connection.
    #[error("the signature is not that of the key shown, for this connection")]
    Signature,
    /// No room.
    #[error("{0}")]
    Full(&'static str),
    /// The tenant uses what it may.
    #[error(
        "quota of attachments: the tenant has {0} edges attached to this relay, as many as it may"
    )]
    Attachments(u32),
    /// The relay goes.
    #[error("this relay is draining; attach to another one")]
    Draining,
    /// The relay is of another cell.
    #[error(
        "tenant \"{tenant}\" stays in cell \"{cell}\", of which this relay is not; attach to one that is"
    )]
    Cell {
        /// Whose edge it is.
        tenant: TenantName,
        /// Where it belongs.
        cell: String,
    },
    /// The relay is of a partner of the cell, which is reached itself.
    #[error(
        "this relay only stands in for cell \"{cell}\", which is reached; attach to a relay of it"
    )]
    Reserve {
        /// Where the edge belongs.
        cell: String,
    },
}

impl Refusal {
    /// What programs are told.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Malformed(_) => RefusalCode::Malformed,
            Self::Version(..) => RefusalCode::Version,
            Self::Token(TokenError::UnknownTenant(_)) => RefusalCode::Tenant,
            Self::Token(TokenError::Revoked(_) | TokenError::RevokedKey(_)) => RefusalCode::Revoked,
            Self::Token(_) => RefusalCode::Token,
            Self::Key | Self::Signature => RefusalCode::Proof,
            Self::Full(_) => RefusalCode::Full,
            Self::Attachments(_) => RefusalCode::Quota,
            Self::Draining => RefusalCode::Draining,
            Self::Cell { .. } | Self::Reserve { .. } => RefusalCode::Cell,
        }
    }

    /// When to try again, in milliseconds; 0: not with the same token.
    pub fn retry_after_ms(&self) -> u32 {
        match self.code() {
            // What a scheduler pushes may be on its way.
            RefusalCode::Tenant
            | RefusalCode::Full
            | RefusalCode::Quota
            | RefusalCode::Draining
            | RefusalCode::Cell => RETRY_LATER_MS,
            RefusalCode::Unknown
            | RefusalCode::Malformed
            | RefusalCode::Version
            | RefusalCode::Token
            | RefusalCode::Revoked
            | RefusalCode::Proof => 0,
        }
    }
}

/// Where a relay looks tenants up: its pushed state.
pub trait TenantTable: Send + Sync + 'static {
    /// The tenant of that name.
    fn tenant(&self, name: &TenantName) -> Option<Arc<Tenant>>;

    /// What this relay is to a tenant's cell now.
    fn standing(&self, tenant: &Tenant) -> CellStanding;

    /// Grows with each change of the table.
    fn generation(&self) -> u64;

    /// The generation in which what the table says of a tenant changed last; that of a tenant which is not in it is
    /// greater than all.
    fn changed_in(&self, tenant: PolicyId) -> u64;
}

/// Admission by token and key.
#[derive(Debug)]
pub struct TokenAdmission<T> {
    tenants: T,
}

impl<T: TenantTable> TokenAdmission<T> {
    /// Admission to the tenants of a table.
    pub const fn new(tenants: T) -> Self {
        Self { tenants }
    }
}

impl<T: TenantTable> Admission for TokenAdmission<T> {
    fn admit(
        &self,
        attach: &Attach,
        exporter: &[u8; EXPORTER_BYTES],
        now: SystemTime,
    ) -> Result<Admitted, Refusal> {
        // Before the table is looked at: a change that comes meanwhile is seen as one.
        let generation = self.tenants.generation();
        let version = VERSION_MAX.min(attach.version_max);
        if version < VERSION_MIN.max(attach.version_min) {
            return Err(Refusal::Version(attach.version_min, attach.version_max));
        }
        let key = attach.public_key.as_slice().try_into();
        let key = EdgePublicKey(key.map_err(|_| Refusal::Malformed("a key has 32 bytes"))?);
        // The cheapest proof first; whoever has no key at all learns nothing about tenants.
        if !key.verify(exporter, &attach.signature) {
            return Err(Refusal::Signature);
        }
        let looked = LookedUp { table: &self.tenants, tenant: OnceCell::new() };
        let claims = verify(&attach.token, &looked, now).map_err(Refusal::Token)?;
        let tenant = looked.tenant.into_inner().flatten();
        let tenant = tenant.expect("a token was verified by its tenant's keys");
        if !claims.is_for(&key) {
            return Err(Refusal::Key);
        }
        let standing = self.tenants.standing(&tenant);
        if standing == CellStanding::Outside {
            let (tenant, cell) = (tenant.name().clone(), tenant.cell.clone());
            return Err(Refusal::Cell { tenant, cell });
        }
        Ok(Admitted {
            edge: key.id(),
            claims,
            tenant: tenant.number,
            quota: tenant.quota,
            exhausted: tenant.exhausted,
            cell: tenant.cell.clone(),
            standing,
            version,
            generation,
        })
    }

    fn has_changed(&self, admitted: &Admitted) -> bool {
        self.tenants.changed_in(admitted.tenant) > admitted.generation
    }
}

/// The one tenant that a token names, held while the token is judged.
struct LookedUp<'a, T> {
    table: &'a T,
    tenant: OnceCell<Option<Arc<Tenant>>>,
}

impl<T: TenantTable> Tenants for LookedUp<'_, T> {
    fn keys_of(&self, name: &TenantName) -> Option<&TenantKeys> {
        let tenant = self.tenant.get_or_init(|| self.table.tenant(name));
        tenant.as_deref().map(|tenant| &tenant.keys)
    }
}
