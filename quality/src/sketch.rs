//! A mergeable sketch of a distribution: how many values fell into each bucket, where buckets grow with the value, so
//! that quantiles are right to within a share of themselves (as in DDSketch: Masson, Rim, Lee, VLDB 2019). The buckets are
//! HdrHistogram's, linear within each power of two: whole numbers only, the same on every machine, and bounded by
//! [`SKETCH_BUCKETS`] without ever being joined. Merging adds counts; it is exact, and the order does not matter.
//!
//! Counts lie side by side, from the least bucket to the greatest that is not empty, in memory and, where many are not
//! empty, in messages: reading and merging are additions of whole runs, and cost the same whether a bucket between has
//! one value or a million. So the cost follows the spread of the values, which ends at [`SKETCH_BUCKETS`], and not their
//! number.

use overway_wire::quality::{self as wire, SKETCH_BUCKETS, SKETCH_LISTED_MAX};

/// Values below this have a bucket each.
const EXACT: u32 = 64;
/// Buckets of each power of two above.
const PER_OCTAVE: u32 = 32;

/// Counts of values by bucket. A quantile is wrong by 1/64 of itself at most, and exact below 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// The bucket of the first count.
    first: usize,
    /// Of this bucket and those after it; the first and the last are not 0. Counts saturate.
    counts: Vec<u64>,
}

/// Why a message is no sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SketchError {
    /// Not as many counts as buckets, or bytes that are no whole counts.
    Lengths,
    /// A bucket that there is not, or one twice.
    Bucket,
    /// An empty bucket where none may be.
    Empty,
    /// A list and a run.
    Both,
}

impl Sketch {
    /// Takes a value.
    pub fn add(&mut self, value: u32) {
        self.add_many(value, 1);
    }

    /// Takes a value so many times.
    pub fn add_many(&mut self, value: u32, count: u64) {
        if count > 0 {
            let bucket = bucket_of(value);
            self.reach(bucket, bucket + 1);
            let known = &mut self.counts[bucket - self.first];
            *known = known.saturating_add(count);
        }
    }

    /// Takes all that another has taken.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.reach(other.first, other.first + other.counts.len());
        let ours = &mut self.counts[other.first - self.first..];
        for (our, their) in ours.iter_mut().zip(&other.counts) {
            *our = our.saturating_add(*their);
        }
    }

    /// Makes room for the buckets from `first` up to `end`.
    fn reach(&mut self, first: usize, end: usize) {
        if self.counts.is_empty() {
            self.first = first;
        }
        if let Some(before) = self.first.checked_sub(first).filter(|&before| before > 0) {
            drop(self.counts.splice(..0, std::iter::repeat_n(0, before)));
            self.first = first;
        }
        let len = self.counts.len().max(end - self.first);
        self.counts.resize(len, 0);
    }

    /// Values taken.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, &count| sum.saturating_add(count))
    }

    /// Buckets that are kept, at most [`SKETCH_BUCKETS`], of eight bytes each.
    pub fn buckets(&self) -> usize {
        self.counts.len()
    }

    /// Whether no value was taken.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The least value that at least this share of the values, 0 to 1, does not exceed, within 1/64; `None` if there
    /// are no values.
    pub fn quantile(&self, share: f64) -> Option<u32> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank between 1 and the count; 2^53 values are enough"
        )]
        let rank = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0_u64;
        for (bucket, &count) in (self.first..).zip(&self.counts) {
            below = below.saturating_add(count);
            if below >= rank {
                return Some(middle_of(bucket));
            }
        }
        None
    }

    /// The greatest value, within 1/64.
    pub fn max(&self) -> Option<u32> {
        let last = self.counts.len().checked_sub(1)?;
        Some(middle_of(self.first + last))
    }

    fn listed(&self) -> impl Iterator<Item = (usize, u64)> {
        (self.first..).zip(self.counts.iter().copied()).filter(|&(_, count)| count > 0)
    }
}

