//! The suite for [`OfflineStore`].

mod appends;
mod compaction;
mod logs;
mod random;
mod scans;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use headwater_core::batch::ScanRequest;
use headwater_core::offline::{Append, LOG_POSITION, LOG_SPLIT, LogId, LogRange, OfflineStore};
use headwater_core::plugin::OpenContext;
use headwater_core::time::ManualClock;
use headwater_core::{Error, Position, Result, SplitId};

use crate::clause::{same, suite};
use crate::rows::{Scanned, scan, table_rows, time_of};
use crate::{Clause, Verdict, context};

/// How to make an offline store.
#[async_trait]
pub trait OfflineFixture: Send + Sync + 'static {
    /// What outlives a store: a folder. Dropping it removes it.
    type Storage: Send + Sync + 'static;

    /// Fresh, empty storage that nobody else has.
    async fn create(&self) -> Result<Self::Storage>;

    /// Opens the storage as a process would that finds it. Called again and again, also while an earlier store is
    /// still open, as by a second process.
    async fn open(&self, storage: &Self::Storage, context: &OpenContext) -> Result<Arc<dyn OfflineStore>>;

    /// Reads all rows of a log as somebody would who knows nothing of Headwater: every published file in the folder
    /// of the log, in any order.
    ///
    /// # Errors
    /// `Unsupported` (as this default) where the storage has no such readers.
    async fn plain(&self, storage: &Self::Storage, log: &LogId) -> Result<Vec<RecordBatch>> {
        let _ = (storage, log);
        Err(Error::unsupported("the storage has no plain readers"))
    }
}

/// The clauses of [`OfflineStore`]'s contract.
pub fn suite(fixture: impl OfflineFixture) -> Vec<Clause> {
    suite! { fixture;
        "offline::pieces-chain" appends::chain,
            "A piece is only published where `range.after` is the split's end;";
        "offline::conflict-writes-nothing" appends::conflict,
            "Somebody published under the same predecessor before; nothing was written.";
        "offline::empty-piece-moves-the-end" appends::empty_piece,
            "`rows` may be empty: the piece then only moves the end.";
        "offline::metadata-comes-back" appends::metadata,
            "`metadata` is kept with the piece and given back by";
        "offline::ends-of-every-split" appends::ends,
            "The end of every split in the log; empty for a log that does not exist.";
        "offline::split-ids-are-any-bytes" appends::split_ids,
            "its split and position those of the record.";
        "offline::positions-are-any-bytes" appends::positions,
            "its split and position those of the record.";
        "offline::one-of-two-writers-loses" appends::writers,
            "of two writers that publish under the same predecessor one loses.";
        "offline::durable-when-published" appends::durable,
            "the whole piece is durable and visible to plain readers,";
        "offline::visible-to-plain-readers" appends::plain,
            "the whole piece is durable and visible to plain readers,";
        "offline::dropped-append-is-whole-or-nothing" appends::dropped,
            "a crash at any moment leaves either all of it or nothing that a reader would take for it.";
        "offline::scan-gives-each-row-once" scans::each_row_once,
            "Each published row once, its split and position those of the record.";
        "offline::scan-projects-columns" scans::projection,
            "The rows, with the columns asked for in the order asked for.";
        "offline::scan-gives-values-unchanged" scans::values,
            "Nothing published is ever changed.";
        "offline::pruning-loses-nothing" scans::pruning,
            "every row that is wanted lies in exactly one of them;";
        "offline::fragments-in-order" scans::fragments_in_order,
            "The pieces that may hold rows that `request` wants, in order of split and position.";
        "offline::rows-of-one-record" scans::rows_of_one_record,
            "(equal positions: rows of one record)";
        "offline::added-columns-are-null-in-older-rows" scans::added_columns,
            "The log as a table: join keys, event time, created, features,";
        "offline::missing-log-has-no-rows" scans::missing,
            "where nothing is there yet, and so no schema:";
        "offline::logs-are-listed" logs::listed,
            "The logs there are.";
        "offline::logs-are-apart" logs::apart,
            "A log holds the transformed rows of one view and generation, split by split.";
        "offline::remove-removes-all" logs::remove,
            "Removes the log and all its rows. One that does not exist is no error.";
        "offline::compact-keeps-everything" compaction::keeps,
            "rows, splits, positions and ends stay what they were.";
        "offline::compact-merges" compaction::merges,
            "Merges small pieces of the log.";
        "offline::compact-lets-readers-go-on" compaction::readers,
            "Readers and writers may go on meanwhile;";
        "offline::compact-lets-writers-go-on" compaction::writers,
            "Readers and writers may go on meanwhile;";
        "offline::compacted-names-stay-taken" compaction::names_stay_taken,
            "A piece is only published where `range.after` is the split's end;";
        "offline::dropped-compaction-is-repaired" compaction::dropped,
            "A crash in the midst of it is repaired by the next call of any method.";
        "offline::agrees-with-the-reference" random::agrees,
            "pieces chain without gap or overlap.";
    }
}

