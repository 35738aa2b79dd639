//! A project with everything in memory, and a stream that does what tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Field as ArrowField, Float64Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::definitions::{
    Definitions, Field, RecordFormat, Source, StreamSettings, ValueType, timestamp_type,
};
use headwater_core::memory::{MemoryOfflineStore, MemoryOnlineStore};
use headwater_core::options::Options;
use headwater_core::plugin::Role;
use headwater_core::stream::{
    AssignedSplit, Lag, METADATA_KEY, METADATA_TIMESTAMP, Payload, Progress, ReaderContext, SchemaRegistry, SplitInfo,
    StreamBatch, StreamCapabilities, StreamEvent, StreamReader, StreamSource,
};
use headwater_core::time::ManualClock;
use headwater_core::transform::{Identity, PlannedTransform, Transform};
use headwater_core::{OfflineStore, OnlineStore, Plugin, Position, Registry, Result, SplitId};
use headwater_testkit::Random;
use tokio::sync::Notify;

use super::records;
use crate::ingest::{IngestOptions, JobHandle, Tuning, job};
use crate::project::Project;
use crate::rows::{RowDecoder, values_table};
use crate::view::{Key, StreamInput, View};

pub(super) const NOW: i64 = 1_700_000_000_000_000;

/// The columns of a record: `id`, `ts`, `created`, `value`, and when it was stored.
pub(super) fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![
        ArrowField::new("id", DataType::Int64, true),
        ArrowField::new("ts", timestamp_type(), true),
        ArrowField::new("created", timestamp_type(), true),
        ArrowField::new("value", DataType::Float64, true),
        ArrowField::new(METADATA_TIMESTAMP, timestamp_type(), true),
    ]))
}

pub(super) fn view(name: &str, generation: &str) -> View {
    View {
        name: name.into(),
        generation: generation.into(),
        keys: vec![Key { name: "id".into(), value_type: ValueType::Int64 }],
        event_time: "ts".into(),
        created: Some("created".into()),
        features: vec![Field::new("value", ValueType::Float64)],
        ttl: 0,
        windows: None,
        online: true,
        offline: true,
        batch: None,
        stream: Some(StreamInput {
            source: "events".into(),
            input: input(),
            transform: Identity.plan(&input()).unwrap(),
        }),
    }
}

pub(super) fn transformed_by(mut view: View, transform: Arc<dyn PlannedTransform>) -> View {
    view.stream.as_mut().unwrap().transform = transform;
    view
}

/// What may go wrong with a stream.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Deliver what was delivered before once in so many batches; never for 0.
    pub(super) redeliver_once_in: usize,
    /// Stand still for ever after so many batches, and say so.
    pub(super) stall_after: Option<usize>,
    /// Fail once in so many calls, for a while.
    pub(super) fail_once_in: usize,
    /// How many calls a reader repeats by itself before its first event.
    pub(super) repeated: u64,
    /// Rest for a while before one in so many batches, so that what was delivered is written and synced; never for 0.
    pub(super) rest_once_in: usize,
    /// Do not finish when all is read.
    pub(super) follow: bool,
    /// So many records of each split are gone.
    pub(super) gone: usize,
    pub(super) seed: u64,
}

/// Where a split comes from, and whether it is over.
#[derive(Debug, Clone, Default)]
pub(super) struct Lineage {
    pub(super) parents: Vec<SplitId>,
    pub(super) closed: bool,
}

/// A record of a [`TestStream`], with the time that is stored with it.
#[derive(Debug, Clone)]
pub(super) struct TestRecord {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) stored: i64,
}

/// A stream in memory, by split. Positions count from 1.
#[derive(Debug, Clone, Default)]
pub(super) struct TestStream {
    pub(super) splits: Arc<Mutex<BTreeMap<SplitId, Vec<TestRecord>>>>,
    /// Of splits that were closed, and of their children.
    pub(super) lineage: Arc<Mutex<BTreeMap<SplitId, Lineage>>>,
    pub(super) registry: Option<Arc<dyn SchemaRegistry>>,
    pub(super) deletes: bool,
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) stalled: Arc<Notify>,
    pub(super) committed: Arc<Mutex<BTreeMap<SplitId, Progress>>>,
    pub(super) delivered: Arc<Mutex<usize>>,
    pub(super) resumed: Arc<Mutex<Vec<(SplitId, Position)>>>,
    pub(super) more: Arc<Notify>,
}

