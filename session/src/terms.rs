//! On what terms a session's frames travel.

use std::fmt;

use overway_wire::{Class, FlowId, PolicyId, Redundancy};

/// Where a session frame's flow field has its redundancy; the rest is the incarnation.
const REDUNDANCY_SHIFT: u32 = 29;
const REDUNDANCY_MASK: u32 = 0b11 << REDUNDANCY_SHIFT;

/// Class, policy and redundancy. Each pair of ends has sessions of its own for each; frames of one never wait for
/// those of another, nor take its paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Terms {
    /// What the frames ask of queues and routes.
    pub class: Class,
    /// What their paths may use, both ways.
    pub policy: PolicyId,
    /// How much goes more than once, both ways. Bulk never does.
    pub redundancy: Redundancy,
}

impl Terms {
    /// Terms with the default redundancy.
    pub const fn new(class: Class, policy: PolicyId) -> Self {
        Self { class, policy, redundancy: Redundancy::Adaptive }
    }

    /// The same with another redundancy. Of bulk nothing is copied, so that it keeps the default.
    #[must_use]
    pub fn with_redundancy(self, redundancy: Redundancy) -> Self {
        match self.class {
            Class::Realtime | Class::Interactive => Self { redundancy, ..self },
            Class::Bulk => self,
        }
    }
}

/// An incarnation without the bits that say a session's redundancy.
pub(crate) const fn incarnation(flow: FlowId) -> FlowId {
    FlowId(flow.0 & !REDUNDANCY_MASK)
}

/// The flow field of a session's frames.
pub(crate) const fn marked(incarnation: FlowId, redundancy: Redundancy) -> FlowId {
    FlowId(incarnation.0 & !REDUNDANCY_MASK | redundancy.code() << REDUNDANCY_SHIFT)
}

/// The redundancy that a session frame's flow field says.
pub(crate) const fn redundancy(flow: FlowId) -> Redundancy {
    Redundancy::from_code((flow.0 & REDUNDANCY_MASK) >> REDUNDANCY_SHIFT)
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
            PolicyId(0) => write!(f, "{}", self.class)?,
            PolicyId(policy) => write!(f, "{}, policy {policy}", self.class)?,
        }
        match self.redundancy {
            Redundancy::Adaptive => Ok(()),
            Redundancy::Off => f.write_str(", never twice"),
            Redundancy::Always => f.write_str(", always twice"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frames_flow_field_says_incarnation_and_redundancy() {
        for redundancy in Redundancy::ALL {
            for bits in [0, 1, 0x8000_0007, 0x9fff_ffff] {
                let flow = marked(FlowId(bits), redundancy);
                assert_eq!(
                    (incarnation(flow), super::redundancy(flow)),
                    (FlowId(bits), redundancy)
                );
            }
        }
        assert_eq!(incarnation(FlowId(u32::MAX)), FlowId(0x9fff_ffff));
    }

    #[test]
    fn bulk_keeps_the_default() {
        let always = |class| Terms::from(class).with_redundancy(Redundancy::Always).redundancy;

        assert_eq!(always(Class::Bulk), Redundancy::Adaptive);
        assert_eq!(always(Class::Interactive), Redundancy::Always);
    }
}
