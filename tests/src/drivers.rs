//! The project that tests of streams ingest, its events, and what has to be left of them in the end.

use headwater_testkit::Random;

use crate::outcome::{Log, online};
use crate::worker::Project;

/// How many drivers there are.
pub const DRIVERS: usize = 500;

/// The definitions of a project of this name with a stream source `events`: `source` is its block, from `type` on, without
/// what every stream has.
pub fn definitions(project: &str, source: &str) -> String {
    let schema = "driver_id bigint, event_timestamp timestamp, created timestamp, trips bigint, rate double";
    let view = "schema: [{ name: rate, dtype: float32 }, { name: trips, dtype: int64 }]\nonline: true\noffline: true";
    crate::definitions(project, source, schema, view)
}

/// An event: its key and its value.
#[derive(Debug, Clone)]
pub struct Event {
    /// The driver.
    pub key: String,
    /// JSON.
    pub value: String,
}

/// The event of a number: out of order and with ties. `trips` is the number.
pub fn event(number: usize) -> Event {
    let mut random = Random::new(number as u64);
    let (driver, minute, second) = (random.below(DRIVERS), random.below(60), random.below(60));
    let made = random.below(10);
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
