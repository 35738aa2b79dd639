//! Rows that the suites write and read back.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use futures::TryStreamExt;
use headwater_core::batch::{BatchSource, Fragment, Positions, ScanBatch, ScanRequest};
use headwater_core::definitions::timestamp_type;
use headwater_core::{Micros, Position, SplitId};

use crate::Verdict;
use crate::clause::ensure;

/// One second, in [`Micros`].
pub(crate) const SECOND: Micros = 1_000_000;

/// The columns of a table under test: `id`, `name`, `event_timestamp`, `value`.
pub(crate) fn table_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("event_timestamp", timestamp_type(), false),
        Field::new("value", DataType::Float64, true),
    ]))
}

/// Rows whose id, name, time and value all follow from the ids. Every seventh value is null.
pub(crate) fn table_rows(ids: impl IntoIterator<Item = i64>) -> Verdict<RecordBatch> {
    let ids = ids.into_iter().collect::<Vec<_>>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(ids.iter().map(|id| Some(name_of(*id))).collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| time_of(*id))).with_timezone("UTC")),
        Arc::new(ids.iter().map(|id| value_of(*id)).collect::<Float64Array>()),
    ];
    Ok(RecordBatch::try_new(table_schema(), columns)?)
}

/// A row's name.
pub(crate) fn name_of(id: i64) -> String {
    format!("name {id:06}")
}

/// A row's time: one second after another, from 2023-11-14.
pub(crate) fn time_of(id: i64) -> Micros {
    1_700_000_000 * SECOND + id * SECOND
}

#[allow(clippy::cast_precision_loss)] // Test ids are small.
fn value_of(id: i64) -> Option<f64> {
    (id % 7 != 0).then_some(id as f64 / 2.0)
}

/// A row that came out of a scan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scanned {
    /// Its split.
    pub(crate) split: SplitId,
    /// Its position.
    pub(crate) position: Position,
    /// Its `id`.
    pub(crate) id: i64,
}

/// Lists and reads everything that `request` wants, in the order in which the source gives it. The request's columns
/// must hold `id`.
pub(crate) async fn scan(source: &dyn BatchSource, request: &ScanRequest) -> Verdict<Vec<Scanned>> {
    let mut rows = Vec::new();
    for fragment in source.fragments(request).await? {
        rows.extend(read(source, &fragment, request).await?);
    }
    Ok(rows)
}

/// Reads one fragment.
pub(crate) async fn read(
    source: &dyn BatchSource,
    fragment: &Fragment,
    request: &ScanRequest,
) -> Verdict<Vec<Scanned>> {
    let batches = source.read(fragment, request).await?.try_collect::<Vec<_>>().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        let ids = ids_of(&batch.rows)?;
        let positions = positions_of(batch)?;
        ensure!(ids.len() == positions.len(), "a scan gave {} rows and {} positions", ids.len(), positions.len());
        let split = &fragment.split;
        rows.extend(ids.into_iter().zip(positions).map(|(id, position)| Scanned {
            split: split.clone(),
            position,
            id,
        }));
    }
    Ok(rows)
}

/// The column `id`.
pub(crate) fn ids_of(rows: &RecordBatch) -> Verdict<Vec<i64>> {
    let Some(column) = rows.column_by_name("id") else {
        ensure!(false, "the column `id` is missing from {:?}", rows.schema());
        return Ok(Vec::new());
    };
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec())
}

/// The position of each row.
pub(crate) fn positions_of(batch: &ScanBatch) -> Verdict<Vec<Position>> {
    Ok(match &batch.positions {
        Positions::Consecutive(first) => {
            let rows = u64::try_from(batch.rows.num_rows())?;
            (*first..first + rows).map(Position::from_u64).collect()
        }
        Positions::Each(positions) => bytes_of(positions),
    })
}

/// Positions that stand in a column.
pub(crate) fn bytes_of(positions: &BinaryArray) -> Vec<Position> {
    positions.iter().map(|position| Position::new(position.unwrap_or_default().to_vec())).collect()
}
