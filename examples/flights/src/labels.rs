//! The flights that are asked for: a sample, each a microsecond before its departure, so that the newest *earlier*
//! departure answers.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchReader, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use headwater::history::EntityRows;
use headwater::{Error, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The entity rows.
pub(crate) struct Asked {
    /// Airport, time asked for, and the flight's own delay: what a model would learn to foretell.
    pub(crate) rows: RecordBatch,
    /// Flights of the whole file that share airport and minute with another one.
    pub(crate) sharing: usize,
}

impl Asked {
    pub(crate) fn entities(&self) -> Result<EntityRows> {
        EntityRows::new(self.rows.schema(), vec![self.rows.clone()])
    }
}

/// Takes `count` flights, evenly spread over the file.
pub(crate) fn sample(flights: &Path, count: usize) -> Result<Asked> {
    let all = read(flights)?;
    let column = |name: &str| {
        all.column_by_name(name).cloned().ok_or_else(|| Error::data(format!("the flights have no column `{name}`")))
    };
    let origins = origins(&all)?;
    let dates = cast(&column("date")?, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let dates = dates.as_primitive::<TimestampMicrosecondType>();

    let mut departures: HashMap<(&str, i64), usize> = HashMap::new();
    for (origin, date) in origins.as_string::<i32>().iter().zip(dates) {
        *departures.entry((origin.unwrap_or_default(), date.unwrap_or_default())).or_default() += 1;
    }
    let sharing = departures.values().filter(|&&flights| flights > 1).sum();

    let asked: TimestampMicrosecondArray = dates.iter().map(|date| date.map(|date| date - 1)).collect();
    let rows = RecordBatch::try_from_iter([
        ("origin", Arc::clone(&origins)),
        ("event_timestamp", Arc::new(asked.with_timezone("UTC"))),
        ("actual_delay", column("delay")?),
    ])?;
    let step = (all.num_rows() / count).max(1);
    let chosen: UInt32Array =
        (0..all.num_rows()).step_by(step).take(count).filter_map(|row| u32::try_from(row).ok()).collect();
    Ok(Asked { rows: take_record_batch(&rows, &chosen)?, sharing })
}

/// The airports that the flights leave from, as text.
pub(crate) fn origins(flights: &RecordBatch) -> Result<ArrayRef> {
    let column = flights.column_by_name("origin");
    let column = column.ok_or_else(|| Error::data("the flights have no column `origin`"))?;
    Ok(cast(column, &DataType::Utf8)?)
}

/// All flights.
pub(crate) fn read(flights: &Path) -> Result<RecordBatch> {
    let failed = || Error::unexpected(format!("cannot read `{}`", flights.display()));
    let file = File::open(flights).map_err(|error| failed().with_source(error))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| failed().with_source(error))?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}
