//! The suite for [`StreamSource`](headwater_core::StreamSource) and [`StreamReader`](headwater_core::StreamReader).

mod records;

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::stream::{Payload, StreamBatch, StreamSource};
use headwater_core::{Error, Result, SplitId};

use crate::Clause;

pub use records::Record;

/// How to make a stream and move it along.
///
/// The suite's records carry a number, counted from 1 in each split, by which it tells them apart; a time; and padding.
/// [`Record::json`] and [`Record::rows`] encode them. Splits go by their index in order of creation.
#[async_trait]
pub trait StreamFixture: Send + Sync + 'static {
    /// A stream: what outlives a source. Dropping it removes it.
    type Stream: Send + Sync + 'static;

    /// A fresh stream with this many open splits without records.
    ///
    /// # Errors
    /// `Unsupported` where the stream cannot have so many.
    async fn create(&self, splits: usize) -> Result<Self::Stream>;

    /// Opens the stream as a process would that finds it. Called again and again, also while an earlier source is
    /// still open, as by a second process.
    async fn open(&self, stream: &Self::Stream, context: &OpenContext) -> Result<Arc<dyn StreamSource>>;

    /// The name of the split.
    fn split(&self, stream: &Self::Stream, index: usize) -> SplitId;

    /// Appends records to a split. When this returns they can be read.
    ///
    /// # Errors
    /// `Unsupported` where the split cannot take (any more) records: a Parquet file that is there already.
    async fn produce(&self, stream: &Self::Stream, split: usize, records: &[Record]) -> Result<()>;

    /// Adds an open split without parents and gives its index.
    ///
    /// # Errors
    /// `Unsupported` (as this default) where splits cannot be added.
    async fn add_split(&self, stream: &Self::Stream) -> Result<usize> {
        let _ = stream;
        Err(Error::unsupported("splits cannot be added to the stream"))
    }

    /// Closes a split: no record will be added to it. Gives the indices of its children.
    ///
    /// # Errors
    /// `Unsupported` (as this default) where splits do not end.
    async fn end_split(&self, stream: &Self::Stream, split: usize) -> Result<Vec<usize>> {
        let _ = (stream, split);
        Err(Error::unsupported("splits of the stream do not end"))
    }

    /// Whether the stream stores [`Record::time`] with the record, so that reading can start at a time.
    fn stores_times(&self) -> bool {
        false
    }

    /// The numbers of the records in a batch. As it stands it reads what [`Record::json`] and [`Record::rows`] wrote.
    ///
    /// # Errors
    /// `Data` where the batch holds something else.
    fn numbers(&self, batch: &StreamBatch) -> Result<Vec<i64>> {
        match &batch.payload {
            Payload::Encoded(values) => values.iter().map(records::number_of).collect(),
            Payload::Rows(rows) => {
                let column = rows.column_by_name("number").ok_or_else(|| Error::data("no column `number`"))?;
                let numbers = cast(column, &DataType::Int64)?;
                let numbers = numbers.as_primitive::<Int64Type>();
                if numbers.null_count() > 0 {
                    return Err(Error::data("a null in the column `number`"));
                }
                Ok(numbers.values().to_vec())
            }
        }
    }
}

/// The clauses of [`StreamSource`]'s and [`StreamReader`](headwater_core::StreamReader)'s contracts.
pub fn suite(fixture: impl StreamFixture) -> Vec<Clause> {
    let _ = fixture;
    Vec::new()
}

/// What a stream source's factory is given: the records' time column and encoding.
pub fn stream_context(clock: Arc<dyn headwater_core::Clock>) -> OpenContext {
    let source = SourceContext {
        timestamp_field: "event_timestamp".into(),
        created_timestamp_column: None,
        record_format: Some("json".into()),
    };
    OpenContext { source: Some(source), ..crate::context(clock) }
}
