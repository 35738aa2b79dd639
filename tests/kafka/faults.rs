//! Faults in mid-ingest, and what is left in the end.

use std::time::Duration;

use headwater_testkit::Random;
use headwater_tests::outcome::{Log, online};
use headwater_tests::wait_for;
use headwater_tests::worker::{Observer, Project, Worker};

use crate::cluster::{Cluster, Event, PATIENCE, Sender};

const RATE: usize = 2_000;
const DRIVERS: usize = 500;
/// As many records pass between two events of a test.
const PASS: u64 = 3_000;

/// The definitions of a project that reads a topic.
pub(crate) fn definitions(project: &str, cluster: &Cluster, topic: &str, options: &str) -> String {
    let servers = cluster.kafka.bootstrap_servers();
    format!(
        r#"
project: {project}
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
    type: kafka
    bootstrap_servers: {servers}
    topic: {topic}
    {options}
    timestamp_field: event_timestamp
    batch_source: history
    record_format:
      type: json
      schema: driver_id bigint, event_timestamp timestamp, created timestamp, trips bigint, rate double
stream_feature_views:
  - name: drivers
    entities: [driver]
    schema: [{{ name: rate, dtype: float32 }}, {{ name: trips, dtype: int64 }}]
    online: true
    offline: true
    source: events
"#
    )
}

/// Events of `DRIVERS` drivers, out of order and with ties; `trips` is the number of the record.
fn event(number: usize) -> Event {
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

/// A project in mid-ingest: a topic that records go on coming into.
struct Midst<'a> {
    cluster: &'a mut Cluster,
    topic: String,
    project: Project,
    observer: Observer,
    sender: Sender,
}

impl<'a> Midst<'a> {
    fn begin(cluster: &'a mut Cluster) -> Self {
        let topic = cluster.topic(3);
        let definitions = definitions(&topic, cluster, &topic, "");
        let project = Project::new(env!("CARGO_BIN_EXE_command"), &definitions, &[]);
        let observer = Observer::new(&project);
        let sender = Sender::start(cluster, &topic, RATE, event);
        Self { cluster, topic, project, observer, sender }
    }

    fn group(&self) -> String {
        format!("{}.events", self.topic)
    }

    /// Waits until some records more have been read in every split there is now.
    fn pass(&self) {
        let before = self.observer.offsets();
        let total: u64 = before.values().sum();
        wait_for("records to be read", PATIENCE, || {
            let now = self.observer.offsets();
            let moved = before.iter().all(|(split, offset)| now.get(split).is_some_and(|now| now > offset));
            moved && now.values().sum::<u64>() >= total + PASS
        });
    }

    fn members(&self, count: usize) {
        wait_for(&format!("{count} members"), PATIENCE, || self.cluster.members(&self.group()) == count);
    }

    /// Stops everything in good order, reads what is left, and compares with a run that nothing disturbed.
    fn end(self, workers: Vec<Worker>) {
        let sent = self.sender.finish();
        workers.into_iter().for_each(Worker::stop);
        self.project.ok(&["ingest", "--until-caught-up"]);

        let calm = definitions(&format!("{}-calm", self.topic), self.cluster, &self.topic, "");
        let calm = Project::new(env!("CARGO_BIN_EXE_command"), &calm, &[]);
        calm.ok(&["ingest", "--until-caught-up"]);

        let log = Log::read(self.project.path(), "drivers", "trips");
        println!("{}: {sent} records, {} rows in the log", self.topic, log.count);
        assert_eq!((log.count, log.rows.len()), (sent, sent), "each record stands once for a plain reader");
        assert_eq!(log.numbers(), (0..i64::try_from(sent).unwrap()).collect(), "each record stands once");
        assert!(log == Log::read(calm.path(), "drivers", "trips"), "the log is that of an undisturbed run");
        let (disturbed, undisturbed) = (online(self.project.path()), online(calm.path()));
        assert_eq!(undisturbed.0["drivers"].len(), DRIVERS);
        assert!(disturbed == undisturbed, "the online store is that of an undisturbed run");
        assert_eq!(disturbed.1, 0, "dead letters");
    }
}

/// The node that is the controller as well: for a while no leader is elected and no group is coordinated.
pub(crate) fn a_broker_is_restarted(cluster: &mut Cluster) {
    let midst = Midst::begin(cluster);
    let worker = midst.project.start("worker");
    midst.pass();
    midst.cluster.kafka.stop_node(1);
    std::thread::sleep(Duration::from_secs(1));
    midst.cluster.kafka.start_node(1).unwrap();
    midst.pass();
    midst.cluster.kafka.kill_node(1);
    midst.cluster.kafka.start_node(1).unwrap();
    midst.pass();
    midst.end(vec![worker]);
}

pub(crate) fn leaders_move(cluster: &mut Cluster) {
    let midst = Midst::begin(cluster);
    let worker = midst.project.start("worker");
    midst.pass();
    let led = midst.cluster.led_by(&midst.topic, 2);
    assert!(led > 0, "node 2 leads no partition");
    midst.cluster.kafka.kill_node(2);
    wait_for("the leaders to move", PATIENCE, || midst.cluster.led_by(&midst.topic, 1) == 3);
    midst.pass();
    midst.cluster.kafka.start_node(2).unwrap();
    midst.pass();
    midst.end(vec![worker]);
}

pub(crate) fn members_are_added_and_killed(cluster: &mut Cluster) {
    let midst = Midst::begin(cluster);
    let first = midst.project.start("first");
    midst.pass();
    let second = midst.project.start("second");
    midst.members(2);
    midst.pass();
    second.kill();
    midst.pass();
    midst.members(1);
    let third = midst.project.start("third");
    midst.members(2);
    midst.pass();
    first.kill();
    midst.pass();
    let fourth = midst.project.start("fourth");
    midst.pass();
    midst.end(vec![third, fourth]);
}

pub(crate) fn the_topic_grows(cluster: &mut Cluster) {
    let midst = Midst::begin(cluster);
    let workers = vec![midst.project.start("first"), midst.project.start("second")];
    midst.members(2);
    midst.pass();
    midst.cluster.grow(&midst.topic, 12);
    wait_for("all splits to be read", PATIENCE, || {
        let offsets = midst.observer.offsets();
        offsets.len() == 12 && offsets.values().all(|offset| *offset > 0)
    });
    midst.pass();
    midst.end(workers);
}
