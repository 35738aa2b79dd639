//! Runs a plan on batches: filter, then unnest, then projection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array, UInt32Builder};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, prep_null_mask_filter, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use headwater_core::transform::{Fingerprint, PlannedTransform, Transformed};
use headwater_core::{Error, Result};

use crate::PLUGIN;
use crate::error::data;

/// A statement planned for one input schema.
#[derive(Debug)]
pub(crate) struct PlannedSql {
    /// What was planned for.
    pub(crate) input: SchemaRef,
    /// The columns of it that are read, by index.
    pub(crate) used: Vec<usize>,
    /// Which rows stay; over the columns used.
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    /// The lists that rows are made of; over the columns used.
    pub(crate) unnests: Vec<Unnest>,
    /// The columns used and the elements of each unnested list.
    pub(crate) scope: SchemaRef,
    /// The select list; over `scope`.
    pub(crate) outputs: Vec<Output>,
    /// The names and types of the select list.
    pub(crate) schema: SchemaRef,
    /// What the engine compares.
    pub(crate) fingerprint: Fingerprint,
}

/// A list that rows are made of.
#[derive(Debug)]
pub(crate) struct Unnest {
    /// The list: a `ListArray`.
    pub(crate) list: Arc<dyn PhysicalExpr>,
    /// A record with a null or empty list gives a row, with a null.
    pub(crate) outer: bool,
}

/// A column of the select list.
#[derive(Debug)]
pub(crate) struct Output {
    /// What it is called in messages.
    pub(crate) what: String,
    /// How it is computed.
    pub(crate) expr: Arc<dyn PhysicalExpr>,
}

impl PlannedTransform for PlannedSql {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.clone()
    }

    fn apply(&self, input: &RecordBatch) -> Result<Transformed> {
        // Hundreds of functions of a library run here on whatever a stream brings. A panic in one of them is a row
        // that cannot be computed; it must not take the job down.
        let result = catch_unwind(AssertUnwindSafe(|| self.run(input)));
        result
            .unwrap_or_else(|_| Err(Error::data("a function gave up on some row")))
            .map_err(|e| e.with_plugin(PLUGIN.name))
    }
}

impl PlannedSql {
    fn run(&self, input: &RecordBatch) -> Result<Transformed> {
        let (planned, given) = (self.input.fields().iter(), input.schema_ref().fields().iter());
        if !planned.map(|f| (f.name(), f.data_type())).eq(given.map(|f| (f.name(), f.data_type()))) {
            return Err(Error::unexpected("the batch has other columns than the transform was planned for"));
        }
        let mut batch = input.project(&self.used)?;
        let mut inputs: Option<UInt32Array> = None;
        if let Some(filter) = &self.filter {
            let keep = evaluate("`WHERE`", filter, &batch)?;
            let keep = keep.as_boolean_opt().ok_or_else(|| Error::unexpected("`WHERE` gave no booleans"))?;
            // Null is not true.
            let keep = if keep.null_count() > 0 { prep_null_mask_filter(keep) } else { keep.clone() };
            if keep.true_count() < batch.num_rows() {
                batch = filter_record_batch(&batch, &keep)?;
                inputs = Some(kept(keep.values())?);
            }
        }
        if !self.unnests.is_empty() {
            let (rows, unnested) = self.unnest(&batch)?;
            inputs = Some(match inputs {
                None => rows,
                Some(inputs) => take(&inputs, &rows, None)?.as_primitive().clone(),
            });
            batch = unnested;
        }
        let columns = self
            .outputs
            .iter()
            .map(|output| evaluate(&output.what, &output.expr, &batch))
            .collect::<Result<Vec<_>>>()?;
        Ok(Transformed { rows: RecordBatch::try_new(Arc::clone(&self.schema), columns)?, inputs })
    }

    /// One row for each element; the lists of one record run side by side, the shorter ones filled with nulls. Gives
    /// the row of `batch` that each came from, and the rows with the elements as columns at the end.
    fn unnest(&self, batch: &RecordBatch) -> Result<(UInt32Array, RecordBatch)> {
        let lists = self
            .unnests
            .iter()
            .map(|unnest| {
                let list = evaluate("`unnest()`", &unnest.list, batch)?;
                list.as_list_opt::<i32>().cloned().ok_or_else(|| Error::unexpected("`unnest()` gave no list"))
            })
            .collect::<Result<Vec<ListArray>>>()?;
        let outer = self.unnests.iter().any(|unnest| unnest.outer);
        let mut rows = UInt32Builder::new();
        let mut elements = lists.iter().map(|_| UInt32Builder::new()).collect::<Vec<_>>();
        for row in 0..batch.num_rows() {
            let spans = lists.iter().map(|list| span(list, row)).collect::<Result<Vec<_>>>()?;
            let longest = spans.iter().map(|(_, length)| *length).max().unwrap_or(0);
            let count = if longest == 0 && outer { 1 } else { longest };
            rows.append_value_n(index(row)?, usize_of(count)?);
            for ((first, length), elements) in spans.into_iter().zip(&mut elements) {
                elements.extend((0..count).map(|place| (place < length).then_some(first + place)));
            }
        }
        let rows = rows.finish();
        let mut columns = take_record_batch(batch, &rows)?.columns().to_vec();
        for (list, mut elements) in lists.iter().zip(elements) {
            columns.push(take(list.values(), &elements.finish(), None)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let unnested = RecordBatch::try_new_with_options(Arc::clone(&self.scope), columns, &options)?;
        Ok((rows, unnested))
    }
}

fn evaluate(what: &str, expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows())).map_err(|error| data(what, &error))
}

/// Where a row's elements begin among all elements, and how many there are.
fn span(list: &ListArray, row: usize) -> Result<(u32, u32)> {
    if list.is_null(row) {
        return Ok((0, 0));
    }
    let length = u32::try_from(list.value_length(row)).map_err(|_| Error::corrupt("a list of negative length"))?;
    let first = list.value_offsets().get(row).copied().unwrap_or(0);
    Ok((u32::try_from(first).map_err(|_| Error::corrupt("a list at a negative offset"))?, length))
}

fn kept(keep: &BooleanBuffer) -> Result<UInt32Array> {
    keep.set_indices().map(index).collect::<Result<Vec<_>>>().map(UInt32Array::from)
}

fn index(row: usize) -> Result<u32> {
    u32::try_from(row).map_err(|_| Error::data("a batch of more than 2^32 rows"))
}

fn usize_of(count: u32) -> Result<usize> {
    usize::try_from(count).map_err(|_| Error::data("more rows than memory can hold"))
}
