//! Streams: where events come from.
//!
//! A [`StreamSource`] describes a stream; [`StreamSource::subscribe`] gives one worker's [`StreamReader`]. The source
//! decides which splits a reader owns (Kafka: the consumer group; Kinesis: leases; files: all of them) and tells the
//! engine in four events:
//!
//! ```text
//! Assigned{a, b} ─► Batch{a} ─► Batch{b} ─► … ─► SplitEnded{a} ─► Revoked{b} ─► None
//!                      │                              │
//!                      └─ commit(a, Through(p)) ◄─────┴─ commit(a, End)
//! ```
//!
//! **Delivery** is at least once: after a crash a reader starts again behind the last checkpoint. Every record carries
//! the same split and position each time it is delivered, and that is all the engine needs to count it once.
//!
//! **Checkpoints** belong to the engine, which keeps them beside the data they speak of. A reader asks for them through
//! [`ReaderContext::checkpoints`]; what it is told to commit mirrors them for the source's own tools.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use crate::error::Result;
use crate::options::{OptionType, OptionValue};
use crate::position::{Position, SplitId};
use crate::time::{Clock, Micros};

/// The metadata column that holds the time stored with the record: `timestamp[us, UTC]`.
pub const METADATA_TIMESTAMP: &str = "__timestamp";
/// The metadata column that holds the record's key: `binary`.
pub const METADATA_KEY: &str = "__key";

/// What an instance of a stream source does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCapabilities {
    /// A reader finishes (its `next` returns `None`) once it has delivered what there is.
    pub bounded: bool,
    /// Splits can end and be followed by others (a reshard, a rotated file).
    pub splits_end: bool,
    /// Several readers of one group share the splits.
    pub shares_splits: bool,
    /// Records are handed over encoded, to be decoded by `record_format`; otherwise they come as columns.
    pub encoded: bool,
    /// The metadata columns of a batch, each name beginning with `__`; `None` where there are none.
    pub metadata: Option<SchemaRef>,
}

/// One split as [`StreamSource::discover`] sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitInfo {
    /// Its name.
    pub split: SplitId,
    /// The splits that must be finished before it is read.
    pub parents: Vec<SplitId>,
    /// The position of its newest record at this moment; [`Position::START`] while it is empty; `None` where the
    /// source cannot know without reading (an open Kinesis shard).
    pub end: Option<Position>,
    /// No record will be added to it.
    pub closed: bool,
}

/// Where to begin a split that has no checkpoint, if it is there when the job first starts. A split that appears later
/// begins at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest record.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the first record stored at this time or later.
    At(Micros),
}

/// What to do when retention has removed the position to resume from: the option `on_position_lost` of sources that
/// forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPositionLost {
    /// The job stops.
    Fail,
    /// The job goes on at the oldest record, and says what it has lost: [`StreamBatch::lost`].
    Earliest,
}

impl OptionValue for OnPositionLost {
    const KIND: OptionType = OptionType::OneOf(&["fail", "earliest"]);

    fn read(value: &Value) -> Result<Self, String> {
        Self::KIND.check(value)?;
        Ok(if value.as_str() == Some("earliest") { Self::Earliest } else { Self::Fail })
    }
}

/// How far a split has been dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Every record up to and including this position.
    Through(Position),
    /// All of it, and it is closed: its children may be read.
    End,
}

/// The engine's memory of how far splits have been dealt with.
#[async_trait]
pub trait Checkpoints: Debug + Send + Sync {
    /// Where to read on in `split`; `None` where it was never read: then begin as [`ReaderContext::start`] says.
    ///
    /// A reader calls this when a split becomes its own, before it reads it, each time.
    ///
    /// # Errors
    /// Those of the store behind it; temporary ones are worth a retry.
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>>;

    /// Whether any split of this stream was ever read: a split found by a stream that has been read before is a new
    /// one and begins at its beginning, whatever [`ReaderContext::start`] says.
    async fn started(&self) -> Result<bool>;

    /// What a reader of the group has noted under `name`, in whatever process; `None` where nothing was.
    ///
    /// # Errors
    /// As [`Checkpoints::resume`].
    async fn noted(&self, name: &str) -> Result<Option<Bytes>>;

    /// Remembers what the source itself has to know after a restart: which splits there were at the first start, how to
    /// tell that a stream was made anew. A later note replaces an earlier one of its name.
    ///
    /// The implementer guarantees that notes are durable when this returns, are seen by every reader of the group, and
    /// last as long as the checkpoints that they go with: who reads a stream anew finds none, and after a reset those of
    /// the reader that was asked where splits begin.
    ///
    /// # Errors
    /// As [`Checkpoints::resume`]. If the future is dropped each note may or may not be kept.
    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()>;
}

