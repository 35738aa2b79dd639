//! Offline stores: append-only logs of every row that was served.
//!
//! A log holds the transformed rows of one view and generation, split by split. Every published piece covers a range of
//! positions `(after, through]` of one split and begins where its predecessor ended, so that pieces chain without gap
//! or overlap. That is what makes the log exact: a writer that starts again asks [`OfflineStore::ends`] and skips what is
//! there, and of two writers that publish under the same predecessor one loses.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::batch::BatchSource;
use crate::error::Result;
use crate::position::{Position, SplitId};

/// The column of a log that holds the split a row was read from, in [`SplitId`]'s text form: `utf8`.
pub const LOG_SPLIT: &str = "_split";
/// The column of a log that holds a row's position in its split: `binary`.
pub const LOG_POSITION: &str = "_position";

/// Names one log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The view.
    pub view: String,
    /// The generation of its rows.
    pub generation: String,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.view, self.generation)
    }
}

/// What one published piece covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRange {
    /// Its predecessor's `through`; [`Position::START`] for the first piece of a split.
    pub after: Position,
    /// The last position it covers. Positions without rows (filtered, dead-lettered) are covered too.
    pub through: Position,
}

/// How far a split's log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// The `through` of its last piece.
    pub through: Position,
    /// What was kept with that piece.
    pub metadata: BTreeMap<String, String>,
}

/// The outcome of [`OfflineStore::append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Append {
    /// Published.
    Published,
    /// Somebody published under the same predecessor before; nothing was written. The caller asks for the end again
    /// and appends only what lies behind it.
    Conflict,
}

/// What [`OfflineStore::compact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compaction {
    /// Pieces before.
    pub before: u64,
    /// Pieces after.
    pub after: u64,
}

/// Append-only logs.
#[async_trait]
pub trait OfflineStore: Debug + Send + Sync {
    /// Publishes `rows` as the piece of `split` that covers `range`.
    ///
    /// The caller guarantees that `rows` has the columns [`LOG_SPLIT`] and [`LOG_POSITION`], that its positions ascend
    /// inside `range` (equal positions: rows of one record), and that `range.after < range.through`. `rows` may be
    /// empty: the piece then only moves the end. `metadata` is kept with the piece and given back by
    /// [`OfflineStore::ends`].
    ///
    /// The implementer guarantees that when this returns `Published`, the whole piece is durable and visible to plain
    /// readers, and that a crash at any moment leaves either all of it or nothing that a reader would take for it.
    /// A piece is only published where `range.after` is the split's end; otherwise `Conflict`. Nothing published is
    /// ever changed.
    ///
    /// # Errors
    /// `Unavailable` is temporary; the piece may or may not have been published: ask for the end. Dropping the future
    /// likewise.
    async fn append(
        &self,
        log: &LogId,
        split: &SplitId,
        rows: RecordBatch,
        range: LogRange,
        metadata: BTreeMap<String, String>,
    ) -> Result<Append>;

    /// The end of every split in the log; empty for a log that does not exist.
    ///
    /// # Errors
    /// `Corrupt` where pieces do not chain, `FormatVersion` for pieces of an unknown version.
    async fn ends(&self, log: &LogId) -> Result<BTreeMap<SplitId, LogEnd>>;

    /// The log as a table: join keys, event time, created, features, [`LOG_SPLIT`], [`LOG_POSITION`]. Each published row
    /// once, its split and position those of the record. A view of what is published when a scan lists its fragments.
    fn log(&self, log: &LogId) -> Arc<dyn BatchSource>;

    /// The logs there are.
    ///
    /// # Errors
    /// Those of the storage.
    async fn logs(&self) -> Result<Vec<LogId>>;

    /// Merges small pieces of the log. Readers and writers may go on meanwhile; rows, splits, positions and ends stay
    /// what they were. A crash in the midst of it is repaired by the next call of any method.
    ///
    /// # Errors
    /// Those of the storage.
    async fn compact(&self, log: &LogId) -> Result<Compaction>;

    /// Removes the log and all its rows. One that does not exist is no error.
    ///
    /// # Errors
    /// Those of the storage.
    async fn remove(&self, log: &LogId) -> Result<()>;
}
