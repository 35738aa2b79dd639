//! `join-files REQUEST.json`: joins Parquet files as the request says, and prints what it took as one line of JSON.
//!
//! ```json
//! {
//!   "entities": "e.parquet", "out": "o.parquet",
//!   "views": [{
//!     "name": "v", "ttl_us": 86400000000,
//!     "sources": ["f.parquet"], "logs": [],
//!     "keys": { "driver_id": "int64" }, "event_time": "event_timestamp", "created": "created",
//!     "features": { "conv_rate": "float64" },
//!     "columns": { "conv_rate": "name in the file, where it differs" }
//!   }, {
//!     "name": "w", "sources": ["f.parquet"], "logs": ["log"], "log_from": 1735689600000000,
//!     "keys": { "driver_id": "int64" }, "event_time": "event_timestamp",
//!     "features": { "conv_rate": "float64" },
//!     "windows": {
//!       "rows": { "function": "count" },
//!       "rate_1h": { "function": "mean", "column": "conv_rate", "window_us": 3600000000, "hop_us": 300000000 },
//!       "last_3": { "function": { "last_n": { "n": 3 } }, "column": "conv_rate" }
//!     }
//!   }],
//!   "filter_by_created": false, "memory_limit": null, "threads": null
//! }
//! ```
//!
//! A view with `windows` has those for features, and `features` are the columns that they are computed from. Feature
//! columns of the output are called `view__feature`, in the order of their names.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use headwater_core::definitions::{AggregateFunction, Field, ValueType};
use headwater_core::options::Config;
use headwater_engine::View;
use headwater_engine::history::{
    EntityRows, HistoryInput, HistoryOptions, HistoryRequest, InputKind, JoinView, RequestedFeature, join,
};
use headwater_engine::view::Key;
use headwater_engine::windows::{Window, WindowFeature, Windows, output_type};
use headwater_plugin_file::{FileBatchConfig, FileBatchSource};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    entities: PathBuf,
    out: PathBuf,
    views: Vec<ViewRequest>,
    #[serde(default)]
    filter_by_created: bool,
    #[serde(default)]
    memory_limit: Option<u64>,
    #[serde(default)]
    threads: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewRequest {
    name: String,
    #[serde(default)]
    ttl_us: i64,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    logs: Vec<String>,
    keys: BTreeMap<String, ValueType>,
    event_time: String,
    #[serde(default)]
    created: Option<String>,
    features: BTreeMap<String, ValueType>,
    #[serde(default)]
    columns: BTreeMap<String, String>,
    #[serde(default)]
    log_from: Option<i64>,
    #[serde(default)]
    windows: BTreeMap<String, WindowRequest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowRequest {
    function: AggregateFunction,
    #[serde(default)]
    column: Option<String>,
    #[serde(default)]
    window_us: Option<i64>,
    #[serde(default)]
    hop_us: Option<i64>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: join-files REQUEST.json");
        return ExitCode::FAILURE;
    };
    match run(Path::new(&path)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path) -> Outcome<Value> {
    let request: Request = serde_json::from_reader(File::open(path)?)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(join_files(request))
}

async fn join_files(request: Request) -> Outcome<Value> {
    let start = Instant::now();
    let mut took = Map::new();
    let mut lap = |name: &str| took.insert(name.into(), json!(start.elapsed().as_secs_f64()));

    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&request.entities)?)?.with_batch_size(65_536);
    let schema = Arc::clone(reader.schema());
    let entities = EntityRows::new(schema, reader.build()?.collect::<Result<_, _>>()?)?;
    lap("entities_read");

    let mut views = Vec::new();
    let mut features = Vec::new();
    for (number, view) in request.views.into_iter().enumerate() {
        let view = open(view)?;
        features.extend(view.view.features.iter().map(|feature| RequestedFeature {
            view: number,
            feature: feature.name.clone(),
            output: format!("{}__{}", view.view.name, feature.name),
        }));
        views.push(view);
    }
    let options = HistoryOptions {
        memory_limit: request.memory_limit,
        filter_by_created_timestamp: request.filter_by_created,
        threads: request.threads,
        ..HistoryOptions::default()
    };
    let mut set = join(HistoryRequest { entities, views, features, options }).await?;
    lap("searched");

    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(&request.out)?, set.schema(), Some(properties))?;
    while let Some(batch) = set.next().await {
        writer.write(&batch?)?;
    }
    writer.close()?;
    lap("written");
    Ok(json!({ "rows": set.rows(), "seconds": took, "peak_mb": peak_memory() }))
}

fn open(request: ViewRequest) -> Outcome<JoinView> {
    let mut inputs = Vec::new();
    let paths = [(InputKind::Batch, &request.sources), (InputKind::Log, &request.logs)];
    for (kind, path) in paths.into_iter().flat_map(|(kind, paths)| paths.iter().map(move |path| (kind, path))) {
        let config =
            Config { name: format!("view `{}`", request.name), options: BTreeMap::new(), base_dir: PathBuf::new() };
        let options = FileBatchConfig { path: path.clone(), format: None, delimiter: ",".into() };
        let source = FileBatchSource::open(&options, &config)?;
        inputs.push(HistoryInput { source: Arc::new(source), kind, columns: request.columns.clone() });
    }
    let columns: Vec<Field> = request.features.into_iter().map(|(name, of)| Field::new(name, of)).collect();
    let windows = if request.windows.is_empty() { None } else { Some(windows(request.windows, &columns)?) };
    let view = View {
        name: request.name,
        generation: "files".into(),
        keys: request.keys.into_iter().map(|(name, value_type)| Key { name, value_type }).collect(),
        event_time: request.event_time,
        created: request.created,
        features: match &windows {
            Some(windows) => windows.features.iter().map(|feature| feature.field.clone()).collect(),
            None => columns,
        },
        ttl: request.ttl_us,
        online: false,
        offline: false,
        batch: None,
        stream: None,
        windows: windows.map(Arc::new),
    };
    Ok(JoinView { view: Arc::new(view), inputs, log_from: request.log_from })
}

fn windows(requests: BTreeMap<String, WindowRequest>, columns: &[Field]) -> Outcome<Windows> {
    let mut features = Vec::with_capacity(requests.len());
    for (name, request) in requests {
        let column = request.column.map(|column| {
            let at = columns.iter().position(|known| known.name == column);
            at.ok_or_else(|| format!("window `{name}` is of column `{column}`, which is not among the features"))
        });
        let column = column.transpose()?;
        let of = column.and_then(|column| columns.get(column)).map(|column| &column.dtype);
        let window = request.window_us.map(|length| Window { length, hop: request.hop_us.unwrap_or(length / 12) });
        let dtype = output_type(request.function, of)?;
        features.push(WindowFeature { field: Field::new(name, dtype), function: request.function, column, window });
    }
    Ok(Windows { columns: columns.to_vec(), features, fingerprint: String::new() })
}

/// The most memory that the process had at once, where the system says.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}
