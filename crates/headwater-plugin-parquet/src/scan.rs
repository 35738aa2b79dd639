//! A log as a table: one fragment per row group.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use headwater_core::batch::{
    BatchSource, Fragment, KeyBounds, KeyRange, Positions, ScanBatch, ScanRequest, ScanStream,
};
use headwater_core::offline::{LOG_POSITION, LogId};
use headwater_core::{Error, ErrorKind, Micros, Position, Result, SplitId};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};

use crate::compact;
use crate::error;
use crate::file::{Footer, union, widen};
use crate::log::{Chains, Log};
use crate::storage::Input;

/// Rows of one batch.
const BATCH_ROWS: usize = 32_768;

/// A log as a table.
#[derive(Debug)]
pub(crate) struct LogSource {
    id: LogId,
    /// The log; an error where its name cannot be one.
    log: Result<Log>,
    /// The columns that the last listing showed.
    schema: Mutex<Option<SchemaRef>>,
}

/// Rows of one file, by their number. They are found again after the file has been merged into another, since that one
/// holds them in the same order.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Token {
    after: String,
    row: u64,
    rows: u64,
}

impl LogSource {
    pub(crate) fn new(id: LogId, log: Result<Log>) -> Self {
        Self { id, log, schema: Mutex::default() }
    }

    fn log(&self) -> Result<&Log> {
        // An error is no value that can be given twice.
        self.log.as_ref().map_err(|error| Error::new(error.kind(), error.message()))
    }

    async fn chains(&self) -> Result<(Chains, SchemaRef)> {
        let log = self.log()?;
        compact::repair(log).await?;
        let chains = log.chains().await?;
        let schema = union(chains.values().flatten().map(|footer| &footer.schema));
        *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&schema));
        Ok((chains, schema))
    }

    async fn known_schema(&self) -> Result<SchemaRef> {
        let known = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(schema) => Ok(schema),
            None => Ok(self.chains().await?.1),
        }
    }
}

#[async_trait]
impl BatchSource for LogSource {
    fn identity(&self) -> String {
        match &self.log {
            Ok(log) => format!("parquet:{}", log.storage.describe(&log.folder)),
            Err(_) => format!("parquet:{}", self.id),
        }
    }

    async fn schema(&self) -> Result<SchemaRef> {
        let (chains, schema) = self.chains().await?;
        if chains.is_empty() {
            return Err(Error::not_found(format!("there is no log `{}`", self.id)));
        }
        Ok(schema)
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let (chains, schema) = self.chains().await?;
        if chains.is_empty() {
            return Ok(Vec::new());
        }
        let asked = request.columns.iter().flatten();
        let asked = asked.chain(request.time.iter().map(|time| &time.column));
        select(&schema, asked.chain(request.keys.iter().map(|keys| &keys.column)))?;

        let mut fragments = Vec::new();
        for (split, chain) in chains {
            for footer in chain {
                fragments.extend(of_file(&split, &footer, request)?);
            }
        }
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let wrong = || Error::invalid(format!("{fragment:?} is no fragment of log `{}`", self.id));
        let token: Token = serde_json::from_slice(&fragment.token).map_err(|_| wrong())?;
        let after: Position = token.after.parse().map_err(|_| wrong())?;
        let schema = self.known_schema().await?;
        let schema = match &request.columns {
            Some(columns) => select(&schema, columns)?,
            None => schema,
        };
        let rows = Rows { log: self.log()?.clone(), split: fragment.split.clone(), after, row: token.row, schema };
        let open = rows.open(token.rows).await?;
        let state = (rows, open, token.rows);
        Ok(futures::stream::try_unfold(state, |(mut rows, mut open, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let batch = match open.next().await {
                // An object that was opened has been replaced: its rows are to be found anew.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    open = rows.open(left).await?;
                    open.next().await?
                }
                outcome => outcome?,
            };
            let batch = rows.scanned(&batch, &open.name)?;
            let count = u64::try_from(batch.rows.num_rows()).unwrap_or(u64::MAX);
            let left = left.checked_sub(count).ok_or_else(|| open.short())?;
            rows.row += count;
            Ok(Some((batch, (rows, open, left))))
        })
        .boxed())
    }
}

