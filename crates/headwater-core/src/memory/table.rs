//! What the references of the scanning traits share: pruning, projection and growing schemas.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::batch::{KeyBounds, KeyRange, TimeRange};
use crate::definitions::timestamp_type;
use crate::error::{Error, Result};
use crate::time::Micros;

/// The smallest and the greatest time in a column; `None` where it holds none.
pub(super) fn time_bounds(rows: &RecordBatch, column: &str) -> Result<Option<(Micros, Micros)>> {
    let times = cast(column_of(rows, column)?, &timestamp_type())?;
    let times = times
        .as_any()
        .downcast_ref::<TimestampMicrosecondArray>()
        .ok_or_else(|| Error::unexpected("a cast to timestamps gave something else"))?;
    let mut bounds: Option<(Micros, Micros)> = None;
    for time in times.iter().flatten() {
        bounds = Some(bounds.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
    }
    Ok(bounds)
}

/// Whether any row has a time in the range.
pub(super) fn any_in_time(rows: &RecordBatch, range: &TimeRange) -> Result<bool> {
    let Some((low, high)) = time_bounds(rows, &range.column)? else { return Ok(false) };
    Ok(range.from.is_none_or(|from| high >= from) && range.to.is_none_or(|to| low <= to))
}

/// Whether any row has a key between the bounds.
pub(super) fn any_in_keys(rows: &RecordBatch, range: &KeyRange) -> Result<bool> {
    let column = column_of(rows, &range.column)?;
    Ok(match &range.values {
        KeyBounds::Int(from, to) => {
            let keys = cast(column, &DataType::Int64)?;
            let keys = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&keys);
            keys.iter().flatten().any(|key| (*from..=*to).contains(&key))
        }
        KeyBounds::Text(from, to) => {
            let keys = cast(column, &DataType::Utf8)?;
            let keys = arrow::array::AsArray::as_string::<i32>(&keys);
            keys.iter().flatten().any(|key| from.as_str() <= key && key <= to.as_str())
        }
    })
}

/// The columns asked for, in the order asked for.
pub(super) fn project(rows: &RecordBatch, columns: Option<&[String]>) -> Result<RecordBatch> {
    let Some(columns) = columns else { return Ok(rows.clone()) };
    let indices = columns
        .iter()
        .map(|column| rows.schema().index_of(column).map_err(|_| no_column(column, &rows.schema())))
        .collect::<Result<Vec<_>>>()?;
    Ok(rows.project(&indices)?)
}

/// Fails for columns that the schema does not have.
pub(super) fn check_columns<'a>(schema: &Schema, columns: impl IntoIterator<Item = &'a String>) -> Result<()> {
    match columns.into_iter().find(|column| schema.index_of(column).is_err()) {
        Some(column) => Err(no_column(column, schema)),
        None => Ok(()),
    }
}

/// The columns of every batch in order of appearance; nullable where some batch lacks them.
pub(super) fn union_schema<'a>(batches: impl Iterator<Item = &'a RecordBatch> + Clone) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    for batch in batches.clone() {
        for field in batch.schema().fields() {
            if !fields.iter().any(|known| known.name() == field.name()) {
                fields.push(field.as_ref().clone());
            }
        }
    }
    for field in &mut fields {
        let everywhere = batches
            .clone()
            .all(|batch| batch.schema().field_with_name(field.name()).is_ok_and(|other| !other.is_nullable()));
        *field = field.clone().with_nullable(!everywhere);
    }
    Arc::new(Schema::new(fields))
}

/// The batches as one with these columns; null where a batch lacks one.
pub(super) fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let widened = batches
        .iter()
        .map(|batch| {
            let columns = schema
                .fields()
                .iter()
                .map(|field| match batch.column_by_name(field.name()) {
                    Some(column) => Ok(cast(column, field.data_type())?),
                    None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                })
                .collect::<Result<Vec<_>>>()?;
            Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(concat_batches(schema, &widened)?)
}

fn column_of<'a>(rows: &'a RecordBatch, column: &str) -> Result<&'a Arc<dyn Array>> {
    rows.column_by_name(column).ok_or_else(|| no_column(column, &rows.schema()))
}

fn no_column(column: &str, schema: &Schema) -> Error {
    let known = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
    Error::invalid(format!("there is no column `{column}`; there are {known}"))
}
