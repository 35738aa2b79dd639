//! How long it takes after a kill until records are readable again.

use std::time::{Duration, Instant};

use headwater::store::{EntityColumns, Features};
use headwater_tests::drivers::{Event, each_once};
use headwater_tests::wait_for;
use headwater_tests::worker::{Observer, Project};

use crate::cluster::{Cluster, PATIENCE, Sender};
use crate::faults::definitions;

const PARTITIONS: usize = 3;
/// One of them in each partition, as the default partitioner has it; all are looked at.
const DRIVERS: usize = 30;
const RATE: usize = 300;
const KILLS: usize = 3;

/// Events in order of time: the newest value of a driver is that of its last record.
fn event(number: usize) -> Event {
    let driver = number % DRIVERS;
    let (second, micros) = (number / 1_000, number % 1_000);
    let (minute, second) = (second / 60 % 60, second % 60);
    let at = format!("2021-04-12T10:{minute:02}:{second:02}.{micros:06}Z");
    Event {
        key: driver.to_string(),
        value: format!(
            "{{\"driver_id\":{driver},\"event_timestamp\":\"{at}\",\"created\":\"{at}\",\"trips\":{number},\"rate\":0.5}}"
        ),
    }
}

pub(crate) fn a_static_member(cluster: &mut Cluster) {
    reads_on(cluster, "instance_id: worker-1", Duration::from_secs(2));
}

pub(crate) fn a_member(cluster: &mut Cluster) {
    reads_on(cluster, "", Duration::from_secs(10));
}

/// Kills the only worker again and again, and starts another each time. From then on, until a record that was sent after
/// the kill is readable online in every partition, no more than `limit` may pass.
fn reads_on(cluster: &mut Cluster, options: &str, limit: Duration) {
    let topic = cluster.topic(i32::try_from(PARTITIONS).unwrap());
    let project = Project::new(env!("CARGO_BIN_EXE_command"), &definitions(&topic, cluster, &topic, options), &[]);
    let observer = Observer::new(&project);
    let sender = Sender::start(cluster, &topic, RATE, event);
    let mut worker = project.start("worker");
    let mut took = Vec::new();
    for _ in 0..KILLS {
        // Far enough that checkpoints were written, and files of the log were not.
        let before = observer.read();
        wait_for("records to be read", PATIENCE, || observer.read() > before + 2 * RATE as u64);
        worker.kill();
        let after = i64::try_from(sender.sent()).unwrap();
        let begin = Instant::now();
        worker = project.start("worker");
        wait_for("every driver to be fresh", PATIENCE, || oldest(&observer) >= after);
        took.push(begin.elapsed());
    }
    println!("{topic} ({options}): readable again after {took:?}");
    assert!(took.iter().all(|took| *took <= limit), "{took:?} are not all within {limit:?}");
    let sent = sender.finish();
    worker.stop();
    project.ok(&["ingest", "--until-caught-up"]);
    each_once(&project, sent);
}

/// The lowest of the drivers' newest record numbers.
fn oldest(observer: &Observer) -> i64 {
    let drivers = EntityColumns::default().column("driver_id", 0..i64::try_from(DRIVERS).unwrap());
    let answer = observer.wait(observer.store.get_online_features(Features::names(["drivers:trips"]), drivers, false));
    let rows = answer.unwrap().to_record_batch().unwrap();
    let trips = rows.column_by_name("trips").unwrap();
    let trips = headwater::arrow::array::AsArray::as_primitive::<headwater::arrow::datatypes::Int64Type>(trips);
    trips.iter().map(|trips| trips.unwrap_or(-1)).min().unwrap_or(-1)
}
