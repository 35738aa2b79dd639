//! The `headwater` command with the streams of this build: what tests run, stop and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    headwater_cli::main()
}
