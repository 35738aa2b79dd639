//! What a project's folder holds after ingestion, read without the jobs that wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use headwater::FeatureStore;
use headwater::arrow::array::AsArray;
use headwater::arrow::compute::cast;
use headwater::arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// What an online store holds: view → key → (version, value).
pub type Online = BTreeMap<String, BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>>;

/// A plain reader's rows of a view's log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// How many rows there are in all.
    pub count: usize,
    /// (split, position) → the number of the record.
    pub rows: BTreeMap<(String, Vec<u8>), i64>,
}

impl Log {
    /// Every row of every `*.parquet` file below the log of a view, if there is one yet; `number` is the column with the
    /// number of the record.
    ///
    /// # Panics
    /// Where a file cannot be read, or lacks a column.
    pub fn read(folder: &Path, view: &str, number: &str) -> Self {
        let mut files = Vec::new();
        parquet_files(&folder.join("data/offline").join(view), &mut files);
        let mut log = Self::default();
        for file in files {
            let file = std::fs::File::open(file).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                log.count += batch.num_rows();
                let column = |name: &str| batch.column_by_name(name).unwrap();
                let splits = cast(column("_split"), &DataType::Utf8).unwrap();
                for row in 0..batch.num_rows() {
                    let split = splits.as_string::<i32>().value(row).to_owned();
                    let position = column("_position").as_binary::<i32>().value(row).to_vec();
                    let number = column(number).as_primitive::<Int64Type>().value(row);
                    log.rows.insert((split, position), number);
                }
            }
        }
        log
    }

    /// The numbers of the records in it.
    pub fn numbers(&self) -> BTreeSet<i64> {
        self.rows.values().copied().collect()
    }
}

/// How many rows a plain reader finds in the log of a view.
///
/// # Panics
/// Where a file cannot be read.
pub fn rows_in_log(folder: &Path, view: &str) -> usize {
    let mut files = Vec::new();
    parquet_files(&folder.join("data/offline").join(view), &mut files);
    let rows = files.into_iter().map(|file| {
        let file = std::fs::File::open(file).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().metadata().file_metadata().num_rows()
    });
    usize::try_from(rows.sum::<i64>()).unwrap()
}

fn parquet_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parquet_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            out.push(path);
        }
    }
}

/// The newest values of all views of a project's folder, and how many dead letters there are.
///
/// # Panics
/// Where the store does not open, or a dead letter stands twice.
pub fn online(folder: &Path) -> (Online, usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let project = open(folder).await.project().await.unwrap();
        let name = &project.definitions.project;
        let mut online = Online::new();
        for view in &project.views {
            let table = format!("{name}/{}/{}", view.name, view.generation);
            let rows = project.online.get_prefixes(&table, &[Default::default()]).await.unwrap().remove(0);
            let rows = rows.into_iter().map(|row| (row.key.to_vec(), (row.version.to_vec(), row.value.to_vec())));
            online.insert(view.name.clone(), rows.collect());
        }
        let dead = headwater::ingest::dead_letters(&project).await.unwrap();
        let dead = dead.iter().map(|listed| (&listed.letter.view, &listed.letter.split, &listed.letter.position));
        let dead = dead.collect::<Vec<_>>();
        assert_eq!(dead.iter().collect::<BTreeSet<_>>().len(), dead.len(), "a dead letter stands twice");
        (online, dead.len())
    })
}

/// Opens the project of a folder.
///
/// # Panics
/// Where it does not open.
pub async fn open(folder: &Path) -> FeatureStore {
    let registry = headwater::registry().unwrap();
    FeatureStore::builder().registry(registry).file(folder.join("headwater.yaml")).open().await.unwrap()
}
