//! Runs steps, counts tests and sums up.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Something that is run and can fail.
pub(crate) struct Step {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) about: &'static str,
    /// Runs it.
    pub(crate) run: fn(&Context) -> Outcome,
}

/// How a step ended.
pub(crate) enum Outcome {
    /// It succeeded, with the tests that ran in it: none where it is one check.
    Passed(Tests),
    /// It failed, and why.
    Failed(String, Tests),
    /// This machine cannot run it, and why.
    NotRun(String),
}

/// Counts of tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    /// Those that passed.
    pub(crate) passed: usize,
    /// Those that failed.
    pub(crate) failed: usize,
    /// Those that do not apply to what was tested.
    pub(crate) ignored: usize,
    /// Those that lack something on this machine.
    pub(crate) not_run: Vec<String>,
}

impl AddAssign for Tests {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.not_run.extend(other.not_run);
    }
}

impl Tests {
    /// Reads the line with which libtest and libtest-mimic end a binary's run.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?;
        let count = |word: &str| {
            let before = counts.split(&format!(" {word}")).next()?;
            before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (passed, failed, ignored) = (count("passed")?, count("failed")?, count("ignored")?);
        Some(Self { passed, failed, ignored, not_run: Vec::new() })
    }

    /// Reads the line of a test that names what it needs as its kind and was ignored for want of it:
    /// `test [needs python3] name ... ignored`.
    fn parse_lacking(line: &str) -> Option<String> {
        let (needs, rest) = line.strip_prefix("test [needs ")?.split_once(']')?;
        let (name, result) = rest.split_once(" ... ")?;
        result.starts_with("ignored").then(|| format!("{} needs {needs}", name.trim()))
    }
}

/// Whether cargo sets a variable to tell a program of its own package.
fn is_of_the_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
}

/// A step that has been run.
pub(crate) struct Ran {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Where and how steps run.
pub(crate) struct Context {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Whether everything has to run.
    pub(crate) strict: bool,
}

impl Context {
    /// # Errors
    /// A message where a folder cannot be made.
    pub(crate) fn new(root: PathBuf, strict: bool) -> Result<Self, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let target = if target.is_absolute() { target } else { root.join(target) };
        std::fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
        println!("{} ({})", root.display(), if strict { "everything has to run" } else { "what can run here" });
        Ok(Self { root, target, strict })
    }

    /// Runs a step.
    pub(crate) fn step(&self, step: &Step) -> Ran {
        println!("\n==> {}: {}", step.name, step.about);
        let start = Instant::now();
        let outcome = (step.run)(self);
        let took = start.elapsed();
        if let Outcome::Failed(why, _) | Outcome::NotRun(why) = &outcome {
            println!("{}: {why}", step.name);
        }
        Ran { name: step.name, outcome, took }
    }

