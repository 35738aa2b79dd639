//! Records that the suite produces and recognises.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use headwater_core::definitions::timestamp_type;
use headwater_core::{Error, Micros, Result};

use crate::rows::time_of;

/// A record of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What tells it from the others of its split.
    pub number: i64,
    /// When it happened, and the time to be stored with it where the stream stores one.
    pub time: Micros,
    /// How many bytes to fill it up with.
    pub padding: usize,
}

impl Record {
    /// The record of this number, one second after the last.
    pub fn new(number: i64) -> Self {
        Self { number, time: time_of(number), padding: 0 }
    }

    /// The record as one line of JSON: `number`, `event_timestamp` (microseconds), `padding`.
    pub fn json(&self) -> String {
        format!(
            r#"{{"number":{},"event_timestamp":{},"padding":"{}"}}"#,
            self.number,
            self.time,
            "x".repeat(self.padding)
        )
    }

    /// Records as columns: `number`, `event_timestamp`, `padding`.
    ///
    /// # Errors
    /// Arrow's.
    pub fn rows(records: &[Self]) -> Result<RecordBatch> {
        let times = records.iter().map(|record| record.time);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(records.iter().map(|record| record.number).collect::<Int64Array>()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
            Arc::new(records.iter().map(|record| Some("x".repeat(record.padding))).collect::<StringArray>()),
        ];
        let schema = Schema::new(vec![
            Field::new("number", DataType::Int64, false),
            Field::new("event_timestamp", timestamp_type(), false),
            Field::new("padding", DataType::Utf8, false),
        ]);
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
    }
}

/// The number in what [`Record::json`] wrote.
pub(super) fn number_of(value: Option<&[u8]>) -> Result<i64> {
    let value = value.ok_or_else(|| Error::data("a null where a record should be"))?;
    serde_json::from_slice::<serde_json::Value>(value)
        .ok()
        .and_then(|record| record.get("number")?.as_i64())
        .ok_or_else(|| Error::data(format!("`{}` is no record of the suite", String::from_utf8_lossy(value))))
}
