//! `aggregations`: read from a file, checked, and resolved to [`crate::windows::Windows`].

mod check;
mod read;
mod resolve;

use headwater_core::definitions::{AggregateFunction, FeatureView};

pub(super) use check::{Columns, check, features};
pub(super) use read::read;
pub(super) use resolve::windows;

use super::place::Place;

/// The most steps that a window may have: a state row holds a tile for each.
const MAX_STEPS: i64 = 1_000;
/// The steps of a window without `slide_interval`.
const DEFAULT_STEPS: i64 = 12;

/// The functions, with stand-ins for what they take.
const FUNCTIONS: [AggregateFunction; 11] = [
    AggregateFunction::Sum,
    AggregateFunction::Count,
    AggregateFunction::Min,
    AggregateFunction::Max,
    AggregateFunction::Mean,
    AggregateFunction::Stddev,
    AggregateFunction::Last,
    AggregateFunction::LastN { n: 1 },
    AggregateFunction::LastDistinctN { n: 1 },
    AggregateFunction::ApproxCountDistinct,
    AggregateFunction::ApproxPercentile { percentile: 0.5 },
];

/// Where a view's aggregation stands.
fn place_of<'a>(view: &FeatureView, index: usize, place: &Place<'a>) -> Place<'a> {
    let name = view.aggregations.get(index).and_then(|aggregation| aggregation.name.as_deref());
    place.key("aggregations").item(index, name.unwrap_or_default())
}
