//! Real data: 3,000,000 flights, streamed, served and joined.
//!
//! npm's `vega-datasets` (BSD-3-Clause) ships the flights in the United States of 2001: date, delay, distance, origin and
//! destination. The entity is the airport that a flight leaves from; the flights are the stream; online is the newest
//! departure of each airport. The training set asks, for 200,000 flights, what the departure before from the same
//! airport was like. Then the same flights go through windows: how many left each airport in the last hour, day and week,
//! how late, and where to.
//!
//! ```sh
//! cargo run --release -p flights
//! ```
//!
//! Real data shows what made-up data hides: many flights leave one airport in the same minute. Their event times are
//! equal, so which one is newest is settled by the position in the stream, the same online, in the log and in the join.

mod data;
mod labels;
mod traffic;

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use headwater::history::HistoryOptions;
use headwater::ingest::IngestOptions;
use headwater::store::{EntityColumns, Features};
use headwater::time::ManualClock;
use headwater::{FeatureStore, Result};

const STREAM: &str = "flights";
const SERVICE: &str = "departures";

#[tokio::main]
async fn main() -> Result<()> {
    let flights = data::fetch()?;
    // Windows end now, and now is when the last flight leaves.
    let clock = Arc::new(ManualClock::new(traffic::NOW));
    let store = FeatureStore::builder().file(data::folder().join("flights.yaml")).clock(clock).open().await?;
    store.apply().await?;
    store.teardown().await?;
    store.apply().await?;

    let begun = Instant::now();
    let mut job = store.ingest(STREAM, IngestOptions { until_caught_up: true, ..Default::default() }).await?;
    job.wait().await?;
    let rows: u64 = job.status().splits.iter().map(|split| split.counts.rows).sum();
    println!("Ingested {rows} flights in {:.1} s.", begun.elapsed().as_secs_f64());

    println!("\nThe newest departure, served online:");
    let airports = EntityColumns::default().column("origin", ["ATL", "ORD", "DFW", "LAX", "XXX"]);
    let online = store.get_online_features(Features::service(SERVICE), airports, false).await?;
    println!("{}", pretty_format_batches(&[online.to_record_batch()?])?);

    let asked = labels::sample(&flights, 200_000)?;
    println!("\nOf the {rows} flights, {} share airport and minute with another one.", asked.sharing);
    data::write("entity_rows.parquet", std::slice::from_ref(&asked.rows))?;
    let begun = Instant::now();
    let training = store
        .get_historical_features(asked.entities()?, Features::service(SERVICE), false, HistoryOptions::default())
        .await?
        .collect()
        .await?;
    let joined: usize = training.iter().map(RecordBatch::num_rows).sum();
    println!(
        "Joined {joined} flights to the departure before in {:.1} s. The first ten:",
        begun.elapsed().as_secs_f64()
    );
    data::write("training_set.parquet", &training)?;
    if let Some(first) = training.first() {
        println!("{}", pretty_format_batches(&[first.slice(0, first.num_rows().min(10))])?);
    }
    traffic::run(&store, &flights).await
}
