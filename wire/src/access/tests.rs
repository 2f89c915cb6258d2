use super::*;
use crate::{BootId, Ticks};
use proptest::prelude::*;

fn header() -> AccessHeader {
    AccessHeader {
        direction: Direction::Up,
        number: 0x0102_0304,
        kind: FrameKind::Datagram,
        class: Class::Interactive,
        ecn: FrameEcn::Capable,
        redundancy: Redundancy::Always,
        copy: true,
        far: Address::new(RelayId(0x0506), AttachmentId(0x0708)),
        alternate: Some(Address::new(RelayId(0x0910), AttachmentId(0x1112))),
        budget: Millis(0x1314),
        flow: FlowId(0x1516_1718),
        sequence: 0x1920_2122_2324_2526,
    }
}

#[test]
fn a_frame_has_these_bytes() {
    let up = [
        0x11, 0x26, 0xb0, 1, 2, 3, 4, 5, 6, 7, 8, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x20,
        0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x09, 0x10, 0x11, 0x12, b'p',
    ];
    assert_eq!(header().with_payload(b"p"), up[..]);
    assert_eq!(AccessDatagram::decode(&up), Ok(AccessDatagram::Frame(header(), b"p")));

    let header = AccessHeader {
        direction: Direction::Down,
        ecn: FrameEcn::CongestionExperienced,
        redundancy: Redundancy::Adaptive,
        copy: false,
        alternate: None,
        ..header()
    };
    let down = [&[0x12, 0x27, 0][..], &up[3..25], b"pp"].concat();
    assert_eq!(header.with_payload(b"pp"), down[..]);
    assert_eq!(AccessDatagram::decode(&down), Ok(AccessDatagram::Frame(header, b"pp")));
}

#[test]
fn a_heartbeat_is_that_of_a_link() {
    let heartbeat = Heartbeat {
        boot: BootId(1),
        number: 2,
        sent: Ticks(3),
        heard: None,
        interval: Millis(30),
        wanted: Millis(15_000),
        sent_next: [0, 4],
        received_next: [0, 5],
        complete_next: None,
        lost: None,
        repairs: false,
    };
    let mut bytes = Vec::new();
    heartbeat.encode(&mut bytes);

    assert_eq!(AccessDatagram::decode(&bytes), Ok(AccessDatagram::Heartbeat(heartbeat)));
    assert_eq!(AccessDatagram::decode(&bytes[..9]), Err(AccessError::Truncated));
}

#[test]
fn what_does_not_travel_here_is_refused() {
    let good = header().with_payload(&[7; PAYLOAD_BYTES_MAX]);
    assert_eq!(good.len(), FRAME_BYTES_MAX);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        bytes
    };
    let decoded = |bytes: &[u8]| AccessDatagram::decode(bytes).map(|_| ());

    assert_eq!(decoded(&good), Ok(()));
    assert_eq!(decoded(&[]), Err(AccessError::Truncated));
    for length in [1, 24, 25, 28] {
        assert_eq!(decoded(&good[..length]), Err(AccessError::Truncated));
    }
    assert_eq!(decoded(&[&good[..], &[0]].concat()), Err(AccessError::TooLong));
    // A link's data message; a notice; no kind at all.
    for wrong in [with(0, 1), with(1, 0x36), with(1, 0xf6)] {
        assert_eq!(decoded(&wrong), Err(AccessError::Kind));
    }
    assert_eq!(decoded(&with(1, 0x2e)), Err(AccessError::Class));
    // No such ECN; a redundancy of a later version; reserved bits.
    for wrong in [with(1, 0x25), with(2, 0xf0), with(2, 0xb1)] {
        assert_eq!(decoded(&wrong), Err(AccessError::Reserved));
    }
    let same = AccessHeader { alternate: Some(header().far), ..header() };
    assert_eq!(decoded(&same.with_payload(b"")), Err(AccessError::Alternate));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
        let _ = AccessDatagram::decode(&bytes);
    }

    #[test]
    fn what_is_read_is_written_as_it_was(
        mut bytes in proptest::collection::vec(any::<u8>(), 25..90),
        up in any::<bool>(),
    ) {
        bytes[0] = if up { UP } else { DOWN };
        if let Ok(AccessDatagram::Frame(header, payload)) = AccessDatagram::decode(&bytes) {
            prop_assert_eq!(header.with_payload(payload), bytes);
        }
    }
}
