//! Events through a view with ten windows, and reading them; run by hand.
//!
//! ```sh
//! cargo run --release -p headwater-tests --bin window-bench                        # 1,000,000 events from a file
//! cargo run --release -p headwater-tests --bin window-bench -- --records 2000000 --keys 100000 --reads 20000
//! # What `stream-bench fill --topic d100k` has put into a topic of KAFKA_BOOTSTRAP_SERVERS:
//! cargo run --release -p headwater-tests --features kafka --bin window-bench -- --topic d100k
//! ```
//!
//! The view has sum, count, mean, min and max of a float over 1 h (in steps of 5 m) and over 24 h (of 2 h). Events are
//! spread over 26 hours and over all keys at random, which is the worst there is for a cache. Prints two lines of JSON:
//! from the file to the online store (events/s, events per CPU second, peak memory, bytes on disk per entity), and reads
//! of all ten features of one entity, one after the other. CPU seconds are those of this process, user and system.

// A benchmark ends at the first thing that goes wrong.
#![allow(clippy::unwrap_used)]

#[path = "stream_bench/measure.rs"]
mod measure;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use headwater::FeatureStore;
use headwater::ingest::IngestOptions;
use headwater::store::{EntityColumns, Features, format_time};
use headwater_tests::outcome::open;
use measure::{Stretch, peak_mb};

/// 2026-11-21T00:00:00Z.
const START: i64 = 1_795_219_200_000_000;
const SPAN: u64 = 26 * 3_600_000_000;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options: BTreeMap<&str, &str> =
        words.chunks(2).map(|pair| (pair[0].trim_start_matches("--"), pair[1].as_str())).collect();
    let number = |name: &str, default: u64| options.get(name).map_or(default, |value| value.parse().unwrap());
    let (records, keys, reads) = (number("records", 1_000_000), number("keys", 100_000), number("reads", 20_000));

    let folder = std::env::temp_dir().join(format!("window-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let source = match options.get("topic") {
        Some(topic) => {
            let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap();
            format!("    type: kafka\n    bootstrap_servers: {servers}\n    topic: {topic}")
        }
        None => {
            write_events(&folder.join("events.ndjson"), records, keys);
            "    type: file\n    path: events.ndjson".to_owned()
        }
    };
    std::fs::write(folder.join("headwater.yaml"), definitions(&source)).unwrap();
    let store = open(&folder).await;
    store.apply().await.unwrap();
    ingest(&store, &folder, keys).await;
    read(&store, keys, reads).await;
    drop(store);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn definitions(source: &str) -> String {
    let windows = [("1h", "5m"), ("24h", "2h")];
    let aggregations = windows.iter().flat_map(|(window, slide)| {
        ["sum", "count", "mean", "min", "max"].map(|function| {
            format!(
                "      - {{ column: conv_rate, function: {function}, time_window: {window}, slide_interval: {slide}, \
                 name: {function}_{window} }}\n"
            )
        })
    });
    format!(
        r"
project: windows{id}
registry: data/registry.json
online_store: {{ type: sqlite, path: data/online.db }}
offline_store: {{ type: parquet, path: data/offline }}
entities:
  - {{ name: driver, join_keys: [driver_id], value_type: int64 }}
sources:
  - name: history
    type: file
    path: history.parquet
    timestamp_field: event_timestamp
    created_timestamp_column: created
  - name: events
{source}
    timestamp_field: event_timestamp
    batch_source: history
    record_format:
      type: json
      schema: driver_id bigint, event_timestamp timestamp, conv_rate double, acc_rate double, avg_daily_trips bigint, created timestamp
stream_feature_views:
  - name: drivers
    entities: [driver]
    online: true
    offline: false
    source: events
    aggregations:
{}",
        aggregations.collect::<String>(),
        id = std::process::id()
    )
}

#[allow(clippy::cast_precision_loss)] // Nine digits fit.
fn write_events(path: &Path, records: u64, keys: u64) {
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for record in 0..records {
        let event = START + i64::try_from(record * (SPAN / records)).unwrap();
        let created = format_time(event + 1_000);
        let (conv, acc) = (random(1_000_000_000) as f64 / 1e9, random(1_000_000_000) as f64 / 1e9);
        writeln!(
            file,
            "{{\"driver_id\":{},\"event_timestamp\":\"{}\",\"conv_rate\":{conv},\"acc_rate\":{acc},\
             \"avg_daily_trips\":{},\"created\":\"{created}\"}}",
            random(keys),
            format_time(event),
            random(1_000)
        )
        .unwrap();
    }
    file.flush().unwrap();
}

#[allow(clippy::cast_precision_loss)]
async fn ingest(store: &FeatureStore, folder: &Path, keys: u64) {
    let stretch = Stretch::begin();
    let options = IngestOptions { until_caught_up: true, ..IngestOptions::default() };
    let mut job = store.ingest("events", options).await.unwrap();
    job.wait().await.unwrap();
    let cost = stretch.end();
    let rows = job.status().splits.iter().map(|split| split.counts.rows).sum::<u64>() as f64;
    let disk: u64 = ["online.db", "online.db-wal"]
        .iter()
        .filter_map(|file| std::fs::metadata(folder.join("data").join(file)).ok())
        .map(|file| file.len())
        .sum();
    println!(
        "{{\"what\":\"windows\",\"events\":{rows:.0},\"wall_s\":{:.2},\"events_s\":{:.0},\"cpu_s\":{:.2},\"events_per_cpu_s\":{:.0},\"peak_rss_mb\":{:.0},\"disk_bytes_per_entity\":{:.0}}}",
        cost.wall,
        rows / cost.wall,
        cost.cpu,
        rows / cost.cpu,
        peak_mb(),
        disk as f64 / keys as f64
    );
}

async fn read(store: &FeatureStore, keys: u64, reads: u64) {
    let names = ["1h", "24h"].iter().flat_map(|window| {
        ["sum", "count", "mean", "min", "max"].map(|function| format!("drivers:{function}_{window}"))
    });
    let names: Vec<String> = names.collect();
    let mut took = Vec::new();
    for read in 0..reads {
        let key = i64::try_from(read.wrapping_mul(7_919) % keys).unwrap();
        let begin = Instant::now();
        let driver = EntityColumns::default().column("driver_id", [key]);
        let answer = store.get_online_features(Features::names(&names), driver, false).await.unwrap();
        took.push(begin.elapsed());
        assert_eq!(answer.to_record_batch().unwrap().num_rows(), 1);
    }
    took.sort_unstable();
    let at = |percent: usize| {
        let time = took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied();
        time.unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
    };
    println!(
        "{{\"what\":\"reads\",\"reads\":{reads},\"features\":{},\"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.0}}}",
        names.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}
