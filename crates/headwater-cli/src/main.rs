//! The `headwater` command.

use std::process::ExitCode;

/// Jobs pass many small rows from thread to thread, of which other allocators keep as much again as is in use.
/// `.cargo/config.toml` has its settings.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    headwater_cli::main()
}
