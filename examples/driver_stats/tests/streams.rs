//! The program prints the same features and the same training set, whichever stream it reads.
//!
//! Streams are those that this build can read. Their servers are those that the environment names; without one its test
//! shows as ignored, with what it needs. `cargo xtask test` starts them.

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// Definition file, whether this build can read its stream, the variable that names the server, what it is called.
const STREAMS: [(&str, bool, &str, &str); 2] = [
    ("kafka.yaml", cfg!(feature = "kafka"), "KAFKA_BOOTSTRAP_SERVERS", "Apache Kafka"),
    ("kinesis.yaml", cfg!(feature = "kinesis"), "AWS_ENDPOINT_URL_KINESIS", "kinesis-local"),
];

fn main() -> ExitCode {
    let built = STREAMS.into_iter().filter(|(_, built, _, _)| *built);
    let trials = built.map(|(file, _, variable, server)| {
        let lacking = std::env::var_os(variable).is_none();
        let trial = Trial::test(format!("{file} prints what file.yaml prints"), move || same_as_the_file(file));
        if lacking { trial.with_kind(format!("needs {server}")).with_ignored_flag(true) } else { trial }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn same_as_the_file(file: &str) -> Result<(), Failed> {
    let (expected, found) = (printed("file.yaml")?, printed(file)?);
    if expected != found {
        return Err(Failed::from(format!("file.yaml:\n{expected}\n{file}:\n{found}")));
    }
    Ok(())
}

/// What the program prints of features and training set, run in a folder of its own: before that it prints the stream's
/// own splits and positions.
fn printed(file: &str) -> Result<String, Failed> {
    let folder = tempfile::tempdir()?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR"));
    for needed in [file, "history.csv"] {
        std::fs::copy(example.join(needed), folder.path().join(needed))?;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_driver_stats")).arg(folder.path().join(file)).output()?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(Failed::from(format!("{file}: {}\n{stdout}\n{stderr}", output.status)));
    }
    let (_, features) = stdout.split_once("Served online:").ok_or("it printed no features")?;
    if !features.contains("A training set:") {
        return Err(Failed::from(format!("it printed no training set: {stdout}")));
    }
    Ok(features.to_owned())
}
