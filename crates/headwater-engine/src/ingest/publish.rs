//! Publishing pieces of logs and dead letters.
//!
//! Both are published beside what goes on: values are fresh online also while the offline store is away. Rows that come
//! meanwhile wait for the next piece. A split has one piece on its way at most, since each begins where the one before ends.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use headwater_core::offline::{Append, LogId, LogRange};
use headwater_core::{Error, Micros, Position, Result, SplitId};

use super::blocking;
use super::checkpoint::{NEWEST_EVENT, Skipped};
use super::dead;
use super::lane::{Piece, SplitState};
use super::retry::{Pauses, retry};
use super::sink::{Ended, Sink};
use super::status::Board;
use crate::project::Project;
use crate::rows::log_rows;

/// How many pieces are published at once: making them keeps a core busy each.
const PUBLISHED_AT_ONCE: usize = 2;

/// What has to be published of a log.
pub(super) struct Due {
    pub(super) lane: usize,
    pub(super) split: SplitId,
    pub(super) log: LogId,
    /// Consecutive ones, joined only when it is their turn: a joined one is a copy.
    pub(super) pieces: Vec<Piece>,
    pub(super) end: Position,
    pub(super) through: Position,
    pub(super) newest: Option<Micros>,
    /// What the piece lacks.
    pub(super) skipped: Option<Skipped>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Published {
    lane: usize,
    split: SplitId,
    end: Position,
    retries: u64,
}

impl Sink {
    /// Whether logs hold so much in memory that pieces are to be published now.
    pub(super) fn logs_are_large(&self) -> bool {
        let buffers = self.lanes.iter().flat_map(|lane| lane.splits.values()).filter(|state| !state.is_publishing());
        let (mut largest, mut sum) = (0, 0);
        for state in buffers {
            largest = state.buffer_bytes.max(largest);
            sum += state.buffer_bytes;
        }
        largest >= self.tuning.log_piece_bytes || sum >= self.tuning.log_buffer_bytes / 2
    }

    /// Whether logs hold all that they may in memory.
    pub(super) fn logs_are_full(&self) -> bool {
        let states = self.lanes.iter().flat_map(|lane| lane.splits.values());
        states.map(|state| state.buffer_bytes + state.publishing_bytes).sum::<usize>() >= self.tuning.log_buffer_bytes
    }

    /// Whether pieces of logs are being published.
    pub(super) fn is_publishing(&self) -> bool {
        !self.publishing.is_empty()
    }

    /// Begins to publish what is due of the logs.
    pub(super) fn start_publishing(&mut self) {
        let due = self.due(false);
        if !due.is_empty() {
            let publishing = publish_each(Arc::clone(&self.project), self.board.clone(), self.pauses(), due);
            self.publishing.spawn(publishing);
        }
    }

    /// Publishes all that the logs hold in memory.
    ///
    /// # Errors
    /// The store's, permanent ones.
    pub(super) async fn publish_logs(&mut self) -> Result<()> {
        self.settle_logs().await?;
        let due = self.due(true);
        let published = publish_each(Arc::clone(&self.project), self.board.clone(), self.pauses(), due).await;
        self.note_published(Ok(published))
    }

    /// Waits until all that is being published is.
    ///
    /// # Errors
    /// The store's, permanent ones.
    pub(super) async fn settle_logs(&mut self) -> Result<()> {
        while let Some(published) = self.publishing.join_next().await {
            self.note_published(published)?;
        }
        Ok(())
    }

    /// Notes what has been published.
    pub(super) fn note_published(&mut self, published: Ended<Vec<Published>>) -> Result<()> {
        let published = published.map_err(|panic| Error::unexpected("publishing died").with_source(panic))??;
        for Published { lane, split, end, retries } in published {
            if let Some(state) = self.lanes.get_mut(lane).and_then(|lane| lane.splits.get_mut(&split)) {
                state.log_end = end;
                state.publishing_bytes = 0;
                state.counts.retries += retries;
                state.changed = true;
            }
        }
        Ok(())
    }

    /// Takes what has to be published out of the buffers: what is old, large, or at its end; or all of it.
    fn due(&mut self, all: bool) -> Vec<Due> {
        // Where memory is short, the buffers that hold at least an equal share of it are written.
        let buffers = self.lanes.iter().flat_map(|lane| lane.splits.values()).filter(|state| !state.is_publishing());
        let buffers = buffers.map(|state| state.buffer_bytes).filter(|bytes| *bytes > 0);
        let (count, total) = buffers.fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
        let crowded = total >= self.tuning.log_buffer_bytes / 2;
        let mut due = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.view.offline) {
            for (split, state) in &mut lane.splits {
                let old = state.buffer_since.is_some_and(|since| since.elapsed() >= self.tuning.log_interval);
                let large = state.buffer_bytes >= self.tuning.log_piece_bytes
                    || (crowded && state.buffer_bytes.saturating_mul(count) >= total);
                if state.is_publishing() || state.logged <= state.log_end || !(all || old || large || state.ended) {
                    continue;
                }
                let mut pieces = std::mem::take(&mut state.buffer);
                if pieces.is_empty() {
                    pieces.push(Piece::empty(&lane.view));
                }
                // Also an empty one is on its way.
                state.publishing_bytes = state.buffer_bytes.max(1);
                state.buffer_bytes = 0;
                state.buffer_since = None;
                due.push(Due {
                    lane: index,
                    split: split.clone(),
                    log: lane.view.log(),
                    pieces,
                    end: state.log_end.clone(),
                    through: state.logged.clone(),
                    newest: state.newest,
                    skipped: state.skipped.clone().filter(|skipped| skipped.to > state.log_end),
                });
            }
        }
        due
    }

