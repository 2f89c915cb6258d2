//! The relay's metrics, built from everybody's plain counters at each scrape.
//!
//! The label budget: `relay`, `name` and `version` once, `worker`, `reason`, `mode`, `class`, `lane`, `direction`, `neighbour`, `link` and `line`; never a flow, a client or a
//! pair of relays.

use std::sync::atomic::Ordering;

use overway_relay_core::{DropReason, QueueStats, RecoveryStats, Stats};
use overway_telemetry::{Exposition, export_counters};
use overway_wire::control::{LinkReport, State, Window};
use overway_wire::hop::Lane;
use overway_wire::{Class, Redundancy, RelayId};

use crate::access::{AccessDrop, AccessStats, REFUSALS};
use crate::control::ControlStatus;
use crate::fault::FaultStats;
use crate::lines::LineTotals;
use crate::mesh::{ShellStats, Snapshot};
use crate::quality::QualityStats;

/// What is exported.
pub(crate) struct Gathered<'a> {
    pub(crate) local: RelayId,
    pub(crate) name: &'a str,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) control: &'a ControlStatus,
    pub(crate) session: overway_session::Stats,
    pub(crate) gateway: overway_gateway::Stats,
    pub(crate) certificate_seconds: f64,
    pub(crate) buffers_short: usize,
    pub(crate) lines: Vec<LineTotals>,
    /// What users feel.
    pub(crate) quality: QualityStats,
    /// If edges may attach.
    pub(crate) access: Option<AccessStats>,
    /// Of each line's socket, if fault injection is configured.
    pub(crate) faults: Vec<FaultStats>,
}

/// Builds one scrape.
pub(crate) fn exposition(gathered: Gathered<'_>) -> Exposition {
    let Gathered { snapshot, control, session, gateway, lines, faults, .. } = gathered;
    let Gathered { local, name, certificate_seconds, buffers_short, access, quality, .. } =
        gathered;
    let mut out = Exposition::new("overway_relay");
    let labels =
        [("relay", &*local.0.to_string()), ("name", name), ("version", env!("CARGO_PKG_VERSION"))];
    let help = "Always 1: which name belongs to the number by which links call their neighbour.";
    out.gauge("info", help, &labels, 1.0);
    core(&mut out, &snapshot.stats);
    shell(&mut out, snapshot.shell);
    probes(&mut out, snapshot.probes);
    recovery(&mut out, &snapshot.recovery);
    redundancy(&mut out, snapshot);
    for (worker, &frames) in snapshot.workers.iter().enumerate() {
        let help = "Frames that a worker took from neighbours and local ends.";
        let worker = worker.to_string();
        out.counter("worker_frames_total", help, &[("worker", &worker)], frames);
    }
    for (class, stats) in Class::ALL.into_iter().zip(snapshot.queues) {
        queue(&mut out, class, stats);
    }
    (0..).zip(lines).for_each(|(index, totals)| line(&mut out, index, totals));
    (0..).zip(faults).for_each(|(index, stats)| fault(&mut out, index, stats));
    control_plane(&mut out, control);
    overway_session::export(&mut out, session);
    overway_gateway::export(&mut out, gateway);
    felt(&mut out, quality);
    if let Some(stats) = access {
        self::access(&mut out, stats);
    }
    snapshot.links.iter().for_each(|report| link(&mut out, report));
    let help = "Time until the relay's certificate ends.";
    out.gauge("certificate_remaining_seconds", help, &[], certificate_seconds);
    let help = "Mesh sockets whose kernel buffers are smaller than asked for.";
    out.gauge("sockets_short_of_buffer", help, &[], float(buffers_short as u64));
    out
}

