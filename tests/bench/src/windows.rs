//! Events through a view with ten windows, and reading them.
//!
//! Events are spread over the day before and over all keys at random, which is the worst there is for a cache. Prints two
//! lines of JSON: from the source to the online store, and reads of all ten features of one entity, one after the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater::FeatureStore;
use headwater::arrow::array::AsArray;
use headwater::arrow::compute::cast;
use headwater::arrow::datatypes::{DataType, Float64Type};
use headwater::store::{EntityColumns, Features, OnlineFeatures};

use crate::measure::{Stretch, peak_mb};
use crate::project::{Driver, Window, kafka, project, ten_windows, windows};
use crate::throughput::ingest;
use crate::{Options, fill, source};

/// The answer to one read of so many is compared with the records.
const EVERY: usize = 20;

/// Where the events are.
enum Events {
    Topic(String),
    File(PathBuf),
}

/// What was served of a driver.
struct Served {
    driver: i64,
    /// The time it is of.
    at: i64,
    /// In the order of [`ten_windows`].
    values: Vec<Option<f64>>,
}

pub(crate) async fn run(options: &Options) {
    let (records, keys) = (options.number("records", 1_000_000), options.number("keys", 100_000));
    let folder = tempfile::tempdir().unwrap();
    let events = if options.has("topic") {
        Events::Topic(options.text("topic").to_owned())
    } else {
        let path = folder.path().join("events.ndjson");
        write_events(&path, records, keys);
        Events::File(path)
    };
    let (project, store) = project(&windows(&events.source())).await;
    let (rows, ingested) = ingest_all(&store, project.path(), keys).await;
    let (mut took, served) = read(&store, keys, options.number("reads", 20_000)).await;
    // Only now, so that the records are no part of the memory that is told.
    let (hour, day) = check(&events, rows, &served);
    println!("{ingested}");
    print_reads(&store, &mut took, hour, day);
}

impl Events {
    fn source(&self) -> String {
        match self {
            Self::Topic(topic) => kafka(topic),
            Self::File(path) => format!("type: file\npath: {}", path.display()),
        }
    }

    /// Calls `each` with every record; gives their number.
    fn read(&self, mut each: impl FnMut(&[u8])) -> usize {
        match self {
            Self::Topic(topic) => source::consume(topic, each).0,
            Self::File(path) => {
                let lines = BufReader::new(std::fs::File::open(path).unwrap()).lines();
                lines.inspect(|line| each(line.as_ref().unwrap().as_bytes())).count()
            }
        }
    }
}

/// The records that `fill` puts into a topic.
fn write_events(path: &Path, records: usize, keys: usize) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    for driver in fill::drivers(1, records, keys) {
        writeln!(file, "{}", driver.json()).unwrap();
    }
    file.flush().unwrap();
}

/// Gives the number of events, and the line that tells what it took.
#[allow(clippy::cast_precision_loss)]
async fn ingest_all(store: &FeatureStore, folder: &Path, keys: usize) -> (usize, String) {
    let stretch = Stretch::begin();
    let rows = ingest(store).await;
    let cost = stretch.end();
    let disk: u64 = ["online.db", "online.db-wal"]
        .iter()
        .filter_map(|file| std::fs::metadata(folder.join("data").join(file)).ok())
        .map(|file| file.len())
        .sum();
    let line = format!(
        "{{\"what\":\"windows\",\"events\":{rows},\"wall_s\":{:.2},\"events_s\":{:.0},\"cpu_s\":{:.2},\"events_per_cpu_s\":{:.0},\"peak_rss_mb\":{:.0},\"disk_bytes_per_entity\":{:.0}}}",
        cost.wall,
        rows as f64 / cost.wall,
        cost.cpu,
        rows as f64 / cost.cpu,
        peak_mb(),
        disk as f64 / keys as f64
    );
    (rows, line)
}

