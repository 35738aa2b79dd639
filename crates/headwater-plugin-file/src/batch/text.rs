//! CSV and NDJSON: guessed columns, decoded in one pass.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::reader::Format;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use headwater_core::Result;
use headwater_core::batch::{Positions, ScanBatch, ScanStream};
use object_store::{ObjectStore, ObjectStoreExt};

use super::location::Object;
use super::snapshot::{Snapshot, TableFile};
use crate::config::BatchFormat;
use crate::error;
use crate::union::Alignment;

/// How much of a file is looked at to guess its columns.
const HEAD_BYTES: u64 = 4 << 20;
/// How much is fetched at once.
const FETCH_BYTES: u64 = 4 << 20;
const BATCH_ROWS: usize = 8192;

/// Guesses the columns of a file from its first 4 MiB.
///
/// # Errors
/// `Data` where it is not of the format.
pub(super) async fn infer(
    store: &Arc<dyn ObjectStore>,
    object: &Object,
    format: BatchFormat,
    delimiter: u8,
) -> Result<SchemaRef> {
    if object.size == 0 {
        return Ok(Arc::new(Schema::empty()));
    }
    let end = object.size.min(HEAD_BYTES);
    let head = store.get_range(&object.path, 0..end).await.map_err(|e| error::store(e, &object.shown))?;
    // A line that is cut off would be taken for a value of its own.
    let whole = match head.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) if end < object.size => head.slice(..=newline),
        _ => head,
    };
    let reader = Cursor::new(whole);
    let schema = match format {
        BatchFormat::Csv => Format::default()
            .with_header(true)
            .with_delimiter(delimiter)
            // The end of the head may lie in the midst of a quoted field with newlines.
            .with_truncated_rows(end < object.size)
            .infer_schema(reader, None)
            .map(|(schema, _)| schema),
        BatchFormat::Ndjson | BatchFormat::Parquet => infer_json_schema(reader, None).map(|(schema, _)| schema),
    };
    schema.map(Arc::new).map_err(|e| error::decode(e, &object.shown))
}

enum Decoder {
    Csv(Box<arrow::csv::reader::Decoder>),
    Json(Box<arrow::json::reader::Decoder>),
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.decode(bytes),
            Self::Json(decoder) => decoder.decode(bytes),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::Csv(decoder) => decoder.flush(),
            Self::Json(decoder) => decoder.flush(),
        }
    }
}

struct Reading {
    store: Arc<dyn ObjectStore>,
    object: Object,
    decoder: Decoder,
    alignment: Alignment,
    /// Fetched, and not yet decoded.
    bytes: Bytes,
    /// How far the file has been fetched.
    offset: u64,
    /// The number of the next row.
    next: u64,
}

/// Reads one file, decoding only the columns that are asked for.
pub(super) fn read(
    snapshot: &Snapshot,
    file: &TableFile,
    columns: &SchemaRef,
    alignment: Alignment,
    delimiter: u8,
) -> Result<ScanStream> {
    let shown = &file.object.shown;
    let decoder = match snapshot.format {
        BatchFormat::Csv => Decoder::Csv(Box::new(
            arrow::csv::ReaderBuilder::new(Arc::clone(columns))
                .with_header(true)
                .with_delimiter(delimiter)
                .with_batch_size(BATCH_ROWS)
                .with_projection(alignment.decode().to_vec())
                .build_decoder(),
        )),
        BatchFormat::Ndjson | BatchFormat::Parquet => {
            let fields: Vec<FieldRef> =
                alignment.decode().iter().filter_map(|index| columns.fields().get(*index).cloned()).collect();
            arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields)))
                .with_batch_size(BATCH_ROWS)
                .with_coerce_primitive(true)
                .build_decoder()
                .map(|decoder| Decoder::Json(Box::new(decoder)))
                .map_err(|e| error::decode(e, shown))?
        }
    };
    let reading = Reading {
        store: Arc::clone(&snapshot.store),
        object: file.object.clone(),
        decoder,
        alignment,
        bytes: Bytes::new(),
        offset: 0,
        next: 1,
    };
    let batches = futures::stream::try_unfold(reading, |mut reading| async move {
        let batch = reading.next_batch().await?;
        Ok(batch.map(|batch| (batch, reading)))
    });
    Ok(batches.boxed())
}

impl Reading {
    async fn next_batch(&mut self) -> Result<Option<ScanBatch>> {
        loop {
            if self.bytes.is_empty() && self.offset < self.object.size {
                let end = self.object.size.min(self.offset + FETCH_BYTES);
                let fetched = self.store.get_range(&self.object.path, self.offset..end).await;
                self.bytes = fetched.map_err(|e| error::store(e, &self.object.shown))?;
                self.offset = end;
            }
            let used = self.decoder.decode(&self.bytes).map_err(|e| error::decode(e, &self.object.shown))?;
            self.bytes.advance(used);
            if used > 0 {
                continue;
            }
            // The batch is full, or the file has been decoded to its end.
            let batch = self.decoder.flush().map_err(|e| error::decode(e, &self.object.shown))?;
            let Some(batch) = batch else { return Ok(None) };
            let rows = self.alignment.apply(&batch)?;
            let first = self.next;
            self.next += rows.num_rows() as u64;
            return Ok(Some(ScanBatch { rows, positions: Positions::Consecutive(first) }));
        }
    }
}
