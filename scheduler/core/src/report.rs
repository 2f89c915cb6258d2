//! Checks reports. One that abuses its form is refused whole. Numbers that cannot be true cost only the link that
//! they are of what was measured there: neighbours have a hand in them, and none may silence another relay.

use overway_topology::WindowSample;
use overway_wire::control::{LinkReport, Report, State, Window};
use overway_wire::{BitsPerSec, ClockDiff, LinkIndex, Micros, NeighbourLink, RelayId};

use crate::registration::{LINKS_MAX, MESH_RELAYS_MAX};
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
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    pub(crate) links: Vec<(NeighbourLink, Observation)>,
    /// Links passed over because their neighbour was removed.
    pub(crate) ignored: usize,
    /// What cannot be true, and was passed over.
    pub(crate) absurd: Absurd,
}

/// Checks what `reporter` says.
pub(crate) fn check(
    reporter: RelayId,
    report: &Report,
    last_sequence: u64,
    neighbour: impl Fn(RelayId) -> Neighbour,
) -> Result<Checked, ReportError> {
    if report.sequence <= last_sequence {
        return Err(ReportError::Sequence);
    }
    if report.links.len() > REPORT_LINKS_MAX {
        return Err(ReportError::TooManyLinks);
    }
    let links = Vec::with_capacity(report.links.len());
    let mut checked = Checked { links, ignored: 0, absurd: Absurd::default() };
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
    Ok(checked)
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
    let received = if said.received_bps > RATE_MAX.0 {
        absurd.rate += 1;
        BitsPerSec(0)
    } else {
        BitsPerSec(said.received_bps)
    };
    let mut state = |said| {
        State::try_from(said).unwrap_or_else(|_| {
            absurd.state += 1;
            State::Unknown
        })
    };
    let (inbound, outbound) = (state(said.inbound), state(said.outbound));
    Observation { inbound, outbound, fast: windows.0, slow: windows.1, received }
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
        check(REPORTER, &Report { sequence, links, ..Report::default() }, 4, neighbour)
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
        assert_eq!(judge(5, vec![good(); 2_001]), Err(ReportError::TooManyLinks));
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
