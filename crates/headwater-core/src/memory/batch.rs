//! The reference of [`BatchSource`].

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::lock;
use super::table::{any_in_keys, any_in_time, check_columns, concat, project, time_bounds, union_schema};
use crate::batch::{BatchSource, Fragment, Positions, ScanBatch, ScanRequest, ScanStream};
use crate::error::{Error, Result};
use crate::position::SplitId;

/// A table in memory: splits of rows. Clones share their rows.
///
/// Its fragments are runs of a fixed number of rows, as row groups are.
#[derive(Clone)]
pub struct MemoryBatchSource {
    identity: String,
    fragment_rows: usize,
    splits: Arc<Mutex<Vec<(SplitId, RecordBatch)>>>,
}

impl MemoryBatchSource {
    /// A table in which nothing is yet, not even a schema.
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), fragment_rows: 8192, splits: Arc::default() }
    }

    /// Sets how many rows a fragment has at most; at least one.
    #[must_use]
    pub fn with_fragment_rows(mut self, rows: usize) -> Self {
        self.fragment_rows = rows.max(1);
        self
    }

    /// Adds a split. Splits with greater names than those that are there are what a directory that fills gets.
    pub fn add(&self, split: SplitId, rows: RecordBatch) {
        let mut splits = lock(&self.splits);
        splits.retain(|(known, _)| *known != split);
        splits.push((split, rows));
        splits.sort_by(|left, right| left.0.cmp(&right.0));
    }
}

impl fmt::Debug for MemoryBatchSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBatchSource").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[async_trait]
impl BatchSource for MemoryBatchSource {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    async fn schema(&self) -> Result<SchemaRef> {
        let splits = lock(&self.splits);
        if splits.is_empty() {
            return Err(Error::not_found(format!("there is nothing in `{}` yet", self.identity)));
        }
        Ok(union_schema(splits.iter().map(|(_, rows)| rows)))
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let splits = lock(&self.splits).clone();
        if splits.is_empty() {
            return Ok(Vec::new());
        }
        let schema = union_schema(splits.iter().map(|(_, rows)| rows));
        check_columns(&schema, columns_in(request))?;
        let mut fragments = Vec::new();
        for (split, rows) in splits {
            let rows = concat(&schema, &[rows])?;
            for first in (0..rows.num_rows()).step_by(self.fragment_rows) {
                let piece = rows.slice(first, self.fragment_rows.min(rows.num_rows() - first));
                if let Some(fragment) = fragment(&split, &piece, request, Bytes::from(first.to_string()))? {
                    fragments.push(fragment);
                }
            }
        }
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let splits = lock(&self.splits).clone();
        let schema = union_schema(splits.iter().map(|(_, rows)| rows));
        let rows = splits.iter().find(|(split, _)| *split == fragment.split).map(|(_, rows)| rows);
        let first = std::str::from_utf8(&fragment.token).ok().and_then(|text| text.parse::<usize>().ok());
        let (Some(rows), Some(first)) = (rows, first) else {
            return Err(Error::not_found(format!("there is no fragment {fragment:?}")));
        };
        let first = first.min(rows.num_rows());
        let piece = rows.slice(first, self.fragment_rows.min(rows.num_rows() - first));
        let rows = project(&concat(&schema, &[piece])?, request.columns.as_deref())?;
        // Rows count from 1.
        let positions = Positions::Consecutive(u64::try_from(first).unwrap_or(u64::MAX).saturating_add(1));
        Ok(futures::stream::iter([Ok(ScanBatch { rows, positions })]).boxed())
    }
}

/// Every column that a request names.
pub(super) fn columns_in(request: &ScanRequest) -> impl Iterator<Item = &String> {
    let columns = request.columns.iter().flatten();
    columns.chain(request.time.iter().map(|time| &time.column)).chain(request.keys.iter().map(|keys| &keys.column))
}

/// A fragment of these rows; `None` where none of them is wanted.
pub(super) fn fragment(
    split: &SplitId,
    rows: &RecordBatch,
    request: &ScanRequest,
    token: Bytes,
) -> Result<Option<Fragment>> {
    let mut time = None;
    if let Some(range) = &request.time {
        if !any_in_time(rows, range)? {
            return Ok(None);
        }
        time = time_bounds(rows, &range.column)?;
    }
    if let Some(range) = &request.keys
        && !any_in_keys(rows, range)?
    {
        return Ok(None);
    }
    Ok(Some(Fragment { split: split.clone(), rows: u64::try_from(rows.num_rows()).ok(), time, token }))
}
