//! Windowed views in jobs.
//!
//! A lane of a windowed view writes window rows instead of newest values, to every epoch that is alive: the one that
//! serves, and one that is to take over. Each epoch knows for each split how far it is (`through`), durably, and that
//! moves on with the checkpoints. Where it lies behind what the reader will bring, the rest is read from the log: when a
//! split is assigned, and when a running worker finds an epoch that somebody has built meanwhile. The worker then
//! publishes what it holds, brings the new epoch up to that position, and from there on writes both. Reads go to the new
//! epoch as soon as every split has come that far; of splits that have ended, or that the stream does not have any more,
//! as soon as it has what the log has of them.
//!
//! A view without a log has nothing to catch up from. Its epochs are built of the batch rows alone, before anything is
//! read; a changed aggregation makes it read the stream again from where it began.
//!
//! A view that is not served online has epochs without rows: of them training sets take `log_from`. They serve at once.

mod build;
mod cache;
mod history;
mod lanes;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{OnlineStore, Position, Result, SplitId, StreamSource};

use super::checkpoint::{self, Checkpoint};
use super::retry::{Pauses, retry};
use super::status::Board;
use crate::project::Project;
use crate::view::View;
use crate::windows::epoch::{self, Epoch, EpochEntry, EpochState, Epochs};

pub(crate) use build::{Build, LogFrom, catch_up_here, remove_outdated};
pub(super) use build::{build_for_job, prepare};
pub(super) use lanes::WindowLane;
pub(super) use writer::Changed;

/// How long a stream may take to say which splits it has: whoever asks has other things to do.
const LISTING: Duration = Duration::from_secs(5);

/// How the online store is called: again and again where a job does it, once where a command does.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    online: Arc<dyn OnlineStore>,
    again: Option<(Pauses, Board)>,
}

impl Calls {
    /// Temporary errors are errors.
    pub(crate) fn once(online: &Arc<dyn OnlineStore>) -> Self {
        Self { online: Arc::clone(online), again: None }
    }

    /// Temporary errors are tried again.
    pub(super) fn patient(online: &Arc<dyn OnlineStore>, pauses: Pauses, board: &Board) -> Self {
        Self { online: Arc::clone(online), again: Some((pauses, board.clone())) }
    }

    async fn run<T, F: Future<Output = Result<T>>>(&self, call: impl FnMut() -> F) -> Result<(T, u64)> {
        let mut call = call;
        match &self.again {
            Some((pauses, board)) => retry("online store", *pauses, board, call).await,
            None => call().await.map(|value| (value, 0)),
        }
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<(Vec<Option<OnlineRow>>, u64)> {
        self.run(|| self.online.get(table, keys)).await
    }

    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<u64> {
        match &self.again {
            Some(_) => self.run(|| self.online.put(table, rows.clone())).await.map(|(_, retries)| retries),
            None => self.online.put(table, rows).await.map(|_| 0),
        }
    }

    async fn sync(&self) -> Result<()> {
        self.run(|| self.online.sync()).await.map(drop)
    }
}

/// All epochs of the view's generation.
pub(crate) async fn load(project: &Project, view: &View) -> Result<Epochs> {
    epoch::load(project.online.as_ref(), &project.definitions.project, &view.name, &view.generation).await
}

/// The fingerprint of the view's aggregations as they are defined now; `None` of a view without any.
fn fingerprint(view: &View) -> Option<&str> {
    view.windows.as_ref().map(|windows| windows.fingerprint.as_str())
}

/// Whether an epoch is what the view asks for now: it is of its aggregations, and has rows where they are served online. Rows
/// that were kept up to a time when they were not served any more lack what came since.
pub(crate) fn is_of(view: &View, epoch: &Epoch) -> bool {
    Some(epoch.fingerprint.as_str()) == fingerprint(view) && epoch.without_rows != view.online
}

/// The latest epoch that the view asks for and that has all of history, unless a later one serves.
fn current<'a>(view: &View, epochs: &'a Epochs) -> Option<&'a EpochEntry> {
    latest_built(epochs).find(|entry| is_of(view, &entry.epoch))
}

/// The epochs that have all of history, latest first, down to the one that serves.
fn latest_built(epochs: &Epochs) -> impl Iterator<Item = &EpochEntry> {
    let built = epochs.all.iter().rev().filter(|entry| entry.state == EpochState::CatchingUp);
    built.take_while(|entry| entry.epoch.id.as_str() >= epochs.serving_id())
}

