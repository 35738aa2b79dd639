use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use headwater_core::definitions::{AggregateFunction, Field, ValueType};
use headwater_core::memory::MemoryBatchSource;
use headwater_core::{ErrorKind, Micros, SplitId};
use serde_json::json;

use super::super::materialize::{Interval, Materialized, Reporter, materialize};
use super::{DAY, Fixture, HOUR, TABLES, batch, times};
use crate::windows::{Window, WindowFeature, Windows};

type Row = (Option<i64>, Option<Micros>, Option<Micros>, Option<f64>);

/// Rows of the batch source of `stats`, whose `rate` is called `conv_rate` there.
fn table_rows(rows: &[Row]) -> RecordBatch {
    batch(vec![
        ("driver_id", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()) as ArrayRef),
        ("event_timestamp", times(&rows.iter().map(|row| row.1).collect::<Vec<_>>())),
        ("created", times(&rows.iter().map(|row| row.2).collect::<Vec<_>>())),
        ("conv_rate", Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>())),
        ("city", Arc::new(rows.iter().map(|_| Some("Oslo")).collect::<StringArray>())),
    ])
}

fn table(test: &str, files: &[&[Row]]) {
    let table = MemoryBatchSource::new(test).with_fragment_rows(2);
    for (index, rows) in files.iter().enumerate() {
        table.add(SplitId::from(format!("{index}.parquet").as_str()), table_rows(rows));
    }
    TABLES.lock().unwrap().insert(format!("{test}/stats"), table);
}

async fn run(store: &Fixture, interval: Interval) -> Materialized {
    let done = materialize(&store.project, interval, Some(&["stats".into()]), None).await.unwrap();
    assert_eq!(done.len(), 1);
    done.into_iter().next().unwrap()
}

async fn rate(store: &Fixture, driver: i64) -> serde_json::Value {
    store.one("stats:rate", json!({"driver_id": [driver]})).await
}

#[tokio::test]
async fn both_ends_are_inclusive_and_the_greatest_version_is_written() {
    let store = Fixture::new("bounds");
    table(
        "bounds",
        &[
            &[
                (Some(1), Some(99), None, Some(0.1)),
                (Some(1), Some(100), Some(5), Some(0.2)),
                (Some(1), Some(100), Some(4), Some(0.3)),
            ],
            &[
                (Some(2), Some(200), None, Some(0.4)),
                (Some(3), Some(201), None, Some(0.5)),
                (Some(4), Some(150), None, Some(0.6)),
                (Some(4), Some(160), None, None),
            ],
        ],
    );
    let done = run(&store, Interval::Between(100, 200)).await;
    assert_eq!((done.rows, done.skipped), (5, 0));
    assert_eq!(rate(&store, 1).await, json!([0.2, "PRESENT"]));
    assert_eq!(rate(&store, 2).await, json!([0.4, "PRESENT"]));
    assert_eq!(rate(&store, 3).await, json!([null, "NOT_FOUND"]));
    assert_eq!(rate(&store, 4).await, json!([null, "NULL_VALUE"]), "a null is taken as it is");
    // Among rows of one version the later file and row wins, whatever was written first.
    table(
        "bounds",
        &[
            &[(Some(9), Some(1), None, Some(0.1))],
            &[(Some(9), Some(1), None, Some(0.2)), (Some(9), Some(1), None, Some(0.3))],
        ],
    );
    run(&store, Interval::Between(0, 1)).await;
    assert_eq!(rate(&store, 9).await, json!([0.3, "PRESENT"]));
}

#[tokio::test]
async fn newer_streamed_values_stay_and_running_again_changes_nothing() {
    let store = Fixture::new("stale");
    store.stats(1, DAY, Some(0.9), None).await;
    table("stale", &[&[(Some(1), Some(DAY - 1), None, Some(0.1)), (Some(2), Some(DAY), None, Some(0.2))]]);
    let done = run(&store, Interval::Between(0, DAY)).await;
    assert_eq!((done.written, done.stale), (1, 1));
    assert_eq!(rate(&store, 1).await, json!([0.9, "PRESENT"]));
    run(&store, Interval::Between(0, DAY)).await;
    assert_eq!(rate(&store, 2).await, json!([0.2, "PRESENT"]));
}

