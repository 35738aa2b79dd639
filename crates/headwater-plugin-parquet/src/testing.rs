//! What the unit tests share.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type};
use futures::TryStreamExt;
use headwater_core::batch::{BatchSource, ScanBatch, ScanRequest};
use headwater_core::offline::{Append, LogId, LogRange, OfflineStore};
use headwater_core::options::Config;
use headwater_core::{Position, SplitId};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::config::{Compression, ParquetConfig};
use crate::offline::ParquetOfflineStore;
use crate::storage::Storage;

/// A storage that every store of a test opens for itself, as processes do.
#[derive(Clone)]
pub(crate) enum Place {
    Folder(Arc<tempfile::TempDir>),
    Objects(Arc<object_store::memory::InMemory>),
}

impl Place {
    pub(crate) fn folder() -> Self {
        Self::Folder(Arc::new(tempfile::TempDir::new().unwrap()))
    }

    pub(crate) fn objects() -> Self {
        Self::Objects(Arc::new(object_store::memory::InMemory::new()))
    }

    /// What its stores work on.
    pub(crate) fn storage(&self) -> Storage {
        match self {
            Self::Folder(folder) => Storage::local(folder.path().join("some where/offline")),
            Self::Objects(store) => Storage::remote(Arc::clone(store) as Arc<dyn ObjectStore>, "some/where/"),
        }
    }

    pub(crate) fn store(&self) -> ParquetOfflineStore {
        let options = |path: String| ParquetConfig { path, compression: Compression::Zstd, row_group_rows: 4 };
        match self {
            Self::Folder(_) => {
                let options = options(self.path().to_str().unwrap().to_owned());
                let config = Config { name: String::new(), options: BTreeMap::new(), base_dir: "/".into() };
                ParquetOfflineStore::open(&options, &config).unwrap()
            }
            Self::Objects(store) => {
                let store = Arc::clone(store) as Arc<dyn ObjectStore>;
                ParquetOfflineStore::in_object_store(store, &options("some/where/".into())).unwrap()
            }
        }
    }

    /// A place with the same contents, for one more try.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::Folder(folder) => {
                let copy = tempfile::TempDir::new().unwrap();
                for file in files(folder.path()) {
                    let path = copy.path().join(&file);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::copy(folder.path().join(&file), path).unwrap();
                }
                Self::Folder(Arc::new(copy))
            }
            Self::Objects(store) => Self::Objects(Arc::new(store.fork())),
        }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        match self {
            Self::Folder(folder) => folder.path().join("some where/offline"),
            Self::Objects(_) => panic!("objects have no path"),
        }
    }

    /// Every row as a program sees it that reads all `*.parquet` files and knows nothing else.
    pub(crate) async fn plain(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut read = |bytes: bytes::Bytes| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            rows.extend(reader.flat_map(|batch| decode(&batch.unwrap())));
        };
        match self {
            Self::Folder(folder) => {
                for file in files(folder.path()).into_iter().filter(|file| file.ends_with(".parquet")) {
                    read(std::fs::read(folder.path().join(file)).unwrap().into());
                }
            }
            Self::Objects(store) => {
                let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
                for object in listed.into_iter().filter(|object| object.location.as_ref().ends_with(".parquet")) {
                    let got = store.get_opts(&object.location, object_store::GetOptions::default()).await.unwrap();
                    read(got.bytes().await.unwrap());
                }
            }
        }
        rows.sort();
        rows
    }

    /// The names of files that are no part of the published log.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let names = match self {
            Self::Folder(folder) => files(folder.path()),
            Self::Objects(store) => {
                let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
                listed.into_iter().map(|object| object.location.to_string()).collect()
            }
        };
        names.into_iter().filter(|name| !name.ends_with(".parquet") && !name.ends_with("/.lock")).collect()
    }
}

/// The files below a folder, relative to it.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// Split, position and rate, as text.
pub(crate) type Row = (String, Vec<u8>, String);

pub(crate) fn log_id() -> LogId {
    LogId { view: "driver_stats".into(), generation: "3f9c".into() }
}

/// Rows at these positions of a split. Position `n` has driver `n % 7` and time `n` seconds.
pub(crate) fn rows(split: &str, positions: RangeInclusive<u64>) -> RecordBatch {
    let numbers: Vec<i64> = positions.clone().map(|n| n.try_into().unwrap()).collect();
    let bytes: Vec<Position> = positions.map(Position::from_u64).collect();
    let times = numbers.iter().map(|n| n * 1_000_000).collect::<Vec<_>>();
    RecordBatch::try_from_iter_with_nullable([
        ("driver_id", Arc::new(numbers.iter().map(|n| n % 7).collect::<Int64Array>()) as ArrayRef, false),
        ("event_timestamp", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef, false),
        ("rate", Arc::new(numbers.iter().map(|n| *n as f64).collect::<Float64Array>()) as ArrayRef, true),
        (
            "_split",
            Arc::new(StringArray::from(vec![SplitId::from(split).to_string(); numbers.len()])) as ArrayRef,
            false,
        ),
        ("_position", Arc::new(bytes.iter().map(|p| Some(p.as_bytes())).collect::<BinaryArray>()) as ArrayRef, false),
    ])
    .unwrap()
}

/// The rows of [`rows`] as they are compared.
pub(crate) fn expected(split: &str, positions: RangeInclusive<u64>) -> Vec<Row> {
    decode(&rows(split, positions))
}

pub(crate) fn decode(rows: &RecordBatch) -> Vec<Row> {
    let splits = rows.column_by_name("_split").unwrap().as_string::<i32>();
    let positions = rows.column_by_name("_position").unwrap().as_binary::<i32>();
    let rates = rows.column_by_name("rate").unwrap().as_primitive::<Float64Type>();
    (0..rows.num_rows())
        .map(|row| {
            let rate = if rates.is_valid(row) { rates.value(row).to_string() } else { String::new() };
            (splits.value(row).to_owned(), positions.value(row).to_vec(), rate)
        })
        .collect()
}

pub(crate) fn drivers(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("driver_id").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

/// Appends the rows of a range of positions as one piece.
pub(crate) async fn append(
    store: &ParquetOfflineStore,
    split: &str,
    positions: RangeInclusive<u64>,
) -> headwater_core::Result<Append> {
    let range = LogRange {
        after: match positions.start() {
            1 => Position::START,
            start => Position::from_u64(start - 1),
        },
        through: Position::from_u64(*positions.end()),
    };
    let metadata = BTreeMap::from([("last".to_owned(), positions.end().to_string())]);
    store.append(&log_id(), &split.into(), rows(split, positions), range, metadata).await
}

pub(crate) async fn scan(source: &dyn BatchSource, request: &ScanRequest) -> headwater_core::Result<Vec<ScanBatch>> {
    let mut batches = Vec::new();
    for fragment in source.fragments(request).await? {
        batches.extend(source.read(&fragment, request).await?.try_collect::<Vec<_>>().await?);
    }
    Ok(batches)
}

/// All rows of the log as its own reader gives them, in its order.
pub(crate) async fn read(store: &ParquetOfflineStore) -> headwater_core::Result<Vec<Row>> {
    let batches = scan(&*store.log(&log_id()), &ScanRequest::default()).await?;
    Ok(batches.iter().flat_map(|batch| decode(&batch.rows)).collect())
}

pub(crate) async fn end(store: &ParquetOfflineStore, split: &str) -> Option<(u64, String)> {
    let ends = store.ends(&log_id()).await.unwrap();
    ends.get(&split.into()).map(|end| (end.through.to_u64().unwrap(), end.metadata["last"].clone()))
}
