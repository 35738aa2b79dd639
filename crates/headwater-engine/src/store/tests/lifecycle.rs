//! A whole store: applied, fed by a stream, read, reset and torn down.

mod reset;
mod windows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, SchemaRef};
use async_trait::async_trait;
use headwater_core::definitions::{Aggregation, Definitions, Entity, FeatureView, Source, StreamSettings, ValueType};
use headwater_core::memory::{MemoryOfflineStore, MemoryOnlineStore, MemoryStreamSource};
use headwater_core::offline::{LogId, LogRange, OfflineStore};
use headwater_core::online::{OnlineRow, OnlineStore};
use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};
use headwater_core::stream::{ReaderContext, SplitInfo, StartPosition, StreamCapabilities};
use headwater_core::time::ManualClock;
use headwater_core::{
    Error, ErrorKind, Micros, Origin, Position, Registry, Result, SplitId, StreamReader, StreamSource,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::super::{EntityColumns, FeatureStore, Features, NextEpoch, PushTarget, WindowStatus};
use super::{DAY, HOUR, TABLE, TableConfig, batch, times};
use crate::history::{EntityRows, HistoryOptions};
use crate::ingest::{IngestOptions, JobState};
use crate::rows::log_rows;
use crate::view::ViewRows;
use crate::windows::epoch::{self, BuildProgress, Epoch, EpochState, SplitProgress};

static STREAMS: LazyLock<Mutex<BTreeMap<String, MemoryStreamSource>>> = LazyLock::new(Mutex::default);

static FEED: Plugin = Plugin::new("feed", "0").with_stream(Role::new::<TableConfig>(|config, _| {
    let name = TableConfig::from_config(config)?.table;
    let streams = STREAMS.lock().unwrap();
    let stream = streams.get(&name).cloned().ok_or_else(|| Error::not_found("there is no such stream"))?;
    Ok(Arc::new(Noting(stream)) as Arc<dyn StreamSource>)
}));

/// Who waits, by stream, for its splits to be asked for, and then once more before they are told.
static ASKED: LazyLock<Mutex<BTreeMap<String, Arc<Barrier>>>> = LazyLock::new(Mutex::default);

/// A stream that notes where it first began.
#[derive(Debug)]
struct Noting(MemoryStreamSource);

#[async_trait]
impl StreamSource for Noting {
    fn capabilities(&self) -> StreamCapabilities {
        self.0.capabilities()
    }

    fn identity(&self) -> String {
        self.0.identity()
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        self.0.schema().await
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let asked = ASKED.lock().unwrap().remove(&self.identity());
        if let Some(asked) = asked {
            asked.wait().await;
            asked.wait().await;
        }
        self.0.discover().await
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        if context.checkpoints.noted("begun").await?.is_none() {
            context.checkpoints.note(&[("begun".into(), format!("{:?}", context.start).into())]).await?;
        }
        self.0.subscribe(context).await
    }
}

/// What outlives a [`FeatureStore`]: stores, streams, the folder of the registry file.
struct World {
    name: String,
    folder: tempfile::TempDir,
    online: Arc<MemoryOnlineStore>,
    offline: Arc<MemoryOfflineStore>,
    clock: Arc<ManualClock>,
    stream: MemoryStreamSource,
}

fn rows(rows: &[(i64, Micros, f64)]) -> RecordBatch {
    batch(vec![
        ("driver_id", Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>()) as ArrayRef),
        ("event_timestamp", times(&rows.iter().map(|row| Some(row.1)).collect::<Vec<_>>())),
        ("rate", Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Float64Array>())),
        ("trips", Arc::new(rows.iter().map(|row| Some(row.0 % 10)).collect::<Int64Array>())),
    ])
}

impl World {
    fn new(name: &str) -> Self {
        let stream = MemoryStreamSource::with_schema(name, rows(&[]).schema()).bounded(true);
        stream.add_split(SplitId::from("0"), &[]);
        STREAMS.lock().unwrap().insert(name.to_owned(), stream.clone());
        Self {
            name: name.to_owned(),
            folder: tempfile::tempdir().unwrap(),
            online: Arc::new(MemoryOnlineStore::new()),
            offline: Arc::new(MemoryOfflineStore::new()),
            clock: Arc::new(ManualClock::new(DAY)),
            stream,
        }
    }

    fn definitions(&self, project: &str) -> Definitions {
        Definitions::new(project)
            .registry(format!("{project}.json"))
            .base_dir(self.folder.path())
            .entity(Entity::new("driver", ValueType::Int64).join_key("driver_id"))
            .source(Source::batch("history", "table").option("table", "nowhere").timestamp_field("event_timestamp"))
            .source(
                Source::stream("drivers", "feed", StreamSettings::new("history"))
                    .option("table", self.name.clone())
                    .timestamp_field("event_timestamp"),
            )
            .view(
                FeatureView::stream("stats", "drivers")
                    .entity("driver")
                    .feature("rate", ValueType::Float64)
                    .offline(true),
            )
    }

