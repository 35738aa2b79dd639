//! Broken stream sources.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use headwater_core::memory::MemoryStreamSource;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{
    Checkpoints, Lag, Payload, Progress, ReaderContext, SchemaRegistry, SplitInfo, StartPosition, StreamBatch,
    StreamCapabilities, StreamEvent,
};
use headwater_core::{Error, Position, Result, SplitId, StreamReader, StreamSource};
use headwater_testkit::stream::{Record, StreamFixture, suite};

use super::{Broken, broken};
use crate::fixtures::{Stream, name};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    IdentityChanges,
    HidesMetadata,
    TimesAreZero,
    EndsOffByOne,
    EmptySplitsEndAtZero,
    BatchOfNobody,
    SwapsRecords,
    SkipsARecord,
    ThroughTooEarly,
    LargerBatches,
    IgnoresTheBuffer,
    ReadsAllAhead,
    LosesEventsOfDroppedCalls,
    NoLag,
    FinishesInAPause,
    FinishesWithAnEmptySplit,
    FailsWhenFinished,
    LosesPrefetchedInACrash,
    ResumesTooEarly,
    BeginsAnewAtTheEnd,
    PositionsByBatchSize,
    CommitsOnClose,
    ThirdReaderRepeats,
    LatestAgainOnRestart,
    StartsAfterTheTime,
    LatestForNewSplits,
    EndsBeforeTheLastBatch,
    CommitsEndsItself,
    SkipsARecordOfGrandchildren,
    ForgetsThatSplitsEnded,
    ClosedSplitsSeemOpen,
    FailsForForeignCommits,
    EveryReaderAlone,
    AcknowledgesItself,
}

use Fault::*;

const FAULTS: [(Fault, &str); 34] = [
    (IdentityChanges, "stream::identity-is-stable"),
    (HidesMetadata, "stream::batches-are-as-declared"),
    (TimesAreZero, "stream::stored-times-come-along"),
    (EndsOffByOne, "stream::discovers-splits-and-ends"),
    (EmptySplitsEndAtZero, "stream::discovers-empty-splits"),
    (BatchOfNobody, "stream::assigned-first"),
    (SwapsRecords, "stream::order"),
    (SkipsARecord, "stream::completeness"),
    (ThroughTooEarly, "stream::through-covers-its-records"),
    (LargerBatches, "stream::batch-records-is-the-most"),
    (IgnoresTheBuffer, "stream::buffer-bytes-is-the-most"),
    (ReadsAllAhead, "stream::stalled-holds-its-buffer-at-the-most"),
    (LosesEventsOfDroppedCalls, "stream::cancel-safety"),
    (NoLag, "stream::lag-counts-down"),
    (FinishesInAPause, "stream::waits-for-records"),
    (FinishesWithAnEmptySplit, "stream::finishes-when-all-is-delivered"),
    (FailsWhenFinished, "stream::finished-for-ever"),
    (LosesPrefetchedInACrash, "stream::restart-at-every-event"),
    (ResumesTooEarly, "stream::resumes-behind-every-record"),
    (BeginsAnewAtTheEnd, "stream::resumes-at-the-end"),
    (PositionsByBatchSize, "stream::positions-are-stable"),
    (CommitsOnClose, "stream::uncommitted-comes-again"),
    (ThirdReaderRepeats, "stream::later-run-reads-what-was-added"),
    (LatestAgainOnRestart, "stream::start-latest-loses-nothing"),
    (StartsAfterTheTime, "stream::start-at-a-time"),
    (LatestForNewSplits, "stream::new-split-begins-at-its-beginning"),
    (EndsBeforeTheLastBatch, "stream::ended-after-all-records"),
    (CommitsEndsItself, "stream::parents-first"),
    (SkipsARecordOfGrandchildren, "stream::children-are-read"),
    (ForgetsThatSplitsEnded, "stream::ended-once"),
    (ClosedSplitsSeemOpen, "stream::closed-splits-are-said"),
    (FailsForForeignCommits, "stream::foreign-commits-are-ignored"),
    (EveryReaderAlone, "stream::readers-share-splits"),
    (AcknowledgesItself, "stream::revoked-when-acknowledged"),
];

