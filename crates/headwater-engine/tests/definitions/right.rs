//! What files mean, and that nothing that is no definition does harm.

use std::path::Path;

use headwater_core::definitions::{
    Definitions, Entity, FeatureService, FeatureView, Field, LateEvents, OnError, RecordFormat, Source, SourceKind,
    StoreDefinition, StreamSettings, ValueType,
};
use headwater_core::options::Duration;
use headwater_core::stream::StartPosition;
use headwater_engine::definitions::{check, load, parse};
use proptest::prelude::*;
use serde_json::json;

use super::{BASE, read, registry};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// The example that documents the format, word for word.
const DOCUMENTED: &str = r"
project: driver_ranking
registry: data/registry.json
online_store:  { type: sqlite, path: data/online.db }
offline_store: { type: parquet, path: data/offline }

entities:
  - { name: driver, join_keys: [driver_id], value_type: int64 }

sources:
  - name: driver_stats_source
    type: file
    path: data/driver_stats.parquet          # a file, a directory or an object-store URL
    timestamp_field: event_timestamp
    created_timestamp_column: created
  - name: driver_stats_stream
    type: kinesis                            # the swap: kafka | kinesis | file
    stream_name: drivers                     # kafka: bootstrap_servers, topic, options: {librdkafka: properties}; file: path, follow
    region: eu-west-1                        # kinesis also: stream_arn, endpoint_url, role_arn, consumer: polling | fan_out
    timestamp_field: event_timestamp
    batch_source: driver_stats_source        # required for a stream source
    start: earliest                          # earliest | latest | RFC 3339; only for splits without a checkpoint
    record_format:
      type: json                             # json | avro | protobuf
      schema: driver_id integer, event_timestamp timestamp, conv_rate double, acc_rate double, created timestamp
    watermark_delay_threshold: 5m

stream_feature_views:
  - name: driver_hourly_stats_stream
    entities: [driver]
    ttl: 100000d
    mode: sql                                # sql | none; in Rust also functions and expressions
    transform: >
      SELECT driver_id, event_timestamp, created,
             conv_rate * 100.0 AS conv_percentage, acc_rate * 100.0 AS acc_percentage
      FROM driver_stats_stream
    schema:
      - { name: conv_percentage, dtype: float32 }
      - { name: acc_percentage,  dtype: float32 }
    timestamp_field: event_timestamp
    online: true
    offline: true                            # the job logs to the offline store
    source: driver_stats_stream
    # aggregations:                          # the schema then follows from them and may be left out
    #   - { column: amount, function: sum, time_window: 1h, slide_interval: 5m, name: amount_1h }
    #   - { column: category, function: last_distinct_n, n: 3, time_window: 30d }        # approx_percentile: percentile: 0.95

feature_views: []                            # batch only: name, entities, ttl, schema, source, online
feature_services:
  - { name: driver_activity, features: [driver_hourly_stats_stream] }
";

#[test]
fn the_documented_example_says_the_same_in_rust() {
    let sql = "SELECT driver_id, event_timestamp, created,\n       conv_rate * 100.0 AS conv_percentage, acc_rate * \
               100.0 AS acc_percentage\nFROM driver_stats_stream\n";
    let settings = StreamSettings::new("driver_stats_source")
        .record_format(RecordFormat::json(
            "driver_id integer, event_timestamp timestamp, conv_rate double, acc_rate double, created timestamp",
        ))
        .watermark_delay_threshold(Duration(5 * MINUTE));
    let built = Definitions::new("driver_ranking")
        .registry("data/registry.json")
        .online_store(StoreDefinition::new("sqlite").option("path", "data/online.db"))
        .offline_store(StoreDefinition::new("parquet").option("path", "data/offline"))
        .entity(Entity::new("driver", ValueType::Int64).join_key("driver_id"))
        .source(
            Source::batch("driver_stats_source", "file")
                .option("path", "data/driver_stats.parquet")
                .timestamp_field("event_timestamp")
                .created_timestamp_column("created"),
        )
        .source(
            Source::stream("driver_stats_stream", "kinesis", settings)
                .option("stream_name", "drivers")
                .option("region", "eu-west-1")
                .timestamp_field("event_timestamp"),
        )
        .view(
            FeatureView::stream("driver_hourly_stats_stream", "driver_stats_stream")
                .entity("driver")
                .ttl(Duration(100_000 * DAY))
                .sql(sql)
                .feature("conv_percentage", ValueType::Float32)
                .feature("acc_percentage", ValueType::Float32)
                .timestamp_field("event_timestamp")
                .online(true)
                .offline(true),
        )
        .service(FeatureService::new("driver_activity", ["driver_hourly_stats_stream"]));
    assert_eq!(read(DOCUMENTED).unwrap(), built);
    check(&built, &registry()).unwrap();
}