#[tokio::test]
async fn incremental_runs_begin_where_the_last_one_ended() {
    let store = Fixture::new("incremental");
    table(
        "incremental",
        &[&[
            (Some(1), Some(10), None, Some(0.1)),
            (Some(1), Some(20), None, Some(0.2)),
            (Some(1), Some(30), None, Some(0.3)),
        ]],
    );
    let first = run(&store, Interval::Until(10)).await;
    assert_eq!((first.start, first.end, first.rows), (None, 10, 1));
    let second = run(&store, Interval::Until(20)).await;
    assert_eq!((second.start, second.rows), (Some(10), 2));
    let again = run(&store, Interval::Until(15)).await;
    assert_eq!(
        (again.rows, again.note.as_deref()),
        (0, Some("already materialised up to 1970-01-01T00:00:00.000020Z"))
    );
    // An end in the future does not block later runs.
    run(&store, Interval::Until(DAY + HOUR)).await;
    store.clock.advance(1);
    let later = run(&store, Interval::Until(DAY + 1)).await;
    assert_eq!((later.start, later.note), (Some(DAY), None));
    // An interval materialised by hand does not move the start back.
    run(&store, Interval::Between(0, 5)).await;
    assert_eq!(run(&store, Interval::Until(DAY + 2)).await.start, Some(DAY + 1));
}

#[tokio::test]
async fn the_first_incremental_run_goes_back_by_the_ttl_from_its_end() {
    let mut store = Fixture::new("back");
    store.edit("stats", |view| view.ttl = 15);
    table("back", &[&[(Some(1), Some(14), None, Some(0.1)), (Some(2), Some(15), None, Some(0.2))]]);
    let done = run(&store, Interval::Until(30)).await;
    assert_eq!((done.start, done.rows), (Some(15), 1));
    // The view has a ttl of 15 microseconds, the clock shows 2026: ttl is no filter when materialising.
    assert_eq!(rate(&store, 2).await, json!([null, "OUTSIDE_MAX_AGE"]));
}

#[tokio::test]
async fn rows_of_nobody_are_counted_and_left_out() {
    let store = Fixture::new("nobody");
    table(
        "nobody",
        &[&[(None, Some(1), None, Some(0.1)), (Some(1), None, None, Some(0.2)), (Some(1), Some(3), None, Some(0.3))]],
    );
    let done = run(&store, Interval::Between(0, 10)).await;
    assert_eq!((done.rows, done.skipped, done.written), (1, 2, 1));
}

#[tokio::test]
async fn a_table_that_does_not_exist_has_no_rows() {
    let store = Fixture::new("absent");
    let done = run(&store, Interval::Until(10)).await;
    assert_eq!(done.rows, 0);
    assert!(done.note.as_ref().unwrap().contains("`stats_table` has no rows yet"), "{done:?}");
    // Once it is there it is read from the beginning.
    table("absent", &[&[(Some(1), Some(1), None, Some(0.1))]]);
    assert_eq!(run(&store, Interval::Until(10)).await.rows, 1);
}

#[tokio::test]
async fn wrong_calls_and_tables_are_errors() {
    let mut store = Fixture::new("errors");
    let error = async |interval, view: &str, store: &Fixture| {
        materialize(&store.project, interval, Some(&[view.to_owned()]), None).await.unwrap_err()
    };
    let text = error(Interval::Between(2, 1), "stats", &store).await.to_string();
    assert!(text.starts_with("the interval ends before it begins: `1970-01-01T00:00:00.000002Z`"), "{text}");
    let text = error(Interval::Until(1), "world", &store).await.to_string();
    assert_eq!(text, "view `world` has no batch source to materialise from");
    let text = error(Interval::Until(1), "sats", &store).await.to_string();
    assert!(text.contains("did you mean `stats`?"), "{text}");

    let rows = batch(vec![
        ("driver_id", Arc::new(StringArray::from(vec!["1", "two"])) as ArrayRef),
        ("event_timestamp", times(&[Some(1), Some(2)])),
        ("created", times(&[None, None])),
        ("conv_rate", Arc::new(Float64Array::from(vec![0.1, 0.2]))),
        ("city", Arc::new(StringArray::from(vec!["a", "b"]))),
    ]);
    let table = MemoryBatchSource::new("errors");
    table.add(SplitId::from("a.csv"), rows.clone());
    TABLES.lock().unwrap().insert("errors/stats".into(), table);
    let fault = error(Interval::Until(10), "stats", &store).await;
    assert_eq!(fault.kind(), ErrorKind::Data);
    let text = fault.to_string();
    assert!(text.starts_with("source `stats_table`, `a.csv`, row 2: column `driver_id`: "), "{text}");
    store.edit("stats", |view| {
        view.features.push(Field::new("age", ValueType::Int64));
    });
    let text = error(Interval::Until(10), "stats", &store).await.to_string();
    assert_eq!(text, "source `stats_table` of view `stats` has no column `age`");
}

