//! Rows of a view as rows of its log.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use headwater_core::Result;
use headwater_core::offline::{LOG_POSITION, LOG_SPLIT};

use crate::view::ViewRows;

/// The column of a log that says which of the rows of its record a row is; only where a transform unnests.
pub(crate) const LOG_ORDINAL: &str = "_ordinal";

/// What is appended to the log for these rows: their columns, split, position and, where there are any, ordinals.
///
/// # Errors
/// Arrow's, where `rows` does not hold together.
pub(crate) fn log_rows(rows: &ViewRows) -> Result<RecordBatch> {
    let schema = rows.rows.schema();
    let mut fields: Vec<Arc<ArrowField>> = schema.fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = rows.rows.columns().to_vec();
    let split = rows.split.to_string();
    fields.push(Arc::new(ArrowField::new(LOG_SPLIT, DataType::Utf8, false)));
    columns.push(Arc::new(StringArray::from_iter_values((0..rows.rows.num_rows()).map(|_| &split))));
    fields.push(Arc::new(ArrowField::new(LOG_POSITION, DataType::Binary, false)));
    columns.push(Arc::new(rows.positions.clone()));
    if let Some(ordinals) = &rows.ordinals {
        fields.push(Arc::new(ArrowField::new(LOG_ORDINAL, DataType::UInt32, false)));
        columns.push(Arc::new(ordinals.clone()));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
