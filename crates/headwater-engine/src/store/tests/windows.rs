//! Online reads of windows.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::definitions::{AggregateFunction, Field, ValueType};
use headwater_core::memory::MemoryOnlineStore;
use headwater_core::online::{OnlineRow, Put};
use headwater_core::{ErrorKind, Micros, OnlineStore, Origin, Position, Result, RowVersion, SplitId};
use serde_json::{Value, json};

use super::{DAY, Fixture, HOUR, key, stream, times, view};
use crate::rows::KeyColumns;
use crate::view::View;
use crate::warnings;
use crate::windows::epoch::{Epoch, push_split, table};
use crate::windows::{Layout, State, Window, WindowFeature, Windows};

const MINUTE: Micros = HOUR / 60;

fn feature(name: &str, function: AggregateFunction, column: Option<usize>, length: Option<Micros>) -> WindowFeature {
    let dtype = match (function, column) {
        (AggregateFunction::Count, _) => ValueType::Int64,
        // Narrower than what is summed, so that a test can go beyond it.
        (AggregateFunction::Sum, Some(1)) => ValueType::Int32,
        _ => ValueType::Float64,
    };
    let window = length.map(|length| Window { length, hop: 5 * MINUTE });
    WindowFeature { field: Field::new(name, dtype), function, column, window }
}

fn windows(features: Vec<WindowFeature>, fingerprint: &str) -> Arc<Windows> {
    let columns = vec![Field::new("amount", ValueType::Float64), Field::new("pieces", ValueType::Int64)];
    Arc::new(Windows { columns, features, fingerprint: fingerprint.into() })
}

fn default_windows() -> Arc<Windows> {
    let (count, sum, last) = (AggregateFunction::Count, AggregateFunction::Sum, AggregateFunction::Last);
    windows(
        vec![
            feature("orders", count, None, Some(HOUR)),
            feature("spent", sum, Some(0), Some(HOUR)),
            feature("newest", last, Some(0), None),
            feature("pieces_sum", sum, Some(1), None),
        ],
        "first",
    )
}

fn orders(windows: &Arc<Windows>) -> View {
    let mut orders = view("orders", vec![key("user", ValueType::Int64)], &[]);
    orders.features = windows.features.iter().map(|feature| feature.field.clone()).collect();
    orders.windows = Some(Arc::clone(windows));
    orders.stream = Some(stream("stats_stream", &orders));
    orders
}

fn epoch(id: &str, windows: &Arc<Windows>) -> Epoch {
    Epoch {
        id: id.into(),
        generation: "g1".into(),
        fingerprint: windows.fingerprint.clone(),
        windows: windows.as_ref().clone(),
        log_from: None,
        start: None,
        created: 0,
        without_rows: false,
    }
}

/// A project with the view `orders`, whose state is in this epoch.
fn fixture(test: &str, windows: &Arc<Windows>) -> Fixture {
    let mut store = Fixture::new(test);
    store.project.views.push(Arc::new(orders(windows)));
    store
}

type Event = (Micros, f64, i64);

/// One entity's state row of one split.
fn row(windows: &Arc<Windows>, user: i64, split: Option<&str>, events: &[Event]) -> OnlineRow {
    let view = orders(windows);
    let rows = RecordBatch::try_new(
        view.schema(),
        vec![
            Arc::new(Int64Array::from(vec![user; events.len()])) as ArrayRef,
            times(&events.iter().map(|event| Some(event.0)).collect::<Vec<_>>()),
            Arc::new(Float64Array::from_iter_values(events.iter().map(|event| event.1))),
            Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.2))),
        ],
    )
    .unwrap();
    let layout = Layout::new(windows).unwrap();
    let bound = layout.bind(&rows).unwrap();
    let mut state = State::new();
    for (at, (time, ..)) in events.iter().enumerate() {
        let version = RowVersion {
            event_time: *time,
            created: None,
            origin: Origin::Stream,
            split: SplitId::from(split.unwrap_or_default()),
            position: Position::from_u64(at as u64 + 1),
            ordinal: 0,
        };
        state.update(&layout, &bound, at, *time, &version.encode());
    }
    let position = Position::from_u64(events.len() as u64);
    state.set_position(position.clone());
    let mut key = Vec::new();
    KeyColumns::new(&view.keys, &rows).unwrap().encode(0, &mut key);
    push_split(&mut key, split.map(SplitId::from).as_ref());
    OnlineRow {
        key: key.into(),
        version: Bytes::copy_from_slice(position.as_bytes()),
        value: state.encode(&layout),
        expiry: None,
    }
}