fn hourly(test: &str) {
    let table = MemoryBatchSource::new(test);
    table.add(
        SplitId::from("a"),
        batch(vec![
            ("city", Arc::new(StringArray::from(vec!["Oslo", "Oslo"])) as ArrayRef),
            ("driver_id", Arc::new(Int64Array::from(vec![1, 1]))),
            ("event_timestamp", times(&[Some(DAY - 5 * HOUR), Some(DAY - 1)])),
            ("trips", Arc::new(Int64Array::from(vec![1, 2]))),
        ]),
    );
    TABLES.lock().unwrap().insert(format!("{test}/hourly"), table);
}

#[tokio::test]
async fn what_is_refused_for_one_view_is_refused_before_another_is_written() {
    let mut store = Fixture::new("all_or_none");
    table("all_or_none", &[&[(Some(1), Some(DAY - 1), None, Some(0.1))]]);
    hourly("all_or_none");
    store.edit("hourly", |view| {
        let window = Some(Window { length: HOUR, hop: HOUR });
        let (field, function) = (view.features[0].clone(), AggregateFunction::Count);
        let features = vec![WindowFeature { field, function, column: None, window }];
        view.ttl = 0;
        view.windows = Some(Arc::new(Windows { columns: view.features.clone(), features, fingerprint: String::new() }));
    });
    let interval = |start| Interval::Between(start, DAY);
    let error = materialize(&store.project, interval(DAY - 1), None, None).await.unwrap_err();
    assert!(error.to_string().contains("the longest window reaches back so far"), "{error}");
    assert_eq!(rate(&store, 1).await, json!([null, "NOT_FOUND"]));
    let done = materialize(&store.project, interval(DAY - HOUR), None, None).await.unwrap();
    assert_eq!(done.iter().map(|done| done.rows).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(rate(&store, 1).await, json!([0.1, "PRESENT"]));
}

#[tokio::test]
async fn a_view_that_is_done_is_recorded_though_the_next_one_fails() {
    let mut store = Fixture::new("one_by_one");
    table("one_by_one", &[&[(Some(1), Some(10), None, Some(0.1))]]);
    hourly("one_by_one");
    store.edit("hourly", |view| view.features.push(Field::new("age", ValueType::Int64)));
    let error = materialize(&store.project, Interval::Until(10), None, None).await.unwrap_err();
    assert_eq!(error.message(), "source `hourly_table` of view `hourly` has no column `age`");
    assert_eq!(run(&store, Interval::Until(20)).await.start, Some(10));
}

#[tokio::test]
async fn a_batch_view_of_a_new_generation_serves_once_it_is_materialised() {
    let mut store = Fixture::new("generation");
    store.edit("stats", |view| view.stream = None);
    table("generation", &[&[(Some(1), Some(1), None, Some(0.1))]]);
    run(&store, Interval::Until(10)).await;
    store.edit("stats", |view| view.generation = "g2".into());
    assert_eq!(rate(&store, 1).await, json!([0.1, "PRESENT"]));
    table("generation", &[&[(Some(1), Some(1), None, Some(0.2))]]);
    store.clock.advance(1);
    // The new generation remembers nothing of how far the old one was.
    assert_eq!(run(&store, Interval::Until(10)).await.rows, 1);
    store.serving.clear();
    assert_eq!(rate(&store, 1).await, json!([0.2, "PRESENT"]));
}

#[tokio::test]
async fn all_views_with_batch_sources_are_meant_and_progress_is_told() {
    let store = Fixture::new("progress");
    table(
        "progress",
        &[&[(Some(1), Some(1), None, None), (Some(1), Some(2), None, None), (Some(1), Some(3), None, None)]],
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let report = {
        let seen = Arc::clone(&seen);
        Reporter::new(move |progress| seen.lock().unwrap().push((progress.done, progress.total, progress.rows)))
    };
    let done = materialize(&store.project, Interval::Between(0, 10), None, Some(&report)).await.unwrap();
    assert_eq!(done.iter().map(|done| done.view.as_str()).collect::<Vec<_>>(), ["stats", "hourly"]);
    assert_eq!(*seen.lock().unwrap(), [(1, 2, 2), (2, 2, 3)]);
}
