//! The suite for [`StreamSource`] and [`StreamReader`](headwater_core::StreamReader).

mod delivery;
mod records;
mod restarts;
mod splits;
mod worker;

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::stream::{Payload, StreamBatch, StreamSource};
use headwater_core::{Error, Result, SplitId};

use crate::Clause;
use crate::clause::suite;

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

    /// How many records of the stream have been handed out to its readers since it was made, those that were handed out
    /// again counted again: what its server has sent. `None` (as this default) where the fixture cannot see that.
    fn handed_out(&self, stream: &Self::Stream) -> Option<usize> {
        let _ = stream;
        None
    }

    /// How many bytes of records may be handed out and be with no reader yet: what is on its way, and waits in sockets.
    /// Of no use without [`StreamFixture::handed_out`].
    fn on_the_way(&self) -> usize {
        0
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
///
/// What a reader has read ahead while nobody asks it cannot be seen from its side: there the suite checks of
/// `buffer_bytes` that no batch is larger. What it holds is seen where the fixture counts what the stream has handed
/// out, [`StreamFixture::handed_out`]; a plugin whose fixture cannot shows it in a test of its own.
pub fn suite(fixture: impl StreamFixture) -> Vec<Clause> {
    suite! { fixture;
        "stream::identity-is-stable" restarts::identity,
            "Two configurations with equal identity read the same records;";
        "stream::batches-are-as-declared" delivery::as_declared,
            "What the source knows of each record beside its value, as [`StreamCapabilities::metadata`] declares it.";
        "stream::stored-times-come-along" delivery::stored_times,
            "The metadata column that holds the time stored with the record:";
        "stream::discovers-splits-and-ends" restarts::discover,
            "The position of its newest record at this moment;";
        "stream::discovers-empty-splits" restarts::discover_empty,
            "[`Position::START`] while it is empty;";
        "stream::assigned-first" delivery::assigned_first,
            "*assigned first*: a split's batches come after its `Assigned` and before its `Revoked` or `SplitEnded`;";
        "stream::order" delivery::order,
            "*order*: positions ascend strictly inside a split, over all batches of one assignment;";
        "stream::completeness" delivery::completeness,
            "*completeness*: no record between [`AssignedSplit::resume`] and [`StreamBatch::through`] is missing;";
        "stream::through-covers-its-records" delivery::through,
            "Everything in the split up to and including this position has been delivered.";
        "stream::batch-records-is-the-most" delivery::batch_records,
            "The most records in a batch.";
        "stream::buffer-bytes-is-the-most" delivery::buffer_bytes,
            "The most that the reader may hold ready in memory, in bytes. One record may exceed it alone.";
        "stream::stalled-holds-its-buffer-at-the-most" delivery::stalled,
            "and holds no more than [`ReaderContext::buffer_bytes`] meanwhile.";
        "stream::cancel-safety" delivery::cancel,
            "*cancel safety*: dropping the future loses nothing; the event comes with the next call.";
        "stream::lag-counts-down" delivery::lag,
            "How far behind the end of a split its reader was when it read.";
        "stream::waits-for-records" delivery::waits,
            "The next event, waiting for it;";
        "stream::finishes-when-all-is-delivered" delivery::finishes_when_delivered,
            "A reader finishes (its `next` returns `None`) once it has delivered what there is.";
        "stream::finished-for-ever" delivery::finished_for_ever,
            "`None` when a bounded stream is finished, and ever after.";
        "stream::restart-at-every-event" restarts::every_event,
            "after a crash a reader starts again behind the last checkpoint.";
        "stream::resumes-behind-every-record" restarts::every_record,
            "Where it will be read on: after this position.";
        "stream::resumes-at-the-end" restarts::at_the_end,
            "Where it will be read on: after this position.";
        "stream::positions-are-stable" restarts::stable_positions,
            "Every record carries the same split and position each time it is delivered,";
        "stream::uncommitted-comes-again" restarts::uncommitted,
            "What was read and not committed will be read again.";
        "stream::later-run-reads-what-was-added" restarts::later_run,
            "after a crash a reader starts again behind the last checkpoint.";
        "stream::start-earliest" restarts::earliest,
            "At the oldest record.";
        "stream::start-latest-loses-nothing" restarts::latest,
            "so that `latest` loses nothing when the job dies early.";
        "stream::start-at-a-time" restarts::start_at,
            "At the first record stored at this time or later.";
        "stream::new-split-begins-at-its-beginning" restarts::new_split,
            "A split that appears later begins at its beginning.";
        "stream::ended-after-all-records" splits::ended_after_all_records,
            "All records of a closed split have been delivered.";
        "stream::parents-first" splits::parents_first,
            "*parents first*: a split is not handed out before `End` of all its parents is committed, or they are gone;";
        "stream::children-are-read" splits::children_complete,
            "All of it, and it is closed: its children may be read.";
        "stream::ended-once" splits::ended_once,
            "*ended once*: a split whose [`Progress::End`] is checkpointed is not handed out again;";
        "stream::closed-splits-are-said" splits::closed_is_said,
            "No record will be added to it.";
        "stream::foreign-commits-are-ignored" splits::foreign_commits,
            "Commits for splits that are not this reader's (any more) are ignored.";
        "stream::readers-share-splits" splits::shared,
            "Several readers of one group share the splits.";
        "stream::revoked-when-acknowledged" splits::slow_sink,
            "The next call of `next` acknowledges.";
        "stream::random-lives" restarts::random,
            "Every record carries the same split and position each time it is delivered, and that is all the engine needs to count it once.";
    }
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
