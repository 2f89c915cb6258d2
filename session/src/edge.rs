//! What an edge's endpoint is made of, and what edges say to one another before anything else.
//!
//! An edge is known by its key, and by nothing else: TLS shows it raw (RFC 7250), the dialler takes no other than the
//! one it asked for, and whoever accepts learns in TLS which it is. What the edge may do its tenant says, in a token
//! bound to the key. Each end sends its own as the first thing, on a unidirectional stream, with where it is
//! attached, and again what changes; the one that was dialled when it has verified the other's. Until the other's token has been verified an end takes no request, makes none,
//! and gives the other room for little more than a token.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use overway_tenant::{
    Claims, EdgeId, EdgeKey, TOKEN_BYTES_MAX, TenantKeys, TenantName, TokenError,
};
use overway_wire::{Address, RelayId, Whereabouts};
use prost::Message;
use ring::hmac;
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, mpsc, watch};

use crate::fabric::{FabricSender, Inbound};
use crate::names::{Far, Names, Revision, address_of, number_of};

pub(crate) mod tls;

/// Bytes of a [`Word`] at most: a token, and a few numbers with room to grow.
pub(crate) const WORD_BYTES_MAX: usize = TOKEN_BYTES_MAX + 128;
/// What the key signs to get a secret of its own; TLS and attaching sign other things.
const RESET_SECRET: &[u8] = b"overway stateless reset 1";

/// An edge's attachments to the fabric, as one port.
#[derive(Debug)]
pub struct EdgePort {
    /// Takes frames for the fabric. It is not said on which attachment they go.
    pub sender: Arc<dyn FabricSender>,
    /// Frames for this end by any attachment, in the batches in which they came. Closed: the edge stops.
    pub receiver: mpsc::Receiver<Vec<Inbound>>,
    /// Where the edge is attached now, which far ends are told; `None` while it is nowhere.
    pub whereabouts: watch::Receiver<Option<Whereabouts>>,
}

/// Who an edge is, and how it knows others.
pub struct EdgeIdentity {
    /// The edge's own key.
    pub key: Arc<EdgeKey>,
    /// The tenant, whose edges alone there are sessions with.
    pub tenant: TenantName,
    /// The edge's token; far ends are told a new one at once.
    pub token: watch::Receiver<String>,
    /// The tenant's keys, and what it has revoked. Standing sessions are judged anew when they change.
    pub keys: watch::Receiver<Arc<TenantKeys>>,
}

impl fmt::Debug for EdgeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, tenant, .. } = self;
        f.debug_struct("EdgeIdentity")
            .field("key", key)
            .field("tenant", tenant)
            .finish_non_exhaustive()
    }
}

/// The local end.
pub(crate) struct LocalEdge {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) token: watch::Receiver<String>,
    pub(crate) keys: watch::Receiver<Arc<TenantKeys>>,
    pub(crate) places: watch::Receiver<Placed>,
    /// Drawn at random at the start of the process.
    pub(crate) boot: u64,
    pub(crate) names: Arc<Names>,
    tenant: TenantName,
}

/// Where the local end is, and how many changes ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) number: u64,
    pub(crate) whereabouts: Option<Whereabouts>,
}

/// A far edge, as one session knows it.
#[derive(Debug)]
pub(crate) struct EdgeSession {
    pub(crate) id: EdgeId,
    pub(crate) far: Arc<Far>,
    pub(crate) boot: u64,
    standing: Mutex<Standing>,
    renewed: Notify,
    urged: Notify,
}

/// The token that counts.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) token: String,
    pub(crate) claims: Arc<Claims>,
}

/// What one end says to the other.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Word {
    /// In the first word, and when there is a new one.
    #[prost(string, optional, tag = "1")]
    pub(crate) token: Option<String>,
    /// In the first word: drawn at random by the process at its start.
    #[prost(fixed64, tag = "2")]
    pub(crate) boot: u64,
    /// In the first word, when it changes, and again while the far end is sought.
    #[prost(message, optional, tag = "3")]
    pub(crate) attached: Option<Attached>,
}

/// Where an end is attached.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Attached {
    /// Greater than when the process said something else, on whatever session.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// The relay in the upper 16 bits, the attachment in the lower; 0 for nowhere.
    #[prost(fixed32, tag = "2")]
    pub(crate) first: u32,
    /// Likewise; 0 for none.
    #[prost(fixed32, tag = "3")]
    pub(crate) second: u32,
}

