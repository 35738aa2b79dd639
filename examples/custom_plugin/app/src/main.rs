//! The `headwater` command with one plugin more.

use custom_plugin as _;

fn main() -> std::process::ExitCode {
    headwater_cli::main()
}
