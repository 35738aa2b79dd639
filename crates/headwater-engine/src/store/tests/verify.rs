//! Comparing what is served with what history says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use headwater_core::offline::LogRange;
use headwater_core::{ErrorKind, Micros, Origin, Position, SplitId};
use serde_json::json;

use super::super::verify::{Verified, VerifyOptions, verify};
use super::{DAY, Fixture, HOUR, TABLES, batch, stats_rows, times};
use crate::ingest::{Checkpoint, Counts};
use crate::rows::{checkpoints_table, log_rows, write_materialized};
use crate::view::ViewRows;
use headwater_core::memory::MemoryBatchSource;

fn options(sample: usize) -> VerifyOptions {
    VerifyOptions { sample, seed: Some(1), wait: Duration::ZERO }
}

/// Logs rows of `stats` as the stream's records 1, 2, ….
async fn log(store: &Fixture, rows: RecordBatch) {
    let view = store.project.view("stats").unwrap();
    let count = rows.num_rows() as u64;
    let rows = ViewRows {
        positions: (1..=count).map(|n| Some(n.to_be_bytes())).collect::<BinaryArray>(),
        rows,
        origin: Origin::Stream,
        split: SplitId::from("0"),
        ordinals: None,
    };
    let range = LogRange { after: Position::START, through: Position::from_u64(count) };
    let rows = log_rows(&rows).unwrap();
    store.project.offline.append(&view.log(), &SplitId::from("0"), rows, range, BTreeMap::new()).await.unwrap();
}

async fn run(store: &Fixture, view: &str, sample: usize) -> headwater_core::Result<Verified> {
    verify(&store.project, store.serving.epochs(), view, &options(sample)).await
}

fn counts(found: &Verified) -> [u64; 6] {
    [found.sampled, found.matches, found.mismatches, found.missing, found.unpublished, found.changed]
}

#[tokio::test]
async fn newest_values_are_compared_with_the_log() {
    let store = Fixture::new("verify");
    let row = |driver: i64, time: Micros, rate: f64| (driver, time, Some(time), Some(rate), Some("Oslo"));
    let early = [row(1, DAY - HOUR, 0.5), row(2, DAY - HOUR, 0.25), row(3, DAY - HOUR, 1.0)];
    log(&store, stats_rows(&early)).await;
    // Driver 1 agrees, driver 2 does not, driver 3 was lost, and of driver 4 history has not heard.
    store.put("stats", stats_rows(&early[..1])).await;
    store.put("stats", stats_rows(&[row(9, 0, 0.0), row(2, DAY - HOUR, 0.5)])).await;
    let found = run(&store, "stats", 10).await.unwrap();
    assert_eq!(counts(&found), [3, 1, 1, 1, 0, 0], "{found:?}");
    assert!(!found.is_consistent());
    assert_eq!(found.largest_difference, 0.5);
    let mut differences: Vec<_> = found
        .differences
        .iter()
        .map(|d| (d.entity["driver_id"].clone(), d.feature.as_str(), d.online.clone()))
        .collect();
    differences.sort_by_key(|difference| difference.0.as_i64());
    assert_eq!(
        differences,
        [(json!(2), "rate", json!(0.5)), (json!(3), "rate", json!(null)), (json!(3), "city", json!(null)),]
    );

    // What the log has not published yet is nobody's fault.
    let newer: Vec<_> = (0..5).map(|_| row(1, DAY - 1, 0.75)).collect();
    store.put("stats", stats_rows(&newer)).await;
    let found = run(&store, "stats", 10).await.unwrap();
    assert_eq!(counts(&found), [3, 0, 1, 1, 1, 0], "{found:?}");
}

