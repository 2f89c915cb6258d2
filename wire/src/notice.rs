//! Notices: what a relay tells a frame's source, as the payload of a frame of kind [`crate::FrameKind::Notice`].
//!
//! ```text
//! type u8 = 1 (unreachable) | from u16 | to u16 | link u8 | detoured u8      to the source's relay
//! type u8 = 2 (unattached)  | relay u16 | attachment u16                     to the source itself
//! ```

use bytes::{Buf, BufMut};

use crate::{Address, AttachmentId, LinkId, LinkIndex, RelayId};

const UNREACHABLE: u8 = 1;
const UNREACHABLE_BYTES: usize = 7;
const UNATTACHED: u8 = 2;
const UNATTACHED_BYTES: usize = 5;

/// What a relay tells a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A link on the frame's path is down.
    Unreachable {
        /// The directed link that is down, as the relay in front of it sees it.
        link: LinkId,
        /// Whether the frame went on over a detour. If not, it was dropped.
        detoured: bool,
    },
    /// The end that a frame was for is not attached where it was sought last, or does not answer there.
    Unattached(Address),
}

/// Why bytes are no notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// Shorter than its type needs.
    #[error("notice is too short")]
    Truncated,
    /// A type that this build does not know.
    #[error("unknown notice type")]
    Kind,
    /// A link index above 15.
    #[error("link index is out of range")]
    LinkIndex,
}

impl Notice {
    /// Writes the payload.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Self::Unreachable { link, detoured } => {
                out.put_u8(UNREACHABLE);
                out.put_u16(link.from.0);
                out.put_u16(link.to.0);
                out.put_u8(link.index.value());
                out.put_u8(u8::from(detoured));
            }
            Self::Unattached(end) => {
                out.put_u8(UNATTACHED);
                out.put_u16(end.relay.0);
                out.put_u16(end.attachment.0);
            }
        }
    }

    /// Reads a payload; bytes after the known ones are ignored.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, NoticeError> {
        match bytes.first() {
            Some(&UNREACHABLE) if bytes.len() >= UNREACHABLE_BYTES => {
                bytes.advance(1);
                let (from, to) = (RelayId(bytes.get_u16()), RelayId(bytes.get_u16()));
                let index = LinkIndex::new(bytes.get_u8()).ok_or(NoticeError::LinkIndex)?;
                let detoured = bytes.get_u8() != 0;
                Ok(Self::Unreachable { link: LinkId::new(from, to, index), detoured })
            }
            Some(&UNATTACHED) if bytes.len() >= UNATTACHED_BYTES => {
                bytes.advance(1);
                let relay = RelayId(bytes.get_u16());
                Ok(Self::Unattached(Address::new(relay, AttachmentId(bytes.get_u16()))))
            }
            Some(&(UNREACHABLE | UNATTACHED)) | None => Err(NoticeError::Truncated),
            Some(_) => Err(NoticeError::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unreachable_notice_has_these_bytes() {
        let link = LinkId::new(RelayId(0x0102), RelayId(0x0304), LinkIndex::MAX);
        let notice = Notice::Unreachable { link, detoured: true };
        let mut bytes = Vec::new();
        notice.encode(&mut bytes);

        assert_eq!(bytes, [1, 1, 2, 3, 4, 15, 1]);
        assert_eq!(Notice::decode(&bytes), Ok(notice));
    }

    #[test]
    fn an_unattached_notice_has_these_bytes() {
        let notice = Notice::Unattached(Address::new(RelayId(0x0102), AttachmentId(0x0304)));
        let mut bytes = Vec::new();
        notice.encode(&mut bytes);

        assert_eq!(bytes, [2, 1, 2, 3, 4]);
        assert_eq!(Notice::decode(&bytes), Ok(notice));
        assert_eq!(Notice::decode(&bytes[..4]), Err(NoticeError::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = Notice::decode(&bytes);
        }
    }
}
