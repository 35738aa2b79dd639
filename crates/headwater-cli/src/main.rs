//! The `headwater` command.

use std::process::ExitCode;

/// Jobs pass many small rows from thread to thread, where the system's allocator keeps memory that nobody uses any more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    headwater_cli::main()
}
