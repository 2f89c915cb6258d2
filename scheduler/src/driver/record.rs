//! What happened, for the log and for readers of events.

use overway_scheduler_core::{DrainStage, Drainable, Event};
use overway_topology::Resource;
use overway_wire::RelayId;
use tracing::field::display;
use tracing::{Span, debug, info, warn};

use super::State;

impl State {
    pub(super) fn name(&self, relay: RelayId) -> String {
        self.names.get(&relay).cloned().unwrap_or_else(|| relay.to_string())
    }

    pub(super) fn note(&mut self, kind: &'static str, detail: String) {
        info!(kind, detail, "membership changed");
        self.events.push(kind, detail);
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    pub(super) fn record(&mut self, event: Event) {
        match event {
            Event::RelayConnected { relay } => {
                let name = self.name(relay);
                info!(%relay, name, "relay connected");
                self.events.push_about("relay_connected", name, &[relay]);
            }
            Event::RelayLost { relay, draining } => {
                let name = self.name(relay);
                info!(%relay, name, draining, "relay lost");
                let why = if draining { " (it said goodbye)" } else { "" };
                self.events.push_about("relay_lost", format!("{name}{why}"), &[relay]);
            }
            Event::LinkChanged { link, usable } => {
                debug!(%link, usable, "link changed");
                let kind = if usable { "link_usable" } else { "link_unusable" };
                let (from, to) = (self.name(link.from), self.name(link.to));
                let detail = format!("{from} > {to} link {}", link.index);
                self.events.push_about(kind, detail, &[link.from, link.to]);
            }
            Event::LinkSuspect { link } => {
                debug!(%link, "link suspect");
                let (from, to) = (self.name(link.from), self.name(link.to));
                let detail = format!("{from} > {to} link {}", link.index);
                self.events.push_about("link_suspect", detail, &[link.from, link.to]);
            }
            Event::RelayUnreached { relay } => {
                let name = self.name(relay);
                warn!(%relay, name, "no link leads to a relay any more");
                self.events.push_about("relay_unreached", name, &[relay]);
            }
            Event::RelayReached { relay } => {
                let name = self.name(relay);
                info!(%relay, name, "a relay is reached again");
                self.events.push_about("relay_reached", name, &[relay]);
            }
            Event::Detoured { relay, frames } => {
                debug!(%relay, frames, "detoured");
                let detail = format!(
                    "{} sent {} around a dead link",
                    self.name(relay),
                    plural(frames, "frame")
                );
                self.events.push_about("detour", detail, &[relay]);
            }
            Event::RelayStalled { relay, times } => {
                info!(%relay, times, "a relay's process woke late");
                let detail = format!("{} woke late {}", self.name(relay), plural(times, "time"));
                self.events.push_about("stall", detail, &[relay]);
            }
            Event::EpochMade { epoch, changed_routes, updates } => {
                debug!(%epoch, changed_routes, updates, "epoch made");
                let span = Span::current();
                span.record("epoch", display(epoch));
                span.record("routes", changed_routes).record("updates", updates);
                let detail = format!("{epoch}: {changed_routes} routes, {updates} relays");
                let kind = if changed_routes > 0 { "routes" } else { "epoch" };
                self.events.push(kind, detail);
            }
            Event::Overloaded { resource, rate, capacity } => {
                let what = self.resource(resource);
                let (rate_bps, capacity_bps) = (rate.0, capacity.0);
                warn!(what, rate_bps, capacity_bps, "overloaded");
                let detail = format!("{what}: {rate_bps} of {capacity_bps} bit/s");
                self.events.push("overloaded", detail);
            }
            Event::OverloadEnded { resource } => {
                let what = self.resource(resource);
                info!(what, "no longer overloaded");
                self.events.push("overload_ended", what);
            }
            Event::DrainChanged { target, stage } => {
                let what = match target {
                    Drainable::Relay(relay) => self.name(relay),
                    Drainable::Link(one, other) => {
                        format!("{} - {}", self.name(one), self.name(other))
                    }
                };
                let stage = match stage {
                    DrainStage::Leaving => "traffic leaves",
                    DrainStage::Over => "the deadline has passed: not used any more",
                    DrainStage::Undone => "taken back",
                };
                info!(what, stage, "drain");
                self.events.push("drain", format!("{what}: {stage}"));
            }
            Event::PolicyChanged { policy } => {
                info!(policy = policy.0, "policy changed");
                self.events.push("policy", format!("policy {} changed", policy.0));
            }
            Event::TenantChanged { tenant } => {
                info!(tenant = tenant.0, "tenant changed");
                self.events.push("tenant", format!("tenant {} changed", tenant.0));
            }
            Event::ReportRefused { relay, reason } => {
                warn!(%relay, %reason, "refused a report");
                let detail = format!("{}: {reason}", self.name(relay));
                self.events.push("report_refused", detail);
            }
        }
    }

    /// What can be overloaded, in words.
    fn resource(&self, resource: Resource) -> String {
        match resource {
            Resource::Link(link) => {
                format!("link {} > {} ({})", self.name(link.from), self.name(link.to), link.index)
            }
            Resource::Sending(relay) => format!("{}, sending", self.name(relay)),
            Resource::Receiving(relay) => format!("{}, receiving", self.name(relay)),
            Resource::LineSending(relay, line) => {
                format!("{}, sending on line {line}", self.name(relay))
            }
            Resource::LineReceiving(relay, line) => {
                format!("{}, receiving on line {line}", self.name(relay))
            }
        }
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
