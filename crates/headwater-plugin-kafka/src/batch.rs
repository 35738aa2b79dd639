//! Records of one partition on their way to a batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Int32Array, Int64Builder, RecordBatch, TimestampMicrosecondBuilder};
use headwater_core::stream::{Lag, Payload, StreamBatch};
use headwater_core::{Position, SplitId};
use rdkafka::message::{BorrowedMessage, Message};

use crate::splits::partition;
use crate::stream::metadata_schema;

/// Gathers records as columns.
#[derive(Default)]
pub(crate) struct BatchBuilder {
    positions: BinaryBuilder,
    values: BinaryBuilder,
    timestamps: Vec<Option<i64>>,
    keys: BinaryBuilder,
    offsets: Int64Builder,
    last: Option<Position>,
}

impl BatchBuilder {
    /// Adds a record; gives its size.
    pub(crate) fn add(&mut self, message: &BorrowedMessage<'_>) -> usize {
        let Ok(offset) = u64::try_from(message.offset()) else { return 0 };
        let position = Position::from_u64(offset);
        self.positions.append_value(position.as_bytes());
        self.values.append_option(message.payload());
        self.timestamps.push(message.timestamp().to_millis().and_then(|millis| millis.checked_mul(1000)));
        self.keys.append_option(message.key());
        self.offsets.append_value(message.offset());
        self.last = Some(position);
        message.payload_len() + message.key_len() + 64
    }

    /// The batch of what was added since the last time, if anything was.
    pub(crate) fn finish(&mut self, split: SplitId) -> Option<StreamBatch> {
        let through = self.last.take()?;
        let mut timestamps = TimestampMicrosecondBuilder::with_capacity(self.timestamps.len()).with_timezone("UTC");
        for timestamp in self.timestamps.drain(..) {
            timestamps.append_option(timestamp);
        }
        let offsets = self.offsets.finish();
        let number = partition(&split).unwrap_or_default();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(timestamps.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(Int32Array::from_value(number, offsets.len())),
            Arc::new(offsets),
        ];
        Some(StreamBatch {
            split,
            payload: Payload::Encoded(self.values.finish()),
            positions: self.positions.finish(),
            // The columns were made by this schema, with one value for each record.
            metadata: RecordBatch::try_new(metadata_schema(), columns).ok(),
            through,
            lag: None,
        })
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
        }
    }
}
