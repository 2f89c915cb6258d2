//! Notices: what a relay tells a source relay about frames of its own, as the payload of a frame of kind
//! [`crate::FrameKind::Notice`].
//!
//! ```text
//! type u8 = 1 (unreachable) | from u16 | to u16 | link u8 | detoured u8
//! ```

use bytes::{Buf, BufMut};

use crate::{LinkId, LinkIndex, RelayId};

const UNREACHABLE: u8 = 1;
const UNREACHABLE_BYTES: usize = 7;

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
            Some(&UNREACHABLE) | None => Err(NoticeError::Truncated),
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

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = Notice::decode(&bytes);
        }
    }
}
