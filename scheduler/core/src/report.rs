//! Checks reports. One that abuses its form is refused whole. Numbers that cannot be true cost only the link that
//! they are of what was measured there: neighbours have a hand in them, and none may silence another relay.

use overway_topology::{RouteKey, WindowSample};
use overway_wire::control::{DEMANDS_MAX, Demand, LineUse, LinkReport, Report, State, Window};
use overway_wire::{
    BitsPerSec, Class, ClockDiff, LinkIndex, Micros, NeighbourLink, PolicyId, RelayId,
};

use crate::registration::{LINKS_MAX, MESH_RELAYS_MAX};
use crate::session::Demanded;
use crate::{Absurd, ReportError};

/// Links that one report may be about.
const REPORT_LINKS_MAX: usize = LINKS_MAX * MESH_RELAYS_MAX;
/// Times above a minute are not of this planet.
const TIME_MAX: Micros = Micros(60_000_000);
/// Packets that a window of thirty seconds may weigh: 300,000 a second is above any hop's.
const SAMPLES_MAX: u32 = 10_000_000;
/// One-way differences up to this can be summed along any path. It is 36,000 years.
const ONE_WAY_DIFF_MAX: u64 = 1 << 60;
/// A hundred terabits per second.
const RATE_MAX: BitsPerSec = BitsPerSec(100_000_000_000_000);

/// What a relay says of a link on which it receives, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Observation {
    pub(crate) inbound: State,
    pub(crate) outbound: State,
    /// The longest packet that gets through to the neighbour, 0 if not known.
    pub(crate) mtu: u16,
    pub(crate) fast: Option<WindowSample>,
    pub(crate) slow: Option<WindowSample>,
    pub(crate) received: BitsPerSec,
}

impl Observation {
    /// The windows as the topology wants them, or `None` before the first measurement. A window without
    /// samples says nothing; the other one then speaks for both.
    pub(crate) fn windows(&self) -> Option<(WindowSample, WindowSample)> {
        let measured = |window: Option<WindowSample>| window.filter(|window| window.samples > 0);
        let (fast, slow) = (measured(self.fast), measured(self.slow));
        Some((fast.or(slow)?, slow.or(fast)?))
    }
}

/// Who a report may be about, from the reporter's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// A member of the mesh.
    Member,
    /// Was one; the reporter may not have heard of its removal.
    Removed,
    /// Never was one.
    Unknown,
}

/// A report, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Checked {
    pub(crate) links: Vec<(NeighbourLink, Observation)>,
    /// Links passed over because their neighbour was removed.
    pub(crate) ignored: usize,
    /// In order of key, each once.
    pub(crate) demands: Vec<Demanded>,
    /// Demands passed over.
    pub(crate) demands_ignored: usize,
    /// Of the lines in use, as far as it is said.
    pub(crate) lines: Vec<LineUse>,
    /// What cannot be true, and was passed over.
    pub(crate) absurd: Absurd,
}

/// Checks what `reporter` says.
pub(crate) fn check(
    reporter: RelayId,
    report: &Report,
    last_sequence: u64,
    neighbour: impl Fn(RelayId) -> Neighbour,
    has_policy: impl Fn(PolicyId) -> bool,
) -> Result<Checked, ReportError> {
    if report.sequence <= last_sequence {
        return Err(ReportError::Sequence);
    }
    if report.links.len() > REPORT_LINKS_MAX {
        return Err(ReportError::TooManyLinks);
    }
    let links = Vec::with_capacity(report.links.len());
    let mut checked = Checked { links, ..Checked::default() };
    for said in &report.links {
        let link = neighbour_link(said)?;
        if link.neighbour == reporter {
            return Err(ReportError::NotItsLink);
        }
        match neighbour(link.neighbour) {
            Neighbour::Member => {
                checked.links.push((link, observation(said, &mut checked.absurd)));
            }
            Neighbour::Removed => checked.ignored += 1,
            Neighbour::Unknown => return Err(ReportError::NotItsLink),
        }
    }
    take_demands(reporter, report, neighbour, has_policy, &mut checked);
    for said in report.lines.iter().take(LINKS_MAX) {
        let sent_bps = rate(said.sent_bps, &mut checked.absurd).0;
        checked.lines.push(LineUse { sent_bps, ..*said });
    }
    Ok(checked)
}