async fn put(online: &dyn OnlineStore, epoch: &Epoch, rows: Vec<OnlineRow>) {
    online.put(&table("test", "orders", epoch), rows).await.unwrap();
    epoch.serve(online, "test", "orders", 0).await.unwrap();
}

async fn ask(store: &Fixture, users: Value) -> Value {
    let answer = store.read(&["orders"], json!({"user": users})).await.unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    Value::Array(answer["results"].as_array().unwrap()[1..].to_vec())
}

#[tokio::test]
async fn an_entitys_rows_are_merged_at_the_time_of_the_read() {
    let windows = default_windows();
    let store = fixture("merged", &windows);
    let (early, late) = (DAY - 30 * MINUTE, DAY - MINUTE);
    put(
        store.project.online.as_ref(),
        &epoch("1", &windows),
        vec![
            row(&windows, 7, Some("0"), &[(early, 1.5, 1), (late, 2.0, 1)]),
            row(&windows, 7, Some("1"), &[(DAY - 2 * MINUTE, 10.0, 1)]),
            row(&windows, 7, None, &[(DAY - 90 * MINUTE, 100.0, 1), (DAY - 20 * MINUTE, 50.0, 1)]),
            row(&windows, 70, Some("0"), &[(late, 9.0, 1)]),
        ],
    )
    .await;
    let now = "2026-01-01T00:00:00Z";
    assert_eq!(
        ask(&store, json!([7])).await,
        json!([
            {"values": [4], "statuses": ["PRESENT"], "event_timestamps": [now]},
            {"values": [63.5], "statuses": ["PRESENT"], "event_timestamps": [now]},
            {"values": [2.0], "statuses": ["PRESENT"], "event_timestamps": [now]},
            {"values": [5], "statuses": ["PRESENT"], "event_timestamps": [now]},
        ])
    );
    // The window has gone by, the lifetime has not.
    store.clock.set(DAY + 3 * HOUR);
    let values: Vec<Value> =
        ask(&store, json!([7])).await.as_array().unwrap().iter().map(|c| c["values"][0].clone()).collect();
    assert_eq!(values, [json!(0), Value::Null, json!(2.0), json!(5)]);
    let reads = store.serving.metrics().all();
    let reads = reads["orders"];
    assert_eq!((reads.entities, reads.rows, reads.most_rows, reads.overflows), (2, 6, 3, 0));
}

#[tokio::test]
async fn a_clock_behind_the_newest_event_answers_for_that_event() {
    let windows = default_windows();
    let store = fixture("behind", &windows);
    let rows = vec![row(&windows, 7, Some("0"), &[(DAY + 5 * MINUTE, 1.0, 1)])];
    put(store.project.online.as_ref(), &epoch("1", &windows), rows).await;
    let answer = ask(&store, json!([7, 8])).await;
    assert_eq!(answer[0]["values"], json!([1, 0]));
    assert_eq!(answer[0]["event_timestamps"], json!(["2026-01-01T00:05:00Z", "2026-01-01T00:00:00Z"]));
}

#[tokio::test]
async fn windows_of_an_entity_never_seen_are_empty() {
    let windows = default_windows();
    let store = fixture("unseen", &windows);
    let empty = |answer: &Value, row: usize| {
        assert_eq!([&answer[0]["values"][row], &answer[0]["statuses"][row]], [&json!(0), &json!("PRESENT")]);
        for column in 1..4 {
            let column = &answer[column];
            assert_eq!([&column["values"][row], &column["statuses"][row]], [&Value::Null, &json!("NULL_VALUE")]);
        }
    };
    // Nothing was ever built.
    empty(&ask(&store, json!([1])).await, 0);
    let rows = vec![row(&windows, 7, Some("0"), &[(DAY, 1.0, 1)])];
    put(store.project.online.as_ref(), &epoch("1", &windows), rows).await;
    let answer = ask(&store, json!([1, 7, null, 7])).await;
    empty(&answer, 0);
    empty(&answer, 2);
    assert_eq!(answer[0]["values"], json!([0, 1, 0, 1]));
    assert_eq!(ask(&store, json!([])).await[0]["values"], json!([]));
}

