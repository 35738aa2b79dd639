//! Windowed views: any stream, any restarts, any builds of epochs in between end in what the events themselves give,
//! online and offline.

mod any;
mod builds;
mod expiry;
mod late;
mod reads;
mod switch;
mod training;
mod verify;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use headwater_core::definitions::{AggregateFunction as F, Field, RecordFormat, Source, ValueType, timestamp_type};
use headwater_core::memory::MemoryBatchSource;
use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};
use headwater_core::stream::METADATA_TIMESTAMP;
use headwater_core::time::Clock;
use headwater_core::transform::{Identity, Transform};
use headwater_core::{ErrorKind, Micros, Result, SplitId};
use serde_json::json;

use super::world::*;
use crate::history::{EntityRows, HistoryOptions};
use crate::ingest::windows::load;
use crate::project::Project;
use crate::store::{self, Features, Materialized};
use crate::view::{BatchInput, View};
use crate::windows::epoch::Epochs;
use crate::windows::tests::oracle::{Value, aggregate, agrees, value};
use crate::windows::{Window, WindowFeature, Windows, output_type};

const SECOND: Micros = 1_000_000;

static TABLES: LazyLock<Mutex<BTreeMap<String, MemoryBatchSource>>> = LazyLock::new(Mutex::default);

headwater_core::options! {
    /// Options of the test plugin `windows_table`.
    struct TableConfig {
        /// Its name in `TABLES`.
        table: String,
    }
}

static TABLE: Plugin = Plugin::new("windows_table", "0").with_batch(Role::new::<TableConfig>(|config, _| {
    let table = TableConfig::from_config(config)?.table;
    let tables = TABLES.lock().unwrap();
    Ok(Arc::new(tables.get(&table).cloned().unwrap_or_else(|| MemoryBatchSource::new(table))))
}));

/// The columns that aggregations are computed from.
const COLUMNS: [(&str, ValueType); 3] =
    [("value", ValueType::Float64), ("number", ValueType::Int64), ("word", ValueType::String)];

/// An event. A batch row has no split.
#[derive(Debug, Clone, Default)]
struct Event {
    split: Option<&'static str>,
    id: i64,
    ts: Micros,
    created: Option<Micros>,
    value: Option<f64>,
    number: Option<i64>,
    word: Option<&'static str>,
}

impl Event {
    fn record(&self) -> String {
        let text = |text: Option<String>| text.map_or_else(|| "null".to_owned(), |text| format!("\"{text}\""));
        format!(
            r#"{{"id":{},"ts":"{}","created":{},"value":{},"number":{},"word":{}}}"#,
            self.id,
            time(self.ts),
            text(self.created.map(time)),
            // As text a float may be NaN, and keeps the sign of zero.
            text(self.value.map(|value| format!("{value:?}"))),
            text(self.number.map(|number| number.to_string())),
            text(self.word.map(str::to_owned))
        )
    }

    /// The value of a column; `None` for a null.
    fn column(&self, column: usize) -> Option<Value> {
        match column {
            0 => self.value.map(Value::Float),
            1 => self.number.map(|number| Value::Int(number.into())),
            _ => self.word.map(|word| Value::Text(word.into())),
        }
    }
}

/// The columns of a record.
fn columns() -> SchemaRef {
    let field = |name: &str, dtype: DataType| ArrowField::new(name, dtype, true);
    let own = COLUMNS.map(|(name, dtype)| field(name, dtype.to_arrow()));
    let mut fields =
        vec![field("id", DataType::Int64), field("ts", timestamp_type()), field("created", timestamp_type())];
    fields.extend(own);
    fields.push(field(METADATA_TIMESTAMP, timestamp_type()));
    Arc::new(Schema::new(fields))
}

const FUNCTIONS: [F; 11] = [
    F::Sum,
    F::Count,
    F::Min,
    F::Max,
    F::Mean,
    F::Stddev,
    F::Last,
    F::LastN { n: 3 },
    F::LastDistinctN { n: 2 },
    F::ApproxCountDistinct,
    F::ApproxPercentile { percentile: 0.75 },
];

