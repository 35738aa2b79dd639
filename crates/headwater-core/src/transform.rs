//! Transforms: row-wise functions from a stream's records to a view's rows.
//!
//! A transform projects, filters and unnests. It never looks at two rows at once, at a clock or at a random number, so
//! that every output row belongs to one input record and a replay gives the same rows.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;

use crate::error::Result;

/// A transform that has not seen its input yet.
pub trait Transform: Debug + Send + Sync {
    /// Checks the transform against the columns it will get and prepares it.
    ///
    /// # Errors
    /// `Invalid`, naming what is wrong: an unknown column, a function that does not exist, something that is not
    /// row-wise (an aggregate, a join, a window, a sort, a limit) or not deterministic (`now()`, `random()`).
    fn plan(&self, input: &SchemaRef) -> Result<Arc<dyn PlannedTransform>>;
}

/// A transform for one input schema. Planned once, run on every batch.
pub trait PlannedTransform: Debug + Send + Sync {
    /// The columns that come out.
    fn output(&self) -> SchemaRef;

    /// The text by which the engine recognises a change of the rows.
    fn fingerprint(&self) -> Fingerprint;

    /// Transforms a batch with the planned input schema.
    ///
    /// The implementer guarantees: output rows stand in the order of their input rows; `apply` of a slice gives the
    /// slice of `apply`; equal input gives equal output, always.
    ///
    /// # Errors
    /// `Data` where some row cannot be computed. Nothing is said of the other rows: the engine tries halves, until
    /// the rows at fault stand alone.
    fn apply(&self, input: &RecordBatch) -> Result<Transformed>;
}

/// What a transform computes, in words that change exactly when the rows change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// What decides which rows there are: filter and unnest. Empty where every record gives one row.
    pub rows: String,
    /// The expression of each output column, in normal form.
    pub columns: BTreeMap<String, String>,
}

/// The rows that came out of a batch.
#[derive(Debug, Clone)]
pub struct Transformed {
    /// The rows.
    pub rows: RecordBatch,
    /// For each row, the index of the input row it came from; ascending. `None` where row `i` came from row `i`.
    pub inputs: Option<UInt32Array>,
}

/// The transform of `mode: none`: the rows as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Transform for Identity {
    fn plan(&self, input: &SchemaRef) -> Result<Arc<dyn PlannedTransform>> {
        Ok(Arc::new(PlannedIdentity(Arc::clone(input))))
    }
}

#[derive(Debug)]
struct PlannedIdentity(SchemaRef);

impl PlannedTransform for PlannedIdentity {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn fingerprint(&self) -> Fingerprint {
        let columns = self.0.fields().iter().map(|field| (field.name().clone(), field.name().clone())).collect();
        Fingerprint { rows: String::new(), columns }
    }

    fn apply(&self, input: &RecordBatch) -> Result<Transformed> {
        Ok(Transformed { rows: input.clone(), inputs: None })
    }
}
