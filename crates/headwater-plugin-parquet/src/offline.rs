//! The offline store.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use headwater_core::offline::{Append, Compaction, LOG_POSITION, LOG_SPLIT, LogEnd, LogId, LogRange, OfflineStore};
use headwater_core::options::Config;
use headwater_core::{BatchSource, Error, Result, SplitId};
use object_store::ObjectStore;

use crate::compact;
use crate::config::ParquetConfig;
use crate::file::{Footers, Format, Piece};
use crate::log::{self, Log};
use crate::scan::LogSource;
use crate::storage::{Storage, blocking};

/// Splits whose ends are read at once.
const CONCURRENT_READS: usize = 16;

/// An offline store of Parquet files, which any number of processes may share.
#[derive(Debug, Clone)]
pub struct ParquetOfflineStore {
    storage: Storage,
    footers: Arc<Footers>,
    format: Format,
}

impl ParquetOfflineStore {
    /// A store in the folder or under the URL that the options name. Nothing is touched before the first call.
    ///
    /// # Errors
    /// `Invalid` for options that cannot be right, `Unsupported` for URLs that this build does not speak.
    pub fn open(options: &ParquetConfig, config: &Config) -> Result<Self> {
        let wrong = |fault: String| Error::invalid(format!("{}: {fault}", config.name));
        if options.path.is_empty() {
            return Err(wrong("option `path` is empty; it takes a folder such as `data/offline`".into()));
        }
        let path = config.resolve(&options.path);
        let storage = match path.split_once("://") {
            None => Storage::local(PathBuf::from(path)),
            Some(("file", path)) => Storage::local(PathBuf::from(path)),
            Some(("s3" | "s3a", rest)) => s3(rest)?,
            Some((scheme, _)) => {
                return Err(wrong(format!(
                    "option `path`: `{scheme}://` is not supported; it takes a folder or an `s3://bucket/prefix` URL"
                )));
            }
        };
        Ok(Self::new(storage, format(options).map_err(wrong)?))
    }

    /// A store in any object store, such as one that no URL of `path` names; the option `path` is the prefix of all
    /// names. The object store has to honour conditional writes, `PutMode::Create` and `PutMode::Update`.
    ///
    /// # Errors
    /// `Invalid` for options that cannot be right.
    pub fn in_object_store(store: Arc<dyn ObjectStore>, options: &ParquetConfig) -> Result<Self> {
        Ok(Self::new(Storage::remote(store, &options.path), format(options).map_err(Error::invalid)?))
    }

    fn new(storage: Storage, format: Format) -> Self {
        Self { storage, footers: Arc::default(), format }
    }

    /// Ends the store, as if its process were killed, before its step number `steps` that would change anything.
    #[cfg(test)]
    pub(crate) fn crash_after(mut self, steps: usize) -> Self {
        self.storage.crash_after(steps);
        self
    }

    fn open_log(&self, log: &LogId) -> Result<Log> {
        Ok(Log {
            storage: self.storage.clone(),
            footers: Arc::clone(&self.footers),
            format: self.format,
            folder: log::folder(log)?,
        })
    }
}

fn format(options: &ParquetConfig) -> Result<Format, String> {
    let row_group_rows = usize::try_from(options.row_group_rows)
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or("option `row_group_rows` takes a number from 1")?;
    Ok(Format { compression: options.compression, row_group_rows })
}

#[cfg(feature = "s3")]
fn s3(rest: &str) -> Result<Storage> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let store = object_store::aws::AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .build()
        .map_err(|error| crate::error::object(error, format!("s3://{rest}")))?;
    Ok(Storage::remote(Arc::new(store), prefix))
}

#[cfg(not(feature = "s3"))]
fn s3(rest: &str) -> Result<Storage> {
    Err(Error::unsupported(format!(
        "`s3://{rest}`: object stores are not compiled in: build with the cargo feature `s3` of `headwater-plugin-parquet`"
    )))
}

