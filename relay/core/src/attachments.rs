//! Which ends are attached to a relay. Read for every frame that arrives, by all shards of the relay alike.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use overway_wire::AttachmentId;

const WORD_BITS: usize = u64::BITS as usize;
/// One bit for each attachment that an address can name: 8 KiB.
const WORDS: usize = (u16::MAX as usize + 1) / WORD_BITS;

/// The ends that are attached to a relay. The relay itself and its gateway always are.
///
/// A relay's shards have one between them ([`crate::Config::attachments`]): what one is told all know at once, and
/// no message of it can be lost.
pub struct Attachments {
    words: Box<[AtomicU64]>,
}

impl Attachments {
    /// Whether an end is attached.
    pub fn contains(&self, attachment: AttachmentId) -> bool {
        let (word, bit) = place(attachment);
        is_built_in(attachment) || self.words[word].load(Ordering::Acquire) & bit != 0
    }

    /// An end has attached.
    pub fn insert(&self, attachment: AttachmentId) {
        let (word, bit) = place(attachment);
        self.words[word].fetch_or(bit, Ordering::Release);
    }

    /// An end is gone.
    pub fn remove(&self, attachment: AttachmentId) {
        let (word, bit) = place(attachment);
        self.words[word].fetch_and(!bit, Ordering::Release);
    }
}

impl Default for Attachments {
    fn default() -> Self {
        Self { words: (0..WORDS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (0..=u16::MAX).map(AttachmentId);
        f.debug_set().entries(all.filter(|&one| self.contains(one))).finish()
    }
}

fn is_built_in(attachment: AttachmentId) -> bool {
    attachment == AttachmentId::RELAY || attachment == AttachmentId::GATEWAY
}

fn place(attachment: AttachmentId) -> (usize, u64) {
    let at = usize::from(attachment.0);
    (at / WORD_BITS, 1 << (at % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_relay_and_its_gateway_are_always_attached() {
        let attachments = Attachments::default();
        attachments.remove(AttachmentId::GATEWAY);

        assert!(attachments.contains(AttachmentId::RELAY));
        assert!(attachments.contains(AttachmentId::GATEWAY));
        assert!(!attachments.contains(AttachmentId(2)));
        assert!(!attachments.contains(AttachmentId(u16::MAX)));
    }

    proptest! {
        #[test]
        fn those_are_attached_that_came_and_did_not_go(
            changes in proptest::collection::vec((2_u16..=u16::MAX, any::<bool>()), 0..64),
        ) {
            let (attachments, mut expected) = (Attachments::default(), BTreeSet::new());
            for &(id, comes) in &changes {
                if comes {
                    attachments.insert(AttachmentId(id));
                    expected.insert(id);
                } else {
                    attachments.remove(AttachmentId(id));
                    expected.remove(&id);
                }
            }
            for (id, _) in changes {
                for near in [id.saturating_sub(1).max(2), id, id.saturating_add(1)] {
                    let attached = attachments.contains(AttachmentId(near));
                    prop_assert_eq!(attached, expected.contains(&near));
                }
            }
        }
    }
}
