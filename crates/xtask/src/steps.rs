//! What `cargo xtask test` runs, in this order.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::guide;
use crate::run::{Context, Outcome, Step, Tests, all, some_ran};
use crate::servers::Servers;
use crate::tidy;

/// The steps. Slow ones stand at the end; add yours there.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "formatting", run: |context| context.cargo(["fmt", "--all", "--check"]) },
    Step {
        name: "tidy",
        about: "layout, manifests and invariants",
        run: |context| checked(tidy::check(&context.root)),
    },
    Step {
        name: "dependencies",
        about: "what the crates must not pull in",
        run: |context| checked(dependencies(context)),
    },
    Step {
        name: "clippy",
        about: "lints",
        run: |context| {
            context.cargo(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])
        },
    },
    Step { name: "doc", about: "documentation and its links", run: doc },
    // Before the tests, which compare the data that it fetches.
    Step { name: "flights", about: "3,000,000 real flights through the whole path", run: flights },
    Step { name: "tests", about: "unit tests, conformance suites, tests across crates, doctests", run: tests },
    Step {
        name: "windows",
        about: "2,000 random streams for each window function, and as many lives of jobs with all of them and a training set",
        run: windows,
    },
    Step { name: "features", about: "each feature of the facade by itself", run: features },
    Step {
        name: "driver_stats",
        about: "README's first command",
        run: |context| context.cargo(["run", "-p", "driver_stats"]),
    },
    Step { name: "guide", about: "the guide to plugins, followed word by word", run: guide::follow },
    Step { name: "staticlib", about: "every plugin reaches a program that C links", run: staticlib },
    Step {
        name: "linkage-release",
        about: "every plugin is linked without LTO",
        run: |context| linkage(context, "without-lto"),
    },
    Step { name: "linkage-lto", about: "every plugin is linked with LTO", run: |context| linkage(context, "with-lto") },
];

fn checked(faults: Result<Vec<String>, String>) -> Outcome {
    match faults {
        Ok(faults) if faults.is_empty() => Outcome::Passed(Tests::default()),
        Ok(faults) => Outcome::Failed(faults.join("\n  "), Tests::default()),
        Err(why) => Outcome::Failed(why, Tests::default()),
    }
}

fn doc(context: &Context) -> Outcome {
    let mut command = context.command("cargo");
    // The features of the lints before, whose checked dependencies it shares.
    command.args(["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings");
    context.run(command)
}

/// The one build that all tests share, with the features of the lints: what C is compiled for them is compiled once.
const TESTS: [&str; 3] = ["test", "--workspace", "--all-features"];

fn tests(context: &Context) -> Outcome {
    // Servers do not stand by while everything compiles.
    let built = context.cargo(TESTS.iter().chain(&["--no-run"]));
    if !matches!(built, Outcome::Passed(_)) {
        return built;
    }
    let servers = Servers::start(context);
    let mut command = context.command("cargo");
    command.args(TESTS).arg("--no-fail-fast").envs(servers.environment.iter().map(|(name, value)| (name, value)));
    let flights = context.root.join(FLIGHTS);
    if flights.exists() {
        command.env("HEADWATER_FLIGHTS", flights);
    }
    // Tests for which there is no server say so themselves; why there is none is known here alone.
    let missing = Tests { ignored: servers.missing.len(), not_run: servers.missing.clone(), ..Tests::default() };
    match context.run(command) {
        Outcome::Passed(mut tests) => {
            tests += missing;
            Outcome::Passed(tests)
        }
        Outcome::Failed(why, mut tests) => {
            tests += missing;
            Outcome::Failed(why, tests)
        }
        not_run => not_run,
    }
}

/// How many random streams are tried for each function of windows; and of how many deliveries of streams with all functions,
/// by jobs that die, stop and are followed by others, training set and online reads are compared, which that test counts.
/// The tests before have tried a few.
const WINDOW_STREAMS: &str = "2000";

fn windows(context: &Context) -> Outcome {
    all(["windows::tests::properties", "ingest::tests::windows::any"].into_iter().map(|tests| {
        let mut command = context.command("cargo");
        command.args(TESTS).args(["--lib", "--", tests]).env("PROPTEST_CASES", WINDOW_STREAMS);
        some_ran(context.run(command), tests)
    }))
}

/// Checks the facade with no feature and with each alone: a workspace build has most of them and hides what is missing.
/// `full` is among them, and brings `s3`, which does nothing alone.
fn features(context: &Context) -> Outcome {
    let manifest = context.root.join("crates/headwater/Cargo.toml");
    let text = match std::fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(format!("{}: {error}", manifest.display()), Tests::default()),
    };
    let features =
        tidy::section(&text, "features").filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    let features = features.filter(|name| *name != "default").collect::<Vec<_>>();
    let check = ["check", "-p", "headwater", "--lib", "--no-default-features"];
    let none = std::iter::once(context.cargo(check));
    all(none.chain(features.iter().map(|name| context.cargo(check.iter().chain(&["--features", name])))))
}

