//! Runs `compare.py`: the point-in-time join against DuckDB, row for row.
//!
//! Needs a Python that can import `duckdb`. `HEADWATER_PYTHON` names one; otherwise a virtual environment is made beside
//! the build once. Where that cannot be done the comparison shows as ignored, with the reason; with
//! `HEADWATER_REQUIRE_DUCKDB=1` it fails instead. The flights are compared where npm vega-datasets' `flights-3m.parquet`
//! is in the data folder of `examples/flights`, or where `HEADWATER_FLIGHTS` says.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing the tests must not install anything.
    let python = if arguments.list { Err(String::new()) } else { python() };
    let trials = vec![
        trial("the_join_equals_duckdb", python.clone(), |python| compare(python, None)),
        match flights() {
            Some(path) => trial("flights_equal_duckdb", python.clone(), move |python| compare(python, Some(&path))),
            None => lacking("flights_equal_duckdb", "flights-3m.parquet"),
        },
        match example() {
            Some(folder) => {
                trial("the_flights_example_equals_duckdb", python.clone(), move |python| written(python, &folder))
            }
            None => lacking("the_flights_example_equals_duckdb", "a run of examples/flights"),
        },
        match example().filter(|folder| folder.join("traffic_set.parquet").exists()) {
            Some(folder) => trial("windows_of_the_flights_example_equal_duckdb", python, move |python| {
                script(python, &[OsStr::new("--traffic"), folder.as_os_str()])
            }),
            None => lacking("windows_of_the_flights_example_equal_duckdb", "a run of examples/flights"),
        },
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(
    name: &'static str,
    python: Result<PathBuf, String>,
    run: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match python {
        Ok(python) => Trial::test(name, move || run(&python)),
        Err(reason) if std::env::var_os("HEADWATER_REQUIRE_DUCKDB").is_some() => {
            Trial::test(name, move || Err(Failed::from(reason)))
        }
        Err(reason) => {
            eprintln!("{name} cannot run here: {reason}");
            lacking(name, "python3 and duckdb")
        }
    }
}

/// A test that shows as ignored, with what it needs.
fn lacking(name: &str, what: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(format!("needs {what}")).with_ignored_flag(true)
}

/// Runs `compare.py`.
fn script(python: &Path, arguments: &[&OsStr]) -> Result<(), Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("duckdb_compare/compare.py");
    let status = Command::new(python).arg(script).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(Failed::from(format!("compare.py: {status}"))) }
}

fn compare(python: &Path, flights: Option<&Path>) -> Result<(), Failed> {
    let mut arguments = vec![OsStr::new("--join"), OsStr::new(env!("CARGO_BIN_EXE_join-files"))];
    if let Some(flights) = flights {
        arguments.extend([OsStr::new("--flights"), flights.as_os_str()]);
    }
    script(python, &arguments)
}

/// Compares the training set that `examples/flights` wrote.
fn written(python: &Path, data: &Path) -> Result<(), Failed> {
    let request = json!({
        "entities": data.join("entity_rows.parquet"),
        "out": data.join("training_set.parquet"),
        "short_names": true,
        "views": [{
            "name": "last_departure",
            "sources": [data.join(FLIGHTS)],
            "keys": { "origin": "string" },
            "event_time": "date",
            "features": { "delay": "int64", "distance": "int64", "destination": "string" },
        }],
    });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("examples_flights.json");
    std::fs::write(&file, request.to_string())?;
    script(python, &[OsStr::new("--request"), file.as_os_str()])
}

/// Where `examples/flights` writes.
const DATA: &str = "../examples/flights/data";
/// Where in it the package client puts the flights.
const FLIGHTS: &str = "node_modules/vega-datasets/data/flights-3m.parquet";

fn example() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join(DATA);
    data.join("training_set.parquet").exists().then_some(data)
}

fn flights() -> Option<PathBuf> {
    let named = std::env::var_os("HEADWATER_FLIGHTS").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(DATA).join(FLIGHTS);
    named.or_else(|| fetched.exists().then_some(fetched))
}

/// A Python that can import `duckdb`.
fn python() -> Result<PathBuf, String> {
    if let Some(python) = std::env::var_os("HEADWATER_PYTHON") {
        let python = PathBuf::from(python);
        return if has_duckdb(&python) { Ok(python) } else { Err(format!("`{}` has no duckdb", python.display())) };
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("duckdb-venv");
    let python = folder.join("bin/python");
    if has_duckdb(&python) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "duckdb"]))?;
    Ok(python)
}

fn has_duckdb(python: &Path) -> bool {
    Command::new(python).args(["-c", "import duckdb"]).output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
