//! Broken batch sources.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, BinaryArray, Float64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use headwater_core::batch::{Fragment, Positions, ScanBatch, ScanRequest, ScanStream};
use headwater_core::memory::MemoryBatchSource;
use headwater_core::plugin::OpenContext;
use headwater_core::{BatchSource, Error, Result};
use headwater_testkit::batch::{BatchFixture, suite};

use super::{Broken, broken};
use crate::fixtures::{Batch, name};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SchemaOfNothing,
    PiecesOfNothingFail,
    SchemaLacksAColumn,
    IdentityChanges,
    LosesTheLastRow,
    LeavesOutTheUpperBound,
    NeverLeavesOut,
    StatisticsTooNarrow,
    Reversed,
    ColumnsAsStored,
    SkipsUnknownColumns,
    NullsAreZero,
    PositionsStandStill,
    PositionsShiftWhenPruned,
    OnlyForward,
    DropBreaksTheSource,
}

use Fault::*;

const FAULTS: [(Fault, &str); 16] = [
    (SchemaOfNothing, "batch::nothing-there-is-not-found"),
    (PiecesOfNothingFail, "batch::nothing-there-has-no-pieces"),
    (SchemaLacksAColumn, "batch::schema-has-the-columns"),
    (IdentityChanges, "batch::identity-is-stable"),
    (LosesTheLastRow, "batch::fragments-cover-each-row-once"),
    (LeavesOutTheUpperBound, "batch::pruning-loses-nothing"),
    (NeverLeavesOut, "batch::statistics-leave-pieces-out"),
    (StatisticsTooNarrow, "batch::statistics-are-true"),
    (Reversed, "batch::fragments-in-order"),
    (ColumnsAsStored, "batch::columns-in-the-order-asked-for"),
    (SkipsUnknownColumns, "batch::unknown-columns-are-invalid"),
    (NullsAreZero, "batch::values-come-as-stored"),
    (PositionsStandStill, "batch::positions-ascend"),
    (PositionsShiftWhenPruned, "batch::positions-are-stable"),
    (OnlyForward, "batch::fragments-read-in-any-order-and-at-once"),
    (DropBreaksTheSource, "batch::dropped-stream-stops-reading"),
];

pub(super) fn all() -> Vec<Broken> {
    FAULTS.into_iter().map(|(fault, clause)| broken(fault, clause, move || suite(Fixture(fault)))).collect()
}

struct Fixture(Fault);

#[async_trait]
impl BatchFixture for Fixture {
    type Table = MemoryBatchSource;

    async fn create(&self, pieces: &[RecordBatch]) -> Result<MemoryBatchSource> {
        Batch.create(pieces).await
    }

    async fn add(&self, table: &MemoryBatchSource, piece: &RecordBatch) -> Result<()> {
        Batch.add(table, piece).await
    }

    async fn open(&self, table: &MemoryBatchSource, _: &OpenContext) -> Result<Arc<dyn BatchSource>> {
        let (order, last, broken) = Default::default();
        Ok(Arc::new(Source { fault: self.0, inner: table.clone(), order, last, broken }))
    }

