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
        let sketch = HllSketch::deserialize(bytes).map_err(|error| damaged().with_source(error))?;
        if sketch.lg_config_k() != LG_REGISTERS || sketch.target_type() != HllType::Hll4 {
            return Err(damaged());
        }
        Ok(Self { sketch: Some(Box::new(sketch)) })
    }
}