#[test]
fn every_key_has_its_builder() {
    let table = "stats_table";
    let kafka = StreamSettings::new(table)
        .on_error(OnError::Fail)
        .late_events(LateEvents::DeadLetter)
        .max_future_skew(Duration(60 * MINUTE))
        .record_format(
            RecordFormat::json("driver_id bigint, event_timestamp bigint, trips int, created timestamp")
                .timestamp_unit("ms"),
        );
    let built = Definitions::new("driver_ranking")
        .online_store(StoreDefinition::new("sqlite").option("path", "data/online.db"))
        .offline_store(StoreDefinition::new("parquet").option("path", "data/offline"))
        .entity(Entity::new("driver", ValueType::Int64).join_key("driver_id"))
        .entity(
            Entity::new("customer", ValueType::String)
                .join_key("customer_id")
                .description("Who rides")
                .owner("rides@example.com")
                .tag("team", "rides"),
        )
        .source(
            Source::batch(table, "file")
                .option("path", "data/driver_stats.parquet")
                .timestamp_field("event_timestamp")
                .created_timestamp_column("created"),
        )
        .source(
            Source::stream(
                "stats_kinesis",
                "kinesis",
                StreamSettings::new(table)
                    .start(StartPosition::Earliest)
                    .record_format(RecordFormat::json(
                        "driver_id integer, event_timestamp timestamp, conv_rate double, acc_rate double, created timestamp",
                    ))
                    .watermark_delay_threshold(Duration(5 * MINUTE)),
            )
            .option("stream_name", "drivers")
            .option("region", "eu-west-1")
            .timestamp_field("event_timestamp"),
        )
        .source(
            Source::stream("stats_kafka", "kafka", kafka)
                .option("bootstrap_servers", "localhost:9092")
                .option("topic", "drivers")
                .option("options", json!({"security.protocol": "SSL", "fetch.min.bytes": 1})),
        )
        .source(
            Source::stream(
                "stats_file",
                "file",
                StreamSettings::new(table).record_format(RecordFormat::json(
                    "driver_id bigint, event_timestamp timestamp, ride_count int",
                )),
            )
            .option("path", "data/events")
            .option("follow", true)
            .field_mapping("ride_count", "rides"),
        )
        .source(Source::push("stats_push", Some(table.into())))
        .view(
            FeatureView::batch("daily", table)
                .entity("driver")
                .ttl(Duration(14 * DAY))
                .feature("rating", ValueType::Float64)
                .field(
                    Field::new("labels", ValueType::Array(Box::new(ValueType::String))).description("What riders say"),
                ),
        )
        .view(
            FeatureView::stream("hourly", "stats_kinesis")
                .entity("driver")
                .ttl(Duration(DAY))
                .sql("SELECT driver_id, event_timestamp, created, conv_rate * 100.0 AS conv_percentage FROM stats_kinesis\n")
                .feature("conv_percentage", ValueType::Float32)
                .timestamp_field("event_timestamp")
                .offline(true),
        )
        .view(FeatureView::stream("trips", "stats_kafka").entity("driver").feature("trips", ValueType::Int64))
        .view(FeatureView::stream("rides", "stats_file").entity("driver").feature("rides", ValueType::Int32))
        .view(
            FeatureView::stream("ratings", "stats_push")
                .entity("driver")
                .entity("customer")
                .feature("stars", ValueType::Int32),
        )
        .service(FeatureService::new("activity", ["hourly", "daily:rating"]));
    assert_eq!(read(BASE).unwrap(), built);
    check(&built, &registry()).unwrap();
    let again: Definitions = serde_json::from_str(&serde_json::to_string(&built).unwrap()).unwrap();
    assert_eq!(again.base_dir("."), built, "the registry file keeps all of it");
}