    /// Publishes all dead letters.
    ///
    /// # Errors
    /// The store's, permanent ones.
    pub(super) async fn publish_dead(&mut self) -> Result<()> {
        let due = self.due_dead(true)?;
        let published = publish_each(Arc::clone(&self.project), self.board.clone(), self.pauses(), due).await?;
        self.note_buried(published);
        Ok(())
    }

    /// Begins to publish the dead letters that are due, as a part of what makes the cut durable that is taken now.
    pub(super) fn start_burying(&mut self) -> Result<()> {
        let due = self.due_dead(self.dead_letters_are_large())?;
        if !due.is_empty() {
            let burying = publish_each(Arc::clone(&self.project), self.board.clone(), self.pauses(), due);
            self.syncing.spawn(burying);
        }
        Ok(())
    }

    /// Notes what dead letters have been published.
    pub(super) fn note_buried(&mut self, published: Vec<Published>) {
        for Published { lane, split, end, retries } in published {
            if let Some(state) = self.lanes.get_mut(lane).and_then(|lane| lane.splits.get_mut(&split)) {
                // Of a split that was taken over anew meanwhile, more may be known.
                state.dead_end = end.max(state.dead_end.clone());
                state.counts.retries += retries;
            }
        }
    }

    /// Takes the dead letters that are due, or all of them.
    fn due_dead(&mut self, all: bool) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            for (split, state) in &mut lane.splits {
                let old = state.dead_since.is_some_and(|since| since.elapsed() >= self.tuning.dead_letter_interval);
                let many = state.dead.len() >= 10_000;
                if state.dead.is_empty() || !(all || old || many || state.ended) {
                    continue;
                }
                let letters = std::mem::take(&mut state.dead);
                state.dead_since = None;
                let positions = letters.iter().map(|letter| Some(letter.position.as_bytes())).collect();
                let piece = Piece { rows: dead::to_rows(&letters)?, positions, ordinals: None };
                due.push(Due {
                    lane: index,
                    split: split.clone(),
                    log: dead::log_of(&lane.view),
                    pieces: vec![piece],
                    end: state.dead_end.clone(),
                    through: state.judged.clone(),
                    newest: None,
                    skipped: None,
                });
            }
        }
        Ok(due)
    }

    /// Whether dead letters hold so much in memory that they are to be published now.
    pub(super) fn dead_letters_are_large(&self) -> bool {
        let states = self.lanes.iter().flat_map(|lane| lane.splits.values());
        states.map(SplitState::dead_bytes).sum::<usize>() >= self.tuning.log_piece_bytes
    }
}

async fn publish_each(project: Arc<Project>, board: Board, pauses: Pauses, due: Vec<Due>) -> Result<Vec<Published>> {
    let (project, board) = (&project, &board);
    futures::stream::iter(due.into_iter().map(|due| async move {
        let (lane, split) = (due.lane, due.split.clone());
        let (end, retries) = publish(project, board, pauses, due).await?;
        Ok(Published { lane, split, end, retries })
    }))
    .buffer_unordered(PUBLISHED_AT_ONCE)
    .try_collect()
    .await
}

/// Appends a piece to a log, as much of it as is not there yet. Gives back the log's new end.
pub(super) async fn publish(project: &Project, board: &Board, pauses: Pauses, due: Due) -> Result<(Position, u64)> {
    let Due { split, log, pieces, mut end, through, newest, skipped, .. } = due;
    let joined = blocking(move || Piece::join(&pieces)).await?;
    let mut piece = joined.ok_or_else(|| Error::unexpected("nothing is to be published"))?;
    let is_view = log.view != dead::DEAD_LETTERS;
    let mut retries = 0;
    let mut waits = pauses.iter();
    while end < through {
        piece = piece.after(&end);
        // Dead letters are rows of their log already.
        let rows = if is_view { log_rows(&piece.clone().into_view_rows(&split))? } else { piece.rows.clone() };
        let range = LogRange { after: end.clone(), through: through.clone() };
        let newest = newest.map(|newest| (NEWEST_EVENT.to_owned(), newest.to_string()));
        let metadata = newest.into_iter().chain(skipped.iter().flat_map(Skipped::metadata)).collect();
        let failed = match project.offline.append(&log, &split, rows, range, metadata).await {
            Ok(Append::Published) => {
                end = through.clone();
                None
            }
            Ok(Append::Conflict) => Some(None),
            Err(error) if error.is_retryable() => Some(Some(error)),
            Err(error) => return Err(error),
        };
        let Some(error) = failed else { break };
        // Somebody else published, or we did and were not told.
        let (ends, more) = retry("log", pauses, board, || project.offline.ends(&log)).await?;
        let now = ends.get(&split).map_or(Position::START, |end| end.through.clone());
        if now == end {
            let error = error.unwrap_or_else(|| {
                Error::new(
                    headwater_core::ErrorKind::Unavailable,
                    format!("log `{log}` refuses a piece after the end it reports"),
                )
            });
            tracing::warn!(%error, %log, "will be tried again");
            board.retrying(Some(&error));
            tokio::time::sleep(waits.next().unwrap_or(pauses.longest)).await;
            retries += 1;
        }
        retries += more;
        end = now;
    }
    if retries > 0 {
        board.retrying(None);
    }
    Ok((end, retries))
}