/// Every function over two windows and a lifetime, of the column `value`. Variants differ in their windows.
fn windowed(variant: usize) -> View {
    windowed_over(variant, |_, _| Some(0), &format!("w{variant}"))
}

/// As [`windowed`]; `column` chooses for each function and window a column, of which the first from there on that the
/// function takes is meant, or leaves it out.
fn windowed_over(variant: usize, column: impl Fn(usize, usize) -> Option<usize>, fingerprint: &str) -> View {
    let window = |length, hop| Some(Window { length, hop });
    let windows = match variant {
        0 => [window(60 * SECOND, 7 * SECOND), window(10 * SECOND, 10 * SECOND / 12), None],
        1 => [window(60 * SECOND, 7 * SECOND), window(90 * SECOND, 5 * SECOND), None],
        // Without a lifetime, for which everything that there is is needed.
        _ => [window(60 * SECOND, 7 * SECOND), window(20 * SECOND, 5 * SECOND), window(20 * SECOND, 20 * SECOND)],
    };
    let mut features = vec![WindowFeature {
        field: Field::new("rows", ValueType::Int64),
        function: F::Count,
        column: None,
        window: *windows.last().unwrap(),
    }];
    for (at, window) in windows.into_iter().enumerate() {
        features.extend(FUNCTIONS.into_iter().enumerate().filter_map(|(index, function)| {
            let fits = |column: usize| Some((column, output_type(function, Some(&COLUMNS[column].1)).ok()?));
            let (column, dtype) = (column(index, at)?..).find_map(|column| fits(column % COLUMNS.len())).unwrap();
            let field = Field::new(format!("{function}_{at}"), dtype);
            Some(WindowFeature { field, function, column: Some(column), window })
        }));
    }
    let mut view = view("values", "g1");
    let stream = view.stream.as_mut().unwrap();
    stream.input = columns();
    stream.transform = Identity.plan(&columns()).unwrap();
    view.features = features.iter().map(|feature| feature.field.clone()).collect();
    let columns = COLUMNS.map(|(name, dtype)| Field::new(name, dtype)).to_vec();
    view.windows = Some(Arc::new(Windows { columns, features, fingerprint: fingerprint.into() }));
    view.batch = Some(BatchInput { source: "history".into(), columns: BTreeMap::new() });
    view
}

/// A world with a windowed view and its batch table. `test` names the table: tests share a process.
fn world(test: &str, view: View, batch: &[Event]) -> World {
    let mut world = World::new();
    world.registry = world.registry.with(&TABLE).unwrap();
    let source = Source::batch("history", "windows_table").option("table", test.to_owned());
    world.definitions = world.definitions.source(source);
    world.settings().record_format = Some(RecordFormat::json(
        "id bigint, ts timestamp, created timestamp, value double, number bigint, word string",
    ));
    world.views = vec![view.into()];
    world.clock.set(300 * SECOND);
    table(test, batch);
    world
}

fn table(test: &str, rows: &[Event]) {
    let table = MemoryBatchSource::new(test).with_fragment_rows(7);
    for (at, rows) in rows.chunks(20).enumerate() {
        let columns: [(&str, ArrayRef); 6] = [
            ("id", Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int64Array>())),
            ("ts", times(rows.iter().map(|row| Some(row.ts)))),
            ("created", times(rows.iter().map(|row| row.created))),
            ("value", Arc::new(rows.iter().map(|row| row.value).collect::<Float64Array>())),
            ("number", Arc::new(rows.iter().map(|row| row.number).collect::<Int64Array>())),
            ("word", Arc::new(rows.iter().map(|row| row.word).collect::<StringArray>())),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        table.add(
            SplitId::from(format!("{at}.parquet").as_str()),
            RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
        );
    }
    TABLES.lock().unwrap().insert(test.into(), table);
}