    async fn open(&self, definitions: Definitions) -> FeatureStore {
        FeatureStore::builder()
            .definitions(definitions)
            .registry(
                Registry::empty()
                    .with(&TABLE)
                    .unwrap()
                    .with(&FEED)
                    .unwrap()
                    .with(&headwater_core::memory::PLUGIN)
                    .unwrap(),
            )
            .clock(Arc::clone(&self.clock) as _)
            .online_store(Arc::clone(&self.online) as _)
            .offline_store(Arc::clone(&self.offline) as _)
            .open()
            .await
            .unwrap()
    }

    fn append(&self, records: &[(i64, Micros, f64)]) {
        self.stream.append_rows(&SplitId::from("0"), &rows(records), DAY).unwrap();
    }
}

async fn ingest(store: &FeatureStore) {
    let options = IngestOptions { until_caught_up: true, ..IngestOptions::default() };
    store.ingest("drivers", options).await.unwrap().wait().await.unwrap();
}

async fn read(store: &FeatureStore, feature: &str, driver: i64) -> Value {
    let entities = EntityColumns::default().column("driver_id", [driver]);
    let answer = store.get_online_features(Features::names([feature]), entities, false).await.unwrap();
    let column = serde_json::to_value(&answer.columns[1]).unwrap();
    json!([column["values"][0], column["statuses"][0]])
}

/// The generation that a view's next rows belong to.
async fn generation(store: &FeatureStore, view: &str) -> String {
    let views = store.status().await.unwrap().views;
    views.into_iter().find(|status| status.view == view).unwrap().generation
}

async fn history(store: &FeatureStore, asked: &[(i64, Micros)]) -> Vec<Option<f64>> {
    let rows = batch(vec![
        ("driver_id", Arc::new(asked.iter().map(|row| Some(row.0)).collect::<Int64Array>()) as ArrayRef),
        ("event_timestamp", times(&asked.iter().map(|row| Some(row.1)).collect::<Vec<_>>())),
    ]);
    let entities = EntityRows::new(rows.schema(), vec![rows]).unwrap();
    let set = store
        .get_historical_features(entities, Features::names(["stats:rate"]), false, HistoryOptions::default())
        .await
        .unwrap();
    let batches = set.collect().await.unwrap();
    batches.iter().flat_map(|batch| batch["rate"].as_primitive::<Float64Type>().iter().collect::<Vec<_>>()).collect()
}

fn logged(log: &[Option<f64>]) -> Vec<f64> {
    log.iter().flatten().copied().collect()
}

#[tokio::test]
async fn nothing_works_before_it_is_applied() {
    let world = World::new("before");
    let store = world.open(world.definitions("before")).await;
    let all: Vec<Result<()>> = vec![
        store.status().await.map(drop),
        store.compact().await.map(drop),
        store.push("drivers", &[], PushTarget::Online).await.map(drop),
        store.get_online_features(["stats"], EntityColumns::default(), false).await.map(drop),
        store.ingest("drivers", IngestOptions::default()).await.map(drop),
    ];
    for outcome in all {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("nothing was applied yet for project `before`"), "{error}");
    }
    // Planning changes nothing; a teardown of nothing is none.
    assert!(!store.plan().await.unwrap().is_empty());
    assert!(!Path::new(&world.folder.path().join("before.json")).exists());
    assert_eq!(store.teardown().await.unwrap(), super::super::Teardown::default());
}

