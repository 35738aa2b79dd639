//! Fixtures for the in-memory references.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use headwater_core::batch::ScanRequest;
use headwater_core::memory::{MemoryBatchSource, MemoryOfflineStore, MemoryOnlineStore, MemoryStreamSource};
use headwater_core::offline::LogId;
use headwater_core::plugin::OpenContext;
use headwater_core::{BatchSource, OfflineStore, OnlineStore, Result, SplitId, StreamSource};
use headwater_testkit::batch::BatchFixture;
use headwater_testkit::faults::ShuffledStream;
use headwater_testkit::offline::OfflineFixture;
use headwater_testkit::online::OnlineFixture;
use headwater_testkit::stream::{Record, StreamFixture};

/// A name that no other storage of this process has.
pub(crate) fn name(of: &str) -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    format!("{of} {}", NAMES.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Online;

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

pub(crate) struct Offline;

#[async_trait]
impl OfflineFixture for Offline {
    type Storage = MemoryOfflineStore;

    async fn create(&self) -> Result<MemoryOfflineStore> {
        Ok(MemoryOfflineStore::new())
    }

    async fn open(&self, storage: &MemoryOfflineStore, _: &OpenContext) -> Result<Arc<dyn OfflineStore>> {
        Ok(Arc::new(storage.clone()))
    }

    async fn plain(&self, storage: &MemoryOfflineStore, log: &LogId) -> Result<Vec<RecordBatch>> {
        plain(storage, log).await
    }
}

/// All rows of a log.
pub(crate) async fn plain(store: &MemoryOfflineStore, log: &LogId) -> Result<Vec<RecordBatch>> {
    let (log, request) = (store.log(log), ScanRequest::default());
    let mut rows = Vec::new();
    for fragment in log.fragments(&request).await? {
        let batches = log.read(&fragment, &request).await?.try_collect::<Vec<_>>().await?;
        rows.extend(batches.into_iter().map(|batch| batch.rows));
    }
    Ok(rows)
}

pub(crate) struct Batch;

#[async_trait]
impl BatchFixture for Batch {
    type Table = MemoryBatchSource;

    async fn create(&self, pieces: &[RecordBatch]) -> Result<MemoryBatchSource> {
        let table = MemoryBatchSource::new(name("table")).with_fragment_rows(1000);
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

/// Streams of encoded records, or of rows; bounded or not.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stream {
    pub(crate) bounded: bool,
    pub(crate) rows: bool,
    /// Delivered as unkindly as the contract allows.
    pub(crate) shuffled: bool,
}

fn split(index: usize) -> SplitId {
    SplitId::from(format!("split-{index:03}").as_str())
}

#[async_trait]
impl StreamFixture for Stream {
    type Stream = MemoryStreamSource;

    async fn create(&self, splits: usize) -> Result<MemoryStreamSource> {
        let stream = if self.rows {
            MemoryStreamSource::with_schema(name("stream"), Record::rows(&[])?.schema())
        } else {
            MemoryStreamSource::new(name("stream"))
        };
        for index in 0..splits {
            stream.add_split(split(index), &[]);
        }
        Ok(stream.bounded(self.bounded))
    }

    async fn open(&self, stream: &MemoryStreamSource, _: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        let stream = Arc::new(stream.clone());
        Ok(if self.shuffled { Arc::new(ShuffledStream::new(stream, 7)) } else { stream })
    }

    fn split(&self, _: &MemoryStreamSource, index: usize) -> SplitId {
        split(index)
    }

    async fn produce(&self, stream: &MemoryStreamSource, index: usize, records: &[Record]) -> Result<()> {
        for record in records {
            if self.rows {
                stream.append_rows(&split(index), &Record::rows(std::slice::from_ref(record))?, record.time)?;
            } else {
                let key = (record.number % 2 == 0).then(|| Bytes::from(record.number.to_string()));
                stream.append(&split(index), vec![(key, Some(record.json().into()), record.time)])?;
            }
        }
        Ok(())
    }

    async fn add_split(&self, stream: &MemoryStreamSource) -> Result<usize> {
        let index = stream.discover().await?.len();
        stream.add_split(split(index), &[]);
        Ok(index)
    }

    async fn end_split(&self, stream: &MemoryStreamSource, index: usize) -> Result<Vec<usize>> {
        let first = stream.discover().await?.len();
        stream.close_split(&split(index));
        for child in first..first + 2 {
            stream.add_split(split(child), &[split(index)]);
        }
        Ok(vec![first, first + 1])
    }

    fn stores_times(&self) -> bool {
        true
    }
}