/// What no build of a crate may contain.
const FORBIDDEN: [(&str, &[&str]); 2] = [
    (
        "headwater-core",
        &[
            "tokio",
            "reqwest",
            "hyper",
            "rustls",
            "native-tls",
            "openssl",
            "rusqlite",
            "rdkafka",
            "object_store",
            "parquet",
        ],
    ),
    (
        "headwater-engine",
        &["reqwest", "hyper", "rustls", "native-tls", "openssl", "rusqlite", "rdkafka", "datafusion-sql"],
    ),
];

fn dependencies(context: &Context) -> Result<Vec<String>, String> {
    let tree = |arguments: &[&str]| -> Result<BTreeSet<String>, String> {
        let mut command = context.command("cargo");
        command.args(["tree", "--prefix", "none", "--edges", "normal", "--format", "{p}"]).args(arguments);
        Ok(context.output(command)?.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
    };
    let mut faults = Vec::new();
    for (package, forbidden) in FORBIDDEN {
        for found in tree(&["-p", package])? {
            let name = found.split(' ').next().unwrap_or_default();
            if forbidden.contains(&name) || name.starts_with("aws-") {
                faults.push(format!("{package} depends on {name}"));
            }
        }
    }
    let everything = tree(&["--workspace"])?;
    for single in ["arrow", "parquet", "object_store"] {
        let versions = everything.iter().filter(|line| line.split(' ').next() == Some(single)).collect::<Vec<_>>();
        if versions.len() > 1 {
            faults.push(format!("there are several versions of {single}, and their types differ: {versions:?}"));
        }
    }
    Ok(faults)
}

fn linkage(context: &Context, profile: &str) -> Outcome {
    context.cargo(["test", "-p", "headwater", "--profile", profile, "--test", "linkage"])
}

fn staticlib(context: &Context) -> Outcome {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let folder: PathBuf = match context.folder("staticlib") {
        Ok(folder) => folder,
        Err(why) => return Outcome::Failed(why, Tests::default()),
    };
    let program = folder.join("linkage");
    let mut compile = context.command(compiler);
    compile.arg("-o").arg(&program).arg(context.root.join("tests/linkage/main.c"));
    compile.arg(context.debug("libheadwater_linkage.a"));
    compile.args(["-lpthread", "-ldl", "-lm"]);
    let mut build = context.command("cargo");
    build.args(["build", "-p", "headwater-linkage"]);
    all([build, compile, context.command(&program)].into_iter().map(|command| context.run(command)))
}

/// Where `examples/flights` leaves what it fetched.
const FLIGHTS: &str = "examples/flights/data/node_modules/vega-datasets/data/flights-3m.parquet";

/// The data comes from a package registry, through its own client.
fn flights(context: &Context) -> Outcome {
    let mut npm = context.command("npm");
    npm.arg("--version");
    if let Err(why) = context.output(npm) {
        return Outcome::NotRun(format!("the data comes with npm: {why}"));
    }
    // Optimised, and no more than it takes: the release profile is twice as long in the making.
    context.cargo(["run", "--profile", "without-lto", "-p", "flights"])
}
