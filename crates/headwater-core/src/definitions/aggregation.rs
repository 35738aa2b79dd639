//! Aggregates over windows of a stream feature view's rows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::options::Duration;

/// What is computed over the rows of a window.
///
/// Nulls are ignored by all of them, and the order of rows is that of their versions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AggregateFunction {
    /// The sum of numbers.
    Sum,
    /// How many values are not null; without a column, how many rows.
    Count,
    /// The smallest value.
    Min,
    /// The greatest value.
    Max,
    /// The arithmetic mean of numbers.
    Mean,
    /// The sample's standard deviation, as SQL's `stddev`.
    Stddev,
    /// The newest value.
    Last,
    /// The newest `n` values, oldest first.
    LastN {
        /// How many at most.
        n: u32,
    },
    /// The newest `n` values that differ from one another, each where it was seen last, oldest first.
    LastDistinctN {
        /// How many at most.
        n: u32,
    },
    /// About how many values differ.
    ApproxCountDistinct,
    /// A value that about this share of the values does not exceed.
    ApproxPercentile {
        /// From 0 to 1.
        percentile: f64,
    },
}

impl AggregateFunction {
    /// Its name in definitions.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Stddev => "stddev",
            Self::Last => "last",
            Self::LastN { .. } => "last_n",
            Self::LastDistinctN { .. } => "last_distinct_n",
            Self::ApproxCountDistinct => "approx_count_distinct",
            Self::ApproxPercentile { .. } => "approx_percentile",
        }
    }
}

impl fmt::Display for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One feature of a windowed view: a function of a column over a window that ends at the time of asking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregation {
    /// The column of the view's rows; `None` counts rows.
    pub column: Option<String>,
    /// The function.
    pub function: AggregateFunction,
    /// How far back the window reaches; `None` = everything.
    pub time_window: Option<Duration>,
    /// The step in which the window's older end moves; `None` = a twelfth of the window.
    pub slide_interval: Option<Duration>,
    /// The feature's name; `None` = as [`Aggregation::feature`] forms it.
    pub name: Option<String>,
}

impl Aggregation {
    /// A function of a column over all rows.
    pub fn new(function: AggregateFunction, column: impl Into<String>) -> Self {
        Self { column: Some(column.into()), function, time_window: None, slide_interval: None, name: None }
    }

    /// The number of rows.
    pub fn count() -> Self {
        Self { column: None, function: AggregateFunction::Count, time_window: None, slide_interval: None, name: None }
    }

    /// Only over the rows of the last `window`.
    #[must_use]
    pub fn time_window(mut self, window: Duration) -> Self {
        self.time_window = Some(window);
        self
    }

    /// Sets the step in which the window's older end moves.
    #[must_use]
    pub fn slide_interval(mut self, interval: Duration) -> Self {
        self.slide_interval = Some(interval);
        self
    }

    /// Names the feature.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The feature's name: the given one, else `{function}_{column}` and, for a window, `_{seconds}s`, as Feast forms
    /// it. A window that is no whole number of seconds is named in microseconds, `_{microseconds}us`.
    pub fn feature(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let mut name = self.function.name().to_owned();
        if let Some(column) = &self.column {
            name = format!("{name}_{column}");
        }
        match self.time_window {
            None => name,
            Some(Duration(micros)) if micros % 1_000_000 == 0 => format!("{name}_{}s", micros / 1_000_000),
            Some(Duration(micros)) => format!("{name}_{micros}us"),
        }
    }
}
