//! The names of edges: for each an address that never changes while there are sessions with it, and under it where
//! the edge is attached now.
//!
//! **Names.** A name is an address at relay 0, which is never given, with a number of this endpoint's own. QUIC takes
//! it for the edge's, so that QUIC sees no migration, and never leaves the process.
//!
//! **Who is meant by a frame.** Addresses of edges come and go, so a frame is not told by its source. The dialler
//! draws an *incarnation* of 29 random bits for each far end that it dials. Its frames bear it; those of the far end
//! bear it with [`ACCEPTED`] set.
//!
//! ```text
//!   frame's incarnation         its source
//!   known                       one of the name's addresses     the name's, in order
//!   known, name proven          another address                 the name's, past the order; answers go where they went,
//!                                                               and while the edge is silent there too ([`search`])
//!   known, name not proven yet  another address                 the name's; answers follow it
//!   unknown, not ACCEPTED       any                             a stranger's: a new name
//!   unknown, ACCEPTED           any                             nobody's: dropped
//! ```
//!
//! A name is *proven* when its edge has shown its key and its token and said, within TLS, where it is attached. From
//! then on only the edge's word, of the latest revision, changes where frames for it go. So an edge moves by saying
//! so on its session, in packets that may come from its new address: QUIC judges them as any other. Once it has said
//! so, the order starts anew, for it has not seen what came past it.
//!
//! **Who can do what.** Relays on the way see incarnations, and can drop what they carry; they, and whoever else
//! guesses an incarnation, can make frames of that name.
//! - Such a frame is one more packet that QUIC, or a flow's seal, finds not to be authentic. It reads nothing,
//!   ends nothing, and changes no address.
//! - From an address that is not the edge's, which is all that another attachment can send from, it moves no order
//!   either, for it goes past the lanes.
//! - From the edge's own address, which takes a relay, it may move the order of a lane, and delays until the lane
//!   starts anew, after 200 ms.
//! - While the edge is silent, such a frame also has copies of what is sent to it go to where the frame came from, and
//!   of what was sent last a few: packets that nobody but the edge can read.
//! - Before a name is proven, whoever guesses its incarnation can draw the handshake's packets to himself, and so
//!   make it fail.
//! - A proven edge can say that it is attached where another is. What is sent there is its own sessions' and no more
//!   than QUIC or the sender of a flow sends to one that does not answer.
//!
//! **Sequences** start at the time of the name's making and not at zero: an edge that forgot a name, or everything,
//! answers on it above what it had sent before, which the far end would take for duplicates.
//!
//! **Bounds.** [`NAMES_MAX`] names, of them [`STRANGERS_MAX`] of strangers, [`STRANGERS_AT_MAX`] at one address, each
//! with [`HANDSHAKES_MAX`] handshakes: whoever holds one attachment leaves room for others' handshakes. Names
//! are held by sessions, flows and handshakes; one that nobody holds goes after [`IDLE_MAX`], or sooner where room is
//! needed, the longest unheard first. A number is used again after all others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use overway_tenant::EdgeId;
use overway_wire::{Address, AttachmentId, Class, FlowId, Redundancy, RelayId, Whereabouts};
use ring::rand::{SecureRandom, SystemRandom};

use crate::terms::{self, Terms};

mod search;

use search::Search;

/// Set in the incarnation in frames of the end that was dialled.
pub(crate) const ACCEPTED: u32 = 1 << 31;
/// Names at most; further far ends are not dialled, and not heard. Some 200 bytes each, and their lanes.
const NAMES_MAX: usize = 8_192;
/// Names of far ends that have not proven who they are, at most: as many as handshakes under way.
const STRANGERS_MAX: usize = 1_024;
/// Of them at one address. An edge needs one, or one for each handshake while it starts anew again and again.
const STRANGERS_AT_MAX: usize = 8;
/// Handshakes of a far end under way at once: two for each class on two sorts of terms, and some that were given up over
/// there.
const HANDSHAKES_MAX: usize = 16;
/// A name that nobody holds is kept for the last words of QUIC, which come within three probe time-outs.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Sequences within a microsecond: what the start of a name's sequences leaves room for.
const SEQUENCES_BITS: u32 = 10;