fn core(out: &mut Exposition, stats: &Stats) {
    // The bytes are exported by what they were sent for, see `redundancy`.
    let (drops, _, _) = export_counters!(out, "", *stats, Stats {
        frames_received: "Frames received from neighbours.",
        bytes_received: "Bytes of frames received from neighbours.",
        frames_sent: "Frames handed to links.",
        bytes_sent: "Bytes of frames handed to links.",
        frames_originated: "Frames from local ends.",
        demands_uncounted: "Frames from local ends that no demand report counts.",
        frames_delivered: "Frames given to local ends.",
        frames_forwarded: "Frames carried between neighbours.",
        handed: "Frames handed from one shard of this relay to another.",
        copies: "Second copies sent because a link was suspect.",
        doubles: "Frames sent over a second path because their flow wants all of it twice.",
        copies_over_budget: "Copies not made because the detour's share was used up.",
        detours: "Frames that took a detour around a dead link.",
        alternates: "Frames and copies sent to their destination's other address.",
        replays: "Unacknowledged frames sent again over a detour.",
        notices_sent: "Notices sent to sources.",
        notices_received: "Notices acted on as a source.",
        traces_answered: "Probes of traces answered.",
        traces_unanswered: "Probes of traces not answered, because there were too many.",
        self_stalls: "Times that this process woke late.",
        suspects: "Times that a link became suspect.",
        downs: "Times that a link went down.",
        updates_applied: "Updates of the pushed state applied.",
        updates_refused: "Updates that did not fit the state held.",
    } and drops, copy_bytes, double_bytes);
    for (reason, count) in DropReason::ALL.into_iter().zip(drops) {
        let labels = [("reason", reason.name())];
        out.counter("frames_dropped_total", "Frames and messages dropped.", &labels, count);
    }
}

fn redundancy(out: &mut Exposition, snapshot: &Snapshot) {
    let twins = snapshot.recovery.iter().map(|lane| lane.twin_bytes).sum();
    let repairs = snapshot.recovery.iter().map(|lane| lane.repair_bytes).sum();
    for (mode, reason, bytes) in [
        (Redundancy::Adaptive, "silence", snapshot.stats.copy_bytes),
        (Redundancy::Adaptive, "loss", twins),
        (Redundancy::Adaptive, "repair", repairs),
        (Redundancy::Always, "always", snapshot.stats.double_bytes),
    ] {
        let labels = [("mode", mode.name()), ("reason", reason)];
        let help = "Bytes sent beside a frame's first copy unasked, on each link that they cross.";
        out.counter("redundancy_bytes_total", help, &labels, bytes);
    }
}

fn queue(out: &mut Exposition, class: Class, stats: QueueStats) {
    let QueueStats { queued, waiting, waiting_bytes, marked, evicted, aged, expired, waited_max } =
        stats;
    let class = class.name();
    let labels = [("class", class)];
    let help = "Frames that queues in front of links took in.";
    out.counter("queue_frames_total", help, &labels, queued);
    let help = "Frames that met a queue which was building up, and told their ends.";
    out.counter("queue_marked_total", help, &labels, marked);
    for (reason, count) in [("full", evicted), ("age", aged), ("expired", expired)] {
        let labels = [("class", class), ("reason", reason)];
        out.counter("queue_dropped_total", "Frames dropped while they waited.", &labels, count);
    }
    out.gauge("queue_frames", "Frames that wait.", &labels, float(waiting));
    let help = "What these take on the wire.";
    out.gauge("queue_bytes", help, &labels, float(waiting_bytes));
    let help = "The longest that a frame has waited since the start.";
    out.gauge("queue_wait_max_seconds", help, &labels, waited_max.as_secs_f64());
}

fn shell(out: &mut Exposition, stats: ShellStats) {
    let connections = export_counters!(out, "", stats, ShellStats {
        dials_failed: "Connections dialled that failed.",
        refused: "Incoming connections refused.",
        delivered_dropped: "Frames that local ends missed, for they did not keep up.",
        delivered_unknown: "Frames for ends that are not attached.",
        reports_dropped: "Reports that the control client missed.",
        handed_dropped: "Frames dropped between two workers.",
        datagrams_moved: "Datagrams that the kernel gave to another worker than theirs.",
        datagrams_moved_dropped: "Of such, datagrams dropped because their worker did not keep up.",
    } and connections);
    out.gauge("connections", "QUIC connections that stand.", &[], float(connections));
}

