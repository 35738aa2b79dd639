//! The in-memory references pass every clause that applies to them.

use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use headwater_core::memory::{self, MemoryBatchSource, MemoryOfflineStore, MemoryOnlineStore};
use headwater_core::plugin::OpenContext;
use headwater_core::{BatchSource, OfflineStore, OnlineStore, Result, SplitId};
use headwater_testkit::batch::BatchFixture;
use headwater_testkit::offline::OfflineFixture;
use headwater_testkit::online::OnlineFixture;
use headwater_testkit::{Installed, batch, offline, online, plugin, run};

struct Online;

#[async_trait]
impl OnlineFixture for Online {
    type Storage = MemoryOnlineStore;

    async fn create(&self) -> Result<MemoryOnlineStore> {
        Ok(MemoryOnlineStore::new())
    }

    async fn open(&self, storage: &MemoryOnlineStore, _: &OpenContext) -> Result<Arc<dyn OnlineStore>> {
        Ok(Arc::new(storage.clone()))
    }
}

struct Offline;

#[async_trait]
impl OfflineFixture for Offline {
    type Storage = MemoryOfflineStore;

    async fn create(&self) -> Result<MemoryOfflineStore> {
        Ok(MemoryOfflineStore::new())
    }

    async fn open(&self, storage: &MemoryOfflineStore, _: &OpenContext) -> Result<Arc<dyn OfflineStore>> {
        Ok(Arc::new(storage.clone()))
    }
}

struct Batch;

#[async_trait]
impl BatchFixture for Batch {
    type Table = MemoryBatchSource;

    async fn create(&self, pieces: &[RecordBatch]) -> Result<MemoryBatchSource> {
        // Every table has an identity of its own.
        static TABLES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = TABLES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let table = MemoryBatchSource::new(format!("table {number}")).with_fragment_rows(1000);
        for (index, piece) in pieces.iter().enumerate() {
            table.add(SplitId::from(format!("piece {index}").as_str()), piece.clone());
        }
        Ok(table)
    }

    async fn add(&self, table: &MemoryBatchSource, piece: &RecordBatch) -> Result<()> {
        table.add(SplitId::from("piece z"), piece.clone());
        Ok(())
    }

    async fn open(&self, table: &MemoryBatchSource, _: &OpenContext) -> Result<Arc<dyn BatchSource>> {
        Ok(Arc::new(table.clone()))
    }

    fn prunes(&self) -> bool {
        true
    }
}

fn main() -> ExitCode {
    let clauses = [
        plugin::suite(Installed::new(&memory::PLUGIN, |_| serde_json::json!({}))),
        online::suite(Online),
        offline::suite(Offline),
        batch::suite(Batch),
    ];
    run(clauses.into_iter().flatten())
}
