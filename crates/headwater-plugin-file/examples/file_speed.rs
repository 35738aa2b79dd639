//! Measures how fast files are read: the lines of a stream, and the rows of a table on one core and on two.
//!
//! `cargo run --release -p headwater-plugin-file --example file_speed`

#![allow(clippy::unwrap_used)] // It measures, and may stop at any fault.
#![allow(clippy::cast_precision_loss)]

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::StreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::options::Config;
use headwater_core::plugin::{OpenContext, SourceContext};
use headwater_core::stream::{FixedCheckpoints, ReaderContext, StartPosition, StreamEvent};
use headwater_core::time::SystemClock;
use headwater_plugin_file::PLUGIN;

const N: i64 = 3_000_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let config = |path: &std::path::Path| Config {
        name: "m".into(),
        options: [("path".to_owned(), path.to_str().unwrap().into())].into(),
        base_dir: ".".into(),
    };
    let context = OpenContext {
        project: "p".into(),
        clock: Arc::new(SystemClock),
        source: Some(SourceContext { record_format: Some("json".into()), ..SourceContext::default() }),
    };
    let lines = folder.path().join("e.ndjson");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&lines).unwrap());
    for n in 0..N {
        writeln!(
            file,
            r#"{{"driver_id":{},"event_timestamp":"2026-01-01T00:00:{:02}Z","conv_rate":0.{n},"acc_rate":0.5}}"#,
            n % 1000,
            n % 60
        )
        .unwrap();
    }
    drop(file);
    let bytes = std::fs::metadata(&lines).unwrap().len();
    for _ in 0..3 {
        let source = (PLUGIN.stream.unwrap().open)(&config(&lines), &context).unwrap();
        let reader = ReaderContext {
            group: "g".into(),
            start: StartPosition::Earliest,
            checkpoints: Arc::new(FixedCheckpoints::default()),
            buffer_bytes: 16 << 20,
            batch_records: 65_536,
            refresh: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        };
        let start = Instant::now();
        let mut reader = source.subscribe(reader).await.unwrap();
        let mut count = 0;
        while let Some(event) = reader.next().await.unwrap() {
            if let StreamEvent::Batch(batch) = event {
                count += batch.payload.len();
            }
        }
        let took = start.elapsed();
        println!("stream: {count} lines, {bytes} bytes in {took:?}");
    }
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values((0..N).map(|n| n * 7919 % 10_000)));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values((0..N).map(|n| n * 1_000_003)));
    let value: ArrayRef = Arc::new(Float64Array::from_iter_values((0..N).map(|n| n as f64 / 3.0)));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..N).map(|n| format!("AP{}", n % 300))));
    let rows = RecordBatch::try_from_iter([("id", id), ("at", at), ("value", value), ("text", text)]).unwrap();
    for group in [100_000, 1_000_000] {
        let path = folder.path().join(format!("{group}.parquet"));
        let properties = parquet::file::properties::WriterProperties::builder()
            .set_max_row_group_row_count(Some(group))
            .set_compression(parquet::basic::Compression::SNAPPY)
            .build();
        let mut writer = parquet::arrow::ArrowWriter::try_new(
            std::fs::File::create(&path).unwrap(),
            rows.schema(),
            Some(properties),
        )
        .unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        for at_once in [1, 2] {
            for columns in [vec!["id", "at", "value"], vec!["id", "at", "value", "text"]] {
                let source = (PLUGIN.batch.unwrap().open)(&config(&path), &context).unwrap();
                let request = ScanRequest {
                    columns: Some(columns.iter().map(|c| (*c).to_owned()).collect()),
                    ..ScanRequest::default()
                };
                let start = Instant::now();
                let fragments = source.fragments(&request).await.unwrap();
                let listed = start.elapsed();
                let counts: Vec<usize> = futures::stream::iter(fragments)
                    .map(|fragment| {
                        let (source, request) = (Arc::clone(&source), request.clone());
                        async move {
                            tokio::spawn(async move {
                                let mut stream = source.read(&fragment, &request).await.unwrap();
                                let mut rows = 0;
                                while let Some(batch) = stream.next().await {
                                    rows += batch.unwrap().rows.num_rows();
                                }
                                rows
                            })
                            .await
                            .unwrap()
                        }
                    })
                    .buffer_unordered(at_once)
                    .collect()
                    .await;
                println!(
                    "table: groups of {group}, {at_once} at once, {} columns: {} rows in {:?} (listed in {listed:?})",
                    columns.len(),
                    counts.iter().sum::<usize>(),
                    start.elapsed()
                );
            }
        }
    }
}
