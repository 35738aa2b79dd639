//! Faults in mid-ingest, and what is left in the end.

use std::time::Duration;

use headwater_tests::worker::{Observer, Project, Worker};
use headwater_tests::{drivers, wait_for};
use rusqlite::Connection;

use crate::cluster::{Cluster, PATIENCE, Sender};

const RATE: usize = 2_000;
/// As many records pass between two events of a test.
const PASS: u64 = 3_000;

/// The definitions of a project that reads a topic.
pub(crate) fn definitions(project: &str, cluster: &Cluster, topic: &str, options: &str) -> String {
    drivers::definitions(project, &source(cluster, topic, options))
}

fn source(cluster: &Cluster, topic: &str, options: &str) -> String {
    let servers = cluster.kafka.bootstrap_servers();
    format!("type: kafka\nbootstrap_servers: {servers}\ntopic: {topic}\n{options}")
}

/// A project with windows in mid-ingest: a topic that records go on coming into.
struct Midst<'a> {
    cluster: &'a mut Cluster,
    topic: String,
    project: Project,
    observer: Observer,
    sender: Sender,
}

impl<'a> Midst<'a> {
    fn begin(cluster: &'a mut Cluster) -> Self {
        Self::begin_with(cluster, "")
    }

    /// With more options of the source.
    fn begin_with(cluster: &'a mut Cluster, options: &str) -> Self {
        let topic = cluster.topic(3);
        let definitions = drivers::windowed(&topic, &source(cluster, &topic, options));
        let project = Project::new(env!("CARGO_BIN_EXE_command"), &definitions, &[]);
        let observer = Observer::new(&project);
        let sender = Sender::start(cluster, &topic, RATE, drivers::event);
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

        let calm = drivers::windowed(&format!("{}-calm", self.topic), &source(self.cluster, &self.topic, ""));
        let calm = Project::new(env!("CARGO_BIN_EXE_command"), &calm, &[]);
        calm.ok(&["ingest", "--until-caught-up"]);

        drivers::each_once(&self.project, sent);
        drivers::same(&self.project, &calm);
        drivers::windows_are_exact(&self.project, sent);
    }
}

pub(crate) fn brokers_are_away_at_the_start(cluster: &mut Cluster) {
    let topic = cluster.topic(3);
    let project = Project::new(env!("CARGO_BIN_EXE_command"), &definitions(&topic, cluster, &topic, ""), &[]);
    let observer = Observer::new(&project);
    let sender = Sender::start(cluster, &topic, RATE, drivers::event);
    // Enough for every partition.
    wait_for("records", PATIENCE, || sender.sent() >= RATE);
    let sent = sender.finish();
    for node in [2, 1] {
        cluster.kafka.kill_node(node);
    }
    let mut worker = project.start("worker");
    wait_for("the status to say why it waits", PATIENCE, || {
        worker.alive();
        let status = observer.wait(observer.store.status()).unwrap();
        let why = status.jobs.first().and_then(|job| job.retrying.clone()).unwrap_or_default();
        why.contains("Connection refused")
    });
    cluster.restore();
    wait_for("all records to be read", PATIENCE, || {
        worker.alive();
        observer.read() == sent as u64
    });
    let status = observer.wait(observer.store.status()).unwrap();
    assert_eq!(status.jobs[0].retrying, None, "it goes on, and says so");
    worker.stop();
    drivers::each_once(&project, sent);
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

/// Lets nobody write to the online store of a project until it is dropped.
fn stick(project: &Project) -> Connection {
    let store = Connection::open(project.path().join("data/online.db")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store.execute_batch("BEGIN EXCLUSIVE").unwrap();
    store
}

pub(crate) fn a_store_is_stuck_while_a_member_joins(cluster: &mut Cluster) {
    let midst = Midst::begin_with(cluster, "revoke_timeout: 1s");
    let first = midst.project.start("first");
    midst.pass();
    let stuck = stick(&midst.project);
    let stored = midst.observer.offsets();
    let second = midst.project.start("second");
    // Which is given partitions although the first cannot store what it has read of them.
    midst.members(2);
    assert_eq!(midst.observer.offsets(), stored, "the store was not stuck");
    drop(stuck);
    midst.pass();
    midst.end(vec![first, second]);
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