#[tokio::test]
async fn a_stream_becomes_features_and_a_training_set() {
    let world = World::new("whole");
    let store = world.open(world.definitions("whole")).await;
    assert!(!store.apply().await.unwrap().is_empty());
    assert!(store.apply().await.unwrap().is_empty(), "a second apply has nothing to do");
    world.append(&[(1, DAY - HOUR, 0.1), (2, DAY - HOUR, 0.2), (1, DAY - 1, 0.3)]);
    assert_eq!(store.stream_sources().await.unwrap(), ["drivers"]);
    ingest(&store).await;
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.3, "PRESENT"]));
    assert_eq!(read(&store, "stats:rate", 9).await, json!([null, "NOT_FOUND"]));
    let asked = [(1, DAY), (1, DAY - 2), (1, DAY - HOUR - 1), (2, DAY), (9, DAY)];
    assert_eq!(history(&store, &asked).await, [Some(0.3), Some(0.1), None, Some(0.2), None]);

    // A push goes to both, and its rows count like any other.
    store.push("drivers", &[rows(&[(2, DAY, 0.9)])], PushTarget::OnlineAndOffline).await.unwrap();
    assert_eq!(read(&store, "stats:rate", 2).await, json!([0.9, "PRESENT"]));
    assert_eq!(history(&store, &[(2, DAY), (2, DAY - 1)]).await, [Some(0.9), Some(0.2)]);

    let status = store.status().await.unwrap();
    let view = &status.views[0];
    assert_eq!((view.view.as_str(), view.source.as_str()), ("stats", "drivers"));
    assert_eq!(view.serving.as_ref(), Some(&view.generation));
    assert_eq!(view.notes, ["batch source `history` does not exist, so it has no rows"]);
    assert_eq!(status.jobs[0].state, JobState::Stopped);
    assert_eq!(status.jobs[0].splits[0].counts.rows, 3);
    // Another process sees the same.
    let other = world.open(world.definitions("whole")).await;
    assert_eq!(read(&other, "stats:rate", 1).await, json!([0.3, "PRESENT"]));
    assert_eq!(other.warnings().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_applied_counts_until_the_next_apply() {
    let world = World::new("applied");
    let store = world.open(world.definitions("applied")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 1, 0.1)]);
    ingest(&store).await;

    let mut edited = world.definitions("applied");
    edited.feature_views[0] = edited.feature_views[0].clone().feature("trips", ValueType::Int64);
    let store = world.open(edited).await;
    let warnings = store.warnings().await.unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("headwater plan"), "{warnings:?}");
    let error = store.get_online_features(["stats:trips"], EntityColumns::default(), false).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no feature `trips` in view `stats`; there are `rate`");

    // A column that is added keeps the generation: older rows hold null there.
    let before = store.status().await.unwrap().views[0].generation.clone();
    store.apply().await.unwrap();
    assert_eq!(store.status().await.unwrap().views[0].generation, before);
    assert_eq!(store.warnings().await.unwrap(), Vec::<String>::new());
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.1, "PRESENT"]));
    assert_eq!(read(&store, "stats:trips", 1).await, json!([null, "NULL_VALUE"]));
    world.append(&[(1, DAY, 0.2)]);
    ingest(&store).await;
    assert_eq!(read(&store, "stats:trips", 1).await, json!([1, "PRESENT"]));
}

#[tokio::test]
async fn a_new_generation_takes_over_when_it_has_caught_up() {
    let world = World::new("takeover");
    let store = world.open(world.definitions("takeover")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 1, 0.5)]);
    ingest(&store).await;
    let old = store.status().await.unwrap().views[0].generation.clone();
    // Another type makes other rows.
    let mut edited = world.definitions("takeover");
    edited.feature_views[0].schema[0].dtype = ValueType::Float32;
    let store = world.open(edited).await;
    world.clock.advance(1);
    store.apply().await.unwrap();
    let status = store.status().await.unwrap();
    assert_ne!(status.views[0].generation, old);
    assert_eq!(status.views[0].serving.as_ref(), Some(&old));
    assert!(status.views[0].notes.iter().any(|note| note.contains("serves until a job has caught up")), "{status:?}");
    // The old generation's values are of another type: they read as null, not as something else.
    assert_eq!(read(&store, "stats:rate", 1).await, json!([null, "NULL_VALUE"]));
    ingest(&store).await;
    world.clock.advance(2_000_000);
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.5, "PRESENT"]));
    let tables = |prefix: String| {
        let online = Arc::clone(&world.online);
        async move { online.tables().await.unwrap().iter().filter(|table| table.starts_with(&prefix)).count() }
    };
    assert_eq!(tables("takeover/stats/".into()).await, 2);
    store.compact().await.unwrap();
    assert_eq!(tables(format!("takeover/stats/{old}")).await, 0, "values that no longer serve are dropped");
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.5, "PRESENT"]));
}

#[tokio::test]
async fn a_teardown_removes_this_project_and_no_other() {
    let world = World::new("teardown");
    let store = world.open(world.definitions("teardown")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 1, 0.1)]);
    ingest(&store).await;
    // Another project in the same stores, whose name begins alike.
    let row = OnlineRow { key: "k".into(), version: "v".into(), value: "x".into(), expiry: None };
    world.online.put("teardown2/stats/g", vec![row]).await.unwrap();
    let log = LogId { view: "others".into(), generation: "g".into() };
    let range = LogRange { after: Position::START, through: Position::from_u64(1) };
    let piece = log_rows(&ViewRows {
        rows: rows(&[(1, DAY, 0.1)]),
        origin: Origin::Stream,
        split: SplitId::from("0"),
        positions: BinaryArray::from(vec![&1_u64.to_be_bytes()[..]]),
        ordinals: None,
    })
    .unwrap();
    world.offline.append(&log, &SplitId::from("0"), piece, range, BTreeMap::new()).await.unwrap();

    let removed = store.teardown().await.unwrap();
    assert!(removed.tables.iter().any(|table| table == "teardown/_checkpoints"), "{removed:?}");
    assert_eq!(removed.logs.len(), 1);
    assert_eq!(world.online.tables().await.unwrap(), ["teardown2/stats/g"]);
    assert_eq!(world.offline.logs().await.unwrap(), [log]);
    assert!(!world.folder.path().join("teardown.json").exists());
    assert_eq!(store.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    // It can be begun anew, from nothing.
    store.apply().await.unwrap();
    assert_eq!(read(&store, "stats:rate", 1).await, json!([null, "NOT_FOUND"]));
    ingest(&store).await;
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.1, "PRESENT"]));
}
