//! The contracts of `headwater-core`, clause by clause, against this plugin.

use std::fs::File;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use headwater_core::offline::LogId;
use headwater_core::plugin::OpenContext;
use headwater_core::{Error, OfflineStore, Result};
use headwater_plugin_parquet::PLUGIN;
use headwater_testkit::offline::{self, OfflineFixture};
use headwater_testkit::{Installed, plugin, run};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

/// The plugin in a folder whose files anybody can read.
struct Folder(Installed);

#[async_trait]
impl OfflineFixture for Folder {
    type Storage = TempDir;

    async fn create(&self) -> Result<TempDir> {
        OfflineFixture::create(&self.0).await
    }

    async fn open(&self, storage: &TempDir, context: &OpenContext) -> Result<Arc<dyn OfflineStore>> {
        self.0.offline(storage.path(), context)
    }

    async fn plain(&self, storage: &TempDir, log: &LogId) -> Result<Vec<RecordBatch>> {
        let io = |error: std::io::Error| Error::unexpected("a plain reader failed").with_source(error);
        let native = |error| Error::unexpected("a plain reader failed").with_source(error);
        let mut batches = Vec::new();
        let folder = storage.path().join("offline").join(&log.view).join(&log.generation);
        for split in folder.read_dir().map_err(io)? {
            let split = split.map_err(io)?.path();
            let files = if split.is_dir() { split.read_dir().map_err(io)?.collect() } else { Vec::new() };
            for file in files {
                let path = file.map_err(io)?.path();
                if path.extension().is_some_and(|extension| extension == "parquet") {
                    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).map_err(io)?);
                    for rows in reader.and_then(|reader| reader.build()).map_err(native)? {
                        batches.push(rows?);
                    }
                }
            }
        }
        Ok(batches)
    }
}

fn main() -> ExitCode {
    let fixture = Installed::new(&PLUGIN, |folder| serde_json::json!({ "path": folder.join("offline") }));
    run(plugin::suite(fixture).into_iter().chain(offline::suite(Folder(fixture))))
}