impl LocalEdge {
    pub(crate) fn new(
        identity: EdgeIdentity,
        places: watch::Receiver<Placed>,
        boot: u64,
    ) -> (Self, hmac::Key) {
        let EdgeIdentity { key, tenant, token, keys } = identity;
        // The same after a restart, so that far ends believe the resets which it answers their packets with (RFC 9000
        // section 10.3). Ed25519 signs the same bytes alike, and nobody is shown this signature.
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &key.sign(RESET_SECRET));
        let certified = tls::certified(&key);
        let names = Arc::new(Names::default());
        (Self { certified, token, keys, places, boot, names, tenant }, reset_key)
    }

    /// Judges the token of an edge which holds the key of this id, as things stand now; the reason is for people.
    pub(crate) fn judge(&self, token: String, id: EdgeId) -> Result<Standing, String> {
        let keys = Arc::clone(&self.keys.borrow());
        let verdict = overway_tenant::verify(&token, &*keys, SystemTime::now());
        let claims = verdict.map_err(|error| match error {
            TokenError::UnknownTenant(tenant) => self.other_tenant(&tenant),
            error => error.to_string(),
        })?;
        if claims.tenant != self.tenant {
            return Err(self.other_tenant(&claims.tenant));
        }
        if claims.edge != id {
            return Err("the token is for another key than the edge's".to_owned());
        }
        Ok(Standing { token, claims: Arc::new(claims) })
    }

    fn other_tenant(&self, tenant: &TenantName) -> String {
        format!("the token is of tenant \"{tenant}\", not of \"{}\"", self.tenant)
    }
}

impl fmt::Debug for LocalEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEdge").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl EdgeSession {
    pub(crate) fn new(id: EdgeId, far: Arc<Far>, boot: u64, standing: Standing) -> Self {
        let (renewed, urged) = (Notify::new(), Notify::new());
        Self { id, far, boot, standing: Mutex::new(standing), renewed, urged }
    }

    /// The token that counts now.
    pub(crate) fn standing(&self) -> Standing {
        self.lock().clone()
    }

    /// What the far end may do now.
    pub(crate) fn claims(&self) -> Arc<Claims> {
        Arc::clone(&self.lock().claims)
    }

    /// Puts a newer token in the place of the last.
    pub(crate) fn renew(&self, standing: Standing) {
        *self.lock() = standing;
        self.renewed.notify_one();
    }

    /// When there is a newer token.
    pub(crate) async fn renewed(&self) {
        self.renewed.notified().await;
    }

    /// Has the far end told once more where this end is.
    pub(crate) fn urge(&self) {
        self.urged.notify_one();
    }

    /// When it is to be told.
    pub(crate) async fn urged(&self) {
        self.urged.notified().await;
    }

    /// A token is replaced whole.
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Word {
    /// Where the sender is, if it says so.
    pub(crate) fn whereabouts(&self) -> Option<Whereabouts> {
        let Attached { first, second, .. } = self.attached?;
        let real = |number| Some(address_of(number)).filter(|it: &Address| it.relay != RelayId(0));
        Some(Whereabouts { first: real(first)?, second: real(second) })
    }

    /// Which of the words of a process this is; `boot`: the process's.
    pub(crate) fn revision(&self, boot: u64) -> Revision {
        Revision { boot, number: self.attached.map_or(0, |attached| attached.number) }
    }
}

impl From<Placed> for Attached {
    fn from(Placed { number, whereabouts }: Placed) -> Self {
        let first = whereabouts.map_or(0, |at| number_of(at.first));
        let second = whereabouts.and_then(|at| at.second).map_or(0, number_of);
        Self { number, first, second }
    }
}

#[cfg(test)]
mod tests {
    use overway_wire::AttachmentId;

    use super::*;

    const FIRST: Address = Address::new(RelayId(3), AttachmentId(9));
    const SECOND: Address = Address::new(RelayId(0xfffe), AttachmentId(0xffff));

    #[test]
    fn a_word_says_where_its_sender_is() {
        for whereabouts in [
            None,
            Some(Whereabouts::at(FIRST)),
            Some(Whereabouts { first: SECOND, second: Some(FIRST) }),
        ] {
            let attached = Some(Placed { number: 7, whereabouts }.into());
            let word = Word { token: None, boot: 1, attached };
            assert_eq!(word.whereabouts(), whereabouts);
            assert_eq!(word.revision(1), Revision { boot: 1, number: 7 });
        }
    }

    #[test]
    fn the_longest_word_fits_the_bound() {
        let attached = Some(Attached { number: u64::MAX, first: u32::MAX, second: u32::MAX });
        let token = Some("t".repeat(TOKEN_BYTES_MAX));
        assert!(Word { token, boot: u64::MAX, attached }.encoded_len() <= WORD_BYTES_MAX);
    }
}
