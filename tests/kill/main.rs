//! Ingestion is killed with SIGKILL at 25 random moments, or a few more, and started again each time. In the end every record
//! stands once in the log, for a plain reader of the directory too, and the online store is that of an undisturbed run.
//!
//! `HEADWATER_SEED` brings a run's moments back as far as the machine allows.

#![allow(clippy::unwrap_used)] // A test, though the compiler does not take its helpers for one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headwater_testkit::Random;
use headwater_tests::outcome::{Log, online};

const KILLS: usize = 25;
/// So many kills at least find a part of the records published: the test goes on until they do.
const AMID_WORK: usize = KILLS / 4;
const FILES: usize = 3;
const RECORDS: usize = 20_000;

const DEFINITIONS: &str = r#"
project: kill
registry: data/registry.json
online_store: { type: sqlite, path: data/online.db }
offline_store: { type: parquet, path: data/offline }
entities:
  - { name: driver, join_keys: [driver_id], value_type: int64 }
sources:
  - name: history
    type: file
    path: history.parquet
    timestamp_field: event_timestamp
    created_timestamp_column: created
  - name: events
    type: file
    path: events
    timestamp_field: event_timestamp
    created_timestamp_column: created
    batch_source: history
    record_format:
      type: json
      schema: driver_id bigint, event_timestamp timestamp, created timestamp, trips bigint, rate double
stream_feature_views:
  - name: rates
    entities: [driver]
    schema: [{ name: rate, dtype: float32 }, { name: trips, dtype: int64 }]
    online: true
    offline: true
    source: events
  - name: trips
    entities: [driver]
    schema: [{ name: trips, dtype: int64 }]
    online: true
    offline: true
    source: events
"#;

/// Writes a project and its events: out of order, with ties, and every thousandth malformed. The trips are the number of
/// the record. Gives back how many are good.
fn write_project(folder: &Path) -> usize {
    std::fs::create_dir_all(folder.join("events")).unwrap();
    std::fs::write(folder.join("headwater.yaml"), DEFINITIONS).unwrap();
    let mut random = Random::new(7);
    let mut good = 0;
    for file in 0..FILES {
        let mut text = String::new();
        for index in 0..RECORDS {
            let number = file * RECORDS + index;
            if number % 1_000 == 500 {
                writeln!(text, "{{\"driver_id\": {number}, ").unwrap();
                continue;
            }
            good += 1;
            let (driver, minute, second) = (random.below(3_000), random.below(60), random.below(60));
            writeln!(
                text,
                "{{\"driver_id\":{driver},\"event_timestamp\":\"2021-04-12T10:{minute:02}:{second:02}Z\",\
                 \"created\":\"2021-04-12T11:00:0{}Z\",\"trips\":{number},\"rate\":0.{index}}}",
                random.below(10)
            )
            .unwrap();
        }
        std::fs::write(folder.join(format!("events/part-{file}.ndjson")), text).unwrap();
    }
    good
}

fn start(folder: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ingest-job"))
        .arg(folder.join("headwater.yaml"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child
}

#[test]
fn killed_at_any_moment_every_record_counts_once() {
    let undisturbed = tempfile::tempdir().unwrap();
    let good = write_project(undisturbed.path());
    let begin = Instant::now();
    assert!(start(undisturbed.path()).wait().unwrap().success());
    // Kills come in the first half of the time that a run takes here and now: most find it at work.
    let window = usize::try_from(begin.elapsed().as_micros()).unwrap();
    let (expected_online, expected_dead) = online(undisturbed.path());
    assert!(expected_online.values().all(|rows| rows.len() == 3_000));
    assert_eq!(expected_dead, 2 * (FILES * RECORDS - good));

    let seed = std::env::var("HEADWATER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (mut kills, mut kills_amid_work, mut rounds) = (0, 0, 0);
    while kills < KILLS || kills_amid_work < AMID_WORK {
        rounds += 1;
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write_project(folder.path()), good);
        loop {
            let mut child = start(folder.path());
            if kills >= KILLS && kills_amid_work >= AMID_WORK {
                assert!(child.wait().unwrap().success());
                break;
            }
            std::thread::sleep(Duration::from_micros(random.below(window / 2) as u64));
            if let Some(done) = child.try_wait().unwrap() {
                assert!(done.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            let logged: usize =
                ["rates", "trips"].iter().map(|view| Log::read(folder.path(), view, "trips").count).sum();
            if logged > 0 && logged < 2 * good {
                kills_amid_work += 1;
            }
        }
        let numbers: BTreeSet<i64> =
            (0..FILES * RECORDS).filter(|n| n % 1_000 != 500).map(|n| i64::try_from(n).unwrap()).collect();
        for view in ["rates", "trips"] {
            let log = Log::read(folder.path(), view, "trips");
            assert_eq!((log.count, log.rows.len()), (good, good), "round {rounds}: `{view}` for a plain reader");
            assert_eq!(log.numbers(), numbers, "round {rounds}: `{view}`");
        }
        let (stored, dead) = online(folder.path());
        assert!(stored == expected_online, "round {rounds}: the online store is another");
        assert_eq!(dead, expected_dead, "round {rounds}: dead letters");
    }
    println!("{kills} kills in {rounds} rounds, {kills_amid_work} of them with a part of the records published");
}
