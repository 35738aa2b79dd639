//! Broken offline stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Float64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use headwater_core::batch::{Fragment, Positions, ScanBatch, ScanRequest, ScanStream};
use headwater_core::memory::MemoryOfflineStore;
use headwater_core::offline::{Append, Compaction, LOG_POSITION, LOG_SPLIT, LogEnd, LogId, LogRange};
use headwater_core::plugin::OpenContext;
use headwater_core::{BatchSource, Error, OfflineStore, Position, Result, SplitId};
use headwater_testkit::offline::{OfflineFixture, suite};

use super::{Broken, broken};
use crate::fixtures::plain;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    AcceptsGaps,
    ConflictKeepsItsMetadata,
    ForgetsAnEmptyFirstPiece,
    LosesEmptyMetadata,
    MixesUpTwoEnds,
    SplitIdsAreText,
    PositionsAreNumbers,
    BothWritersWin,
    OtherProcessesLagBehind,
    PlainReadersSeeMergedFilesToo,
    PublishesInTwoSteps,
    ListsLargePiecesTwice,
    ColumnsAsStored,
    NullsAreZero,
    LeavesOutTheUpperBound,
    Reversed,
    OneRowForEachRecord,
    ColumnsOfTheFirstPiece,
    SchemaOfNothing,
    HidesSomeLogs,
    EndsOfTheFirstGeneration,
    ListsRemovedLogs,
    CompactionLosesASplit,
    CompactionDoesNothing,
    CompactionEmptiesListedFragments,
    CompactionForgetsWhatCameMeanwhile,
    CompactionFreesNames,
    CompactionRemovesFirst,
}

use Fault::*;

const FAULTS: [(Fault, &str); 28] = [
    (AcceptsGaps, "offline::pieces-chain"),
    (ConflictKeepsItsMetadata, "offline::conflict-writes-nothing"),
    (ForgetsAnEmptyFirstPiece, "offline::empty-piece-moves-the-end"),
    (LosesEmptyMetadata, "offline::metadata-comes-back"),
    (MixesUpTwoEnds, "offline::ends-of-every-split"),
    (SplitIdsAreText, "offline::split-ids-are-any-bytes"),
    (PositionsAreNumbers, "offline::positions-are-any-bytes"),
    (BothWritersWin, "offline::one-of-two-writers-loses"),
    (OtherProcessesLagBehind, "offline::durable-when-published"),
    (PlainReadersSeeMergedFilesToo, "offline::visible-to-plain-readers"),
    (PublishesInTwoSteps, "offline::dropped-append-is-whole-or-nothing"),
    (ListsLargePiecesTwice, "offline::scan-gives-each-row-once"),
    (ColumnsAsStored, "offline::scan-projects-columns"),
    (NullsAreZero, "offline::scan-gives-values-unchanged"),
    (LeavesOutTheUpperBound, "offline::pruning-loses-nothing"),
    (Reversed, "offline::fragments-in-order"),
    (OneRowForEachRecord, "offline::rows-of-one-record"),
    (ColumnsOfTheFirstPiece, "offline::added-columns-are-null-in-older-rows"),
    (SchemaOfNothing, "offline::missing-log-has-no-rows"),
    (HidesSomeLogs, "offline::logs-are-listed"),
    (EndsOfTheFirstGeneration, "offline::logs-are-apart"),
    (ListsRemovedLogs, "offline::remove-removes-all"),
    (CompactionLosesASplit, "offline::compact-keeps-everything"),
    (CompactionDoesNothing, "offline::compact-merges"),
    (CompactionEmptiesListedFragments, "offline::compact-lets-readers-go-on"),
    (CompactionForgetsWhatCameMeanwhile, "offline::compact-lets-writers-go-on"),
    (CompactionFreesNames, "offline::compacted-names-stay-taken"),
    (CompactionRemovesFirst, "offline::dropped-compaction-is-repaired"),
];

pub(super) fn all() -> Vec<Broken> {
    FAULTS.into_iter().map(|(fault, clause)| broken(fault, clause, move || suite(Fixture(fault)))).collect()
}

