//! The counts as metrics, for whatever process the gateway is in.

use overway_telemetry::{Exposition, export_counters};

use crate::Stats;

/// Adds the counts to a scrape.
pub fn export(out: &mut Exposition, stats: Stats) {
    let (connections, flows, refused, dropped) = export_counters!(out, "gateway_", stats, Stats {
            connections_accepted: "TCP connections accepted by forwards and SOCKS listeners.",
            connections_served: "TCP connections made to targets.",
            connections_reset: "TCP connections that ended by a reset.",
            connections_lost: "TCP connections that ended because their session did.",
            connections_expired: "TCP connections that were ended because they were idle.",
            stream_bytes_to_mesh: "Bytes from TCP sockets to sessions.",
            stream_bytes_from_mesh: "Bytes from sessions to TCP sockets.",
            flows_opened: "Flows opened for UDP clients.",
            flows_served: "Flows served for other relays' clients.",
            flows_expired: "UDP clients and flows that ended idle.",
            datagrams_to_mesh: "Datagrams from UDP sockets to sessions.",
            datagrams_from_mesh: "Datagrams from sessions to UDP sockets.",
            datagram_bytes_to_mesh: "Bytes of datagrams from UDP sockets to sessions.",
            datagram_bytes_from_mesh: "Bytes of datagrams from sessions to UDP sockets.",
        } and connections_active, flows_active, refused, dropped);
    out.gauge("gateway_connections", "TCP connections carried now.", &[], connections as f64);
    out.gauge("gateway_flows", "UDP clients and served flows now.", &[], flows as f64);
    for (reason, count) in refused {
        let labels = [("reason", reason.name())];
        out.counter("gateway_refused_total", "Connections and flows refused.", &labels, count);
    }
    for (reason, count) in dropped {
        let labels = [("reason", reason.name())];
        out.counter("gateway_datagrams_dropped_total", "Datagrams dropped.", &labels, count);
    }
}
