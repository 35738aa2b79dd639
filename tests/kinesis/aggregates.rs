//! Aggregates of the Kinesis Producer Library beside the same records sent one by one.

use headwater_tests::outcome::Log;
use headwater_tests::worker::Project;

use crate::server::Server;
use crate::{CONSUMERS, ENVIRONMENT, source};

/// Lines of an aggregate's key and bytes in hex, which another library has made (`make_kpl.py` beside it): the records
/// `{"number":0}` to `{"number":59}`, with the keys `key-0` to `key-6` in turn.
const AGGREGATES: &str = include_str!("../../crates/headwater-plugin-kinesis/tests/kpl.txt");
const RECORDS: usize = 60;
const KEYS: usize = 7;
const ENTITIES: &str = r#"{"driver_id": [0, 1, 2, 3, 4, 5, 6]}"#;
const FEATURES: &str = "drivers:number,drivers:record_key";

fn project(name: &str, server: &Server, stream: &str, consumer: &str) -> Project {
    let source = source(stream, server.plain(), consumer);
    let view = format!(
        "mode: sql
transform: >
  SELECT number % {KEYS} AS driver_id, to_timestamp_micros(1618221600000000 + number) AS event_timestamp, number,
         CAST(__key AS VARCHAR) AS record_key
  FROM events
schema: [{{ name: number, dtype: int64 }}, {{ name: record_key, dtype: string }}]
timestamp_field: event_timestamp
offline: true"
    );
    // Records have no time of their own; the view makes it.
    let schema = "number bigint, event_timestamp timestamp";
    let definitions = headwater_tests::definitions(name, &source, schema, &view);
    Project::new(env!("CARGO_BIN_EXE_command"), &definitions, ENVIRONMENT)
}

/// Log and online store have the same of both streams, each record once.
pub(crate) fn come_to_the_same() {
    let server = Server::start();
    server.create("plain", 1);
    server.create("aggregated", 1);
    for number in 0..RECORDS {
        server.put("plain", &format!("key-{}", number % KEYS), format!("{{\"number\":{number}}}").into_bytes());
    }
    for (key, bytes) in AGGREGATES.lines().filter_map(|line| line.split_once(' ')) {
        let bytes = (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap());
        server.put("aggregated", key, bytes.collect());
    }
    for consumer in CONSUMERS {
        let [plain, aggregated] = ["plain", "aggregated"].map(|stream| {
            let project = project(&format!("{stream}-{consumer}"), &server, stream, consumer);
            project.ok(&["ingest", "--until-caught-up"]);
            let log = Log::read(project.path(), "drivers", "number");
            assert_eq!((log.count, log.numbers().len()), (RECORDS, RECORDS), "{stream}: each record stands once");
            assert!(log.numbers() == (0..60).collect(), "{stream}");
            let served = project.run(&["get-online-features", "--features", FEATURES, "--entities", ENTITIES]);
            String::from_utf8(served.stdout).unwrap()
        });
        assert!(plain.contains("59") && plain.contains("key-3"), "{plain}");
        assert_eq!(aggregated, plain, "{consumer}");
    }
}