impl TestStream {
    pub(super) fn add(&self, split: &str, record: impl Into<Vec<u8>>) {
        self.add_at(split, Some(record), NOW);
    }

    pub(super) fn add_at(&self, split: &str, value: Option<impl Into<Vec<u8>>>, stored: i64) {
        self.add_record(split, TestRecord { key: None, value: value.map(Into::into), stored });
    }

    pub(super) fn add_record(&self, split: &str, record: TestRecord) {
        self.splits.lock().unwrap().entry(SplitId::from(split)).or_default().push(record);
        self.more.notify_one();
    }

    pub(super) fn event(&self, split: &str, id: i64, ts: i64, value: f64) {
        self.add(split, record(id, ts, None, value));
    }

    /// Closes splits, which are followed by others.
    pub(super) fn reshard(&self, closed: &[&str], children: &[&str]) {
        // In this order everywhere, as a reader looks at both.
        let mut splits = self.splits.lock().unwrap();
        let mut lineage = self.lineage.lock().unwrap();
        for split in closed {
            splits.entry(SplitId::from(*split)).or_default();
            lineage.entry(SplitId::from(*split)).or_default().closed = true;
        }
        for child in children {
            splits.entry(SplitId::from(*child)).or_default();
            lineage.entry(SplitId::from(*child)).or_default().parents.extend(closed.iter().map(|s| SplitId::from(*s)));
        }
        self.more.notify_one();
    }

    fn lineage(&self, split: &SplitId) -> Lineage {
        self.lineage.lock().unwrap().get(split).cloned().unwrap_or_default()
    }
}

