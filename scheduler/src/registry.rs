//! Who belongs to the mesh: the rules over the [`Store`].
//!
//! A name is **invited** (a token exists), then **joined** (the token was redeemed and a member made, in
//! one change of the store), then perhaps **removed** (revoked for good; the name is free again, the id
//! never). What the operator wishes of its routes goes with it. Inviting a name again replaces its earlier token. A token works once; the same key may ask
//! again for [`RETRY_SECONDS`], so that an answer lost on the way strands nobody.

mod cells;
mod tenants;
mod wishes;

pub(crate) use cells::Settled;
pub(crate) use tenants::Place;
pub use tenants::TenantError;
pub(crate) use tenants::found as find_tenant;
pub use wishes::{CELLS_MAX, DRAINS_MAX, NAMES_MAX, WishError};
pub(crate) use wishes::{expanded, no_such_policy};

use std::collections::BTreeMap;
use std::sync::Arc;

use overway_wire::{PolicyId, RelayId};
use subtle::ConstantTimeEq;

use crate::store::{
    Change, KeyHash, Member, SecretHash, Snapshot, Store, StoreError, Token, TokenUse, UnixSeconds,
};

/// How long the key that redeemed a token may ask again. The client gives up well before.
pub const RETRY_SECONDS: u64 = 60;
/// Open tokens. Each is about 100 bytes; a thousand relays are invited at once at most.
pub const TOKENS_MAX: usize = 4_096;
/// Characters of a name, as in a DNS label.
pub const NAME_CHARS_MAX: usize = 63;
/// Attempts at a change that others keep preceding. Only another scheduler or an operator does.
const ATTEMPTS_MAX: usize = 16;

/// The rules of membership over a store. Calls block on the disk: not for the thread of the core.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
}

/// A token was redeemed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed<C> {
    /// The member's id.
    pub relay: RelayId,
    /// The member's name.
    pub name: String,
    /// Whether the member was made by this call, not by an earlier one of the same key.
    pub fresh: bool,
    /// What was made for the member: its certificate.
    pub certificate: C,
}

/// A name that was invited and has not joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    /// The name.
    pub name: String,
    /// When its token ends.
    pub expires: UnixSeconds,
}

/// What a removal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A member: it is revoked.
    Member(RelayId),
    /// An invitation: its token no longer works.
    Invitation,
}

