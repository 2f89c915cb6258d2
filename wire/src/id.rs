//! Identifiers. Each is a newtype, so that a relay is never passed where a flow is meant.

use std::fmt;

/// A relay's number in its mesh. Given once by the scheduler and never used again, so that a stale
/// frame or certificate cannot name a new relay. Zero is never given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u16);

/// Which of the parallel links between two relays: a pair of addresses, numbered 0 to 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(u8);

impl LinkIndex {
    /// The greatest index; it travels in four bits.
    pub const MAX: Self = Self(15);

    /// Makes an index, or `None` above [`Self::MAX`].
    pub const fn new(index: u8) -> Option<Self> {
        if index <= Self::MAX.0 { Some(Self(index)) } else { None }
    }

    /// The index as a number from 0 to 15.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// A directed link: what `from` sends to `to` over their parallel link `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// The sending relay.
    pub from: RelayId,
    /// The receiving relay.
    pub to: RelayId,
    /// Which parallel link between the two.
    pub index: LinkIndex,
}

impl LinkId {
    /// Makes a directed link's name.
    pub const fn new(from: RelayId, to: RelayId, index: LinkIndex) -> Self {
        Self { from, to, index }
    }

    /// The same parallel link the other way.
    pub const fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, index: self.index }
    }
}

/// One parallel link as one of its two ends names it: the neighbour and the index. Stands for both
/// directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourLink {
    /// The relay at the other end.
    pub neighbour: RelayId,
    /// Which parallel link to it.
    pub index: LinkIndex,
}

impl NeighbourLink {
    /// Makes a neighbour link's name.
    pub const fn new(neighbour: RelayId, index: LinkIndex) -> Self {
        Self { neighbour, index }
    }

    /// The direction in which `local` sends.
    pub const fn outbound(self, local: RelayId) -> LinkId {
        LinkId::new(local, self.neighbour, self.index)
    }

    /// The direction in which `local` receives.
    pub const fn inbound(self, local: RelayId) -> LinkId {
        LinkId::new(self.neighbour, local, self.index)
    }
}

/// Which end at a relay: a gateway, or an attached edge. Zero is the relay itself (notices).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId(pub u16);

impl AttachmentId {
    /// The relay itself: where notices come from and go to.
    pub const RELAY: Self = Self(0);
    /// The relay's built-in gateway.
    pub const GATEWAY: Self = Self(1);
}

/// Where a frame comes from or goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The access relay.
    pub relay: RelayId,
    /// The end attached to it.
    pub attachment: AttachmentId,
}

impl Address {
    /// Makes an address.
    pub const fn new(relay: RelayId, attachment: AttachmentId) -> Self {
        Self { relay, attachment }
    }
}

/// A flow between two ends, numbered by the end that opened it. Relays only hash it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

/// A number that a pushed table maps to a tenant, its cell and what its paths may use. Zero: no limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u16);

/// Drawn at random by each process at its start, so that a neighbour knows a restart from a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u32);

/// What a frame asks of the mesh. Each class has its own costs, hence its own routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// On time or not at all: voice, video, game state.
    Realtime,
    /// Every byte, soon: messages, requests.
    #[default]
    Interactive,
    /// Every byte, cheaply: files, replication.
    Bulk,
}

impl Class {
    /// Every class, in order of precedence.
    pub const ALL: [Self; 3] = [Self::Realtime, Self::Interactive, Self::Bulk];

    /// The number it travels as.
    pub const fn code(self) -> u8 {
        match self {
            Self::Realtime => 0,
            Self::Interactive => 1,
            Self::Bulk => 2,
        }
    }

    /// The class that travels as `code`.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Realtime),
            1 => Some(Self::Interactive),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }

    /// Its name in configuration, output and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// Version of the routes: the scheduler's term, which its store raises at each start or election, then
/// a sequence within the term. Relays accept only a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Raised by the store at each start or election of a scheduler.
    pub term: u64,
    /// Raised with each change of the routes.
    pub sequence: u64,
}

/// Where an end is attached: at one relay, or at two so that the death of one is a path change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Whereabouts {
    /// The address that frames go to.
    pub first: Address,
    /// The address that they go to when the first does not answer.
    pub second: Option<Address>,
}

impl Whereabouts {
    /// An end with one address.
    pub const fn at(first: Address) -> Self {
        Self { first, second: None }
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}/{}", self.from, self.to, self.index)
    }
}

impl fmt::Display for NeighbourLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.neighbour, self.index)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.relay, self.attachment.0)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_codes_and_names_come_back_as_the_class() {
        for class in Class::ALL {
            assert_eq!(Class::from_code(class.code()), Some(class));
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        assert_eq!(Class::from_code(3), None);
        assert_eq!(Class::from_name("urgent"), None);
    }

    #[test]
    fn a_link_index_takes_four_bits() {
        assert_eq!(LinkIndex::new(15), Some(LinkIndex::MAX));
        assert_eq!(LinkIndex::new(16), None);
    }

    #[test]
    fn an_epoch_of_a_later_term_is_greater_whatever_its_sequence() {
        assert!(Epoch { term: 2, sequence: 0 } > Epoch { term: 1, sequence: 9 });
    }
}