/// What a reader needs to know.
#[derive(Debug, Clone)]
pub struct ReaderContext {
    /// The group whose readers share the stream: `{project}.{source}`.
    pub group: String,
    /// Where splits without a checkpoint begin.
    pub start: StartPosition,
    /// The checkpoints.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// The most that the reader may hold ready in memory, in bytes. One record may exceed it alone.
    pub buffer_bytes: usize,
    /// The most records in a batch.
    pub batch_records: usize,
    /// How often a running reader looks for new splits.
    pub refresh: Duration,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A split that a reader has been given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedSplit {
    /// Its name.
    pub split: SplitId,
    /// Where it will be read on: after this position. The start is resolved before the first read and the engine makes
    /// it the split's checkpoint, so that `latest` loses nothing when the job dies early.
    pub resume: Position,
}

/// The records of a batch.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Bytes to be decoded by `record_format`. A null is a tombstone.
    Encoded(BinaryArray),
    /// Columns.
    Rows(RecordBatch),
}

impl Payload {
    /// How many records.
    pub fn len(&self) -> usize {
        match self {
            Self::Encoded(values) => arrow::array::Array::len(values),
            Self::Rows(rows) => rows.num_rows(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Encoded(values) => arrow::array::Array::get_array_memory_size(values),
            Self::Rows(rows) => rows.get_array_memory_size(),
        }
    }
}

/// How far behind the end of a split its reader was when it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Records not yet read, where the source counts them.
    pub records: Option<u64>,
    /// Bytes not yet read, where the source counts them.
    pub bytes: Option<u64>,
    /// Time between the newest record and the last one read, where the source knows.
    pub time: Option<Duration>,
}

impl Lag {
    /// Whether everything there was has been read. False where nothing is known.
    pub fn is_zero(&self) -> bool {
        let known = self.records.is_some() || self.bytes.is_some() || self.time.is_some();
        known
            && self.records.unwrap_or(0) == 0
            && self.bytes.unwrap_or(0) == 0
            && self.time.unwrap_or_default().is_zero()
    }
}

/// Consecutive records of one split.
#[derive(Debug, Clone)]
pub struct StreamBatch {
    /// The split.
    pub split: SplitId,
    /// The records.
    pub payload: Payload,
    /// The position of each record, strictly ascending.
    pub positions: BinaryArray,
    /// What the source knows of each record beside its value, as [`StreamCapabilities::metadata`] declares it.
    pub metadata: Option<RecordBatch>,
    /// Everything in the split up to and including this position has been delivered. At least the last record's
    /// position; more where markers and gaps were stepped over, also in a batch without records.
    pub through: Position,
    /// How far behind the reader is.
    pub lag: Option<Lag>,
    /// Records between where the split was read up to before and this batch's first one (or `through`, where it has none)
    /// are gone, and the source was told to go on: [`OnPositionLost::Earliest`]. The engine writes it down.
    pub lost: bool,
}

impl StreamBatch {
    /// Memory in bytes: what it takes of [`ReaderContext::buffer_bytes`].
    pub fn bytes(&self) -> usize {
        self.payload.bytes()
            + arrow::array::Array::get_array_memory_size(&self.positions)
            + self.metadata.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }
}

/// What a reader reports.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one at a time, and nearly every one is a batch.
pub enum StreamEvent {
    /// These splits are this reader's from now on. None of them: what an error has told of before has passed, and nothing
    /// has come meanwhile that would show it.
    Assigned(Vec<AssignedSplit>),
    /// Records of a split that is this reader's.
    Batch(StreamBatch),
    /// These splits are to be handed over. Until `deadline` commits for them are still taken; without one they are
    /// already lost. The next call of `next` acknowledges.
    Revoked {
        /// The splits.
        splits: Vec<SplitId>,
        /// Until when.
        deadline: Option<Instant>,
    },
    /// All records of a closed split have been delivered.
    SplitEnded(SplitId),
}

/// A stream of events in splits (partitions, shards, files).
#[async_trait]
pub trait StreamSource: Debug + Send + Sync {
    /// What this instance does. Costs nothing and never changes.
    fn capabilities(&self) -> StreamCapabilities;

    /// What tells this stream from another: a topic, a stream's name, a path. Two configurations with equal identity
    /// read the same records; where to connect and how are no part of it.
    fn identity(&self) -> String;

    /// The columns of [`Payload::Rows`] batches; `None` where records come encoded.
    ///
    /// # Errors
    /// `NotFound` while there is nothing to take a schema from.
    async fn schema(&self) -> Result<Option<SchemaRef>>;

    /// The splits there are now, oldest first, for status, lag and `--until-caught-up`. Has no effect on any reader.
    ///
    /// # Errors
    /// `Unavailable` and `Throttled` are temporary. A stream that does not exist is `NotFound`.
    async fn discover(&self) -> Result<Vec<SplitInfo>>;