    /// Runs cargo and counts the tests that it reports.
    pub(crate) fn cargo<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        let mut command = self.command("cargo");
        command.args(arguments);
        self.run(command)
    }

    /// A command in the workspace's folder.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // Set by the cargo that runs this program, for it alone. Build scripts look at some of them: a cargo that is called
        // from here would build anew what one that is called by hand has built.
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_str().is_some_and(is_of_the_package)) {
            command.env_remove(name);
        }
        command.env_remove("RUST_RECURSION_COUNT");
        if self.strict {
            // A test that needs more than Rust fails where it would else be ignored.
            command.env("HEADWATER_REQUIRE_DUCKDB", "1");
            // A checkout that is built once and debugged by nobody takes half the disk without these.
            command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "none");
        }
        command.current_dir(&self.root);
        command
    }

    /// Runs a command, passes its output on and counts the tests that it reports.
    pub(crate) fn run(&self, mut command: Command) -> Outcome {
        let shown = show(&command);
        println!("$ {shown}");
        let mut tests = Tests::default();
        let mut child = match command.stdout(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return Outcome::Failed(format!("`{shown}` did not start: {error}"), tests),
        };
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                if let Some(counts) = Tests::parse(line.trim()) {
                    tests += counts;
                }
                tests.not_run.extend(Tests::parse_lacking(line.trim()));
            }
        }
        match child.wait() {
            Ok(status) if status.success() && tests.failed == 0 => Outcome::Passed(tests),
            Ok(status) => Outcome::Failed(format!("`{shown}` ended with {status}"), tests),
            Err(error) => Outcome::Failed(format!("`{shown}`: {error}"), tests),
        }
    }

    /// What a command prints.
    ///
    /// # Errors
    /// A message with what it printed on stderr.
    pub(crate) fn output(&self, mut command: Command) -> Result<String, String> {
        let shown = show(&command);
        let output = command.output().map_err(|error| format!("`{shown}` did not start: {error}"))?;
        if !output.status.success() {
            return Err(format!("`{shown}`: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A folder for a step's own files.
    ///
    /// # Errors
    /// A message where it cannot be made.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.target.join("xtask").join(name);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }

    /// Where cargo puts what a package builds without a profile's name.
    pub(crate) fn debug(&self, file: &str) -> PathBuf {
        self.target.join("debug").join(file)
    }
}

fn show(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs one after another until one does not pass, and adds up the tests.
pub(crate) fn all(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let mut sum = Tests::default();
    for outcome in outcomes {
        match outcome {
            Outcome::Passed(tests) => sum += tests,
            Outcome::Failed(why, tests) => {
                sum += tests;
                return Outcome::Failed(why, sum);
            }
            not_run => return not_run,
        }
    }
    Outcome::Passed(sum)
}

/// Fails where no test ran though some were asked for by name: they are called otherwise by now.
pub(crate) fn some_ran(outcome: Outcome, name: &str) -> Outcome {
    match outcome {
        Outcome::Passed(tests) if tests.passed == 0 => {
            Outcome::Failed(format!("no test has `{name}` in its name"), tests)
        }
        outcome => outcome,
    }
}

/// Prints what ran, with durations and counts, then what did not, then the sum as `N passed, N failed`. A step that is
/// no run of tests counts as one. Says whether all is well: nothing failed and, if `strict`, nothing was left out.
pub(crate) fn report(ran: &[Ran], left_out: &[&str], strict: bool) -> bool {
    println!("\n==> summary");
    let mut sum = Tests::default();
    let mut not_run = left_out.iter().map(|name| format!("{name}: not asked for")).collect::<Vec<_>>();
    for Ran { name, outcome, took } in ran {
        let (word, mut tests) = match outcome {
            Outcome::Passed(tests) => ("passed", tests.clone()),
            Outcome::Failed(_, tests) => ("FAILED", tests.clone()),
            Outcome::NotRun(why) => {
                not_run.push(format!("{name}: {why}"));
                continue;
            }
        };
        match outcome {
            Outcome::Failed(..) => tests.failed = tests.failed.max(1),
            _ if tests == Tests::default() => tests.passed = 1,
            _ => {}
        }
        not_run.extend(tests.not_run.iter().map(|test| format!("{name}: {test}")));
        let Tests { passed, failed, .. } = tests;
        let ignored = tests.ignored - tests.not_run.len().min(tests.ignored);
        let seconds = took.as_secs_f64();
        println!("{name:<18} {word:<7} {seconds:>7.1} s  {passed} passed, {failed} failed, {ignored} not applicable");
        sum += tests;
    }
    for Ran { name, outcome, .. } in ran {
        if let Outcome::Failed(why, _) = outcome {
            println!("{name}: {why}");
        }
    }
    let total = ran.iter().map(|ran| ran.took.as_secs_f64()).sum::<f64>();
    println!("{:<18} {:<7} {total:>7.1} s", "all", "");
    if not_run.is_empty() {
        println!("not run: none");
    } else {
        println!("not run:");
        for line in &not_run {
            println!("  {line}");
        }
        if strict {
            sum.failed += not_run.len();
        }
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    sum.failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_last_line_of_a_test_binary() {
        let line = "test result: ok. 17 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.13s";
        assert_eq!(Tests::parse(line), Some(Tests { passed: 17, failed: 0, ignored: 2, ..Tests::default() }));
        let line = "test result: FAILED. 3 passed; 12 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1s";
        assert_eq!(Tests::parse(line), Some(Tests { passed: 3, failed: 12, ..Tests::default() }));
        assert_eq!(Tests::parse("test a ... ok"), None);
        assert_eq!(Tests::parse("test result: what"), None);
    }

    #[test]
    fn a_test_that_lacks_something_is_not_run() {
        let line = "test [needs python3 and duckdb] flights ... ignored";
        assert_eq!(Tests::parse_lacking(line).as_deref(), Some("flights needs python3 and duckdb"));
        assert_eq!(Tests::parse_lacking("test flights ... ignored"), None);
        assert_eq!(Tests::parse_lacking("test [needs python3] flights ... ok"), None);
        let tests = Tests { passed: 1, ignored: 1, not_run: vec!["flights".into()], ..Tests::default() };
        assert!(report(&[ran(Outcome::Passed(tests.clone()))], &[], false));
        assert!(!report(&[ran(Outcome::Passed(tests))], &[], true));
    }

    fn ran(outcome: Outcome) -> Ran {
        Ran { name: "step", outcome, took: Duration::ZERO }
    }

    #[test]
    fn what_was_not_run_is_well_unless_everything_has_to_run() {
        let steps = [ran(Outcome::NotRun("no python".into())), ran(Outcome::Passed(Tests::default()))];
        assert!(report(&steps, &[], false));
        assert!(!report(&steps, &[], true));
        assert!(!report(&[], &["fmt"], true));
    }

    #[test]
    fn one_failure_fails_all() {
        let failed = Tests { passed: 4, failed: 1, ..Tests::default() };
        assert!(!report(&[ran(Outcome::Failed("why".into(), failed))], &[], false));
        assert!(!report(&[ran(Outcome::Failed("why".into(), Tests::default()))], &[], false));
    }

    #[test]
    fn tests_that_are_asked_for_by_name_have_to_be_there() {
        let passed = |passed| Outcome::Passed(Tests { passed, ignored: 1, ..Tests::default() });
        assert!(matches!(some_ran(passed(1), "windows"), Outcome::Passed(_)));
        let Outcome::Failed(why, _) = some_ran(passed(0), "windows") else { panic!("it passed") };
        assert_eq!(why, "no test has `windows` in its name");
    }

    #[test]
    fn a_sequence_stops_where_it_fails_and_keeps_its_counts() {
        let passed = |passed| Outcome::Passed(Tests { passed, ..Tests::default() });
        let sequence =
            [passed(2), Outcome::Failed("why".into(), Tests { passed: 1, failed: 1, ..Tests::default() }), passed(9)];
        let Outcome::Failed(why, tests) = all(sequence) else { panic!("it passed") };
        assert_eq!((why.as_str(), tests), ("why", Tests { passed: 3, failed: 1, ..Tests::default() }));
    }
}
