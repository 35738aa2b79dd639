//! Windowed aggregations: one definition for stream, backfill and training.
//!
//! At time `t` a window of length `w` that moves in steps of `hop` holds the events with
//! `floor(t - w, hop) <= event time <= t`: a sawtooth, exact at its newer end, and at its older end aligned to multiples
//! of `hop` since the Unix epoch. So tiles of one hop each are all that has to be kept of the past.

// What reads and writes windowed views comes next to this module.
#![allow(dead_code, unused_imports)]

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

pub(crate) use bound::Bound;
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
