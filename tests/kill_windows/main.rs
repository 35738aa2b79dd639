//! Ingestion of a windowed view is killed with SIGKILL at 25 random moments, or a few more, and so are the builds of its window state: by
//! `materialize` beside it, and by changed aggregations. In the end lifetime counts and sums are exact.
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
use headwater::store::{EntityColumns, Features};
use headwater::{FeatureStore, arrow};
use headwater_testkit::Random;

const KILLS: usize = 25;
/// So many kills at least find a part of the records counted: the test goes on until they do.
const AMID_WORK: usize = KILLS / 4;
const FILES: usize = 3;
const RECORDS: usize = 10_000;
const DRIVERS: usize = 500;
/// Where a `materialize` lets batch rows and log meet.
const END: &str = "2021-04-12T10:30:00Z";

const DEFINITIONS: &str = r#"
project: kill
registry: data/registry.json
online_store: { type: sqlite, path: data/online.db }
offline_store: { type: parquet, path: data/offline }
entities:
  - { name: driver, join_keys: [driver_id], value_type: int64 }
sources:
  - { name: history, type: file, path: history.parquet, timestamp_field: event_timestamp }
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

/// Writes the events, out of order. Gives back what they add up to: all of them, and those from [`END`] on.
fn write_events(folder: &Path) -> [Totals; 2] {
    std::fs::create_dir_all(folder.join("events")).unwrap();
    let mut random = Random::new(7);
    let mut totals = [Totals::new(), Totals::new()];
    for file in 0..FILES {
        let mut text = String::new();
        for index in 0..RECORDS {
            let trips = i64::try_from(file * RECORDS + index).unwrap();
            let (driver, minute, second) = (random.below(DRIVERS), random.below(60), random.below(60));
            writeln!(
                text,
                "{{\"driver_id\":{driver},\"event_timestamp\":\"2021-04-12T10:{minute:02}:{second:02}Z\",\"trips\":{trips}}}"
            )
            .unwrap();
            let driver = i64::try_from(driver).unwrap();
            let counted = if minute >= 30 { 2 } else { 1 };
            for totals in totals.iter_mut().take(counted) {
                let (count, sum) = totals.entry(driver).or_default();
                *count += 1;
                *sum += trips;
            }
        }
        std::fs::write(folder.join(format!("events/part-{file}.ndjson")), text).unwrap();
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

/// What is served of features, a column of integers for each.
fn columns<const N: usize>(folder: &Path, features: [&str; N]) -> [Int64Array; N] {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = FeatureStore::builder()
            .registry(headwater::registry().unwrap())
            .file(folder.join("headwater.yaml"))
            .open()
            .await
            .unwrap();
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
fn counted(folder: &Path) -> usize {
    let [ever] = columns(folder, ["ever"]);
    usize::try_from(ever.iter().flatten().sum::<i64>()).unwrap()
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
        let [all, later] = write_events(folder);
        // What is counted when nothing is left to do: of the epoch that serves first, and of one that begins at `END`.
        let ends = [&all, &later].map(|totals| usize::try_from(sums(totals).0).unwrap());
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
                    kills_amid_work += usize::from(counted > 0 && !ends.contains(&counted));
                }
            }
        }
        // A build that was killed may have taken over, or not.
        let mut child = start(folder);
        assert!(child.wait().unwrap().success());
        let served = served(folder);
        let zeros = |totals: &Totals| -> Totals {
            served.keys().map(|driver| (*driver, totals.get(driver).copied().unwrap_or_default())).collect()
        };
        let right = served == zeros(&all) || materialized && served == zeros(&later);
        assert!(
            right,
            "round {rounds}: {:?} are served, {:?} or {:?} are right",
            sums(&served),
            sums(&all),
            sums(&later)
        );
    }
    println!("{kills} kills, {kills_amid_work} of them amid the work, and {builds} builds in {rounds} rounds");
}

fn sums(totals: &Totals) -> (i64, i64) {
    totals.values().fold((0, 0), |(count, sum), of| (count + of.0, sum + of.1))
}