/// An edge as it is known here. Whoever has it holds the name.
#[derive(Debug)]
pub(crate) struct Far {
    name: Address,
    /// Borne by frames from here.
    own: FlowId,
    /// Borne by frames from there.
    its: FlowId,
    places: AtomicU64,
    /// By class and redundancy.
    sequences: [[AtomicU64; Redundancy::ALL.len()]; Class::ALL.len()],
    proof: Mutex<Option<Proof>>,
    /// Whether frames came from elsewhere since the edge said where it is, and whether it then said that it is elsewhere.
    strayed: AtomicBool,
    moved: AtomicBool,
    search: Search,
    handshakes: AtomicUsize,
}

/// A handshake that the far end has begun; it holds the name.
#[derive(Debug)]
pub(crate) struct Handshake(Arc<Far>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
struct Proof {
    edge: EdgeId,
    revision: Revision,
}

/// Which of an edge's words about where it is came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Drawn at random by the edge's process at its start.
    pub(crate) boot: u64,
    /// Counts what the process said.
    pub(crate) number: u64,
}

/// A name is another edge's already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherEdge;

/// Whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// That name's.
    Name { name: Address, from: From },
    /// Nobody's.
    Nobody,
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// One of the name's addresses.
    Home,
    /// The same, for the first time since the edge said that it is where frames came from past the order. The order must
    /// not wait for them.
    NewHome,
    /// Another address.
    Elsewhere,
    /// The same, and the edge is sought there from now on: it is this end's turn to say something.
    Sought,
}

impl Far {
    /// What QUIC takes for its address.
    pub(crate) fn name(&self) -> Address {
        self.name
    }

    /// What frames from here bear.
    pub(crate) fn own_incarnation(&self) -> FlowId {
        self.own
    }

    /// Where frames for it go now.
    pub(crate) fn whereabouts(&self) -> Whereabouts {
        unpacked(self.places.load(Ordering::Relaxed))
    }

    /// The number of the next session frame on these terms.
    pub(crate) fn next_sequence(&self, terms: Terms) -> u64 {
        let of_class = &self.sequences[usize::from(terms.class.code())];
        of_class[terms.redundancy.code() as usize].fetch_add(1, Ordering::Relaxed)
    }

