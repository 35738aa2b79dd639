//! Tests of reading schemas and resolving views. Whole files are tested from outside, in `tests/definitions`.

mod ddl;
mod resolve;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use headwater_core::definitions::{Definitions, Entity, FeatureView, RecordFormat, Source, StreamSettings, ValueType};
use headwater_core::memory::{self, MemoryBatchSource, MemoryStreamSource};
use headwater_core::options::{OptionValue, Options};
use headwater_core::plugin::{Plugin, Role};
use headwater_core::stream::{ReaderContext, SplitInfo, StreamCapabilities, StreamReader, StreamSource};
use headwater_core::time::ManualClock;
use headwater_core::transform::{Fingerprint, PlannedTransform, Transform, Transformed};
use headwater_core::{Clock, Error, Registry, Result, Secret, SplitId};

headwater_core::options! {
    /// A table or stream in memory.
    pub(crate) struct TestConfig {
        /// What it is.
        path: String,
        /// Its columns as DDL; nothing is there without them.
        columns: Option<String> = None,
        /// What lets one in.
        password: Option<Secret> = None,
        /// Whether records without a value delete.
        deletes: bool = false,
    }
}

/// Tables and streams in memory. A stream with `columns` has rows, one without has bytes.
static TEST: Plugin = Plugin::new("test", "0")
    .with_batch(Role::new::<TestConfig>(|config, _| {
        let options = TestConfig::from_config(config)?;
        let table = MemoryBatchSource::new(config.resolve(&options.path));
        if let Some(columns) = &options.columns {
            table.add(SplitId::from("0"), RecordBatch::new_empty(schema(columns)));
        }
        Ok(Arc::new(table))
    }))
    .with_stream(Role::new::<TestConfig>(|config, _| {
        let options = TestConfig::from_config(config)?;
        let identity = config.resolve(&options.path);
        let stream = match &options.columns {
            None => MemoryStreamSource::new(identity),
            Some(columns) => MemoryStreamSource::with_schema(identity, schema(columns)),
        };
        Ok(if options.deletes { Arc::new(Deleting(stream)) as Arc<dyn StreamSource> } else { Arc::new(stream) })
    }));

/// A stream whose records without a value delete.
#[derive(Debug)]
struct Deleting(MemoryStreamSource);

#[async_trait]
impl StreamSource for Deleting {
    fn capabilities(&self) -> StreamCapabilities {
        self.0.capabilities()
    }

    fn identity(&self) -> String {
        self.0.identity()
    }

    fn deletes(&self) -> bool {
        true
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        self.0.schema().await
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        self.0.discover().await
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        self.0.subscribe(context).await
    }
}

/// A transform of the text `a, b=c where d`: columns, some of them renamed, and a filter that lets everything pass.
static PICK: Plugin = Plugin::new("pick", "0").with_transform(|text| Ok(Arc::new(Pick(text.to_owned()))));

/// What is left of a plugin whose feature is off.
static OFF: Plugin = Plugin::new("off", "0").enabled(false);

/// The same of one that has always checked its options.
static AWAY: Plugin = Plugin::new("away", "0")
    .with_stream(Role::new::<TestConfig>(|_, _| Err(Error::unexpected("a plugin that is off was opened"))))
    .enabled(false);

#[derive(Debug)]
struct Pick(String);

#[derive(Debug)]
struct Picked {
    output: SchemaRef,
    indices: Vec<usize>,
    fingerprint: Fingerprint,
}

impl Transform for Pick {
    fn plan(&self, input: &SchemaRef) -> Result<Arc<dyn PlannedTransform>> {
        let (columns, filter) = self.0.split_once(" where ").unwrap_or((&self.0, ""));
        let mut fields = Vec::new();
        let mut indices = Vec::new();
        let mut expressions = BTreeMap::new();
        for column in columns.split(',').map(str::trim) {
            let (name, from) = column.split_once('=').unwrap_or((column, column));
            let (index, field) =
                input.column_with_name(from).ok_or_else(|| Error::invalid(format!("there is no column `{from}`")))?;
            fields.push(field.clone().with_name(name));
            indices.push(index);
            expressions.insert(name.to_owned(), from.to_owned());
        }
        let fingerprint = Fingerprint { rows: filter.to_owned(), columns: expressions };
        Ok(Arc::new(Picked { output: Arc::new(Schema::new(fields)), indices, fingerprint }))
    }
}

impl PlannedTransform for Picked {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.clone()
    }

    fn apply(&self, input: &RecordBatch) -> Result<Transformed> {
        let columns = self.indices.iter().map(|index| Arc::clone(input.column(*index))).collect();
        Ok(Transformed { rows: RecordBatch::try_new(self.output(), columns)?, inputs: None })
    }
}

pub(crate) fn schema(ddl: &str) -> SchemaRef {
    super::ddl::parse(ddl).unwrap()
}

pub(crate) fn registry() -> Registry {
    let plugins = [&TEST, &PICK, &OFF, &AWAY, &memory::PLUGIN, &headwater_plugin_kafka::PLUGIN];
    plugins.into_iter().fold(Registry::empty(), |registry, plugin| registry.with(plugin).unwrap())
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(1_000_000))
}

pub(crate) const EVENTS: &str = "driver_id int, ts timestamp, made timestamp, conv double, acc double";

/// A project with a table, a stream of its history, and a view of that stream.
pub(crate) fn project(view: impl Fn(FeatureView) -> FeatureView) -> Definitions {
    let stream =
        Source::stream("events", "test", StreamSettings::new("table").record_format(RecordFormat::json(EVENTS)));
    Definitions::new("demo")
        .entity(Entity::new("driver", ValueType::Int64).join_key("driver_id"))
        .source(
            Source::batch("table", "test")
                .option("path", "table")
                .timestamp_field("ts")
                .created_timestamp_column("made"),
        )
        .source(stream.option("path", "events"))
        .view(view(
            FeatureView::stream("view", "events")
                .entity("driver")
                .pick("driver_id, ts, made, rate=conv")
                .feature("rate", ValueType::Float32),
        ))
}

/// The builder of the transform above.
pub(crate) trait PickExt {
    fn pick(self, text: &str) -> Self;
}

impl PickExt for FeatureView {
    fn pick(mut self, text: &str) -> Self {
        self.transform =
            headwater_core::definitions::ViewTransform::Text { mode: "pick".into(), text: text.to_owned() };
        self
    }
}

#[test]
fn option_types_agree_with_their_readers() {
    let values = ["5", "\"5m\"", "true", "null", "[]", "{\"a\": 1}", "{\"a\": []}", "-1", "\"x\""];
    for value in values.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap()) {
        assert_eq!(<String as OptionValue>::KIND.check(&value).is_ok(), String::read(&value).is_ok(), "{value}");
        assert_eq!(<u64 as OptionValue>::KIND.check(&value).is_ok(), u64::read(&value).is_ok(), "{value}");
        assert_eq!(<bool as OptionValue>::KIND.check(&value).is_ok(), bool::read(&value).is_ok(), "{value}");
    }
}
