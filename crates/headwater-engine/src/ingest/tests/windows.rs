//! Windowed views: any stream, any restarts, any builds of epochs in between end in what the events themselves give,
//! online and offline.
//!
//! `PROPTEST_CASES` says how many streams are tried; the test command's slow lane tries 2,000.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use headwater_core::definitions::{AggregateFunction as F, Field, Source, ValueType};
use headwater_core::memory::MemoryBatchSource;
use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};
use headwater_core::{ErrorKind, Micros, Result, SplitId};
use headwater_testkit::{Random, seeds};
use serde_json::json;

use super::dead_letters::Superstitious;
use super::faults::Flaky;
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

/// An event: split, id, event time, value. A batch row has no split.
#[derive(Debug, Clone)]
struct Event {
    split: Option<&'static str>,
    id: i64,
    ts: Micros,
    value: Option<f64>,
}

impl Event {
    fn record(&self) -> String {
        let value = self.value.map_or_else(|| "null".into(), |value| value.to_string());
        format!(r#"{{"id":{},"ts":"{}","created":null,"value":{value}}}"#, self.id, time(self.ts))
    }
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

/// Every function over two windows and a lifetime. Variants differ in their windows.
fn windowed(variant: usize) -> View {
    let window = |length, hop| Some(Window { length, hop });
    let windows = match variant {
        0 => [window(60 * SECOND, 7 * SECOND), window(10 * SECOND, 10 * SECOND / 12), None],
        1 => [window(60 * SECOND, 7 * SECOND), window(90 * SECOND, 5 * SECOND), None],
        // Without a lifetime, for which everything that there is is needed.
        _ => [window(60 * SECOND, 7 * SECOND), window(20 * SECOND, 5 * SECOND), window(20 * SECOND, 20 * SECOND)],
    };
    let columns = vec![Field::new("value", ValueType::Float64)];
    let mut features = vec![WindowFeature {
        field: Field::new("rows", ValueType::Int64),
        function: F::Count,
        column: None,
        window: *windows.last().unwrap(),
    }];
    for (at, window) in windows.into_iter().enumerate() {
        features.extend(FUNCTIONS.into_iter().map(|function| WindowFeature {
            field: Field::new(format!("{function}_{at}"), output_type(function, Some(&ValueType::Float64)).unwrap()),
            function,
            column: Some(0),
            window,
        }));
    }
    let mut view = view("values", "g1");
    view.created = None;
    view.features = features.iter().map(|feature| feature.field.clone()).collect();
    view.windows = Some(Arc::new(Windows { columns, features, fingerprint: format!("w{variant}") }));
    view.batch = Some(BatchInput { source: "history".into(), columns: BTreeMap::new() });
    view
}

/// A world with a windowed view and its batch table. `test` names the table: tests share a process.
fn world(test: &str, view: View, batch: &[Event]) -> World {
    let mut world = World::new();
    world.registry = world.registry.with(&TABLE).unwrap();
    let source = Source::batch("history", "windows_table").option("table", test.to_owned());
    world.definitions = world.definitions.source(source);
    world.views = vec![view.into()];
    world.clock.set(300 * SECOND);
    table(test, batch);
    world
}

fn table(test: &str, rows: &[Event]) {
    let table = MemoryBatchSource::new(test).with_fragment_rows(7);
    for (at, rows) in rows.chunks(20).enumerate() {
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int64Array>())),
            ("ts", times(rows.iter().map(|row| row.ts))),
            ("value", Arc::new(rows.iter().map(|row| row.value).collect::<Float64Array>())),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        table.add(
            SplitId::from(format!("{at}.parquet").as_str()),
            RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
        );
    }
    TABLES.lock().unwrap().insert(test.into(), table);
}