/// Gives what each read took, and some of the answers.
async fn read(store: &FeatureStore, keys: usize, reads: usize) -> (Vec<Duration>, Vec<Served>) {
    let names = ten_windows().map(|window| format!("drivers:{}", window.name)).collect::<Vec<_>>();
    let (mut took, mut served) = (Vec::new(), Vec::new());
    for read in 0..reads {
        let key = i64::try_from(read.wrapping_mul(7_919) % keys).unwrap();
        let begin = Instant::now();
        let driver = EntityColumns::default().column("driver_id", [key]);
        let answer = store.get_online_features(Features::names(&names), driver, false).await.unwrap();
        took.push(begin.elapsed());
        if read.is_multiple_of(EVERY) {
            served.push(Served::new(key, &answer));
        }
    }
    (took, served)
}

impl Served {
    fn new(driver: i64, answer: &OnlineFeatures) -> Self {
        let (mut at, mut values) = (0, Vec::new());
        for window in ten_windows() {
            let column = answer.column(&window.name).unwrap();
            at = column.event_timestamps[0];
            let value = cast(&column.values, &DataType::Float64).unwrap();
            values.push(value.as_primitive::<Float64Type>().iter().next().unwrap());
        }
        Self { driver, at, values }
    }
}

/// Checks that all events were ingested, and that what was served is what they come to. Gives how many of them a window of
/// an hour and one of a day had on the average.
#[allow(clippy::cast_precision_loss)]
fn check(events: &Events, rows: usize, served: &[Served]) -> (f64, f64) {
    let mut of: BTreeMap<i64, Vec<Driver>> = served.iter().map(|served| (served.driver, Vec::new())).collect();
    let records = events.read(|record| {
        let driver = Driver::read(record);
        if let Some(records) = of.get_mut(&i64::try_from(driver.id).unwrap()) {
            records.push(driver);
        }
    });
    assert_eq!(rows, records, "not all records were ingested");
    let (mut hour, mut day) = (0.0, 0.0);
    for Served { driver, at, values } in served {
        for (window, found) in ten_windows().zip(values) {
            let expected = window.over(&of[driver], *at);
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs(),
                (None, None) => true,
                _ => false,
            };
            assert!(same, "{} of driver {driver} at {at}: {found:?}, by its records {expected:?}", window.name);
            match window.name.as_str() {
                "count_1h" => hour += found.unwrap_or_default(),
                "count_24h" => day += found.unwrap_or_default(),
                _ => {}
            }
        }
    }
    assert!(day > 0.0, "no event is of the last 24 hours: fill another topic");
    (hour / served.len() as f64, day / served.len() as f64)
}

impl Window {
    /// What it comes to at a time, by its definition.
    #[allow(clippy::cast_precision_loss)]
    fn over(&self, records: &[Driver], at: i64) -> Option<f64> {
        let (length, slide) = (self.minutes * 60_000_000, self.slide * 60_000_000);
        let from = (at - length).div_euclid(slide) * slide;
        let within = records.iter().filter(|record| (from..=at).contains(&record.event));
        let values = within.map(|record| record.conv).collect::<Vec<_>>();
        let sum = || values.iter().copied().reduce(|left, right| left + right);
        match self.function {
            "count" => Some(values.len() as f64),
            "sum" => sum(),
            "mean" => sum().map(|sum| sum / values.len() as f64),
            "min" => values.iter().copied().reduce(f64::min),
            "max" => values.iter().copied().reduce(f64::max),
            other => panic!("{other}"),
        }
    }
}

/// `hour` and `day` are the events that windows of these lengths had on the average.
#[allow(clippy::cast_precision_loss)]
fn print_reads(store: &FeatureStore, took: &mut [Duration], hour: f64, day: f64) {
    took.sort_unstable();
    let at = |percent: usize| {
        let time = took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied();
        time.unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
    };
    let reads = store.window_reads()["drivers"];
    println!(
        "{{\"what\":\"reads\",\"reads\":{},\"features\":{},\"rows_each\":{:.2},\"events_1h\":{hour:.2},\"events_24h\":{day:.2},\"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.0}}}",
        took.len(),
        ten_windows().count(),
        reads.rows as f64 / reads.entities as f64,
        at(50),
        at(90),
        at(99),
        at(100)
    );
}
