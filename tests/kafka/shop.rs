//! `examples/purchases` by its own definition files: what comes of the one for Kafka is what comes of the one for a file.

use std::fs::{self, File};
use std::path::Path;

use headwater::arrow::array::RecordBatch;
use headwater_tests::worker::Project;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::producer::FutureRecord;
use serde_json::Value;

use crate::cluster::Cluster;

#[path = "../../examples/purchases/src/purchases.rs"]
mod purchases;

use purchases::{END, Purchase, USERS, purchases, rfc3339};

const DEFINITIONS: [&str; 2] =
    [include_str!("../../examples/purchases/file.yaml"), include_str!("../../examples/purchases/kafka.yaml")];
/// As both name it.
const TOPIC: &str = "purchases";

pub(crate) fn purchases_come_to_the_same_from_a_file_and_from_kafka(cluster: &mut Cluster) {
    let servers = cluster.kafka.bootstrap_servers();
    let events = purchases();
    let records = events.iter().map(record).collect::<Vec<_>>();
    cluster.named_topic(TOPIC, 3);
    cluster.put_all(records.iter().map(|(key, value)| FutureRecord::to(TOPIC).key(key.as_str()).payload(value)));
    let lines = records.iter().map(|(_, value)| format!("{value}\n")).collect::<String>();
    // Before the stream began, amid it and behind it.
    let times = (0..14).map(|step| END - step * 86_400);
    let asked = times.flat_map(|time| USERS.map(|user| format!("{user},{}\n", rfc3339(time)))).collect::<String>();
    let asked = format!("user_id,event_timestamp\n{asked}1,2026-02-20T12:00:00Z\n");

    let [file, kafka] = DEFINITIONS.map(|definitions| {
        let project = Project::new(env!("CARGO_BIN_EXE_command"), definitions, &[("KAFKA_BOOTSTRAP_SERVERS", servers)]);
        let path = |name: &str| project.path().join(name);
        fs::write(path("history.csv"), include_str!("../../examples/purchases/history.csv")).unwrap();
        fs::write(path("data/purchases.ndjson"), &lines).unwrap();
        fs::write(path("asked.csv"), &asked).unwrap();
        project.ok(&["ingest", "--until-caught-up"]);
        answers(&project)
    });
    let history = include_str!("../../examples/purchases/history.csv");
    let made = USERS.map(|user| {
        let before = history.lines().filter(|line| line.split(',').next() == Some(&user.to_string())).count();
        before + events.iter().filter(|purchase| purchase.user == user).count()
    });
    assert_eq!(kafka.0["results"][1]["values"], serde_json::json!(made), "all purchases, those of history too");
    assert_eq!(kafka, file);
}

/// The key and the value of a purchase.
fn record(Purchase { user, time, category, cents }: &Purchase) -> (String, String) {
    let (at, amount) = (rfc3339(*time), format!("{}.{:02}", cents / 100, cents % 100));
    let value =
        format!(r#"{{"user_id": {user}, "purchased_at": "{at}", "category": "{category}", "amount": {amount}}}"#);
    (user.to_string(), value)
}

/// What is served of what does not end, and a training set.
fn answers(project: &Project) -> (Value, Vec<RecordBatch>) {
    let entities = serde_json::json!({ "user_id": USERS }).to_string();
    let features = "user_purchases:purchases_ever,user_purchases:last_3_distinct_categories";
    let served = project.run(&["get-online-features", "--features", features, "--entities", &entities]);
    let mut served: Value = serde_json::from_slice(&served.stdout).unwrap();
    for result in served["results"].as_array_mut().unwrap() {
        // Which are when they were asked for.
        result.as_object_mut().unwrap().remove("event_timestamps");
    }
    let out = "training.parquet";
    project.ok(&["get-historical-features", "--feature-service", "taste", "--entity-df", "asked.csv", "--out", out]);
    (served, rows(&project.path().join(out)))
}

fn rows(file: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}