fn times(times: impl Iterator<Item = Option<Micros>>) -> ArrayRef {
    Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// The events that count, of each entity, oldest version first: batch rows before `log_from`, events from it on. Batch
/// rows stand in order of their files, events in order of their splits' positions.
#[derive(Debug)]
struct Truth<'a>(BTreeMap<i64, Vec<&'a Event>>);

impl<'a> Truth<'a> {
    fn new(batch: &'a [Event], events: &'a [Event], log_from: Option<Micros>) -> Self {
        let counts = |event: &&Event| match (event.split, log_from) {
            (None, None) => false,
            (None, Some(from)) => event.ts < from,
            (Some(_), from) => from.is_none_or(|from| event.ts >= from),
        };
        let mut rows: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
        for event in batch.iter().chain(events).filter(counts) {
            rows.entry(event.id).or_default().push(event);
        }
        // Stable, so that rows of one file or split keep their order.
        rows.values_mut().for_each(|rows| rows.sort_by_key(|row| (row.ts, row.created, row.split)));
        Self(rows)
    }

    fn rows(&self, id: i64) -> &[&'a Event] {
        self.0.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The time that an online read at `now` is of.
    fn read_at(&self, id: i64, now: Micros) -> Micros {
        self.rows(id).last().map_or(now, |row| row.ts.max(now))
    }

    /// The features of an entity at `t`; `by_created`: of what was made by then.
    fn features(&self, view: &View, id: i64, t: Micros, by_created: bool) -> Vec<Value> {
        let made = |row: &&&Event| !by_created || row.created.is_none_or(|created| created <= t);
        let rows = self.rows(id).iter().filter(|row| row.ts <= t).filter(made).collect::<Vec<_>>();
        let feature = |feature: &WindowFeature| {
            let from = feature.window.map_or(Micros::MIN, |window| {
                let from = t - window.length;
                from.div_euclid(window.hop) * window.hop
            });
            let inside = rows.iter().filter(|row| row.ts >= from);
            let values = inside.filter_map(|row| match feature.column {
                None => Some(Value::Int(1)),
                Some(column) => row.column(column),
            });
            aggregate(feature.function, values.collect())
        };
        view.windows.as_ref().unwrap().features.iter().map(feature).collect()
    }
}

/// What is served, and the time that each row is of.
async fn online(project: &Project, serving: &store::Serving, ids: &[i64]) -> (Vec<Vec<Value>>, Vec<Micros>) {
    let entities: store::EntityColumns = serde_json::from_str(&json!({ "id": ids }).to_string()).unwrap();
    let features = Features::names(["values"]);
    let answer = store::get_online_features(project, serving, &features, &entities.into(), false).await;
    let columns = &answer.unwrap().columns[1..];
    let rows = (0..ids.len()).map(|row| columns.iter().map(|column| value(&column.values, row)).collect()).collect();
    (rows, columns[0].event_timestamps.to_vec())
}

/// A training set of entities and times.
async fn offline(project: &Project, asked: &[(i64, Micros)], by_created: bool) -> Vec<Vec<Value>> {
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(asked.iter().map(|(id, _)| *id))) as ArrayRef),
        ("event_timestamp", times(asked.iter().map(|(_, t)| Some(*t)))),
    ])
    .unwrap();
    let entities = EntityRows::new(rows.schema(), vec![rows]).unwrap();
    let features = Features::names(["values"]);
    let options =
        HistoryOptions { threads: Some(1), filter_by_created_timestamp: by_created, ..HistoryOptions::default() };
    let set = store::get_historical_features(project, entities, &features, false, options).await.unwrap();
    let batches = set.collect().await.unwrap();
    let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    (0..asked.len()).map(|row| rows.columns()[2..].iter().map(|column| value(column, row)).collect()).collect()
}