/// These columns of a schema, in this order.
fn select<'a>(schema: &SchemaRef, columns: impl IntoIterator<Item = &'a String>) -> Result<SchemaRef> {
    let fields = columns.into_iter().map(|column| {
        schema.field_with_name(column).cloned().map_err(|_| {
            let known =
                schema.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
            Error::invalid(format!("there is no column `{column}`; there are {known}"))
        })
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// The fragments of one file that may hold wanted rows.
fn of_file(split: &SplitId, footer: &Footer, request: &ScanRequest) -> Result<Vec<Fragment>> {
    let mut fragments = Vec::new();
    let mut row: u64 = 0;
    for group in footer.arrow.metadata().row_groups() {
        let rows = u64::try_from(group.num_rows())
            .map_err(|_| error::corrupt("the file has a row group of less than no rows", &footer.entry.path))?;
        let first = row;
        row = row.saturating_add(rows);
        let time = request.time.as_ref().and_then(|time| times(footer, group, &time.column));
        let too_early = |from: Micros| time.is_some_and(|(_, latest)| latest < from);
        let too_late = |to: Micros| time.is_some_and(|(earliest, _)| earliest > to);
        let range = request.time.as_ref();
        if rows == 0
            || range.and_then(|range| range.from).is_some_and(too_early)
            || range.and_then(|range| range.to).is_some_and(too_late)
            || request.keys.as_ref().is_some_and(|keys| !may_hold(footer, group, keys))
        {
            continue;
        }
        let token = Token { after: footer.piece.after.to_string(), row: first, rows };
        let token = serde_json::to_vec(&token)
            .map_err(|error| Error::unexpected("a fragment's token as JSON").with_source(error))?;
        fragments.push(Fragment { split: split.clone(), rows: Some(rows), time, token: Bytes::from(token) });
    }
    Ok(fragments)
}

/// What is known of the values of a column that is no list, with its type.
fn statistics<'a>(
    footer: &'a Footer,
    group: &'a RowGroupMetaData,
    column: &str,
) -> Option<(&'a DataType, &'a Statistics)> {
    let data_type = footer.schema.field_with_name(column).ok()?.data_type();
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts() == [column])?;
    Some((data_type, chunk.statistics()?))
}

fn times(footer: &Footer, group: &RowGroupMetaData, column: &str) -> Option<(Micros, Micros)> {
    match statistics(footer, group, column)? {
        (DataType::Timestamp(TimeUnit::Microsecond, _), Statistics::Int64(times)) => {
            Some((*times.min_opt()?, *times.max_opt()?))
        }
        _ => None,
    }
}

/// Whether a row group may hold one of the asked keys. Text bounds may be cut short, outwards.
fn may_hold(footer: &Footer, group: &RowGroupMetaData, keys: &KeyRange) -> bool {
    let Some((data_type, statistics)) = statistics(footer, group, &keys.column) else { return true };
    match (data_type, statistics, &keys.values) {
        (DataType::Int8 | DataType::Int16 | DataType::Int32, Statistics::Int32(known), KeyBounds::Int(from, to)) => {
            known.min_opt().is_none_or(|least| i64::from(*least) <= *to)
                && known.max_opt().is_none_or(|greatest| i64::from(*greatest) >= *from)
        }
        (DataType::Int64, Statistics::Int64(known), KeyBounds::Int(from, to)) => {
            known.min_opt().is_none_or(|least| least <= to) && known.max_opt().is_none_or(|greatest| greatest >= from)
        }
        (DataType::Utf8, Statistics::ByteArray(known), KeyBounds::Text(from, to)) => {
            known.min_opt().is_none_or(|least| least.data() <= to.as_bytes())
                && known.max_opt().is_none_or(|greatest| greatest.data() >= from.as_bytes())
        }
        _ => true,
    }
}

/// Rows of a split from one row of one file on.
struct Rows {
    log: Log,
    split: SplitId,
    after: Position,
    row: u64,
    /// The columns that are given out.
    schema: SchemaRef,
}

/// Rows that are being read.
struct Open {
    name: String,
    batches: ParquetRecordBatchStream<Input>,
}

impl Rows {
    /// Finds `rows` rows where they are now.
    async fn open(&self, rows: u64) -> Result<Open> {
        let (mut after, mut row) = (self.after.clone(), self.row);
        let (input, footer) = loop {
            let path = self.log.file(&self.split, &after);
            let Some((input, footer)) = self.log.footers.open(&self.log.storage, &path).await? else {
                let message = "the file is not in the log any more";
                return Err(error::at(ErrorKind::NotFound, message, self.log.storage.describe(&path)));
            };
            match &footer.piece.moved {
                None => break (input, footer),
                // Always to an earlier file, so this ends.
                Some(moved) if moved.to < after => {
                    row = row.saturating_add(moved.row);
                    after = moved.to.clone();
                }
                Some(_) => return Err(error::corrupt("the file says that its rows moved to a later one", &input.name)),
            }
        };
        self.start(input, &footer, row, rows)
    }

    fn start(&self, input: Input, footer: &Footer, row: u64, rows: u64) -> Result<Open> {
        let name = input.name.clone();
        let damaged = || error::corrupt(format!("the file does not have {rows} rows from row {row} on"), &name);
        let last = row.checked_add(rows).ok_or_else(damaged)?;

        // Whole row groups, but for what a merged file holds beside the asked rows.
        let mut groups = Vec::new();
        let mut skipped = 0;
        let (mut start, mut taken) = (0_u64, 0);
        for (index, group) in footer.arrow.metadata().row_groups().iter().enumerate() {
            let length = u64::try_from(group.num_rows()).map_err(|_| damaged())?;
            let end = start.checked_add(length).ok_or_else(damaged)?;
            if end > row && start < last {
                if groups.is_empty() {
                    skipped = row - start;
                }
                groups.push(index);
                taken += length;
            }
            start = end;
        }
        if start < last {
            return Err(damaged());
        }
        let count = |rows: u64| usize::try_from(rows).map_err(|_| damaged());
        let wanted = self.schema.fields().iter().map(|field| field.name().as_str()).chain([LOG_POSITION]);
        let wanted: Vec<usize> = wanted.filter_map(|column| footer.schema.index_of(column).ok()).collect();
        let mask = ProjectionMask::roots(footer.arrow.metadata().file_metadata().schema_descr(), wanted);

        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(input, footer.arrow.clone())
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_row_groups(groups);
        if taken != rows {
            builder = builder.with_row_selection(RowSelection::from(vec![
                RowSelector::skip(count(skipped)?),
                RowSelector::select(count(rows)?),
                RowSelector::skip(count(taken - skipped - rows)?),
            ]));
        }
        let batches = builder.build().map_err(|error| error::decode(error, &name))?;
        Ok(Open { name, batches })
    }

    /// The rows as they are given out.
    fn scanned(&self, rows: &RecordBatch, name: &str) -> Result<ScanBatch> {
        let positions = rows
            .column_by_name(LOG_POSITION)
            .and_then(|column| column.as_binary_opt::<i32>())
            .filter(|positions| positions.null_count() == 0)
            .ok_or_else(|| error::corrupt(format!("the file has no column `{LOG_POSITION}` without nulls"), name))?
            .clone();
        let rows = widen(rows, &self.schema)
            .map_err(|error| error::corrupt("the file's columns do not fit the log's", name).with_source(error))?;
        Ok(ScanBatch { rows, positions: Positions::Each(positions) })
    }
}

impl Open {
    /// The next rows. Whatever the file's bytes are, this ends with rows or an error.
    async fn next(&mut self) -> Result<RecordBatch> {
        let next = std::panic::AssertUnwindSafe(self.batches.next());
        match futures::FutureExt::catch_unwind(next).await {
            Ok(Some(Ok(rows))) => Ok(rows),
            Ok(Some(Err(error))) => Err(error::decode(error, &self.name)),
            Ok(None) => Err(self.short()),
            Err(_) => Err(error::corrupt("the file is damaged", &self.name)),
        }
    }

    fn short(&self) -> Error {
        error::corrupt("the file does not have as many rows as its footer says", &self.name)
    }
}

#[cfg(test)]
mod tests;
