//! What only real brokers do: transactions, compaction, retention, topics made anew, groups with members that are slow. And
//! faults that the conformance suite does not know.
//!
//! Runs on the brokers of `KAFKA_BOOTSTRAP_SERVERS`; without them every test but those of `mock` is listed as not run.

mod group;
mod mock;
mod positions;
mod raw;
mod records;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use world::{Broker, Outcome};

/// Makes the tests of functions: their names, and what runs them.
macro_rules! tests {
    ($broker:expr; $($path:path),* $(,)?) => {
        vec![$(trial(stringify!($path), $broker.clone(), |broker| Box::pin($path(broker)))),*]
    };
}

type Running = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn trial(name: &str, broker: Option<Arc<Broker>>, body: fn(Arc<Broker>) -> Running) -> Trial {
    let name = name.replace(' ', "");
    match broker {
        None => Trial::test(name, || Ok(())).with_kind("needs kafka").with_ignored_flag(true),
        Some(broker) => Trial::test(name, move || {
            let runtime = tokio::runtime::Runtime::new()?;
            let outcome = runtime.block_on(body(broker));
            runtime.shutdown_background();
            outcome.map_err(|error| Failed::from(error.to_string()))
        }),
    }
}

/// A test that brings its own broker.
fn mocked(name: &str, body: fn() -> Mocked) -> Trial {
    Trial::test(name.replace(' ', ""), move || {
        let runtime = tokio::runtime::Runtime::new()?;
        let outcome = runtime.block_on(body());
        runtime.shutdown_background();
        outcome.map_err(|error| Failed::from(error.to_string()))
    })
}

type Mocked = std::pin::Pin<Box<dyn Future<Output = Outcome>>>;

macro_rules! mocked {
    ($($path:path),* $(,)?) => {
        vec![$(mocked(stringify!($path), || Box::pin($path()))),*]
    };
}

fn main() -> ExitCode {
    let broker = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().map(|servers| Arc::new(Broker::new(servers)));
    let mut tests = mocked![
        mock::whoever_finds_no_broker_says_why,
        mock::a_broker_that_goes_away_is_named_and_read_on,
        mock::a_reader_that_is_not_asked_holds_no_more_than_its_buffer,
        mock::records_of_any_client_come_through,
    ];
    tests.extend(tests![broker;
        records::aborted_transactions_at_the_end_are_stepped_over_while_others_flow,
        records::a_compacted_topic_is_read_over_its_gaps,
        records::headers_keys_and_every_codec_come_through,
        records::records_of_any_client_come_through,
        records::a_record_larger_than_the_buffer_comes_through,
        positions::latest_is_resolved_once_for_all_partitions,
        positions::what_retention_has_removed_stops_the_job_or_is_skipped,
        positions::retention_that_overtakes_a_reader_is_survived,
        positions::a_topic_made_anew_is_noticed_by_its_last_committed_record,
        positions::a_topic_made_anew_under_a_reader_is_noticed,
        positions::a_topic_that_is_deleted_under_a_reader_ends_it,
        group::membership_outlives_a_reader_that_is_not_asked,
        group::a_revocation_that_is_not_acknowledged_counts_as_lost,
        group::checkpoints_that_cannot_be_read_hold_up_nobody_else,
        group::the_newer_group_protocol_shares_partitions,
        group::the_eager_protocol_shares_partitions,
        group::a_static_member_gets_its_partitions_back,
        group::two_members_of_one_name_are_told_so,
    ]);
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}
