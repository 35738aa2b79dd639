//! The project that tests of streams ingest, its events, and what has to be left of them in the end.

use std::sync::Arc;

use headwater::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use headwater::arrow::datatypes::Int64Type;
use headwater::history::{EntityRows, HistoryOptions};
use headwater::store::{EntityColumns, Features};
use headwater_testkit::Random;

use crate::outcome::{Log, online, open};
use crate::worker::Project;

/// How many drivers there are.
pub const DRIVERS: usize = 500;
/// 2021-04-12T10:00:00Z, in microseconds: the hour of the events begins.
const BEGIN: i64 = 1_618_221_600_000_000;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A view of windows beside the other.
const WINDOWS: &str = "  - name: windows
    entities: [driver]
    source: events
    online: true
    offline: true
    aggregations:
      - { function: count, name: ever }
      - { column: trips, function: sum, name: sum }
      - { function: count, time_window: 20000d, slide_interval: 100d, name: recent }
      - { column: trips, function: max, time_window: 30m, slide_interval: 10m, name: most }
";
const FEATURES: [&str; 4] = ["ever", "sum", "recent", "most"];

/// The definitions of a project of this name with a stream source `events`: `source` is its block, from `type` on, without
/// what every stream has.
pub fn definitions(project: &str, source: &str) -> String {
    let schema = "driver_id bigint, event_timestamp timestamp, created timestamp, trips bigint, rate double";
    let view = "schema: [{ name: rate, dtype: float32 }, { name: trips, dtype: int64 }]\nonline: true\noffline: true";
    crate::definitions(project, source, schema, view)
}

/// The same with a view of windows.
pub fn windowed(project: &str, source: &str) -> String {
    definitions(project, source) + WINDOWS
}

/// An event: its key and its value.
#[derive(Debug, Clone)]
pub struct Event {
    /// The driver.
    pub key: String,
    /// JSON.
    pub value: String,
}

/// The driver of the event of a number, its second, and the second of its creation.
fn drawn(number: usize) -> (usize, usize, usize) {
    let mut random = Random::new(number as u64);
    (random.below(DRIVERS), random.below(60) * 60 + random.below(60), random.below(10))
}

/// The event of a number: out of order and with ties. `trips` is the number.
pub fn event(number: usize) -> Event {
    let (driver, second, made) = drawn(number);
    let (minute, second) = (second / 60, second % 60);
    Event {
        key: driver.to_string(),
        value: format!(
            "{{\"driver_id\":{driver},\"event_timestamp\":\"2021-04-12T10:{minute:02}:{second:02}Z\",\
             \"created\":\"2021-04-12T11:00:0{made}Z\",\"trips\":{number},\"rate\":0.{number}}}"
        ),
    }
}

/// Checks that every one of `sent` events stands once in the log of a project, for a plain reader of the directory.
///
/// # Panics
/// Where one does not.
pub fn each_once(project: &Project, sent: usize) {
    let log = Log::read(project.path(), "drivers", "trips");
    println!("{sent} records, {} rows in the log", log.count);
    assert_eq!((log.count, log.rows.len()), (sent, sent), "each record stands once for a plain reader");
    let numbers = (0..i64::try_from(sent).unwrap()).collect();
    assert!(log.numbers() == numbers, "each record stands once");
}

/// Checks that log and online store of a project are those of another, which nothing disturbed.
///
/// # Panics
/// Where they are not.
pub fn same(project: &Project, undisturbed: &Project) {
    let log = |project: &Project| Log::read(project.path(), "drivers", "trips");
    assert!(log(project) == log(undisturbed), "the log is not that of an undisturbed run");
    let (found, expected) = (online(project.path()), online(undisturbed.path()));
    assert_eq!(expected.0["drivers"].len(), DRIVERS);
    assert!(found == expected, "the online store is not that of an undisturbed run");
    assert_eq!(found.1, 0, "dead letters");
}

/// The windows of a driver, in the order of [`FEATURES`].
type Windows = [Option<i64>; FEATURES.len()];

/// Checks that the windows of a project are what `sent` events come to, counted one by one: what is served, and at times
/// among the events and after them what is computed of the log.
///
/// # Panics
/// Where they are not.
pub fn windows_are_exact(project: &Project, sent: usize) {
    let drivers = 0..i64::try_from(DRIVERS).unwrap();
    let names = || Features::names(FEATURES.map(|name| format!("windows:{name}")));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(project.path()).await;
        let asked = EntityColumns::default().column("driver_id", drivers.clone());
        let served = store.get_online_features(names(), asked, false).await.unwrap();
        let at = served.column("ever").unwrap().event_timestamps[0];
        assert!(windows(&served.to_record_batch().unwrap()) == windows_at(sent, at), "what is served is not exact");

        for at in [600, 1_800, 4_000].map(|second| BEGIN + second * SECOND) {
            let times = TimestampMicrosecondArray::from(vec![at; DRIVERS]).with_timezone("UTC");
            let rows = RecordBatch::try_from_iter([
                ("driver_id", Arc::new(Int64Array::from_iter_values(drivers.clone())) as ArrayRef),
                ("event_timestamp", Arc::new(times)),
            ]);
            let rows = rows.unwrap();
            let asked = EntityRows::new(rows.schema(), vec![rows]).unwrap();
            let set = store.get_historical_features(asked, names(), false, HistoryOptions::default()).await.unwrap();
            let found = set.collect().await.unwrap().iter().flat_map(windows).collect::<Vec<_>>();
            assert!(found == windows_at(sent, at), "what the log comes to at {at} is not exact");
        }
    });
}

fn windows(rows: &RecordBatch) -> Vec<Windows> {
    let columns = FEATURES.map(|name| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>());
    (0..rows.num_rows()).map(|row| columns.map(|column| column.is_valid(row).then(|| column.value(row)))).collect()
}

/// What the windows of all drivers are at a time, by their definition.
fn windows_at(sent: usize, at: i64) -> Vec<Windows> {
    let start = |length: i64, slide: i64| (at - length).div_euclid(slide) * slide;
    let mut drivers = vec![[Some(0), None, Some(0), None]; DRIVERS];
    for number in 0..sent {
        let (driver, second, _) = drawn(number);
        let (number, time) = (i64::try_from(number).unwrap(), BEGIN + i64::try_from(second).unwrap() * SECOND);
        let [ever, sum, recent, most] = &mut drivers[driver];
        if time <= at {
            *ever = ever.map(|count| count + 1);
            *sum = Some(sum.unwrap_or(0) + number);
        }
        if (start(20_000 * DAY, 100 * DAY)..=at).contains(&time) {
            *recent = recent.map(|count| count + 1);
        }
        if (start(1_800 * SECOND, 600 * SECOND)..=at).contains(&time) {
            *most = (*most).max(Some(number));
        }
    }
    drivers
}
