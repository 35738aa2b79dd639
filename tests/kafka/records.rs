//! What is in a topic beside values: keys, times, headers, records without a value, and what no reader sees.

use std::time::Duration;

use headwater_tests::wait_for;
use headwater_tests::worker::Project;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureRecord, Producer};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};

/// 2021-04-12T10:00:00.123Z, in milliseconds: when records are stored.
const STORED: i64 = 1_618_221_600_123;
const ENTITIES: &str = r#"{"driver_id": [1, 2, 3]}"#;
const FEATURES: &str = "seen:record_key,seen:split,seen:place,seen:stored,seen:origin";

fn project(cluster: &Cluster, topic: &str) -> Project {
    let definitions = format!(
        r#"
project: {topic}
registry: data/registry.json
online_store: {{ type: sqlite, path: data/online.db }}
offline_store: {{ type: parquet, path: data/offline }}
entities:
  - {{ name: driver, join_keys: [driver_id], value_type: int64 }}
sources:
  - {{ name: history, type: file, path: history.parquet, timestamp_field: event_timestamp }}
  - name: events
    type: kafka
    bootstrap_servers: {servers}
    topic: {topic}
    tombstones: delete
    on_position_lost: earliest
    timestamp_field: event_timestamp
    batch_source: history
    record_format: {{ type: json, schema: "driver_id bigint, event_timestamp timestamp" }}
stream_feature_views:
  - name: seen
    entities: [driver]
    mode: sql
    transform: >
      SELECT driver_id, event_timestamp, CAST(__key AS VARCHAR) AS record_key, __partition AS split, __offset AS place,
             CAST(__timestamp AS BIGINT) AS stored, CAST(__headers['origin'] AS VARCHAR) AS origin
      FROM events
    schema:
      - {{ name: record_key, dtype: string }}
      - {{ name: split, dtype: int32 }}
      - {{ name: place, dtype: int64 }}
      - {{ name: stored, dtype: int64 }}
      - {{ name: origin, dtype: string }}
    timestamp_field: event_timestamp
    offline: true
    source: events
"#,
        servers = cluster.kafka.bootstrap_servers()
    );
    Project::new(env!("CARGO_BIN_EXE_command"), &definitions, &[])
}

