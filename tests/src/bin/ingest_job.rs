//! Ingests every stream of a definition file until it is caught up: what the kill test kills.

use std::process::ExitCode;
use std::time::Duration;

use headwater::FeatureStore;
use headwater::ingest::{IngestOptions, Tuning};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> headwater::Result<()> {
    let file = std::env::args().nth(1).ok_or_else(|| headwater::Error::invalid("name a definition file"))?;
    let registry = headwater::registry()?;
    let store = FeatureStore::builder().registry(registry).file(file).open().await?;
    store.apply().await?;
    // Syncs and publishes often, so that there is much to be caught in the midst of.
    let tuning = Tuning {
        batch_records: 500,
        micro_batch_rows: 1_000,
        sync_interval: Duration::from_millis(20),
        log_interval: Duration::from_millis(60),
        dead_letter_interval: Duration::from_millis(40),
        queue_bytes: 512 << 10,
        ..Tuning::default()
    };
    let options = IngestOptions { until_caught_up: true, tuning, ..IngestOptions::default() };
    println!("ingesting");
    store.ingest("events", options).await?.wait().await
}
