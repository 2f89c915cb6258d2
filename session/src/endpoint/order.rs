//! The words by which the two ends of a session tell one another how long frames are held for order.

use std::sync::Arc;

use quinn::{Connection, SendDatagramError};

use crate::congestion;
use crate::order_delay::{OrderDelay, OrderDelays, Ordered, TELL_EVERY};
use crate::stats::Counters;

/// Words are due for so many intervals after the last frame that was held: a hold may be 250 ms, at whose end all is added.
const QUIET_INTERVALS: u32 = 30;

/// Says how long frames are held here, and hears how long there, until the connection ends.
pub(super) async fn exchange(connection: Connection, counters: Arc<Counters>) {
    let Some(delays) = congestion::order_delays(&connection) else { return };
    tokio::join!(tell(&connection, &delays.here, &counters), hear(&connection, &delays, &counters));
}

async fn hear(connection: &Connection, delays: &OrderDelays, counters: &Counters) {
    while let Ok(word) = connection.read_datagram().await {
        // Of a later version, perhaps.
        let Some(said) = OrderDelay::decode(&word) else { continue };
        delays.hear(said);
        counters.order_words_received.increment();
    }
}

/// Frames count from when one is held: of what passes while none is the other end knows as much.
async fn tell(connection: &Connection, ordered: &Ordered, counters: &Counters) {
    let mut told = OrderDelay::default();
    loop {
        tokio::select! {
            () = ordered.holding() => {}
            _ = connection.closed() => return,
        }
        let (mut before, mut quiet) = (ordered.delay(), 0);
        while quiet < QUIET_INTERVALS {
            tokio::time::sleep(TELL_EVERY).await;
            let now = ordered.delay();
            let more = now.since(before);
            (before, told) = (now, told.plus(more));
            if more.micros == 0 {
                quiet += 1;
                continue;
            }
            quiet = 0;
            match connection.send_datagram(told.encode().to_vec().into()) {
                Ok(()) => counters.order_words_sent.increment(),
                // A far end of an earlier version, or none any more.
                Err(
                    SendDatagramError::UnsupportedByPeer
                    | SendDatagramError::Disabled
                    | SendDatagramError::TooLarge
                    | SendDatagramError::ConnectionLost(_),
                ) => return,
            }
        }
    }
}
