//! How long a packet gets through to a neighbour (DPLPMTUD, RFC 8899, as quinn does it).
//!
//! Data lanes send packets of [`LINK_MTU`] bytes whatever happens, for a frame is no shorter in pieces. The light
//! lane's are short, and get through where those do not: its connection begins at QUIC's least and searches for more.
//! The first length that it tries is what frames need, so that an answer comes after a round trip, and a link that is
//! too narrow shows after three lost tries; no frames take it then, and the scheduler is told.
//!
//! A path may become narrower later. Nothing long goes over a light lane by itself, so now and then it sends padding as
//! long as the longest message: quinn takes a few of these lost, and shorter ones not, for a black hole, falls back,
//! and searches anew a minute later.

use std::time::{Duration, Instant};

use overway_relay_core::PathMtu;
use overway_wire::hop::{self, LINK_MTU, Lane};
use quinn::MtuDiscoveryConfig;

use super::driver::Driver;

/// QUIC's least (RFC 9000, 14): what the light lane begins with.
const LIGHT_MTU: u16 = 1_200;
/// As far above what frames need as the light lane's beginning is below it, for quinn's search begins half way between.
/// What it would find beyond this would serve nothing.
const SOUGHT_MAX: u16 = 2 * LINK_MTU - LIGHT_MTU;
/// So often an end that found less than it sought searches anew.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// So often padding goes out: a kilobit a second for each link.
const PADDING_EVERY: Duration = Duration::from_secs(10);
/// Tries of one length that quinn gives up after. On a line that loses one packet in ten, one search in a thousand
/// goes wrong, and the next one a minute later puts it right.
const TRIES_LOST: u64 = 3;

/// Makes a light lane's transport search for the path's MTU.
pub(super) fn seek(transport: &mut quinn::TransportConfig) {
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(SOUGHT_MAX).interval(SEARCH_EVERY).black_hole_cooldown(SEARCH_EVERY);
    transport.initial_mtu(LIGHT_MTU).min_mtu(LIGHT_MTU).mtu_discovery_config(Some(search));
}

/// What a connection's search has found; `None` while it has found nothing either way.
fn found(path: &quinn::PathStats) -> Option<PathMtu> {
    let bytes = path.current_mtu;
    let is_narrow = bytes < LINK_MTU;
    let is_settled =
        !is_narrow || path.lost_plpmtud_probes >= TRIES_LOST || path.black_holes_detected > 0;
    is_settled.then_some(PathMtu { bytes, is_narrow })
}

impl Driver {
    /// Tells the core what the light lanes have found, and has those whose turn it is send padding.
    pub(super) fn look_at_mtus(&mut self, now: Instant) {
        let mut changed = Vec::new();
        for (&(link, lane), state) in &mut self.connections {
            if lane != Lane::Light {
                continue;
            }
            let Some(mtu) = found(&state.connection.stats().path) else { continue };
            if state.mtu.replace(mtu) != Some(mtu) {
                changed.push((link, mtu));
            }
            if !mtu.is_narrow && now.saturating_duration_since(state.padded) >= PADDING_EVERY {
                state.padded = now;
                let mut padding = Vec::with_capacity(hop::REPAIR_BYTES_MAX);
                hop::encode_padding(hop::REPAIR_BYTES_MAX, &mut padding);
                // One that is not sent says nothing.
                let _ = state.connection.send_datagram(padding.into());
            }
        }
        for (link, mtu) in changed {
            let name = self.core.fib().names.get(&link.neighbour).cloned().unwrap_or_default();
            if mtu.is_narrow && self.is_lead() {
                let bytes = mtu.bytes;
                tracing::warn!(
                    %link, name, bytes, needed = LINK_MTU,
                    "packets as long as frames need do not get through: the link is not used; raise the MTU of \
                     the path, or look for a tunnel or a firewall that drops them"
                );
            } else {
                tracing::debug!(%link, name, bytes = mtu.bytes, "path MTU");
            }
            self.core.handle_mtu(link, mtu, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(current_mtu: u16, lost: u64, black_holes: u64) -> quinn::PathStats {
        let mut path = quinn::PathStats::default();
        path.current_mtu = current_mtu;
        path.lost_plpmtud_probes = lost;
        path.black_holes_detected = black_holes;
        path
    }

    #[test]
    fn a_link_is_narrow_only_once_enough_was_lost() {
        assert_eq!(found(&path(LIGHT_MTU, 0, 0)), None);
        assert_eq!(found(&path(LIGHT_MTU, 2, 0)), None);
        let narrow = PathMtu { bytes: LIGHT_MTU, is_narrow: true };
        assert_eq!(found(&path(LIGHT_MTU, 3, 0)), Some(narrow));
        assert_eq!(found(&path(LIGHT_MTU, 0, 1)), Some(narrow));
        let wide = PathMtu { bytes: LINK_MTU, is_narrow: false };
        assert_eq!(found(&path(LINK_MTU, 3, 1)), Some(wide));
    }
}
