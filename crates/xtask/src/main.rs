//! Automation: `cargo xtask test` runs everything that CI runs and says what it ran.
//!
//! It depends on nothing, so that it builds in a second. The servers that tests need are its library, which tests use too.

mod guide;
mod run;
mod servers;
mod steps;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use run::{Context, report};
use servers::Servers;
use steps::STEPS;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  test [STEP…]  run every step, or those named, and sum up; what cannot run here is listed, never passed over
  ci            the same, where everything has to run
  steps         list the steps
  servers       start the servers that tests need, print how to name them in the environment, and keep them until Ctrl-C
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let named = arguments.collect::<Vec<_>>();
    let strict = command == "ci" || std::env::var("CI").is_ok_and(|value| value == "true");
    match command.as_str() {
        "test" | "ci" | "servers" => {}
        "steps" => {
            for step in STEPS {
                println!("{:<18} {}", step.name, step.about);
            }
            return ExitCode::SUCCESS;
        }
        other => {
            eprint!("{}{USAGE}", if other.is_empty() { String::new() } else { format!("no command `{other}`\n\n") });
            return ExitCode::from(2);
        }
    }
    if let Some(unknown) = named.iter().find(|name| !STEPS.iter().any(|step| step.name == **name)) {
        eprintln!("no step `{unknown}`; `cargo xtask steps` lists them");
        return ExitCode::from(2);
    }
    let context = match Context::new(root(), strict) {
        Ok(context) => context,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if command == "servers" {
        let servers = Servers::start(&context);
        for (name, value) in &servers.environment {
            println!("export {name}={value}");
        }
        // They end with this process, however it ends.
        loop {
            std::thread::park();
        }
    }
    let chosen = |name: &str| named.is_empty() || named.iter().any(|wanted| wanted == name);
    let ran = STEPS.iter().filter(|step| chosen(step.name)).map(|step| context.step(step)).collect::<Vec<_>>();
    let left_out = STEPS.iter().filter(|step| !chosen(step.name)).map(|step| step.name).collect::<Vec<_>>();
    if report(&ran, &left_out, strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The workspace's folder: two above this crate's.
fn root() -> PathBuf {
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.pop();
    folder.pop();
    folder
}