fn probes(out: &mut Exposition, stats: overway_probe::Stats) {
    export_counters!(
        out,
        "probe_",
        stats,
        overway_probe::Stats {
            heartbeats_sent: "Heartbeats sent.",
            heartbeats_received: "Heartbeats that arrived and counted.",
            heartbeats_late: "Heartbeats older than one that came before.",
            heartbeats_old_boot: "Heartbeats of a neighbour's life before its restart.",
            frames_received: "Numbered frames that arrived.",
            bytes_received: "Bytes of numbered frames that arrived.",
            expected: "Frames and heartbeats that should have arrived, outages left out.",
            lost: "Of these, lost, as first counted.",
            recovered: "Counted as lost, and arrived after all.",
            stale: "Numbers that arrived twice, or too late to tell.",
            jumps: "Jumps in numbers after which counting started anew.",
            rtt_ignored: "Round trips that were negative or absurd.",
            timings_ignored: "One-way differences that were absurd or far off the mean.",
            clock_steps: "Times that averages started over because a clock was set.",
            suspects: "Times that an inbound direction became suspect.",
            downs: "Times that an inbound direction went down.",
            peer_restarts: "Times that a neighbour was started anew.",
            stalls: "Stalls of this process, once for each link.",
        }
    );
}

fn recovery(out: &mut Exposition, lanes: &[RecoveryStats; Lane::DATA.len()]) {
    for (lane, stats) in Lane::DATA.into_iter().zip(lanes) {
        let labels = [("lane", lane.name())];
        for (name, help, count) in recovery_counters(stats) {
            out.counter(name, help, &labels, count);
        }
    }
}

fn recovery_counters(stats: &RecoveryStats) -> [(&'static str, &'static str, u64); 27] {
    let RecoveryStats {
        missing,
        recovered,
        given_up,
        late,
        duplicates,
        nacks_sent,
        asked,
        asks_over_budget,
        nacks_received,
        wanted,
        resent,
        over_budget,
        absent,
        repeated,
        expired,
        twins_sent,
        twin_bytes: _,
        twins_over_budget,
        spared,
        blocks,
        repairs_sent,
        repair_bytes: _,
        repairs_unsent,
        repairs_received,
        repairs_spare,
        repairs_vain,
        rebuilt,
        tails_sent,
        tails_received,
    } = *stats;
    [
        ("recovery_missing_total", "Frames that did not come in time.", missing),
        ("recovery_recovered_total", "Of these, frames that came when asked for.", recovered),
        ("recovery_given_up_total", "Of these, frames lost after recovery.", given_up),
        ("recovery_late_total", "Frames that were overtaken and came by themselves.", late),
        ("recovery_duplicates_total", "Frames that came twice, or too late to tell.", duplicates),
        ("recovery_nacks_sent_total", "NACKs sent.", nacks_sent),
        ("recovery_asked_total", "Frames asked for, each time.", asked),
        (
            "recovery_asks_over_budget_total",
            "Frames not asked for, for too many.",
            asks_over_budget,
        ),
        ("recovery_nacks_received_total", "NACKs received.", nacks_received),
        ("recovery_wanted_total", "Frames that neighbours asked for, each time.", wanted),
        ("recovery_resent_total", "Frames sent again, second copies included.", resent),
        ("recovery_over_budget_total", "Frames not sent again, for too many.", over_budget),
        ("recovery_absent_total", "Frames asked for that are not kept.", absent),
        ("recovery_repeated_total", "Frames asked for too soon or too often.", repeated),
        ("recovery_expired_total", "Frames asked for whose time was up.", expired),
        ("recovery_twins_sent_total", "Second copies sent unasked, on lossy lines.", twins_sent),
        (
            "recovery_twins_over_budget_total",
            "Frames without such, for too many copies.",
            twins_over_budget,
        ),
        ("recovery_spared_total", "Frames that came by their second copy first.", spared),
        ("recovery_blocks_total", "Blocks of messages with repairs sent.", blocks),
        ("recovery_repairs_sent_total", "Repairs sent.", repairs_sent),
        ("recovery_repairs_unsent_total", "Repairs not sent, for want of room.", repairs_unsent),
        ("recovery_repairs_received_total", "Repairs received.", repairs_received),
        ("recovery_repairs_spare_total", "Of these, where nothing was missing.", repairs_spare),
        ("recovery_repairs_vain_total", "Of these, where too much was missing.", repairs_vain),
        ("recovery_rebuilt_total", "Frames computed from repairs.", rebuilt),
        ("recovery_tails_sent_total", "Tail probes sent.", tails_sent),
        ("recovery_tails_received_total", "Tail probes received.", tails_received),
    ]
}

