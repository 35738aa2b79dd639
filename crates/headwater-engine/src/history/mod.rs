//! The point-in-time join: what was known of an entity at a moment, without a look into its future.
//!
//! # The rule
//!
//! Entity rows ask "what did we know of key `k` at time `t`?". For each of them and each view, among the view's rows
//! with that key, `event_time <= t` and, where the view has a ttl, `event_time >= t - ttl` (both inclusive), the
//! newest one answers, and is taken whole: a null in it stays null. Newest is by [version](headwater_core::RowVersion):
//! event time, then created time, then origin, split, position and ordinal. Where no row qualifies the features are
//! null. The entity rows come out as they came in: every row, duplicates too, in their order, with all their columns.
//! With [`HistoryOptions::filter_by_created_timestamp`] a row answers only from its created time on.
//!
//! # The walk
//!
//! Sort both sides by time, walk them together, and remember for each key the newest row seen: one array, `last[key]`.
//! When the walk passes the time of an entity row, `last[its key]` is the answer.
//!
//! ```text
//!   view's rows      k1 ─── k2 ── k1 ───────── k2 ──────►  time
//!                     │      │     │            │
//!   last[k1], last[k2]▼      ▼     ▼            ▼           only ever replaced by a greater version
//!                        ▲             ▲    ▲
//!   entity rows          │k1           │k2  │k1             each reads its key's entry and is done
//! ```
//!
//! Every row is looked at once, in an order the processor can foresee, and the only random access is to `last`, which
//! has one entry for each key that was asked for. The alternatives cost more: to look up, for each of the view's rows,
//! the entity rows that it may answer is one cache miss after the other; a cross product per key is quadratic.
//!
//! # The parts
//!
//! 1. [`EntityRows`] are hashed once for every set of join keys: each distinct key becomes a small dense number
//!    (`keys`), and the rows are sorted by time (`asked`). From here on nobody touches a key again.
//! 2. The sources list their fragments (`plan`). Those whose statistics lie outside of the asked times or keys are never
//!    read; the others are read in order of their earliest time, as many at once as there are threads (`scan`). Only
//!    keys, event time and created time are read. Rows of keys that nobody asks for, and rows outside of the times asked
//!    *for that key*, are dropped before anything else is done with them.
//! 3. A row that is left is 32 bytes (`row`): event time, created time, key number, and where it stands. Fragments are
//!    numbered by origin, split and position, so *where a row stands* is one integer that orders as the rest of its
//!    version does: breaking a tie is an integer comparison, and the features are found again by the same integer.
//! 4. Keys are dealt out to workers, one for each thread, and every worker walks its keys of all views (`worker`). Rows
//!    that arrive wait until every fragment that may hold an earlier one has been read (`waiting`); where fragments do
//!    not overlap in time they hardly wait at all and are in order already. Rows that overlap are sorted, and only those.
//!    A table without any order waits whole; what does not fit [`HistoryOptions::memory_limit`] is written to a temporary
//!    file in sorted runs, which are merged when the walk gets there (`spill`).
//! 5. The walk (`walk`) leaves one integer for each entity row and view: where the answer stands. Now, and only for
//!    rows that won, feature columns are read, and put out beside the entity rows in pieces (`gather`, `output`), so
//!    that the training set may be larger than memory.
//!
//! # Windows
//!
//! A view with aggregations asks another question: not "which row was the newest?" but "what do the rows in the windows
//! that end at `t` come to?". Of each entity row's key, rows with `floor(t - window, hop) <= event_time <= t` count: those
//! of the batch source before [`JoinView::log_from`] and those of the log from it on, so that none counts twice. Where no
//! row counts, a `count` is 0 and everything else null. With [`HistoryOptions::filter_by_created_timestamp`] a row counts
//! only where it was made by `t` too. The functions are those that keep the online store up to date; how every row gets
//! to them, and where what does not fit into memory waits, says the module `windowed`.

mod asked;
mod entities;
mod gather;
mod keys;
mod memory;
mod output;
mod plan;
mod row;
mod scan;
mod spill;
mod waiting;
mod walk;
mod windowed;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use futures::{Stream, TryStreamExt};
use headwater_core::{BatchSource, Micros, Result};

use crate::project::Project;
use crate::view::View;
use crate::windows::epoch;

pub use entities::EntityRows;

/// What to join.
#[derive(Debug, Clone)]
pub struct HistoryRequest {
    /// Who is asked for, and when.
    pub entities: EntityRows,
    /// The views that [`HistoryRequest::features`] names.
    pub views: Vec<JoinView>,
    /// The columns wanted, in the order in which they come out.
    pub features: Vec<RequestedFeature>,
    /// How to go about it.
    pub options: HistoryOptions,
}

/// One feature column of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedFeature {
    /// Its view: an index into [`HistoryRequest::views`].
    pub view: usize,
    /// Its name in the view.
    pub feature: String,
    /// Its name in the output.
    pub output: String,
}

/// A view and where its history lies.
#[derive(Debug, Clone)]
pub struct JoinView {
    /// The view.
    pub view: Arc<View>,
    /// Its batch source, its log, or both. Of a plain view all their rows count, by version.
    pub inputs: Vec<HistoryInput>,
    /// Where the history of a windowed view meets: batch rows count before it, log rows from it on. `None` where the view
    /// was never ingested: batch rows alone count. A plain view has no use for it.
    pub log_from: Option<Micros>,
}