async fn epochs(world: &World) -> Epochs {
    load(&world.project(), &world.views[0]).await.unwrap()
}

/// Where log and batch rows meet, as reads see it.
async fn log_from(world: &World) -> Option<Micros> {
    epochs(world).await.serving.unwrap().0.log_from
}

async fn materialize(world: &World, start: Micros, end: Micros) -> Result<Materialized> {
    let (project, view, tuning) = (world.project(), Arc::clone(&world.views[0]), world.options.tuning);
    let plan = store::plan_windows(&project, &view, &store::Between::Between(start, end)).await?;
    store::materialize_windows(&project, &view, plan, None, &tuning).await
}

fn assert_agree(view: &View, got: &[Value], wanted: &[Value], what: impl Fn() -> String) {
    for (feature, (got, wanted)) in view.windows.as_ref().unwrap().features.iter().zip(got.iter().zip(wanted)) {
        let name = &feature.field.name;
        assert!(agrees(feature.function, got, wanted), "{}: `{name}` is {got:?}, wanted {wanted:?}", what());
    }
}

/// Compares online, offline and the events themselves, at a few times.
async fn compare(world: &World, batch: &[Event], events: &[Event], what: &str) {
    let newest = batch.iter().chain(events).map(|event| event.ts).max().unwrap_or(0);
    compare_at(world, (batch, events), &[0, 13 * SECOND, 45 * SECOND].map(|after| newest + after), &[], what).await;
}

/// As [`compare`]: reads online at these times, and offline at the times that the answers are of. Beside that offline at
/// the times of `past`. Says whether there was an offline to compare with.
async fn compare_at(
    world: &World,
    (batch, events): (&[Event], &[Event]),
    nows: &[Micros],
    past: &[Micros],
    what: &str,
) -> bool {
    let (project, view) = (world.project(), &world.views[0]);
    let from = log_from(world).await;
    let truth = Truth::new(batch, events, from);
    let ids = (0..8).collect::<Vec<i64>>();
    let say = |how: &str, id: i64, t: Micros| format!("{what}: {how} {id} at {t}, log from {from:?}");
    let (before, serving) = (world.clock.now(), store::Serving::default());
    let (mut asked, mut served) = (Vec::new(), Vec::new());
    for now in nows {
        world.clock.set(*now);
        let (online, times) = online(&project, &serving, &ids).await;
        for ((id, online), t) in ids.iter().zip(&online).zip(times) {
            assert_eq!(t, truth.read_at(*id, *now), "{}", say("the time of", *id, *now));
            assert_agree(view, online, &truth.features(view, *id, t, false), || say("online", *id, t));
            asked.push((*id, t));
        }
        served.extend(online);
    }
    world.clock.set(before);
    if !view.offline {
        return false;
    }
    asked.extend(past.iter().flat_map(|t| ids.iter().map(|id| (*id, *t))));
    for by_created in [false, true] {
        let offline = offline(&project, &asked, by_created).await;
        for ((id, t), offline) in asked.iter().zip(&offline) {
            let wanted = truth.features(view, *id, *t, by_created);
            assert_agree(view, offline, &wanted, || say(&format!("offline, by created {by_created},"), *id, *t));
        }
        if !by_created {
            for (((id, t), served), offline) in asked.iter().zip(&served).zip(&offline) {
                assert_same_estimates(view, served, offline, || say("online and offline", *id, *t));
            }
        }
    }
    true
}

/// What is approximate may be off, but online and offline by the same, to the last bit.
fn assert_same_estimates(view: &View, online: &[Value], offline: &[Value], what: impl Fn() -> String) {
    let estimates = view.windows.as_ref().unwrap().features.iter().zip(online.iter().zip(offline));
    for (feature, (online, offline)) in
        estimates.filter(|(f, _)| matches!(f.function, F::ApproxCountDistinct | F::ApproxPercentile { .. }))
    {
        // As text a float is told apart from every other, and NaN is equal to itself.
        assert_eq!(format!("{online:?}"), format!("{offline:?}"), "{}: `{}`", what(), feature.field.name);
    }
}

