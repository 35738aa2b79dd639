//! Feast's driver tutorial, with a stream.
//!
//! Produces a week of driver events, ingests them, and prints what is served online and a training set. Which stream it
//! is stands in the definition file alone: `file.yaml` (the default), `kafka.yaml` or `kinesis.yaml`.
//!
//! ```sh
//! cargo run -p driver_stats
//! cargo run -p driver_stats --features kafka -- examples/driver_stats/kafka.yaml
//! cargo run -p driver_stats --features kinesis -- examples/driver_stats/kinesis.yaml
//! ```

mod events;
mod labels;

use std::path::PathBuf;

use arrow::util::pretty::pretty_format_batches;
use headwater::history::HistoryOptions;
use headwater::ingest::IngestOptions;
use headwater::store::{EntityColumns, Features};
use headwater::{FeatureStore, Result};

const STREAM: &str = "driver_stats_stream";
const SERVICE: &str = "driver_activity";

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::args_os().nth(1).map_or_else(|| example_folder().join("file.yaml"), PathBuf::from);
    let store = FeatureStore::open(&file).await?;
    println!("Project `{}` of {}", store.definitions().project, file.display());

    // Every run begins anew: what an earlier one stored goes, events that it produced are simply produced again.
    store.apply().await?;
    store.teardown().await?;
    store.apply().await?;

    let events = events::produce();
    let count = events.len();
    store.project().await?.producer(STREAM)?.send(events).await?;
    println!("Produced {count} events of 5 drivers, out of order, with corrections, and one that nobody can read.");

    let mut job = store.ingest(STREAM, IngestOptions { until_caught_up: true, ..Default::default() }).await?;
    job.wait().await?;
    for split in &job.status().splits {
        println!(
            "Ingested split {}: {} rows, {} late, {} dead-lettered.",
            split.split, split.counts.rows, split.counts.late, split.counts.dead_lettered
        );
    }
    for letter in store.dead_letters().await? {
        println!("Dead letter at {}: {}", letter.letter.position, letter.letter.reason);
    }

    println!("\nServed online:");
    let drivers = EntityColumns::default().column("driver_id", [1001, 1002, 1003, 1004, 1005, 9999]);
    let online = store.get_online_features(Features::service(SERVICE), drivers, false).await?;
    println!("{}", pretty_format_batches(&[online.to_record_batch()?])?);

    println!("\nA training set: what was known of each driver at the time of its label.");
    let training = store
        .get_historical_features(labels::labels()?, Features::service(SERVICE), false, HistoryOptions::default())
        .await?;
    println!("{}", pretty_format_batches(&training.collect().await?)?);
    Ok(())
}

fn example_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
