//! Prints how fast the store writes and reads: `cargo run --release -p headwater-plugin-parquet --example parquet_speed [FOLDER]`.
//! With a folder, the log is left there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, BinaryArray, Float32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use futures::TryStreamExt;
use headwater_core::batch::{KeyBounds, KeyRange, ScanRequest, TimeRange};
use headwater_core::offline::{LogId, LogRange, OfflineStore};
use headwater_core::options::{Config, Options};
use headwater_core::{Error, Position, Result};
use headwater_plugin_parquet::{ParquetConfig, ParquetOfflineStore};

const ROWS_PER_FILE: i64 = 10_000;
const FILES: i64 = 200;

#[tokio::main]
async fn main() -> Result<()> {
    let temporary = tempfile::tempdir().map_err(|error| Error::unexpected("no folder").with_source(error))?;
    let folder = std::env::args_os().nth(1).map_or_else(|| temporary.path().join("offline"), PathBuf::from);
    let config = Config {
        name: "offline_store".into(),
        options: [("path".to_owned(), folder.to_string_lossy().into())].into(),
        base_dir: std::env::current_dir().unwrap_or_default(),
    };
    let open = || ParquetOfflineStore::open(&ParquetConfig::from_config(&config)?, &config);
    let store = open()?;
    let log = LogId { view: "driver_stats".into(), generation: "speed".into() };
    let total = ROWS_PER_FILE * FILES;

    let mut end = Position::START;
    let start = Instant::now();
    for file in 0..FILES {
        let (rows, through) = rows(file * ROWS_PER_FILE)?;
        let range = LogRange { after: end, through: through.clone() };
        store.append(&log, &"0000".into(), rows, range, BTreeMap::new()).await?;
        end = through;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("append: {FILES} files of {ROWS_PER_FILE} rows, {:.1} ms a file", seconds * 1e3 / 2e2);

    for state in ["as appended", "compacted"] {
        if state == "compacted" {
            let start = Instant::now();
            let done = store.compact(&log).await?;
            println!("compact: {} files to {}, {:.2} s", done.before, done.after, start.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        open()?.ends(&log).await?;
        println!("{state}: ends, freshly opened: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);

        let all = ScanRequest::default();
        let three = ScanRequest {
            columns: Some(vec!["driver_id".into(), "event_timestamp".into(), "conv_rate".into()]),
            ..all.clone()
        };
        let pruned = ScanRequest {
            time: Some(TimeRange { column: "event_timestamp".into(), from: None, to: Some(0) }),
            keys: Some(KeyRange { column: "driver_id".into(), values: KeyBounds::Int(0, 0) }),
            ..three.clone()
        };
        for (what, request) in [("all columns", all), ("three columns", three), ("before the first row", pruned)] {
            let source = open()?.log(&log);
            let start = Instant::now();
            let mut read = 0;
            for fragment in source.fragments(&request).await? {
                let mut batches = source.read(&fragment, &request).await?;
                while let Some(batch) = batches.try_next().await? {
                    read += batch.rows.num_rows();
                }
            }
            println!("{state}: scan of {what}: {read} of {total} rows, {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

/// A file's worth of driver statistics after this row, and the position of the last one.
fn rows(after: i64) -> Result<(RecordBatch, Position)> {
    let numbers: Vec<i64> = (after + 1..=after + ROWS_PER_FILE).collect();
    let positions: Vec<Position> = numbers.iter().map(|n| Position::from_u64(n.unsigned_abs())).collect();
    let scattered = |n: i64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()).unsigned_abs() >> 44;
    let rates: Float32Array = numbers.iter().map(|&n| f32::from(scattered(n).to_le_bytes()[0]) / 256.0).collect();
    let drivers: Int64Array = numbers.iter().map(|&n| (scattered(n) % 10_000).cast_signed()).collect();
    let times: Vec<i64> = numbers.iter().map(|n| n * 1_000_000).collect();
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let splits = StringArray::from(vec!["0000"; numbers.len()]);
    let places: BinaryArray = positions.iter().map(|position| Some(position.as_bytes())).collect();
    let rows = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(drivers) as ArrayRef),
        ("event_timestamp", Arc::clone(&times)),
        ("created", times),
        ("conv_rate", Arc::new(rates.clone())),
        ("acc_rate", Arc::new(rates)),
        ("_split", Arc::new(splits)),
        ("_position", Arc::new(places)),
    ])?;
    Ok((rows, positions.last().cloned().unwrap_or(Position::START)))
}
