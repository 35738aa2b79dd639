//! Dead letters: the log of records that could not be used.
//!
//! Each view has its own log of them, which chains by position as the view's log does. So a record stands in it once,
//! however often it is read, and a checkpoint passes a record only when its dead letter is durable.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use futures::TryStreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::definitions::timestamp_type;
use headwater_core::offline::{LOG_POSITION, LOG_SPLIT, LogId};
use headwater_core::stream::{Payload, StreamBatch};
use headwater_core::{Error, Micros, OfflineStore, Position, Result, SplitId};

use crate::view::View;

/// The first part of the names of dead letter logs.
pub(crate) const DEAD_LETTERS: &str = "_dead_letters";

/// The record as the source delivered it.
const RECORD: &str = "record";
/// A record without a value.
const TOMBSTONE: &str = "tombstone";
/// The row as an Arrow stream of one batch, for sources that deliver columns.
const ARROW: &str = "arrow";

/// A record that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The source it was read from.
    pub source: String,
    /// The view that could not use it.
    pub view: String,
    /// The generation of that view.
    pub generation: String,
    /// The split it was read from.
    pub split: SplitId,
    /// Its position there.
    pub position: Position,
    /// What is wrong with it.
    pub reason: String,
    /// When it was put aside.
    pub time: Micros,
    /// Its bytes.
    pub(crate) raw: Vec<u8>,
    /// What the bytes are.
    pub(crate) format: String,
    /// What the source knew of it beside its value: an Arrow stream of one batch, or nothing.
    pub(crate) metadata: Vec<u8>,
}

impl DeadLetter {
    /// The record for people: as text where it is text, the values of a row, else bytes in hexadecimal.
    pub fn record(&self) -> String {
        if self.format == ARROW {
            return match unpack(&self.raw) {
                Ok(rows) => {
                    let schema = rows.schema();
                    let values = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
                        let value = crate::cast::show(column, 0);
                        format!("{}: {value}", field.name())
                    });
                    format!("{{{}}}", values.collect::<Vec<_>>().join(", "))
                }
                Err(error) => error.to_string(),
            };
        }
        if self.format == TOMBSTONE {
            return "(no value)".to_owned();
        }
        match std::str::from_utf8(&self.raw) {
            Ok(text) => text.to_owned(),
            Err(_) => Position::new(self.raw.clone()).to_string(),
        }
    }

    /// What it takes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.raw.len() + self.metadata.len() + 256
    }

    /// The record as a source would deliver it.
    pub(super) fn payload(&self) -> Result<Payload> {
        match self.format.as_str() {
            RECORD => Ok(Payload::Encoded(BinaryArray::from(vec![self.raw.as_slice()]))),
            TOMBSTONE => Ok(Payload::Encoded(BinaryArray::new_null(1))),
            ARROW => Ok(Payload::Rows(unpack(&self.raw)?)),
            other => Err(Error::corrupt(format!("a dead letter has the unknown format `{other}`"))),
        }
    }

    /// Its metadata as a source would deliver it.
    pub(super) fn metadata(&self) -> Result<Option<RecordBatch>> {
        if self.metadata.is_empty() { Ok(None) } else { unpack(&self.metadata).map(Some) }
    }
}

/// Makes dead letters of the records of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undertaker<'a> {
    pub(super) source: &'a str,
    pub(super) view: &'a View,
    pub(super) batch: &'a StreamBatch,
    pub(super) now: Micros,
}

impl Undertaker<'_> {
    /// The dead letter of record `record`.
    pub(super) fn bury(&self, record: usize, reason: &str) -> Result<DeadLetter> {
        let (raw, format) = match &self.batch.payload {
            Payload::Encoded(records) if records.is_null(record) => (Vec::new(), TOMBSTONE),
            Payload::Encoded(records) => (records.value(record).to_vec(), RECORD),
            Payload::Rows(rows) => (pack(&rows.slice(record, 1))?, ARROW),
        };
        let metadata = match &self.batch.metadata {
            Some(metadata) => pack(&metadata.slice(record, 1))?,
            None => Vec::new(),
        };
        Ok(DeadLetter {
            source: self.source.to_owned(),
            view: self.view.name.clone(),
            generation: self.view.generation.clone(),
            split: self.batch.split.clone(),
            position: Position::new(self.batch.positions.value(record).to_vec()),
            reason: reason.to_owned(),
            time: self.now,
            raw,
            format: format.to_owned(),
            metadata,
        })
    }
}

fn pack(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut writer = StreamWriter::try_new(&mut out, &rows.schema())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(out)
}

