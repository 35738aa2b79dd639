//! Records without a value that delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field as ArrowField, Float64Type, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::definitions::{RecordFormat, ValueType, timestamp_type};
use headwater_core::stream::METADATA_TIMESTAMP;
use headwater_core::transform::{Identity, Transform};
use headwater_testkit::Random;

use super::world::{NOW, TestRecord, World, assert_each_once, record, view};
use crate::history::{EntityRows, HistoryOptions, HistoryRequest, JoinView, RequestedFeature, join};
use crate::ingest::{Replayed, dead_letters, replay_dead_letters};
use crate::rows::{DELETED, RowDecoder, values_table};
use crate::view::Key;

fn world() -> World {
    let mut world = World::new();
    world.stream.deletes = true;
    world.definitions.sources[0].options.insert("deletes".into(), true.into());
    world
}

fn delete(world: &World, key: &str, at: i64) {
    let record = TestRecord { key: Some(key.as_bytes().to_vec()), value: None, stored: at };
    world.stream.add_record("a", record);
}

/// The values of entities that are there, by key.
async fn alive(world: &World) -> BTreeMap<Bytes, Option<f64>> {
    let view = &world.views[0];
    let table = values_table("test", &view.name, &view.generation);
    let rows = world.online.get_prefixes(&table, &[Bytes::new()]).await.unwrap().remove(0);
    let dead = rows.iter().filter(|row| RowDecoder::is_tombstone(&row.value)).map(|row| row.key.clone());
    let dead = dead.collect::<Vec<_>>();
    let all = world.online().await.into_iter();
    all.filter(|(key, _)| !dead.contains(key)).map(|(key, (_, value))| (key, value.map(f64::from_bits))).collect()
}

async fn alive_values(world: &World) -> Vec<f64> {
    let mut values = alive(world).await.into_values().flatten().collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    values
}

/// What a join finds for each of these entities and times.
async fn joined(world: &World, asked: &[(i64, i64)]) -> Vec<Option<f64>> {
    let times = TimestampMicrosecondArray::from_iter_values(asked.iter().map(|(_, time)| *time)).with_timezone("UTC");
    let columns: [(_, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(asked.iter().map(|(id, _)| *id)))),
        ("event_timestamp", Arc::new(times)),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let request = HistoryRequest {
        entities: EntityRows::new(rows.schema(), vec![rows]).unwrap(),
        views: vec![JoinView::open(&world.project(), &world.views[0]).await.unwrap()],
        features: vec![RequestedFeature { view: 0, feature: "value".into(), output: "value".into() }],
        options: HistoryOptions::default(),
    };
    let batches = join(request).await.unwrap().collect().await.unwrap();
    let values = batches.iter().flat_map(|batch| {
        batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().iter().collect::<Vec<_>>()
    });
    values.collect()
}

/// What the rows of the log say of themselves.
async fn deleted(world: &World) -> Vec<Option<bool>> {
    let log = world.offline.log(&world.views[0].log());
    let request = ScanRequest::default();
    let mut deleted = Vec::new();
    for fragment in log.fragments(&request).await.unwrap() {
        let mut batches = log.read(&fragment, &request).await.unwrap();
        while let Some(batch) = batches.try_next().await.unwrap() {
            match batch.rows.column_by_name(DELETED) {
                Some(column) => deleted.extend(column.as_boolean()),
                None => deleted.extend(std::iter::repeat_n(None, batch.rows.num_rows())),
            }
        }
    }
    deleted
}