/// Storage with one store opened on it.
pub(crate) struct Opened<F: OfflineFixture> {
    fixture: Arc<F>,
    storage: F::Storage,
    store: Arc<dyn OfflineStore>,
}

impl<F: OfflineFixture> Opened<F> {
    async fn fresh(fixture: Arc<F>) -> Verdict<Self> {
        let storage = fixture.create().await?;
        let store = fixture.open(&storage, &a_context()).await?;
        Ok(Self { fixture, storage, store })
    }

    /// Opens the storage once more.
    async fn another(&self) -> Verdict<Arc<dyn OfflineStore>> {
        Ok(self.fixture.open(&self.storage, &a_context()).await?)
    }

    /// Leaves the storage without a store and opens it again.
    async fn reopen(self) -> Verdict<Self> {
        let Self { fixture, storage, store } = self;
        drop(store);
        let store = fixture.open(&storage, &a_context()).await?;
        Ok(Self { fixture, storage, store })
    }
}

fn a_context() -> OpenContext {
    context(Arc::new(ManualClock::new(time_of(0))))
}

fn a_log() -> LogId {
    LogId { view: "driver_hourly_stats".into(), generation: "0a1b2c3d".into() }
}

fn position(number: u64) -> Position {
    if number == 0 { Position::START } else { Position::from_u64(number) }
}

/// Covers the positions `(after, through]`.
fn range(after: u64, through: u64) -> LogRange {
    LogRange { after: position(after), through: position(through) }
}

/// Log rows of `split` at these positions; the row at position `p` has the id `p`.
fn log_rows(split: &SplitId, positions: impl IntoIterator<Item = u64>) -> Verdict<RecordBatch> {
    let positions = positions.into_iter().collect::<Vec<_>>();
    let ids = positions.iter().map(|p| i64::try_from(*p)).collect::<Result<Vec<_>, _>>()?;
    with_log_columns(&table_rows(ids)?, split, &positions.into_iter().map(Position::from_u64).collect::<Vec<_>>())
}

/// Adds the two columns of a log.
fn with_log_columns(rows: &RecordBatch, split: &SplitId, positions: &[Position]) -> Verdict<RecordBatch> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(LOG_SPLIT, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(LOG_POSITION, DataType::Binary, false)));
    let mut columns = rows.columns().to_vec();
    let split = split.to_string();
    let splits: ArrayRef = Arc::new(StringArray::from_iter_values(positions.iter().map(|_| &split)));
    let positions: ArrayRef = Arc::new(BinaryArray::from_iter_values(positions.iter().map(Position::as_bytes)));
    columns.extend([splits, positions]);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Appends the rows at the positions `(after, through]`, without metadata.
async fn append(store: &dyn OfflineStore, split: &SplitId, after: u64, through: u64) -> Verdict<Append> {
    let rows = log_rows(split, after + 1..=through)?;
    Ok(store.append(&a_log(), split, rows, range(after, through), BTreeMap::new()).await?)
}

/// As [`append`], where nobody else writes.
async fn publish(store: &dyn OfflineStore, split: &SplitId, after: u64, through: u64) -> Verdict {
    same!(append(store, split, after, through).await?, Append::Published, "append to {split} after {after}");
    Ok(())
}

/// All rows of the log, sorted by split and position.
async fn everything(store: &dyn OfflineStore) -> Verdict<Vec<Scanned>> {
    let mut rows = scan(store.log(&a_log()).as_ref(), &ScanRequest::default()).await?;
    rows.sort();
    Ok(rows)
}

/// What [`everything`] gives for the positions `1..=through` of a split.
fn expected(split: &SplitId, through: u64) -> Verdict<Vec<Scanned>> {
    (1..=through).map(|p| Ok(Scanned { split: split.clone(), position: position(p), id: i64::try_from(p)? })).collect()
}

/// Where each split ends.
async fn through(store: &dyn OfflineStore) -> Verdict<BTreeMap<SplitId, Position>> {
    Ok(store.ends(&a_log()).await?.into_iter().map(|(split, end)| (split, end.through)).collect())
}