/// Whether rows of the view have all columns that the epoch's aggregations are computed from.
fn has_columns(view: &View, epoch: &Epoch) -> bool {
    let mut columns = epoch.windows.features.iter().filter_map(|feature| feature.column);
    columns.all(|column| {
        let wanted = epoch.windows.columns.get(column);
        wanted.is_some_and(|wanted| view.columns().iter().any(|f| f.name == wanted.name && f.dtype == wanted.dtype))
    })
}

/// Whether nothing but the stream has the events of the view's windows: they have no log.
pub(super) fn is_stream_alone(view: &View) -> bool {
    view.online && !view.offline && view.windows.is_some()
}

/// Whether the view reads its stream again: it has no log, and its aggregations are not those that serve, or were kept for
/// training sets alone; or none serve, and it was read before it had any.
pub(super) async fn reads_again(project: &Project, view: &View, epochs: &Epochs) -> Result<bool> {
    if !is_stream_alone(view) {
        return Ok(false);
    }
    match &epochs.serving {
        Some((serving, _)) => Ok(!is_of(view, serving)),
        None => {
            let (online, name) = (project.online.as_ref(), &project.definitions.project);
            Ok(!checkpoint::load(online, name, view).await?.is_empty())
        }
    }
}

/// Where the windows of a view without a log go on in a split: its epoch may have less of it than the checkpoint says,
/// which another epoch has reached, and nothing else than the stream has it.
pub(super) async fn again_from(
    project: &Project,
    view: &View,
    split: &SplitId,
    checkpoint: &Checkpoint,
) -> Result<Option<Position>> {
    if !is_stream_alone(view) {
        return Ok(None);
    }
    let epochs = load(project, view).await?;
    let known = current(view, &epochs).and_then(|entry| entry.splits.get(split));
    Ok(Some(known.map_or_else(|| checkpoint.from.clone(), |known| known.through.clone())))
}

/// How far an epoch is in a split.
#[derive(Debug)]
pub(crate) struct Reach<'a> {
    /// Everything up to here is in it, durably.
    pub(crate) through: &'a Position,
    /// Up to here it was written.
    pub(crate) written: Option<&'a Position>,
}

impl Reach<'_> {
    /// Whether it has all that was served of the split: what the checkpoint speaks of, and what was written to the epoch
    /// that serves. Whoever writes to both writes to that one last.
    pub(crate) fn has_all(&self, checkpoint: &Checkpoint, served: Option<&Position>) -> bool {
        let written = self.written.unwrap_or(self.through).max(self.through);
        checkpoint.through <= *self.through && served.is_none_or(|served| served <= written)
    }
}

/// Whether a stream has nothing of these splits behind these positions: they end there, or they are gone, as files that were
/// deleted or shards whose retention has passed. `None` where only that counts. Nobody will read on in them, nor say that
/// they have ended. A stream that does not answer may have all of them.
pub(crate) async fn has_no_more(stream: &dyn StreamSource, splits: &BTreeMap<SplitId, Option<Position>>) -> bool {
    match tokio::time::timeout(LISTING, stream.discover()).await {
        Ok(Ok(found)) => {
            let found = found.into_iter().map(|info| (info.split, info.end)).collect::<BTreeMap<_, _>>();
            splits.iter().all(|(split, through)| match (found.get(split), through) {
                (None, _) => true,
                (Some(Some(end)), Some(through)) => end <= through,
                _ => false,
            })
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the stream does not say which splits it has");
            false
        }
        Err(_) => {
            tracing::warn!("the stream does not say which splits it has");
            false
        }
    }
}

/// Makes reads of the view's generation go to the latest epoch of its present aggregations.
pub(super) async fn serve(project: &Project, view: &View) -> Result<()> {
    if view.windows.is_none() {
        return Ok(());
    }
    let epochs = load(project, view).await?;
    match current(view, &epochs) {
        // Where there is a log, an epoch that is read online first has to catch up.
        Some(entry)
            if entry.epoch.id != epochs.serving_id() && (!view.offline || !view.online || epochs.serving.is_none()) =>
        {
            let (online, name) = (project.online.as_ref(), &project.definitions.project);
            entry.epoch.serve(online, name, &view.name, project.clock.now()).await
        }
        _ => Ok(()),
    }
}
