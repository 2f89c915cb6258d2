//! Heartbeats: life, timing, and what was received.

use bytes::{Buf, BufMut};

use super::{HEARTBEAT, HopError};
use crate::{BootId, LossPpm, Micros, Millis, Ticks};

/// After the type byte, up to the fields that every version has.
const HEARTBEAT_BYTES: usize = 4 + 4 + 8 + 1 + 8 + 4 + 4 + 2 + 2 + 4 * 4;
const HEARD_BIT: u8 = 1;
const REPAIRS_BIT: u8 = 2;

/// Sent on the light lane of every link in both directions: life, timing, and what was received. The
/// idea is BFD's (RFC 5880): each end says how often it sends and how often it wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sending process; a change means that it was started anew and all counters with it.
    pub boot: BootId,
    /// Counts the heartbeats of this link and direction from zero; gaps are loss.
    pub number: u32,
    /// The sender's clock as it sent this.
    pub sent: Ticks,
    /// What the sender heard of the receiver, if anything yet.
    pub heard: Option<Heard>,
    /// The interval at which the sender now sends heartbeats.
    pub interval: Millis,
    /// The interval at which the sender wants to receive them; the receiver sends at the smaller of this
    /// and its own need.
    pub wanted: Millis,
    /// Per data lane, how many frames were sent so far (the next number), wrapping. Shows the receiver
    /// that the last of a burst was lost.
    pub sent_next: [u32; 2],
    /// Per data lane, one more than the greatest number received, wrapping; zero if none. Frames from
    /// this on are unacknowledged and are replayed over a detour if the receiver falls silent.
    pub received_next: [u32; 2],
    /// Per data lane, the first number that the sender may still ask for again, wrapping: what is before it
    /// need not be kept. `None` from a neighbour that recovers nothing, and understands no NACK.
    pub complete_next: Option<[u32; 2]>,
    /// Of what the receiver sent lately, the share that the sender found lost, before any of it was recovered. `None`
    /// from a neighbour that does not say; written only with `complete_next`.
    pub lost: Option<LossPpm>,
    /// Whether the sender makes use of [`super::Repair`]s.
    pub repairs: bool,
}

/// What a heartbeat's sender last heard of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// `sent` of the last heartbeat that arrived, in the receiver's own clock.
    pub echo: Ticks,
    /// How long the sender held it before it sent this: RTT is now less echo less held.
    pub held: Micros,
    /// Time since any authenticated frame arrived: how a receiver learns that only its own direction
    /// failed.
    pub silence: Micros,
}

impl Heartbeat {
    /// Writes the whole hop message.
    pub fn encode(&self, out: &mut impl BufMut) {
        let heard =
            self.heard.unwrap_or(Heard { echo: Ticks(0), held: Micros(0), silence: Micros(0) });
        out.put_u8(HEARTBEAT);
        out.put_u32(self.boot.0);
        out.put_u32(self.number);
        out.put_u64(self.sent.0);
        let heard_bit = if self.heard.is_some() { HEARD_BIT } else { 0 };
        out.put_u8(heard_bit | if self.repairs { REPAIRS_BIT } else { 0 });
        out.put_u64(heard.echo.0);
        out.put_u32(heard.held.0);
        out.put_u32(heard.silence.0);
        out.put_u16(self.interval.0);
        out.put_u16(self.wanted.0);
        for count in self.sent_next.into_iter().chain(self.received_next) {
            out.put_u32(count);
        }
        let Some(complete_next) = self.complete_next else { return };
        complete_next.into_iter().for_each(|count| out.put_u32(count));
        if let Some(lost) = self.lost {
            out.put_u32(lost.ppm());
        }
    }

    /// Reads what follows the type byte.
    pub(super) fn decode(mut rest: &[u8]) -> Result<Self, HopError> {
        if rest.len() < HEARTBEAT_BYTES {
            return Err(HopError::Truncated);
        }
        let boot = BootId(rest.get_u32());
        let number = rest.get_u32();
        let sent = Ticks(rest.get_u64());
        let flags = rest.get_u8();
        let heard = Heard {
            echo: Ticks(rest.get_u64()),
            held: Micros(rest.get_u32()),
            silence: Micros(rest.get_u32()),
        };
        let (interval, wanted) = (Millis(rest.get_u16()), Millis(rest.get_u16()));
        let sent_next = [rest.get_u32(), rest.get_u32()];
        let received_next = [rest.get_u32(), rest.get_u32()];
        let complete_next = (rest.len() >= 8).then(|| [rest.get_u32(), rest.get_u32()]);
        // What is left of a field that was cut is not the next one.
        let has_lost = complete_next.is_some() && rest.len() >= 4;
        Ok(Self {
            boot,
            number,
            sent,
            heard: (flags & HEARD_BIT != 0).then_some(heard),
            interval,
            wanted,
            sent_next,
            received_next,
            complete_next,
            lost: has_lost.then(|| LossPpm::new(rest.get_u32())),
            repairs: flags & REPAIRS_BIT != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::HopMessage;

    fn heartbeat() -> Heartbeat {
        Heartbeat {
            boot: BootId(0x0102_0304),
            number: 5,
            sent: Ticks(0x1112_1314_1516_1718),
            heard: Some(Heard { echo: Ticks(9), held: Micros(7), silence: Micros(3) }),
            interval: Millis(30),
            wanted: Millis(200),
            sent_next: [1, 2],
            received_next: [3, 4],
            complete_next: Some([5, 6]),
            lost: Some(LossPpm::new(0x0102)),
            repairs: true,
        }
    }

    fn encoded(heartbeat: &Heartbeat) -> Vec<u8> {
        let mut bytes = Vec::new();
        heartbeat.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_heartbeat_has_these_bytes() {
        let golden = [
            0x02, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 5, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            0x18, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 3, 0, 30, 0, 200, 0, 0, 0, 1, 0,
            0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 1, 2,
        ];

        assert_eq!(encoded(&heartbeat()), golden);
        assert_eq!(HopMessage::decode(&golden), Ok(HopMessage::Heartbeat(heartbeat())));
    }

    #[test]
    fn a_cut_heartbeat_is_refused_and_a_longer_one_is_read() {
        let mut bytes = encoded(&heartbeat());
        for length in 0..=HEARTBEAT_BYTES {
            assert_eq!(HopMessage::decode(&bytes[..length]), Err(HopError::Truncated));
        }
        for old in [
            Heartbeat { complete_next: None, lost: None, ..heartbeat() },
            Heartbeat { lost: None, ..heartbeat() },
        ] {
            let length = encoded(&old).len();
            assert_eq!(HopMessage::decode(&bytes[..length]), Ok(HopMessage::Heartbeat(old)));
            assert_eq!(HopMessage::decode(&bytes[..length + 3]), Ok(HopMessage::Heartbeat(old)));
        }
        bytes.extend_from_slice(&[1, 2, 3]);
        assert_eq!(HopMessage::decode(&bytes), Ok(HopMessage::Heartbeat(heartbeat())));
    }
}
