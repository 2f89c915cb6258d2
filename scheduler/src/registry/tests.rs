use super::*;
use std::sync::Mutex;

/// A store in memory which is preceded by another's change `conflicts` times.
#[derive(Default)]
pub(crate) struct MemoryStore {
    held: Mutex<(Snapshot, usize)>,
}

impl MemoryStore {
    pub(crate) fn with_conflicts(conflicts: usize) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new((Snapshot::default(), conflicts)) })
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(self.held.lock().unwrap().0.clone())
    }

    fn commit(&self, base: u64, change: &Change) -> Result<u64, StoreError> {
        let (held, conflicts) = &mut *self.held.lock().unwrap();
        if *conflicts > 0 {
            *conflicts -= 1;
            held.revision += 1;
        }
        if held.revision != base {
            return Err(StoreError::Conflict);
        }
        held.revision += 1;
        held.term = change.term.unwrap_or(held.term);
        held.last_id = change.last_id.unwrap_or(held.last_id);
        held.members.extend(change.members.iter().map(|m| (m.id, m.clone())));
        for (relay, hello) in change.hellos.iter().cloned() {
            match hello {
                Some(hello) => held.hellos.insert(relay, hello),
                None => held.hellos.remove(&relay),
            };
        }
        held.tokens.retain(|hash, _| !change.tokens_removed.contains(hash));
        held.tokens.extend(change.tokens.iter().cloned());
        held.wishes.apply(&change.wishes);
        for (tenant, record) in change.usage.iter().cloned() {
            match record {
                Some(record) => held.usage.insert(tenant, record),
                None => held.usage.remove(&tenant),
            };
        }
        Ok(held.revision)
    }
}

const NOW: UnixSeconds = UnixSeconds(1_000);
const LATER: UnixSeconds = UnixSeconds(4_600);
const SECRET: SecretHash = [1; 32];
const KEY: KeyHash = [2; 32];

fn registry() -> Registry {
    Registry::new(MemoryStore::with_conflicts(0))
}

fn redeem(
    registry: &Registry,
    hash: &SecretHash,
    key: KeyHash,
    now: UnixSeconds,
) -> Result<Redeemed<()>, RegistryError> {
    registry.redeem(hash, key, now, |_| Ok(()))
}

fn seconds_after(time: UnixSeconds, seconds: u64) -> UnixSeconds {
    UnixSeconds(time.0 + seconds)
}

#[test]
fn a_token_makes_one_member() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();

    let redeemed = redeem(&registry, &SECRET, KEY, NOW).unwrap();

    assert_eq!(
        redeemed,
        Redeemed { relay: RelayId(1), name: "rome".into(), fresh: true, certificate: () }
    );
    assert!(matches!(redeem(&registry, &SECRET, [3; 32], NOW), Err(RegistryError::Used)));
    assert_eq!(registry.snapshot().unwrap().members.len(), 1);
}

#[test]
fn the_same_key_may_ask_again_for_a_minute() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();
    redeem(&registry, &SECRET, KEY, NOW).unwrap();

    let again = redeem(&registry, &SECRET, KEY, seconds_after(NOW, RETRY_SECONDS)).unwrap();
    let late = redeem(&registry, &SECRET, KEY, seconds_after(NOW, RETRY_SECONDS + 1));

    assert_eq!(
        again,
        Redeemed { relay: RelayId(1), name: "rome".into(), fresh: false, certificate: () }
    );
    assert!(matches!(late, Err(RegistryError::Used)));
}

#[test]
fn a_token_whose_certificate_cannot_be_made_stays_unused() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();

    let failed = registry.redeem(&SECRET, KEY, NOW, |_| Err::<(), _>(RegistryError::NoIds));

    assert!(matches!(failed, Err(RegistryError::NoIds)));
    assert!(redeem(&registry, &SECRET, KEY, NOW).is_ok());
}

#[test]
fn a_token_ends() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();

    assert!(matches!(redeem(&registry, &SECRET, KEY, LATER), Err(RegistryError::Expired)));
    assert_eq!(invited(&registry.snapshot().unwrap(), LATER), []);
}

#[test]
fn a_new_invitation_replaces_the_earlier_one() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();
    registry.invite("rome", [9; 32], LATER, NOW).unwrap();

    assert!(matches!(redeem(&registry, &SECRET, KEY, NOW), Err(RegistryError::UnknownToken)));
    assert!(redeem(&registry, &[9; 32], KEY, NOW).is_ok());
}

#[test]
fn an_id_is_never_given_twice() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();
    redeem(&registry, &SECRET, KEY, NOW).unwrap();
    assert_eq!(registry.remove("rome").unwrap(), Removed::Member(RelayId(1)));

    registry.invite("rome", [9; 32], LATER, NOW).unwrap();
    let second = redeem(&registry, &[9; 32], KEY, NOW).unwrap();

    assert_eq!(second.relay, RelayId(2));
    assert!(registry.snapshot().unwrap().members[&RelayId(1)].revoked);
}

