//! Parquet: rows and their numbers.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind as IoKind;

use arrow::datatypes::SchemaRef;
use headwater_core::stream::{Lag, Payload, StreamBatch};
use headwater_core::{Error, ErrorKind, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;

use super::lines::fixed_positions;
use super::pass::{Limits, Outcome, Task};
use super::tree::{Stamp, is_complete, position};
use crate::error;
use crate::sizes::{count, decoded_bytes};
use crate::union::{Alignment, common_type};

/// Delivers the rows behind row `task.from`, with the columns of `schema`.
///
/// # Errors
/// `PositionLost` where the file has fewer rows, `Corrupt` where it is no Parquet file, `Invalid` where its columns do
/// not go together with `schema`.
pub(super) fn read(task: &Task, schema: &SchemaRef) -> Result<Outcome> {
    let path = task.path.display();
    let mut file = match File::open(&task.path) {
        Ok(file) => file,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(Outcome::Gone),
        Err(e) => return Err(error::io(e, path)),
    };
    let stamp = Stamp::of(&file.metadata().map_err(|e| error::io(e, &path))?);
    if task.follow && !is_complete(&mut file).map_err(|e| error::io(e, &path))? {
        tracing::warn!(%path, "this Parquet file has no end yet and is waited for");
        return Ok(Outcome::Unfinished(stamp));
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| error::parquet(e, &path))?;
    let metadata = builder.metadata();
    let total = count(metadata.file_metadata().num_rows());
    if task.from > total {
        let message = format!("`{path}` has {total} rows, fewer than were read of it");
        return Err(Error::new(ErrorKind::PositionLost, message)
            .with_plugin("file")
            .with_context("split", &task.split)
            .with_context("read up to row", task.from));
    }
    let alignment = align(task, schema, &builder)?;
    // Whole row groups are passed over by number, the rest by row.
    let mut before = 0;
    let mut groups = Vec::new();
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let rows = count(group.num_rows());
        if groups.is_empty() && before + rows <= task.from {
            before += rows;
        } else {
            groups.push(index);
        }
    }
    let batch_rows = batch_rows(metadata, &groups, task.limits);
    let mask = ProjectionMask::roots(builder.parquet_schema(), alignment.decode().iter().copied());
    let reader = builder
        .with_row_groups(groups)
        .with_offset(usize::try_from(task.from - before).unwrap_or(usize::MAX))
        .with_projection(mask)
        .with_batch_size(batch_rows)
        .build()
        .map_err(|e| error::parquet(e, &path))?;
    let mut row = task.from;
    for batch in reader {
        // Damaged pages are reported through Arrow's error type, too.
        let batch = batch.map_err(|e| Error::corrupt(format!("`{path}` cannot be read")).with_source(e))?;
        let rows = alignment.apply(&batch)?;
        let last = row + rows.num_rows() as u64;
        let positions = fixed_positions((row + 1..=last).flat_map(u64::to_be_bytes).collect());
        row = last;
        let lag = Lag { records: Some(total.saturating_sub(row)), ..Lag::default() };
        let batch = StreamBatch {
            split: task.split.clone(),
            payload: Payload::Rows(rows),
            positions,
            metadata: None,
            through: position(row),
            lag: Some(lag),
            lost: false,
        };
        if task.batches.blocking_send(batch).is_err() {
            return Ok(Outcome::Dropped);
        }
    }
    Ok(Outcome::Read(stamp))
}

fn align(task: &Task, schema: &SchemaRef, builder: &ParquetRecordBatchReaderBuilder<File>) -> Result<Alignment> {
    let path = task.path.to_string_lossy();
    for field in builder.schema().fields() {
        let Ok(wanted) = schema.field_with_name(field.name()) else { continue };
        if common_type(wanted.data_type(), field.data_type()).is_none() {
            return Err(Error::invalid(format!(
                "column `{}` is {} in `{path}` and {} in the files before it",
                field.name(),
                field.data_type(),
                wanted.data_type(),
            ))
            .with_plugin("file"));
        }
    }
    let fields: Vec<_> = schema.fields().iter().cloned().collect();
    Ok(Alignment::new(&fields, builder.schema(), &HashMap::new(), &path))
}

/// How many rows fill a batch, judged by the widest row group.
fn batch_rows(metadata: &ParquetMetaData, groups: &[usize], limits: Limits) -> usize {
    let widest = groups
        .iter()
        .filter_map(|index| metadata.row_groups().get(*index))
        .map(|group| group.columns().iter().map(decoded_bytes).sum::<u64>() / count(group.num_rows()).max(1))
        .max()
        .unwrap_or(0);
    // 16 bytes hold a position and its offset.
    let row = usize::try_from(widest).unwrap_or(usize::MAX).saturating_add(16);
    (limits.bytes / row).clamp(1, limits.records)
}
