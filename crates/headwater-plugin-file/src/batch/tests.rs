//! Tables of files, sentence by sentence.

mod files;
mod parquet;
mod partitions;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use futures::TryStreamExt;
use headwater_core::batch::{Fragment, KeyBounds, KeyRange, Positions, ScanRequest, TimeRange};
use headwater_core::options::{Config, Options};
use headwater_core::{BatchSource, Error};

use super::FileBatchSource;
use crate::config::FileBatchConfig;

/// A temporary folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

fn open(path: &str, options: serde_json::Value) -> Result<FileBatchSource, Error> {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_value(options).unwrap();
    all.insert("path".into(), path.into());
    let config = Config { name: "source `t`".into(), options: all, base_dir: ".".into() };
    FileBatchSource::open(&FileBatchConfig::from_config(&config)?, &config)
}

fn table(path: &Path) -> FileBatchSource {
    open(path.to_str().unwrap(), serde_json::json!({})).unwrap()
}

/// Everything a scan gives.
#[derive(Debug)]
struct Scan {
    fragments: Vec<Fragment>,
    rows: RecordBatch,
    /// Split and position of every row.
    places: Vec<(String, u64)>,
}

async fn scan(source: &FileBatchSource, request: &ScanRequest) -> Result<Scan, Error> {
    let fragments = source.fragments(request).await?;
    let (mut batches, mut places) = (Vec::new(), Vec::new());
    let mut schema: Option<SchemaRef> = None;
    for fragment in &fragments {
        let mut stream = source.read(fragment, request).await?;
        let mut count = 0;
        while let Some(batch) = stream.try_next().await? {
            let Positions::Consecutive(first) = batch.positions else { panic!("rows are counted") };
            let rows = batch.rows.num_rows() as u64;
            let split = String::from_utf8(fragment.split.as_bytes().to_vec()).unwrap();
            places.extend((first..first + rows).map(|at| (split.clone(), at)));
            count += rows;
            schema = Some(batch.rows.schema());
            batches.push(batch.rows);
        }
        assert!(fragment.rows.is_none_or(|rows| rows == count), "a fragment has the rows that it says");
    }
    let schema = match schema {
        Some(schema) => schema,
        None => source.schema().await?,
    };
    let rows = concat_batches(&schema, &batches).unwrap();
    Ok(Scan { fragments, rows, places })
}

async fn scan_all(source: &FileBatchSource) -> Scan {
    scan(source, &ScanRequest::default()).await.unwrap()
}

fn columns<const N: usize>(names: [&str; N]) -> ScanRequest {
    ScanRequest { columns: Some(names.map(str::to_owned).to_vec()), ..ScanRequest::default() }
}

fn between(column: &str, from: Option<i64>, to: Option<i64>) -> ScanRequest {
    ScanRequest { time: Some(TimeRange { column: column.into(), from, to }), ..ScanRequest::default() }
}

fn keys(column: &str, values: KeyBounds) -> ScanRequest {
    ScanRequest { keys: Some(KeyRange { column: column.into(), values }), ..ScanRequest::default() }
}

fn integers(array: &dyn Array) -> Vec<Option<i64>> {
    cast(array, &DataType::Int64).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn texts(array: &dyn Array) -> Vec<Option<String>> {
    cast(array, &DataType::Utf8).unwrap().as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

/// Rows with an id, a name and a time of as many seconds as the id.
fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.clone()));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("n{id:04}"))));
    let at = TimestampMicrosecondArray::from_iter_values(ids.map(|id| id * 1_000_000)).with_timezone("UTC");
    RecordBatch::try_from_iter([("id", id), ("name", name), ("at", Arc::new(at) as ArrayRef)]).unwrap()
}

fn encode_with(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn encode(batch: &RecordBatch, group_rows: usize) -> Vec<u8> {
    encode_with(batch, WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build())
}

fn encode_without_statistics(batch: &RecordBatch, group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None);
    encode_with(batch, properties.set_max_row_group_row_count(Some(group_rows)).build())
}