#[tokio::test]
async fn what_is_logged_before_it_is_written_online_is_not_compared() {
    let store = Fixture::new("verify_logged");
    let row = |driver: i64, time: Micros, rate: f64| (driver, time, Some(time), Some(rate), Some("Oslo"));
    let rows = [row(1, DAY - HOUR, 0.5), row(2, DAY - HOUR, 0.25), row(1, DAY - 1, 0.75), row(3, DAY - 1, 1.0)];
    log(&store, stats_rows(&rows)).await;
    store.put("stats", stats_rows(&rows[..2])).await;
    let reached = async |records: u64| {
        let through = Position::from_u64(records);
        let (from, counts) = (Position::START, Counts::default());
        let checkpoint = Checkpoint { through, ended: false, from, newest: None, arrived: None, counts, skipped: None };
        let row = checkpoint.to_row(store.project.view("stats").unwrap(), &SplitId::from("0")).unwrap();
        store.project.online.put(&checkpoints_table("test"), vec![row]).await.unwrap();
    };
    reached(2).await;
    let found = run(&store, "stats", 10).await.unwrap();
    assert_eq!((counts(&found), found.unwritten), ([3, 1, 0, 0, 0, 0], 2), "{found:?}");
    assert!(found.is_consistent() && found.differences.is_empty());
    // Where it is said to be written, it is missed.
    reached(4).await;
    let found = run(&store, "stats", 10).await.unwrap();
    assert_eq!((counts(&found), found.unwritten), ([3, 1, 1, 1, 0, 0], 0), "{found:?}");
}

#[tokio::test]
async fn a_sample_is_as_large_as_asked_and_drawn_by_its_seed() {
    let store = Fixture::new("sample");
    let rows: Vec<_> = (0..500).map(|n| (n % 100, DAY - HOUR, Some(n), Some(0.5), None)).collect();
    log(&store, stats_rows(&rows)).await;
    let mut drawn = Vec::new();
    for seed in [1, 1, 2] {
        let options = VerifyOptions { sample: 7, seed: Some(seed), wait: Duration::ZERO };
        let found = verify(&store.project, store.serving.epochs(), "stats", &options).await.unwrap();
        assert_eq!((found.sampled, found.missing, found.seed), (7, 7, seed));
        drawn.push(found.differences.iter().map(|d| d.entity.clone()).collect::<Vec<_>>());
    }
    assert_eq!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], drawn[2]);
    assert_eq!(run(&store, "stats", 1000).await.unwrap().sampled, 100);
    assert_eq!(run(&store, "stats", 0).await.unwrap().sampled, 0);
}

#[tokio::test]
async fn tables_are_compared_up_to_where_they_were_materialised() {
    let store = Fixture::new("verify_batch");
    let table = MemoryBatchSource::new("verify_batch/hourly");
    let rows = |trips: [i64; 3]| {
        batch(vec![
            ("city", Arc::new(StringArray::from(vec!["Oslo"; 3])) as ArrayRef),
            ("driver_id", Arc::new(Int64Array::from(vec![1, 1, 2]))),
            ("event_timestamp", times(&[Some(DAY - HOUR), Some(DAY), Some(DAY - 5 * HOUR)])),
            ("trips", Arc::new(Int64Array::from(trips.to_vec()))),
        ])
    };
    table.add(SplitId::from("a"), rows([9, 10, 11]));
    TABLES.lock().unwrap().insert("verify_batch/hourly".into(), table);
    let error = run(&store, "hourly", 10).await.unwrap_err();
    assert!(error.to_string().contains("it was never materialised"), "{error}");
    store.put("hourly", rows([9, 10, 11]).slice(0, 1)).await;
    let online = store.project.online.as_ref();
    write_materialized(online, "test", "hourly", "g1", DAY - HOUR).await.unwrap();
    // The later row is not there yet, and what is older than the ttl answers nothing on either side.
    let found = run(&store, "hourly", 10).await.unwrap();
    assert_eq!((found.sampled, found.mismatches, found.missing), (2, 0, 0), "{found:?}");
}

#[tokio::test]
async fn views_without_history_of_what_they_serve_are_refused() {
    let mut store = Fixture::new("refused");
    let because = async |store: &Fixture, view: &str| {
        let error = run(store, view, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert!(because(&store, "world").await.contains("without `offline: true`"));
    store.edit("stats", |view| view.online = false);
    assert!(because(&store, "stats").await.contains("it is not served online"));
    assert_eq!(run(&store, "nothing", 10).await.unwrap_err().kind(), ErrorKind::NotFound);
}
