//! Ingestion from Apache Kafka by processes of the command, while brokers go and come back, leaders move, workers are
//! killed and partitions are added. In the end every record stands once in the log, for a plain reader of the directory
//! too, log and online store are those of a run that nothing disturbed, and windows count each record once.
//!
//! The tests take brokers away, so they start a cluster of their own, of two nodes, and another broker that clients have to
//! prove themselves to. That needs Java 17 and, the first time, Maven.

#![allow(clippy::unwrap_used)] // A test, though the compiler does not take its helpers for one.

mod cluster;
mod faults;
mod records;
mod restart;
mod schemas;
mod secured;
mod shop;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use cluster::Cluster;
use libtest_mimic::{Arguments, Failed, Trial};
use secured::Secured;

/// The tests, in turn: each takes the cluster for itself.
type Test = fn(&mut Cluster);
const TESTS: &[(&str, Test)] = &[
    ("metadata_becomes_features_and_tombstones_delete", records::metadata_becomes_features_and_tombstones_delete),
    ("what_holds_nothing_is_caught_up_with", records::what_holds_nothing_is_caught_up_with),
    ("an_open_transaction_is_no_part_of_what_is_caught_up_with", records::an_open_transaction_is_no_part_of_it),
    ("a_topic_made_anew_is_read_again_after_a_reset", records::a_topic_made_anew_is_read_again_after_a_reset),
    ("what_compaction_has_left_is_caught_up_with", records::what_compaction_has_left_is_caught_up_with),
    ("what_was_not_kept_is_caught_up_with_and_told", records::what_was_not_kept_is_caught_up_with_and_told),
    ("writers_change_the_schemas_of_a_registry_in_mid_stream", schemas::writers_change_them_in_mid_stream),
    ("json_and_protobuf_are_framed_too", schemas::json_and_protobuf_are_framed_too),
    (
        "purchases_come_to_the_same_from_a_file_and_from_kafka",
        shop::purchases_come_to_the_same_from_a_file_and_from_kafka,
    ),
    ("brokers_that_are_away_at_the_start_are_waited_for", faults::brokers_are_away_at_the_start),
    ("a_broker_is_restarted", faults::a_broker_is_restarted),
    ("leaders_move", faults::leaders_move),
    ("members_are_added_and_killed", faults::members_are_added_and_killed),
    ("a_stuck_store_holds_up_no_member_and_loses_nothing", faults::a_store_is_stuck_while_a_member_joins),
    ("the_topic_grows", faults::the_topic_grows),
    ("a_killed_static_member_reads_on_within_2_s", restart::a_static_member),
    ("a_killed_member_reads_on_within_10_s", restart::a_member),
];

/// Those that share the secured broker.
type SecuredTest = fn(&Secured);
const SECURED: &[(&str, SecuredTest)] = &[
    ("whoever_proves_itself_reads", secured::whoever_proves_itself_reads),
    ("whoever_does_not_is_told_so_at_once", secured::whoever_does_not_is_told_so_at_once),
    ("a_client_that_proves_nothing_says_what_it_may_lack", secured::a_client_that_proves_nothing_says_what_it_may_lack),
];

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let lacking = if arguments.list { None } else { xtask::services::Kafka::lacking() };
    // Both end with what is dropped below.
    let (cluster, secured) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let of_secured = SECURED.iter().map(|&(name, test)| {
        let shared = Arc::clone(&secured);
        Trial::test(name, move || {
            let secured: &Result<Secured, String> = shared.get_or_init(Secured::start);
            test(secured.as_ref().map_err(Failed::from)?);
            Ok(())
        })
    });
    let of_cluster = TESTS.iter().map(|&(name, test)| {
        let shared = Arc::clone(&cluster);
        Trial::test(name, move || {
            let cluster: &Result<Mutex<Cluster>, String> = shared.get_or_init(|| Cluster::start().map(Mutex::new));
            let cluster = cluster.as_ref().map_err(Failed::from)?;
            // A test that failed may have left a node down; the next brings it back.
            let mut cluster = cluster.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            cluster.restore();
            test(&mut cluster);
            Ok(())
        })
    });
    let trials = of_cluster.chain(of_secured).map(|trial| match &lacking {
        Some(lacking) => trial.with_kind(format!("needs {lacking}")).with_ignored_flag(true),
        None => trial,
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop((cluster, secured));
    conclusion.exit_code()
}