fn line(out: &mut Exposition, index: usize, totals: LineTotals) {
    let LineTotals { sent_bytes, sent_bytes_month } = totals;
    let index = index.to_string();
    let labels = [("line", index.as_str())];
    let help = "Bytes sent over a line, IP and UDP headers included.";
    out.counter("line_sent_bytes_total", help, &labels, sent_bytes);
    let help = "Bytes sent over a line in this calendar month (UTC), over restarts.";
    out.gauge("line_sent_month_bytes", help, &labels, float(sent_bytes_month));
}

fn fault(out: &mut Exposition, index: usize, stats: FaultStats) {
    let FaultStats { delivered, cut, too_long, lost, overflowed, crowded, oversize } = stats;
    let index = index.to_string();
    let help = "Datagrams handed on by fault injection.";
    out.counter("fault_delivered_total", help, &[("line", index.as_str())], delivered);
    for (reason, count) in [
        ("cut", cut),
        ("lost", lost),
        ("overflowed", overflowed),
        ("crowded", crowded),
        ("too_long", too_long),
        ("oversize", oversize),
    ] {
        let labels = [("line", index.as_str()), ("reason", reason)];
        out.counter("fault_dropped_total", "Datagrams dropped by fault injection.", &labels, count);
    }
}

fn control_plane(out: &mut Exposition, control: &ControlStatus) {
    let ControlStatus { connected, connections, losses, renewals } = control;
    let connected = f64::from(u8::from(connected.load(Ordering::Relaxed)));
    out.gauge("scheduler_connected", "Whether a scheduler is connected.", &[], connected);
    for (name, help, value) in [
        ("scheduler_connections_total", "Connections to schedulers.", connections),
        ("scheduler_losses_total", "Connections to schedulers failed or lost.", losses),
        ("certificate_renewals_total", "Certificates renewed.", renewals),
    ] {
        out.counter(name, help, &[], value.load(Ordering::Relaxed));
    }
}

fn access(out: &mut Exposition, stats: AccessStats) {
    let (attachments, refused, dropped) = export_counters!(out, "access_", stats, AccessStats {
            handshakes: "Handshakes of edges that began.",
            handshakes_refused: "Of these, turned away because too many were under way.",
            handshakes_retried: "Handshakes whose address had to be proven first.",
            asked: "Askers for the nearest relays before they attached.",
            handshakes_failed: "Handshakes that failed, or were not followed by an attach in time.",
            attached: "Edges that attached.",
            attached_tcp: "Of these, over TLS on TCP.",
            replaced: "Edges that attached and were attached already.",
            ended: "Connections of attached edges that ended.",
            ended_by_relay: "Of these, ended by the relay.",
            frames_up: "Frames from edges handed to the mesh.",
            bytes_up: "Bytes of payload of these.",
            frames_down: "Frames sent to edges.",
            bytes_down: "Bytes of payload of these.",
            suspects: "Times that an edge fell silent for one and a half intervals.",
            downs: "Times that an edge fell silent for three.",
        } and attachments, refused, dropped);
    out.gauge("access_attachments", "Edges attached now.", &[], float(attachments));
    for ((_, reason), count) in REFUSALS.into_iter().zip(refused) {
        out.counter("access_refused_total", "Edges refused.", &[("reason", reason)], count);
    }
    for (reason, count) in AccessDrop::ALL.into_iter().zip(dropped) {
        let labels = [("reason", reason.name())];
        let help = "Frames dropped between an edge and the mesh.";
        out.counter("access_frames_dropped_total", help, &labels, count);
    }
}

