//! Whether a link has changed so much since it was last told of that a route might change.
//!
//! Each threshold is small beside what moves a route (1.5 ms and 4 % of a path's cost at the least), so that
//! the links of a path together hide no reason to move; and large beside what a still link's figures
//! wander, so that a mesh at rest reports next to nothing. A threshold in parts is of what was told.
//!
//! | what | told again beyond the greater of |
//! | --- | --- |
//! | delay, slow window | 0.3 ms, 2 % |
//! | delay, fast window | 1 ms, 2 %, three standard errors: it counts only where it is far worse than the slow one |
//! | jitter | 1 ms, 20 % |
//! | loss | 0.05 %, a tenth |
//! | load | 2 % of the capacity, 1 % above two thirds of it; 100 kbit/s and a tenth where there is none |
//! | samples | half as many or twice, from eight on |
//! | liveness, MTU | any change |

use overway_wire::BitsPerSec;
use overway_wire::control::{LinkReport, Window};

/// Packets which every window is supposed to have had without loss, as where loss is priced: else one lost
/// packet of two would be a change of half.
const LOSS_PRIOR_SAMPLES: u64 = 100;
/// Samples from which a window says something of jitter.
const SAMPLES_FEW: u32 = 8;

/// What of a delay is a change, beside parts of the delay.
#[derive(Clone, Copy)]
enum Width {
    Slow,
    Fast,
}

/// Whether the scheduler should be told of `new`, having been told of `old`.
pub(super) fn is_material(old: &LinkReport, new: &LinkReport, capacity: BitsPerSec) -> bool {
    (old.inbound, old.outbound, old.mtu) != (new.inbound, new.outbound, new.mtu)
        || load(old.received_bps, new.received_bps, capacity)
        || window(old.fast.as_ref(), new.fast.as_ref(), Width::Fast)
        || window(old.slow.as_ref(), new.slow.as_ref(), Width::Slow)
}

/// What is needed on a loaded link is finer: there a little more load costs much.
fn load(old: u64, new: u64, capacity: BitsPerSec) -> bool {
    let busy = capacity.0 / 3 * 2;
    let least = match capacity.0 {
        0 => (old / 10).max(100_000),
        capacity if old.max(new) > busy => capacity / 100,
        capacity => capacity / 50,
    };
    old.abs_diff(new) > least
}

fn window(old: Option<&Window>, new: Option<&Window>, width: Width) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    let way = delay_least(old.rtt_us / 2, new, width);
    old.one_way_diff_us.abs_diff(new.one_way_diff_us) > u64::from(way)
        || old.rtt_us.abs_diff(new.rtt_us) > delay_least(old.rtt_us, new, width)
        || old.jitter_us.abs_diff(new.jitter_us) > (old.jitter_us / 5).max(1_000)
        || loss(old, new)
        || samples(old.samples, new.samples)
}

/// The least change of a delay that is one.
fn delay_least(delay_us: u32, new: &Window, width: Width) -> u32 {
    let share = delay_us / 50;
    match width {
        Width::Slow => share.max(300),
        Width::Fast => {
            // The mean deviation is four fifths of the standard one.
            let error = new.jitter_us.saturating_mul(5) / 4 / new.samples.isqrt().max(1);
            share.max(1_000).max(error.saturating_mul(3))
        }
    }
}

fn loss(old: &Window, new: &Window) -> bool {
    let ppm = |window: &Window| {
        let samples = u64::from(window.samples) + LOSS_PRIOR_SAMPLES;
        u64::from(window.lost.min(window.samples)) * 1_000_000 / samples
    };
    let (old, new) = (ppm(old), ppm(new));
    old.abs_diff(new) > (old / 10).max(500)
}

/// Many more samples, or many fewer, say how far to trust the rest.
fn samples(old: u32, new: u32) -> bool {
    let (less, more) = (old.min(new), old.max(new));
    more >= SAMPLES_FEW && (less < SAMPLES_FEW || more / 2 >= less)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: BitsPerSec = BitsPerSec(100_000_000);

    fn report() -> LinkReport {
        let window = |samples| Window {
            one_way_diff_us: 5_000_000,
            rtt_us: 40_000,
            jitter_us: 200,
            samples,
            ..Window::default()
        };
        LinkReport {
            neighbour: 2,
            inbound: 1,
            outbound: 1,
            fast: Some(window(5)),
            slow: Some(window(150)),
            received_bps: 10_000_000,
            ..LinkReport::default()
        }
    }

    fn is_told(change: impl FnOnce(&mut LinkReport)) -> bool {
        let mut new = report();
        change(&mut new);
        is_material(&report(), &new, CAPACITY)
    }

    fn slow(report: &mut LinkReport) -> &mut Window {
        report.slow.as_mut().unwrap()
    }

    fn fast(report: &mut LinkReport) -> &mut Window {
        report.fast.as_mut().unwrap()
    }

    #[test]
    fn what_a_still_link_wanders_is_not_told() {
        assert!(!is_told(|_| {}));
        assert!(!is_told(|link| slow(link).one_way_diff_us -= 390));
        assert!(!is_told(|link| slow(link).rtt_us += 700));
        assert!(!is_told(|link| slow(link).jitter_us += 900));
        assert!(!is_told(|link| slow(link).samples -= 20));
        assert!(!is_told(|link| fast(link).one_way_diff_us += 900));
        assert!(!is_told(|link| fast(link).samples = 3));
        assert!(!is_told(|link| link.received_bps += 1_900_000));
    }

    #[test]
    fn what_could_move_a_route_is_told() {
        assert!(is_told(|link| link.outbound = 2));
        assert!(is_told(|link| link.fast = None));
        assert!(is_told(|link| slow(link).one_way_diff_us += 410));
        assert!(is_told(|link| slow(link).rtt_us -= 810));
        assert!(is_told(|link| slow(link).jitter_us += 1_100));
        assert!(is_told(|link| slow(link).lost += 1));
        assert!(is_told(|link| slow(link).samples = 75));
        assert!(is_told(|link| fast(link).one_way_diff_us += 1_100));
        assert!(is_told(|link| fast(link).samples = 9));
        assert!(is_told(|link| link.received_bps += 2_100_000));
    }

    #[test]
    fn load_is_told_more_finely_near_the_capacity_and_in_parts_without_one() {
        assert!(load(80_000_000, 81_100_000, CAPACITY));
        assert!(!load(80_000_000, 80_900_000, CAPACITY));
        assert!(load(80_000_000, 89_000_000, BitsPerSec(0)));
        assert!(!load(80_000_000, 87_000_000, BitsPerSec(0)));
        assert!(!load(0, 99_000, BitsPerSec(0)));
    }

    #[test]
    fn a_lossy_links_own_noise_is_not_told_and_twice_its_loss_is() {
        let window = |lost| Window { samples: 1_000, lost, ..Window::default() };
        assert!(!loss(&window(20), &window(21)));
        assert!(loss(&window(20), &window(40)));
        assert!(loss(&window(20), &window(15)));
    }

    #[test]
    fn a_slow_drift_is_told_when_it_has_gone_far_enough() {
        let told = report();
        let first = (1..).find(|&us| {
            let mut new = report();
            slow(&mut new).one_way_diff_us += us;
            is_material(&told, &new, CAPACITY)
        });
        assert_eq!(first, Some(401));
    }
}
