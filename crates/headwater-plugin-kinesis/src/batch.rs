//! Records of one shard on their way to a batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Int64Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use headwater_core::definitions::timestamp_type;
use headwater_core::stream::{Lag, METADATA_KEY, METADATA_TIMESTAMP, Payload, StreamBatch};
use headwater_core::{Micros, Position, SplitId};

/// The columns that a transform sees beside the record's own.
pub(crate) fn metadata_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(METADATA_TIMESTAMP, timestamp_type(), true),
        Field::new(METADATA_KEY, DataType::Binary, true),
        Field::new("__shard_id", DataType::Utf8, false),
        Field::new("__sequence_number", DataType::Utf8, false),
        Field::new("__sub_sequence_number", DataType::Int64, true),
    ]))
}

/// A record as the engine will see it.
pub(crate) struct Row<'a> {
    pub(crate) position: Position,
    pub(crate) value: &'a [u8],
    pub(crate) key: Option<&'a str>,
    pub(crate) arrival: Option<Micros>,
    pub(crate) sequence: &'a str,
    pub(crate) sub_sequence: Option<u32>,
}

impl Row<'_> {
    /// What it will take in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.value.len() + self.key.map_or(0, str::len) + self.sequence.len() + 96
    }
}

/// Gathers records as columns.
#[derive(Default)]
pub(crate) struct BatchBuilder {
    positions: BinaryBuilder,
    values: BinaryBuilder,
    timestamps: Vec<Option<Micros>>,
    keys: BinaryBuilder,
    sequences: StringBuilder,
    sub_sequences: Int64Builder,
}

impl BatchBuilder {
    pub(crate) fn add(&mut self, row: &Row<'_>) {
        self.positions.append_value(row.position.as_bytes());
        self.values.append_value(row.value);
        self.timestamps.push(row.arrival);
        self.keys.append_option(row.key);
        self.sequences.append_value(row.sequence);
        self.sub_sequences.append_option(row.sub_sequence.map(i64::from));
    }

    pub(crate) fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// The batch of what was added since the last time.
    pub(crate) fn finish(&mut self, shard: &str, through: Position, lag: Option<Lag>) -> StreamBatch {
        let mut timestamps = TimestampMicrosecondBuilder::with_capacity(self.timestamps.len()).with_timezone("UTC");
        for timestamp in self.timestamps.drain(..) {
            timestamps.append_option(timestamp);
        }
        let positions = self.positions.finish();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(timestamps.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(shard, positions.len()))),
            Arc::new(self.sequences.finish()),
            Arc::new(self.sub_sequences.finish()),
        ];
        StreamBatch {
            split: SplitId::from(shard),
            payload: Payload::Encoded(self.values.finish()),
            positions,
            // The columns were made by this schema, with one value for each record.
            metadata: RecordBatch::try_new(metadata_schema(), columns).ok(),
            through,
            lag,
            lost: false,
        }
    }
}
