use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use headwater_core::{Error, ErrorKind};
use serde_json::json;

use super::super::features::Features;
use super::super::online::{FeatureStatus, get_online_features};
use super::{DAY, Fixture, HOUR, batch, stats_rows, times};
use crate::rows::{Serving, values_table};

#[tokio::test]
async fn the_answer_is_feasts_json() {
    let store = Fixture::new("feast");
    store.stats(1001, DAY - HOUR, Some(0.5), Some("Oslo")).await;
    store.stats(1002, DAY - 1, None, Some("")).await;
    let answer = store.read(&["stats:rate", "stats:city"], json!({"driver_id": [1001, 7, 1002, 1001]})).await.unwrap();
    let epoch = "1970-01-01T00:00:00Z";
    let (early, late) = ("2025-12-31T23:00:00Z", "2025-12-31T23:59:59.999999Z");
    assert_eq!(
        serde_json::to_value(&answer).unwrap(),
        json!({
            "metadata": {"feature_names": ["driver_id", "rate", "city"]},
            "results": [
                {
                    "values": [1001, 7, 1002, 1001],
                    "statuses": ["PRESENT", "PRESENT", "PRESENT", "PRESENT"],
                    "event_timestamps": [epoch, epoch, epoch, epoch],
                },
                {
                    "values": [0.5, null, null, 0.5],
                    "statuses": ["PRESENT", "NOT_FOUND", "NULL_VALUE", "PRESENT"],
                    "event_timestamps": [early, epoch, late, early],
                },
                {
                    "values": ["Oslo", null, "", "Oslo"],
                    "statuses": ["PRESENT", "NOT_FOUND", "PRESENT", "PRESENT"],
                    "event_timestamps": [early, epoch, late, early],
                },
            ],
        })
    );
    let rows = answer.to_record_batch().unwrap();
    assert_eq!((rows.num_rows(), rows.num_columns()), (4, 3));
    assert_eq!(answer.column("city").unwrap().statuses[1], FeatureStatus::NotFound);
}

#[tokio::test]
async fn ttl_is_applied_when_a_value_is_read() {
    let mut store = Fixture::new("ttl");
    store.edit("stats", |view| view.ttl = HOUR);
    store.stats(1, DAY, Some(0.5), None).await;
    let ask = json!({"driver_id": [1]});
    for (now, expected) in [
        (DAY - HOUR, json!([0.5, "PRESENT"])),
        (DAY + HOUR, json!([0.5, "PRESENT"])),
        (DAY + HOUR + 1, json!([null, "OUTSIDE_MAX_AGE"])),
    ] {
        store.clock.set(now);
        assert_eq!(store.one("stats:rate", ask.clone()).await, expected, "{now}");
    }
    // A longer ttl brings the value back; none at all keeps it for ever.
    store.edit("stats", |view| view.ttl = 2 * HOUR);
    assert_eq!(store.one("stats:rate", ask.clone()).await, json!([0.5, "PRESENT"]));
    store.edit("stats", |view| view.ttl = 0);
    store.clock.set(i64::MAX);
    assert_eq!(store.one("stats:rate", ask).await, json!([0.5, "PRESENT"]));
}

#[tokio::test]
async fn composite_keys_are_found_in_any_order_of_columns() {
    let store = Fixture::new("composite");
    let row = batch(vec![
        ("city", Arc::new(StringArray::from(vec!["Oslo"])) as ArrayRef),
        ("driver_id", Arc::new(Int64Array::from(vec![1]))),
        ("event_timestamp", times(&[Some(DAY)])),
        ("trips", Arc::new(Int64Array::from(vec![9]))),
    ]);
    store.put("hourly", row).await;
    for entities in [json!({"city": ["Oslo"], "driver_id": [1]}), json!({"driver_id": [1], "city": ["Oslo"]})] {
        assert_eq!(store.one("hourly:trips", entities).await, json!([9, "PRESENT"]));
    }
    assert_eq!(
        store.one("hourly:trips", json!({"city": ["Bergen"], "driver_id": [1]})).await,
        json!([null, "NOT_FOUND"])
    );
    assert_eq!(store.one("hourly:trips", json!({"city": [null], "driver_id": [1]})).await, json!([null, "NOT_FOUND"]));
}