pub(super) fn time(ts: i64) -> String {
    let (seconds, micros) = (ts.div_euclid(1_000_000), ts.rem_euclid(1_000_000));
    let (minutes, second) = (seconds.div_euclid(60), seconds.rem_euclid(60));
    let (hours, minute) = (minutes.div_euclid(60), minutes.rem_euclid(60));
    let (days, hour) = (hours.div_euclid(24), hours.rem_euclid(24));
    let day = match days {
        -1 => "1969-12-31",
        0 => "1970-01-01",
        _ => panic!("tests keep to two days"),
    };
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

pub(super) fn record(id: i64, ts: i64, created: Option<i64>, value: f64) -> String {
    let created = created.map_or_else(|| "null".into(), |created| format!("\"{}\"", time(created)));
    format!(r#"{{"id":{id},"ts":"{}","created":{created},"value":{value},"more":[1,{{}}]}}"#, time(ts))
}

#[async_trait]
impl StreamSource for TestStream {
    fn capabilities(&self) -> StreamCapabilities {
        let metadata = Schema::new(vec![
            ArrowField::new(METADATA_TIMESTAMP, timestamp_type(), true),
            ArrowField::new(METADATA_KEY, DataType::Binary, true),
        ]);
        StreamCapabilities {
            bounded: !self.script.lock().unwrap().follow,
            splits_end: !self.lineage.lock().unwrap().is_empty(),
            shares_splits: false,
            encoded: true,
            metadata: Some(Arc::new(metadata)),
        }
    }

    fn identity(&self) -> String {
        "test".into()
    }

    fn schemas(&self) -> Option<Arc<dyn SchemaRegistry>> {
        self.registry.clone()
    }

    fn deletes(&self) -> bool {
        self.deletes
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let splits = self.splits.lock().unwrap();
        Ok(splits
            .iter()
            .map(|(split, records)| {
                let Lineage { parents, closed } = self.lineage(split);
                let end = if records.is_empty() { Position::START } else { Position::from_u64(records.len() as u64) };
                SplitInfo { split: split.clone(), parents, end: Some(end), closed }
            })
            .collect())
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        let random = Random::new(self.script.lock().unwrap().seed);
        Ok(Box::new(TestReader {
            stream: self.clone(),
            context,
            random,
            next: BTreeMap::new(),
            said: BTreeSet::new(),
            over: BTreeSet::new(),
            lost: BTreeSet::new(),
            assigned: false,
            batches: 0,
        }))
    }
}

#[derive(Debug)]
struct TestReader {
    stream: TestStream,
    context: ReaderContext,
    random: Random,
    next: BTreeMap<SplitId, usize>,
    /// Splits of which it was said that they have ended.
    said: BTreeSet<SplitId>,
    /// Splits whose end is committed.
    over: BTreeSet<SplitId>,
    /// Splits that have lost records, of which nobody was told.
    lost: BTreeSet<SplitId>,
    assigned: bool,
    batches: usize,
}

impl TestReader {
    /// The splits that can be read now: those that are new, and whose parents are dealt with.
    async fn look_for_splits(&mut self) -> Result<Vec<AssignedSplit>> {
        let splits = self.stream.splits.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut found = Vec::new();
        for split in splits {
            if self.next.contains_key(&split) || self.over.contains(&split) {
                continue;
            }
            // Parents have lesser names, and so were looked at before.
            if !self.stream.lineage(&split).parents.iter().all(|parent| self.over.contains(parent)) {
                continue;
            }
            match self.context.checkpoints.resume(&split).await? {
                Some(Progress::Through(resume)) => found.push(AssignedSplit { split, resume }),
                Some(Progress::End) => drop(self.over.insert(split)),
                None => found.push(AssignedSplit { split, resume: Position::START }),
            }
        }
        for AssignedSplit { split, resume } in &found {
            let next = resume.to_u64().unwrap() as usize;
            let gone = self.stream.script.lock().unwrap().gone;
            self.next.insert(split.clone(), next.max(gone));
            if next < gone {
                self.lost.insert(split.clone());
            }
            self.stream.resumed.lock().unwrap().push((split.clone(), resume.clone()));
        }
        Ok(found)
    }

    /// A split that has ended, and of which that was not said.
    fn ended(&mut self) -> Option<SplitId> {
        let splits = self.stream.splits.lock().unwrap();
        let ended = self.next.iter().find(|(split, next)| {
            !self.said.contains(*split) && **next == splits[*split].len() && self.stream.lineage(split).closed
        });
        let ended = ended.map(|(split, _)| split.clone())?;
        self.said.insert(ended.clone());
        Some(ended)
    }
}

#[async_trait]
impl StreamReader for TestReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        let found = self.look_for_splits().await?;
        if !found.is_empty() || !self.assigned {
            self.assigned = true;
            return Ok(Some(StreamEvent::Assigned(found)));
        }
        loop {
            let (stall, fail, redeliver, rest, follow) = {
                let script = self.stream.script.lock().unwrap();
                let stall = script.stall_after.is_some_and(|after| self.batches >= after);
                (stall, script.fail_once_in, script.redeliver_once_in, script.rest_once_in, script.follow)
            };
            if stall {
                self.stream.stalled.notify_one();
                std::future::pending::<()>().await;
            }
            if fail > 0 && self.random.once_in(fail) {
                return Err(headwater_core::Error::new(headwater_core::ErrorKind::Unavailable, "the stream is away"));
            }
            if rest > 0 && self.random.once_in(rest) {
                tokio::time::sleep(Duration::from_millis(self.random.below(20) as u64)).await;
            }
            if let Some(split) = self.lost.pop_first() {
                let next = self.next[&split];
                let left = self.stream.splits.lock().unwrap()[&split].len() - next;
                let (through, lag) =
                    (Position::from_u64(next as u64), Lag { records: Some(left as u64), ..Lag::default() });
                let batch = StreamBatch { split, through, lost: true, lag: Some(lag), ..records::batch(&[]) };
                return Ok(Some(StreamEvent::Batch(batch)));
            }
            if let Some(split) = self.ended() {
                return Ok(Some(StreamEvent::SplitEnded(split)));
            }
            let batch = {
                let splits = self.stream.splits.lock().unwrap();
                let unread = self.next.iter().filter(|(split, next)| **next < splits[*split].len());
                let open = unread.map(|(split, _)| split.clone()).collect::<Vec<_>>();
                if open.is_empty() {
                    None
                } else {
                    let split = open[self.random.below(open.len())].clone();
                    let records = &splits[&split];
                    let mut from = self.next[&split];
                    if redeliver > 0 && self.random.once_in(redeliver) {
                        from -= self.random.below(from + 1);
                    }
                    let most = self.context.batch_records.min(records.len() - from);
                    let to = (from + 1 + self.random.below(most)).min(records.len());
                    let values = records[from..to].iter().map(|record| record.value.as_deref());
                    let keys: BinaryArray = records[from..to].iter().map(|record| record.key.as_deref()).collect();
                    let stored = records[from..to].iter().map(|record| record.stored);
                    let stored = TimestampMicrosecondArray::from_iter_values(stored).with_timezone("UTC");
                    let metadata: [(_, ArrayRef); 2] =
                        [(METADATA_TIMESTAMP, Arc::new(stored)), (METADATA_KEY, Arc::new(keys))];
                    let positions = (from..to).map(|index| (index as u64 + 1).to_be_bytes());
                    let next = self.next.get_mut(&split).unwrap();
                    *next = (*next).max(to);
                    Some(StreamBatch {
                        payload: Payload::Encoded(values.collect::<BinaryArray>()),
                        positions: BinaryArray::from_iter_values(positions),
                        metadata: Some(
                            RecordBatch::try_from_iter_with_nullable(
                                metadata.map(|(name, column)| (name, column, true)),
                            )
                            .unwrap(),
                        ),
                        through: Position::from_u64(to as u64),
                        lag: Some(Lag { records: Some((records.len() - to) as u64), ..Lag::default() }),
                        lost: false,
                        split,
                    })
                }
            };
            match batch {
                Some(batch) => {
                    self.batches += 1;
                    *self.stream.delivered.lock().unwrap() += batch.payload.len();
                    return Ok(Some(StreamEvent::Batch(batch)));
                }
                // The call ends with the commit of an end, which lets children be read.
                None if !self.said.is_empty() => std::future::pending().await,
                None if follow => {
                    self.stream.more.notified().await;
                    let found = self.look_for_splits().await?;
                    if !found.is_empty() {
                        return Ok(Some(StreamEvent::Assigned(found)));
                    }
                }
                None => return Ok(None),
            }
        }
    }

    fn repeated(&self) -> u64 {
        if self.assigned { self.stream.script.lock().unwrap().repeated } else { 0 }
    }

    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()> {
        self.stream.committed.lock().unwrap().extend(commits.iter().cloned());
        for (split, _) in commits.iter().filter(|(_, progress)| *progress == Progress::End) {
            self.said.remove(split);
            self.next.remove(split);
            self.over.insert(split.clone());
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The streams of all worlds, which share a process.
static STREAMS: LazyLock<Mutex<Vec<TestStream>>> = LazyLock::new(Mutex::default);

headwater_core::options! {
    /// What whoever opens the stream anew has to know of it.
    struct TestOptions {
        /// Its place in `STREAMS`.
        stream: u64,
        /// Whether its records without a value delete.
        deletes: bool = false,
    }
}

/// What the source of [`World`] opens for whoever does not read it.
static PLUGIN: Plugin = Plugin::new("test", "1").with_stream(Role::new::<TestOptions>(|config, _| {
    let options = TestOptions::from_config(config)?;
    let stream = STREAMS.lock().unwrap()[options.stream as usize].clone();
    Ok(Arc::new(TestStream { deletes: options.deletes, ..stream }))
}));

/// A row as tests compare it: split, position, id, event time, value.
pub(super) type LogRow = (String, u64, i64, i64, Option<u64>);

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) definitions: Definitions,
    pub(super) clock: Arc<ManualClock>,
    pub(super) online: Arc<dyn OnlineStore>,
    pub(super) offline: Arc<dyn OfflineStore>,
    pub(super) views: Vec<Arc<View>>,
    pub(super) stream: TestStream,
    pub(super) options: IngestOptions,
    pub(super) registry: Registry,
}

impl World {
    pub(super) fn new() -> Self {
        let mut settings = StreamSettings::new("history");
        settings.record_format = Some(RecordFormat::json("id bigint, ts timestamp, created timestamp, value double"));
        let tuning = Tuning {
            sync_interval: Duration::from_millis(2),
            log_interval: Duration::from_millis(5),
            dead_letter_interval: Duration::from_millis(3),
            build_lease: Duration::from_millis(100),
            take_over_patience: Duration::from_secs(1),
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(4),
            batch_records: 7,
            ..Tuning::default()
        };
        let stream = TestStream::default();
        let mut streams = STREAMS.lock().unwrap();
        streams.push(stream.clone());
        let source = Source::stream("events", "test", settings).option("stream", streams.len() as u64 - 1);
        Self {
            definitions: Definitions::new("test").source(source),
            clock: Arc::new(ManualClock::new(NOW)),
            online: Arc::new(MemoryOnlineStore::new()),
            offline: Arc::new(MemoryOfflineStore::new()),
            views: vec![Arc::new(view("values", "g1"))],
            stream,
            options: IngestOptions { tuning, ..IngestOptions::default() },
            registry: Registry::empty().with(&PLUGIN).unwrap(),
        }
    }

    pub(super) fn settings(&mut self) -> &mut StreamSettings {
        match &mut self.definitions.sources[0].kind {
            headwater_core::definitions::SourceKind::Stream(settings) => settings,
            _ => unreachable!("the source is a stream"),
        }
    }

    pub(super) fn project(&self) -> Arc<Project> {
        Arc::new(Project {
            definitions: self.definitions.clone(),
            registry: self.registry.clone(),
            clock: Arc::<ManualClock>::clone(&self.clock),
            online: Arc::clone(&self.online),
            offline: Arc::clone(&self.offline),
            views: self.views.clone(),
        })
    }

    pub(super) async fn start(&self) -> JobHandle {
        let stream = Arc::new(self.stream.clone());
        job::start_with(self.project(), "events", stream, self.options.clone()).await.unwrap()
    }

    /// Runs a job until it is finished.
    pub(super) async fn run(&self) {
        self.start().await.wait().await.unwrap();
    }

    /// The online table of the first view: id → (event time, value).
    pub(super) async fn online(&self) -> BTreeMap<Bytes, (i64, Option<u64>)> {
        let view = &self.views[0];
        let table = values_table("test", &view.name, &view.generation);
        let rows = self.online.get_prefixes(&table, &[Bytes::new()]).await.unwrap().remove(0);
        let decoder = RowDecoder::new(view, &[0], true);
        rows.into_iter()
            .map(|row| {
                let mut columns = decoder.columns(1);
                columns.append(&row.value).unwrap();
                let value = columns.finish().remove(0);
                let value = value.as_primitive::<Float64Type>();
                let value = value.is_valid(0).then(|| value.value(0).to_bits());
                (row.key, (RowDecoder::event_time(&row.value).unwrap(), value))
            })
            .collect()
    }

    /// All rows of the first view's log, sorted. Repeated rows are repeated here.
    pub(super) async fn log(&self) -> Vec<LogRow> {
        let log = self.offline.log(&self.views[0].log());
        let request = ScanRequest::default();
        let mut rows = Vec::new();
        for fragment in log.fragments(&request).await.unwrap() {
            let mut batches = log.read(&fragment, &request).await.unwrap();
            while let Some(batch) = batches.try_next().await.unwrap() {
                let column = |name: &str| batch.rows.column_by_name(name).unwrap();
                for row in 0..batch.rows.num_rows() {
                    let position = column("_position").as_binary::<i32>().value(row);
                    let value = column("value").as_primitive::<Float64Type>();
                    rows.push((
                        column("_split").as_string::<i32>().value(row).to_owned(),
                        Position::new(position.to_vec()).to_u64().unwrap_or(u64::MAX),
                        column("id").as_primitive::<Int64Type>().value(row),
                        column("ts").as_primitive::<TimestampMicrosecondType>().value(row),
                        value.is_valid(row).then(|| value.value(row).to_bits()),
                    ));
                }
            }
        }
        rows.sort();
        rows
    }

    /// Waits until nothing more is read for a while. Gives how many records were.
    pub(super) async fn read_until_still(&self) -> usize {
        let (mut last, mut still) = (0, 0);
        while still < 50 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let delivered = *self.stream.delivered.lock().unwrap();
            still = if delivered == last && delivered > 0 { still + 1 } else { 0 };
            last = delivered;
        }
        last
    }

    /// Waits until `is_so`, looking every few milliseconds.
    pub(super) async fn until<F: Future<Output = bool>>(&self, what: &str, mut is_so: impl FnMut() -> F) {
        for _ in 0..5_000 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("waited in vain: {what}");
    }
}

/// No two rows of a log are of one record.
pub(super) fn assert_each_once(log: &[LogRow]) {
    let records = log.iter().map(|row| (&row.0, row.1)).collect::<BTreeSet<_>>();
    assert_eq!(records.len(), log.len(), "a record stands twice in the log");
}