#[test]
fn an_id_that_a_lost_store_gave_is_not_given_again_once_its_relay_was_seen() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();

    assert!(registry.saw(RelayId(7)).unwrap());
    assert!(!registry.saw(RelayId(7)).unwrap());
    assert!(!registry.saw(RelayId(3)).unwrap());

    assert_eq!(redeem(&registry, &SECRET, KEY, NOW).unwrap().relay, RelayId(8));
}

#[test]
fn a_removed_member_cannot_ask_again() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();
    redeem(&registry, &SECRET, KEY, NOW).unwrap();
    registry.remove("rome").unwrap();

    assert!(redeem(&registry, &SECRET, KEY, NOW).is_err());
}

#[test]
fn removing_an_invitation_withdraws_its_token() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();

    assert_eq!(registry.remove("rome").unwrap(), Removed::Invitation);

    assert!(matches!(redeem(&registry, &SECRET, KEY, NOW), Err(RegistryError::UnknownToken)));
    assert!(matches!(registry.remove("rome"), Err(RegistryError::NoSuchName(_))));
}

#[test]
fn a_members_hello_is_kept_until_it_is_removed() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();
    redeem(&registry, &SECRET, KEY, NOW).unwrap();

    registry.remember(RelayId(1), b"old").unwrap();
    registry.remember(RelayId(1), b"new").unwrap();
    registry.remember(RelayId(2), b"a stranger's").unwrap();
    let kept = registry.snapshot().unwrap();
    registry.remember(RelayId(1), b"new").unwrap();
    let unchanged = registry.snapshot().unwrap();
    registry.remove("rome").unwrap();
    registry.remember(RelayId(1), b"late").unwrap();

    assert_eq!(kept.hellos.into_iter().collect::<Vec<_>>(), [(RelayId(1), b"new".to_vec())]);
    assert_eq!(unchanged.revision, kept.revision);
    assert!(registry.snapshot().unwrap().hellos.is_empty());
}

#[test]
fn usage_is_kept_of_tenants_that_there_are() {
    let registry = registry();
    let quota = overway_tenant::Quota::default();
    let (im, _) = registry.add_tenant(&"im".parse().unwrap(), Place::Anywhere, quota, NOW).unwrap();
    let other = PolicyId(im.0 + 1);
    let usage = BTreeMap::from([(im, vec![1]), (other, vec![2])]);

    registry.keep_usage(&usage).unwrap();
    let kept = registry.snapshot().unwrap();
    registry.keep_usage(&usage).unwrap();

    assert_eq!(kept.usage, [(im, vec![1])].into());
    assert_eq!(registry.snapshot().unwrap().revision, kept.revision, "nothing new");
    registry.remove_tenant("im").unwrap();
    registry.keep_usage(&BTreeMap::new()).unwrap();
    assert!(registry.snapshot().unwrap().usage.is_empty());
}

#[test]
fn a_members_name_is_not_invited_again() {
    let registry = registry();
    registry.invite("rome", SECRET, LATER, NOW).unwrap();
    redeem(&registry, &SECRET, KEY, NOW).unwrap();

    let refused = registry.invite("rome", [9; 32], LATER, NOW);

    assert!(matches!(refused, Err(RegistryError::NameTaken(_))));
}

#[test]
fn the_number_of_open_tokens_is_bounded_and_ended_ones_make_room() {
    let registry = registry();
    for number in 0..TOKENS_MAX {
        let mut hash = SECRET;
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let mut held = Change { ..Change::default() };
        let token = Token { name: format!("n{number}"), expires: LATER, used: None };
        held.tokens.push((hash, token));
        registry.store.commit(number as u64, &held).unwrap();
    }

    let full = registry.invite("rome", [9; 32], LATER, NOW);
    let room = registry.invite("rome", [9; 32], seconds_after(LATER, 9), LATER);

    assert!(matches!(full, Err(RegistryError::TooManyTokens)));
    assert!(room.is_ok());
    assert_eq!(registry.snapshot().unwrap().tokens.len(), 1);
}

#[test]
fn a_change_that_another_precedes_is_decided_anew() {
    let registry = Registry::new(MemoryStore::with_conflicts(2));

    assert_eq!(registry.raise_term().unwrap(), 1);
    assert_eq!(registry.raise_term().unwrap(), 2);
}

#[test]
fn the_term_is_raised_above_what_relays_know() {
    let registry = registry();

    assert_eq!(registry.raise_term_above(40).unwrap(), 41);
    assert_eq!(registry.raise_term_above(7).unwrap(), 42);
    assert_eq!(registry.snapshot().unwrap().term, 42);
}

#[test]
fn names_are_plain() {
    for name in ["rome", "sao-paulo-2", "1"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    let long = "a".repeat(NAME_CHARS_MAX + 1);
    for name in ["", "-rome", "Rome", "a b", "röme", "a/b", &long] {
        assert!(check_name(name).is_err(), "{name}");
    }
}
