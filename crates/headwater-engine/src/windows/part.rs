//! What a tile holds that is not of a fixed size.

use headwater_core::Result;

use super::codec::{Input, damaged, push_length};
use super::distinct::Distinct;
use super::newest::{Newest, Orders};
use super::percentile::Percentile;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    /// The smallest or greatest of bytes or text.
    Extreme { greatest: bool },
    /// The newest values; with `distinct`, that differ.
    Newest { limit: usize, distinct: bool },
    /// What the number of distinct values is estimated from.
    Distinct,
    /// What percentiles are estimated from.
    Percentile,
}

/// One part of a tile.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Extreme(Option<Box<[u8]>>),
    Newest(Newest),
    Distinct(Distinct),
    Percentile(Percentile),
}

impl PartKind {
    /// Of no values.
    pub(super) fn empty(self) -> Part {
        match self {
            Self::Extreme { .. } => Part::Extreme(None),
            Self::Newest { .. } => Part::Newest(Newest::default()),
            Self::Distinct => Part::Distinct(Distinct::default()),
            Self::Percentile => Part::Percentile(Percentile::default()),
        }
    }

    pub(super) fn merge(self, part: &mut Part, other: &Part) {
        match (self, part, other) {
            (Self::Extreme { greatest }, Part::Extreme(ours), Part::Extreme(Some(others))) => {
                extreme(ours, greatest, others);
            }
            (Self::Newest { limit, distinct }, Part::Newest(ours), Part::Newest(others)) => {
                ours.merge(limit, distinct, others);
            }
            (Self::Distinct, Part::Distinct(ours), Part::Distinct(others)) => ours.merge(others),
            (Self::Percentile, Part::Percentile(ours), Part::Percentile(others)) => ours.merge(others),
            // An extreme of no values. Kinds never differ: `empty` and `decode` follow them.
            _ => {}
        }
    }

    pub(super) fn decode(self, orders: &mut Orders, input: &mut Input<'_>) -> Result<Part> {
        Ok(match self {
            Self::Extreme { .. } => Part::Extreme(match input.number()? {
                0 => None,
                length => Some(input.take(usize::try_from(length - 1).map_err(|_| damaged())?)?.into()),
            }),
            Self::Newest { limit, .. } => Part::Newest(Newest::decode(limit, orders, input)?),
            Self::Distinct => Part::Distinct(Distinct::decode(input)?),
            Self::Percentile => Part::Percentile(Percentile::decode(input)?),
        })
    }
}

/// Replaces `best` by `value` where that is smaller, or greater.
pub(super) fn extreme(best: &mut Option<Box<[u8]>>, greatest: bool, value: &[u8]) {
    if best.as_deref().is_none_or(|best| if greatest { value > best } else { value < best }) {
        *best = Some(value.into());
    }
}

impl Part {
    pub(super) fn encode(&self, orders: &mut Orders, out: &mut Vec<u8>) {
        match self {
            Self::Extreme(None) => push_length(out, 0),
            Self::Extreme(Some(bytes)) => {
                push_length(out, bytes.len() + 1);
                out.extend_from_slice(bytes);
            }
            Self::Newest(newest) => newest.encode(orders, out),
            Self::Distinct(distinct) => distinct.encode(out),
            Self::Percentile(percentile) => percentile.encode(out),
        }
    }

    /// The memory it takes beyond itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Extreme(best) => best.as_ref().map_or(0, |bytes| bytes.len()),
            Self::Newest(newest) => newest.bytes(),
            Self::Distinct(distinct) => distinct.bytes(),
            Self::Percentile(percentile) => percentile.bytes(),
        }
    }
}