/// Takes demands that can be; of several for the same route the greatest.
fn take_demands(
    reporter: RelayId,
    report: &Report,
    neighbour: impl Fn(RelayId) -> Neighbour,
    has_policy: impl Fn(PolicyId) -> bool,
    checked: &mut Checked,
) {
    for said in report.demands.iter().take(DEMANDS_MAX) {
        let known = route_key(reporter, said).filter(|key| {
            key.destination != reporter
                && neighbour(key.destination) == Neighbour::Member
                && (key.policy == PolicyId::default() || has_policy(key.policy))
        });
        match known {
            Some(key) => {
                let rate = rate(said.bps, &mut checked.absurd);
                checked.demands.push(Demanded { key, rate });
            }
            None => checked.demands_ignored += 1,
        }
    }
    checked.demands_ignored += report.demands.len().saturating_sub(DEMANDS_MAX);
    checked.demands.sort_by_key(|demand| (demand.key, std::cmp::Reverse(demand.rate)));
    checked.demands.dedup_by_key(|demand| demand.key);
}

fn route_key(source: RelayId, said: &Demand) -> Option<RouteKey> {
    Some(RouteKey {
        source,
        destination: RelayId(u16::try_from(said.destination).ok()?),
        class: Class::from_code(u8::try_from(said.class).ok()?)?,
        policy: PolicyId(u16::try_from(said.policy).ok()?),
    })
}

/// A rate, or none if no line carries as much.
fn rate(said_bps: u64, absurd: &mut Absurd) -> BitsPerSec {
    if said_bps > RATE_MAX.0 {
        absurd.rate += 1;
        return BitsPerSec(0);
    }
    BitsPerSec(said_bps)
}

fn neighbour_link(said: &LinkReport) -> Result<NeighbourLink, ReportError> {
    let neighbour = u16::try_from(said.neighbour).map_err(|_| ReportError::NotItsLink)?;
    let index = u8::try_from(said.index)
        .ok()
        .filter(|&index| usize::from(index) < LINKS_MAX)
        .and_then(LinkIndex::new)
        .ok_or(ReportError::NotItsLink)?;
    Ok(NeighbourLink::new(RelayId(neighbour), index))
}

/// Takes what is possible of a link. A neighbour has a hand in these numbers, so that impossible ones are the
/// link's trouble and not its reporter's.
fn observation(said: &LinkReport, absurd: &mut Absurd) -> Observation {
    let windows = match (measured(said.fast.as_ref()), measured(said.slow.as_ref())) {
        (Ok(fast), Ok(slow)) => (fast, slow),
        (Err(count), _) | (Ok(_), Err(count)) => {
            *count(absurd) += 1;
            (None, None)
        }
    };
    let received = rate(said.received_bps, absurd);
    let mut state = |said| {
        State::try_from(said).unwrap_or_else(|_| {
            absurd.state += 1;
            State::Unknown
        })
    };
    let (inbound, outbound) = (state(said.inbound), state(said.outbound));
    // Nothing longer is a UDP payload, and nothing hangs on the number.
    let mtu = u16::try_from(said.mtu).unwrap_or(u16::MAX);
    Observation { inbound, outbound, mtu, fast: windows.0, slow: windows.1, received }
}

/// The counter of what is wrong with a window.
type Wrong = fn(&mut Absurd) -> &mut u64;

