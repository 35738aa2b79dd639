//! Ingestion of a windowed view is killed with SIGKILL at 25 random moments, or a few more, and so are the builds of its
//! window state: by the first ingest, by `materialize` beside it, and by changed aggregations. In the end lifetime counts
//! and sums are exact: history has what the stream has too, and either counts as `log_from` says.
//!
//! `HEADWATER_SEED` brings a run's moments back as far as the machine allows.

#![allow(clippy::unwrap_used)] // A test, though the compiler does not take its helpers for one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headwater::arrow::array::{AsArray, Int64Array};
use headwater::arrow::datatypes::Int64Type;
use headwater::store::{EntityColumns, Features, format_time, parse_time};
use headwater::{FeatureStore, arrow};
use headwater_testkit::Random;
use headwater_tests::outcome::open;

const KILLS: usize = 25;
/// So many kills at least find a part of the records counted: the test goes on until they do.
const AMID_WORK: usize = KILLS / 4;
const FILES: usize = 3;
const RECORDS: usize = 10_000;
const DRIVERS: usize = 500;
/// The first event of the stream, or a little before.
const BEGIN: &str = "2021-04-12T10:00:00Z";
/// Where a `materialize` lets batch rows and log meet.
const END: &str = "2021-04-12T10:30:00Z";
/// Minutes of the stream that history has some of too, and of an hour before.
const HISTORY: usize = 40;
const SECOND: i64 = 1_000_000;

const DEFINITIONS: &str = r#"
project: kill
registry: data/registry.json
online_store: { type: sqlite, path: data/online.db }
offline_store: { type: parquet, path: data/offline }
entities:
  - { name: driver, join_keys: [driver_id], value_type: int64 }
sources:
  - { name: history, type: file, path: history.csv, timestamp_field: event_timestamp }
  - name: events
    type: file
    path: events
    timestamp_field: event_timestamp
    batch_source: history
    record_format: { type: json, schema: "driver_id bigint, event_timestamp timestamp, trips bigint" }
stream_feature_views:
  - name: trips
    entities: [driver]
    online: true
    offline: true
    source: events
    aggregations:
      - { function: count, name: ever }
      - { column: trips, function: sum, name: sum }
      - { function: count, time_window: WINDOW, slide_interval: 100d, name: recent }
"#;

/// Of each driver the count and the sum.
type Totals = BTreeMap<i64, (i64, i64)>;

/// Writes the definitions with one of two windows: another one is built anew from history.
fn define(folder: &Path, variant: usize) {
    let window = ["20000d", "30000d"][variant];
    std::fs::write(folder.join("headwater.yaml"), DEFINITIONS.replace("WINDOW", window)).unwrap();
}

/// An event, or a row of history.
#[derive(Clone, Copy)]
struct Event {
    driver: i64,
    time: i64,
    trips: i64,
}

/// What there is to count.
struct World {
    stream: Vec<Event>,
    history: Vec<Event>,
}

impl World {
    /// Writes history and the stream, both out of order.
    fn write(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("events")).unwrap();
        let begin = parse_time(BEGIN).unwrap();
        let mut random = Random::new(7);
        let at = |minute, second| begin + i64::try_from(minute * 60 + second).unwrap() * SECOND;
        let mut world = Self { stream: Vec::new(), history: Vec::new() };
        let mut rows = "driver_id,event_timestamp,trips\n".to_owned();
        for file in 0..FILES {
            let mut text = String::new();
            for index in 0..RECORDS {
                let trips = i64::try_from(file * RECORDS + index).unwrap();
                let (driver, minute, second) = (random.below(DRIVERS), random.below(60), random.below(60));
                let event = Event { driver: i64::try_from(driver).unwrap(), time: at(minute, second), trips };
                let time = format_time(event.time);
                writeln!(text, "{{\"driver_id\":{driver},\"event_timestamp\":\"{time}\",\"trips\":{trips}}}").unwrap();
                world.stream.push(event);
                if random.once_in(10) {
                    let earlier = Event { time: event.time - 3_600 * SECOND, ..event };
                    let known = [earlier, event].into_iter().filter(|event| event.time < at(HISTORY, 0));
                    for event in known {
                        writeln!(rows, "{driver},{},{trips}", format_time(event.time)).unwrap();
                        world.history.push(event);
                    }
                }
            }
            std::fs::write(folder.join(format!("events/part-{file}.ndjson")), text).unwrap();
        }
        std::fs::write(folder.join("history.csv"), rows).unwrap();
        world
    }

    /// Where the batch rows and the log of the first ingest meet.
    fn after_history(&self) -> i64 {
        self.history.iter().map(|row| row.time).max().unwrap() + 1
    }

    /// What history comes to, and all: batch rows count before `log_from`, and the stream from there on.
    fn totals(&self, log_from: i64) -> [Totals; 2] {
        let before = self.history.iter().filter(|row| row.time < log_from);
        let after = self.stream.iter().filter(|event| event.time >= log_from);
        [sums_of(before.clone()), sums_of(before.chain(after))]
    }
}

