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

/// How many lines of what a failed test said are said again at the end.
const MAX_LINES_OF_TEST: usize = 20;

/// How many lines all of that may take: a log that is cut to its last two hundred still has to hold the summary.
const MAX_LINES_OF_ALL: usize = 100;

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
    /// What those that failed said.
    pub(crate) said: Vec<Said>,
}

/// What a failed test said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    test: String,
    /// Without those that are empty, for which there is no room.
    lines: Vec<String>,
}

impl AddAssign for Tests {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.not_run.extend(other.not_run);
        self.said.extend(other.said);
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
        Some(Self { passed, failed, ignored, ..Self::default() })
    }

    /// Reads the line of a test that names what it needs as its kind and was ignored for want of it:
    /// `test [needs python3] name ... ignored`.
    fn parse_lacking(line: &str) -> Option<String> {
        let (needs, rest) = line.strip_prefix("test [needs ")?.split_once(']')?;
        let (name, result) = rest.split_once(" ... ")?;
        result.starts_with("ignored").then(|| format!("{} needs {needs}", name.trim()))
    }
}

/// What failed tests said, read line by line: libtest and libtest-mimic print it when all tests of a binary have run.
#[derive(Default)]
struct Failures {
    said: Vec<Said>,
    /// Whether what is read now was said by failed tests.
    open: bool,
}

impl Failures {
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            // Printed above what they said, and again above the list of their names, which says nothing new.
            self.open = !self.open;
        } else if line.starts_with("test result: ") {
            // Whatever a test printed, the next binary starts anew.
            self.open = false;
        } else if self.open && !line.is_empty() {
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
                // libtest names the stream too.
                let test = name.strip_suffix(" stdout").unwrap_or(name).to_owned();
                self.said.push(Said { test, lines: Vec::new() });
            } else if let Some(said) = self.said.last_mut() {
                said.lines.push(line.to_owned());
            }
        }
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
            let mut failures = Failures::default();
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                if let Some(counts) = Tests::parse(line.trim()) {
                    tests += counts;
                }
                tests.not_run.extend(Tests::parse_lacking(line.trim()));
                failures.read(line.trim_end());
            }
            tests.said = failures.said;
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

/// What failed tests said, in short: they said it where they ran, and of a long log the end may be all that is kept.
fn said_again(ran: &[Ran]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left_out = 0;
    for Ran { name, outcome, .. } in ran {
        let Outcome::Failed(_, tests) = outcome else { continue };
        for said in &tests.said {
            let mut block = vec![format!("{name}: {} said", said.test)];
            block.extend(said.lines.iter().take(MAX_LINES_OF_TEST).map(|line| format!("  {line}")));
            if said.lines.len() > MAX_LINES_OF_TEST {
                block.push(format!("  lines left out: {}", said.lines.len() - MAX_LINES_OF_TEST));
            }
            // Fewer, as one line more may have to say what is left out.
            if lines.len() + block.len() < MAX_LINES_OF_ALL {
                lines.extend(block);
            } else {
                left_out += 1;
            }
        }
    }
    if left_out > 0 {
        lines.push(format!("failed tests left out: {left_out}"));
    }
    lines
}

/// Prints what ran, with durations and counts, then what failed tests said and why steps failed, then what did not run,
/// then the sum as `N passed, N failed`. A step that is no run of tests counts as one. Says whether all is well: nothing
/// failed and, if `strict`, nothing was left out.
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
    for line in said_again(ran) {
        println!("{line}");
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

    fn said(test: &str, lines: &[&str]) -> Said {
        Said { test: test.into(), lines: lines.iter().map(|line| (*line).to_owned()).collect() }
    }

    fn read(output: &[&str]) -> Vec<Said> {
        let mut failures = Failures::default();
        output.iter().for_each(|line| failures.read(line));
        failures.said
    }

    #[test]
    fn what_failed_tests_said_is_read_from_libtest() {
        let output = [
            "running 3 tests",
            "test tests::good ... ok",
            "test tests::unequal ... FAILED",
            "test tests::error ... FAILED",
            "",
            "failures:",
            "",
            "---- tests::unequal stdout ----",
            "",
            "thread 'tests::unequal' (7) panicked at src/lib.rs:7:9:",
            "assertion `left == right` failed",
            "  left: 1",
            " right: 2",
            "",
            "---- tests::error stdout ----",
            "Error: \"why\"",
            "",
            "",
            "failures:",
            "    tests::error",
            "    tests::unequal",
            "",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "",
            "running 1 test",
            "test tests::next ... ok",
        ];
        let unequal = [
            "thread 'tests::unequal' (7) panicked at src/lib.rs:7:9:",
            "assertion `left == right` failed",
            "  left: 1",
            " right: 2",
        ];
        assert_eq!(read(&output), [said("tests::unequal", &unequal), said("tests::error", &["Error: \"why\""])]);
    }

    #[test]
    fn what_failed_tests_said_is_read_from_libtest_mimic() {
        let output = [
            "running 2 tests",
            "test [needs python3] flights ... FAILED",
            "test                 silent  ... FAILED",
            "",
            "failures:",
            "",
            "---- flights ----",
            "2 rows differ",
            "",
            "  the first: 1",
            "",
            "---- silent ----",
            "",
            "",
            "failures:",
            "    flights",
            "    silent",
            "",
            "test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "",
        ];
        assert_eq!(read(&output), [said("flights", &["2 rows differ", "  the first: 1"]), said("silent", &[])]);
    }

    #[test]
    fn what_is_said_again_is_bounded_and_tells_what_it_leaves_out() {
        let failed = |said| ran(Outcome::Failed("why".into(), Tests { failed: 1, said, ..Tests::default() }));
        let again = said_again(&[failed(vec![said("full", &["word"; 20]), said("long", &["word"; 23])])]);
        let mut expected = vec!["step: full said"];
        expected.extend(["  word"; 20]);
        expected.push("step: long said");
        expected.extend(["  word"; 20]);
        expected.push("  lines left out: 3");
        assert_eq!(again, expected);

        // Four of the long ones fit, and a short one of a later step.
        let again = said_again(&[failed(vec![said("long", &["word"; 23]); 9]), failed(vec![said("short", &["word"])])]);
        assert_eq!(again.len(), 4 * 22 + 2 + 1);
        assert_eq!(again.last().map(String::as_str), Some("failed tests left out: 5"));
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