fn measured(said: Option<&Window>) -> Result<Option<WindowSample>, Wrong> {
    let Some(said) = said else { return Ok(None) };
    if said.one_way_diff_us.unsigned_abs() > ONE_WAY_DIFF_MAX {
        return Err(|absurd| &mut absurd.one_way_diff);
    }
    if said.rtt_us > TIME_MAX.0 || said.rtt_var_us > TIME_MAX.0 {
        return Err(|absurd| &mut absurd.round_trip);
    }
    if said.jitter_us > TIME_MAX.0 {
        return Err(|absurd| &mut absurd.jitter);
    }
    if said.samples > SAMPLES_MAX {
        return Err(|absurd| &mut absurd.samples);
    }
    if said.lost > said.samples {
        return Err(|absurd| &mut absurd.lost);
    }
    Ok(Some(WindowSample {
        one_way_diff: ClockDiff(said.one_way_diff_us),
        rtt: Micros(said.rtt_us),
        jitter: Micros(said.jitter_us),
        samples: said.samples,
        lost: said.lost,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORTER: RelayId = RelayId(1);

    fn good() -> LinkReport {
        let window = Window { rtt_us: 20_000, samples: 30, lost: 1, ..Window::default() };
        LinkReport {
            neighbour: 2,
            index: 1,
            inbound: State::Up.into(),
            outbound: State::Up.into(),
            fast: Some(window.clone()),
            slow: Some(window),
            received_bps: 1_000,
            mtu: 1_304,
        }
    }

    fn neighbour(relay: RelayId) -> Neighbour {
        match relay.0 {
            1 | 2 => Neighbour::Member,
            3 => Neighbour::Removed,
            _ => Neighbour::Unknown,
        }
    }

    fn judge(sequence: u64, links: Vec<LinkReport>) -> Result<Checked, ReportError> {
        whole(&Report { sequence, links, ..Report::default() })
    }

    fn whole(report: &Report) -> Result<Checked, ReportError> {
        check(REPORTER, report, 4, neighbour, |policy| policy == PolicyId(3))
    }

    #[test]
    fn demands_that_cannot_be_are_passed_over_and_the_rest_is_taken_in_order() {
        let demand = |destination, class, policy, bps| Demand { destination, class, policy, bps };
        let bad = [
            demand(1, 0, 0, 9),
            demand(3, 0, 0, 9),
            demand(4, 0, 0, 9),
            demand(65_538, 0, 0, 9),
            demand(2, 3, 0, 9),
            demand(2, 0, 4, 9),
            demand(2, 256, 0, 9),
        ];
        let good =
            [demand(2, 2, 3, 5), demand(2, 1, 0, 7), demand(2, 1, 0, 8), demand(2, 0, 0, u64::MAX)];
        let demands = bad.into_iter().chain(good).collect();

        let checked = whole(&Report { sequence: 5, demands, ..Report::default() }).unwrap();

        assert_eq!((checked.demands_ignored, checked.absurd.rate), (7, 1));
        let rates: Vec<_> =
            checked.demands.iter().map(|demand| (demand.key.class, demand.rate.0)).collect();
        assert_eq!(rates, [(Class::Realtime, 0), (Class::Interactive, 8), (Class::Bulk, 5)]);

        let many = vec![good[1]; DEMANDS_MAX + 5];
        let checked = whole(&Report { sequence: 5, demands: many, ..Report::default() }).unwrap();
        assert_eq!((checked.demands_ignored, checked.demands.len()), (5, 1));
    }

    #[test]
    fn lines_beyond_those_in_use_are_passed_over_and_absurd_rates_counted() {
        let lines = [5, u64::MAX, 7].map(|sent_bps| LineUse { sent_bps, ..LineUse::default() });

        let report = Report { sequence: 5, lines: lines.to_vec(), ..Report::default() };
        let checked = whole(&report).unwrap();

        let rates: Vec<_> = checked.lines.iter().map(|line| line.sent_bps).collect();
        assert_eq!((rates, checked.absurd.rate), (vec![5, 0], 1));
    }

    #[test]
    fn a_report_about_a_link_that_its_sender_does_not_have_is_refused() {
        type Row = fn(&mut LinkReport);
        let table: [Row; 5] = [
            |link| link.neighbour = 1,
            |link| link.neighbour = 4,
            |link| link.neighbour = 65_538,
            |link| link.index = 2,
            |link| link.index = 256,
        ];
        for (at, spoil) in table.into_iter().enumerate() {
            let mut bad = good();
            spoil(&mut bad);
            assert_eq!(judge(5, vec![good(), bad]), Err(ReportError::NotItsLink), "row {at}");
        }
    }

    #[test]
    fn windows_that_cannot_be_true_are_counted_and_cost_only_their_link_its_windows() {
        type Row = (fn(&mut LinkReport), Absurd);
        let none = Absurd::default();
        let table: [Row; 9] = [
            (|link| fast(link).one_way_diff_us = (1 << 60) + 1, Absurd { one_way_diff: 1, ..none }),
            (|link| fast(link).one_way_diff_us = i64::MIN, Absurd { one_way_diff: 1, ..none }),
            (|link| fast(link).rtt_us = 60_000_001, Absurd { round_trip: 1, ..none }),
            (|link| fast(link).rtt_var_us = u32::MAX, Absurd { round_trip: 1, ..none }),
            (|link| fast(link).jitter_us = 60_000_001, Absurd { jitter: 1, ..none }),
            (|link| fast(link).samples = 10_000_001, Absurd { samples: 1, ..none }),
            (|link| fast(link).lost = 31, Absurd { lost: 1, ..none }),
            (|link| slow(link).lost = 31, Absurd { lost: 1, ..none }),
            (|link| slow(link).rtt_us = 60_000_001, Absurd { round_trip: 1, ..none }),
        ];
        for (at, (spoil, counted)) in table.into_iter().enumerate() {
            let mut bad = good();
            spoil(&mut bad);
            let checked = judge(5, vec![good(), bad]).unwrap();
            let [(_, first), (_, second)] = checked.links[..] else { panic!("row {at}") };
            assert_eq!(checked.absurd, counted, "row {at}");
            assert_eq!(second, Observation { fast: None, slow: None, ..first }, "row {at}");
            assert!(first.windows().is_some() && second.windows().is_none(), "row {at}");
        }
    }

    #[test]
    fn states_and_rates_that_cannot_be_are_counted_and_taken_as_unknown() {
        let good_one = judge(5, vec![good()]).unwrap().links[0].1;
        let bad = LinkReport { inbound: 4, outbound: -1, received_bps: u64::MAX, ..good() };

        let checked = judge(5, vec![bad]).unwrap();

        assert_eq!(checked.absurd, Absurd { state: 2, rate: 1, ..Absurd::default() });
        let unknown = Observation {
            inbound: State::Unknown,
            outbound: State::Unknown,
            received: BitsPerSec(0),
            ..good_one
        };
        assert_eq!(checked.links[0].1, unknown);
    }

    #[test]
    fn a_report_counts_up_and_is_not_too_long() {
        assert!(judge(5, vec![good()]).is_ok());
        assert_eq!(judge(4, vec![good()]), Err(ReportError::Sequence));
        let many = judge(5, vec![good(); REPORT_LINKS_MAX + 1]);
        assert!(matches!(many, Err(ReportError::TooManyLinks)));
    }

    #[test]
    fn a_link_to_a_removed_relay_is_passed_over_and_the_rest_is_taken() {
        let checked = judge(5, vec![LinkReport { neighbour: 3, ..good() }, good()]).unwrap();

        assert_eq!(checked.ignored, 1);
        assert_eq!(checked.links.len(), 1);
    }

    #[test]
    fn a_window_without_samples_says_nothing() {
        let mut link = good();
        fast(&mut link).samples = 0;
        fast(&mut link).lost = 0;
        let observed = observation(&link, &mut Absurd::default());
        let unmeasured = observation(&LinkReport { slow: None, ..link }, &mut Absurd::default());

        assert_eq!(observed.windows(), Some((observed.slow.unwrap(), observed.slow.unwrap())));
        assert_eq!(unmeasured.windows(), None);
    }

    fn fast(link: &mut LinkReport) -> &mut Window {
        link.fast.as_mut().unwrap()
    }

    fn slow(link: &mut LinkReport) -> &mut Window {
        link.slow.as_mut().unwrap()
    }
}
