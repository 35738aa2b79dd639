//! A clause of a contract as a named test.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_core::ErrorKind;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// How long a clause may take before it counts as failed.
const LIMIT: Duration = Duration::from_secs(120);

/// Why a clause did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The contract is broken, in words.
    Failed(String),
    /// It does not apply, and why.
    Skipped(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(format!("an operation failed that should not: {error}"))
    }
}

/// What a clause's body gives.
pub type Verdict<T = ()> = Result<T, Stop>;

/// How a clause ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The implementation keeps it.
    Passed,
    /// It does not apply, for this reason.
    Ignored(String),
    /// The implementation breaks it, in this way.
    Failed(String),
}

/// One clause of a trait's contract, ready to be checked against one implementation.
pub struct Clause {
    name: String,
    quote: &'static str,
    body: Box<dyn FnOnce() -> BoxFuture<'static, Verdict> + Send>,
}

impl Clause {
    /// A clause with the sentence that it checks.
    pub fn new(
        name: impl Into<String>,
        quote: &'static str,
        body: impl FnOnce() -> BoxFuture<'static, Verdict> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), quote, body: Box::new(body) }
    }

    /// Its name: `online::greater-version-stays`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The words of the trait's documentation that it checks.
    pub fn quote(&self) -> &'static str {
        self.quote
    }

    /// Checks it, on a runtime of its own. A panic, and taking longer than `limit`, count as failures.
    pub fn check(self, limit: Duration) -> Outcome {
        let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Outcome::Failed(format!("no runtime: {error}")),
        };
        // In a task of its own, so that a panic is caught and a blocked thread does not stop the time limit.
        let task = runtime.spawn(async move { (self.body)().await });
        let ended = runtime.block_on(async { tokio::time::timeout(limit, task).await });
        runtime.shutdown_background();
        match ended {
            Ok(Ok(Ok(()))) => Outcome::Passed,
            Ok(Ok(Err(Stop::Skipped(reason)))) => Outcome::Ignored(reason),
            Ok(Ok(Err(Stop::Failed(reason)))) => Outcome::Failed(format!("{reason}\n  the contract: {}", self.quote)),
            Ok(Err(panic)) => Outcome::Failed(format!("panicked: {}", panic_text(panic))),
            Err(_) => Outcome::Failed(format!("did not end within {limit:?}\n  the contract: {}", self.quote)),
        }
    }
}

impl fmt::Debug for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clause").field("name", &self.name).field("quote", &self.quote).finish_non_exhaustive()
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "without a message".into()),
        Err(error) => error.to_string(),
    }
}

/// Puts `label` before the clauses' names, where one binary runs a suite against several fixtures.
pub fn named(label: &str, clauses: Vec<Clause>) -> Vec<Clause> {
    clauses.into_iter().map(|clause| Clause { name: format!("{label} {}", clause.name), ..clause }).collect()
}

/// Has clauses fail that do not apply, unless their names end in one of `inapplicable`: for a binary that knows what
/// its implementation can do, so that nothing of it goes unchecked unnoticed.
pub fn applying(clauses: Vec<Clause>, inapplicable: &[&str]) -> Vec<Clause> {
    let must_apply = |Clause { name, quote, body }: Clause| {
        let body = move || {
            let checked = body();
            async move {
                checked.await.map_err(|stop| match stop {
                    Stop::Skipped(reason) => Stop::Failed(format!("it should apply, and does not: {reason}")),
                    failed => failed,
                })
            }
            .boxed()
        };
        Clause { name, quote, body: Box::new(body) }
    };
    let known = |clause: &Clause| inapplicable.iter().any(|name| clause.name.ends_with(name));
    clauses.into_iter().map(|clause| if known(&clause) { clause } else { must_apply(clause) }).collect()
}

/// Runs clauses as the tests of a binary, with the arguments of `cargo test`, and prints how many were ignored and why.
pub fn run(clauses: impl IntoIterator<Item = Clause>) -> ExitCode {
    let trials = clauses
        .into_iter()
        .map(|clause| {
            Trial::ignorable_test(clause.name.clone(), move || match clause.check(LIMIT) {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Ignored(reason) => Ok(Completion::ignored_with(reason)),
                Outcome::Failed(reason) => Err(Failed::from(reason)),
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Checks clauses one after another and gives the outcome of each: for tests of the suites themselves.
pub fn outcomes(clauses: impl IntoIterator<Item = Clause>, limit: Duration) -> BTreeMap<String, Outcome> {
    clauses.into_iter().map(|clause| (clause.name.clone(), clause.check(limit))).collect()
}

/// Takes what a fixture gave; where it says `Unsupported`, the clause does not apply.
pub(crate) fn applicable<T>(result: headwater_core::Result<T>) -> Verdict<T> {
    result.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => Stop::Skipped(error.to_string()),
        _ => error.into(),
    })
}

/// Fails the clause unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Stop::Failed(format!($($message)+)));
        }
    };
}

/// Fails the clause unless both sides are equal: `same!(what is there, what should be, "of what")`.
macro_rules! same {
    ($found:expr, $expected:expr, $($of:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) => {
                if found != expected {
                    let of = format!($($of)+);
                    return Err($crate::Stop::Failed(format!("{of}: expected {expected:?}, found {found:?}")));
                }
            }
        }
    };
}

/// Says that the clause does not apply.
macro_rules! skip {
    ($($reason:tt)+) => { return Err($crate::Stop::Skipped(format!($($reason)+))) };
}

/// Builds a suite: a name, the function that checks it, and the words of the contract.
macro_rules! suite {
    ($fixture:expr; $( $name:literal $check:path, $quote:literal; )*) => {{
        let fixture = ::std::sync::Arc::new($fixture);
        vec![$({
            let fixture = ::std::sync::Arc::clone(&fixture);
            $crate::Clause::new($name, $quote, move || ::futures::FutureExt::boxed($check(fixture)))
        }),*]
    }};
}

pub(crate) use {ensure, same, skip, suite};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_that_does_not_apply_fails_unless_that_is_known() {
        let clause = |name: &str| Clause::new(name, "", || async { Err(Stop::Skipped("not here".into())) }.boxed());
        let clauses = vec![clause("mock a::one"), clause("mock a::two")];
        let outcomes = outcomes(applying(clauses, &["a::two"]), LIMIT);
        let one = outcomes.get("mock a::one");
        assert!(matches!(one, Some(Outcome::Failed(reason)) if reason.contains("not here")), "{one:?}");
        assert_eq!(outcomes.get("mock a::two"), Some(&Outcome::Ignored("not here".into())));
    }
}
