//! Windowed aggregations: one definition for stream, backfill and training.
//!
//! At time `t` a window of length `w` that moves in steps of `hop` holds the events with
//! `floor(t - w, hop) <= event time <= t`: a sawtooth, exact at its newer end, and at its older end aligned to multiples
//! of `hop` since the Unix epoch. So tiles of one hop each are all that has to be kept of the past.
//!
//! Each function is implemented once, as what a tile holds for it (init, update, merge, encode) and how a result follows
//! from that (finalize); jobs, backfills, reads and the point-in-time join all use that one. Their results do not depend
//! on the order in which events come, nor on how they are spread over splits, but for sums of floats that leave
//! `float64` on the way (below).
//!
//! | function | what a tile holds | error |
//! | --- | --- | --- |
//! | `count` | a number | none |
//! | `sum` of integers | 128 bits | none |
//! | `sum` of floats, `mean` | two floats and a count, about 106 bits | about 1e-16, however the terms cancel |
//! | `stddev` | two floats more (Welford, Chan) | likewise |
//! | `min`, `max` | a value | none |
//! | `last`, `last_n`, `last_distinct_n` | `n` values with their versions | none |
//! | `approx_count_distinct` | a HyperLogLog sketch of 2^11 registers | standard error 2.3 % ([`DISTINCT_STANDARD_ERROR`]), next to none below a hundred |
//! | `approx_percentile` | a DDSketch | 0.78 % of the value of that rank ([`PERCENTILE_RELATIVE_ERROR`]) |
//!
//! What they do with special values:
//!
//! - Nulls are ignored. Of no values `count` is 0 and everything else null; so is `stddev` of one value.
//! - NaN is a value, equal to itself and greater than every other, as in SQL: it counts, it makes `sum`, `mean` and
//!   `stddev` NaN, it is `max` where there is one, and `min` only where there is nothing else; percentiles place it last.
//! - Infinities are values too. `sum` and `mean` of floats are infinite where the sum is beyond `float64`, or was on the
//!   way: of 1e308, 1e308 and -1e308 it depends on their order. `stddev` is NaN there, and where values lie further apart
//!   than about 1e154, whose square is beyond `float64`.
//! - `-0.0` and `0.0` are one value to `approx_count_distinct` and `last_distinct_n`, which gives it as `0.0`. `min` takes
//!   the former for the smaller one.
//! - A result beyond its feature's type is null and counted, never wrapped: of integers, a sum beyond `int64`; of floats,
//!   one that is finite and beyond a feature of `float32`.
//! - Percentiles take floats nearer to zero than 2.3e-308 for zero.

pub(crate) mod epoch;

mod bound;
mod codec;
mod distinct;
mod double;
mod finisher;
mod functions;
mod layout;
mod newest;
mod numbers;
mod part;
mod percentile;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use distinct::STANDARD_ERROR as DISTINCT_STANDARD_ERROR;
pub use functions::{MAX_N, check_type, output_type};
pub use percentile::RELATIVE_ERROR as PERCENTILE_RELATIVE_ERROR;

pub(crate) use finisher::Finisher;
pub(crate) use layout::Layout;
pub(crate) use state::State;

use headwater_core::Micros;
use headwater_core::definitions::{AggregateFunction, Field};
use serde::{Deserialize, Serialize};

/// How the features of a view follow from its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    /// The columns of the rows that are no key and no time, in order: what the aggregations are computed from.
    pub columns: Vec<Field>,
    /// One for each feature of the view, in the same order.
    pub features: Vec<WindowFeature>,
    /// What tells this set of aggregations from another, as a short hash: a changed one is another epoch.
    pub fingerprint: String,
}

/// One feature of a windowed view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowFeature {
    /// The feature: its name and its type.
    pub field: Field,
    /// The function.
    pub function: AggregateFunction,
    /// The column, as an index into [`Windows::columns`]; `None` counts rows.
    pub column: Option<usize>,
    /// The window; `None` = everything there ever was.
    pub window: Option<Window>,
}

/// A sawtooth window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// How far back it reaches, in microseconds; more than zero.
    pub length: Micros,
    /// The step in which its older end moves, in microseconds; more than zero and at most `length`.
    pub hop: Micros,
}

impl Window {
    /// The earliest event time that counts at `t`, inclusive.
    pub fn start(&self, t: Micros) -> Micros {
        let from = t.saturating_sub(self.length);
        from.saturating_sub(from.rem_euclid(self.hop))
    }
}