    /// The edge has proven who it is, and says, or does not, where it is attached. An earlier word counts no more.
    pub(crate) fn prove(
        &self,
        edge: EdgeId,
        revision: Revision,
        whereabouts: Option<Whereabouts>,
    ) -> Result<(), OtherEdge> {
        let mut proof = self.proof();
        if let Some(Proof { edge: known, revision: last }) = *proof {
            if known != edge {
                return Err(OtherEdge);
            }
            if last.boot == revision.boot && last.number > revision.number {
                return Ok(());
            }
        }
        *proof = Some(Proof { edge, revision });
        if let Some(whereabouts) = whereabouts {
            let (places, before) = (packed(whereabouts), self.places.load(Ordering::Relaxed));
            self.places.store(places, Ordering::Relaxed);
            self.search.end();
            if places != before && self.strayed.swap(false, Ordering::Relaxed) {
                self.moved.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Whether nothing came from the edge's own addresses for a while.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.search.is_silent(now)
    }

    /// Somebody hints that the edge is there. Whether it is sought there now, and it is this end's turn to say something.
    pub(crate) fn seek(&self, hint: Whereabouts, now: Instant) -> bool {
        let is_known = |address| self.is_at(address);
        let is_news = !is_known(hint.first) || !hint.second.is_none_or(is_known);
        is_news && self.is_proven() && self.search.handle_hint(hint, now)
    }

    /// Where frames for it go too, while it is sought.
    pub(crate) fn sought_at(&self, now: Instant) -> Option<Whereabouts> {
        self.search.hint(now)
    }

    /// Takes note of a packet that is sent.
    pub(crate) fn note_sent(&self, terms: Terms, payload: &Bytes, now: Instant) {
        self.search.note_sent(terms, payload, now);
    }

    /// The packets that were sent last while it was silent, one on each of the terms.
    pub(crate) fn unheard(&self) -> Vec<(Terms, Bytes)> {
        self.search.unheard()
    }

    fn is_at(&self, address: Address) -> bool {
        let Whereabouts { first, second } = self.whereabouts();
        address == first || second == Some(address)
    }

    /// Takes notice of a frame from `source`. Answers follow an edge that has not proven anything.
    fn hear_from(&self, source: Address, now: Instant) -> From {
        if self.is_at(source) {
            self.search.handle_home(now);
            let moved = self.moved.swap(false, Ordering::Relaxed);
            return if moved { From::NewHome } else { From::Home };
        }
        if self.is_proven() {
            self.strayed.store(true, Ordering::Relaxed);
            let is_turn = self.search.handle_hint(Whereabouts::at(source), now);
            return if is_turn { From::Sought } else { From::Elsewhere };
        }
        self.search.handle_home(now);
        let first = self.whereabouts().first;
        let followed = Whereabouts { first: source, second: Some(first) };
        self.places.store(packed(followed), Ordering::Relaxed);
        From::Home
    }

    fn is_proven(&self) -> bool {
        self.proof().is_some()
    }

    /// A proof is replaced whole.
    fn proof(&self) -> MutexGuard<'_, Option<Proof>> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Names {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u16, Entry>,
    /// By what the far end's frames bear.
    incarnations: HashMap<FlowId, u16>,
    /// Accepted and, when last looked at, not proven; the oldest first.
    strangers: Vec<u16>,
    last: u16,
    /// Names that were given up and may still have lanes.
    dropped: Vec<Address>,
}

#[derive(Debug)]
struct Entry {
    far: Arc<Far>,
    heard: Instant,
}

impl Names {
    /// A new name for an edge that is to be dialled. `None`: too many are in use, or the system gives no random bytes.
    pub(crate) fn dial(&self, whereabouts: Whereabouts, now: Instant) -> Option<Arc<Far>> {
        let mut table = self.table();
        let own = loop {
            let drawn = terms::incarnation(FlowId(draw()? & !ACCEPTED));
            if !table.incarnations.contains_key(&FlowId(drawn.0 | ACCEPTED)) {
                break drawn;
            }
        };
        table.insert((own, FlowId(own.0 | ACCEPTED)), whereabouts, now)
    }

    /// Takes notice of a frame of a session, and says whose it is.
    pub(crate) fn hear(&self, source: Address, flow: FlowId, now: Instant) -> Heard {
        let mut table = self.table();
        if let Some(number) = table.incarnations.get(&flow).copied()
            && let Some(entry) = table.entries.get_mut(&number)
        {
            entry.heard = now;
            return Heard::Name { name: entry.far.name, from: entry.far.hear_from(source, now) };
        }
        if flow.0 & ACCEPTED != 0 || !table.has_room_for_stranger(source) {
            return Heard::Nobody;
        }
        let own = FlowId(flow.0 | ACCEPTED);
        match table.insert((own, flow), Whereabouts::at(source), now) {
            Some(far) => {
                table.strangers.push(far.name.attachment.0);
                Heard::Name { name: far.name, from: From::Home }
            }
            None => Heard::Nobody,
        }
    }

    /// Counts a handshake with the edge of that name, unless there are too many.
    pub(crate) fn begin_handshake(&self, name: Address) -> Option<Handshake> {
        let far = self.find(name)?;
        // Given back by the drop, if there are too many too.
        let before = far.handshakes.fetch_add(1, Ordering::Relaxed);
        let handshake = Handshake(far);
        (before < HANDSHAKES_MAX).then_some(handshake)
    }

    /// The edge of that name.
    pub(crate) fn find(&self, name: Address) -> Option<Arc<Far>> {
        Some(Arc::clone(&self.table().entries.get(&name.attachment.0)?.far))
    }

    /// Gives up names that nobody holds and that were not heard for a while.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut table = self.table();
        let is_idle = |entry: &Entry| now.saturating_duration_since(entry.heard) >= IDLE_MAX;
        let entries = table.entries.iter();
        let idle: Vec<_> = entries
            .filter(|(_, entry)| !entry.is_held() && is_idle(entry))
            .map(|(&n, _)| n)
            .collect();
        for number in idle {
            table.remove(number);
        }
    }

    /// Names that were given up since the last call.
    pub(crate) fn take_dropped(&self) -> Vec<Address> {
        std::mem::take(&mut self.table().dropped)
    }

    /// A panic elsewhere leaves the table whole: each change is one call.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.far) > 1
    }
}