fn fill(world: &World, events: &[Event]) {
    for event in events {
        world.stream.add(event.split.unwrap(), event.record());
    }
}

fn event(split: Option<&'static str>, id: i64, seconds: i64, value: f64) -> Event {
    Event { split, id, ts: seconds * SECOND, value: Some(value), ..Event::default() }
}

#[tokio::test]
async fn the_first_ingest_counts_batch_rows_up_to_the_newest() {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 50, 2.0), event(None, 2, 30, 3.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 1, 51, 5.0), event(Some("a"), 3, 60, 6.0)];
    let world = world("first", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    assert_eq!(log_from(&world).await, Some(50 * SECOND + 1));
    compare(&world, &batch, &events, "first").await;
    let jobs = crate::ingest::jobs(&world.project()).await.unwrap();
    assert_eq!((jobs[0].splits[0].counts.rows, jobs[0].splits[0].counts.before_log_from), (3, 1));
    assert_eq!(world.log().await.len(), 3, "what changes no window is logged all the same");

    // Rows that are added to the batch source later are not looked at, by no read.
    table("first", &[&batch[..], &[event(None, 1, 70, 7.0)]].concat());
    world.run().await;
    compare(&world, &batch, &events, "later").await;
}

#[tokio::test]
async fn a_batch_row_that_lies_ahead_does_not_silence_the_stream() {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 299, 2.0), event(None, 1, 50_000, 3.0)];
    let events = [event(Some("a"), 1, 299, 4.0), event(Some("a"), 1, 300, 5.0), event(Some("a"), 2, 310, 6.0)];
    let world = world("ahead", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    assert_eq!(log_from(&world).await, Some(300 * SECOND), "it is now");
    compare_at(&world, (&batch, &events), &[300 * SECOND, 320 * SECOND], &[], "ahead").await;
}

#[tokio::test]
async fn a_materialize_before_the_first_ingest_says_where_batch_rows_end() {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 50, 2.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 1, 51, 5.0)];
    let world = world("before", windowed(0), &batch);
    let done = materialize(&world, 0, 30 * SECOND).await.unwrap();
    assert_eq!((done.rows, done.written, done.end), (1, 1, 30 * SECOND));
    compare(&world, &batch, &[], "materialised").await;
    fill(&world, &events);
    world.run().await;
    assert_eq!(log_from(&world).await, Some(30 * SECOND));
    compare(&world, &batch, &events, "ingested").await;

    // Every night with a later end.
    let done = materialize(&world, 0, 45 * SECOND).await.unwrap();
    assert_eq!((done.rows, done.note), (1, None));
    assert_eq!(log_from(&world).await, Some(45 * SECOND));
    compare(&world, &batch, &events, "the next night").await;
    // What lies after now may still come by the stream.
    let done = materialize(&world, 0, 1_000 * SECOND).await.unwrap();
    assert_eq!(done.end, 300 * SECOND);
    let tables = world.online.tables().await.unwrap();
    assert_eq!(tables.iter().filter(|table| table.contains("/g1/")).count(), 1, "{tables:?}");
}