fn times(times: impl Iterator<Item = Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// The features of an entity at `t`, from the events themselves: batch rows before `log_from`, events from it on. Batch
/// rows stand in order of their files, events in order of their splits' positions.
fn naive(view: &View, batch: &[Event], events: &[Event], log_from: Option<Micros>, id: i64, t: Micros) -> Vec<Value> {
    let counts = |event: &&Event| match (event.split, log_from) {
        _ if event.id != id => false,
        (None, None) => false,
        (None, Some(from)) => event.ts < from,
        (Some(_), from) => from.is_none_or(|from| event.ts >= from),
    };
    let mut rows = batch.iter().chain(events).filter(counts).collect::<Vec<_>>();
    // Stable, so that rows of one file or split keep their order.
    rows.sort_by(|a, b| (a.ts, a.split).cmp(&(b.ts, b.split)));
    let feature = |feature: &WindowFeature| {
        let from = feature.window.map_or(Micros::MIN, |window| window.start(t));
        let inside = rows.iter().filter(|row| (from..=t).contains(&row.ts));
        let values = inside.filter_map(|row| match feature.column {
            None => Some(Value::Int(1)),
            Some(_) => row.value.map(Value::Float),
        });
        aggregate(feature.function, values.collect())
    };
    view.windows.as_ref().unwrap().features.iter().map(feature).collect()
}

async fn online(project: &Project, ids: &[i64]) -> Vec<Vec<Value>> {
    let entities: store::EntityColumns = serde_json::from_str(&json!({ "id": ids }).to_string()).unwrap();
    let features = Features::names(["values"]);
    let answer =
        store::get_online_features(project, &store::Serving::default(), &features, &entities.into(), false).await;
    let columns = &answer.unwrap().columns[1..];
    (0..ids.len()).map(|row| columns.iter().map(|column| value(&column.values, row)).collect()).collect()
}

async fn offline(project: &Project, ids: &[i64], t: Micros) -> Vec<Vec<Value>> {
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef),
        ("event_timestamp", times(ids.iter().map(|_| t))),
    ])
    .unwrap();
    let entities = EntityRows::new(rows.schema(), vec![rows]).unwrap();
    let features = Features::names(["values"]);
    let options = HistoryOptions { threads: Some(1), ..HistoryOptions::default() };
    let set = store::get_historical_features(project, entities, &features, false, options).await.unwrap();
    let batches = set.collect().await.unwrap();
    let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    (0..ids.len()).map(|row| rows.columns()[2..].iter().map(|column| value(column, row)).collect()).collect()
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
    store::materialize_windows(&project, &view, &store::Between::Between(start, end), None, &tuning).await
}

/// Compares online, offline and the events themselves, at a few times.
async fn compare(world: &World, batch: &[Event], events: &[Event], what: &str) {
    let (project, view) = (world.project(), &world.views[0]);
    let from = log_from(world).await;
    let newest = batch.iter().chain(events).map(|event| event.ts).max().unwrap_or(0);
    let ids = (0..8).collect::<Vec<i64>>();
    for after in [0, 13 * SECOND, 45 * SECOND] {
        let t = newest + after;
        world.clock.set(t);
        let online = online(&project, &ids).await;
        let offline = if view.offline { Some(offline(&project, &ids, t).await) } else { None };
        for (row, id) in ids.iter().enumerate() {
            let wanted = naive(view, batch, events, from, *id, t);
            for (feature, wanted) in wanted.iter().enumerate() {
                let of = &view.windows.as_ref().unwrap().features[feature];
                let say = format!("{what}: `{}` of {id} at {t}, log from {from:?}", of.field.name);
                let got = &online[row][feature];
                assert!(agrees(of.function, got, wanted), "{say}: online {got:?}, wanted {wanted:?}");
                if let Some(offline) = &offline {
                    let got = &offline[row][feature];
                    assert!(agrees(of.function, got, wanted), "{say}: offline {got:?}, wanted {wanted:?}");
                }
            }
        }
    }
    world.clock.set(300 * SECOND);
}

