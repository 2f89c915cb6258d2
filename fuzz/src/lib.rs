//! What hostile bytes are put through: one function for each thing that reads them.
//!
//! Each takes any bytes and panics if something holds that must not. A fuzzer looks for such bytes (`cargo fuzz`, see
//! the folder beside); this crate's tests try some thousand, so that a function that no longer holds, or no
//! longer compiles, is noticed without one.
//!
//! - [`frame`], [`hop_message`], [`notice`]: what one relay sends another.
//! - [`to_relay`], [`to_scheduler`]: what a scheduler and a relay send one another, and what it does to their state.
//! - [`access`], [`access_stream`], [`to_edge`], [`from_edge`]: what an edge and its relay send one another.
//! - [`proxy_header`], [`socks`]: what clients and proxies send a gateway.
//! - [`session_word`], [`session_request`], [`session_answer`], [`session_order_word`]: what the two ends of a session say to one another.
//! - [`join_token`]: what an operator pastes.
//! - [`edge_token`]: what an edge shows.
//! - [`recovery`]: two relays and a line between them, short or long, that loses, repeats, reorders and forges.

mod control;
mod line;

use std::time::SystemTime;

use bytes::BytesMut;
use overway_pki::JoinToken;
use overway_tenant::{Claims, TenantKey, TenantKeys};
use overway_wire::access::messages::{FromEdge, ToEdge};
use overway_wire::access::stream::{CONTROL_BYTES_MAX, HEAD_BYTES, StreamFrame};
use overway_wire::access::{AccessDatagram, Direction, FRAME_BYTES_MAX};
use overway_wire::frame::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};
use overway_wire::hop::{
    HopMessage, NACK_RANGES_MAX, NackRange, REPAIR_MESSAGES_MAX, REPAIRS_MAX, encode_data_prefix,
    encode_nack, encode_padding, encode_received, encode_tail, encode_twin_prefix,
};
use overway_wire::notice::Notice;
use overway_wire::{FrameKind, Header, Path};
use prost::Message as _;

pub use control::{to_relay, to_scheduler};
pub use line::recovery;
pub use overway_gateway::hostile::{proxy_header, socks};
pub use overway_session::hostile::{
    answer as session_answer, order_word as session_order_word, request as session_request,
    word as session_word,
};

/// A header that is read is what is written, and consistent.
pub fn frame(bytes: &[u8]) {
    // Whatever it says, it does not panic.
    let _ = Path::decode(bytes);
    let Ok((header, payload)) = Header::decode(bytes) else { return };
    let read = bytes.len() - payload.len();
    assert_eq!(read, header.encoded_len());
    assert!(read <= HEADER_BYTES_MAX);
    assert_eq!(header.path.last().relay, header.destination.relay);
    assert!(!header.path.visits(header.source.relay));
    assert!(header.path.elements().contains(&header.receiver()));
    let mut written = Vec::new();
    header.encode(&mut written);
    assert_eq!(written, bytes[..read]);
}

/// Frames of an access stream that are read are what is written, and what waits for more bytes is bounded.
pub fn access_stream(bytes: &[u8]) {
    let mut read = BytesMut::from(bytes);
    let mut written = BytesMut::new();
    loop {
        match StreamFrame::take(&mut read) {
            Ok(Some(frame)) => frame.put(&mut written),
            Ok(None) => {
                assert!(read.len() < HEAD_BYTES + CONTROL_BYTES_MAX);
                break;
            }
            Err(_) => break,
        }
    }
    assert_eq!(written, bytes[..bytes.len() - read.len()]);
}

/// An access datagram that is read is what is written.
pub fn access(bytes: &[u8]) {
    match AccessDatagram::decode(bytes) {
        Ok(AccessDatagram::Frame(header, payload)) => {
            assert!(payload.len() <= PAYLOAD_BYTES_MAX && bytes.len() <= FRAME_BYTES_MAX);
            let travels = match header.kind {
                FrameKind::Session | FrameKind::Datagram => true,
                FrameKind::Notice => header.direction == Direction::Down,
                FrameKind::Trace => false,
            };
            assert!(travels);
            assert_eq!(header.with_payload(payload), bytes);
        }
        Ok(AccessDatagram::Heartbeat(heartbeat)) => {
            let mut written = Vec::new();
            heartbeat.encode(&mut written);
            let read = AccessDatagram::decode(&written);
            assert_eq!(read, Ok(AccessDatagram::Heartbeat(heartbeat)));
        }
        Err(_) => {}
    }
}

