//! What is sent and what arrives: every frame's last bytes are its sequence and when it was made.
//!
//! Generator and sink are one thread, so the generator knows at once what has arrived. *Saturated* means
//! that it keeps [`OUTSTANDING_MAX`] frames between itself and the sink: what it offers is always more than
//! the relay has done, and no queue on the way is asked to hold more than it can, so nothing is lost for want of
//! room. A frame is lost when a later one has arrived, or when nothing has for [`STUCK`].

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Frames under way at most. Enough for the relay to find work whenever it looks, and less than a socket's
/// buffer holds where the system grants 4 MiB.
const OUTSTANDING_MAX: u64 = 768;
/// Frames sent before others get a turn, and room for so many is waited for.
const CHUNK: u64 = 64;
/// Without any arrival for so long, what is under way is given up.
const STUCK: Duration = Duration::from_millis(50);
/// Sequence and time.
pub(crate) const TRAILER_BYTES: usize = 16;

/// How fast frames are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As fast as they arrive.
    Saturated,
    /// So many a second, in bursts of so many.
    PerSecond { frames: u32, burst: u32 },
}

/// Counts of one way from generator to sink.
pub(crate) struct Traffic {
    origin: Instant,
    sent: Cell<u64>,
    received: Cell<u64>,
    /// One more than the greatest sequence that arrived.
    next: Cell<u64>,
    delays: RefCell<Option<Vec<Duration>>>,
    arrived: Notify,
}

/// Makes frames.
pub(crate) trait Source {
    /// Sends so many, each stamped by [`Traffic::stamp`].
    fn emit(&mut self, traffic: &Traffic, count: u64);
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            sent: Cell::new(0),
            received: Cell::new(0),
            next: Cell::new(0),
            delays: RefCell::new(None),
            arrived: Notify::new(),
        }
    }

    /// Writes the next sequence and the time into the last bytes of a payload; says which sequence.
    pub(crate) fn stamp(&self, payload: &mut [u8], now: Instant) -> u64 {
        let sequence = self.sent.get();
        self.sent.set(sequence + 1);
        let nanos = u64::try_from((now - self.origin).as_nanos()).expect("no run takes centuries");
        let at = payload.len() - TRAILER_BYTES;
        payload[at..at + 8].copy_from_slice(&sequence.to_be_bytes());
        payload[at + 8..].copy_from_slice(&nanos.to_be_bytes());
        sequence
    }

    /// Counts a frame that has arrived, if it is one.
    pub(crate) fn arrive(&self, frame: &[u8], now: Instant) {
        let Some((rest, nanos)) = frame.split_last_chunk::<8>() else { return };
        let Some((_, sequence)) = rest.split_last_chunk::<8>() else { return };
        let (sequence, nanos) = (u64::from_be_bytes(*sequence), u64::from_be_bytes(*nanos));
        if sequence >= self.sent.get() {
            return;
        }
        self.received.set(self.received.get() + 1);
        self.next.set(self.next.get().max(sequence + 1));
        if let Some(delays) = self.delays.borrow_mut().as_mut() {
            delays.push((now - self.origin).saturating_sub(Duration::from_nanos(nanos)));
        }
    }

    /// Lets the generator look: some frames have arrived.
    pub(crate) fn settle(&self) {
        self.arrived.notify_one();
    }

    /// Frames sent and received so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.sent.get(), self.received.get())
    }

    /// Notes the delay of every frame from now on.
    pub(crate) fn note_delays(&self) {
        *self.delays.borrow_mut() = Some(Vec::new());
    }

    /// The delays noted, and no more are.
    pub(crate) fn take_delays(&self) -> Vec<Duration> {
        self.delays.borrow_mut().take().unwrap_or_default()
    }

    fn room(&self) -> u64 {
        OUTSTANDING_MAX.saturating_sub(self.sent.get() - self.next.get())
    }
}

/// Sends at a pace until dropped.
pub(crate) async fn drive(source: &mut dyn Source, traffic: &Traffic, pace: Pace) {
    match pace {
        Pace::Saturated => saturate(source, traffic).await,
        Pace::PerSecond { frames, burst } => {
            let interval = Duration::from_secs(1) * burst / frames;
            spread(source, traffic, u64::from(burst), interval).await;
        }
    }
}

async fn saturate(source: &mut dyn Source, traffic: &Traffic) {
    loop {
        if traffic.room() >= CHUNK {
            source.emit(traffic, CHUNK);
            tokio::task::yield_now().await;
        } else if tokio::time::timeout(STUCK, traffic.arrived.notified()).await.is_err() {
            traffic.next.set(traffic.sent.get());
        }
    }
}

/// Looks at the clock all the time: a timer of tokio's is up to a millisecond late.
async fn spread(source: &mut dyn Source, traffic: &Traffic, burst: u64, interval: Duration) {
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        if now >= due {
            source.emit(traffic, burst);
            // After a pause of this process what was missed is not made up for.
            due = if now - due > STUCK { now } else { due } + interval;
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_by_its_last_bytes_and_strangers_are_not_counted() {
        let (traffic, now) = (Traffic::new(), Instant::now());
        traffic.note_delays();
        let mut frame = [0; 40];
        traffic.stamp(&mut frame, now);

        traffic.arrive(&frame, now + Duration::from_millis(3));
        traffic.arrive(&[9; 40], now);
        traffic.arrive(&[0; 4], now);

        assert_eq!(traffic.counts(), (1, 1));
        assert_eq!(traffic.take_delays(), [Duration::from_millis(3)]);
        assert_eq!(traffic.room(), OUTSTANDING_MAX);
    }

    #[test]
    fn frames_under_way_take_room_until_a_later_one_arrives() {
        let (traffic, now) = (Traffic::new(), Instant::now());
        let mut frames = [[0; 20]; 3];
        for frame in &mut frames {
            traffic.stamp(frame, now);
        }
        assert_eq!(traffic.room(), OUTSTANDING_MAX - 3);

        traffic.arrive(&frames[1], now);

        assert_eq!(traffic.room(), OUTSTANDING_MAX - 1);
    }
}