struct Fixture(Fault);

/// What the handles on one storage share.
#[derive(Debug, Default)]
struct Shared {
    inner: MemoryOfflineStore,
    handles: AtomicUsize,
    compactions: AtomicU64,
    removed: Mutex<BTreeSet<LogId>>,
    strays: Mutex<BTreeMap<SplitId, BTreeMap<String, String>>>,
    writing: tokio::sync::Mutex<()>,
}

#[async_trait]
impl OfflineFixture for Fixture {
    type Storage = Arc<Shared>;

    async fn create(&self) -> Result<Arc<Shared>> {
        Ok(Arc::default())
    }

    async fn open(&self, shared: &Arc<Shared>, _: &OpenContext) -> Result<Arc<dyn OfflineStore>> {
        let number = shared.handles.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Store { fault: self.0, shared: Arc::clone(shared), first: number == 0 }))
    }

    async fn plain(&self, shared: &Arc<Shared>, log: &LogId) -> Result<Vec<RecordBatch>> {
        let mut rows = plain(&shared.inner, log).await?;
        if self.0 == PlainReadersSeeMergedFilesToo && shared.compactions.load(Ordering::SeqCst) > 0 {
            rows.extend(rows.clone());
        }
        Ok(rows)
    }
}

#[derive(Debug)]
struct Store {
    fault: Fault,
    shared: Arc<Shared>,
    /// No other handle was there before this one.
    first: bool,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.handles.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    async fn end(&self, log: &LogId, split: &SplitId) -> Result<Position> {
        let ends = self.shared.inner.ends(log).await?;
        Ok(ends.get(split).map_or(Position::START, |end| end.through.clone()))
    }

