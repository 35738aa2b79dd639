//! The `headwater` command, as a function: a program that links plugins of its own is the command with those plugins.
//!
//! ```no_run
//! // Beside it, one line for each plugin: `use my_plugin as _;`
//! fn main() -> std::process::ExitCode {
//!     headwater_cli::main()
//! }
//! ```

mod api;
mod args;
mod features;
mod files;
mod ingest;
mod init;
mod manage;
mod output;
mod progress;
mod write;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use api::{Error, FeatureStore, Result};
use args::{Cli, Command};

/// Runs the command that the process's arguments say, and gives its exit code: 0 where it succeeded. Errors go to stderr,
/// and so do log lines, which `RUST_LOG` filters. Arguments that are wrong end the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::unexpected("the runtime cannot be started").with_source(error))
        .and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let format = cli.output;
    match &cli.command {
        Command::Init => return init::init(format, &cli.config),
        Command::Plugins => return manage::plugins(format),
        _ => {}
    }
    if !cli.config.exists() {
        return Err(Error::not_found(format!(
            "there is no definition file `{}`: name one with `--config`, or write one with `headwater init`",
            cli.config.display()
        )));
    }
    let store = FeatureStore::builder().registry(api::registry()?).file(&cli.config).open().await?;
    match cli.command {
        Command::Plan => return manage::plan(format, &store).await,
        Command::Apply => return manage::apply(format, &store).await,
        Command::Teardown => return manage::teardown(format, &store).await,
        _ => {}
    }
    for warning in store.warnings().await? {
        output::tell(&format!("warning: {warning}"));
    }
    match cli.command {
        Command::Ingest(args) => ingest::ingest(format, &store, &args).await,
        Command::Reset(args) => ingest::reset(format, &store, &args).await,
        Command::Status => ingest::status(format, &store).await,
        Command::DeadLetters(command) => ingest::dead_letters(format, &store, &command).await,
        Command::Materialize(args) => write::materialize(format, &store, &args).await,
        Command::MaterializeIncremental(args) => write::materialize_incremental(format, &store, &args).await,
        Command::Push(args) => write::push(format, &store, &args).await,
        Command::GetOnlineFeatures(args) => features::online(format, &store, &args).await,
        Command::GetHistoricalFeatures(args) => features::historical(format, &store, &args).await,
        Command::Verify(args) => features::verify(format, &store, &args).await,
        Command::Compact => manage::compact(format, &store).await,
        Command::Init | Command::Plugins | Command::Plan | Command::Apply | Command::Teardown => Ok(()),
    }
}
