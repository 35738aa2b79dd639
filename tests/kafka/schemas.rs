//! Records that name their writers' schemas, which a registry keeps.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use headwater_tests::worker::Project;
use openssl::base64::encode_block;
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cluster::Cluster;
use crate::records::features;
use crate::secured::hidden;

const USER: &str = "reader";
const PASSWORD: &str = "canary-of-a-registry";
const WRONG: &str = "canary-of-no-registry";
/// 2021-04-12T10:00:00Z, in milliseconds.
const TIME: i64 = 1_618_221_600_000;

fn record(fields: Value) -> String {
    json!({"type": "record", "name": "Event", "fields": fields}).to_string()
}

fn time(unit: &str) -> Value {
    json!({"name": "event_timestamp", "type": {"type": "long", "logicalType": format!("timestamp-{unit}")}})
}

/// The writers' schema of a number.
fn schema(id: &str) -> Option<String> {
    let field = |name: &str, of: &str| json!({"name": name, "type": of});
    match id {
        "1" => Some(record(json!([field("driver_id", "int"), time("millis"), field("rate", "float")]))),
        "2" => Some(record(json!([
            field("rate", "double"),
            field("trips", "long"),
            field("note", "string"),
            time("micros"),
            field("driver_id", "long"),
        ]))),
        _ => None,
    }
}

/// An event as its writers wrote at first.
fn old(driver: i64, after_ms: i64, rate: f32) -> Vec<u8> {
    framed(1, &[&number(driver), &number(TIME + after_ms), &rate.to_le_bytes()])
}

/// The same as they write now.
fn new(driver: i64, after_ms: i64, rate: f64, trips: i64) -> Vec<u8> {
    let time = number((TIME + after_ms) * 1_000);
    framed(2, &[&rate.to_le_bytes(), &number(trips), &number(4), b"note", &time, &number(driver)])
}

fn framed(id: u32, parts: &[&[u8]]) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice(), &parts.concat()].concat()
}

/// Seven bits in a byte, the lowest first; the lowest of all is the sign.
fn number(number: i64) -> Vec<u8> {
    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes
}

/// The user and a password as HTTP sends them.
fn credentials(password: &str) -> String {
    encode_block(format!("{USER}:{password}").as_bytes())
}

/// What the registry answers to whom.
async fn answer(uri: Uri, headers: HeaderMap) -> (StatusCode, String) {
    if headers.get("authorization").is_none_or(|sent| *sent != format!("Basic {}", credentials(PASSWORD))) {
        return (StatusCode::UNAUTHORIZED, json!({"error_code": 40_101}).to_string());
    }
    match uri.path().strip_prefix("/schemas/ids/").and_then(schema) {
        Some(schema) => (StatusCode::OK, json!({"schema": schema}).to_string()),
        None => (StatusCode::NOT_FOUND, json!({"error_code": 40_403}).to_string()),
    }
}

/// Serves as long as the runtime is there; gives the address.
fn registry(runtime: &Runtime) -> String {
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        url
    })
}

/// How the readers of a project's topic have their records.
struct Read<'a> {
    name: &'a str,
    topic: &'a str,
    format: &'a str,
    registry: &'a str,
    password: &'a str,
}

fn avro() -> String {
    let field = |name: &str, of: Value| json!({"name": name, "type": of});
    let reader = record(json!([
        field("driver_id", json!("long")), time("micros"), field("rate", json!("double")),
        {"name": "trips", "type": ["null", "long"], "default": null},
    ]));
    format!("{{ type: avro, schema: '{reader}' }}")
}

/// A project whose processes log all they can.
fn project(cluster: &Cluster, Read { name, topic, format, registry, password }: Read<'_>) -> Project {
    let definitions = format!(
        r#"
project: {name}
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
    options: {{ debug: all }}
    schema_registry_url: {registry}
    schema_registry_username: {USER}
    schema_registry_password: ${{REGISTRY_PASSWORD}}
    timestamp_field: event_timestamp
    batch_source: history
    record_format: {format}
stream_feature_views:
  - name: drivers
    entities: [driver]
    schema: [{{ name: rate, dtype: float64 }}, {{ name: trips, dtype: int64 }}]
    online: true
    offline: true
    source: events
"#,
        servers = cluster.kafka.bootstrap_servers()
    );
    let environment = [("RUST_LOG", "trace"), ("REGISTRY_PASSWORD", password)];
    Project::new(env!("CARGO_BIN_EXE_command"), &definitions, &environment)
}

