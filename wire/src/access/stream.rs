//! Access over a stream of bytes, TLS on TCP: the control stream and the datagrams as frames of one stream.
//!
//! ```text
//!  0               1               2
//! +---------------+---------------+---------------+----------
//! |       length of the rest      |     kind      |   body
//! +---------------+---------------+---------------+----------
//! ```
//!
//! Kind 0: bytes of the control stream, at most [`CONTROL_BYTES_MAX`]. Kind 1: a datagram, at most [`DATAGRAM_BYTES_MAX`].
//! Kind 2: the sender closes, for the reason of this code (4 bytes); nothing follows.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::FRAME_BYTES_MAX;

/// Protocol of the TLS handshake (ALPN).
pub const ALPN_ACCESS_TCP: &[u8] = b"overway-access-tcp/1";
/// Bytes of the control stream in one frame.
pub const CONTROL_BYTES_MAX: usize = 4_096;
/// Bytes of a datagram: the longest frame; heartbeats are shorter.
pub const DATAGRAM_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Bytes of a frame's length and kind.
pub const HEAD_BYTES: usize = 3;
const CLOSE_BYTES: usize = 4;

const CONTROL: u8 = 0;
const DATAGRAM: u8 = 1;
const CLOSE: u8 = 2;

/// One frame of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamFrame {
    /// Bytes of the control stream.
    Control(Bytes),
    /// A datagram.
    Datagram(Bytes),
    /// The sender closes, with a [`CloseCode`](super::CloseCode)'s number.
    Close(u32),
}

/// Why bytes are no frame. The stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A kind that is not known.
    #[error("unknown kind of frame, {0}")]
    Kind(u8),
    /// Longer, or shorter, than a frame of its kind can be.
    #[error("a frame of kind {kind} has {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// Bytes of its body.
        length: usize,
    },
    /// Not even a kind.
    #[error("an empty frame")]
    Empty,
}

impl StreamFrame {
    /// Takes the first frame out of what has been read; `None` while it is not whole. A frame that is too long is known
    /// by its first three bytes, so that nobody waits for the rest: `read` never has to hold more than
    /// [`HEAD_BYTES`] + [`CONTROL_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Says why the bytes are none.
    pub fn take(read: &mut BytesMut) -> Result<Option<Self>, StreamError> {
        let [high, low, rest @ ..] = &read[..] else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(body) = length.checked_sub(1) else { return Err(StreamError::Empty) };
        let Some(&kind) = rest.first() else { return Ok(None) };
        let bounds = match kind {
            CONTROL => 1..=CONTROL_BYTES_MAX,
            DATAGRAM => 1..=DATAGRAM_BYTES_MAX,
            CLOSE => CLOSE_BYTES..=CLOSE_BYTES,
            kind => return Err(StreamError::Kind(kind)),
        };
        if !bounds.contains(&body) {
            return Err(StreamError::Length { kind, length: body });
        }
        if read.len() < HEAD_BYTES + body {
            return Ok(None);
        }
        read.advance(HEAD_BYTES);
        let mut body = read.split_to(body).freeze();
        Ok(Some(match kind {
            CONTROL => Self::Control(body),
            DATAGRAM => Self::Datagram(body),
            _ => Self::Close(body.get_u32()),
        }))
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If the body is longer than its kind may be.
    pub fn put(&self, out: &mut impl BufMut) {
        let (kind, body, bytes_max) = match self {
            Self::Control(body) => (CONTROL, body.clone(), CONTROL_BYTES_MAX),
            Self::Datagram(body) => (DATAGRAM, body.clone(), DATAGRAM_BYTES_MAX),
            Self::Close(code) => (CLOSE, Bytes::copy_from_slice(&code.to_be_bytes()), CLOSE_BYTES),
        };
        assert!(body.len() <= bytes_max, "a frame of kind {kind} of {} bytes", body.len());
        out.put_u16(u16::try_from(1 + body.len()).expect("bodies are bounded"));
        out.put_u8(kind);
        out.put_slice(&body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_arrive() {
        let frames = [
            StreamFrame::Control(Bytes::from(vec![1; CONTROL_BYTES_MAX])),
            StreamFrame::Datagram(Bytes::from(vec![2; DATAGRAM_BYTES_MAX])),
            StreamFrame::Datagram(Bytes::from_static(b"x")),
            StreamFrame::Close(3),
        ];
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| frame.put(&mut bytes));

        for step in [1, 7, 1_000, bytes.len()] {
            let (mut read, mut taken) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(step) {
                read.extend_from_slice(part);
                while let Some(frame) = StreamFrame::take(&mut read).unwrap() {
                    taken.push(frame);
                }
                assert!(read.len() <= HEAD_BYTES + CONTROL_BYTES_MAX);
            }
            assert_eq!((&taken[..], read.len()), (&frames[..], 0));
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = BytesMut::new();
        StreamFrame::Datagram(Bytes::from_static(&[0xaa, 0xbb])).put(&mut bytes);
        StreamFrame::Close(4).put(&mut bytes);
        assert_eq!(bytes[..], [0, 3, 1, 0xaa, 0xbb, 0, 5, 2, 0, 0, 0, 4]);
    }

    #[test]
    fn what_is_no_frame_is_known_by_its_head() {
        let take = |head: &[u8]| StreamFrame::take(&mut BytesMut::from(head));
        assert_eq!(take(&[0, 0]), Err(StreamError::Empty));
        assert_eq!(take(&[0, 9, 3]), Err(StreamError::Kind(3)));
        assert_eq!(take(&[0xff, 0xff, 0]), Err(StreamError::Length { kind: 0, length: 65_534 }));
        assert_eq!(take(&[0, 1, 1]), Err(StreamError::Length { kind: 1, length: 0 }));
        assert_eq!(take(&[0, 4, 2]), Err(StreamError::Length { kind: 2, length: 3 }));
        let longest = u16::try_from(DATAGRAM_BYTES_MAX + 2).unwrap().to_be_bytes();
        assert!(take(&[longest[0], longest[1], 1]).is_err());
        for head in [&[][..], &[0], &[0, 2], &[0, 2, 1]] {
            assert_eq!(take(head), Ok(None));
        }
    }
}