pub(super) fn all() -> Vec<Broken> {
    FAULTS.into_iter().map(|(fault, clause)| broken(fault, clause, move || suite(Fixture(fault)))).collect()
}

struct Fixture(Fault);

impl Fixture {
    fn inner(&self) -> Stream {
        let bounded = matches!(self.0, FinishesWithAnEmptySplit | FailsWhenFinished);
        Stream { bounded, ..Stream::default() }
    }
}

/// A stream, and what its readers leave behind for one another.
struct Shared {
    inner: MemoryStreamSource,
    /// How many readers each group had.
    readers: Arc<Mutex<BTreeMap<String, usize>>>,
    /// How far splits were read that a group is to believe done.
    delivered: Delivered,
    /// How many records readers have fetched.
    fetched: Arc<AtomicUsize>,
}

type Delivered = Arc<Mutex<BTreeMap<(String, SplitId), Position>>>;

#[async_trait]
impl StreamFixture for Fixture {
    type Stream = Shared;

    async fn create(&self, splits: usize) -> Result<Shared> {
        let inner = self.inner().create(splits).await?;
        Ok(Shared { inner, readers: Arc::default(), delivered: Arc::default(), fetched: Arc::default() })
    }

    async fn open(&self, stream: &Shared, _: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        Ok(Arc::new(Source {
            fault: self.0,
            inner: stream.inner.clone(),
            readers: Arc::clone(&stream.readers),
            delivered: Arc::clone(&stream.delivered),
            fetched: Arc::clone(&stream.fetched),
        }))
    }

    fn split(&self, stream: &Shared, index: usize) -> SplitId {
        self.inner().split(&stream.inner, index)
    }

    async fn produce(&self, stream: &Shared, split: usize, records: &[Record]) -> Result<()> {
        self.inner().produce(&stream.inner, split, records).await
    }

    async fn add_split(&self, stream: &Shared) -> Result<usize> {
        self.inner().add_split(&stream.inner).await
    }

    async fn end_split(&self, stream: &Shared, split: usize) -> Result<Vec<usize>> {
        self.inner().end_split(&stream.inner, split).await
    }

    fn stores_times(&self) -> bool {
        true
    }

