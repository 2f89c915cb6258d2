//! What was felt, of one flow or of many.

use overway_wire::quality as wire;

use crate::sketch::{Sketch, SketchError};

/// Counts and sketches of what was felt. [`overway_wire::quality::Felt`] has what each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the message says it")]
pub struct Felt {
    pub reports: u64,
    pub one_way: u64,
    pub due: u64,
    pub on_time: u64,
    pub lost: u64,
    pub gaps: u64,
    pub gaps_good: u64,
    pub stalls: u64,
    pub delay_us: Sketch,
    pub gap_us: Sketch,
    pub loss_ppm: Sketch,
    pub stall_us: Sketch,
}

/// Why a message is nothing that was felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeltError {
    /// A sketch is none.
    Sketch(SketchError),
    /// A part is greater than the whole.
    Parts,
}

impl Felt {
    /// Adds what was felt elsewhere, or at another time.
    pub fn merge(&mut self, other: &Self) {
        self.add_counts(other);
        let Self { delay_us, gap_us, loss_ppm, stall_us, .. } = other;
        self.delay_us.merge(delay_us);
        self.gap_us.merge(gap_us);
        self.loss_ppm.merge(loss_ppm);
        self.stall_us.merge(stall_us);
    }

    /// Adds the counts alone.
    pub fn add_counts(&mut self, other: &Self) {
        let Self { reports, one_way, due, on_time, lost, gaps, gaps_good, stalls, .. } = *other;
        for (ours, theirs) in [
            (&mut self.reports, reports),
            (&mut self.one_way, one_way),
            (&mut self.due, due),
            (&mut self.on_time, on_time),
            (&mut self.lost, lost),
            (&mut self.gaps, gaps),
            (&mut self.gaps_good, gaps_good),
            (&mut self.stalls, stalls),
        ] {
            *ours = ours.saturating_add(theirs);
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.reports == 0
    }

    /// What the delays are, in output: `one_way`, `half_rtt` or `mixed`; `None` if there are no delays.
    pub fn delay_basis(&self) -> Option<&'static str> {
        match self.one_way {
            _ if self.delay_us.is_empty() => None,
            0 => Some("half_rtt"),
            one_way if one_way == self.reports => Some("one_way"),
            _ => Some("mixed"),
        }
    }

    /// Buckets of all sketches, of eight bytes each.
    pub fn buckets(&self) -> usize {
        let Self { delay_us, gap_us, loss_ppm, stall_us, .. } = self;
        [delay_us, gap_us, loss_ppm, stall_us].into_iter().map(Sketch::buckets).sum()
    }
}

impl From<&Felt> for wire::Felt {
    fn from(felt: &Felt) -> Self {
        let sketch = |sketch: &Sketch| (!sketch.is_empty()).then(|| sketch.into());
        let Felt { reports, one_way, due, on_time, lost, gaps, gaps_good, stalls, .. } = *felt;
        let Felt { delay_us, gap_us, loss_ppm, stall_us, .. } = felt;
        Self {
            reports,
            one_way,
            due,
            on_time,
            lost,
            gaps,
            gaps_good,
            stalls,
            delay_us: sketch(delay_us),
            gap_us: sketch(gap_us),
            loss_ppm: sketch(loss_ppm),
            stall_us: sketch(stall_us),
        }
    }
}

impl TryFrom<&wire::Felt> for Felt {
    type Error = FeltError;

    fn try_from(message: &wire::Felt) -> Result<Self, FeltError> {
        let sketch = |sketch: &Option<wire::Sketch>| match sketch {
            Some(sketch) => Sketch::try_from(sketch).map_err(FeltError::Sketch),
            None => Ok(Sketch::default()),
        };
        let wire::Felt { reports, one_way, due, on_time, lost, gaps, gaps_good, stalls, .. } =
            *message;
        let parts = on_time.checked_add(lost).is_some_and(|parts| parts <= due);
        if !parts || one_way > reports || gaps_good > gaps {
            return Err(FeltError::Parts);
        }
        Ok(Self {
            reports,
            one_way,
            due,
            on_time,
            lost,
            gaps,
            gaps_good,
            stalls,
            delay_us: sketch(&message.delay_us)?,
            gap_us: sketch(&message.gap_us)?,
            loss_ppm: sketch(&message.loss_ppm)?,
            stall_us: sketch(&message.stall_us)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn felt() -> Felt {
        let mut felt =
            Felt { reports: 2, one_way: 1, due: 9, on_time: 5, lost: 4, ..Felt::default() };
        (felt.gaps, felt.gaps_good, felt.stalls) = (8, 7, 1);
        [10, 20].into_iter().for_each(|value| felt.delay_us.add(value));
        felt.gap_us.add(5);
        felt.loss_ppm.add(400_000);
        felt.stall_us.add(1_000_000);
        felt
    }

    #[test]
    fn what_was_felt_survives_its_message_and_adds_up() {
        let one = felt();
        assert_eq!(Felt::try_from(&wire::Felt::from(&one)), Ok(one.clone()));

        let mut two = one.clone();
        two.merge(&one);
        assert_eq!((two.reports, two.due, two.gaps, two.stalls), (4, 18, 16, 2));
        assert_eq!((two.delay_us.count(), two.loss_ppm.count()), (4, 2));
    }

    #[test]
    fn parts_that_exceed_the_whole_are_refused() {
        for change in [
            |message: &mut wire::Felt| message.lost = 5,
            |message: &mut wire::Felt| message.lost = u64::MAX,
            |message: &mut wire::Felt| message.gaps_good = 9,
            |message: &mut wire::Felt| message.one_way = 3,
        ] {
            let mut message = wire::Felt::from(&felt());
            change(&mut message);
            assert_eq!(Felt::try_from(&message), Err(FeltError::Parts));
        }
        let mut message = wire::Felt::from(&felt());
        message.gap_us = Some(wire::Sketch { steps: vec![1], ..wire::Sketch::default() });
        assert_eq!(Felt::try_from(&message), Err(FeltError::Sketch(SketchError::Lengths)));
    }
}