impl Table {
    fn insert(
        &mut self,
        (own, its): (FlowId, FlowId),
        whereabouts: Whereabouts,
        now: Instant,
    ) -> Option<Arc<Far>> {
        if self.entries.len() >= NAMES_MAX {
            let free = self.entries.iter().filter(|(_, entry)| !entry.is_held());
            let number = free.min_by_key(|(_, entry)| entry.heard).map(|(&number, _)| number)?;
            self.remove(number);
        }
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.entries.contains_key(&self.last) {
                break;
            }
        }
        let start = first_sequence(SystemTime::now());
        let far = Arc::new(Far {
            name: Address::new(RelayId(0), AttachmentId(self.last)),
            own,
            its,
            places: AtomicU64::new(packed(whereabouts)),
            sequences: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(start))),
            proof: Mutex::default(),
            strayed: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            search: Search::new(now),
            handshakes: AtomicUsize::new(0),
        });
        self.entries.insert(self.last, Entry { far: Arc::clone(&far), heard: now });
        self.incarnations.insert(its, self.last);
        Some(far)
    }

    fn remove(&mut self, number: u16) {
        let Some(Entry { far, .. }) = self.entries.remove(&number) else { return };
        self.incarnations.remove(&far.its);
        self.strangers.retain(|&stranger| stranger != number);
        self.dropped.push(far.name);
    }

    /// Whether there may be another stranger at `source`, for whom an earlier one may have to go.
    fn has_room_for_stranger(&mut self, source: Address) -> bool {
        let Self { entries, strangers, .. } = self;
        strangers.retain(|number| entries.get(number).is_some_and(|entry| !entry.far.is_proven()));
        let is_at = |number: &&u16| {
            entries.get(number).is_some_and(|entry| entry.far.whereabouts().first == source)
        };
        let is_free = |number: &&u16| entries.get(number).is_some_and(|entry| !entry.is_held());
        let gone = if strangers.iter().filter(is_at).count() >= STRANGERS_AT_MAX {
            strangers.iter().filter(is_at).find(is_free)
        } else if strangers.len() >= STRANGERS_MAX {
            strangers.iter().find(is_free)
        } else {
            return true;
        };
        let Some(&gone) = gone else { return false };
        self.remove(gone);
        true
    }
}

/// The time in microseconds, with room for the sequences of each. Zero before 1970.
#[expect(clippy::cast_possible_truncation, reason = "until the year 2541 the bits are enough")]
fn first_sequence(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_micros() as u64) << SEQUENCES_BITS
}

fn draw() -> Option<u32> {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// Both addresses in one word, so that they change together; relay 0, which is never given, for none. Two at one relay
/// are one: a frame's alternate is at another relay.
fn packed(Whereabouts { first, second }: Whereabouts) -> u64 {
    let second = second.filter(|second| second.relay != first.relay);
    u64::from(number_of(first)) << 32 | u64::from(second.map_or(0, number_of))
}

fn unpacked(places: u64) -> Whereabouts {
    let [a, b, c, d, e, f, g, h] = places.to_be_bytes();
    let first = address_of(u32::from_be_bytes([a, b, c, d]));
    let second = Some(address_of(u32::from_be_bytes([e, f, g, h])));
    Whereabouts { first, second: second.filter(|address| address.relay != RelayId(0)) }
}

/// An address as one number: the relay's, then the attachment's.
pub(crate) fn number_of(address: Address) -> u32 {
    u32::from(address.relay.0) << 16 | u32::from(address.attachment.0)
}

/// The address of a number.
pub(crate) fn address_of(number: u32) -> Address {
    let [a, b, c, d] = number.to_be_bytes();
    Address::new(RelayId(u16::from_be_bytes([a, b])), AttachmentId(u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests;
