//! `approx_count_distinct`: a HyperLogLog sketch of Apache DataSketches.
//!
//! That project's crate writes the binary format that its Java, C++ and Python libraries share, merges sketches, and keeps
//! the hashes themselves while there are few: a tile of three values takes 20 bytes, a full one 1 KiB. With 2^11
//! registers the relative standard error is [`STANDARD_ERROR`] = 2.3 %; below about a hundred values counts are exact but
//! for a collision of 26-bit hashes. The estimate is made from the registers alone and not from the order of updates, so
//! it does not depend on how the values were split and merged.

use datasketches::hash::value::raw_bytes;
use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};
use headwater_core::Result;

use super::codec::{Input, damaged, push_delimited};

/// The logarithm of the number of registers.
const LG_REGISTERS: u8 = 11;

const REGISTERS: usize = 1 << LG_REGISTERS;
/// The place in a sketch's image of the byte whose lower two bits say how it is kept, and what they are where it holds all
/// registers.
const MODE: usize = 7;
const FULL: u8 = 2;
/// A register that is so much above the least, or more, is kept apart.
const APART: u8 = 15;

/// The relative standard error of a count of many: 1.04 / √2048.
pub const STANDARD_ERROR: f64 = 0.022_98;

/// The values of a tile; `None` of no values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Distinct {
    sketch: Option<Box<HllSketch>>,
}

impl Distinct {
    /// Takes in a value by its bytes: equal values have equal bytes.
    pub(super) fn update(&mut self, value: &[u8]) {
        if self.sketch.is_none() {
            // Fails for a number of registers out of range alone.
            self.sketch = HllSketch::new(LG_REGISTERS, HllType::Hll4).ok().map(Box::new);
        }
        if let Some(sketch) = &mut self.sketch {
            sketch.update_with_coupon(Coupon::from_value(raw_bytes::from_slice(value)));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let Some(others) = &other.sketch else { return };
        match &mut self.sketch {
            None => self.sketch = Some(others.clone()),
            Some(ours) => {
                if let Ok(mut union) = HllUnion::new(LG_REGISTERS) {
                    union.update(ours);
                    union.update(others);
                    **ours = union.to_sketch(HllType::Hll4);
                }
            }
        }
    }

    /// About how many values differ in all these tiles; `None` of no values.
    #[allow(clippy::cast_possible_truncation)] // A conversion of floats saturates; an estimate is far from that.
    pub(super) fn finalize<'a>(parts: impl Iterator<Item = &'a Self>) -> Option<i64> {
        let mut sketches = parts.filter_map(|part| part.sketch.as_deref());
        let first = sketches.next()?;
        let estimate = match (sketches.next(), HllUnion::new(LG_REGISTERS)) {
            (Some(second), Ok(mut union)) => {
                union.update(first);
                union.update(second);
                sketches.for_each(|sketch| union.update(sketch));
                union.composite_estimate()
            }
            _ => first.composite_estimate(),
        };
        Some(estimate.round() as i64)
    }

    pub(super) fn bytes(&self) -> usize {
        self.sketch.as_ref().map_or(0, |sketch| size_of::<HllSketch>() + sketch.estimated_size())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        push_delimited(out, &self.sketch.as_ref().map(|sketch| sketch.serialize()).unwrap_or_default());
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let bytes = input.delimited()?;
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if bytes.get(MODE).is_some_and(|mode| mode & 3 == FULL) {
            check(bytes).ok_or_else(damaged)?;
        }
        let sketch = HllSketch::deserialize(bytes).map_err(|error| damaged().with_source(error))?;
        if sketch.lg_config_k() != LG_REGISTERS || sketch.target_type() != HllType::Hll4 {
            return Err(damaged());
        }
        Ok(Self { sketch: Some(Box::new(sketch)) })
    }
}

/// Checks the image of a sketch that holds all registers; `None` where it contradicts itself. The crate believes what it
/// says of them, and panics where that is wrong.
fn check(image: &[u8]) -> Option<()> {
    let (head, rest) = image.split_at_checked(40)?;
    let (registers, apart) = rest.split_at_checked(REGISTERS / 2)?;
    let word = |at: usize| head.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let half = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let is_compact = head.get(5)? & 8 != 0;
    let least = *head.get(6)?;

    // How many registers have which value.
    let mut counts = [0_u32; 64];
    let mut without_value = Vec::new();
    for (at, pair) in registers.iter().enumerate() {
        for (register, above) in [(2 * at, pair & 15), (2 * at + 1, pair >> 4)] {
            if above == APART {
                without_value.push(register);
            } else {
                *counts.get_mut(usize::from(least.checked_add(above)?))? += 1;
            }
        }
    }
    let at_least = *counts.get(usize::from(least))?;
    let mut kept_apart = Vec::with_capacity(without_value.len());
    for entry in apart.chunks(4) {
        let entry = u32::from_le_bytes(entry.try_into().ok()?);
        let value = usize::try_from(entry >> 26).ok()?;
        if value < usize::from(least) + usize::from(APART) {
            return None;
        }
        *counts.get_mut(value)? += 1;
        kept_apart.push(usize::try_from(entry & 0x3ff_ffff).ok()?);
    }
    kept_apart.sort_unstable();

    // Sums of powers of two, which are exact.
    let sum = |values: std::ops::Range<u64>| {
        let counts = (0_u64..).zip(&counts).filter(|(value, _)| values.contains(value));
        counts.map(|(value, count)| f64::from(*count) * f64::from_bits((1023 - value) << 52)).sum::<f64>()
    };
    let sound = is_compact
        && kept_apart == without_value
        && f64::from_bits(word(16)?) == sum(0..32)
        && f64::from_bits(word(24)?) == sum(32..64)
        && at_least > 0
        && half(32)? == at_least
        && usize::try_from(half(36)?).ok()? == kept_apart.len();
    sound.then_some(())
}