    fn handed_out(&self, stream: &Shared) -> Option<usize> {
        Some(stream.fetched.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Source {
    fault: Fault,
    inner: MemoryStreamSource,
    readers: Arc<Mutex<BTreeMap<String, usize>>>,
    delivered: Delivered,
    fetched: Arc<AtomicUsize>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StreamSource for Source {
    fn capabilities(&self) -> StreamCapabilities {
        let mut capabilities = self.inner.capabilities();
        if self.fault == HidesMetadata {
            capabilities.metadata = None;
        }
        capabilities
    }

    fn identity(&self) -> String {
        if self.fault == IdentityChanges { name("stream") } else { self.inner.identity() }
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        self.inner.schema().await
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let mut splits = self.inner.discover().await?;
        for info in &mut splits {
            let records = info.end.as_ref().and_then(Position::to_u64).unwrap_or_default();
            match self.fault {
                EndsOffByOne if records > 0 => info.end = Some(Position::from_u64(records + 1)),
                EmptySplitsEndAtZero if records == 0 => info.end = Some(Position::from_u64(0)),
                ClosedSplitsSeemOpen => info.closed = false,
                _ => {}
            }
        }
        Ok(splits)
    }

    fn schemas(&self) -> Option<Arc<dyn SchemaRegistry>> {
        self.inner.schemas()
    }

    fn deletes(&self) -> bool {
        self.inner.deletes()
    }

    async fn subscribe(&self, mut context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        let earlier = {
            let mut readers = self.readers.lock().unwrap();
            let readers = readers.entry(context.group.clone()).or_default();
            *readers += 1;
            *readers - 1
        };
        let infos = self.inner.discover().await?;
        let empty = infos.iter().any(|info| info.end == Some(Position::START));
        let group = context.group.clone();
        context.checkpoints = Arc::new(Told {
            fault: self.fault,
            start: context.start,
            earlier,
            group: group.clone(),
            inner: Arc::clone(&context.checkpoints),
            stream: self.inner.clone(),
            delivered: Arc::clone(&self.delivered),
        });
        let batch_records = context.batch_records;
        match (self.fault, context.start) {
            (LargerBatches, _) => context.batch_records *= 2,
            (IgnoresTheBuffer, _) => context.buffer_bytes = usize::MAX,
            (StartsAfterTheTime, StartPosition::At(time)) => context.start = StartPosition::At(time + 1),
            // Only where it is looked whether they share: whoever is alone loses nothing to another one, either.
            (EveryReaderAlone, _) if batch_records == 4 => context.group = format!("{group} {earlier}"),
            _ => {}
        }
        Ok(Box::new(Reader {
            fault: self.fault,
            group,
            batch_records,
            metadata: self.inner.capabilities().metadata,
            inner: Some(self.inner.subscribe(context).await?),
            delivered: Arc::clone(&self.delivered),
            fetched: Arc::clone(&self.fetched),
            parents: infos.iter().map(|info| (info.split.clone(), info.parents.clone())).collect(),
            queue: VecDeque::new(),
            reached: BTreeMap::new(),
            lags: BTreeMap::new(),
            committed: false,
            begun: false,
            finished: self.fault == FinishesWithAnEmptySplit && empty,
        }))
    }
}

/// The checkpoints as the faulty source understands them.
#[derive(Debug)]
struct Told {
    fault: Fault,
    start: StartPosition,
    earlier: usize,
    group: String,
    inner: Arc<dyn Checkpoints>,
    stream: MemoryStreamSource,
    delivered: Delivered,
}

#[async_trait]
impl Checkpoints for Told {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        let told = self.inner.resume(split).await?;
        let ends = self.stream.discover().await?;
        let end = ends.into_iter().find(|info| info.split == *split).and_then(|info| info.end);
        let end = end.unwrap_or(Position::START);
        let delivered = self.delivered.lock().unwrap().get(&(self.group.clone(), split.clone())).cloned();
        let number = match &told {
            Some(Progress::Through(position)) => position.to_u64(),
            _ => None,
        };
        let before = |number: u64| Some(Progress::Through(Position::from_u64(number - 1)));
        Ok(match (self.fault, &told, number) {
            (LosesPrefetchedInACrash | CommitsOnClose, Some(Progress::Through(position)), _) => {
                Some(Progress::Through(delivered.unwrap_or(Position::START).max(position.clone())))
            }
            (ResumesTooEarly, _, Some(number)) if self.earlier == 0 && number % 2 == 1 => before(number),
            (ThirdReaderRepeats, _, Some(number)) if self.earlier == 2 && number > 0 => before(number),
            (BeginsAnewAtTheEnd, Some(Progress::Through(position)), _) if self.earlier == 0 && *position == end => {
                Some(Progress::Through(Position::START))
            }
            (LatestAgainOnRestart, Some(Progress::Through(_)), _) if self.start == StartPosition::Latest => {
                Some(Progress::Through(end))
            }
            (LatestForNewSplits, None, _) if self.start == StartPosition::Latest => Some(Progress::Through(end)),
            (ForgetsThatSplitsEnded, Some(Progress::End), _) => Some(Progress::Through(Position::START)),
            _ => told,
        })
    }

    async fn started(&self) -> Result<bool> {
        self.inner.started().await
    }

    async fn noted(&self, name: &str) -> Result<Option<Bytes>> {
        self.inner.noted(name).await
    }

    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()> {
        self.inner.note(notes).await
    }
}

#[derive(Debug)]
struct Reader {
    fault: Fault,
    group: String,
    batch_records: usize,
    metadata: Option<SchemaRef>,
    inner: Option<Box<dyn StreamReader>>,
    delivered: Delivered,
    fetched: Arc<AtomicUsize>,
    parents: BTreeMap<SplitId, Vec<SplitId>>,
    queue: VecDeque<StreamEvent>,
    reached: BTreeMap<SplitId, Position>,
    lags: BTreeMap<SplitId, u64>,
    committed: bool,
    begun: bool,
    finished: bool,
}

impl Reader {
    fn inner(&mut self) -> &mut Box<dyn StreamReader> {
        self.inner.as_mut().unwrap()
    }

    async fn fetch(&mut self) -> Result<Option<StreamEvent>> {
        let event = self.inner().next().await?;
        if let Some(StreamEvent::Batch(batch)) = &event {
            self.fetched.fetch_add(batch.payload.len(), Ordering::Relaxed);
        }
        Ok(event)
    }

    /// Tells the group's next reader that more is done than was committed.
    fn leave_behind(&self, more: u64) {
        let mut delivered = self.delivered.lock().unwrap();
        for (split, position) in &self.reached {
            let through = position.to_u64().unwrap_or_default() + more;
            delivered.insert((self.group.clone(), split.clone()), Position::from_u64(through));
        }
    }

    async fn spoil(&mut self, event: StreamEvent) -> Result<Option<StreamEvent>> {
        match event {
            StreamEvent::Batch(batch) => Ok(Some(StreamEvent::Batch(self.spoil_batch(batch)))),
            StreamEvent::SplitEnded(split) => {
                if self.fault == CommitsEndsItself {
                    self.inner().commit(&[(split.clone(), Progress::End)]).await?;
                }
                Ok(Some(StreamEvent::SplitEnded(split)))
            }
            StreamEvent::Assigned(splits) => Ok(Some(StreamEvent::Assigned(splits))),
            StreamEvent::Revoked { splits, deadline } => {
                if self.fault == AcknowledgesItself
                    && let Some(event) = self.inner().next().now_or_never()
                {
                    self.queue.extend(event?);
                }
                Ok(Some(StreamEvent::Revoked { splits, deadline }))
            }
        }
    }

    fn spoil_batch(&mut self, mut batch: StreamBatch) -> StreamBatch {
        let records = batch.payload.len();
        self.reached.insert(batch.split.clone(), batch.through.clone());
        let left = batch.lag.and_then(|lag| lag.records).unwrap_or_default();
        self.lags.insert(batch.split.clone(), left);
        match self.fault {
            TimesAreZero => {
                if let Some(metadata) = &batch.metadata {
                    let zeros: ArrayRef =
                        Arc::new(TimestampMicrosecondArray::from_value(0, records).with_timezone("UTC"));
                    let columns = vec![zeros, Arc::clone(metadata.column(1))];
                    batch.metadata = RecordBatch::try_new(metadata.schema(), columns).ok();
                }
            }
            SwapsRecords if records >= 7 && self.batch_records == 7 => {
                batch = pick(batch, &[1, 0, 2, 3, 4, 5, 6]);
            }
            SkipsARecord if records >= 7 && self.batch_records == 7 => {
                batch = pick(batch, &[0, 1, 3, 4, 5, 6]);
            }
            ThroughTooEarly if records >= 7 && self.batch_records == 7 => {
                batch.through = Position::new(batch.positions.value(0).to_vec());
            }
            NoLag => batch.lag = Some(Lag { records: Some(0), ..Lag::default() }),
            PositionsByBatchSize if self.batch_records == 5 => {
                let longer = batch.positions.iter().flatten().map(|position| [position, &[5]].concat());
                batch.positions = BinaryArray::from_iter_values(longer);
            }
            SkipsARecordOfGrandchildren if records >= 3 => {
                let mut parents = self.parents.get(&batch.split).into_iter().flatten();
                let grand = parents.any(|parent| self.parents.get(parent).is_some_and(|of| !of.is_empty()));
                if grand {
                    batch = pick(batch, &[0, 2]);
                }
            }
            _ => {}
        }
        batch
    }
}

/// These records of a batch, in this order.
fn pick(batch: StreamBatch, records: &[u32]) -> StreamBatch {
    let indices = UInt32Array::from(records.to_vec());
    let of = |values: &BinaryArray| {
        let taken = take(values, &indices, None).unwrap();
        taken.as_any().downcast_ref::<BinaryArray>().unwrap().clone()
    };
    let metadata = batch.metadata.as_ref().map(|metadata| {
        let columns = metadata.columns().iter().map(|column| take(column, &indices, None).unwrap());
        RecordBatch::try_new(metadata.schema(), columns.collect()).unwrap()
    });
    let payload = match &batch.payload {
        Payload::Encoded(values) => Payload::Encoded(of(values)),
        Payload::Rows(rows) => Payload::Rows(rows.clone()),
    };
    StreamBatch { payload, positions: of(&batch.positions), metadata, ..batch }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StreamReader for Reader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        if self.finished {
            if self.fault == FailsWhenFinished {
                return Err(Error::unexpected("the reader is finished"));
            }
            return Ok(None);
        }
        if self.fault == BatchOfNobody && !std::mem::replace(&mut self.begun, true) {
            return Ok(Some(StreamEvent::Batch(StreamBatch {
                split: SplitId::from("nobody"),
                payload: Payload::Encoded(BinaryArray::from_iter_values(Vec::<&[u8]>::new())),
                positions: BinaryArray::from_iter_values(Vec::<&[u8]>::new()),
                metadata: self.metadata.clone().map(RecordBatch::new_empty),
                through: Position::START,
                lag: None,
                lost: false,
            })));
        }
        if let Some(event) = self.queue.pop_front() {
            return Ok(Some(event));
        }
        let event = if self.fault == FinishesInAPause {
            match tokio::time::timeout(Duration::from_millis(75), self.fetch()).await {
                Ok(event) => event?,
                Err(_) => return Ok(None),
            }
        } else {
            self.fetch().await?
        };
        if self.fault == ReadsAllAhead && self.batch_records == 9 {
            while let Some(ahead) = self.fetch().now_or_never() {
                let Some(ahead) = ahead? else { break };
                self.queue.push_back(ahead);
            }
        }
        if self.fault == LosesEventsOfDroppedCalls {
            tokio::task::yield_now().await;
        }
        let Some(event) = event else {
            self.finished = true;
            return Ok(None);
        };
        if self.fault == EndsBeforeTheLastBatch
            && !self.committed
            && let StreamEvent::Batch(batch) = &event
            && batch.lag.is_some_and(|lag| lag.is_zero())
            && let Some(after) = self.inner().next().now_or_never()
        {
            match after? {
                Some(StreamEvent::SplitEnded(split)) => {
                    self.queue.push_back(event);
                    return Ok(Some(StreamEvent::SplitEnded(split)));
                }
                after => self.queue.extend(after),
            }
        }
        self.spoil(event).await
    }

    fn repeated(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.repeated())
    }

    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()> {
        self.committed |= !commits.is_empty();
        if self.fault == FailsForForeignCommits {
            let known = self.parents.keys().collect::<BTreeSet<_>>();
            if let Some((split, _)) = commits.iter().find(|(split, _)| split == &SplitId::from("no-such-split")) {
                return Err(Error::not_found(format!("`{split}` is none of {known:?}")));
            }
        }
        self.inner().commit(commits).await
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        if self.fault == CommitsOnClose {
            self.leave_behind(0);
        }
        match self.inner.take() {
            Some(inner) => inner.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // What it had fetched and not delivered yet: one record, of splits with more.
        if self.fault == LosesPrefetchedInACrash && self.inner.is_some() {
            self.reached.retain(|split, _| self.lags.get(split).is_some_and(|left| *left > 0));
            self.leave_behind(1);
        }
    }
}
