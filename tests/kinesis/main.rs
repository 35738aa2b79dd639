//! Ingestion from Kinesis by processes of the command, while shards split and merge, calls fail at random and workers are
//! killed. In the end every record stands once in the log, for a plain reader of the directory too, log and online store
//! are those of a run that nothing disturbed, and windows count each record once. And ingestion in the name of a role,
//! whose credentials expire, and of aggregated records.
//!
//! Kinesis is an emulator in this process. `HEADWATER_SEED` brings a run's faults back as far as the machine allows.

#![allow(clippy::unwrap_used)] // A test, though the compiler does not take its helpers for one.

mod aggregates;
mod faults;
mod role;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use headwater_tests::worker::{Observer, Project};
use headwater_tests::{drivers, wait_for};
use libtest_mimic::{Arguments, Trial};

use server::{Sender, Server};

/// How long anything may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(120);
const RATE: usize = 500;
/// As many records pass between two events of a test.
const PASS: u64 = 1_000;
/// How records are fetched.
const CONSUMERS: [&str; 2] = ["polling", "fan_out"];
const ENVIRONMENT: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trials = CONSUMERS.map(|consumer| {
        Trial::test(format!("shards_split_and_merge_amid_faults_and_kills_{consumer}"), move || {
            splits_and_merges(consumer);
            Ok(())
        })
    });
    let role = Trial::test("a_role_is_assumed_and_its_credentials_are_renewed", || {
        role::assumed();
        Ok(())
    });
    let aggregates = Trial::test("aggregates_come_to_the_same_as_records_sent_one_by_one", || {
        aggregates::come_to_the_same();
        Ok(())
    });
    libtest_mimic::run(&arguments, trials.into_iter().chain([role, aggregates]).collect()).exit_code()
}

/// The block of a source that reads a stream.
fn source(stream: &str, endpoint: &str, consumer: &str) -> String {
    format!("type: kinesis\nstream_name: {stream}\nregion: eu-west-1\nendpoint_url: {endpoint}\nconsumer: {consumer}")
}

fn definitions(project: &str, stream: &str, endpoint: &str, consumer: &str) -> String {
    drivers::windowed(project, &source(stream, endpoint, consumer))
}

/// Two shards become four, one of them while no worker runs, and the four become three.
fn splits_and_merges(consumer: &str) {
    let server = Server::start();
    let stream = format!("events-{consumer}");
    server.create(&stream, 2);
    let program = env!("CARGO_BIN_EXE_command");
    let disturbed = definitions("disturbed", &stream, server.faulty(), consumer);
    let project = Project::new(program, &disturbed, ENVIRONMENT);
    let observer = Observer::new(&project);
    let sender = Sender::start(&server, &stream, RATE, drivers::event);
    let pass = || {
        let before = observer.rows();
        wait_for("records to be read", PATIENCE, || observer.rows() >= before + PASS);
    };

    let worker = project.start("first");
    pass();
    server.split(&stream, 0);
    pass();
    worker.kill();
    // The second shard, behind the two children of the first.
    server.split(&stream, 2);
    let worker = project.start("second");
    pass();
    assert_eq!(server.open_shards(&stream).len(), 4);
    worker.kill();
    let worker = project.start("third");
    pass();
    server.merge(&stream, 1);
    pass();
    assert_eq!(server.open_shards(&stream).len(), 3);
    worker.kill();
    let worker = project.start("fourth");
    pass();
    let fetches = if consumer == "fan_out" { "SubscribeToShard" } else { "GetRecords" };
    wait_for("every fault", PATIENCE, || server.all_faults_met(fetches));
    pass();
    let sent = sender.finish();
    worker.stop();
    project.ok(&["ingest", "--until-caught-up"]);
    println!("{consumer}: {}", server.injected());

    let calm = Project::new(program, &definitions("calm", &stream, server.plain(), consumer), ENVIRONMENT);
    calm.ok(&["ingest", "--until-caught-up"]);
    drivers::each_once(&project, sent);
    drivers::same(&project, &calm);
    drivers::windows_are_exact(&project, sent);
}
