//! The edge's own token, looked at before anybody else does.

use std::time::SystemTime;

use overway_tenant::{Claims, EdgeId, EdgeKey, TenantKeys, TenantName, TokenError};

/// Why the edge's own token is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnTokenError {
    /// It does not count at all.
    #[error("the token does not count: {0}")]
    Invalid(#[from] TokenError),
    /// It is another tenant's.
    #[error("the token is of tenant \"{token}\", not of \"{tenant}\"")]
    Tenant {
        /// The tenant that it names.
        token: TenantName,
        /// The tenant whose keys the edge has.
        tenant: TenantName,
    },
    /// It is another edge's.
    #[error("the token is for another key: have one made for this edge's, {0}")]
    Key(EdgeId),
}

/// What the edge's own token says, if it counts now, for this key.
///
/// # Errors
/// Why it does not, and what to do.
pub fn own_claims(token: &str, key: &EdgeKey, keys: &TenantKeys) -> Result<Claims, OwnTokenError> {
    let claims = overway_tenant::verify(token, keys, SystemTime::now())?;
    if claims.tenant != keys.tenant {
        return Err(OwnTokenError::Tenant { token: claims.tenant, tenant: keys.tenant.clone() });
    }
    if !claims.is_for(&key.public()) {
        return Err(OwnTokenError::Key(key.id()));
    }
    Ok(claims)
}
