//! The suites are tested: the in-memory references pass every clause that applies to them, and implementations with one
//! fault each fail just the clauses that they break.

#![allow(clippy::unwrap_used)] // A panic fails the trial.

mod broken;
mod fixtures;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use headwater_core::transform::Identity;
use headwater_core::{Error, Result, Transform, memory};
use headwater_testkit::transform::{Case, TransformFixture};
use headwater_testkit::{Clause, Installed, Outcome, batch, named, offline, online, plugin, stream, transform};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use fixtures::{Batch, Offline, Online, Stream};

const LIMIT: Duration = Duration::from_secs(60);

fn reference(clause: Clause) -> Trial {
    Trial::ignorable_test(clause.name().to_owned(), move || match clause.check(LIMIT) {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Ignored(reason) => Ok(Completion::ignored_with(reason)),
        Outcome::Failed(reason) => Err(Failed::from(reason)),
    })
}

/// The documentation that the clauses quote.
const CONTRACTS: &str = concat!(
    include_str!("../../../headwater-core/src/batch.rs"),
    include_str!("../../../headwater-core/src/offline.rs"),
    include_str!("../../../headwater-core/src/online.rs"),
    include_str!("../../../headwater-core/src/options.rs"),
    include_str!("../../../headwater-core/src/plugin.rs"),
    include_str!("../../../headwater-core/src/secret.rs"),
    include_str!("../../../headwater-core/src/stream.rs"),
    include_str!("../../../headwater-core/src/transform.rs"),
);

/// Every clause quotes the contract as it stands there, so that neither changes without the other.
fn quotes(clauses: &[Clause]) -> Result<(), Failed> {
    let lines = CONTRACTS.lines().map(|line| line.trim().trim_start_matches("///").trim_start_matches("//!").trim());
    let text = lines.collect::<Vec<_>>().join(" ");
    let stray = clauses.iter().filter(|clause| !text.contains(clause.quote()));
    let stray = stray.map(|clause| format!("{}: {}", clause.name(), clause.quote())).collect::<Vec<_>>();
    if stray.is_empty() { Ok(()) } else { Err(format!("not in the contracts:\n{}", stray.join("\n")).into()) }
}

/// Core has no transform but the identity; the suite for transforms runs where there are some.
struct Identities;

impl TransformFixture for Identities {
    fn transform(&self, case: Case) -> Result<Arc<dyn Transform>> {
        match case {
            Case::Everything => Ok(Arc::new(Identity)),
            _ => Err(Error::unsupported("core has no such transform")),
        }
    }
}

fn main() -> ExitCode {
    let references = [
        plugin::suite(Installed::new(&memory::PLUGIN, |_| serde_json::json!({}))),
        online::suite(Online),
        offline::suite(Offline),
        batch::suite(Batch),
        named("encoded", stream::suite(Stream::default())),
        named("rows", stream::suite(Stream { rows: true, ..Stream::default() })),
        named("bounded", stream::suite(Stream { bounded: true, ..Stream::default() })),
        named("shuffled", stream::suite(Stream { shuffled: true, ..Stream::default() })),
    ];
    let clauses = references.into_iter().flatten().collect::<Vec<_>>();
    let transforms = transform::suite(Identities);
    let stray = quotes(&clauses).and_then(|()| quotes(&transforms));
    let broken = broken::all();
    let bare = broken::covers(&clauses, &broken);
    let clauses = clauses.into_iter().chain(transforms);
    let mut trials = vec![
        Trial::test("clauses-quote-the-contracts", || stray),
        Trial::test("every-clause-is-broken-by-somebody", || bare),
    ];
    trials.extend(clauses.into_iter().map(reference));
    trials.extend(broken.into_iter().map(|broken| broken.trial));
    // Most of them wait most of the time.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    libtest_mimic::run(&arguments, trials).exit_code()
}
