//! Events through a view with ten windows, and reading them.
//!
//! Events are spread over a day and over all keys at random, which is the worst there is for a cache. Prints two lines of JSON: from the source to the online store, and reads of all ten features of one entity, one after
//! the other.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use headwater::FeatureStore;
use headwater::store::{EntityColumns, Features};
use headwater_testkit::Random;

use crate::measure::{Stretch, peak_mb};
use crate::project::{kafka, project, ten_windows, windows};
use crate::throughput::ingest;
use crate::{Options, fill};

pub(crate) async fn run(options: &Options) {
    let (records, keys) = (options.number("records", 1_000_000), options.number("keys", 100_000));
    let folder = tempfile::tempdir().unwrap();
    let source = if options.has("topic") {
        kafka(options.text("topic"))
    } else {
        let events = folder.path().join("events.ndjson");
        write_events(&events, records, keys);
        format!("type: file\npath: {}", events.display())
    };
    let (project, store) = project(&windows(&source)).await;
    ingest_all(&store, project.path(), keys).await;
    read(&store, keys, options.number("reads", 20_000)).await;
}

/// The records that `fill` puts into a topic.
fn write_events(path: &Path, records: usize, keys: usize) {
    let mut random = Random::new(1);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for index in 0..records {
        writeln!(file, "{}", fill::driver(&mut random, index, records, keys).json()).unwrap();
    }
    file.flush().unwrap();
}

#[allow(clippy::cast_precision_loss)]
async fn ingest_all(store: &FeatureStore, folder: &Path, keys: usize) {
    let stretch = Stretch::begin();
    let rows = ingest(store).await;
    let cost = stretch.end();
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

async fn read(store: &FeatureStore, keys: usize, reads: usize) {
    let names = ten_windows().map(|(function, window, _)| format!("drivers:{function}_{window}"));
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
