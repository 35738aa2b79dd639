//! Windows over the flights: how busy an airport is, how late its flights leave, and where they go.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use headwater::history::{EntityRows, HistoryOptions};
use headwater::ingest::IngestOptions;
use headwater::store::Features;
use headwater::{FeatureStore, Micros, Result};

use crate::{data, labels};

const STREAM: &str = "departures";
const SERVICE: &str = "traffic";
const HOUR: Micros = 3_600_000_000;
/// 2001-01-01T00:00:00Z.
const FIRST: Micros = 978_307_200_000_000;
/// When the last flight leaves: 2001-07-01T00:00:00Z.
pub(crate) const NOW: Micros = FIRST + 181 * 24 * HOUR;

/// Streams the flights through the windows, prints what is served now, and joins 100 airports at 100 instants.
pub(crate) async fn run(store: &FeatureStore, flights: &Path) -> Result<()> {
    let begun = Instant::now();
    let mut job = store.ingest(STREAM, IngestOptions { until_caught_up: true, ..Default::default() }).await?;
    job.wait().await?;
    let rows: u64 = job.status().splits.iter().map(|split| split.counts.rows).sum();
    println!("\nStreamed {rows} flights through eight windows in {:.1} s.", begun.elapsed().as_secs_f64());

    let airports = busiest(flights, 100)?;
    let asked = entities(airports.iter().map(|airport| (airport.as_str(), NOW)))?;
    let names = RecordBatch::try_from_iter([("origin", Arc::clone(asked.column(0)))])?;
    let online = store.get_online_features(Features::service(SERVICE), names, false).await?.to_record_batch()?;
    println!("\nThe five busiest airports, served online as of the first of July 2001, 00:00:");
    println!("{}", pretty_format_batches(&[online.slice(0, 5)])?);
    data::write("traffic_now.parquet", std::slice::from_ref(&asked))?;
    data::write("traffic_online.parquet", &[beside(&asked, &online)?])?;

    // A bit more than every 43 hours, so that all times of the day are among them; every tenth on the hour.
    let instants = (0..100).map(|n| FIRST + n * 43 * HOUR + if n % 10 == 0 { 0 } else { n * 137_000_001 });
    let asked = entities(instants.flat_map(|at| airports.iter().map(move |airport| (airport.as_str(), at))))?;
    data::write("traffic_rows.parquet", std::slice::from_ref(&asked))?;
    let begun = Instant::now();
    let rows = EntityRows::new(asked.schema(), vec![asked])?;
    let training = store
        .get_historical_features(rows, Features::service(SERVICE), false, HistoryOptions::default())
        .await?
        .collect()
        .await?;
    let joined: usize = training.iter().map(RecordBatch::num_rows).sum();
    println!("Looked back from {joined} airports and instants in {:.1} s.", begun.elapsed().as_secs_f64());
    data::write("traffic_set.parquet", &training)
}

/// The airports with the most departures.
fn busiest(flights: &Path, count: usize) -> Result<Vec<String>> {
    let origins = labels::origins(&labels::read(flights)?)?;
    let mut departures: HashMap<&str, usize> = HashMap::new();
    for origin in origins.as_string::<i32>().iter().flatten() {
        *departures.entry(origin).or_default() += 1;
    }
    let mut airports: Vec<(&str, usize)> = departures.into_iter().collect();
    airports.sort_by_key(|(airport, flights)| (std::cmp::Reverse(*flights), *airport));
    Ok(airports.into_iter().take(count).map(|(airport, _)| airport.to_owned()).collect())
}

/// Rows (airport, instant).
fn entities<'a>(rows: impl Iterator<Item = (&'a str, Micros)>) -> Result<RecordBatch> {
    let (airports, instants): (Vec<&str>, Vec<Micros>) = rows.unzip();
    let instants = TimestampMicrosecondArray::from(instants).with_timezone("UTC");
    let airports: ArrayRef = Arc::new(StringArray::from(airports));
    Ok(RecordBatch::try_from_iter([("origin", airports), ("event_timestamp", Arc::new(instants))])?)
}

/// The columns of `rows`, and those of `features` that it does not have.
fn beside(rows: &RecordBatch, features: &RecordBatch) -> Result<RecordBatch> {
    let (schema, added) = (rows.schema(), features.schema());
    let own = schema.fields().iter().zip(rows.columns());
    let new = added.fields().iter().zip(features.columns());
    let new = new.filter(|(field, _)| schema.index_of(field.name()).is_err());
    let columns = own.chain(new).map(|(field, column)| (field.name().as_str(), Arc::clone(column), true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}