fn felt(out: &mut Exposition, stats: QualityStats) {
    let flows = export_counters!(out, "quality_", stats, QualityStats {
        reports: "Reports of ends on what their flows feel like.",
        reports_refused: "Reports of ends that make no sense, or are too many.",
        reports_other: "Reports of ends whose service counts as another, there being too many.",
        flows_forgotten: "Flows whose detail was forgotten to make room for others.",
    } and flows);
    out.gauge("quality_flows", "Flows whose detail is kept.", &[], float(flows));
}

fn link(out: &mut Exposition, report: &LinkReport) {
    let neighbour = report.neighbour.to_string();
    let index = report.index.to_string();
    let labels = [("neighbour", neighbour.as_str()), ("link", index.as_str())];
    for (direction, state) in [("inbound", report.inbound()), ("outbound", report.outbound())] {
        let labels = [labels[0], labels[1], ("direction", direction)];
        let up = f64::from(u8::from(matches!(state, State::Up | State::Suspect)));
        out.gauge("link_up", "Whether a link's direction is up.", &labels, up);
    }
    if report.mtu > 0 {
        let help = "The longest UDP payload known to get through to a neighbour.";
        out.gauge("link_mtu_bytes", help, &labels, f64::from(report.mtu));
    }
    let rate = float(report.received_bps / 8);
    out.gauge("link_received_bytes_per_second", "Frames received on a link.", &labels, rate);
    if let Some(window) = &report.fast {
        let rtt = f64::from(window.rtt_us) / 1e6;
        out.gauge("link_rtt_seconds", "Round trip of a link.", &labels, rtt);
        let jitter = f64::from(window.jitter_us) / 1e6;
        out.gauge("link_jitter_seconds", "Mean deviation of a link's delay.", &labels, jitter);
    }
    if let Some(slow) = report.slow.as_ref().filter(|slow| slow.samples > 0) {
        let loss = f64::from(slow.lost) / f64::from(slow.samples);
        out.gauge("link_loss_ratio", "Share lost on a link, over 30 s.", &labels, loss);
    }
}

#[expect(clippy::cast_precision_loss, reason = "the format has floats; 2^53 is enough")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Every metric that a relay can have, with made-up values: what the reference is made of.
pub fn sample() -> Exposition {
    let links = vec![LinkReport {
        neighbour: 2,
        mtu: 1_304,
        fast: Some(Window::default()),
        slow: Some(Window { samples: 1, ..Window::default() }),
        ..LinkReport::default()
    }];
    let snapshot = Snapshot {
        stats: Stats::default(),
        probes: overway_probe::Stats::default(),
        recovery: Default::default(),
        queues: Default::default(),
        shell: ShellStats::default(),
        workers: vec![3, 4],
        links,
        chosen: Vec::new(),
    };
    exposition(Gathered {
        local: RelayId(1),
        name: "rome",
        snapshot: &snapshot,
        control: &ControlStatus::default(),
        session: overway_session::Stats::default(),
        gateway: overway_gateway::Stats::default(),
        certificate_seconds: 1.0,
        buffers_short: 0,
        lines: vec![LineTotals::default(); 2],
        access: Some(AccessStats::default()),
        quality: QualityStats::default(),
        faults: vec![FaultStats::default(); 2],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metric_has_a_label_beyond_the_budget() {
        let exposition = sample();

        let allowed = [
            "relay",
            "name",
            "version",
            "worker",
            "reason",
            "class",
            "lane",
            "neighbour",
            "link",
            "direction",
            "line",
            "mode",
        ];
        for (family, labels) in exposition.labels() {
            for label in labels {
                assert!(allowed.contains(&label.as_str()), "{family} has the label {label}");
            }
        }
    }
}