/// Features of the three drivers: by feature their values, and the statuses of the last.
pub(crate) fn features(project: &Project, names: &str) -> (Vec<Value>, Value) {
    let output = project.run(&["get-online-features", "--features", names, "--entities", ENTITIES]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The first is the entity.
    let results = answer["results"].as_array().unwrap();
    let values = results.iter().skip(1).map(|result| result["values"].clone()).collect();
    (values, results.last().unwrap()["statuses"].clone())
}

fn event(driver: u8) -> String {
    format!(r#"{{"driver_id": {driver}, "event_timestamp": "2021-04-12T10:00:00Z"}}"#)
}

pub(crate) fn metadata_becomes_features_and_tombstones_delete(cluster: &mut Cluster) {
    let topic = cluster.topic(3);
    let project = project(cluster, &topic);
    let (one, two, three) = (event(1), event(2), event(3));
    let record = |partition, value| FutureRecord::<str, String>::to(&topic).partition(partition).payload(value);
    cluster.put(record(2, &two).timestamp(STORED));
    cluster.put(record(0, &three).timestamp(STORED).key("3"));
    let headers = OwnedHeaders::new().insert(Header { key: "origin", value: Some("app") });
    cluster.put(record(2, &one).timestamp(STORED).key("1").headers(headers));
    project.ok(&["ingest", "--until-caught-up"]);
    let stored = STORED * 1000;
    let expected = |third: [Value; 5]| {
        let [key, split, place, stored_then, origin] = third;
        vec![
            json!(["1", null, key]),
            json!([2, 2, split]),
            json!([1, 0, place]),
            json!([stored, stored, stored_then]),
            json!(["app", null, origin]),
        ]
    };
    let (values, _) = features(&project, FEATURES);
    assert_eq!(values, expected([json!("3"), json!(0), json!(0), json!(stored), Value::Null]));
    // No value under the key of a driver, later than its event.
    let gone = FutureRecord::<str, String>::to(&topic).partition(0).key("3").timestamp(STORED + 60_000);
    cluster.put(gone);
    project.ok(&["ingest", "--until-caught-up"]);
    let (values, statuses) = features(&project, FEATURES);
    assert_eq!(values, expected([Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]));
    assert_eq!(statuses, json!(["PRESENT", "NULL_VALUE", "NOT_FOUND"]));
}

pub(crate) fn what_holds_nothing_is_caught_up_with(cluster: &mut Cluster) {
    let topic = cluster.topic(4);
    let project = project(cluster, &topic);
    project.ok(&["ingest", "--until-caught-up"]);
    // Partition 3 holds nothing but what no reader sees: an aborted transaction and its end. The others stay empty.
    let value = event(9);
    cluster.abort(FutureRecord::<str, String>::to(&topic).partition(3).payload(&value).timestamp(STORED));
    project.ok(&["ingest", "--until-caught-up"]);
    let value = event(1);
    cluster.put(FutureRecord::<str, String>::to(&topic).partition(3).payload(&value).timestamp(STORED));
    cluster.abort(FutureRecord::<str, String>::to(&topic).partition(3).payload(&value).timestamp(STORED));
    project.ok(&["ingest", "--until-caught-up"]);
    let (values, _) = features(&project, FEATURES);
    assert_eq!(values[2], json!([2, null, null]), "it stands behind a record and a marker");
}

pub(crate) fn an_open_transaction_is_no_part_of_it(cluster: &mut Cluster) {
    let topic = cluster.topic(1);
    let project = project(cluster, &topic);
    let (one, two) = (event(1), event(2));
    let record = |value| FutureRecord::<str, String>::to(&topic).payload(value).timestamp(STORED);
    cluster.put(record(&one));
    let writer = cluster.begin(record(&two));
    // What lies behind the beginning of a transaction that is open is read by nobody: also what is in none.
    let three = event(3);
    cluster.put(record(&three));
    let places = |expected: Value| {
        project.ok(&["ingest", "--until-caught-up"]);
        let (values, _) = features(&project, FEATURES);
        assert_eq!(values[2], expected);
    };
    places(json!([0, null, null]));
    writer.commit_transaction(PATIENCE).unwrap();
    // The writer hears of it before the partitions do.
    wait_for("the transaction to be over", PATIENCE, || cluster.offsets(&topic) == [0, 1, 2]);
    places(json!([0, 1, 2]));
}

pub(crate) fn a_topic_made_anew_is_read_again_after_a_reset(cluster: &mut Cluster) {
    let topic = cluster.topic(1);
    let project = project(cluster, &topic);
    let put = |driver| {
        let value = event(driver);
        cluster.put(FutureRecord::<str, String>::to(&topic).payload(&value).timestamp(STORED));
    };
    (0..4).for_each(|_| put(1));
    project.ok(&["ingest", "--until-caught-up"]);
    cluster.make_anew(&topic, 1);
    put(2);
    let refused = || {
        let output = project.run(&["ingest", "--until-caught-up"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("the topic was re-created or cut off"), "{error}");
        assert!(error.contains("a `reset` of the source reads it from its beginning"), "{error}");
    };
    refused();
    // Its end lies before what was read: nothing could be skipped up to there.
    let output = project.run(&["reset", "events", "--to", "latest"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let helps = "`reset` to `earliest` or to a time begins a new generation";
    assert!(!output.status.success() && error.contains(helps), "{error}");
    project.ok(&["reset", "events", "--to", "2021-04-12T10:01:00Z"]);
    put(3);
    let places = |expected: Value| {
        project.ok(&["ingest", "--until-caught-up"]);
        let (values, _) = features(&project, FEATURES);
        assert_eq!(values[2], expected);
    };
    places(json!([null, null, 1]));
    cluster.make_anew(&topic, 1);
    put(2);
    refused();
    project.ok(&["reset", "events", "--to", "earliest"]);
    places(json!([null, 0, null]));
}

pub(crate) fn what_compaction_has_left_is_caught_up_with(cluster: &mut Cluster) {
    let topic = cluster.compacted_topic();
    let stopped = project(cluster, &topic);
    // Each one later than the last, which it supersedes.
    let event = |number: usize| {
        let time = format!("2021-04-12T10:{:02}:{:02}Z", number / 60, number % 60);
        format!(r#"{{"driver_id": 1, "event_timestamp": "{time}"}}"#)
    };
    let put = |number| cluster.put(FutureRecord::<str, String>::to(&topic).key("one").payload(&event(number)));
    put(0);
    stopped.ok(&["ingest", "--until-caught-up"]);
    // A segment is closed by the next record after its time, and only closed ones are compacted.
    let mut sent = 1;
    while cluster.offsets(&topic).first() == Some(&0) {
        assert!(sent < 400, "nothing was compacted in {sent} records");
        for _ in 0..20 {
            put(sent);
            sent += 1;
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    // And behind the gaps, at the end, what no reader sees.
    cluster.abort(FutureRecord::<str, String>::to(&topic).partition(0).key("one").payload(&event(sent)));
    let left = cluster.offsets(&topic);
    assert!(left.len() < sent, "{left:?} of {sent} records");
    // One that stopped behind a record that has gone, and one that begins.
    for project in [stopped, project(cluster, &topic)] {
        project.ok(&["ingest", "--until-caught-up"]);
        let (values, _) = features(&project, FEATURES);
        assert_eq!(values[2], json!([sent - 1, null, null]), "of {left:?}");
    }
}

pub(crate) fn what_was_not_kept_is_caught_up_with_and_told(cluster: &mut Cluster) {
    let topic = cluster.topic(1);
    let project = project(cluster, &topic);
    let put = |driver| {
        let value = event(driver);
        cluster.put(FutureRecord::<str, String>::to(&topic).payload(&value).timestamp(STORED));
    };
    put(1);
    project.ok(&["ingest", "--until-caught-up"]);
    put(2);
    put(2);
    cluster.delete_before(&topic, 3);
    // Nothing is left that could show how far the job is.
    let output = project.run(&["ingest", "--until-caught-up"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lost = "retention has removed the records from offset 1 to 3 of partition 0; going on at offset 3";
    assert!(output.status.success() && said.contains(lost), "{said}");
    put(3);
    project.ok(&["ingest", "--until-caught-up"]);
    let (values, _) = features(&project, FEATURES);
    assert_eq!(values[2], json!([0, null, 3]));
    let output = project.run(&["status", "--output", "json"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let lost = "has lost records that its source did not keep, after `0000000000000000` to `0000000000000002`";
    assert!(told.contains(lost), "{told}");
}
