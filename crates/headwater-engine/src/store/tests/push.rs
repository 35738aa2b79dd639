use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::TryStreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::offline::{LOG_POSITION, LOG_SPLIT};
use headwater_core::transform::{Fingerprint, PlannedTransform, Transformed};
use headwater_core::{ErrorKind, Result};
use serde_json::json;

use super::super::push::{PushTarget, Pushed, push, write_to_store};
use super::{DAY, Fixture, batch, stats_rows, times};
use crate::windows::Windows;

async fn log(store: &Fixture) -> Vec<RecordBatch> {
    let log = store.project.offline.log(&store.project.view("stats").unwrap().log());
    let request = ScanRequest::default();
    let mut out = Vec::new();
    for fragment in log.fragments(&request).await.unwrap() {
        let batches: Vec<_> = log.read(&fragment, &request).await.unwrap().try_collect().await.unwrap();
        out.extend(batches.into_iter().map(|batch| batch.rows));
    }
    out
}

async fn untouched(store: &Fixture) -> bool {
    store.project.online.tables().await.unwrap().is_empty() && log(store).await.is_empty()
}

#[tokio::test]
async fn every_batch_is_written_to_both_stores() {
    let store = Fixture::new("both");
    let rows = [
        stats_rows(&[(1, DAY, None, Some(0.1), None), (2, DAY, None, None, None)]),
        stats_rows(&[(1, DAY + 1, None, Some(0.2), Some("Oslo"))]),
    ];
    let pushed = push(&store.project, "stats_stream", &rows, PushTarget::OnlineAndOffline).await.unwrap();
    let expected = Pushed { view: "stats".into(), rows: 3, written: 2, stale: 0, logged: 3 };
    assert_eq!(pushed, [expected]);
    assert_eq!(store.one("stats:rate", json!({"driver_id": [1]})).await, json!([0.2, "PRESENT"]));
    assert_eq!(store.one("stats:rate", json!({"driver_id": [2]})).await, json!([null, "NULL_VALUE"]));
    let log = log(&store).await;
    assert_eq!(log.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert!(log[0][LOG_SPLIT].as_string::<i32>().value(0).starts_with("push-"));
    assert_eq!(log[0][LOG_POSITION].as_binary::<i32>().value(2), 3_u64.to_be_bytes());
}

#[tokio::test]
async fn an_older_row_never_replaces_a_newer_one_and_the_later_push_wins() {
    let store = Fixture::new("order");
    let ask = json!({"driver_id": [1]});
    for (time, created, rate, expected) in [
        (DAY, Some(5), 0.1, 0.1),
        (DAY - 1, Some(9), 0.2, 0.1),
        (DAY, Some(4), 0.3, 0.1),
        (DAY, None, 0.4, 0.1),
        (DAY, Some(5), 0.5, 0.5),
        (DAY, Some(5), 0.6, 0.6),
        (DAY, Some(6), 0.7, 0.7),
    ] {
        store.clock.advance(1);
        let rows = [stats_rows(&[(1, time, created, Some(rate), None)])];
        let pushed = write_to_store(&store.project, "stats", &rows, PushTarget::Online).await.unwrap();
        assert_eq!(pushed.written + pushed.stale, 1);
        assert_eq!(store.one("stats:rate", ask.clone()).await, json!([expected, "PRESENT"]), "after {rate}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_cast_refuses_the_whole_call() {
    let store = Fixture::new("cast");
    let rows = batch(vec![
        ("driver_id", Arc::new(StringArray::from(vec![Some("1"), Some("x"), None])) as ArrayRef),
        ("event_timestamp", times(&[Some(DAY), Some(DAY), Some(DAY)])),
        ("created", times(&[None, None, None])),
        ("rate", Arc::new(Float64Array::from(vec![0.1, 0.2, 0.3]))),
        ("city", Arc::new(StringArray::from(vec![None::<&str>, None, None]))),
        ("extra", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ]);
    for target in [PushTarget::Online, PushTarget::OnlineAndOffline] {
        let error = write_to_store(&store.project, "stats", std::slice::from_ref(&rows), target).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        let text = error.to_string();
        assert!(text.starts_with("nothing was written: row 2: column `driver_id`: "), "{text}");
        assert!(text.contains("row 3: column `driver_id`: must not be null"), "{text}");
        let error = push(&store.project, "stats_stream", std::slice::from_ref(&rows), target).await.unwrap_err();
        assert!(error.to_string().starts_with("nothing was written: row 2: "), "{error}");
    }
    assert!(untouched(&store).await);
    // The good row alone goes in, its key cast, its extra column ignored.
    let good = rows.slice(0, 1);
    write_to_store(&store.project, "stats", &[good], PushTarget::Online).await.unwrap();
    assert_eq!(store.one("stats:rate", json!({"driver_id": [1]})).await, json!([0.1, "PRESENT"]));
}

#[tokio::test]
async fn a_view_with_aggregations_takes_no_rows_from_callers() {
    let mut store = Fixture::new("windows");
    store.edit("stats", |view| {
        let columns = view.features.clone();
        view.windows = Some(Arc::new(Windows { columns, features: Vec::new(), fingerprint: "w".into() }));
    });
    let rows = [stats_rows(&[(1, DAY, None, Some(0.1), None)])];
    for target in [PushTarget::Online, PushTarget::Offline, PushTarget::OnlineAndOffline] {
        let direct = write_to_store(&store.project, "stats", &rows, target).await.unwrap_err();
        let pushed = push(&store.project, "stats_stream", &rows, target).await.unwrap_err();
        for error in [direct, pushed] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("`stats` has aggregations"), "{error}");
        }
    }
    assert!(untouched(&store).await);
}

#[tokio::test]
async fn missing_columns_are_named() {
    let store = Fixture::new("missing");
    let rows = batch(vec![
        ("driver", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("event_timestamp", times(&[Some(DAY)])),
        ("rate", Arc::new(Float64Array::from(vec![0.1]))),
    ]);
    let error =
        write_to_store(&store.project, "stats", std::slice::from_ref(&rows), PushTarget::Online).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the rows lack columns of view `stats`: `driver_id`; did you mean `driver`?"), "{text}");
    assert!(text.contains("`created`") && text.contains("`city`"), "{text}");
    let error = push(&store.project, "stats_stream", &[rows], PushTarget::Online).await.unwrap_err();
    assert!(error.to_string().contains("columns of source `stats_stream`"), "{error}");
    assert!(untouched(&store).await);
}

#[tokio::test]
async fn pushes_to_where_nobody_listens_are_errors() {
    let store = Fixture::new("nobody");
    let rows = [stats_rows(&[(1, DAY, None, None, None)])];
    for (source, target, expected) in [
        ("stats_table", PushTarget::Online, "is a batch source"),
        ("idle_push", PushTarget::Online, "source `idle_push` feeds no feature view"),
        ("stats_strem", PushTarget::Online, "did you mean `stats_stream`?"),
        ("world_push", PushTarget::Offline, "pushed to `offline`, but no view of it says `offline: true`: `world`"),
        ("world_push", PushTarget::OnlineAndOffline, "but no view of it says `offline: true`"),
    ] {
        let error = push(&store.project, source, &rows, target).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = write_to_store(&store.project, "world", &rows, PushTarget::Offline).await.unwrap_err().to_string();
    assert_eq!(error, "view `world` is not logged: it does not say `offline: true`");
    assert!(untouched(&store).await);
}

#[tokio::test]
async fn no_rows_are_no_error() {
    let store = Fixture::new("norows");
    let empty = stats_rows(&[]);
    for rows in [vec![], vec![empty]] {
        let pushed = push(&store.project, "stats_stream", &rows, PushTarget::OnlineAndOffline).await.unwrap();
        assert_eq!((pushed[0].rows, pushed[0].logged), (0, 0));
        let pushed = write_to_store(&store.project, "stats", &rows, PushTarget::OnlineAndOffline).await.unwrap();
        assert_eq!(pushed.rows, 0);
    }
    assert!(untouched(&store).await);
}

/// Gives a row for each element of the list column `rates`.
#[derive(Debug)]
struct Unnest(SchemaRef);

impl PlannedTransform for Unnest {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::default()
    }

    fn apply(&self, input: &RecordBatch) -> Result<Transformed> {
        let lists = input["rates"].as_list::<i32>();
        let inputs: UInt32Array =
            (0..).zip(lists.iter()).flat_map(|(row, list)| vec![row; list.map_or(0, |list| list.len())]).collect();
        let taken = take_record_batch(input, &inputs)?;
        let columns = self.0.fields().iter().map(|field| match field.name().as_str() {
            "rate" => Arc::clone(lists.values()),
            name => Arc::clone(&taken[name]),
        });
        Ok(Transformed { rows: RecordBatch::try_new(self.output(), columns.collect())?, inputs: Some(inputs) })
    }
}

#[tokio::test]
async fn rows_of_one_record_share_its_position() {
    let mut store = Fixture::new("unnest");
    let rates = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), Some(2)]),
        Some(vec![]),
        Some(vec![Some(3), Some(4), Some(5)]),
    ]);
    let input = batch(vec![
        ("driver_id", Arc::new(Int32Array::from(vec![1, 2, 1])) as ArrayRef),
        ("event_timestamp", times(&[Some(DAY), Some(DAY), Some(DAY)])),
        ("created", times(&[None, None, None])),
        ("rates", Arc::new(rates)),
        ("city", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
    ]);
    store.edit("stats", |view| {
        let output = batch(vec![
            ("driver_id", Arc::new(Int32Array::from(vec![0])) as ArrayRef),
            ("event_timestamp", times(&[None])),
            ("created", times(&[None])),
            ("rate", Arc::new(Int64Array::from(vec![0]))),
            ("city", Arc::new(StringArray::from(vec![""]))),
        ]);
        let stream = view.stream.as_mut().unwrap();
        stream.input = input.schema();
        stream.transform = Arc::new(Unnest(output.schema()));
    });
    let pushed = push(&store.project, "stats_stream", &[input], PushTarget::OnlineAndOffline).await.unwrap();
    assert_eq!((pushed[0].rows, pushed[0].written), (5, 1));
    // The last row of the last record has the greatest ordinal.
    assert_eq!(store.one("stats:rate", json!({"driver_id": [1]})).await, json!([5.0, "PRESENT"]));
    let log = log(&store).await;
    let positions: Vec<u8> = log[0][LOG_POSITION].as_binary::<i32>().iter().map(|p| p.unwrap()[7]).collect();
    assert_eq!(positions, [1, 1, 3, 3, 3]);
    assert_eq!(&log[0]["_ordinal"], &(Arc::new(UInt32Array::from(vec![0, 1, 0, 1, 2])) as ArrayRef));
}