pub(crate) fn writers_change_them_in_mid_stream(cluster: &mut Cluster) {
    let topic = cluster.topic(1);
    // The last writer has not been brought up to date yet.
    let sent = [old(1, 0, 0.5), old(2, 0, 0.25), new(3, 1, 1.5, 7), new(1, 1, 2.5, 8), old(2, 2, 0.75)];
    for value in &sent {
        cluster.put(FutureRecord::<str, [u8]>::to(&topic).payload(value));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let registry = registry(&runtime);
    let secrets = [PASSWORD, WRONG, &credentials(PASSWORD), &credentials(WRONG)];

    let read = Read { name: &topic, topic: &topic, format: &avro(), registry: &registry, password: PASSWORD };
    let reads = project(cluster, read);
    let printed = reads.run(&["ingest", "--until-caught-up"]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let (values, _) = features(&reads, "drivers:rate,drivers:trips");
    assert_eq!(values, [json!([2.5, 0.75, 1.5]), json!([8, null, 7])]);
    let more = [&["plan"][..], &["status"], &["status", "--output", "json"]].map(|arguments| reads.run(arguments));
    hidden(&secrets, &reads, &[&printed, &more[0], &more[1], &more[2]]);

    let name = format!("{topic}-stranger");
    let read = Read { name: &name, topic: &topic, format: &avro(), registry: &registry, password: WRONG };
    let stranger = project(cluster, read);
    let printed = stranger.run(&["ingest", "--until-caught-up"]);
    let error = String::from_utf8_lossy(&printed.stderr);
    assert!(!printed.status.success() && error.contains("the schema registry answers with status `401`"), "{error}");
    hidden(&secrets, &stranger, &[&printed, &stranger.run(&["status"])]);
}

pub(crate) fn json_and_protobuf_are_framed_too(cluster: &mut Cluster) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let registry = registry(&runtime);
    let json = |driver: i64, rate: f64| {
        let time = "2021-04-12T10:00:00Z";
        json!({"driver_id": driver, "event_timestamp": time, "rate": rate, "trips": 7}).to_string()
    };
    // A writer of another version has a field more.
    let more = json(3, 0.75).replace('}', ", \"added\": true}");
    let sent = [framed(1, &[json(1, 0.5).as_bytes()]), json(2, 0.25).into_bytes(), framed(2, &[more.as_bytes()])];
    let format = r#"{ type: json, schema: "driver_id bigint, event_timestamp timestamp, rate double, trips bigint" }"#;
    reads(cluster, &registry, format, &sent);

    // The second message of its file.
    let place: &[u8] = &[2, 2];
    let sent = [
        framed(1, &[place, &ride(1, 0.5)]),
        framed(1, &[place, &ride(2, 0.25)]),
        // Field 100, a text.
        framed(2, &[place, &ride(3, 0.75), b"\xa2\x06\x03new"]),
    ];
    let set = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/headwater-engine/tests/records/rides.desc");
    let format = format!("{{ type: protobuf, descriptor_set: {set}, message: rides.v1.Ride }}");
    let mapping = "\n    field_mapping: { ts: event_timestamp, fare: rate, zigzag: trips }";
    reads(cluster, &registry, &(format + mapping), &sent);
}

/// `rides.v1.Ride` of `rides.proto`: `driver_id`, `ts`, `fare` and `zigzag`, which is 7.
fn ride(driver: u8, fare: f64) -> Vec<u8> {
    let seconds = b"\x12\x06\x08\xa0\xb4\xd0\x83\x06";
    [&[0x08, driver], seconds.as_slice(), &[0x19], &fare.to_le_bytes(), b"\x80\x01\x0e"].concat()
}

/// Three drivers have the values of these records, in a topic of their own.
fn reads(cluster: &mut Cluster, registry: &str, format: &str, sent: &[Vec<u8>]) {
    let topic = cluster.topic(1);
    for value in sent {
        cluster.put(FutureRecord::<str, [u8]>::to(&topic).payload(value));
    }
    let read = Read { name: &topic, topic: &topic, format, registry, password: PASSWORD };
    let project = project(cluster, read);
    project.ok(&["ingest", "--until-caught-up"]);
    let (values, _) = features(&project, "drivers:rate,drivers:trips");
    assert_eq!(values, [json!([0.5, 0.25, 0.75]), json!([7, 7, 7])]);
}
