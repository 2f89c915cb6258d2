//! Seals the datagrams of a flow, so that only the two ends can read or make them.
//!
//! Both ends draw the flow's keys from their session's TLS exporter (RFC 8446 section 7.5), with the flow's
//! id and opener as context: a key and a nonce mask for each direction, known to nobody else, and gone
//! with the flow. A datagram is AES-128-GCM of its plaintext; the nonce is the mask with the sequence
//! mixed in, as in TLS; flow and sequence, which travel in the frame's header, are authenticated with it.
//! A sequence is never used twice: the sender counts up and stops at [`SEQUENCE_MAX`].

use bytes::BytesMut;
use overway_wire::FlowId;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};

/// Bytes by which a sealed datagram is longer than its plaintext.
pub(crate) const TAG_BYTES: usize = MAX_TAG_LEN;
/// Datagrams that one key may seal: AES-GCM's confidentiality limit for packets of up to 2^11 bytes (RFC
/// 9001 appendix B.1.1). At 1,000 a second it lasts three days; then the flow ends, to be opened anew.
pub(crate) const SEQUENCE_MAX: u64 = 1 << 28;
/// The exporter's label.
pub(crate) const LABEL: &[u8] = b"overway datagram 1";

const KEY_BYTES: usize = 16;
const DIRECTION_BYTES: usize = KEY_BYTES + NONCE_LEN;
/// Bytes that a flow takes from the exporter.
pub(crate) const SECRET_BYTES: usize = 2 * DIRECTION_BYTES;

/// The exporter's context for a flow: who opened it among the session's two ends, and its id.
pub(crate) fn context(opened_by_client: bool, flow: FlowId) -> [u8; 5] {
    let [a, b, c, d] = flow.0.to_be_bytes();
    [u8::from(opened_by_client), a, b, c, d]
}

/// The keys of a flow, as one end holds them.
#[derive(Debug)]
pub(crate) struct FlowKeys {
    pub(crate) seal: DirectionKey,
    pub(crate) open: DirectionKey,
}

impl FlowKeys {
    /// Splits the exporter's bytes; `client`: this end is the session's TLS client.
    pub(crate) fn new(secret: &[u8; SECRET_BYTES], client: bool) -> Self {
        let (of_client, of_server) = secret.split_at(DIRECTION_BYTES);
        let (seal, open) = if client { (of_client, of_server) } else { (of_server, of_client) };
        Self { seal: DirectionKey::new(seal), open: DirectionKey::new(open) }
    }
}

/// The key of one direction.
#[derive(Debug)]
pub(crate) struct DirectionKey {
    key: LessSafeKey,
    mask: [u8; NONCE_LEN],
}

/// The bytes are not what the far end sealed for this flow and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

impl DirectionKey {
    fn new(secret: &[u8]) -> Self {
        let (key, mask) = secret.split_at(KEY_BYTES);
        let key = UnboundKey::new(&AES_128_GCM, key).expect("the key has the cipher's length");
        let mask = mask.try_into().expect("the mask has a nonce's length");
        Self { key: LessSafeKey::new(key), mask }
    }

    /// Turns the plaintext in `bytes` into a sealed datagram.
    pub(crate) fn seal(&self, flow: FlowId, sequence: u64, bytes: &mut BytesMut) {
        self.key
            .seal_in_place_append_tag(self.nonce(sequence), aad(flow, sequence), bytes)
            .expect("a datagram is far below the cipher's limit");
    }

    /// Turns the sealed datagram in `bytes` into its plaintext.
    pub(crate) fn open(
        &self,
        flow: FlowId,
        sequence: u64,
        bytes: &mut BytesMut,
    ) -> Result<(), Forged> {
        let plain = self
            .key
            .open_in_place(self.nonce(sequence), aad(flow, sequence), bytes)
            .map_err(|_| Forged)?
            .len();
        bytes.truncate(plain);
        Ok(())
    }

    fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = self.mask;
        for (byte, mixed) in nonce[NONCE_LEN - 8..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= mixed;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

fn aad(flow: FlowId, sequence: u64) -> Aad<[u8; 12]> {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&flow.0.to_be_bytes());
    bytes[4..].copy_from_slice(&sequence.to_be_bytes());
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (FlowKeys, FlowKeys) {
        let secret = std::array::from_fn(|at| u8::try_from(at).unwrap());
        (FlowKeys::new(&secret, true), FlowKeys::new(&secret, false))
    }

    #[test]
    fn what_one_end_seals_the_other_opens_in_both_directions() {
        let (client, server) = pair();
        for (from, to) in [(&client, &server), (&server, &client)] {
            let mut bytes = BytesMut::from(&b"hello"[..]);
            from.seal.seal(FlowId(3), 9, &mut bytes);
            assert_eq!(bytes.len(), 5 + TAG_BYTES);
            assert_eq!(to.open.open(FlowId(3), 9, &mut bytes), Ok(()));
            assert_eq!(&bytes[..], b"hello");
        }
    }

    #[test]
    fn a_flipped_bit_another_flow_sequence_or_direction_is_forged() {
        let (client, server) = pair();
        let mut sealed = BytesMut::from(&b"hello"[..]);
        client.seal.seal(FlowId(3), 9, &mut sealed);

        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(server.open.open(FlowId(3), 9, &mut bytes), Err(Forged));
        }
        assert_eq!(server.open.open(FlowId(4), 9, &mut sealed.clone()), Err(Forged));
        assert_eq!(server.open.open(FlowId(3), 8, &mut sealed.clone()), Err(Forged));
        assert_eq!(client.open.open(FlowId(3), 9, &mut sealed.clone()), Err(Forged));
    }

    #[test]
    fn bytes_shorter_than_a_tag_are_forged() {
        let (_, server) = pair();
        for length in 0..TAG_BYTES {
            let mut bytes = BytesMut::zeroed(length);
            assert_eq!(server.open.open(FlowId(1), 0, &mut bytes), Err(Forged));
        }
    }
}
