//! The reference of [`OfflineStore`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::batch::{columns_in, fragment};
use super::lock;
use super::table::{check_columns, concat, project, union_schema};
use crate::batch::{BatchSource, Fragment, Positions, ScanBatch, ScanRequest, ScanStream};
use crate::error::{Error, Result};
use crate::offline::{Append, Compaction, LOG_POSITION, LOG_SPLIT, LogEnd, LogId, LogRange, OfflineStore};
use crate::position::{Position, SplitId};

#[derive(Clone)]
struct Piece {
    range: LogRange,
    rows: RecordBatch,
    metadata: BTreeMap<String, String>,
}

type Splits = BTreeMap<SplitId, Vec<Piece>>;

/// An offline store in memory. Clones share their logs.
#[derive(Clone, Default)]
pub struct MemoryOfflineStore {
    logs: Arc<Mutex<BTreeMap<LogId, Splits>>>,
}

impl MemoryOfflineStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for MemoryOfflineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOfflineStore").field("logs", &lock(&self.logs).len()).finish()
    }
}

#[async_trait]
impl OfflineStore for MemoryOfflineStore {
    async fn append(
        &self,
        log: &LogId,
        split: &SplitId,
        rows: RecordBatch,
        range: LogRange,
        metadata: BTreeMap<String, String>,
    ) -> Result<Append> {
        if range.after >= range.through {
            return Err(Error::invalid(format!("the range {range:?} is empty")));
        }
        check_columns(&rows.schema(), [&LOG_SPLIT.to_owned(), &LOG_POSITION.to_owned()])?;
        let mut logs = lock(&self.logs);
        let end = logs.get(log).and_then(|splits| splits.get(split)).and_then(|pieces| pieces.last());
        if end.map_or(&Position::START, |piece| &piece.range.through) != &range.after {
            return Ok(Append::Conflict);
        }
        let pieces = logs.entry(log.clone()).or_default().entry(split.clone()).or_default();
        pieces.push(Piece { range, rows, metadata });
        Ok(Append::Published)
    }

    async fn ends(&self, log: &LogId) -> Result<BTreeMap<SplitId, LogEnd>> {
        let logs = lock(&self.logs);
        let splits = logs.get(log).into_iter().flatten();
        Ok(splits
            .filter_map(|(split, pieces)| {
                let last = pieces.last()?;
                let end = LogEnd { through: last.range.through.clone(), metadata: last.metadata.clone() };
                Some((split.clone(), end))
            })
            .collect())
    }

    fn log(&self, log: &LogId) -> Arc<dyn BatchSource> {
        Arc::new(MemoryLog { store: self.clone(), log: log.clone() })
    }

    async fn logs(&self) -> Result<Vec<LogId>> {
        Ok(lock(&self.logs).keys().cloned().collect())
    }

    async fn compact(&self, log: &LogId) -> Result<Compaction> {
        let mut logs = lock(&self.logs);
        let mut done = Compaction::default();
        for pieces in logs.get_mut(log).into_iter().flat_map(BTreeMap::values_mut) {
            let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { continue };
            let rows = pieces.iter().map(|piece| piece.rows.clone()).collect::<Vec<_>>();
            let merged = Piece {
                range: LogRange { after: first.range.after.clone(), through: last.range.through.clone() },
                rows: concat(&union_schema(rows.iter()), &rows)?,
                metadata: last.metadata.clone(),
            };
            done.before += u64::try_from(pieces.len()).unwrap_or(u64::MAX);
            done.after += 1;
            *pieces = vec![merged];
        }
        Ok(done)
    }

    async fn remove(&self, log: &LogId) -> Result<()> {
        lock(&self.logs).remove(log);
        Ok(())
    }
}

/// One log as a table. A fragment is a range of positions of one split, so that one that was listed before a
/// compaction still finds its rows after it.
#[derive(Debug)]
struct MemoryLog {
    store: MemoryOfflineStore,
    log: LogId,
}

impl MemoryLog {
    fn splits(&self) -> Option<(SchemaRef, Splits)> {
        let splits = lock(&self.store.logs).get(&self.log)?.clone();
        let schema = union_schema(splits.values().flatten().map(|piece| &piece.rows));
        Some((schema, splits))
    }
}

#[async_trait]
impl BatchSource for MemoryLog {
    fn identity(&self) -> String {
        format!("memory:{}", self.log)
    }

    async fn schema(&self) -> Result<SchemaRef> {
        let there = self.splits().map(|(schema, _)| schema);
        there.ok_or_else(|| Error::not_found(format!("there is no log `{}`", self.log)))
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let Some((schema, splits)) = self.splits() else { return Ok(Vec::new()) };
        check_columns(&schema, columns_in(request))?;
        let mut fragments = Vec::new();
        for (split, pieces) in splits {
            for piece in pieces.iter().filter(|piece| piece.rows.num_rows() > 0) {
                let rows = concat(&schema, std::slice::from_ref(&piece.rows))?;
                let token = Bytes::from(format!("{}:{}", piece.range.after, piece.range.through));
                fragments.extend(fragment(&split, &rows, request, token)?);
            }
        }
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let gone = || Error::not_found(format!("there is no fragment {fragment:?} in log `{}`", self.log));
        let (schema, splits) = self.splits().ok_or_else(gone)?;
        let pieces = splits.get(&fragment.split).ok_or_else(gone)?;
        let (after, through) =
            std::str::from_utf8(&fragment.token).ok().and_then(|text| text.split_once(':')).ok_or_else(gone)?;
        let (after, through) = (after.parse::<Position>()?, through.parse::<Position>()?);

        // Pieces may have been merged since the fragment was listed, and hold more than it.
        let of_fragment = pieces.iter().filter(|piece| piece.range.after < through && after < piece.range.through);
        let rows = of_fragment.map(|piece| piece.rows.clone()).collect::<Vec<_>>();
        let rows = concat(&schema, &rows)?;
        let inside = positions_of(&rows)?
            .iter()
            .map(|position| Some(position.is_some_and(|p| after.as_bytes() < p && p <= through.as_bytes())))
            .collect::<BooleanArray>();
        let rows = filter_record_batch(&rows, &inside)?;
        let positions = Positions::Each(positions_of(&rows)?.clone());
        let rows = project(&rows, request.columns.as_deref())?;
        Ok(futures::stream::iter([Ok(ScanBatch { rows, positions })]).boxed())
    }
}

fn positions_of(rows: &RecordBatch) -> Result<&BinaryArray> {
    rows.column_by_name(LOG_POSITION)
        .and_then(|column| column.as_binary_opt::<i32>())
        .filter(|positions| positions.null_count() == 0)
        .ok_or_else(|| Error::invalid(format!("a log needs a binary column `{LOG_POSITION}` without nulls")))
}