#[tokio::test]
async fn results_beyond_their_type_are_null_and_counted_and_warned_of_once() {
    let windows = default_windows();
    let store = fixture("overflow", &windows);
    let big = i64::from(i32::MAX);
    let rows = vec![row(&windows, 7, Some("0"), &[(DAY, 1.0, big), (DAY, 1.0, big)])];
    put(store.project.online.as_ref(), &epoch("1", &windows), rows).await;
    warnings::listen();
    let answer = ask(&store, json!([7])).await;
    assert_eq!([&answer[3]["values"][0], &answer[3]["statuses"][0]], [&Value::Null, &json!("NULL_VALUE")]);
    ask(&store, json!([7])).await;
    assert_eq!(store.serving.metrics().all()["orders"].overflows, 2);
    let heard = warnings::heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("beyond its feature's type") && heard[0].contains("view=\"orders\""), "{heard:?}");
}

#[tokio::test]
async fn an_epoch_of_older_aggregations_serves_the_features_that_it_has() {
    let windows = default_windows();
    let store = fixture("older", &windows);
    let old = self::windows(
        vec![
            feature("total", AggregateFunction::Sum, Some(0), None),
            feature("spent", AggregateFunction::Max, Some(0), None),
            // The same name, and another type.
            feature("orders", AggregateFunction::Sum, Some(0), None),
        ],
        "older",
    );
    let events = [(DAY, 1.0, 1), (DAY, 5.0, 1)];
    put(store.project.online.as_ref(), &epoch("1", &old), vec![row(&old, 7, Some("0"), &events)]).await;
    let values =
        |answer: Value| answer.as_array().unwrap().iter().map(|column| column["values"][0].clone()).collect::<Vec<_>>();
    assert_eq!(values(ask(&store, json!([7])).await), [Value::Null, json!(5.0), Value::Null, Value::Null]);
    // The new epoch is seen at once.
    put(store.project.online.as_ref(), &epoch("2", &windows), vec![row(&windows, 7, Some("0"), &events)]).await;
    assert_eq!(values(ask(&store, json!([7])).await), [json!(2), json!(6.0), json!(5.0), json!(2)]);
}

type Hook = Box<dyn FnOnce(&MemoryOnlineStore) -> futures::future::BoxFuture<'_, ()> + Send>;

/// A store in which something happens right before window rows are read.
struct Meanwhile {
    inner: MemoryOnlineStore,
    hook: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meanwhile").finish_non_exhaustive()
    }
}

#[async_trait]
impl OnlineStore for Meanwhile {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        self.inner.put(table, rows).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        self.inner.get(table, keys).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        let hook = if table.contains("/orders/") { self.hook.lock().unwrap().take() } else { None };
        if let Some(hook) = hook {
            hook(&self.inner).await;
        }
        self.inner.get_prefixes(table, prefixes).await
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        self.inner.delete(table, keys).await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        self.inner.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        self.inner.tables().await
    }
}

#[tokio::test]
async fn a_read_across_a_switch_is_of_the_new_epoch_whole() {
    let windows = default_windows();
    let mut store = fixture("switch", &windows);
    let events = [(DAY, 1.0, 1)];
    let online = Arc::new(Meanwhile { inner: MemoryOnlineStore::new(), hook: Mutex::new(None) });
    put(online.as_ref(), &epoch("1", &windows), vec![row(&windows, 7, Some("0"), &events)]).await;
    store.project.online = Arc::clone(&online) as _;
    assert_eq!(ask(&store, json!([7])).await[0]["values"], json!([1]));

    let (moved, rows) = (Arc::clone(&windows), vec![row(&windows, 7, Some("0"), &[events[0], events[0]])]);
    *online.hook.lock().unwrap() = Some(Box::new(move |inner| {
        Box::pin(async move {
            put(inner, &epoch("2", &moved), rows).await;
            inner.drop_table(&table("test", "orders", &epoch("1", &moved))).await.unwrap();
        })
    }));
    assert_eq!(ask(&store, json!([7])).await[0]["values"], json!([2]), "neither the old value nor an empty window");
    assert!(online.hook.lock().unwrap().is_none());
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_named() {
    let windows = default_windows();
    let store = fixture("damaged", &windows);
    for (value, kind) in [(&[1_u8, 200][..], ErrorKind::Corrupt), (&[9, 0, 0][..], ErrorKind::FormatVersion)] {
        let mut damaged = row(&windows, 7, Some("0"), &[(DAY, 1.0, 1)]);
        damaged.value = Bytes::copy_from_slice(value);
        put(store.project.online.as_ref(), &epoch("1", &windows), vec![damaged]).await;
        let error = store.read(&["orders"], json!({"user": [7]})).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("orders"), "{error}");
    }
}