impl JoinView {
    /// The view with its history as its project says: its batch source, its log where it has `offline: true`, and where
    /// the epoch of its windows that serves has the two meet.
    ///
    /// # Errors
    /// Those of opening the batch source and of the online store.
    pub async fn open(project: &Project, view: &Arc<View>) -> Result<Self> {
        let mut inputs = Vec::new();
        if let Some(batch) = &view.batch {
            let source = project.batch_source(&batch.source)?;
            inputs.push(HistoryInput { source, kind: InputKind::Batch, columns: batch.columns.clone() });
        }
        if view.offline {
            let source = project.offline.log(&view.log());
            inputs.push(HistoryInput { source, kind: InputKind::Log, columns: BTreeMap::new() });
        }
        let mut log_from = None;
        if view.windows.is_some() {
            let (project, online) = (&project.definitions.project, project.online.as_ref());
            let serving = epoch::serving(online, project, &view.name, &view.generation).await?;
            log_from = serving.map(|epoch| epoch.log_from.unwrap_or(Micros::MIN));
        }
        Ok(Self { view: Arc::clone(view), inputs, log_from })
    }
}

/// A table with rows of a view.
#[derive(Debug, Clone)]
pub struct HistoryInput {
    /// The table. One that does not exist has no rows.
    pub source: Arc<dyn BatchSource>,
    /// What it is.
    pub kind: InputKind,
    /// Column of the view → column of the table, where the names differ.
    pub columns: BTreeMap<String, String>,
}

/// What a table of history is; it decides the origin of its rows and what may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A batch source: every column of the view that is asked for must be there.
    Batch,
    /// A log of an offline store: features that were added to the view later are null in older rows. Rows of splits
    /// called `push-…` were pushed, all others streamed.
    Log,
}

/// How to go about a join. The default suits a machine that has nothing else to do.
#[derive(Clone, Default)]
pub struct HistoryOptions {
    /// Bytes that may be held in memory; `None` = a quarter of the machine's.
    ///
    /// The entity rows as given are not counted, nor are batches on their way from a source. What the join cannot do
    /// without (24 bytes for an entity row, 8 more for each view, 24 for each key and view) is taken off first; what is
    /// left, at least an eighth, bounds the rows that wait to be sorted and, later, the features that wait to be put
    /// out. Beyond it rows go to [`HistoryOptions::temp_dir`], and features are put out in several passes.
    pub memory_limit: Option<u64>,
    /// A row answers only entity rows at or after its created time. A row without one always answers.
    pub filter_by_created_timestamp: bool,
    /// Workers and fragments read at once; `None` = the machine's cores.
    pub threads: Option<usize>,
    /// Where rows go that do not fit into memory; `None` = the system's folder. Files there have no name, and are gone
    /// when the join ends, however it ends.
    pub temp_dir: Option<PathBuf>,
    /// Rows of an output batch at most; `None` = 32,768.
    pub batch_rows: Option<usize>,
    /// Is told how far the join has come, from any thread.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl fmt::Debug for HistoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryOptions")
            .field("memory_limit", &self.memory_limit)
            .field("filter_by_created_timestamp", &self.filter_by_created_timestamp)
            .field("threads", &self.threads)
            .field("temp_dir", &self.temp_dir)
            .field("batch_rows", &self.batch_rows)
            .finish_non_exhaustive()
    }
}

/// How far a join has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Fragments that are to be searched for answers.
    pub fragments_total: u64,
    /// Those of them that have been.
    pub fragments_done: u64,
    /// Rows seen in them.
    pub rows_scanned: u64,
    /// Entity rows.
    pub rows_total: u64,
    /// Those of them that have been put out.
    pub rows_done: u64,
}

/// Joins. When this returns, every answer is found; the stream reads the features of the answers as it is polled.
///
/// Runs on a Tokio runtime; where that has several threads, fragments are decoded on all of them. Dropping the future
/// or the stream stops the work and removes what was spilled.
///
/// # Errors
/// `Invalid`, before anything is read, where features, views or output names do not fit together, or entity rows lack a
/// join key. `Data` where an entity row's key, or a row of a source, cannot be cast to the view's types; the message names
/// file, row and value. `Conflict` where a source's rows changed between search and reading: run it again. Those of the
/// sources; `Unavailable` where rows cannot be spilled.
pub async fn join(request: HistoryRequest) -> Result<TrainingSet> {
    let mut plan = plan::plan(request).await?;
    let computed = windowed::compute(&mut plan).await?;
    let plan = Arc::new(plan);
    let mut answers = scan::search(&plan).await?;
    computed.into_iter().for_each(|of_view| of_view.put(&mut answers));
    Ok(output::put_out(plan, answers))
}

/// The outcome of a join: a stream of batches, the entity rows in their order with the features beside them.
pub struct TrainingSet {
    schema: SchemaRef,
    rows: u64,
    overflows: BTreeMap<String, u64>,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl TrainingSet {
    /// The columns: those of the entity rows, then the features.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How many rows come out in all: as many as there are entity rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Of windowed views, by name: how many of their results are beyond the type of their feature, and null for it. Views
    /// without any are not there.
    pub fn overflows(&self) -> &BTreeMap<String, u64> {
        &self.overflows
    }

    /// All batches, in memory.
    ///
    /// # Errors
    /// The first error of the stream.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.batches.try_collect().await
    }
}

impl Stream for TrainingSet {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(context)
    }
}

impl fmt::Debug for TrainingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingSet").field("schema", &self.schema).field("rows", &self.rows).finish_non_exhaustive()
    }
}