/// Why the registry did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No name can be like this.
    #[error(
        "a node's name is 1 to {NAME_CHARS_MAX} of a-z, 0-9 and hyphen, and does not start with a hyphen"
    )]
    Name,
    /// A member has the name.
    #[error("a node named {0:?} is a member already: remove it first, or choose another name")]
    NameTaken(String),
    /// Neither a member nor an invitation has the name.
    #[error("no node is named {0:?}")]
    NoSuchName(String),
    /// There are [`TOKENS_MAX`] open tokens.
    #[error("{TOKENS_MAX} invitations are open: wait until some end, or remove some")]
    TooManyTokens,
    /// The token is not known: mistyped, replaced, withdrawn, or long over.
    #[error("this token is not known here: ask for a new one (overway node add)")]
    UnknownToken,
    /// The token has ended.
    #[error("this token has expired: ask for a new one (overway node add)")]
    Expired,
    /// The token was used by another key.
    #[error("this token was used already: ask for a new one (overway node add)")]
    Used,
    /// Every relay id was given.
    #[error("all 65,535 relay ids were given")]
    NoIds,
    /// No certificate can be made of the request.
    #[error("no certificate can be issued: {0}")]
    Certificate(#[from] overway_pki::AuthorityError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Registry {
    /// Makes a registry over `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Raises the term and returns it; done once at each start.
    ///
    /// # Errors
    /// If the store fails.
    pub fn raise_term(&self) -> Result<u64, RegistryError> {
        self.raise_term_above(0)
    }

    /// Raises the term, at least above `other`, and returns it: relays know of a later scheduler than the store.
    ///
    /// # Errors
    /// If the store fails.
    pub fn raise_term_above(&self, other: u64) -> Result<u64, RegistryError> {
        self.change(|snapshot| {
            let term = snapshot.term.max(other).saturating_add(1);
            Ok((Change { term: Some(term), ..Change::default() }, term))
        })
    }

    /// Everything in the store.
    ///
    /// # Errors
    /// If the store fails.
    pub fn snapshot(&self) -> Result<Snapshot, RegistryError> {
        Ok(self.store.snapshot()?)
    }

    /// Invites `name` by the token whose secret has this hash, in place of its earlier invitation. Tokens
    /// that are over are cleared away.
    ///
    /// # Errors
    /// If the name cannot be or is a member's, or too many tokens are open.
    pub fn invite(
        &self,
        name: &str,
        hash: SecretHash,
        expires: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), RegistryError> {
        check_name(name)?;
        self.change(|snapshot| {
            if live_member(snapshot, name).is_some() {
                return Err(RegistryError::NameTaken(name.to_owned()));
            }
            let ended =
                |token: &Token| is_over(token, now) || (token.used.is_none() && token.name == name);
            let tokens_removed: Vec<SecretHash> = snapshot
                .tokens
                .iter()
                .filter(|(_, token)| ended(token))
                .map(|(hash, _)| *hash)
                .collect();
            if snapshot.tokens.len() - tokens_removed.len() >= TOKENS_MAX {
                return Err(RegistryError::TooManyTokens);
            }
            let token = Token { name: name.to_owned(), expires, used: None };
            let tokens = vec![(hash, token)];
            Ok((Change { tokens, tokens_removed, ..Change::default() }, ()))
        })
    }

    /// Redeems the token whose secret has this hash for a key. `certify` makes the certificate for the id
    /// that the member is to have, before the change of the store that makes the member and marks the
    /// token: if it fails the token is as it was.
    ///
    /// # Errors
    /// If the token is unknown, over, or used by another key, no id is left, or `certify` fails.
    pub fn redeem<C>(
        &self,
        hash: &SecretHash,
        key: KeyHash,
        now: UnixSeconds,
        certify: impl Fn(RelayId) -> Result<C, RegistryError>,
    ) -> Result<Redeemed<C>, RegistryError> {
        self.change(|snapshot| {
            let (hash, token) = find_token(snapshot, hash).ok_or(RegistryError::UnknownToken)?;
            let name = token.name.clone();
            if let Some(used) = token.used {
                let relay = redeemed_before(snapshot, used, &key, now)?;
                let certificate = certify(relay)?;
                let redeemed = Redeemed { relay, name, fresh: false, certificate };
                return Ok((Change::default(), redeemed));
            }
            let change = admission(snapshot, hash, token, key, now)?;
            let relay = RelayId(change.last_id.expect("an admission gives an id"));
            let certificate = certify(relay)?;
            Ok((change, Redeemed { relay, name, fresh: true, certificate }))
        })
    }

    /// Revokes the member of that name, or withdraws its invitation.
    ///
    /// # Errors
    /// If there is neither.
    pub fn remove(&self, name: &str) -> Result<Removed, RegistryError> {
        self.change(|snapshot| {
            let tokens_removed: Vec<SecretHash> = snapshot
                .tokens
                .iter()
                .filter(|(_, token)| token.name == name)
                .map(|(hash, _)| *hash)
                .collect();
            let invited = snapshot.tokens.values().any(|t| t.name == name && t.used.is_none());
            if let Some(member) = live_member(snapshot, name) {
                let removed = Removed::Member(member.id);
                let members = vec![Member { revoked: true, ..member.clone() }];
                let hellos = vec![(member.id, None)];
                let wishes = wishes::without(&snapshot.wishes, member.id);
                let change =
                    Change { members, hellos, tokens_removed, wishes, ..Change::default() };
                return Ok((change, removed));
            }
            if !invited {
                return Err(RegistryError::NoSuchName(name.to_owned()));
            }
            Ok((Change { tokens_removed, ..Change::default() }, Removed::Invitation))
        })
    }

    /// Keeps what a member said of itself in its last hello, unless it is kept already.
    ///
    /// # Errors
    /// If the store fails.
    pub fn remember(&self, relay: RelayId, hello: &[u8]) -> Result<(), RegistryError> {
        self.change(|snapshot| {
            let is_member = snapshot.members.get(&relay).is_some_and(|member| !member.revoked);
            let is_known = snapshot.hellos.get(&relay).is_some_and(|known| known == hello);
            let mut change = Change::default();
            if is_member && !is_known {
                change.hellos.push((relay, Some(hello.to_vec())));
            }
            Ok((change, ()))
        })
    }

    /// Keeps what tenants have sent, as far as there are these tenants and it is not kept already; of others nothing.
    ///
    /// # Errors
    /// If the store fails.
    pub fn keep_usage(&self, usage: &BTreeMap<PolicyId, Vec<u8>>) -> Result<(), RegistryError> {
        self.change(|snapshot| {
            let (tenants, kept) = (&snapshot.wishes.tenants, &snapshot.usage);
            let is_news = |(number, record): &(&PolicyId, &Vec<u8>)| {
                tenants.contains_key(number) && kept.get(number) != Some(record)
            };
            let news = usage.iter().filter(is_news);
            let put = news.map(|(&number, record)| (number, Some(record.clone())));
            let gone = kept.keys().filter(|number| !tenants.contains_key(number));
            let usage = put.chain(gone.map(|&number| (number, None))).collect();
            Ok((Change { usage, ..Change::default() }, ()))
        })
    }

    /// Hears that a relay shows a certificate of this mesh: an id that a later store than this gave is not
    /// given again. Says whether it was news.
    ///
    /// # Errors
    /// If the store fails.
    pub fn saw(&self, relay: RelayId) -> Result<bool, RegistryError> {
        self.change(|snapshot| {
            let is_news = relay.0 > snapshot.last_id;
            let last_id = is_news.then_some(relay.0);
            Ok((Change { last_id, ..Change::default() }, is_news))
        })
    }

    /// Applies what `decide` makes of the snapshot, and decides anew if another change was first. An
    /// empty change is not written.
    fn change<T, E: From<StoreError>>(
        &self,
        decide: impl Fn(&Snapshot) -> Result<(Change, T), E>,
    ) -> Result<T, E> {
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.store.snapshot()?;
            let (change, outcome) = decide(&snapshot)?;
            if change == Change::default() {
                return Ok(outcome);
            }
            match self.store.commit(snapshot.revision, &change) {
                Ok(_) => return Ok(outcome),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// The names that were invited, have not joined, and still may, in order.
pub fn invited(snapshot: &Snapshot, now: UnixSeconds) -> Vec<Invited> {
    let open = snapshot.tokens.values().filter(|token| token.used.is_none() && now < token.expires);
    let mut invited: Vec<Invited> =
        open.map(|token| Invited { name: token.name.clone(), expires: token.expires }).collect();
    invited.sort_by(|a, b| a.name.cmp(&b.name));
    invited
}

/// Checks that a node may have that name.
///
/// # Errors
/// [`RegistryError::Name`] if it may not.
pub fn check_name(name: &str) -> Result<(), RegistryError> {
    let fits = name.len() <= NAME_CHARS_MAX;
    let starts = name.starts_with(|c: char| c != '-');
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits && starts && plain { Ok(()) } else { Err(RegistryError::Name) }
}

fn live_member<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Member> {
    snapshot.members.values().find(|member| !member.revoked && member.name == name)
}

/// Looks at every token and takes the same time for each, so that timing says nothing of the hashes.
fn find_token<'a>(snapshot: &'a Snapshot, hash: &SecretHash) -> Option<(SecretHash, &'a Token)> {
    let mut found = None;
    for (held, token) in &snapshot.tokens {
        if bool::from(held.ct_eq(hash)) {
            found = Some((*held, token));
        }
    }
    found
}

/// The change that makes a member of an unused token.
fn admission(
    snapshot: &Snapshot,
    hash: SecretHash,
    token: &Token,
    key: KeyHash,
    now: UnixSeconds,
) -> Result<Change, RegistryError> {
    if now >= token.expires {
        return Err(RegistryError::Expired);
    }
    if live_member(snapshot, &token.name).is_some() {
        return Err(RegistryError::NameTaken(token.name.clone()));
    }
    let id = snapshot.last_id.checked_add(1).ok_or(RegistryError::NoIds)?;
    let relay = RelayId(id);
    let name = token.name.clone();
    let used = Some(TokenUse { relay, key, at: now });
    Ok(Change {
        last_id: Some(id),
        members: vec![Member { id: relay, name, revoked: false, created: now }],
        tokens: vec![(hash, Token { used, ..token.clone() })],
        ..Change::default()
    })
}

/// The member that a used token made, if its own key asks again in time.
fn redeemed_before(
    snapshot: &Snapshot,
    used: TokenUse,
    key: &KeyHash,
    now: UnixSeconds,
) -> Result<RelayId, RegistryError> {
    let member = snapshot.members.get(&used.relay).filter(|member| !member.revoked);
    let same_key = bool::from(used.key.ct_eq(key));
    let in_time = now.seconds_since(used.at) <= RETRY_SECONDS;
    match member {
        Some(member) if same_key && in_time => Ok(member.id),
        Some(_) | None => Err(RegistryError::Used),
    }
}

fn is_over(token: &Token, now: UnixSeconds) -> bool {
    match token.used {
        Some(used) => now.seconds_since(used.at) > RETRY_SECONDS,
        None => now >= token.expires,
    }
}

#[cfg(test)]
pub(crate) mod tests;
