//! From a topic to both stores.

use headwater::ingest::IngestOptions;

use crate::Options;
use crate::measure::{Stretch, peak_mb};
use crate::project::{kafka, newest, project};

pub(crate) async fn run(options: &Options) {
    let (_folder, store) = project(&newest(&kafka(options.text("topic")), true, true)).await;
    let stretch = Stretch::begin();
    let rows = ingest(&store).await;
    let cost = stretch.end();
    println!(
        "{{\"what\":\"throughput\",\"records\":{rows:.0},\"wall_s\":{:.2},\"rec_s\":{:.0},\"cpu_s\":{:.2},\"rec_per_cpu_s\":{:.0},\"peak_rss_mb\":{:.0}}}",
        cost.wall,
        rows / cost.wall,
        cost.cpu,
        rows / cost.cpu,
        peak_mb()
    );
}

/// Reads everything that is there; gives the number of rows.
#[allow(clippy::cast_precision_loss)] // Nobody counts so far.
pub(crate) async fn ingest(store: &headwater::FeatureStore) -> f64 {
    let options = IngestOptions { until_caught_up: true, ..IngestOptions::default() };
    let mut job = store.ingest("events", options).await.unwrap();
    job.wait().await.unwrap();
    job.status().splits.iter().map(|split| split.counts.rows).sum::<u64>() as f64
}