/// Of each driver, of none too.
fn sums_of<'a>(events: impl Iterator<Item = &'a Event>) -> Totals {
    let mut totals: Totals = drivers().map(|driver| (driver, (0, 0))).collect();
    for event in events {
        let (count, sum) = totals.get_mut(&event.driver).unwrap();
        *count += 1;
        *sum += event.trips;
    }
    totals
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingest-job"));
    command.arg(folder.join("headwater.yaml")).stdout(Stdio::piped());
    command
}

fn start(folder: &Path) -> Child {
    let mut child = command(folder).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Asks something of the project of a folder.
fn ask<T>(folder: &Path, question: impl AsyncFnOnce(FeatureStore) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { question(open(folder).await).await })
}

/// What is served of features, a column of integers for each.
fn columns<const N: usize>(folder: &Path, features: [&str; N]) -> [Int64Array; N] {
    ask(folder, async |store| {
        let entities = EntityColumns::default().column("driver_id", drivers());
        let names = features.map(|feature| format!("trips:{feature}"));
        let answer = store.get_online_features(Features::names(names), entities, false).await.unwrap();
        features.map(|feature| {
            let values = &answer.column(feature).unwrap().values;
            arrow::compute::cast(values, &arrow::datatypes::DataType::Int64)
                .unwrap()
                .as_primitive::<Int64Type>()
                .clone()
        })
    })
}

/// Where the batch rows and the log of what is served meet.
fn log_from(folder: &Path) -> Option<i64> {
    ask(folder, async |store| store.status().await.unwrap().views[0].windows.as_ref().unwrap().log_from)
}

fn drivers() -> std::ops::Range<i64> {
    0..i64::try_from(DRIVERS).unwrap()
}

/// Of each driver what is served: the lifetime's count and sum. A window that reaches back as far counts the same.
fn served(folder: &Path) -> Totals {
    let [ever, sum, recent] = columns(folder, ["ever", "sum", "recent"]);
    assert_eq!(ever, recent);
    drivers()
        .zip(ever.iter().zip(sum.iter()))
        .map(|(driver, (count, sum))| (driver, (count.unwrap(), sum.unwrap_or(0))))
        .collect()
}

/// How many records are served, of all drivers.
fn counted(folder: &Path) -> i64 {
    let [ever] = columns(folder, ["ever"]);
    ever.iter().flatten().sum()
}

#[test]
fn killed_at_any_moment_lifetime_counts_are_exact() {
    let seed = std::env::var("HEADWATER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (mut kills, mut kills_amid_work, mut rounds, mut builds) = (0, 0, 0, 0);
    while kills < KILLS || kills_amid_work < AMID_WORK {
        rounds += 1;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let world = World::write(folder);
        // Where batch rows and log may meet, and what is counted before the stream is, and when nothing is left to do.
        let (first, end) = (world.after_history(), parse_time(END).unwrap());
        let at_rest = [first, end].map(|log_from| world.totals(log_from).map(|totals| sums(&totals).0));
        let at_rest = at_rest.as_flattened();
        let mut materialized = false;
        loop {
            define(folder, random.below(2));
            let mut child = start(folder);
            let mut builder = random.once_in(2).then(|| {
                materialized = true;
                builds += 1;
                let args = ["materialize", "2021-01-01T00:00:00Z", END];
                command(folder).args(args).stderr(Stdio::null()).spawn().unwrap()
            });
            let last = kills >= KILLS && kills_amid_work >= AMID_WORK;
            if !last {
                std::thread::sleep(Duration::from_micros(random.below(800_000) as u64));
            }
            let done = if last { Some(child.wait().unwrap()) } else { child.try_wait().unwrap() };
            // It may be waiting for the job to take part, or be in the midst of its build.
            builder.iter_mut().for_each(kill);
            match done {
                Some(done) => {
                    assert!(done.success());
                    break;
                }
                None => {
                    kill(&mut child);
                    kills += 1;
                    let counted = counted(folder);
                    kills_amid_work += usize::from(counted > 0 && !at_rest.contains(&counted));
                }
            }
        }
        let mut child = start(folder);
        assert!(child.wait().unwrap().success());
        let log_from = log_from(folder).unwrap();
        // A build that was killed may have taken over, or not.
        assert!(log_from == first || materialized && log_from == end, "round {rounds}: log from {log_from}");
        let (served, [_, right]) = (served(folder), world.totals(log_from));
        assert!(
            served == right,
            "round {rounds}, log from {log_from}: {:?} are served, {:?} are right",
            sums(&served),
            sums(&right)
        );
    }
    println!("{kills} kills, {kills_amid_work} of them amid the work, and {builds} builds in {rounds} rounds");
}

fn sums(totals: &Totals) -> (i64, i64) {
    totals.values().fold((0, 0), |(count, sum), of| (count + of.0, sum + of.1))
}