#[tokio::test]
async fn what_windows_cannot_be_built_of_is_refused_naming_what_would_do() {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 200, 2.0)];
    let mut world = world("refused", windowed(2), &batch);
    let refused = async |world: &World, start: i64, end: i64, value: &str| {
        let error = materialize(world, start * SECOND, end * SECOND).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(value), "{error}");
    };
    // The longest window of 60 s in steps of 7 s reaches back from 200 s to 140 s.
    refused(&world, 141, 200, "begin at `1970-01-01T00:02:20Z` or earlier").await;
    materialize(&world, 140 * SECOND, 200 * SECOND).await.unwrap();
    // There is nothing before the first batch row.
    materialize(&world, 10 * SECOND, 20 * SECOND).await.unwrap();
    world.views = vec![windowed(0).into()];
    refused(&world, 11, 200, "begin at `1970-01-01T00:00:10Z` or earlier").await;

    world.stream.event("a", 1, 100 * SECOND, 1.0);
    world.run().await;
    refused(&world, 0, 99, "end at `1970-01-01T00:01:40Z` or later").await;
    materialize(&world, 0, 100 * SECOND).await.unwrap();

    let mut unlogged = windowed(0);
    unlogged.offline = false;
    world.views = vec![unlogged.into()];
    refused(&world, 0, 250, "`offline: true`").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_take_part_in_an_epoch_that_is_built_beside_them() {
    let batch = [event(None, 1, 10, 1.0), event(None, 2, 50, 2.0)];
    let mut world = world("two", windowed(0), &batch);
    world.stream.script.lock().unwrap().follow = true;
    let mut events = Vec::new();
    let add = |events: &mut Vec<Event>, count: i64| {
        for at in 0..count {
            let event = event(Some(if at % 2 == 0 { "a" } else { "b" }), at % 5, 60 + at, at as f64);
            world.stream.add(event.split.unwrap(), event.record());
            events.push(event);
        }
    };
    add(&mut events, 60);
    let (mut one, mut two) = (world.start().await, world.start().await);
    world
        .until("both have read", || async {
            [&one, &two].iter().all(|job| job.status().splits.iter().map(|split| split.counts.rows).sum::<u64>() == 60)
        })
        .await;
    let done = materialize(&world, 0, 80 * SECOND).await.unwrap();
    assert_eq!(done.note, None);
    assert_eq!(log_from(&world).await, Some(80 * SECOND));
    add(&mut events, 30);
    world.stream.more.notify_one();
    world
        .until("both go on", || async {
            [&one, &two].iter().all(|job| job.status().splits.iter().map(|split| split.counts.rows).sum::<u64>() == 90)
        })
        .await;
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    compare(&world, &batch, &events, "two workers").await;

    // Another set of aggregations is built while the old one serves, which is then dropped.
    let old = epochs(&world).await.serving.unwrap().0;
    world.views = vec![windowed(1).into()];
    let mut job = world.start().await;
    world
        .until("the new aggregations serve", || async {
            epochs(&world).await.serving.is_some_and(|(epoch, _)| epoch.fingerprint == "w1")
        })
        .await;
    world.clock.advance(11 * SECOND);
    world.until("the old epoch is gone", || async { epochs(&world).await.entry(&old.id).is_none() }).await;
    job.stop().await.unwrap();
    compare(&world, &batch, &events, "other aggregations").await;
}

#[tokio::test]
async fn splits_that_are_over_are_folded_into_the_batch_rows() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("b"), 1, 51, 5.0), event(Some("a"), 2, 60, 6.0)];
    let world = world("over", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    let view = &world.views[0];
    let checkpoints = crate::ingest::load_checkpoints(world.online.as_ref(), "test", view).await.unwrap();
    let over = |split: &str| {
        let mut checkpoint = checkpoints[&SplitId::from(split)].clone();
        checkpoint.ended = true;
        checkpoint.to_row(view, &SplitId::from(split)).unwrap()
    };
    world.online.put(&crate::rows::checkpoints_table("test"), vec![over("a")]).await.unwrap();
    materialize(&world, 0, 40 * SECOND).await.unwrap();
    let serving = epochs(&world).await.serving.unwrap().0;
    let table = crate::windows::epoch::table("test", "values", &serving);
    let rows = world.online.get_prefixes(&table, &[bytes::Bytes::new()]).await.unwrap().remove(0);
    let rows = rows.iter().filter(|row| crate::windows::epoch::is_window_row(row)).count();
    assert_eq!(rows, 3, "of 1 the batch row and that of `b`, of 2 the batch row");
    compare(&world, &batch, &events, "folded").await;
}
