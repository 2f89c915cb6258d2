//! Faults begin and end.

use std::ops::Range;

use overway_wire::{LinkId, RelayId};

use super::{Happening, World};
use crate::drill::Failure;
use crate::fault::{Applied, Kind, Planned, storm};
use crate::network::Loss;
use crate::partition::CUT_OFF;
use crate::site::Site;

impl World {
    /// Plans the storm, which begins now.
    pub(crate) fn plan_storm(&mut self) {
        let (length, spacing) = (self.scenario.storm, self.scenario.fault_spacing);
        for planned in storm(length, spacing, &mut self.fault_chance) {
            let begin = planned.begin;
            // Times from now on.
            self.schedule(begin, Happening::Begin(planned));
        }
        if self.scenario.cells {
            let (begin, end) = (length / 4, length * 3 / 4);
            let planned = Planned { begin, end, kind: Kind::CutOff };
            self.schedule(begin, Happening::Begin(planned));
        }
    }

    /// Lets every link lose what the scenario wants; returns where the flows are.
    pub(crate) fn begin_losses(&mut self) -> Vec<(usize, u64)> {
        let ppm = self.scenario.loss_ppm;
        if ppm == 0 {
            return Vec::new();
        }
        self.network.lose_everywhere(Some(Loss { ppm, burst: 1 }));
        self.slots.iter().map(|&flow| (flow, self.flows[flow].next)).collect()
    }

    /// Ends that; returns which frames of which flows were sent meanwhile.
    pub(crate) fn end_losses(&mut self, began: &[(usize, u64)]) -> Vec<(usize, Range<u64>)> {
        self.network.lose_everywhere(None);
        let sent = |&(flow, first): &(usize, u64)| (flow, first..self.flows[flow].next);
        began.iter().map(sent).collect()
    }

    /// How many of these were lost in spite of recovery.
    pub(crate) fn judge_losses(&mut self, sent: &[(usize, Range<u64>)]) {
        let frames: u64 = sent.iter().map(|(_, frames)| frames.end - frames.start).sum();
        let lost = sent.iter().map(|(flow, frames)| {
            frames.clone().filter(|&at| !self.flows[*flow].has_passed(at)).count() as u64
        });
        let lost: u64 = lost.sum();
        self.figures.lossy_frames += frames;
        self.figures.lossy_frames_lost += lost;
        if lost * 1_000_000 > frames * self.scenario.residual_ppm_max {
            let now = self.now;
            self.watch.violate(now, format_args!("{lost} of {frames} frames lost on lossy links"));
        }
    }

    pub(super) fn begin(&mut self, planned: Planned) {
        let Some(applied) = self.apply(planned.kind) else { return };
        let at = self.applied.len();
        self.say(format_args!("fault {at}: {applied:?} for {:?}", planned.end - planned.begin));
        self.applied.push(Some(applied));
        self.schedule(planned.end - planned.begin, Happening::End(at));
    }

    fn apply(&mut self, kind: Kind) -> Option<Applied> {
        match kind {
            Kind::Cut => {
                let link = self.draw_link()?;
                self.figures.cuts += 1;
                Some(self.cut(vec![link, link.reversed()]))
            }
            Kind::OneWayCut => {
                let link = self.draw_link()?;
                self.figures.one_way_cuts += 1;
                Some(self.cut(vec![link]))
            }
            Kind::Isolation => {
                let relay = self.draw_relay()?;
                self.figures.isolations += 1;
                let own = |link: &LinkId| link.from == relay || link.to == relay;
                Some(self.cut(self.network.links().filter(own).collect()))
            }
            Kind::Freeze => {
                let relay = self.draw_relay()?;
                self.figures.freezes += 1;
                self.freeze_process(relay);
                Some(Applied::Frozen(relay))
            }
            Kind::Kill => {
                let relay = self.draw_relay()?;
                self.figures.kills += 1;
                self.kill_process(relay);
                Some(Applied::Killed(relay))
            }
            Kind::Loss => {
                let link = self.draw_link()?;
                self.figures.losses += 1;
                Some(self.lose(link))
            }
            Kind::Slowdown => {
                let link = self.draw_link()?;
                self.figures.slowdowns += 1;
                let by = std::time::Duration::from_millis(self.fault_chance.between(2, 60));
                self.network.slow(link, by);
                Some(Applied::Slowed(link, by))
            }
            Kind::SchedulerDeath => {
                self.scheduler.as_ref().filter(|scheduler| !scheduler.frozen)?;
                self.figures.scheduler_deaths += 1;
                self.kill_scheduler();
                Some(Applied::SchedulerDead)
            }
            Kind::SchedulerFreeze => {
                self.scheduler.as_ref().filter(|scheduler| !scheduler.frozen)?;
                self.figures.scheduler_freezes += 1;
                self.freeze_scheduler();
                Some(Applied::SchedulerFrozen)
            }
            Kind::ControlCut => {
                let relay = self.draw_relay()?;
                self.figures.control_cuts += 1;
                *self.control_cut.entry(relay).or_default() += 1;
                Some(Applied::ControlCut(relay))
            }
            Kind::ControlBreak => {
                let relay = self.draw_relay()?;
                self.figures.control_breaks += 1;
                self.break_pipe(relay);
                None
            }
            Kind::CutOff => self.cut_cell_off(),
        }
    }

