//! Implementations with one fault each. Each is an in-memory reference in a wrapper that does one thing wrong, and must
//! fail the clause that it breaks and no other.

mod batch;
mod offline;
mod online;
mod stream;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use headwater_testkit::{Clause, Outcome, outcomes};
use libtest_mimic::{Failed, Trial};

/// Clauses that compare random lives with the reference: they look at everything, so any fault may show there.
const ORACLES: [&str; 3] =
    ["online::agrees-with-the-reference", "offline::agrees-with-the-reference", "stream::random-lives"];

/// Clauses that no implementation here breaks alone, because whoever breaks them breaks others with them.
const NOT_ALONE: [&str; 1] = ["stream::start-earliest"];

const LIMIT: Duration = Duration::from_secs(60);

/// A broken implementation: its trial, and the clause that it breaks.
pub(crate) struct Broken {
    pub(crate) clause: &'static str,
    pub(crate) trial: Trial,
}

/// A broken implementation that must fail `clause` alone.
fn broken(fault: impl Debug, clause: &'static str, suite: impl FnOnce() -> Vec<Clause> + Send + 'static) -> Broken {
    let trial = Trial::test(format!("broken {clause} by {fault:?}"), move || {
        let failed = outcomes(suite(), LIMIT).into_iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(reason) if !ORACLES.contains(&name.as_str()) => Some((name, reason)),
            _ => None,
        });
        let failed = failed.collect::<Vec<_>>();
        if failed.iter().map(|(name, _)| name.as_str()).eq([clause]) {
            return Ok(());
        }
        Err(Failed::from(format!("expected `{clause}` alone to fail, but it is {failed:#?}")))
    });
    Broken { clause, trial }
}

pub(crate) fn all() -> Vec<Broken> {
    [online::all(), offline::all(), batch::all(), stream::all()].into_iter().flatten().collect()
}

/// Every clause of the traits' suites is broken by somebody.
pub(crate) fn covers(clauses: &[Clause], broken: &[Broken]) -> Result<(), Failed> {
    let covered = broken.iter().map(|broken| broken.clause).chain(ORACLES).chain(NOT_ALONE).collect::<BTreeSet<_>>();
    // Without the name of the fixture before it.
    let names = clauses.iter().filter_map(|clause| clause.name().split(' ').next_back());
    let bare = names.filter(|name| !name.starts_with("plugin::") && !covered.contains(name)).collect::<BTreeSet<_>>();
    if bare.is_empty() { Ok(()) } else { Err(format!("nobody breaks {bare:?}").into()) }
}
