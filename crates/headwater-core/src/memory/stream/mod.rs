//! The reference of [`StreamSource`].

mod reader;
mod state;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;

use super::lock;
use crate::definitions::timestamp_type;
use crate::error::{Error, Result};
use crate::position::{Position, SplitId};
use crate::stream::{
    METADATA_KEY, METADATA_TIMESTAMP, ProducerRecord, Progress, ReaderContext, SplitInfo, StreamCapabilities,
    StreamProducer, StreamReader, StreamSource,
};
use crate::time::{Clock, Micros, SystemClock};

use reader::MemoryReader;
use state::{Record, Split, State, Value, position_after};

/// A stream in memory. Clones share its records and groups; the source is its own producer.
///
/// Positions count a split's records from 1. Splits are added, fed, closed and trimmed by hand; a split with parents is
/// a child. Readers of one group share the splits: a member with more than its share hands some over, and whoever has
/// less takes them once they are free. Unlike a broker it waits for the acknowledgement of a revocation for ever.
#[derive(Clone)]
pub struct MemoryStreamSource {
    shared: Arc<Shared>,
    bounded: bool,
    clock: Arc<dyn Clock>,
}

struct Shared {
    identity: String,
    schema: Option<SchemaRef>,
    state: Mutex<State>,
}

impl MemoryStreamSource {
    /// A stream of encoded records, without splits.
    pub fn new(identity: impl Into<String>) -> Self {
        Self::build(identity.into(), None)
    }

    /// A stream whose records are rows with these columns, without splits.
    pub fn with_schema(identity: impl Into<String>, schema: SchemaRef) -> Self {
        Self::build(identity.into(), Some(schema))
    }

    fn build(identity: String, schema: Option<SchemaRef>) -> Self {
        let shared = Arc::new(Shared { identity, schema, state: Mutex::default() });
        Self { shared, bounded: false, clock: Arc::new(SystemClock) }
    }

    /// Says whether readers finish once they have delivered what there is. Clones made before are not changed.
    #[must_use]
    pub fn bounded(mut self, bounded: bool) -> Self {
        self.bounded = bounded;
        self
    }

    /// Sets the clock that gives the time of records sent through [`StreamProducer`].
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Adds an open split. One that is there already stays as it is.
    pub fn add_split(&self, split: SplitId, parents: &[SplitId]) {
        let mut state = lock(&self.shared.state);
        state.splits.entry(split).or_insert_with(|| Split { parents: parents.to_vec(), ..Split::default() });
        state.changed();
    }

    /// Appends encoded records to a split, each with its key (if any), its value (`None` = a tombstone) and the time
    /// that is stored with it.
    ///
    /// # Errors
    /// `NotFound` for a split that does not exist; `Invalid` for one that is closed, and for a stream of rows.
    pub fn append(&self, split: &SplitId, records: Vec<(Option<Bytes>, Option<Bytes>, Micros)>) -> Result<()> {
        if self.shared.schema.is_some() {
            return Err(Error::invalid("this stream takes rows"));
        }
        let records = records.into_iter().map(|(key, value, time)| Record { key, time, value: Value::Encoded(value) });
        lock(&self.shared.state).append(split, records)
    }

    /// Appends rows to a split, all stored at `time`.
    ///
    /// # Errors
    /// `NotFound` for a split that does not exist; `Invalid` for one that is closed, and for other columns.
    pub fn append_rows(&self, split: &SplitId, rows: &RecordBatch, time: Micros) -> Result<()> {
        if self.shared.schema.as_ref() != Some(&rows.schema()) {
            return Err(Error::invalid("these rows have other columns than the stream"));
        }
        let row = |at| Record { key: None, time, value: Value::Row(rows.slice(at, 1)) };
        lock(&self.shared.state).append(split, (0..rows.num_rows()).map(row))
    }

    /// Closes a split: no record will be added to it.
    pub fn close_split(&self, split: &SplitId) {
        let mut state = lock(&self.shared.state);
        if let Some(split) = state.splits.get_mut(split) {
            split.closed = true;
        }
        state.changed();
    }

    /// Forgets the records of a split up to and including `through`, as retention does.
    pub fn trim(&self, split: &SplitId, through: u64) {
        let mut state = lock(&self.shared.state);
        if let Some(split) = state.splits.get_mut(split) {
            split.trim(through);
        }
        state.changed();
    }

    /// What a group has committed for a split.
    pub fn committed(&self, group: &str, split: &SplitId) -> Option<Progress> {
        lock(&self.shared.state).groups.get(group)?.committed.get(split).cloned()
    }

    fn metadata(&self) -> Option<SchemaRef> {
        self.shared.schema.is_none().then(metadata_schema)
    }
}

/// The metadata columns of encoded records.
fn metadata_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(METADATA_TIMESTAMP, timestamp_type(), false),
        Field::new(METADATA_KEY, DataType::Binary, true),
    ]))
}

impl fmt::Debug for MemoryStreamSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStreamSource").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}

#[async_trait]
impl StreamSource for MemoryStreamSource {
    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities {
            bounded: self.bounded,
            splits_end: true,
            shares_splits: true,
            encoded: self.shared.schema.is_none(),
            metadata: self.metadata(),
        }
    }

    fn identity(&self) -> String {
        self.shared.identity.clone()
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        Ok(self.shared.schema.clone())
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let state = lock(&self.shared.state);
        let info = |(split, of): (&SplitId, &Split)| SplitInfo {
            split: split.clone(),
            parents: of.parents.clone(),
            end: Some(position_after(of.end())),
            closed: of.closed,
        };
        Ok(state.splits.iter().map(info).collect())
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        let started = context.checkpoints.started().await?;
        let id = lock(&self.shared.state).join(&context.group, started);
        Ok(Box::new(MemoryReader::new(id, Arc::clone(&self.shared), self.bounded, context)))
    }
}

#[async_trait]
impl StreamProducer for MemoryStreamSource {
    /// Chooses an open split by the key's hash. A stream without an open split gets one called `0`.
    async fn send(&self, records: Vec<ProducerRecord>) -> Result<()> {
        let open = |state: &State| {
            state.splits.iter().filter(|(_, of)| !of.closed).map(|(split, _)| split.clone()).collect::<Vec<_>>()
        };
        let mut splits = open(&lock(&self.shared.state));
        if splits.is_empty() {
            self.add_split(SplitId::from("0"), &[]);
            splits = open(&lock(&self.shared.state));
        }
        for record in records {
            let mut hasher = DefaultHasher::new();
            record.key.hash(&mut hasher);
            let index = hasher.finish() % u64::try_from(splits.len()).unwrap_or(1).max(1);
            let split = usize::try_from(index).ok().and_then(|index| splits.get(index));
            let split = split.ok_or_else(|| Error::not_found("the stream has no open split"))?;
            self.append(split, vec![(Some(record.key), Some(record.value), self.clock.now())])?;
        }
        Ok(())
    }
}

/// The number of records up to and including a position.
fn count_of(split: &SplitId, position: &Position) -> Result<u64> {
    position.to_u64().ok_or_else(|| Error::data(format!("{position:?} is no position of the split `{split}`")))
}
