//! Batch sources: tables of rows that are there already, scanned in fragments.
//!
//! A scan has two steps, so that the point-in-time join can order and prune before it reads a byte of data:
//! [`BatchSource::fragments`] lists independent pieces (a Parquet row group, a CSV file) with what is known of them,
//! [`BatchSource::read`] reads one. Fragments may be read in any order and at once.

use std::fmt::Debug;

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::error::Result;
use crate::position::SplitId;
use crate::time::Micros;

/// What is asked of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanRequest {
    /// The columns wanted, by their name in the source; `None` = all.
    pub columns: Option<Vec<String>>,
    /// Only rows whose time lies here are wanted.
    pub time: Option<TimeRange>,
    /// Only rows with one of these values in this column are wanted.
    pub keys: Option<KeyRange>,
}

/// A range of event times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeRange {
    /// The column.
    pub column: String,
    /// The earliest time wanted, inclusive.
    pub from: Option<Micros>,
    /// The latest time wanted, inclusive.
    pub to: Option<Micros>,
}

/// The smallest and the greatest of the asked values of one key column, for pruning by statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The column.
    pub column: String,
    /// The values.
    pub values: KeyBounds,
}

/// Bounds of a key column, both inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyBounds {
    /// Of an integer column.
    Int(i64, i64),
    /// Of a text column, in byte order.
    Text(String, String),
}

/// One independently readable piece of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The split its rows belong to: the file's path relative to the source's, or the stream's split in a log.
    pub split: SplitId,
    /// How many rows, where that is known without reading them.
    pub rows: Option<u64>,
    /// The smallest and greatest time in it, where the request named a time column and statistics know.
    pub time: Option<(Micros, Micros)>,
    /// What the source needs to find it again. Opaque.
    pub token: Bytes,
}

/// Rows of a fragment, in the fragment's order.
#[derive(Debug, Clone)]
pub struct ScanBatch {
    /// The rows, with the columns asked for in the order asked for.
    pub rows: RecordBatch,
    /// Each row's position in its split.
    pub positions: Positions,
}

/// The positions of the rows of a [`ScanBatch`].
#[derive(Debug, Clone)]
pub enum Positions {
    /// Row `i` stands at [`Position::from_u64`](crate::Position::from_u64)`(first + i)`.
    Consecutive(u64),
    /// One for each row.
    Each(BinaryArray),
}

/// Batches of one fragment.
pub type ScanStream = BoxStream<'static, Result<ScanBatch>>;

/// A table: files, a warehouse table, or an offline store's log.
#[async_trait]
pub trait BatchSource: Debug + Send + Sync {
    /// What tells this table from another: a path, a table's name.
    fn identity(&self) -> String;

    /// The columns.
    ///
    /// # Errors
    /// `NotFound` where nothing is there yet, and so no schema: the engine takes such a source as having no rows.
    /// `Corrupt` for files that cannot be read. `Unavailable` is temporary.
    async fn schema(&self) -> Result<SchemaRef>;

    /// The pieces that may hold rows that `request` wants, in order of split and position.
    ///
    /// The implementer guarantees that every row that is wanted lies in exactly one of them; pieces that statistics
    /// show to hold none should be left out. A path that does not exist has no pieces. Columns named in `request` exist.
    ///
    /// # Errors
    /// As [`BatchSource::schema`]; `Invalid` for columns that do not exist.
    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>>;

    /// Reads one piece. Rows that `request` does not want may be among them: callers filter.
    ///
    /// The implementer guarantees that the rows' positions ascend, that a row has the same split and position in every
    /// scan as long as its file is unchanged, and that memory is bounded by a few batches. Dropping the stream stops
    /// reading.
    ///
    /// # Errors
    /// As [`BatchSource::schema`], from the call or from the stream.
    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream>;
}