#[tokio::test]
async fn a_tombstone_wins_or_loses_by_its_time() {
    let world = world();
    for id in 1..=4 {
        world.stream.event("a", id, 100, id as f64);
    }
    delete(&world, "1", 200);
    delete(&world, "2", 200);
    delete(&world, "3", 50);
    world.stream.event("a", 1, 150, 11.0);
    world.stream.event("a", 2, 250, 12.0);
    delete(&world, "99", 10);
    world.run().await;
    assert_eq!(alive_values(&world).await, [3.0, 4.0, 12.0]);
    // The log has them all, each with its place in time.
    let log = world.log().await;
    assert_each_once(&log);
    assert_eq!(log.len(), 10);
    let asked = [(1, 100), (1, 199), (1, 200), (1, 900), (2, 249), (2, 250), (3, 99), (3, 100), (99, 900)];
    let expected = [Some(1.0), Some(11.0), None, None, None, Some(12.0), None, Some(3.0), None];
    assert_eq!(joined(&world, &asked).await, expected);
    // A later job changes nothing.
    world.run().await;
    assert_eq!(alive_values(&world).await, [3.0, 4.0, 12.0]);
    let job = world.start().await;
    assert_eq!(job.status().splits.iter().map(|split| split.counts.tombstones).sum::<u64>(), 4);
}

#[tokio::test]
async fn rows_of_the_log_say_what_they_are() {
    let world = world();
    world.stream.event("a", 1, 100, 1.0);
    delete(&world, "1", 200);
    world.run().await;
    assert_eq!(deleted(&world).await, [Some(false), Some(true)]);
}

/// A log is compacted without knowing what its rows say: also rows from before the source deleted.
#[tokio::test]
async fn compacted_logs_keep_them() {
    let mut world = world();
    world.stream.deletes = false;
    world.stream.event("a", 1, 100, 1.0);
    world.stream.event("a", 2, 100, 2.0);
    world.run().await;
    world.stream.deletes = true;
    delete(&world, "1", 200);
    world.run().await;
    world.stream.event("a", 1, 300, 3.0);
    delete(&world, "2", 150);
    world.run().await;
    let asked = [(1, 150), (1, 250), (1, 350), (2, 149), (2, 350)];
    let expected = [Some(1.0), None, Some(3.0), Some(2.0), None];
    assert_eq!(joined(&world, &asked).await, expected);
    let done = world.offline.compact(&world.views[0].log()).await.unwrap();
    assert!(done.before > done.after, "{done:?}");
    assert_eq!(deleted(&world).await, [None, None, Some(true), Some(false), Some(true)]);
    assert_eq!(joined(&world, &asked).await, expected);
}

#[tokio::test]
async fn without_the_option_they_are_stepped_over() {
    let mut world = world();
    world.stream.deletes = false;
    world.stream.event("a", 1, 100, 1.0);
    delete(&world, "1", 200);
    world.run().await;
    assert_eq!((alive_values(&world).await, world.log().await.len()), (vec![1.0], 1));
}

#[tokio::test]
async fn a_key_that_names_no_entity_is_a_dead_letter() {
    let world = world();
    world.stream.event("a", 1, 100, 1.0);
    delete(&world, "one", 200);
    delete(&world, "1.5", 200);
    world.stream.add_record("a", TestRecord { key: Some(vec![0xff]), value: None, stored: 200 });
    world.stream.add_record("a", TestRecord { key: None, value: None, stored: 200 });
    world.stream.event("a", 2, 100, 2.0);
    world.run().await;
    assert_eq!(alive_values(&world).await, [1.0, 2.0]);
    let project = world.project();
    let dead = dead_letters(&project).await.unwrap();
    let about = "the record has no value, and its key names no entity: column `id`: ";
    let says = [
        format!("{about}`one` does not go into Int64 without loss"),
        format!("{about}`1.5` does not go into Int64 without loss"),
        format!("{about}the key is no text"),
        "the record has neither a value nor a key that names an entity".into(),
    ];
    assert_eq!(dead.iter().map(|dead| dead.letter.reason.clone()).collect::<Vec<_>>(), says);
    assert!(dead.iter().all(|dead| dead.letter.record() == "(no value)"));
    let done = replay_dead_letters(&project, None).await.unwrap();
    assert_eq!(done, Replayed { brought_in: 0, failed: 4, skipped: 0 });
}

