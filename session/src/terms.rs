//! On what terms a session's frames travel.

use std::fmt;

use overway_wire::{Class, PolicyId};

/// Class and policy. Each pair of ends has sessions of its own for each; frames of one never wait for those
/// of another, nor take its paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Terms {
    /// What the frames ask of queues and routes.
    pub class: Class,
    /// What their paths may use, both ways.
    pub policy: PolicyId,
}

impl Terms {
    /// Makes terms.
    pub const fn new(class: Class, policy: PolicyId) -> Self {
        Self { class, policy }
    }
}

impl From<Class> for Terms {
    /// The class without a policy.
    fn from(class: Class) -> Self {
        Self::new(class, PolicyId::default())
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            PolicyId(0) => write!(f, "{}", self.class),
            PolicyId(policy) => write!(f, "{}, policy {policy}", self.class),
        }
    }
}