/// A message to an edge that is read comes back as it was.
pub fn to_edge(bytes: &[u8]) {
    let Ok(message) = ToEdge::decode(bytes) else { return };
    assert_eq!(ToEdge::decode(&message.encode_to_vec()[..]), Ok(message));
}

/// A message of an edge that is read comes back as it was.
pub fn from_edge(bytes: &[u8]) {
    let Ok(message) = FromEdge::decode(bytes) else { return };
    assert_eq!(FromEdge::decode(&message.encode_to_vec()[..]), Ok(message));
}

/// A hop message that is read is what is written, and holds no more than its bytes are worth.
pub fn hop_message(bytes: &[u8]) {
    let Ok(message) = HopMessage::decode(bytes) else { return };
    let frames: Vec<(u32, &[u8])> = message.frames().collect();
    assert!(frames.iter().map(|(_, frame)| frame.len()).sum::<usize>() < bytes.len());
    let mut written = Vec::new();
    match message {
        HopMessage::Data { number, frame } => {
            encode_data_prefix(number, &mut written);
            written.extend_from_slice(frame);
        }
        HopMessage::Twin { number, frame } => {
            encode_twin_prefix(number, &mut written);
            written.extend_from_slice(frame);
        }
        HopMessage::Repair(repair) => {
            assert!((1..=REPAIR_MESSAGES_MAX).contains(&repair.slots.len()));
            assert!(usize::from(repair.part) < REPAIRS_MAX);
            assert!(repair.slots.contains(repair.slots.first()));
            assert!(!repair.slots.contains(repair.slots.next()));
            repair.encode(&mut written);
            assert_eq!(HopMessage::decode(&written), Ok(message));
            // That each message has one frame may be said in two ways.
            written.clear();
        }
        HopMessage::Bundle { number, .. } => {
            let expected = (0..).map(|at| number.wrapping_add(at));
            assert!(frames.iter().map(|(number, _)| *number).eq(expected.take(frames.len())));
        }
        HopMessage::Heartbeat(heartbeat) => {
            heartbeat.encode(&mut written);
            assert_eq!(HopMessage::decode(&written), Ok(message));
            // Flags that this version does not know are not written again.
            written.clear();
        }
        HopMessage::Nack { lane, ranges } => {
            let ranges: Vec<NackRange> = ranges.iter().collect();
            assert!(ranges.len() <= NACK_RANGES_MAX);
            encode_nack(lane, &ranges, &mut written);
            assert_eq!(written[3..], bytes[3..written.len()]);
            written.clear();
        }
        HopMessage::Received { lane, received_next, complete_next } => {
            encode_received(lane, received_next, complete_next, &mut written);
        }
        HopMessage::Tail { lane, next } => encode_tail(lane, next, &mut written),
        // What it holds says nothing.
        HopMessage::Padding => encode_padding(1, &mut written),
    }
    assert_eq!(written, bytes[..written.len()]);
}

/// A notice that is read is what is written.
pub fn notice(bytes: &[u8]) {
    let Ok(notice) = Notice::decode(bytes) else { return };
    let mut written = Vec::new();
    notice.encode(&mut written);
    assert_eq!(Notice::decode(&written), Ok(notice));
}

/// A token that is taken reads the same after it was written.
pub fn join_token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(token) = text.parse::<JoinToken>() else { return };
    assert_eq!(token.to_string().parse::<JoinToken>().as_ref(), Ok(&token));
}

/// No text counts without a signature; and claims that are read are what is written.
pub fn edge_token(bytes: &[u8]) {
    let mut keys = TenantKeys::new("acme".parse().expect("a label"));
    keys.keys.insert("k".parse().expect("a kid"), TenantKey::from_seed([7; 32]).public());
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(overway_tenant::verify(text, &keys, SystemTime::UNIX_EPOCH).is_err());
    }
    let Ok(claims) = Claims::from_json(bytes) else { return };
    assert_eq!(Claims::from_json(&claims.to_json()), Ok(claims));
}

#[cfg(test)]
mod tests;
