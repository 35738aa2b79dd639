//! `count`, `sum`, `mean`, `stddev`, `min`, `max`: what takes a few words in a tile.
//!
//! All of them share one count of the values that are not null, and `mean` and `stddev` the sum.

use headwater_core::Result;

use super::codec::{Input, damaged, push_float, push_number, push_signed, push_sum};
use super::double::Double;

/// A value or a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    /// Its place in the order of values: `-inf < … < -0.0 < 0.0 < … < inf < NaN`.
    fn key(self) -> i64 {
        match self {
            Self::Int(value) => value,
            Self::Float(value) => float_key(value),
        }
    }
}

const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// The float as an integer of the same order; every NaN is one, the greatest.
pub(super) fn float_key(value: f64) -> i64 {
    let bits = if value.is_nan() { NAN } else { value }.to_bits().cast_signed();
    bits ^ (bits >> 63 & i64::MAX)
}

pub(super) fn key_float(key: i64) -> f64 {
    f64::from_bits((key ^ (key >> 63 & i64::MAX)).cast_unsigned())
}

/// The places of a column's figures among the words of a tile. All zeros = no value yet.
///
/// Places are below the tile's number of words, which is set with them: indexing does not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    /// The values are floats.
    pub(super) float: bool,
    /// How many values.
    pub(super) count: usize,
    /// Their sum, two words: an integer of 128 bits, or a [`Double`].
    pub(super) sum: Option<usize>,
    /// The sum of the squares of their distances from the mean, two words; only with `sum`.
    pub(super) spread: Option<usize>,
    /// The smallest value's key.
    pub(super) low: Option<usize>,
    /// The greatest value's key.
    pub(super) high: Option<usize>,
}

impl Numbers {
    pub(super) fn count(&self, words: &[u64]) -> u64 {
        words[self.count]
    }

    /// Counts something that is no number.
    pub(super) fn increment(&self, words: &mut [u64]) {
        words[self.count] = words[self.count].saturating_add(1);
    }

    /// Takes in a value.
    pub(super) fn update(&self, words: &mut [u64], value: Number) {
        let count = words[self.count];
        if let (Some(at), Some(sum)) = (self.spread, self.sum)
            && count > 0
        {
            let value = match value {
                Number::Int(value) => Double::from(i128::from(value)),
                Number::Float(value) => Double::from(value),
            };
            let distance = value - self.total(words, sum).divided_by(count as f64);
            let share = Double::from(count as f64).divided_by(count as f64 + 1.0);
            set_double(words, at, get_double(words, at) + distance * distance * share);
        }
        if let Some(at) = self.sum {
            match value {
                Number::Int(value) => set_int(words, at, get_int(words, at).saturating_add(i128::from(value))),
                Number::Float(value) => set_double(words, at, get_double(words, at) + Double::from(value)),
            }
        }
        let key = value.key().cast_unsigned();
        if let Some(at) = self.low
            && (count == 0 || key.cast_signed() < words[at].cast_signed())
        {
            words[at] = key;
        }
        if let Some(at) = self.high
            && (count == 0 || key.cast_signed() > words[at].cast_signed())
        {
            words[at] = key;
        }
        words[self.count] = count.saturating_add(1);
    }

    /// Takes in what another tile holds of the same column.
    pub(super) fn merge(&self, words: &mut [u64], other: &[u64]) {
        let (count, others) = (words[self.count], other[self.count]);
        if others == 0 {
            return;
        }
        if let (Some(at), Some(sum)) = (self.spread, self.sum) {
            let mut spread = get_double(words, at) + get_double(other, at);
            if count > 0 {
                let distance =
                    self.total(words, sum).divided_by(count as f64) - self.total(other, sum).divided_by(others as f64);
                // count · others / (count + others), without an overflow on the way.
                let weight = Double::from(count as f64).divided_by(count as f64 + others as f64);
                spread = spread + distance * distance * weight * Double::from(others as f64);
            }
            set_double(words, at, spread);
        }
        if let Some(at) = self.sum {
            if self.float {
                set_double(words, at, get_double(words, at) + get_double(other, at));
            } else {
                set_int(words, at, get_int(words, at).saturating_add(get_int(other, at)));
            }
        }
        if let Some(at) = self.low
            && (count == 0 || other[at].cast_signed() < words[at].cast_signed())
        {
            words[at] = other[at];
        }
        if let Some(at) = self.high
            && (count == 0 || other[at].cast_signed() > words[at].cast_signed())
        {
            words[at] = other[at];
        }
        words[self.count] = count.saturating_add(others);
    }

    /// The sum of integers, exact; `None` of no values.
    pub(super) fn int_sum(&self, words: &[u64]) -> Option<i128> {
        self.sum.filter(|_| words[self.count] > 0).map(|at| get_int(words, at))
    }

    /// The sum of floats; `None` of no values.
    pub(super) fn float_sum(&self, words: &[u64]) -> Option<f64> {
        self.sum.filter(|_| words[self.count] > 0).map(|at| get_double(words, at).hi)
    }