impl From<&Sketch> for wire::Sketch {
    fn from(sketch: &Sketch) -> Self {
        let greatest = sketch.counts.iter().copied().max().unwrap_or(0);
        let width =
            [1_usize, 2, 4].into_iter().find(|&width| greatest >> (8 * width) == 0).unwrap_or(8);
        let listed = sketch.listed().count();
        // Of a count in a list about one byte more is needed, to say where it is.
        let is_short = listed * (width + 1) < sketch.counts.len() * width;
        if listed <= SKETCH_LISTED_MAX && is_short {
            let mut last = 0;
            let step =
                |(bucket, _): (usize, u64)| index(bucket - std::mem::replace(&mut last, bucket));
            let steps = sketch.listed().map(step).collect();
            let counts = sketch.listed().map(|(_, count)| count).collect();
            return Self { steps, counts, ..Self::default() };
        }
        let mut run = Vec::with_capacity(sketch.counts.len() * width);
        sketch.counts.iter().for_each(|count| run.extend(&count.to_le_bytes()[..width]));
        Self { first: index(sketch.first), width: index(width), run, ..Self::default() }
    }
}

impl TryFrom<&wire::Sketch> for Sketch {
    type Error = SketchError;

    fn try_from(message: &wire::Sketch) -> Result<Self, SketchError> {
        let wire::Sketch { steps, counts, first, width, run } = message;
        if run.is_empty() {
            return of_list(steps, counts);
        }
        if !steps.is_empty() || !counts.is_empty() {
            return Err(SketchError::Both);
        }
        of_run(*first, *width, run)
    }
}

/// The sketch that a list of buckets is.
fn of_list(steps: &[u32], counts: &[u64]) -> Result<Sketch, SketchError> {
    if steps.len() != counts.len() {
        return Err(SketchError::Lengths);
    }
    let mut sketch = Sketch::default();
    let mut next = 0_u32;
    for (at, (&step, &count)) in steps.iter().zip(counts).enumerate() {
        if at > 0 && step == 0 {
            return Err(SketchError::Bucket);
        }
        next = next.checked_add(step).ok_or(SketchError::Bucket)?;
        let bucket = below_end(next)?;
        if count == 0 {
            return Err(SketchError::Empty);
        }
        sketch.reach(bucket, bucket + 1);
        sketch.counts[bucket - sketch.first] = count;
    }
    Ok(sketch)
}

/// The sketch that a run of counts is.
fn of_run(first: u32, width: u32, run: &[u8]) -> Result<Sketch, SketchError> {
    let first = below_end(first)?;
    let width = usize::try_from(width).map_err(|_| SketchError::Lengths)?;
    if !matches!(width, 1 | 2 | 4 | 8) || !run.len().is_multiple_of(width) {
        return Err(SketchError::Lengths);
    }
    if first + run.len() / width > SKETCH_BUCKETS {
        return Err(SketchError::Bucket);
    }
    let counts = match width {
        1 => widened::<1>(run),
        2 => widened::<2>(run),
        4 => widened::<4>(run),
        _ => widened::<8>(run),
    };
    if counts.first() == Some(&0) || counts.last() == Some(&0) {
        return Err(SketchError::Empty);
    }
    Ok(Sketch { first, counts })
}