/// Checks what the contract leaves to the caller where it costs next to nothing.
fn check(split: &SplitId, rows: &RecordBatch, range: &LogRange) -> Result<()> {
    if range.after >= range.through {
        return Err(Error::invalid(format!("the range {range:?} is empty")));
    }
    if split.as_bytes().is_empty() {
        return Err(Error::invalid("a split without a name cannot be a folder's"));
    }
    let is = |column: &str, wanted: &DataType| {
        rows.column_by_name(column).is_some_and(|column| column.data_type() == wanted && column.null_count() == 0)
    };
    if !is(LOG_SPLIT, &DataType::Utf8) || !is(LOG_POSITION, &DataType::Binary) {
        return Err(Error::invalid(format!(
            "rows of a log need the columns `{LOG_SPLIT}` (utf8) and `{LOG_POSITION}` (binary), without nulls"
        )));
    }
    let positions = rows.column_by_name(LOG_POSITION).and_then(|column| column.as_binary_opt::<i32>());
    if let Some(positions) = positions.filter(|positions| !positions.is_empty()) {
        let (first, last) = (positions.value(0), positions.value(positions.len() - 1));
        if first <= range.after.as_bytes() || last > range.through.as_bytes() {
            return Err(Error::invalid(format!("there are rows outside of the range {range:?}")));
        }
    }
    Ok(())
}

#[async_trait]
impl OfflineStore for ParquetOfflineStore {
    async fn append(
        &self,
        log: &LogId,
        split: &SplitId,
        rows: RecordBatch,
        range: LogRange,
        metadata: BTreeMap<String, String>,
    ) -> Result<Append> {
        check(split, &rows, &range)?;
        let log = self.open_log(log)?;
        compact::repair(&log).await?;
        log.storage.clean(&format!("{}/{split}", log.folder)).await?;
        let last = log.last(&log.list_split(split).await?).await?;
        if last.map_or(headwater_core::Position::START, |last| last.piece.through.clone()) != range.after {
            return Ok(Append::Conflict);
        }
        // From here on the name decides: it is free exactly as long as nobody has published after the same end.
        let path = log.file(split, &range.after);
        let piece = Piece { after: range.after, through: range.through, metadata, moved: None, compaction: None };
        let format = log.format;
        let bytes = blocking(move || format.encode(&piece, &rows.schema(), [Ok(rows)])).await?;
        Ok(if log.storage.create(&path, bytes).await? { Append::Published } else { Append::Conflict })
    }

    async fn ends(&self, log: &LogId) -> Result<BTreeMap<SplitId, LogEnd>> {
        let log = self.open_log(log)?;
        let listing = log.list().await?;
        if listing.journal {
            compact::repair(&log).await?;
        }
        let log = &log;
        futures::stream::iter(listing.splits)
            .map(|(split, files)| async move {
                let end = log
                    .last(&files)
                    .await?
                    .map(|last| LogEnd { through: last.piece.through.clone(), metadata: last.piece.metadata.clone() });
                Ok(end.map(|end| (split, end)))
            })
            .buffered(CONCURRENT_READS)
            .try_filter_map(|end| async { Ok(end) })
            .try_collect()
            .await
    }

    fn log(&self, log: &LogId) -> Arc<dyn BatchSource> {
        Arc::new(LogSource::new(log.clone(), self.open_log(log)))
    }

    async fn logs(&self) -> Result<Vec<LogId>> {
        let mut logs = Vec::new();
        for view_folder in self.storage.folders("").await? {
            let Some(view) = log::name(&view_folder) else { continue };
            for generation_folder in self.storage.folders(&view_folder).await? {
                let Some(generation) = log::name(&generation_folder) else { continue };
                let id = LogId { view: view.clone(), generation };
                // A folder may be what is left of a first append that was broken off.
                let log = self.open_log(&id)?;
                let listing = log.list().await?;
                if listing.journal {
                    compact::repair(&log).await?;
                }
                if !listing.splits.is_empty() {
                    logs.push(id);
                }
            }
        }
        logs.sort();
        Ok(logs)
    }

    async fn compact(&self, log: &LogId) -> Result<Compaction> {
        compact::compact(&self.open_log(log)?).await
    }

    async fn remove(&self, log: &LogId) -> Result<()> {
        self.storage.remove(&log::folder(log)?).await
    }
}

#[cfg(test)]
mod tests;