    /// The mean; `None` of no values.
    pub(super) fn mean(&self, words: &[u64]) -> Option<f64> {
        let count = words[self.count];
        self.sum.filter(|_| count > 0).map(|at| self.total(words, at).divided_by(count as f64).hi)
    }

    /// The sample's standard deviation; `None` of fewer than two values.
    pub(super) fn stddev(&self, words: &[u64]) -> Option<f64> {
        let count = words[self.count];
        let spread = self.spread.filter(|_| count > 1).map(|at| get_double(words, at).hi)?;
        let variance = spread.max(0.0) / (count - 1) as f64;
        // `max` takes NaN for zero.
        Some(if spread.is_finite() { variance.sqrt() } else { f64::NAN })
    }

    /// The smallest value; `None` of no values.
    pub(super) fn low(&self, words: &[u64]) -> Option<Number> {
        self.extreme(words, self.low)
    }

    /// The greatest value; `None` of no values.
    pub(super) fn high(&self, words: &[u64]) -> Option<Number> {
        self.extreme(words, self.high)
    }

    fn extreme(&self, words: &[u64], place: Option<usize>) -> Option<Number> {
        let key = place.filter(|_| words[self.count] > 0).map(|at| words[at].cast_signed())?;
        Some(if self.float { Number::Float(key_float(key)) } else { Number::Int(key) })
    }

    fn total(&self, words: &[u64], at: usize) -> Double {
        if self.float { get_double(words, at) } else { Double::from(get_int(words, at)) }
    }

    /// Appends what the words hold: of no value the count alone, of one value the count and the value.
    pub(super) fn encode(&self, words: &[u64], out: &mut Vec<u8>) {
        let count = words[self.count];
        push_number(out, count);
        if count == 0 {
            return;
        }
        if count == 1 {
            if let Some(value) = self.extreme(words, self.low.or(self.high)) {
                return match value {
                    Number::Int(value) => push_signed(out, value),
                    Number::Float(value) => push_float(out, value),
                };
            }
            if let Some(at) = self.sum {
                if self.float {
                    push_float(out, get_double(words, at).hi);
                } else {
                    // One value's sum is that value: 64 bits.
                    push_signed(out, words[at].cast_signed());
                }
            }
            return;
        }
        if let Some(at) = self.sum {
            if self.float {
                push_double(out, get_double(words, at));
            } else {
                push_sum(out, [words[at], words[at + 1]]);
            }
        }
        if let Some(at) = self.spread {
            push_double(out, get_double(words, at));
        }
        for at in [self.low, self.high].into_iter().flatten() {
            let key = words[at].cast_signed();
            if self.float { push_float(out, key_float(key)) } else { push_signed(out, key) }
        }
    }

    /// Reads what [`Numbers::encode`] wrote into words that hold no value yet.
    pub(super) fn decode(&self, words: &mut [u64], input: &mut Input<'_>) -> Result<()> {
        let count = input.number()?;
        if count == 1 && (self.sum.is_some() || self.low.is_some() || self.high.is_some()) {
            let value = if self.float { Number::Float(input.float()?) } else { Number::Int(input.signed()?) };
            self.update(words, value);
            return Ok(());
        }
        words[self.count] = count;
        if count == 0 {
            return Ok(());
        }
        if let Some(at) = self.sum {
            if self.float {
                set_double(words, at, read_double(input)?);
            } else {
                words[at..at + 2].copy_from_slice(&input.sum()?);
            }
        }
        if let Some(at) = self.spread {
            set_double(words, at, read_double(input)?);
        }
        for at in [self.low, self.high].into_iter().flatten() {
            let key = if self.float { float_key(input.float()?) } else { input.signed()? };
            words[at] = key.cast_unsigned();
        }
        match (self.low, self.high) {
            (Some(low), Some(high)) if words[low].cast_signed() > words[high].cast_signed() => Err(damaged()),
            _ => Ok(()),
        }
    }
}

fn push_double(out: &mut Vec<u8>, double: Double) {
    push_float(out, double.hi);
    push_float(out, double.lo);
}

fn read_double(input: &mut Input<'_>) -> Result<Double> {
    Ok(Double { hi: input.float()?, lo: input.float()? })
}

fn get_double(words: &[u64], at: usize) -> Double {
    Double { hi: f64::from_bits(words[at]), lo: f64::from_bits(words[at + 1]) }
}

fn set_double(words: &mut [u64], at: usize, double: Double) {
    words[at] = double.hi.to_bits();
    words[at + 1] = double.lo.to_bits();
}

fn get_int(words: &[u64], at: usize) -> i128 {
    i128::from(words[at + 1].cast_signed()) << 64 | i128::from(words[at])
}

#[allow(clippy::cast_possible_truncation)] // Each word takes its half.
fn set_int(words: &mut [u64], at: usize, value: i128) {
    let bits = value.cast_unsigned();
    words[at] = bits as u64;
    words[at + 1] = (bits >> 64) as u64;
}
