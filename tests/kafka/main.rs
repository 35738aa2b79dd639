//! Ingestion from Apache Kafka by processes of the command, while brokers go and come back, leaders move, workers are
//! killed and partitions are added. In the end every record stands once in the log, for a plain reader of the directory
//! too, and log and online store are those of a run that nothing disturbed.
//!
//! The tests take brokers away, so they start a cluster of their own, of two nodes. It needs Java 17 and, the first time,
//! Maven.

#![allow(clippy::unwrap_used)] // A test, though the compiler does not take its helpers for one.

mod cluster;
mod faults;
mod restart;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use cluster::Cluster;
use libtest_mimic::{Arguments, Failed, Trial};

/// The tests, in turn: each takes the cluster for itself.
type Test = fn(&mut Cluster);
const TESTS: &[(&str, Test)] = &[
    ("a_broker_is_restarted", faults::a_broker_is_restarted),
    ("leaders_move", faults::leaders_move),
    ("members_are_added_and_killed", faults::members_are_added_and_killed),
    ("the_topic_grows", faults::the_topic_grows),
    ("a_killed_static_member_reads_on_within_2_s", restart::a_static_member),
    ("a_killed_member_reads_on_within_10_s", restart::a_member),
];

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let lacking = if arguments.list { None } else { xtask::services::Kafka::lacking() };
    let cluster = Arc::new(OnceLock::new());
    let trials = TESTS.iter().map(|&(name, test)| {
        let shared = Arc::clone(&cluster);
        let trial = Trial::test(name, move || {
            let cluster: &Result<Mutex<Cluster>, String> = shared.get_or_init(|| Cluster::start().map(Mutex::new));
            let cluster = cluster.as_ref().map_err(Failed::from)?;
            // A test that failed may have left a node down; the next brings it back.
            let mut cluster = cluster.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            cluster.restore();
            test(&mut cluster);
            Ok(())
        });
        match &lacking {
            Some(lacking) => trial.with_kind(format!("needs {lacking}")).with_ignored_flag(true),
            None => trial,
        }
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(cluster);
    conclusion.exit_code()
}
