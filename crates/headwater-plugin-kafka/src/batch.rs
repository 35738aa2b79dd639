//! Records of one partition on their way to a batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, MapBuilder, RecordBatch, StringBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use headwater_core::definitions::timestamp_type;
use headwater_core::stream::{Lag, METADATA_KEY, METADATA_TIMESTAMP, Payload, StreamBatch};
use headwater_core::{Position, SplitId};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::mark::Mark;
use crate::splits::partition;

/// The columns that a transform sees beside the record's own.
pub(crate) fn metadata_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(METADATA_TIMESTAMP, timestamp_type(), true),
        Field::new(METADATA_KEY, DataType::Binary, true),
        Field::new("__partition", DataType::Int32, false),
        Field::new("__offset", DataType::Int64, false),
        Field::new("__headers", headers_type(), true),
    ]))
}

/// A map from a header's name to its bytes, in the order of the record. Null where a record has no headers.
fn headers_type() -> DataType {
    let entry =
        Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Binary, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false)
}

/// Gathers records as columns.
#[derive(Default)]
pub(crate) struct BatchBuilder {
    values: BinaryBuilder,
    timestamps: Vec<Option<i64>>,
    keys: BinaryBuilder,
    offsets: Vec<i64>,
    /// Made when the first record with headers comes: most topics have none.
    headers: Option<MapBuilder<StringBuilder, BinaryBuilder>>,
}

impl BatchBuilder {
    /// Adds a record; gives its size.
    pub(crate) fn add(&mut self, message: &BorrowedMessage<'_>) -> usize {
        let mut bytes = message.payload_len() + message.key_len() + 64;
        if let Some(headers) = message.headers() {
            bytes += self.add_headers(message, headers);
        } else if let Some(column) = &mut self.headers {
            // Keys and values are as long as each other, so this cannot fail.
            let _ = column.append(false);
        }
        self.values.append_option(message.payload());
        self.timestamps.push(message.timestamp().to_millis().and_then(|millis| millis.checked_mul(1000)));
        self.keys.append_option(message.key());
        self.offsets.push(message.offset());
        bytes
    }

    fn add_headers(&mut self, message: &BorrowedMessage<'_>, headers: &impl Headers) -> usize {
        let before = self.offsets.len();
        let column = self.headers.get_or_insert_with(|| {
            let mut column = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
            for _ in 0..before {
                let _ = column.append(false);
            }
            column
        });
        let mut bytes = 0;
        for at in 0..headers.count() {
            // rdkafka takes it for granted that a name is UTF-8, and panics otherwise. One such header must not keep the
            // partition from being read for ever: it is left out.
            match catch_unwind(AssertUnwindSafe(|| headers.try_get(at))) {
                Ok(Some(header)) => {
                    column.keys().append_value(header.key);
                    column.values().append_option(header.value);
                    bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
                }
                Ok(None) => {}
                Err(_) => {
                    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                    tracing::warn!(topic, partition, offset, "a header whose name is no UTF-8 was left out");
                }
            }
        }
        let _ = column.append(true);
        bytes
    }

    /// The batch of what was added since the last time, if anything was, and the mark of its last record.
    pub(crate) fn finish(&mut self, split: SplitId) -> Option<(StreamBatch, Mark)> {
        let rows = self.offsets.len();
        let last = *self.offsets.last()?;
        let positions: Vec<[u8; 8]> = self.offsets.iter().map(|offset| offset.to_be_bytes()).collect();
        let timestamps = std::mem::take(&mut self.timestamps);
        let (mut keys, mut values) = (self.keys.finish(), self.values.finish());
        // Builders double what they have. A batch that waits counts with all that it keeps.
        keys.shrink_to_fit();
        values.shrink_to_fit();
        let mark = Mark::new(last, timestamps.last().copied().flatten(), at(&keys, rows - 1), at(&values, rows - 1));
        let headers: ArrayRef = match self.headers.take() {
            Some(mut headers) => Arc::new(headers.finish()),
            None => new_null_array(&headers_type(), rows),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(timestamps).with_timezone("UTC")),
            Arc::new(keys),
            Arc::new(Int32Array::from_value(partition(&split).unwrap_or_default(), rows)),
            Arc::new(Int64Array::from(std::mem::take(&mut self.offsets))),
            headers,
        ];
        let batch = StreamBatch {
            split,
            payload: Payload::Encoded(values),
            positions: BinaryArray::from_iter_values(positions),
            // The columns were made by this schema, with one value for each record.
            metadata: RecordBatch::try_new(metadata_schema(), columns).ok(),
            through: crate::splits::before(last + 1),
            lag: None,
            lost: false,
        };
        Some((batch, mark))
    }

    /// A batch without records, to step over what no reader sees.
    pub(crate) fn empty(split: SplitId, through: Position, lag: Option<Lag>) -> StreamBatch {
        let none = || BinaryBuilder::new().finish();
        StreamBatch {
            split,
            payload: Payload::Encoded(none()),
            positions: none(),
            metadata: Some(RecordBatch::new_empty(metadata_schema())),
            through,
            lag,
            lost: false,
        }
    }
}

fn at(values: &BinaryArray, row: usize) -> Option<&[u8]> {
    values.is_valid(row).then(|| values.value(row))
}
