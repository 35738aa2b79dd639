//! Online reads, pushes and materialisation, over memory stores and a project made by hand.

mod json;
mod lifecycle;
mod materialize;
mod online;
mod push;
mod verify;
mod windows;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headwater_core::definitions::{Definitions, FeatureService, Field, Source, StreamSettings, ValueType};
use headwater_core::memory::{MemoryBatchSource, MemoryOfflineStore, MemoryOnlineStore};
use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};
use headwater_core::time::ManualClock;
use headwater_core::transform::{Identity, Transform};
use headwater_core::{Micros, Origin, Registry, SplitId};
use serde_json::{Value, json};

use super::features::Features;
use super::json::EntityColumns;
use super::online::{OnlineFeatures, ServingCache, get_online_features};
use crate::project::Project;
use crate::rows::{RowEncoder, values_table};
use crate::view::{BatchInput, Key, StreamInput, View, ViewRows};

/// 2026-01-01T00:00:00Z.
const DAY: Micros = 1_767_225_600_000_000;
const HOUR: Micros = 3_600_000_000;

static TABLES: LazyLock<Mutex<BTreeMap<String, MemoryBatchSource>>> = LazyLock::new(Mutex::default);

headwater_core::options! {
    /// Options of the test plugin `table`.
    struct TableConfig {
        /// Its name in `TABLES`.
        table: String,
    }
}

static TABLE: Plugin = Plugin::new("table", "0").with_batch(Role::new::<TableConfig>(|config, _| {
    let table = TableConfig::from_config(config)?.table;
    let tables = TABLES.lock().unwrap();
    Ok(Arc::new(tables.get(&table).cloned().unwrap_or_else(|| MemoryBatchSource::new(table))))
}));

/// A project of three views: `stats` (stream and batch, logged), `hourly` (batch, ttl two hours) and `world` (pushed,
/// without entities).
struct Fixture {
    project: Project,
    clock: Arc<ManualClock>,
    serving: ServingCache,
}

fn key(name: &str, value_type: ValueType) -> Key {
    Key { name: name.into(), value_type }
}

fn view(name: &str, keys: Vec<Key>, features: &[(&str, ValueType)]) -> View {
    View {
        name: name.into(),
        generation: "g1".into(),
        keys,
        event_time: "event_timestamp".into(),
        created: None,
        features: features.iter().map(|(name, dtype)| Field::new(*name, dtype.clone())).collect(),
        ttl: 0,
        online: true,
        offline: false,
        batch: None,
        stream: None,
        windows: None,
    }
}

fn stream(source: &str, view: &View) -> StreamInput {
    let input = view.schema();
    StreamInput { source: source.into(), transform: Identity.plan(&input).unwrap(), input }
}

impl Fixture {
    /// `test` names the fixture's batch tables: tests share a process.
    fn new(test: &str) -> Self {
        let mut stats = view(
            "stats",
            vec![key("driver_id", ValueType::Int64)],
            &[("rate", ValueType::Float64), ("city", ValueType::String)],
        );
        stats.created = Some("created".into());
        stats.offline = true;
        stats.stream = Some(stream("stats_stream", &stats));
        stats.batch = Some(BatchInput {
            source: "stats_table".into(),
            columns: [("rate".to_string(), "conv_rate".to_string())].into(),
        });
        let mut hourly = view(
            "hourly",
            vec![key("city", ValueType::String), key("driver_id", ValueType::Int64)],
            &[("trips", ValueType::Int64)],
        );
        hourly.ttl = 2 * HOUR;
        hourly.batch = Some(BatchInput { source: "hourly_table".into(), columns: BTreeMap::new() });
        let mut world = view("world", Vec::new(), &[("rate", ValueType::Float64)]);
        world.stream = Some(stream("world_push", &world));

        let definitions = Definitions::new("test")
            .source(Source::batch("stats_table", "table").option("table", format!("{test}/stats")))
            .source(Source::batch("hourly_table", "table").option("table", format!("{test}/hourly")))
            .source(Source::stream("stats_stream", "table", StreamSettings::new("stats_table")))
            .source(Source::push("world_push", None))
            .source(Source::push("idle_push", None))
            .service(FeatureService::new("all", ["stats", "hourly:trips"]));
        let clock = Arc::new(ManualClock::new(DAY));
        Self {
            project: Project {
                definitions,
                registry: Registry::empty().with(&TABLE).unwrap(),
                clock: Arc::clone(&clock) as _,
                online: Arc::new(MemoryOnlineStore::new()),
                offline: Arc::new(MemoryOfflineStore::new()),
                views: [stats, hourly, world].into_iter().map(Arc::new).collect(),
            },
            clock,
            serving: ServingCache::default(),
        }
    }

    /// Changes a view.
    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut View)) {
        let view = self.project.views.iter_mut().find(|view| view.name == name).unwrap();
        edit(Arc::make_mut(view));
    }

    /// Stores a row of `stats`, as the stream would.
    async fn stats(&self, driver: i64, time: Micros, rate: Option<f64>, city: Option<&str>) {
        self.put("stats", stats_rows(&[(driver, time, Some(time), rate, city)])).await;
    }

    async fn put(&self, view: &str, rows: RecordBatch) {
        let view = self.project.view(view).unwrap();
        let rows = ViewRows {
            positions: (1..=rows.num_rows() as u64).map(|n| Some(n.to_be_bytes())).collect::<BinaryArray>(),
            rows,
            origin: Origin::Stream,
            split: SplitId::from("0"),
            ordinals: None,
        };
        let rows = RowEncoder::new(view).unwrap().encode(&rows).unwrap();
        self.project.online.put(&values_table("test", &view.name, &view.generation), rows).await.unwrap();
    }

    async fn read(&self, features: &[&str], entities: Value) -> headwater_core::Result<OnlineFeatures> {
        let entities: EntityColumns = serde_json::from_str(&entities.to_string()).unwrap();
        let features = Features::names(features.iter().copied());
        get_online_features(&self.project, &self.serving, &features, &entities.into(), false).await
    }

    async fn error(&self, features: &[&str], entities: Value) -> String {
        self.read(features, entities).await.unwrap_err().to_string()
    }

    /// The value and status of the only row of a feature.
    async fn one(&self, feature: &str, entities: Value) -> Value {
        let answer = serde_json::to_value(self.read(&[feature], entities).await.unwrap()).unwrap();
        let last = answer["results"].as_array().unwrap().last().unwrap().clone();
        json!([last["values"][0], last["statuses"][0]])
    }
}

type Stats<'a> = (i64, Micros, Option<Micros>, Option<f64>, Option<&'a str>);

/// Rows of `stats`: driver, event time, created, rate, city.
fn stats_rows(rows: &[Stats<'_>]) -> RecordBatch {
    RecordBatch::try_new(
        Fixture::new("schema").project.view("stats").unwrap().schema(),
        vec![
            Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>()) as ArrayRef,
            times(&rows.iter().map(|row| Some(row.1)).collect::<Vec<_>>()),
            times(&rows.iter().map(|row| row.2).collect::<Vec<_>>()),
            Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.4).collect::<StringArray>()),
        ],
    )
    .unwrap()
}

fn times(times: &[Option<Micros>]) -> ArrayRef {
    Arc::new(times.iter().copied().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}