#[test]
fn what_is_built_wrong_is_named_by_its_path() {
    let built = Definitions::new("p")
        .online_store(StoreDefinition::new("sqlite").option("path", "a").option("pth", "b"))
        .offline_store(StoreDefinition::new("parquet").option("path", "a"))
        .entity(Entity::new("driver", ValueType::Int64))
        .entity(Entity::new("DRIVER", ValueType::Int64))
        .source(Source::batch("table", "file").option("path", "t").timestamp_field("ts"))
        .source(Source::stream("stream", "file", StreamSettings::new("tabel")).option("path", "s"))
        .view(FeatureView::stream("view", "stream").entity("driver").feature("driver", ValueType::Int64).sql(" "))
        .view(FeatureView::batch("other", "stream").offline(true));
    let errors = check(&built, &registry()).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "online_store.pth: unknown option `pth`; there are `path`, `cache_bytes`, `password`, `type`, `description`, \
         `owner`, `tags`\n    did you mean `path`?\n\
         entities[DRIVER].name: two entities are called `DRIVER` but for upper and lower case\n\
         sources[stream].batch_source: there is no source `tabel`; batch sources are `table`\n    did you mean `table`?\n\
         stream_feature_views[view].schema[driver].name: `driver` is a join key; `schema` lists the features alone\n\
         stream_feature_views[view].transform: `mode: sql` needs a `transform`\n\
         feature_views[other].source: `stream` is a stream; a view of it belongs under `stream_feature_views`\n\
         feature_views[other].offline: `offline` is for views among `stream_feature_views`"
    );
}

#[test]
fn faults_are_reported_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headwater.yaml");
    let text = "\
projct: demo
online_store: { type: sqlite, path: data/online.db, cash_bytes: 5 }
offline_store: { type: delta, path: data/offline }
entities:
  - { name: driver, join_keys: [driver_id], value_type: int46 }
sources:
  - name: table
    type: file
    path: data/stats.parquet
  - name: stream
    type: kafka
    topic: drivers
    batch_source: tabel
    start: yesterday
    record_format: { type: json, schema: \"driver_id bigint, ts timestmp\" }
stream_feature_views:
  - name: view
    entities: [drivr]
    source: stream
    ttl: 1 day
    schema: [{ name: rate, dtype: float }]
feature_services:
  - { name: service, features: [vew] }
";
    std::fs::write(&path, text).unwrap();
    let errors = load(&path, &registry()).unwrap_err();
    let shown = errors.to_string().replace(&path.display().to_string(), "headwater.yaml");
    assert_eq!(shown, include_str!("faults.txt").trim_end());
    let error: headwater_core::Error = errors.into();
    assert_eq!(error.kind(), headwater_core::ErrorKind::Invalid);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("none.yaml"), &registry()).unwrap_err().to_string();
    assert!(missing.contains("none.yaml: cannot be read"), "{missing}");
    let path = folder.path().join("latin1.yaml");
    std::fs::write(&path, b"project: caf\xe9\n").unwrap();
    let latin = load(&path, &registry()).unwrap_err().to_string();
    assert!(latin.contains("latin1.yaml: not UTF-8 text (byte 13)"), "{latin}");
    for (text, says) in [
        ("", "there is nothing in it"),
        ("# nothing\n", "there is nothing in it"),
        ("~", "expected keys such as `project`, found nothing"),
        ("- a", "expected keys such as `project`, found a list"),
        ("hello", "expected keys such as `project`, found the text `hello`"),
    ] {
        let errors = read(text).unwrap_err();
        assert!(errors.to_string().contains(says), "`{text}`: {errors}");
    }
}

#[test]
fn relative_paths_start_at_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("headwater.yaml");
    std::fs::write(&path, BASE).unwrap();
    assert_eq!(load(&path, &registry()).unwrap().base_dir, folder.path());
}

