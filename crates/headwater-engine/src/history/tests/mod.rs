//! Tests of the join, and what they are written in.

mod entities;
mod limits;
mod oracle;
mod rule;
mod sources;
mod windowed;
mod windowed_oracle;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, LargeStringArray, RecordBatch,
    StringArray, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use headwater_core::batch::{Fragment, Positions, ScanBatch, ScanRequest, ScanStream};
use headwater_core::definitions::{Field, ValueType};
use headwater_core::memory::MemoryBatchSource;
use headwater_core::{BatchSource, ErrorKind, Micros, Result, SplitId};

use super::{
    EntityRows, HistoryInput, HistoryOptions, HistoryRequest, InputKind, JoinView, Progress, RequestedFeature, join,
};
use crate::view::{Key, View};

fn view(name: &str, keys: &[(&str, ValueType)], ttl: Micros, features: &[(&str, ValueType)]) -> Arc<View> {
    Arc::new(View {
        name: name.into(),
        generation: "g".into(),
        keys: keys.iter().map(|(name, of)| Key { name: (*name).into(), value_type: of.clone() }).collect(),
        event_time: "event_timestamp".into(),
        created: Some("created".into()),
        features: features.iter().map(|(name, of)| Field::new(*name, of.clone())).collect(),
        ttl,
        online: true,
        offline: false,
        batch: None,
        stream: None,
        windows: None,
    })
}

fn input(source: impl BatchSource + 'static, kind: InputKind) -> HistoryInput {
    HistoryInput { source: Arc::new(source), kind, columns: BTreeMap::new() }
}

fn wanted(view: usize, feature: &str) -> RequestedFeature {
    RequestedFeature { view, feature: feature.into(), output: feature.into() }
}

fn times(values: impl IntoIterator<Item = impl Into<Option<i64>>>) -> ArrayRef {
    let values = values.into_iter().map(Into::into);
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn ints(values: impl IntoIterator<Item = impl Into<Option<i64>>>) -> ArrayRef {
    Arc::new(values.into_iter().map(Into::into).collect::<Int64Array>())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn entities(rows: RecordBatch) -> EntityRows {
    EntityRows::new(rows.schema(), vec![rows]).unwrap()
}

/// Entity rows (driver, time).
fn asks(rows: &[(i64, i64)]) -> EntityRows {
    entities(batch(vec![
        ("driver", ints(rows.iter().map(|row| row.0))),
        ("event_timestamp", times(rows.iter().map(|row| row.1))),
    ]))
}

type DriverRow = (i64, i64, Option<i64>, Option<i64>);

/// Rows (driver, event time, created, value).
fn driver_rows(rows: &[DriverRow]) -> RecordBatch {
    batch(vec![
        ("driver", ints(rows.iter().map(|row| row.0))),
        ("event_timestamp", times(rows.iter().map(|row| row.1))),
        ("created", times(rows.iter().map(|row| row.2))),
        ("value", ints(rows.iter().map(|row| row.3))),
    ])
}

fn table(splits: &[(&str, &[DriverRow])]) -> MemoryBatchSource {
    let source = MemoryBatchSource::new("drivers.parquet");
    for (split, rows) in splits {
        source.add(SplitId::from(*split), driver_rows(rows));
    }
    source
}

fn drivers(ttl: Micros) -> Arc<View> {
    view("drivers", &[("driver", ValueType::Int64)], ttl, &[("value", ValueType::Int64)])
}

fn request(entities: EntityRows, view: Arc<View>, inputs: Vec<HistoryInput>) -> HistoryRequest {
    HistoryRequest {
        entities,
        views: vec![JoinView { view, inputs, log_from: None }],
        features: vec![wanted(0, "value")],
        options: HistoryOptions::default(),
    }
}

fn column(batches: &[RecordBatch], name: &str) -> Vec<Option<i64>> {
    let of = |batch: &RecordBatch| {
        batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

async fn values(request: HistoryRequest) -> Vec<Option<i64>> {
    column(&join(request).await.unwrap().collect().await.unwrap(), "value")
}

async fn failure(request: HistoryRequest) -> (ErrorKind, String) {
    let error = match join(request).await {
        Ok(set) => set.collect().await.unwrap_err(),
        Err(error) => error,
    };
    (error.kind(), error.to_string())
}

/// Joins rows of driver 1 with entity rows of driver 1 at these times.
async fn check(ttl: Micros, rows: &[DriverRow], at: &[i64], expected: &[Option<i64>]) {
    let asked: Vec<(i64, i64)> = at.iter().map(|time| (1, *time)).collect();
    let request = request(asks(&asked), drivers(ttl), vec![input(table(&[("f", rows)]), InputKind::Batch)]);
    assert_eq!(values(request).await, expected, "ttl {ttl}, rows {rows:?}, at {at:?}");
}

/// A source that can be told to behave in ways that the reference does not.
#[derive(Debug)]
struct Odd {
    inner: MemoryBatchSource,
    /// Gives no statistics.
    no_statistics: bool,
    /// Rows of a batch at most.
    batch_rows: usize,
    /// Claims that every fragment begins this late.
    lie: Option<Micros>,
    /// Fails where it is read for the n-th time.
    fail_at_read: Option<u64>,
    /// From the second reading of a fragment on its last row is gone.
    shrinks: bool,
    reads: Arc<AtomicU64>,
}

impl Odd {
    fn new(inner: MemoryBatchSource) -> Self {
        Self {
            inner,
            no_statistics: false,
            batch_rows: usize::MAX,
            lie: None,
            fail_at_read: None,
            shrinks: false,
            reads: Arc::default(),
        }
    }
}

#[async_trait]
impl BatchSource for Odd {
    fn identity(&self) -> String {
        self.inner.identity()
    }

    async fn schema(&self) -> Result<SchemaRef> {
        self.inner.schema().await
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let mut fragments = self.inner.fragments(request).await?;
        for fragment in &mut fragments {
            if self.no_statistics {
                fragment.time = None;
            }
            if let (Some(lie), Some((earliest, _))) = (self.lie, &mut fragment.time) {
                *earliest = lie;
            }
        }
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let read = self.reads.fetch_add(1, Ordering::SeqCst);
        if self.fail_at_read.is_some_and(|at| at <= read) {
            return Err(headwater_core::Error::corrupt("the disk is tired"));
        }
        let gone = usize::from(self.shrinks && read > 0);
        let mut pieces = Vec::new();
        for whole in self.inner.read(fragment, request).await?.try_collect::<Vec<_>>().await? {
            let Positions::Consecutive(start) = whole.positions else { unreachable!("the reference counts") };
            let rows = whole.rows.num_rows() - gone;
            let mut at = 0;
            while at < rows {
                let length = self.batch_rows.min(rows - at);
                let positions = Positions::Consecutive(start + at as u64);
                pieces.push(Ok(ScanBatch { rows: whole.rows.slice(at, length), positions }));
                at += length;
            }
        }
        Ok(futures::stream::iter(pieces).boxed())
    }
}