#[tokio::test]
async fn services_views_and_full_names() {
    let store = Fixture::new("services");
    let names = |answer: super::OnlineFeatures| answer.columns.into_iter().map(|c| c.name).collect::<Vec<_>>();
    let get = |features: Features, full| {
        let entities = super::EntityColumns::default().column("driver_id", [1]).column("city", ["Oslo"]);
        let store = &store;
        async move { get_online_features(&store.project, &store.serving, &features, &entities.into(), full).await }
    };
    let full = get(Features::service("all"), true).await.unwrap();
    assert_eq!(names(full), ["driver_id", "city", "stats__rate", "stats__city", "hourly__trips"]);
    // A view once named whole and once in part gives each feature once.
    let both = get(Features::names(["stats", "stats:rate"]), true).await.unwrap();
    assert_eq!(names(both), ["driver_id", "stats__rate", "stats__city"]);
    // `city` is a join key of `hourly`.
    let error = get(Features::service("all"), false).await.unwrap_err().to_string();
    assert_eq!(error, "feature `city` of view `stats` is called like a join key; ask for full feature names");
    let error = get(Features::names(["stats:rate", "world:rate"]), false).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "feature `rate` of view `world` is called like a feature of view `stats`; ask for full feature names"
    );
    let error = get(Features::service("al"), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "there is no feature service `al` in project `test`; did you mean `all`?");
}

#[tokio::test]
async fn wrong_requests_say_what_would_be_right() {
    let mut store = Fixture::new("wrong");
    let one = json!({"driver_id": [1]});
    for (features, entities, expected) in [
        (vec!["stat:rate"], one.clone(), "there is no feature view `stat` in project `test`; did you mean `stats`?"),
        (vec!["stats:rat"], one.clone(), "there is no feature `rat` in view `stats`; did you mean `rate`?"),
        (
            vec!["stats:wholly_other"],
            one.clone(),
            "there is no feature `wholly_other` in view `stats`; there are `rate`, `city`",
        ),
        (vec![], one.clone(), "no features are asked for; name some as `view:feature`, or a feature service"),
        (vec!["stats"], json!({"driver": [1]}), "view `stats` needs the join key `driver_id`; given are `driver`"),
        (vec!["stats"], json!({}), "view `stats` needs the join key `driver_id`; given are none"),
        (vec!["stats"], json!({"driver_id": ["1"]}), "join key `driver_id`, row 0: `\"1\"` is no `int64`"),
        (
            vec!["hourly"],
            json!({"driver_id": [1, 2], "city": ["a"]}),
            "entity columns differ in length: `city` has 1 values, `driver_id` has 2",
        ),
    ] {
        assert_eq!(store.error(&features, entities).await, expected);
    }
    store.edit("stats", |view| view.online = false);
    let expected = "view `stats` is not served online: it says `online: false`";
    assert_eq!(store.error(&["stats"], one).await, expected);
}

#[tokio::test]
async fn no_rows_and_no_keys() {
    let store = Fixture::new("empty");
    let none = store.read(&["stats"], json!({"driver_id": []})).await.unwrap();
    assert_eq!(none.num_rows(), 0);
    assert_eq!(serde_json::to_value(&none).unwrap()["results"][1]["values"], json!([]));
    let row = batch(vec![
        ("event_timestamp", times(&[Some(DAY)])),
        ("rate", Arc::new(Float64Array::from(vec![2.5])) as ArrayRef),
    ]);
    store.put("world", row).await;
    assert_eq!(store.one("world:rate", json!({})).await, json!([2.5, "PRESENT"]));
    // Columns beyond the join keys are ignored but for the number of rows.
    let answer = store.read(&["world:rate"], json!({"other": [1, 2]})).await.unwrap();
    assert_eq!(serde_json::to_value(&answer).unwrap()["results"][0]["values"], json!([2.5, 2.5]));
}

