//! Parquet: footers and row groups.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};
use headwater_core::Result;
use headwater_core::batch::{Positions, ScanBatch, ScanStream};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::location::Object;
use crate::error;
use crate::sizes::{count, decoded_bytes};
use crate::union::Alignment;

/// The memory that remembered footers may take.
const FOOTER_BYTES: usize = 128 << 20;

/// How much of a file's end is read at first: the footer of most files.
const FOOTER_HINT: usize = 64 << 10;

/// Footers of files that have not changed, so that each is read once, within a bound.
#[derive(Debug, Default)]
pub(super) struct Footers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_path: HashMap<ObjectPath, (Object, ArrowReaderMetadata)>,
    /// Oldest first.
    order: VecDeque<ObjectPath>,
    bytes: usize,
}

impl Footers {
    /// The footer of a file.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, where it has none.
    pub(super) async fn get(&self, store: &Arc<dyn ObjectStore>, object: &Object) -> Result<ArrowReaderMetadata> {
        let known = self.lock().by_path.get(&object.path).cloned();
        if let Some((_, footer)) = known.filter(|(kept, _)| kept == object) {
            return Ok(footer);
        }
        let mut reader = Stored::new(store, object);
        let footer = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new())
            .await
            .map_err(|e| error::parquet(e, &object.shown))?;
        self.keep(object, &footer);
        Ok(footer)
    }

    fn keep(&self, object: &Object, footer: &ArrowReaderMetadata) {
        let mut kept = self.lock();
        let kept = &mut *kept;
        match kept.by_path.insert(object.path.clone(), (object.clone(), footer.clone())) {
            Some((_, old)) => kept.bytes -= old.metadata().memory_size(),
            None => kept.order.push_back(object.path.clone()),
        }
        kept.bytes += footer.metadata().memory_size();
        while kept.bytes > FOOTER_BYTES {
            let Some(oldest) = kept.order.pop_front() else { return };
            if let Some((_, old)) = kept.by_path.remove(&oldest) {
                kept.bytes -= old.metadata().memory_size();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is remembered may be forgotten, but is never half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file as the Parquet reader wants it.
struct Stored {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    size: u64,
}

impl Stored {
    fn new(store: &Arc<dyn ObjectStore>, object: &Object) -> Self {
        Self { store: Arc::clone(store), path: object.path.clone(), size: object.size }
    }
}

impl AsyncFileReader for Stored {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.store.get_range(&self.path, range).map_err(Into::into).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_HINT));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Reads one row group.
///
/// Its asked columns are fetched at once, as they are stored; batches are decoded one by one as they are polled, on the
/// polling task: as many cores work as there are tasks that read fragments.
pub(super) fn read(
    store: &Arc<dyn ObjectStore>,
    object: &Object,
    footer: ArrowReaderMetadata,
    group: usize,
    first: u64,
    alignment: Alignment,
) -> Result<ScanStream> {
    let mask = ProjectionMask::roots(footer.parquet_schema(), alignment.decode().iter().copied());
    let rows = batch_rows(&footer, group, &mask);
    let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(Stored::new(store, object), footer)
        .with_row_groups(vec![group])
        .with_projection(mask)
        .with_batch_size(rows)
        .build()
        .map_err(|e| error::parquet(e, &object.shown))?;
    let shown = object.shown.clone();
    let batches = stream.scan(first, move |next, batch| {
        let scanned =
            batch.map_err(|e| error::parquet(e, &shown)).and_then(|batch| alignment.apply(&batch)).map(|rows| {
                let first = *next;
                *next += rows.num_rows() as u64;
                ScanBatch { rows, positions: Positions::Consecutive(first) }
            });
        std::future::ready(Some(scanned))
    });
    Ok(batches.boxed())
}

/// How many rows make a batch of a few megabytes.
fn batch_rows(footer: &ArrowReaderMetadata, group: usize, mask: &ProjectionMask) -> usize {
    const BATCH_BYTES: u64 = 4 << 20;
    let Some(group) = footer.metadata().row_groups().get(group) else { return 8192 };
    let asked = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
    let bytes: u64 = asked.map(|(_, chunk)| decoded_bytes(chunk)).sum();
    let row = (bytes / count(group.num_rows()).max(1)).max(1);
    usize::try_from(BATCH_BYTES / row).unwrap_or(usize::MAX).clamp(1024, 65_536)
}
