//! Entity rows: who is asked for, and when.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use headwater_core::definitions::timestamp_type;
use headwater_core::{Error, Micros, Result};

use crate::cast::cast;

/// The column that holds the event time where there is one of this name.
const EVENT_TIMESTAMP: &str = "event_timestamp";

/// Rows of any shape that have an event time: the rows of the training set to be.
#[derive(Debug, Clone)]
pub struct EntityRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    times: Vec<Micros>,
    event_time: String,
}

impl EntityRows {
    /// Rows whose event time is in the column `event_timestamp`, or else in their only timestamp column.
    ///
    /// The event time may be a timestamp of any unit and time zone (one without a zone is UTC), a date (its midnight), or
    /// text in RFC 3339. All batches have `schema`.
    ///
    /// # Errors
    /// `Invalid` where there is no such column, or several timestamp columns and none of that name, or a batch has
    /// other columns. `Data` where an event time is null or no time; the message names the row, counted from 1.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let name = event_time_column(&schema)?;
        Self::with_event_time(schema, batches, &name)
    }

    /// Rows whose event time is in the column `event_time`.
    ///
    /// # Errors
    /// As [`EntityRows::new`].
    pub fn with_event_time(schema: SchemaRef, batches: Vec<RecordBatch>, event_time: &str) -> Result<Self> {
        let column = schema.index_of(event_time).map_err(|_| {
            Error::invalid(format!("the entity rows have no column `{event_time}`; there are {}", names(&schema)))
        })?;
        let mut times: Vec<Micros> = Vec::new();
        for batch in &batches {
            if batch.schema().fields() != schema.fields() {
                return Err(Error::invalid(format!(
                    "the batches of the entity rows differ: one has the columns {}, another {}",
                    names(&schema),
                    names(&batch.schema())
                )));
            }
            let casted = cast(batch.column(column), &timestamp_type(), None)?;
            if let Some(failure) = casted.failures.first() {
                return Err(Error::data(format!(
                    "event time `{event_time}` of entity row {}: {}",
                    times.len() + failure.row + 1,
                    failure.reason
                )));
            }
            let values = casted.array.as_primitive::<TimestampMicrosecondType>();
            if let Some(row) = (0..values.len()).find(|row| values.is_null(*row)) {
                return Err(Error::data(format!(
                    "event time `{event_time}` of entity row {} is null",
                    times.len() + row + 1
                )));
            }
            times.extend_from_slice(values.values());
        }
        if u32::try_from(times.len()).is_err() {
            return Err(Error::invalid(format!(
                "{} entity rows are more than one join takes ({}); split them",
                times.len(),
                u32::MAX
            )));
        }
        Ok(Self { schema, batches, times, event_time: event_time.to_owned() })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The column with the event time.
    pub fn event_time(&self) -> &str {
        &self.event_time
    }

    /// The rows.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The event time of every row.
    pub(super) fn times(&self) -> &[Micros] {
        &self.times
    }
}

fn event_time_column(schema: &SchemaRef) -> Result<String> {
    if schema.index_of(EVENT_TIMESTAMP).is_ok() {
        return Ok(EVENT_TIMESTAMP.into());
    }
    let found: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| matches!(field.data_type(), DataType::Timestamp(..)))
        .map(|field| field.name().as_str())
        .collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Error::invalid(format!(
            "the entity rows have no event time: no column `{EVENT_TIMESTAMP}` and no timestamp column among {}",
            names(schema)
        ))),
        several => Err(Error::invalid(format!(
            "which column of the entity rows is their event time? there are {}; call it `{EVENT_TIMESTAMP}`",
            several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The names of the columns, for messages.
pub(super) fn names(schema: &SchemaRef) -> String {
    let names: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