#[tokio::test]
async fn several_join_keys_are_named_by_an_object() {
    let mut world = world();
    let mut columns = super::world::input().fields().to_vec();
    columns.insert(1, Arc::new(ArrowField::new("city", DataType::Utf8, true)));
    let input = Arc::new(Schema::new(columns));
    let mut of_both = view("values", "g1");
    of_both.keys.push(Key { name: "city".into(), value_type: ValueType::String });
    let stream = of_both.stream.as_mut().unwrap();
    (stream.input, stream.transform) = (Arc::clone(&input), Identity.plan(&input).unwrap());
    world.views = vec![Arc::new(of_both)];
    let ddl = "id bigint, city string, ts timestamp, created timestamp, value double";
    world.settings().record_format = Some(RecordFormat::json(ddl));
    let event =
        |city: &str, value: f64| record(1, 100, None, value).replacen('{', &format!("{{\"city\":\"{city}\","), 1);
    for (city, value) in [("Rome", 1.0), ("Bern", 2.0), ("Oslo", 3.0)] {
        world.stream.add("a", event(city, value));
    }
    delete(&world, r#"{"city": "Bern", "id": 1, "more": []}"#, 200);
    delete(&world, r#"{"id": 1}"#, 200);
    delete(&world, "1", 200);
    world.run().await;
    assert_eq!(alive_values(&world).await, [1.0, 3.0]);
    let dead = dead_letters(&world.project()).await.unwrap();
    let reasons = dead.iter().map(|dead| dead.letter.reason.as_str()).collect::<Vec<_>>();
    assert_eq!(reasons.len(), 2);
    assert!(reasons[0].ends_with("column `city`: must not be null"), "{reasons:?}");
    assert!(reasons[1].contains("not a JSON object"), "{reasons:?}");
    assert_eq!(input.field_with_name(METADATA_TIMESTAMP).unwrap().data_type(), &timestamp_type());
}

#[tokio::test]
async fn a_tombstone_makes_no_event_late() {
    let mut world = world();
    world.settings().watermark_delay_threshold = Some(headwater_core::options::Duration(10));
    world.settings().late_events = headwater_core::definitions::LateEvents::DeadLetter;
    world.stream.event("a", 1, 100, 1.0);
    delete(&world, "2", NOW);
    world.stream.event("a", 3, 95, 3.0);
    delete(&world, "3", 1);
    world.stream.event("a", 4, 80, 4.0);
    world.run().await;
    assert_eq!(alive_values(&world).await, [1.0, 3.0]);
    assert_eq!(dead_letters(&world.project()).await.unwrap().len(), 1);
}

/// The newest of what is known by a time decides, whether it is an event or a tombstone.
#[tokio::test]
async fn random_streams_read_as_the_rule_says() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let world = world();
        world.stream.script.lock().unwrap().redeliver_once_in = 3;
        world.stream.script.lock().unwrap().seed = seed;
        // Per entity (time, position) → value; times repeat, and then the later record wins.
        let mut known: BTreeMap<i64, BTreeMap<(i64, usize), Option<f64>>> = BTreeMap::new();
        for position in 0..80 {
            let (id, time) = (random.below(5) as i64, random.below(40) as i64);
            let value = (!random.once_in(3)).then_some(position as f64);
            match value {
                Some(value) => world.stream.event("a", id, time, value),
                None => delete(&world, &id.to_string(), time),
            }
            known.entry(id).or_default().insert((time, position), value);
        }
        world.run().await;
        world.run().await;
        let mut expected = known.values().filter_map(|rows| *rows.values().last().unwrap()).collect::<Vec<_>>();
        expected.sort_by(f64::total_cmp);
        assert_eq!(alive_values(&world).await, expected, "seed {seed}");
        let log = world.log().await;
        assert_each_once(&log);
        assert_eq!(log.len(), 80);
        let asked = (0..60).map(|_| (random.below(6) as i64, random.below(45) as i64)).collect::<Vec<_>>();
        let rule = asked.iter().map(|(id, time)| {
            known.get(id).and_then(|rows| rows.range(..=(*time, usize::MAX)).last()).and_then(|(_, value)| *value)
        });
        assert_eq!(joined(&world, &asked).await, rule.collect::<Vec<_>>(), "seed {seed}");
    }
}