#[tokio::test]
async fn keys_in_arrow_are_cast_without_loss() {
    let store = Fixture::new("arrow");
    store.stats(1, DAY, Some(0.5), None).await;
    let get = |column: ArrayRef| {
        let entities = batch(vec![("driver_id", column)]).into();
        let store = &store;
        async move {
            get_online_features(&store.project, &store.serving, &Features::names(["stats:rate"]), &entities, false)
                .await
        }
    };
    let answer = get(Arc::new(Int32Array::from(vec![Some(1), None]))).await.unwrap();
    assert_eq!(answer.columns[1].statuses, [FeatureStatus::Present, FeatureStatus::NotFound]);
    let error: Error = get(Arc::new(Float64Array::from(vec![1.0, 1.5]))).await.unwrap_err();
    assert!(error.to_string().starts_with("join key `driver_id`, row 1:"), "{error}");
}

#[tokio::test]
async fn reads_go_to_the_serving_generation() {
    let mut store = Fixture::new("serving");
    store.stats(1, DAY, Some(0.5), Some("Oslo")).await;
    let serve = |generation: &str, applied| Serving { view: "stats".into(), generation: generation.into(), applied };
    serve("g1", 1).write(store.project.online.as_ref(), "test").await.unwrap();
    // A new generation, in which `rate` is an integer, is built beside the old one.
    store.edit("stats", |view| {
        view.generation = "g2".into();
        view.features[0].dtype = headwater_core::definitions::ValueType::Int64;
    });
    let ask = json!({"driver_id": [1]});
    assert_eq!(store.one("stats:city", ask.clone()).await, json!(["Oslo", "PRESENT"]));
    assert_eq!(store.one("stats:rate", ask.clone()).await, json!([null, "NULL_VALUE"]));
    serve("g2", 2).write(store.project.online.as_ref(), "test").await.unwrap();
    serve("g1", 1).write(store.project.online.as_ref(), "test").await.unwrap();
    assert_eq!(store.one("stats:city", ask.clone()).await, json!(["Oslo", "PRESENT"]), "known for a second");
    store.clock.advance(1_000_000);
    assert_eq!(store.one("stats:city", ask).await, json!([null, "NOT_FOUND"]));
}

#[tokio::test]
async fn damaged_rows_are_errors() {
    let store = Fixture::new("damaged");
    store.stats(1, DAY, Some(0.5), Some("Oslo")).await;
    let table = values_table("test", "stats", "g1");
    let mut row = store.project.online.get_prefixes(&table, &[Default::default()]).await.unwrap()[0][0].clone();
    row.value = row.value.slice(..row.value.len() - 1);
    store.project.online.put(&table, vec![row]).await.unwrap();
    let error = store.read(&["stats"], json!({"driver_id": [1]})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_entity_that_was_deleted_is_not_found_until_it_comes_back() {
    let fixture = Fixture::new("deleted");
    let deleted = |time| {
        let rows = stats_rows(&[(1001, time, None, None, None)]);
        let marks: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        let mut columns = rows.columns().to_vec();
        let mut fields = rows.schema().fields().to_vec();
        fields.push(Arc::new(Field::new(crate::rows::DELETED, marks.data_type().clone(), false)));
        columns.push(marks);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    let read = || fixture.one("stats:rate", json!({"driver_id": [1001]}));
    fixture.stats(1001, 100, Some(0.5), None).await;
    fixture.put("stats", deleted(90)).await;
    assert_eq!(read().await, json!([0.5, "PRESENT"]));
    fixture.put("stats", deleted(200)).await;
    assert_eq!(read().await, json!([null, "NOT_FOUND"]));
    fixture.stats(1001, 150, Some(0.6), None).await;
    assert_eq!(read().await, json!([null, "NOT_FOUND"]));
    fixture.stats(1001, 300, Some(0.7), None).await;
    assert_eq!(read().await, json!([0.7, "PRESENT"]));
}