    /// Takes the log apart and writes it anew, one piece for each split.
    async fn rewrite(&self, log: &LogId) -> Result<()> {
        let inner = &self.shared.inner;
        let ends = inner.ends(log).await?;
        let mut pieces = Vec::new();
        for (split, end) in ends {
            let rows = plain(inner, log).await?;
            let text = split.to_string();
            let mut of_split = Vec::new();
            for batch in rows {
                let splits = batch.column_by_name(LOG_SPLIT).unwrap().as_string::<i32>();
                let keep = splits.iter().map(|split| Some(split == Some(text.as_str()))).collect();
                of_split.push(filter_record_batch(&batch, &keep)?);
            }
            let Some(first) = of_split.first() else { continue };
            pieces.push((split, concat_batches(&first.schema(), &of_split)?, end));
        }
        if self.fault == CompactionForgetsWhatCameMeanwhile {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        inner.remove(log).await?;
        if self.fault == CompactionRemovesFirst {
            tokio::task::yield_now().await;
        }
        for (split, rows, end) in pieces {
            if self.fault == CompactionLosesASplit && split.as_bytes().contains(&0) {
                continue;
            }
            let range = LogRange { after: Position::START, through: end.through };
            inner.append(log, &split, rows, range, end.metadata).await?;
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl OfflineStore for Store {
    async fn append(
        &self,
        log: &LogId,
        split: &SplitId,
        rows: RecordBatch,
        mut range: LogRange,
        mut metadata: BTreeMap<String, String>,
    ) -> Result<Append> {
        let inner = &self.shared.inner;
        let _writing = match self.fault {
            PublishesInTwoSteps | CompactionRemovesFirst | CompactionLosesASplit => {
                Some(self.shared.writing.lock().await)
            }
            _ => None,
        };
        let end = self.end(log, split).await?;
        match self.fault {
            AcceptsGaps if range.after > end => range.after = end.clone(),
            ForgetsAnEmptyFirstPiece if rows.num_rows() == 0 && end == Position::START => {
                return Ok(Append::Published);
            }
            LosesEmptyMetadata => metadata.retain(|_, value| !value.is_empty()),
            BothWritersWin => tokio::time::sleep(Duration::from_millis(1)).await,
            PublishesInTwoSteps if rows.num_rows() > 1 => {
                let half = rows.num_rows() / 2;
                let positions = rows.column_by_name(LOG_POSITION).unwrap().as_binary::<i32>();
                if positions.value(half - 1) != positions.value(half) {
                    let middle = Position::new(positions.value(half - 1).to_vec());
                    let first = LogRange { after: range.after, through: middle.clone() };
                    let first = inner.append(log, split, rows.slice(0, half), first, BTreeMap::new()).await?;
                    if first == Append::Conflict {
                        return Ok(first);
                    }
                    tokio::task::yield_now().await;
                    let second = LogRange { after: middle, through: range.through };
                    return inner.append(log, split, rows.slice(half, rows.num_rows() - half), second, metadata).await;
                }
            }
            _ => {}
        }
        let after = range.after.clone();
        let done = inner.append(log, split, rows, range, metadata.clone()).await?;
        if done == Append::Conflict {
            let compacted = self.shared.compactions.load(Ordering::SeqCst) > 0;
            match self.fault {
                ConflictKeepsItsMetadata => {
                    self.shared.strays.lock().unwrap().insert(split.clone(), metadata);
                }
                BothWritersWin if end == after => return Ok(Append::Published),
                CompactionFreesNames if compacted && after < end => return Ok(Append::Published),
                _ => {}
            }
        }
        Ok(done)
    }

    async fn ends(&self, log: &LogId) -> Result<BTreeMap<SplitId, LogEnd>> {
        let mut log = log.clone();
        if self.fault == EndsOfTheFirstGeneration && log.generation == "2" {
            log.generation = "1".into();
        }
        let mut ends = self.shared.inner.ends(&log).await?;
        match self.fault {
            MixesUpTwoEnds if ends.len() == 2 => {
                let mut values = ends.values().rev().cloned().collect::<Vec<_>>().into_iter();
                ends.values_mut().zip(&mut values).for_each(|(end, other)| *end = other);
            }
            SplitIdsAreText => {
                let text = |split: SplitId| SplitId::from(String::from_utf8_lossy(split.as_bytes()).as_ref());
                ends = ends.into_iter().map(|(split, end)| (text(split), end)).collect();
            }
            ConflictKeepsItsMetadata => {
                for (split, metadata) in self.shared.strays.lock().unwrap().iter() {
                    if let Some(end) = ends.get_mut(split) {
                        end.metadata.clone_from(metadata);
                    }
                }
            }
            _ => {}
        }
        Ok(ends)
    }

    fn log(&self, log: &LogId) -> Arc<dyn BatchSource> {
        let inner = self.shared.inner.log(log);
        Arc::new(Log { fault: self.fault, shared: Arc::clone(&self.shared), inner, first: self.first })
    }

    async fn logs(&self) -> Result<Vec<LogId>> {
        let mut logs = self.shared.inner.logs().await?;
        match self.fault {
            HidesSomeLogs => logs.retain(|log| !log.view.starts_with('_')),
            ListsRemovedLogs => logs.extend(self.shared.removed.lock().unwrap().iter().cloned()),
            _ => {}
        }
        Ok(logs)
    }

    async fn compact(&self, log: &LogId) -> Result<Compaction> {
        let _writing = match self.fault {
            CompactionRemovesFirst | CompactionLosesASplit => Some(self.shared.writing.lock().await),
            _ => None,
        };
        self.shared.compactions.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            CompactionDoesNothing => {
                let pieces = self.log(log).fragments(&ScanRequest::default()).await?.len().try_into().unwrap();
                return Ok(Compaction { before: pieces, after: pieces });
            }
            CompactionRemovesFirst | CompactionForgetsWhatCameMeanwhile | CompactionLosesASplit => {
                self.rewrite(log).await?;
                return Ok(Compaction { before: 40, after: 1 });
            }
            _ => {}
        }
        self.shared.inner.compact(log).await
    }

    async fn remove(&self, log: &LogId) -> Result<()> {
        self.shared.removed.lock().unwrap().insert(log.clone());
        self.shared.inner.remove(log).await
    }
}

#[derive(Debug)]
struct Log {
    fault: Fault,
    shared: Arc<Shared>,
    inner: Arc<dyn BatchSource>,
    first: bool,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BatchSource for Log {
    fn identity(&self) -> String {
        self.inner.identity()
    }

    async fn schema(&self) -> Result<SchemaRef> {
        match self.inner.schema().await {
            Err(_) if self.fault == SchemaOfNothing => Ok(Arc::new(Schema::empty())),
            Ok(schema) if self.fault == ColumnsOfTheFirstPiece && schema.fields().len() > 6 => {
                Ok(Arc::new(schema.project(&[0, 1, 2, 3, 4, 5])?))
            }
            schema => schema,
        }
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let mut fragments = self.inner.fragments(request).await?;
        let upper = request.time.as_ref().and_then(|time| time.to);
        match self.fault {
            OtherProcessesLagBehind if !self.first => {
                fragments.pop();
            }
            ListsLargePiecesTwice => {
                if let Some(large) = fragments.iter().find(|fragment| fragment.rows >= Some(400)).cloned() {
                    fragments.push(large);
                }
            }
            LeavesOutTheUpperBound => {
                fragments.retain(|fragment| upper.is_none_or(|to| fragment.time.is_none_or(|(low, _)| low < to)));
            }
            Reversed => fragments.reverse(),
            OneRowForEachRecord => fragments.iter_mut().for_each(|fragment| fragment.rows = None),
            CompactionEmptiesListedFragments => {
                let compactions = self.shared.compactions.load(Ordering::SeqCst).to_be_bytes();
                for fragment in &mut fragments {
                    fragment.token = Bytes::from([&compactions, fragment.token.as_ref()].concat());
                }
            }
            _ => {}
        }
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let (mut fragment, mut request) = (fragment.clone(), request.clone());
        if self.fault == CompactionEmptiesListedFragments {
            let compactions = fragment.token.split_to(8);
            if *compactions != self.shared.compactions.load(Ordering::SeqCst).to_be_bytes() {
                return Ok(futures::stream::empty().boxed());
            }
        }
        if self.fault == ColumnsAsStored
            && let Some(columns) = &mut request.columns
        {
            let schema = self.inner.schema().await?;
            columns.sort_by_key(|column| schema.index_of(column).unwrap_or_default());
        }
        let fault = self.fault;
        let stream = self.inner.read(&fragment, &request).await?;
        Ok(stream.and_then(move |batch| async move { spoil(fault, batch) }).boxed())
    }
}

fn spoil(fault: Fault, mut batch: ScanBatch) -> Result<ScanBatch> {
    let Positions::Each(positions) = batch.positions.clone() else {
        return Err(Error::unexpected("the reference gives each position"));
    };
    match fault {
        PositionsAreNumbers => {
            let numbers = positions.iter().map(|position| {
                let number = Position::new(position.unwrap_or_default().to_vec()).to_u64().unwrap_or_default();
                number.to_be_bytes()
            });
            batch.positions = Positions::Each(BinaryArray::from_iter_values(numbers));
        }
        NullsAreZero => {
            if let Ok(index) = batch.rows.schema().index_of("value") {
                let mut columns = batch.rows.columns().to_vec();
                let values = columns[index].as_primitive::<Float64Type>();
                let filled: ArrayRef = Arc::new(values.iter().map(|v| v.or(Some(0.0))).collect::<Float64Array>());
                columns[index] = filled;
                batch.rows = RecordBatch::try_new(batch.rows.schema(), columns)?;
            }
        }
        OneRowForEachRecord => {
            let first = |index: &usize| *index == 0 || positions.value(*index) != positions.value(index - 1);
            let keep = (0..positions.len()).map(|index| Some(first(&index))).collect();
            batch.rows = filter_record_batch(&batch.rows, &keep)?;
            let kept = (0..positions.len()).filter(first).map(|index| positions.value(index));
            batch.positions = Positions::Each(BinaryArray::from_iter_values(kept));
        }
        _ => {}
    }
    Ok(batch)
}