/// Counts of so many bytes each, little-endian.
fn widened<const WIDTH: usize>(run: &[u8]) -> Vec<u64> {
    let count = |bytes: &[u8; WIDTH]| {
        let mut wide = [0; 8];
        wide[..WIDTH].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    run.as_chunks().0.iter().map(count).collect()
}

fn below_end(bucket: u32) -> Result<usize, SketchError> {
    let bucket = usize::try_from(bucket).ok().filter(|&bucket| bucket < SKETCH_BUCKETS);
    bucket.ok_or(SketchError::Bucket)
}

fn index(bucket: usize) -> u32 {
    u32::try_from(bucket).expect("there are 896 buckets")
}

fn bucket_of(value: u32) -> usize {
    let bucket = if value < EXACT {
        value
    } else {
        let exponent = value.ilog2();
        let within = (value >> (exponent - 5)) & (PER_OCTAVE - 1);
        EXACT + (exponent - 6) * PER_OCTAVE + within
    };
    usize::try_from(bucket).expect("the greatest is 895")
}

/// The middle of a bucket's values.
fn middle_of(bucket: usize) -> u32 {
    let bucket = index(bucket);
    if bucket < EXACT {
        return bucket;
    }
    let (octave, within) = ((bucket - EXACT) / PER_OCTAVE, (bucket - EXACT) % PER_OCTAVE);
    let least = (PER_OCTAVE + within) << (octave + 1);
    least + (1 << octave)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn of(values: &[u32]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&value| sketch.add(value));
        sketch
    }

    fn merged(one: &Sketch, other: &Sketch) -> Sketch {
        let mut merged = one.clone();
        merged.merge(other);
        merged
    }

    /// Of every magnitude alike.
    fn value() -> impl Strategy<Value = u32> {
        (any::<u32>(), 0_u32..32).prop_map(|(value, shift)| value >> shift)
    }

    #[test]
    fn the_buckets_are_bounded_and_in_order() {
        assert_eq!(bucket_of(u32::MAX) + 1, SKETCH_BUCKETS);
        for value in [0, 1, 63, 64, 65, 66, 127, 128, 1 << 20, (1 << 20) - 1, u32::MAX - 1] {
            assert!(bucket_of(value) <= bucket_of(value + 1));
            assert!(bucket_of(value + 1) - bucket_of(value) <= 1);
        }
    }

    #[test]
    fn a_sketch_without_values_has_no_quantile() {
        assert_eq!((Sketch::default().quantile(0.5), Sketch::default().max()), (None, None));
        assert_eq!(of(&[7]).quantile(0.0), Some(7));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let read = |steps: &[u32], counts: &[u64]| {
            let (steps, counts) = (steps.into(), counts.into());
            Sketch::try_from(&wire::Sketch { steps, counts, ..wire::Sketch::default() })
        };
        assert_eq!(read(&[1], &[]), Err(SketchError::Lengths));
        assert_eq!(read(&[1, 0], &[1, 1]), Err(SketchError::Bucket));
        assert_eq!(read(&[896], &[1]), Err(SketchError::Bucket));
        assert_eq!(read(&[5, u32::MAX], &[1, 1]), Err(SketchError::Bucket));
        assert_eq!(read(&[1], &[0]), Err(SketchError::Empty));
        assert_eq!(read(&[0; 897], &[1; 897]), Err(SketchError::Bucket));
        assert_eq!(read(&[0, 2], &[1, 2]), Ok(of(&[0, 2, 2])));
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let read = |first, width, run: &[u8]| {
            let run = run.into();
            Sketch::try_from(&wire::Sketch { first, width, run, ..wire::Sketch::default() })
        };
        assert_eq!(read(3, 1, &[1, 0, 2]), Ok(of(&[3, 5, 5])));
        assert_eq!(read(3, 2, &[1, 0, 0, 0, 2, 0]), Ok(of(&[3, 5, 5])));
        assert_eq!(read(895, 1, &[1]).unwrap().count(), 1);
        assert_eq!(read(895, 1, &[1, 1]), Err(SketchError::Bucket));
        assert_eq!(read(u32::MAX, 1, &[1]), Err(SketchError::Bucket));
        assert_eq!(read(3, 2, &[1, 0, 2]), Err(SketchError::Lengths));
        for width in [0, 3, 16, u32::MAX] {
            assert_eq!(read(3, width, &[1; 48]), Err(SketchError::Lengths));
        }
        for run in [[0, 1], [1, 0]] {
            assert_eq!(read(3, 1, &run), Err(SketchError::Empty));
        }
        let both =
            wire::Sketch { steps: vec![1], run: vec![1], width: 1, ..wire::Sketch::default() };
        assert_eq!(Sketch::try_from(&both), Err(SketchError::Both));
    }

    #[test]
    fn few_buckets_are_a_list_and_many_a_run_of_bounded_size() {
        let few = wire::Sketch::from(&of(&[0, 1_000_000, 1_000_000]));
        assert_eq!((few.steps.len(), few.run.len()), (2, 0));

        let spread: Vec<u32> = (0..SKETCH_BUCKETS).step_by(4).map(middle_of).collect();
        let many = wire::Sketch::from(&of(&spread));
        assert_eq!((many.steps.len(), many.run.len()), (0, 893));
        let mut thousandfold = Sketch::default();
        spread.iter().for_each(|&value| thousandfold.add_many(value, 1_000));
        assert_eq!(wire::Sketch::from(&thousandfold).run.len(), 2 * 893);
        thousandfold.add_many(7, u64::MAX);
        assert_eq!(wire::Sketch::from(&thousandfold).run.len(), 8 * 893);
    }

    proptest! {
        #[test]
        fn a_value_is_known_to_within_a_64th(value in value()) {
            let middle = middle_of(bucket_of(value));
            prop_assert!(middle.abs_diff(value) <= value / 64, "{middle}");
        }

        #[test]
        fn quantiles_are_within_a_64th_of_the_true_ones(
            mut values in vec(value(), 1..300),
            share in 0.0_f64..=1.0,
        ) {
            let sketch = of(&values);
            values.sort_unstable();
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = ((share * values.len() as f64).ceil() as usize).max(1);
            let (truth, found) = (values[rank - 1], sketch.quantile(share).unwrap());
            prop_assert!(found.abs_diff(truth) <= truth / 64, "{found} for {truth}");
            prop_assert_eq!(sketch.count(), values.len() as u64);
        }

        #[test]
        fn merging_is_what_taking_all_values_is(one in vec(value(), 0..100), other in vec(value(), 0..100)) {
            let all = of(&[&one[..], &other].concat());
            prop_assert_eq!(&merged(&of(&one), &of(&other)), &all);
            prop_assert_eq!(&merged(&of(&other), &of(&one)), &all);
        }

        #[test]
        fn merging_is_associative(
            one in vec(value(), 0..60), two in vec(value(), 0..60), three in vec(value(), 0..60),
        ) {
            let [one, two, three] = [one, two, three].map(|values| of(&values));
            prop_assert_eq!(
                merged(&merged(&one, &two), &three),
                merged(&one, &merged(&two, &three))
            );
        }

        #[test]
        fn a_sketch_survives_its_message(values in vec(value(), 0..200), times in 1_u64..=u64::MAX) {
            let mut sketch = of(&values);
            values.first().into_iter().for_each(|&value| sketch.add_many(value, times));
            prop_assert_eq!(Sketch::try_from(&wire::Sketch::from(&sketch)), Ok(sketch));
        }

        #[test]
        fn any_list_is_read_or_refused(steps in vec(0_u32..100, 0..20), counts in vec(any::<u64>(), 0..20)) {
            let message = wire::Sketch { steps, counts, ..wire::Sketch::default() };
            if let Ok(sketch) = Sketch::try_from(&message) {
                let _ = (sketch.quantile(0.5), sketch.max(), merged(&sketch, &sketch));
            }
        }

        #[test]
        fn any_run_is_read_or_refused(first in 0_u32..1_000, width in 0_u32..10, run in vec(any::<u8>(), 0..1_000)) {
            let message = wire::Sketch { first, width, run, ..wire::Sketch::default() };
            if let Ok(sketch) = Sketch::try_from(&message) {
                prop_assert!(sketch.buckets() <= SKETCH_BUCKETS);
                let again = Sketch::try_from(&wire::Sketch::from(&sketch));
                prop_assert_eq!(again, Ok(sketch.clone()));
                let _ = (sketch.quantile(0.5), sketch.max(), merged(&sketch, &sketch));
            }
        }
    }
}