    fn cut_cell_off(&mut self) -> Option<Applied> {
        let cell = self.cells.roomy(CUT_OFF).cloned()?;
        self.figures.cells_cut_off += 1;
        Some(self.cut_off(&cell))
    }

    fn lose(&mut self, link: LinkId) -> Applied {
        let ppm = self.fault_chance.between(20_000, 500_000);
        let loss = Loss { ppm, burst: self.fault_chance.between(1, 6) };
        for link in [link, link.reversed()] {
            self.network.lose(link, Some(loss));
        }
        Applied::Lossy(vec![link, link.reversed()])
    }

    pub(super) fn end(&mut self, at: usize) {
        let Some(applied) = self.applied.get_mut(at).and_then(Option::take) else { return };
        self.say(format_args!("fault {at}: ends"));
        match applied {
            Applied::Cut(links) => links.into_iter().for_each(|link| self.network.mend(link)),
            Applied::Frozen(relay) => self.thaw_process(relay),
            Applied::Killed(relay) => self.start_process(relay),
            Applied::Lossy(links) => {
                links.into_iter().for_each(|link| self.network.lose(link, None));
            }
            Applied::Slowed(link, by) => self.network.hasten(link, by),
            Applied::SchedulerDead => self.start_scheduler(),
            Applied::SchedulerFrozen => self.thaw_scheduler(),
            Applied::ControlCut(relay) => self.mend_control(relay),
            Applied::CutOff { links, relays } => {
                links.into_iter().for_each(|link| self.network.mend(link));
                relays.into_iter().for_each(|relay| self.mend_control(relay));
            }
        }
    }

    fn mend_control(&mut self, relay: RelayId) {
        let cuts = self.control_cut.entry(relay).or_default();
        *cuts = cuts.saturating_sub(1);
        self.release_pipes(relay);
    }

    /// Makes a relay fail now, until [`Self::undo`].
    pub(crate) fn strike(&mut self, failure: Failure, relay: RelayId) -> Applied {
        match failure {
            Failure::Freeze => {
                self.freeze_process(relay);
                Applied::Frozen(relay)
            }
            Failure::Kill => {
                self.kill_process(relay);
                Applied::Killed(relay)
            }
        }
    }

    /// Ends what [`Self::strike`] began.
    pub(crate) fn undo(&mut self, applied: Applied) {
        self.applied.push(Some(applied));
        self.end(self.applied.len() - 1);
    }

    pub(crate) fn cut(&mut self, links: Vec<LinkId>) -> Applied {
        links.iter().for_each(|&link| self.network.cut(link));
        Applied::Cut(links)
    }

    /// A link: half of the time one that a flow uses now.
    fn draw_link(&mut self) -> Option<LinkId> {
        if self.fault_chance.chance(500_000)
            && let Some(links) = self.draw_flow_links()
        {
            return self.fault_chance.pick(&links).copied();
        }
        let links: Vec<LinkId> = self.network.links().collect();
        self.fault_chance.pick(&links).copied()
    }

    fn draw_flow_links(&mut self) -> Option<Vec<LinkId>> {
        let &at = self.fault_chance.pick(&self.slots)?;
        let flow = &self.flows[at];
        let mut from = flow.ends.source.relay;
        let steps = flow.deliveries.back()?.path.elements().iter().map(|step| {
            let link = LinkId::new(from, step.relay, step.link);
            from = step.relay;
            link
        });
        Some(steps.collect())
    }

    /// A relay that runs and gets time: half of the time one that a flow uses now.
    fn draw_relay(&mut self) -> Option<RelayId> {
        if self.fault_chance.chance(500_000)
            && let Some(links) = self.draw_flow_links()
        {
            let relay = self.fault_chance.pick(&links).map(|link| link.to);
            return relay.filter(|relay| self.sites.get(relay).is_some_and(Site::is_awake));
        }
        let awake = self.sites.values().filter(|site| site.is_awake()).map(|site| site.id);
        let awake: Vec<RelayId> = awake.collect();
        self.fault_chance.pick(&awake).copied()
    }
}
