//! `approx_percentile`: a DDSketch.
//!
//! A DDSketch counts values in buckets whose bounds grow by a constant factor, so that every value of a bucket is within
//! a fixed relative distance of the one that stands for it. Merging adds counts: exact, in any order, which no t-digest
//! offers, and so online, backfill and join give the same answer to the last bit. No crate that is kept well has one
//! with a stable encoding.
//!
//! Bounds are those of a linearly interpolated logarithm: 64 buckets of equal width between powers of two, which is the
//! upper bits of the float itself, the same on every machine. A value that is found is at most
//! [`RELATIVE_ERROR`] = 1/129 (0.78 %) off the value of exactly that rank.

use headwater_core::Result;

use super::codec::{Input, damaged, push_length, push_number, push_signed};
use super::numbers::float_key;

/// The greatest distance of an answer from the value of exactly that rank, as a share of the latter.
pub const RELATIVE_ERROR: f64 = 1.0 / 129.0;

/// Bits of the mantissa that tell buckets apart.
const BITS: u32 = 6;
/// Bits of a float below them.
const SHIFT: u32 = 52 - BITS;

/// How many values are in which bucket, by bucket. A typical column fills a few hundred.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Percentile {
    buckets: Vec<(i64, u64)>,
}

/// The bucket of a value. Their order is that of values, NaN last.
fn bucket(value: f64) -> i64 {
    // Below the smallest normal float buckets would be wider than promised: there is zero.
    let value = if value.abs() < f64::MIN_POSITIVE { 0.0 } else { value };
    float_key(value) >> SHIFT
}

/// The value that stands for a bucket: the one whose relative distance to both ends is equal.
fn representative(bucket: i64) -> f64 {
    let (magnitude, sign) = if bucket < 0 { (!bucket, -1.0) } else { (bucket, 1.0) };
    let lowest = f64::from_bits(magnitude.cast_unsigned() << SHIFT);
    if lowest == 0.0 || !lowest.is_finite() {
        return sign * lowest;
    }
    let step = (magnitude & ((1 << BITS) - 1)) as f64;
    sign * lowest * ((130.0 + 2.0 * step) / (129.0 + 2.0 * step))
}

impl Percentile {
    pub(super) fn update(&mut self, value: f64) {
        self.add(bucket(value), 1);
    }

    fn add(&mut self, bucket: i64, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                if let Some((_, counted)) = self.buckets.get_mut(at) {
                    *counted = counted.saturating_add(count);
                }
            }
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.extend_from_slice(&other.buckets);
            return;
        }
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let mut ours = self.buckets.iter().copied().peekable();
        for &(bucket, count) in &other.buckets {
            while let Some(next) = ours.next_if(|(ours, _)| *ours < bucket) {
                merged.push(next);
            }
            let equal = ours.next_if(|(ours, _)| *ours == bucket).map_or(0, |(_, count)| count);
            merged.push((bucket, count.saturating_add(equal)));
        }
        merged.extend(ours);
        self.buckets = merged;
    }

    /// The smallest value that at least this share of the values does not exceed, as SQL's `percentile_disc`; `None` of
    /// no values.
    pub(super) fn finalize(&self, share: f64) -> Option<f64> {
        let count = self.buckets.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        // Ranks from 1. A share is written in decimals: what binary ones are off by makes no rank of its own, as in
        // 0.07 · 100 = 7.000000000000001.
        let rank = (share * count as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil().max(1.0);
        let mut seen = 0_u64;
        for &(bucket, count) in &self.buckets {
            seen = seen.saturating_add(count);
            if seen as f64 >= rank {
                return Some(representative(bucket));
            }
        }
        self.buckets.last().map(|(bucket, _)| representative(*bucket))
    }

    pub(super) fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(i64, u64)>()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        push_length(out, self.buckets.len());
        let mut previous = 0;
        for (bucket, count) in &self.buckets {
            push_signed(out, bucket - previous);
            push_number(out, *count);
            previous = *bucket;
        }
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let length = input.length()?;
        let mut buckets: Vec<(i64, u64)> = Vec::with_capacity(length);
        for _ in 0..length {
            let previous = buckets.last().map_or(0, |(bucket, _)| *bucket);
            let bucket = previous.checked_add(input.signed()?).ok_or_else(damaged)?;
            // No float has a bucket beyond these.
            if !(i64::MIN >> SHIFT..=i64::MAX >> SHIFT).contains(&bucket) || (!buckets.is_empty() && bucket <= previous)
            {
                return Err(damaged());
            }
            buckets.push((bucket, input.number()?));
        }
        Ok(Self { buckets })
    }
}
