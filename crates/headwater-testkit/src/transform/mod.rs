//! The suite for [`Transform`].

mod plans;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use headwater_core::definitions::timestamp_type;
use headwater_core::{Result, Transform};

use crate::Clause;
use crate::clause::suite;

/// What a transform that the suite asks for does with the columns of [`input`]. Shown as the SQL that would do it,
/// where the stream is called `input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Case {
    /// `SELECT * FROM input`
    Everything,
    /// `SELECT value * 2 AS doubled, id FROM input`
    Project,
    /// `SELECT id, value FROM input WHERE value > 0`
    Filter,
    /// `SELECT id, unnest(items) AS item FROM input`
    Unnest,
    /// `SELECT id, unnest(items) AS item FROM input WHERE value > 0`
    FilterAndUnnest,
    /// `SELECT id, 100 / divisor AS quotient FROM input`: fails for rows whose divisor is 0.
    Divide,
    /// `SELECT id, no_such_column FROM input`
    UnknownColumn,
    /// `SELECT id, no_such_function(value) AS value FROM input`
    UnknownFunction,
    /// `SELECT id, sum(value) AS value FROM input GROUP BY id`
    Aggregate,
    /// `SELECT a.id FROM input a JOIN input b ON a.id = b.id`
    Join,
    /// `SELECT id, row_number() OVER (ORDER BY id) AS n FROM input`
    Window,
    /// `SELECT id FROM input ORDER BY id`
    Sort,
    /// `SELECT id FROM input LIMIT 1`
    Limit,
    /// `SELECT DISTINCT id FROM input`
    Distinct,
    /// `SELECT id, now() AS at FROM input`
    Now,
    /// `SELECT id, random() AS chance FROM input`
    Random,
}

/// The columns that the suite's transforms get: `id` int64, `name` utf8, `value` float64, `divisor` int64, `items` list
/// of int64, `event_timestamp`.
pub fn input() -> SchemaRef {
    let items = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
        Field::new("divisor", DataType::Int64, true),
        Field::new("items", items, true),
        Field::new("event_timestamp", timestamp_type(), true),
    ]))
}

/// How to make transforms.
pub trait TransformFixture: Send + Sync + 'static {
    /// The transform of this case.
    ///
    /// # Errors
    /// `Unsupported` where it cannot be said in this language, and the clause does not apply. Any other error counts as
    /// the refusal of the transform.
    fn transform(&self, case: Case) -> Result<Arc<dyn Transform>>;
}

/// The clauses of [`Transform`]'s contract.
pub fn suite(fixture: impl TransformFixture) -> Vec<Clause> {
    suite! { fixture;
        "transform::output-is-what-comes-out" plans::output,
            "The columns that come out.";
        "transform::everything-passes" plans::everything,
            "A transform projects, filters and unnests.";
        "transform::projects" plans::projects,
            "A transform projects, filters and unnests.";
        "transform::filters" plans::filters,
            "A transform projects, filters and unnests.";
        "transform::unnests" plans::unnests,
            "A transform projects, filters and unnests.";
        "transform::inputs-name-the-input-rows" plans::inputs,
            "For each row, the index of the input row it came from; ascending.";
        "transform::order-of-input-rows" plans::order,
            "output rows stand in the order of their input rows;";
        "transform::slices" plans::slices,
            "`apply` of a slice gives the slice of `apply`;";
        "transform::deterministic" plans::deterministic,
            "equal input gives equal output, always.";
        "transform::empty-batches" plans::empty,
            "Transforms a batch with the planned input schema.";
        "transform::rows-at-fault-are-data-errors" plans::data_errors,
            "`Data` where some row cannot be computed.";
        "transform::fingerprints-tell-rows-apart" plans::fingerprints,
            "What a transform computes, in words that change exactly when the rows change.";
        "transform::unknown-names-are-invalid" plans::unknown,
            "`Invalid`, naming what is wrong: an unknown column, a function that does not exist,";
        "transform::not-row-wise-is-invalid" plans::not_row_wise,
            "row-wise (an aggregate, a join, a window, a sort, a limit)";
        "transform::not-deterministic-is-invalid" plans::not_deterministic,
            "or not deterministic (`now()`, `random()`).";
    }
}
