//! A mergeable sketch of a distribution: how many values fell into each bucket, where buckets grow with the value, so
//! that quantiles are right to within a share of themselves (as in DDSketch: Masson, Rim, Lee, VLDB 2019). The buckets are
//! HdrHistogram's, linear within each power of two: whole numbers only, the same on every machine, and bounded by
//! [`SKETCH_BUCKETS`] without ever being joined. Merging adds counts; it is exact, and the order does not matter.

use overway_wire::quality::{self as wire, SKETCH_BUCKETS};

/// Values below this have a bucket each.
const EXACT: u32 = 64;
/// Buckets of each power of two above.
const PER_OCTAVE: u32 = 32;

/// Counts of values by bucket. A quantile is wrong by 1/64 of itself at most, and exact below 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Buckets that are not empty, in order. Counts stay below `u64::MAX`: they saturate.
    buckets: Vec<(u16, u64)>,
}

/// Why a message is no sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SketchError {
    /// Not as many counts as buckets.
    Lengths,
    /// A bucket that there is not, or one twice.
    Bucket,
    /// An empty bucket.
    Empty,
}

impl Sketch {
    /// Takes a value.
    pub fn add(&mut self, value: u32) {
        self.add_many(value, 1);
    }

    /// Takes a value so many times.
    pub fn add_many(&mut self, value: u32, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket_of(value);
        match self.buckets.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    /// Takes all that another has taken.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            return self.buckets.clone_from(&other.buckets);
        }
        let known = |&(bucket, _): &(u16, u64)| {
            self.buckets.binary_search_by_key(&bucket, |&(known, _)| known).is_ok()
        };
        if other.buckets.iter().all(known) {
            return self.add_known(other);
        }
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut ours, mut theirs) =
            (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(&&(our, count)), Some(&&(their, more))) if our == their => {
                    ours.next();
                    theirs.next();
                    (our, count.saturating_add(more))
                }
                (Some(&&(our, count)), their) if their.is_none_or(|&&(their, _)| our < their) => {
                    ours.next();
                    (our, count)
                }
                (_, Some(&&their)) => {
                    theirs.next();
                    their
                }
                (_, None) => break,
            };
            merged.push(next);
        }
        self.buckets = merged;
    }

    /// As [`Self::merge`] where no bucket is new, as it soon is: nothing moves.
    fn add_known(&mut self, other: &Self) {
        let mut ours = self.buckets.iter_mut();
        for &(bucket, count) in &other.buckets {
            if let Some(our) = ours.by_ref().find(|our| our.0 == bucket) {
                our.1 = our.1.saturating_add(count);
            }
        }
    }

    /// Values taken.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum: u64, &(_, count)| sum.saturating_add(count))
    }

    /// Whether no value was taken.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
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
        for &(bucket, count) in &self.buckets {
            below = below.saturating_add(count);
            if below >= rank {
                return Some(middle_of(bucket));
            }
        }
        None
    }

    /// The greatest value, within 1/64.
    pub fn max(&self) -> Option<u32> {
        self.buckets.last().map(|&(bucket, _)| middle_of(bucket))
    }
}

impl From<&Sketch> for wire::Sketch {
    fn from(sketch: &Sketch) -> Self {
        let mut last = 0;
        let step =
            |&(bucket, _): &(u16, u64)| u32::from(bucket - std::mem::replace(&mut last, bucket));
        let steps = sketch.buckets.iter().map(step).collect();
        Self { steps, counts: sketch.buckets.iter().map(|&(_, count)| count).collect() }
    }
}

impl TryFrom<&wire::Sketch> for Sketch {
    type Error = SketchError;

    fn try_from(message: &wire::Sketch) -> Result<Self, SketchError> {
        let wire::Sketch { steps, counts } = message;
        if steps.len() != counts.len() {
            return Err(SketchError::Lengths);
        }
        if steps.len() > SKETCH_BUCKETS {
            return Err(SketchError::Bucket);
        }
        let mut buckets: Vec<(u16, u64)> = Vec::with_capacity(steps.len());
        for (&step, &count) in steps.iter().zip(counts) {
            let last = buckets.last().map(|&(bucket, _)| u32::from(bucket));
            if last.is_some() && step == 0 {
                return Err(SketchError::Bucket);
            }
            let bucket = step.checked_add(last.unwrap_or(0)).ok_or(SketchError::Bucket)?;
            let bucket = u16::try_from(bucket).map_err(|_| SketchError::Bucket)?;
            if usize::from(bucket) >= SKETCH_BUCKETS {
                return Err(SketchError::Bucket);
            }
            if count == 0 {
                return Err(SketchError::Empty);
            }
            buckets.push((bucket, count));
        }
        Ok(Self { buckets })
    }
}

fn bucket_of(value: u32) -> u16 {
    let bucket = if value < EXACT {
        value
    } else {
        let exponent = value.ilog2();
        let within = (value >> (exponent - 5)) & (PER_OCTAVE - 1);
        EXACT + (exponent - 6) * PER_OCTAVE + within
    };
    u16::try_from(bucket).expect("the greatest is 895")
}

/// The middle of a bucket's values.
fn middle_of(bucket: u16) -> u32 {
    let bucket = u32::from(bucket);
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
        assert_eq!(usize::from(bucket_of(u32::MAX)) + 1, SKETCH_BUCKETS);
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
    fn what_is_no_sketch_is_refused() {
        let read = |steps: &[u32], counts: &[u64]| {
            Sketch::try_from(&wire::Sketch { steps: steps.into(), counts: counts.into() })
        };
        assert_eq!(read(&[1], &[]), Err(SketchError::Lengths));
        assert_eq!(read(&[1, 0], &[1, 1]), Err(SketchError::Bucket));
        assert_eq!(read(&[896], &[1]), Err(SketchError::Bucket));
        assert_eq!(read(&[5, u32::MAX], &[1, 1]), Err(SketchError::Bucket));
        assert_eq!(read(&[1], &[0]), Err(SketchError::Empty));
        assert_eq!(read(&[0; 897], &[1; 897]), Err(SketchError::Bucket));
        assert_eq!(read(&[0, 2], &[1, 2]), Ok(of(&[0, 2, 2])));
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
        fn a_sketch_survives_its_message(values in vec(value(), 0..200)) {
            let sketch = of(&values);
            prop_assert_eq!(Sketch::try_from(&wire::Sketch::from(&sketch)), Ok(sketch));
        }

        #[test]
        fn any_message_is_read_or_refused(steps in vec(any::<u32>(), 0..20), counts in vec(any::<u64>(), 0..20)) {
            if let Ok(sketch) = Sketch::try_from(&wire::Sketch { steps, counts }) {
                let _ = (sketch.quantile(0.5), sketch.count(), merged(&sketch, &sketch));
            }
        }
    }
}
