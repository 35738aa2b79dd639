//! Ingests the stream of a definition file until it is caught up, or materialises its views: what the kill tests kill.

use std::process::ExitCode;
use std::time::Duration;

use headwater::FeatureStore;
use headwater::ingest::{IngestOptions, Tuning};
use headwater::store::parse_time;

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
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or_else(|| headwater::Error::invalid("name a definition file"))?;
    let args = args.collect::<Vec<_>>();
    let registry = headwater::registry()?;
    let store = FeatureStore::builder().registry(registry).file(file).open().await?;
    if let [command, start, end] = args.as_slice() {
        println!("{command}");
        let (start, end) = (parse_time(start)?, parse_time(end)?);
        return store.materialize(start, end, None, None).await.map(drop);
    }
    store.apply().await?;
    // Syncs and publishes often, so that there is much to be caught in the midst of.
    let tuning = Tuning {
        batch_records: 500,
        micro_batch_rows: 1_000,
        sync_interval: Duration::from_millis(20),
        log_interval: Duration::from_millis(60),
        dead_letter_interval: Duration::from_millis(40),
        build_lease: Duration::from_millis(300),
        queue_bytes: 512 << 10,
        ..Tuning::default()
    };
    let options = IngestOptions { until_caught_up: true, tuning, ..IngestOptions::default() };
    println!("ingesting");
    store.ingest("events", options).await?.wait().await
}