fn unpack(bytes: &[u8]) -> Result<RecordBatch> {
    let damaged = || Error::corrupt("the row of a dead letter cannot be read");
    let mut reader = StreamReader::try_new(bytes, None).map_err(|error| damaged().with_source(error))?;
    reader.next().ok_or_else(damaged)?.map_err(|error| damaged().with_source(error))
}

/// The log of a view's dead letters.
pub(super) fn log_of(view: &View) -> LogId {
    LogId { view: DEAD_LETTERS.into(), generation: format!("{}-{}", view.name, view.generation) }
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let bytes = |name: &str| Field::new(name, DataType::Binary, false);
    Arc::new(Schema::new(vec![
        text("source"),
        text("view"),
        text("generation"),
        text("reason"),
        Field::new("time", timestamp_type(), false),
        text("format"),
        bytes("record"),
        bytes("metadata"),
        text(LOG_SPLIT),
        bytes(LOG_POSITION),
    ]))
}

/// Dead letters as rows of their log.
pub(super) fn to_rows(letters: &[DeadLetter]) -> Result<RecordBatch> {
    let text = |get: &dyn Fn(&DeadLetter) -> String| -> ArrayRef {
        Arc::new(letters.iter().map(|letter| Some(get(letter))).collect::<StringArray>())
    };
    let bytes = |get: &dyn Fn(&DeadLetter) -> Vec<u8>| -> ArrayRef {
        Arc::new(letters.iter().map(|letter| Some(get(letter))).collect::<BinaryArray>())
    };
    let times = TimestampMicrosecondArray::from_iter_values(letters.iter().map(|letter| letter.time));
    let columns = vec![
        text(&|letter| letter.source.clone()),
        text(&|letter| letter.view.clone()),
        text(&|letter| letter.generation.clone()),
        text(&|letter| letter.reason.clone()),
        Arc::new(times.with_timezone("UTC")),
        text(&|letter| letter.format.clone()),
        bytes(&|letter| letter.raw.clone()),
        bytes(&|letter| letter.metadata.clone()),
        text(&|letter| letter.split.to_string()),
        bytes(&|letter| letter.position.as_bytes().to_vec()),
    ];
    let options = RecordBatchOptions::new().with_row_count(Some(letters.len()));
    Ok(RecordBatch::try_new_with_options(schema(), columns, &options)?)
}

fn from_rows(rows: &RecordBatch, out: &mut Vec<DeadLetter>) -> Result<()> {
    let column = |name: &str| {
        rows.column_by_name(name).ok_or_else(|| Error::corrupt(format!("the dead letters have no column `{name}`")))
    };
    let plain = |name: &str, to: &DataType| Ok::<_, Error>(crate::cast::cast(column(name)?, to, None)?.array);
    let text = |name: &str| plain(name, &DataType::Utf8);
    let bytes = |name: &str| plain(name, &DataType::Binary);
    let (source, view, generation) = (text("source")?, text("view")?, text("generation")?);
    let (reason, format, split) = (text("reason")?, text("format")?, text(LOG_SPLIT)?);
    let (raw, metadata, position) = (bytes("record")?, bytes("metadata")?, bytes(LOG_POSITION)?);
    let time = plain("time", &timestamp_type())?;
    for row in 0..rows.num_rows() {
        out.push(DeadLetter {
            source: source.as_string::<i32>().value(row).to_owned(),
            view: view.as_string::<i32>().value(row).to_owned(),
            generation: generation.as_string::<i32>().value(row).to_owned(),
            split: split.as_string::<i32>().value(row).parse()?,
            position: Position::new(position.as_binary::<i32>().value(row).to_vec()),
            reason: reason.as_string::<i32>().value(row).to_owned(),
            time: time.as_primitive::<TimestampMicrosecondType>().value(row),
            raw: raw.as_binary::<i32>().value(row).to_vec(),
            format: format.as_string::<i32>().value(row).to_owned(),
            metadata: metadata.as_binary::<i32>().value(row).to_vec(),
        });
    }
    Ok(())
}

/// All dead letters of the project, in order of view, generation, split and position.
///
/// # Errors
/// The offline store's; `Corrupt` for rows that are no dead letters.
pub(super) async fn read_all(offline: &dyn OfflineStore) -> Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    for log in offline.logs().await? {
        if log.view != DEAD_LETTERS {
            continue;
        }
        let table = offline.log(&log);
        let request = ScanRequest::default();
        for fragment in table.fragments(&request).await? {
            let mut batches = table.read(&fragment, &request).await?;
            while let Some(batch) = batches.try_next().await? {
                from_rows(&batch.rows, &mut letters)?;
            }
        }
    }
    letters.sort_by(|a, b| {
        (&a.view, &a.generation, &a.split, &a.position).cmp(&(&b.view, &b.generation, &b.split, &b.position))
    });
    Ok(letters)
}