fn random_rows(random: &mut Random, most: usize, splits: &[Option<&'static str>], before: usize) -> Vec<Event> {
    let (count, ids) = (random.below(most), 1 + random.below(7));
    let scale = if random.once_in(2) { 1.0 } else { 0.37 };
    (0..count)
        .map(|_| Event {
            split: splits[random.below(splits.len())],
            id: random.below(ids) as i64,
            // Ties are likely.
            ts: random.below(before) as i64 * SECOND + [0, 0, 1, 999_999][random.below(4)],
            value: (!random.once_in(8)).then(|| (random.below(41) as f64 - 20.0) * scale),
        })
        .collect()
}

fn fill(world: &World, events: &[Event]) {
    for event in events {
        world.stream.add(event.split.unwrap(), event.record());
    }
}

fn cases(usual: u64) -> Vec<u64> {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    seeds(asked.unwrap_or(usual))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_delivery_gives_the_windows_of_the_events_themselves() {
    for seed in cases(25) {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let splits: &[_] =
            [&[Some("a")][..], &[Some("a"), Some("b")], &[Some("a"), Some("b"), Some("c")]][random.below(3)];
        let batch = if random.once_in(4) { Vec::new() } else { random_rows(&mut random, 60, &[None], 100) };
        let mut events = random_rows(&mut random, 160, splits, 200);
        if random.once_in(2) {
            events.sort_by_key(|event| event.ts);
        }
        let (offline, unnests) = (!random.once_in(4), random.once_in(3));
        let any_view = |random: &mut Random| {
            let mut view = windowed(random.below(3));
            view.offline = offline;
            // Drops zeros, and makes two rows of each 2.
            if unnests { transformed_by(view, Arc::new(Superstitious(1e9))) } else { view }
        };
        let view = any_view(&mut random);
        let mut world = world(&format!("any {seed}"), view, &batch);
        fill(&world, &events);
        if unnests {
            let times =
                |event: &Event| if event.value == Some(2.0) { 2 } else { usize::from(event.value != Some(0.0)) };
            events = events.into_iter().flat_map(|event| vec![event.clone(); times(&event)]).collect();
        }
        let plain = world.clone();
        if random.once_in(3) {
            (world.online, world.offline) = Flaky::stores(&world, seed, 7);
        }
        let tuning = &mut world.options.tuning;
        tuning.batch_records = 1 + random.below(40);
        tuning.log_piece_bytes = 1 + random.below(4_000);
        tuning.window_cache_bytes = [0, 5_000, 64 << 20][random.below(3)];
        {
            let mut script = world.stream.script.lock().unwrap();
            script.redeliver_once_in = random.below(5);
            script.fail_once_in = [0, 2, 3, 5][random.below(4)];
        }
        for restart in 0..random.below(6) {
            {
                let mut script = world.stream.script.lock().unwrap();
                script.seed = seed * 100 + restart as u64;
                script.stall_after = Some(random.below(12));
            }
            if random.once_in(4) {
                world.views = vec![any_view(&mut random).into()];
            }
            let mut job = world.start().await;
            let first = events.iter().map(|event| event.ts).min().unwrap_or(0);
            let builds = offline && random.once_in(2);
            let materializing = builds.then(|| {
                let (mut plain, end) = (plain.clone(), first + random.below(250) as i64 * SECOND);
                plain.views = world.views.clone();
                tokio::spawn(async move { materialize(&plain, -SECOND, end).await })
            });
            tokio::select! {
                () = world.stream.stalled.notified() => {}
                done = job.wait() => done.unwrap(),
            }
            if let Some(task) = materializing {
                if random.once_in(3) {
                    // Killed in the midst of its work, or of waiting for the job.
                    for _ in 0..random.below(300) {
                        tokio::task::yield_now().await;
                    }
                    task.abort();
                    drop(task.await);
                } else {
                    match task.await.unwrap() {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "seed {seed}: {error}"),
                    }
                }
            }
            match random.below(3) {
                0 => job.stop().await.unwrap(),
                1 => {
                    for _ in 0..random.below(200) {
                        tokio::task::yield_now().await;
                    }
                    drop(job);
                }
                _ => drop(job),
            }
            // Whoever looks for running jobs finds a killed one lost by now.
            world.clock.advance(31 * SECOND);
        }
        world.stream.script.lock().unwrap().stall_after = None;
        world.run().await;
        let epochs = epochs(&plain).await;
        let serving = &epochs.serving.as_ref().unwrap().0;
        assert_eq!(serving.fingerprint, world.views[0].windows.as_ref().unwrap().fingerprint, "seed {seed}");
        let mut plain = plain;
        plain.views = world.views.clone();
        compare(&plain, &batch, &events, &format!("seed {seed}")).await;
    }
}

fn event(split: Option<&'static str>, id: i64, seconds: i64, value: f64) -> Event {
    Event { split, id, ts: seconds * SECOND, value: Some(value) }
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
    assert_eq!(rows.len(), 3, "of 1 the batch row and that of `b`, of 2 the batch row");
    compare(&world, &batch, &events, "folded").await;
}