    /// Joins the group and gives this worker's share of the stream.
    ///
    /// # Errors
    /// As [`StreamSource::discover`].
    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>>;

    /// The registry with the schemas of the stream's writers, where one is configured: records are then framed as
    /// Confluent's serializers do, a zero byte and a schema's number in four big-endian bytes before the value. Costs
    /// nothing and never changes.
    fn schemas(&self) -> Option<Arc<dyn SchemaRegistry>> {
        None
    }

    /// Whether a record without a value deletes the entity that its key ([`METADATA_KEY`]) names, at the time stored
    /// with it ([`METADATA_TIMESTAMP`]): both columns are among its metadata then. Costs nothing and never changes.
    fn deletes(&self) -> bool {
        false
    }
}

/// A writer's schema, as a registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// What it describes: `avro`, `json` or `protobuf`.
    pub kind: String,
    /// The schema.
    pub text: String,
    /// The schemas that its text names and does not hold, by those names; each stands behind those that it names itself.
    pub references: Vec<(String, String)>,
}

/// A registry of schemas by number.
#[async_trait]
pub trait SchemaRegistry: Debug + Send + Sync {
    /// The schema of this number; `None` where the registry knows none. A number means the same schema for ever, so that
    /// the caller may keep the answer; that there is none yet may change. Dropping the future does no harm.
    ///
    /// # Errors
    /// `Unavailable` and `Throttled` are temporary. `PermissionDenied` where credentials are missing or wrong, `NotFound`
    /// where no registry answers.
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>>;
}

/// One worker's share of a stream.
///
/// A reader keeps its membership, leases and iterators alive while `next` is not called, and holds no more than
/// [`ReaderContext::buffer_bytes`] meanwhile. Dropping it without [`StreamReader::close`] is like a crash: nothing is
/// committed, and the group notices when it would notice a crash.
#[async_trait]
pub trait StreamReader: Debug + Send {
    /// The next event, waiting for it; `None` when a bounded stream is finished, and ever after.
    ///
    /// The implementer guarantees:
    /// - *assigned first*: a split's batches come after its `Assigned` and before its `Revoked` or `SplitEnded`;
    /// - *order*: positions ascend strictly inside a split, over all batches of one assignment;
    /// - *completeness*: no record between [`AssignedSplit::resume`] and [`StreamBatch::through`] is missing;
    /// - *parents first*: a split is not handed out before `End` of all its parents is committed, or they are gone;
    /// - *ended once*: a split whose [`Progress::End`] is checkpointed is not handed out again;
    /// - *cancel safety*: dropping the future loses nothing; the event comes with the next call.
    ///
    /// # Errors
    /// Temporary errors leave the reader usable: call again after a pause. After a permanent error the reader is done.
    /// `PositionLost` where the position to resume from is gone and the source is told to fail then.
    async fn next(&mut self) -> Result<Option<StreamEvent>>;

    /// How many calls the reader has repeated by itself after temporary errors that `next` did not report. It only grows.
    /// The caller adds it to what it repeated itself, and shows it. Costs nothing.
    fn repeated(&self) -> u64 {
        0
    }

    /// Tells the source how far its splits are dealt with. The caller guarantees that this is durable in the engine's
    /// stores. Commits for splits that are not this reader's (any more) are ignored.
    ///
    /// # Errors
    /// Never fatal: the engine's checkpoints are the truth. The caller logs them and goes on.
    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()>;

    /// Leaves the group in good order, so that others take over at once. What was read and not committed will be read
    /// again.
    ///
    /// # Errors
    /// Those of the source; the reader is gone in any case.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// A record to be sent to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The key by which the source chooses a split; records of one key keep their order.
    pub key: Bytes,
    /// The value, encoded as `record_format` says.
    pub value: Bytes,
}

/// Puts records into a stream: what examples, tests and small producers need to fill any source alike.
#[async_trait]
pub trait StreamProducer: Debug + Send + Sync {
    /// Appends records, those of one key in order. When it returns they are stored and readable. On error some may be.
    ///
    /// Creates the stream where it does not exist and the source can be created.
    ///
    /// # Errors
    /// Those of the source.
    async fn send(&self, records: Vec<ProducerRecord>) -> Result<()>;
}

/// What [`Checkpoints`] remembers, in memory: for tests and for reading without a store.
#[derive(Debug, Clone, Default)]
pub struct FixedCheckpoints {
    /// The splits that were read before.
    pub splits: BTreeMap<SplitId, Progress>,
    /// What was noted. Clones share it.
    pub notes: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

#[async_trait]
impl Checkpoints for FixedCheckpoints {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        Ok(self.splits.get(split).cloned())
    }

    async fn started(&self) -> Result<bool> {
        Ok(!self.splits.is_empty())
    }

    async fn noted(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(notes.iter().cloned());
        Ok(())
    }
}