#[test]
fn records_may_be_avro_and_protobuf() {
    let json = "{ type: json, schema: \"driver_id bigint, event_timestamp timestamp, ride_count int\" }";
    assert!(BASE.contains(json));
    let of_rides = |format: &str| {
        let read = read(&BASE.replace(json, format)).unwrap();
        let source = read.sources.into_iter().find(|source| source.name == "stats_file").unwrap();
        let SourceKind::Stream(settings) = source.kind else { panic!("{source:?}") };
        settings.record_format.unwrap()
    };
    let avro = r#"{"type": "record", "name": "Ride", "fields": []}"#;
    assert_eq!(of_rides(&format!("{{ type: avro, schema: '{avro}' }}")), RecordFormat::avro(avro));
    let protobuf = "{ type: protobuf, descriptor_set: rides.desc, message: rides.v1.Ride }";
    assert_eq!(of_rides(protobuf), RecordFormat::protobuf("rides.desc", "rides.v1.Ride"));
}

#[test]
fn the_environment_is_expanded() {
    // Cargo sets it for every test.
    let name = env!("CARGO_PKG_NAME");
    let text = BASE
        .replace("description: Who rides", "description: \"a ${CARGO_PKG_NAME} for $$5 and $x\"")
        .replace("path: data/online.db", "path: \"${CARGO_PKG_NAME}.db\", cache_bytes: \"${CARGO_PKG_VERSION_MINOR}\"");
    let definitions = read(&text).unwrap();
    assert_eq!(definitions.entities[1].annotations.description, format!("a {name} for $5 and $x"));
    assert_eq!(definitions.online_store.options["path"], format!("{name}.db"));
    assert_eq!(definitions.online_store.options["cache_bytes"], 1, "text from the environment may be a number");
}

#[test]
fn a_secret_shows_up_in_no_message() {
    let canary = "canary-93fd";
    let text = BASE.replace("path: data/online.db", &format!("path: data/online.db, password: {canary}"));
    let definitions = read(&text).unwrap();
    assert!(!format!("{definitions:?}").contains(canary));
    let text = text.replace(&format!("password: {canary}"), &format!("password: [{canary}]"));
    let errors = read(&text).unwrap_err();
    assert!(!format!("{errors} {errors:?}").contains(canary), "{errors}");
    assert!(errors.to_string().contains("option `password`: expected secret text"), "{errors}");
}

#[test]
fn anchors_stand_for_what_they_name() {
    let text = BASE
        .replace("schema:\n      - { name: conv_percentage", "schema: &schema\n      - { name: conv_percentage")
        .replace("schema: [{ name: stars, dtype: int32 }]", "schema: *schema");
    let definitions = read(&text).unwrap();
    assert_eq!(definitions.feature_views[1].schema, definitions.feature_views[4].schema);
}

#[test]
fn bombs_are_refused() {
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        aliases.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let errors = read(&aliases).unwrap_err().to_string();
    assert!(errors.contains("more than 100000 values, aliases unfolded"), "{errors}");
    for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        assert!(read(&deep).unwrap_err().to_string().contains("not YAML"));
    }
    let ddl = format!("a {}int{}", "array<".repeat(10_000), ">".repeat(10_000));
    let deep = BASE.replace("driver_id integer,", &format!("{ddl},"));
    assert!(read(&deep).unwrap_err().to_string().contains("types nested deeper than 32 levels"));
    let long = format!("{BASE}# {}\n", "x".repeat(5 << 20));
    assert!(read(&long).unwrap_err().to_string().contains("is longer than"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_never_panics(edits in prop::collection::vec((0_usize..4, any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut text = BASE.as_bytes().to_vec();
        for (kind, at, byte) in edits {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => text.truncate(at),
                _ => {
                    let start = text[..at].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
                    let end = text[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |end| at + end + 1);
                    text.drain(start..end);
                }
            }
        }
        if let Err(errors) = parse(&String::from_utf8_lossy(&text), Path::new("."), &registry()) {
            prop_assert!(!errors.faults.is_empty());
            prop_assert!(errors.faults.iter().all(|fault| fault.position.is_some() || fault.message.contains("nothing in it")));
            prop_assert!(errors.faults.iter().all(|fault| !fault.message.is_empty()));
        }
    }

    #[test]
    fn nothing_at_all_never_panics(text in "\\PC{0,200}|[-\\[\\]{}:,&*!|>'\"%@`#? \n\ta-c]{0,80}") {
        let _ = read(&text);
    }
}
