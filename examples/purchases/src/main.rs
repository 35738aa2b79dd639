//! What somebody bought last: the feature that Feast's documentation names for a stream, `last_N_purchased_categories`,
//! defined in one line.
//!
//! `aggregations:` in the definition file say all that there is to it: the stream keeps them up to date online, the
//! purchases before the stream began are in them from the start, and the training set below is computed from the same
//! lines. The program makes up the purchases of two weeks, ingests them, and prints both.
//!
//! ```sh
//! cargo run -p purchases
//! cargo run -p purchases --features kafka -- examples/purchases/kafka.yaml
//! ```

mod purchases;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use headwater::history::{EntityRows, HistoryOptions};
use headwater::ingest::IngestOptions;
use headwater::store::{EntityColumns, Features};
use headwater::stream::ProducerRecord;
use headwater::time::ManualClock;
use headwater::{FeatureStore, Result};

use purchases::{END, Purchase, purchases, rfc3339};

const STREAM: &str = "purchases";
const SERVICE: &str = "taste";

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let file = std::env::args_os().nth(1).map_or_else(|| folder.join("file.yaml"), PathBuf::from);
    // Windows end now, and now is the end of the two weeks: so every run prints the same.
    let clock = Arc::new(ManualClock::new(END * 1_000_000));
    let store = FeatureStore::builder().file(&file).clock(clock).open().await?;
    println!("Project `{}` of {}", store.definitions().project, file.display());

    // Every run begins anew: what an earlier one stored goes.
    store.apply().await?;
    store.teardown().await?;
    store.apply().await?;

    let events: Vec<ProducerRecord> = purchases().iter().map(record).collect();
    println!("Produced {} purchases, some of them hours after they were made.", events.len());
    store.project().await?.producer(STREAM)?.send(events).await?;
    let mut job = store.ingest(STREAM, IngestOptions { until_caught_up: true, ..Default::default() }).await?;
    job.wait().await?;

    println!("\nServed online:");
    let users = EntityColumns::default().column("user_id", [1, 2, 3, 4, 5]);
    let online = store.get_online_features(Features::service(SERVICE), users, false).await?;
    println!("{}", pretty_format_batches(&[online.to_record_batch()?])?);

    println!("\nA training set: who answered a recommendation, and what they had bought by then.");
    let training = store
        .get_historical_features(recommendations()?, Features::service(SERVICE), false, HistoryOptions::default())
        .await?;
    println!("{}", pretty_format_batches(&training.collect().await?)?);
    Ok(())
}

fn record(purchase: &Purchase) -> ProducerRecord {
    let Purchase { user, time, category, cents } = purchase;
    let value = format!(
        r#"{{"user_id": {user}, "purchased_at": "{}", "category": "{category}", "amount": {}.{:02}}}"#,
        rfc3339(*time),
        cents / 100,
        cents % 100
    );
    // All purchases of a user go the same way, so that one worker keeps their windows.
    ProducerRecord { key: user.to_string().into(), value: value.into() }
}

/// The labels: whom something was recommended, when, and whether they bought it. The first row lies before the stream
/// began: history answers it.
fn recommendations() -> Result<EntityRows> {
    let at = ["2026-02-20T12:00:00Z", "2026-03-05T09:30:00Z", "2026-03-09T18:00:00Z", "2026-03-15T07:45:00Z"];
    let rows = RecordBatch::try_from_iter([
        ("user_id", Arc::new(Int64Array::from(vec![1, 2, 1, 3])) as ArrayRef),
        ("event_timestamp", Arc::new(StringArray::from(at.to_vec()))),
        ("bought", Arc::new(BooleanArray::from(vec![false, true, true, false]))),
    ])?;
    EntityRows::new(rows.schema(), vec![rows])
}