    fn prunes(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Source {
    fault: Fault,
    inner: MemoryBatchSource,
    /// The fragments that were listed last, and the furthest that was read.
    order: Mutex<Vec<Fragment>>,
    last: AtomicUsize,
    broken: Arc<AtomicBool>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BatchSource for Source {
    fn identity(&self) -> String {
        if self.fault == IdentityChanges { name("table") } else { self.inner.identity() }
    }

    async fn schema(&self) -> Result<SchemaRef> {
        match self.inner.schema().await {
            Err(_) if self.fault == SchemaOfNothing => Ok(Arc::new(Schema::empty())),
            Ok(schema) if self.fault == SchemaLacksAColumn => Ok(Arc::new(schema.project(&[0, 1, 2])?)),
            schema => schema,
        }
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let mut request = request.clone();
        if self.fault == SkipsUnknownColumns {
            request.columns = None;
        }
        if self.fault == NeverLeavesOut {
            request.keys = None;
            if let Some(time) = &mut request.time {
                (time.from, time.to) = (None, None);
            }
        }
        let mut fragments = self.inner.fragments(&request).await?;
        if fragments.is_empty() && self.fault == PiecesOfNothingFail && self.inner.schema().await.is_err() {
            return Err(Error::not_found("there is nothing"));
        }
        let upper = request.time.as_ref().and_then(|time| time.to);
        match self.fault {
            LeavesOutTheUpperBound => {
                fragments.retain(|fragment| upper.is_none_or(|to| fragment.time.is_none_or(|(low, _)| low < to)));
            }
            StatisticsTooNarrow => {
                for time in fragments.iter_mut().filter_map(|fragment| fragment.time.as_mut()) {
                    time.1 -= 1;
                }
            }
            Reversed => fragments.reverse(),
            // Whoever finds fewer rows than the fragment says has found the fault elsewhere.
            LosesTheLastRow => fragments.iter_mut().for_each(|fragment| fragment.rows = None),
            _ => {}
        }
        self.order.lock().unwrap().clone_from(&fragments);
        self.last.store(0, Ordering::SeqCst);
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unexpected("an earlier reader was dropped"));
        }
        let index = self.order.lock().unwrap().iter().position(|listed| listed == fragment).unwrap_or_default();
        if self.fault == OnlyForward && self.last.fetch_max(index, Ordering::SeqCst) > index {
            return Ok(futures::stream::empty().boxed());
        }
        let mut request = request.clone();
        let schema = self.inner.schema().await?;
        if let Some(columns) = &mut request.columns {
            if self.fault == ColumnsAsStored {
                columns.sort_by_key(|column| schema.index_of(column).unwrap_or_default());
            }
            if self.fault == SkipsUnknownColumns {
                columns.retain(|column| schema.index_of(column).is_ok());
            }
        }
        let last = index + 1 == self.order.lock().unwrap().len();
        let plain = request == ScanRequest::default();
        let (fault, broken) = (self.fault, Arc::clone(&self.broken));
        let stream = self.inner.read(fragment, &request).await?;
        let stream = stream.map(move |batch| spoil(fault, batch?, last && plain, !plain));
        if fault != DropBreaksTheSource {
            return Ok(stream.boxed());
        }
        // Says in time whether it was read to its end.
        struct Guard(Arc<AtomicBool>, bool);
        impl Drop for Guard {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
        }
        let state = (stream, Guard(broken, false));
        Ok(futures::stream::unfold(state, |(mut stream, mut guard)| async move {
            let next = stream.next().await;
            guard.1 = next.is_none();
            next.map(|batch| (batch, (stream, guard)))
        })
        .boxed())
    }
}

fn spoil(fault: Fault, mut batch: ScanBatch, last_of_all: bool, pruned: bool) -> Result<ScanBatch> {
    let rows = batch.rows.num_rows();
    match fault {
        LosesTheLastRow if last_of_all => batch.rows = batch.rows.slice(0, rows - 1),
        PositionsStandStill => {
            let first = match &batch.positions {
                Positions::Consecutive(first) => *first,
                Positions::Each(_) => 0,
            };
            let position = headwater_core::Position::from_u64(first);
            let positions = BinaryArray::from_iter_values((0..rows).map(|_| position.as_bytes()));
            batch.positions = Positions::Each(positions);
        }
        PositionsShiftWhenPruned if pruned => batch.positions = Positions::Consecutive(100_000),
        NullsAreZero => {
            if let Ok(index) = batch.rows.schema().index_of("value") {
                let mut columns = batch.rows.columns().to_vec();
                let values = columns[index].as_primitive::<Float64Type>();
                let filled: ArrayRef = Arc::new(values.iter().map(|v| v.or(Some(0.0))).collect::<Float64Array>());
                columns[index] = filled;
                batch.rows = RecordBatch::try_new(batch.rows.schema(), columns)?;
            }
        }
        _ => {}
    }
    Ok(batch)
}
