//! Stores that fail when they are told to.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::offline::{Append, Compaction, LogEnd, LogId, LogRange};
use headwater_core::online::{OnlineRow, Put};
use headwater_core::{BatchSource, OfflineStore, OnlineStore, Result, SplitId};

use super::Faults;

/// An online store whose calls go wrong as its [`Faults`] say.
#[derive(Debug, Clone)]
pub struct FlakyOnline {
    inner: Arc<dyn OnlineStore>,
    faults: Arc<Faults>,
}

impl FlakyOnline {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn OnlineStore>, faults: &Arc<Faults>) -> Self {
        Self { inner, faults: Arc::clone(faults) }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl OnlineStore for FlakyOnline {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        let outlook = self.faults.call("put").await?;
        outlook.of(self.inner.put(table, rows).await)
    }

    async fn sync(&self) -> Result<()> {
        let outlook = self.faults.call("sync").await?;
        outlook.of(self.inner.sync().await)
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        let outlook = self.faults.call("get").await?;
        outlook.of(self.inner.get(table, keys).await)
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        let outlook = self.faults.call("get_prefixes").await?;
        outlook.of(self.inner.get_prefixes(table, prefixes).await)
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        let outlook = self.faults.call("delete").await?;
        outlook.of(self.inner.delete(table, keys).await)
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        let outlook = self.faults.call("drop_table").await?;
        outlook.of(self.inner.drop_table(table).await)
    }

    async fn tables(&self) -> Result<Vec<String>> {
        let outlook = self.faults.call("tables").await?;
        outlook.of(self.inner.tables().await)
    }
}

/// An offline store whose calls go wrong as its [`Faults`] say. What [`OfflineStore::log`] gives is the inner store's
/// and never fails.
#[derive(Debug, Clone)]
pub struct FlakyOffline {
    inner: Arc<dyn OfflineStore>,
    faults: Arc<Faults>,
}

impl FlakyOffline {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn OfflineStore>, faults: &Arc<Faults>) -> Self {
        Self { inner, faults: Arc::clone(faults) }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl OfflineStore for FlakyOffline {
    async fn append(
        &self,
        log: &LogId,
        split: &SplitId,
        rows: RecordBatch,
        range: LogRange,
        metadata: BTreeMap<String, String>,
    ) -> Result<Append> {
        let outlook = self.faults.call("append").await?;
        outlook.of(self.inner.append(log, split, rows, range, metadata).await)
    }

    async fn ends(&self, log: &LogId) -> Result<BTreeMap<SplitId, LogEnd>> {
        let outlook = self.faults.call("ends").await?;
        outlook.of(self.inner.ends(log).await)
    }

    fn log(&self, log: &LogId) -> Arc<dyn BatchSource> {
        self.inner.log(log)
    }

    async fn logs(&self) -> Result<Vec<LogId>> {
        let outlook = self.faults.call("logs").await?;
        outlook.of(self.inner.logs().await)
    }

    async fn compact(&self, log: &LogId) -> Result<Compaction> {
        let outlook = self.faults.call("compact").await?;
        outlook.of(self.inner.compact(log).await)
    }

    async fn remove(&self, log: &LogId) -> Result<()> {
        let outlook = self.faults.call("remove").await?;
        outlook.of(self.inner.remove(log).await)
    }
}
