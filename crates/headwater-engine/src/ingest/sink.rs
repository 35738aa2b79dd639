//! Where rows end: online store, log, dead letters, checkpoints, in the order that makes each record count once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use headwater_core::offline::{Append, LogId, LogRange};
use headwater_core::online::OnlineRow;
use headwater_core::stream::{AssignedSplit, Progress, StreamBatch};
use headwater_core::{Error, Micros, Position, Result, SplitId};

use super::checkpoint::{Checkpoint, NEWEST_EVENT, load_split};
use super::dead::{self, DeadLetter};
use super::lane::{Delivery, Lane, Part, Piece, SplitState};
use super::retry::{Pauses, retry};
use super::status::Board;
use super::windows::Calls;
use super::{Tuning, blocking};
use crate::project::Project;
use crate::rows::{checkpoints_table, log_rows};

/// How many pieces of logs are published at once.
const PUBLISHED_AT_ONCE: usize = 4;

/// A decoded and transformed batch.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) batch: StreamBatch,
    pub(super) tombstones: Vec<usize>,
    /// One for each lane, in order.
    pub(super) parts: Vec<Part>,
}

/// The lanes of a group of views and what they share.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) project: Arc<Project>,
    pub(super) lanes: Vec<Lane>,
    pub(super) board: Board,
    pub(super) tuning: Tuning,
    /// Rows were put that may not survive a loss of power.
    unsynced: bool,
}

/// What has to be published of a log.
struct Due {
    lane: usize,
    split: SplitId,
    log: LogId,
    piece: Piece,
    end: Position,
    through: Position,
    newest: Option<Micros>,
}

impl Sink {
    pub(super) fn new(project: Arc<Project>, lanes: Vec<Lane>, board: Board, tuning: Tuning) -> Self {
        Self { project, lanes, board, tuning, unsynced: false }
    }

    fn pauses(&self) -> Pauses {
        self.tuning.pauses()
    }

    fn name(&self) -> &str {
        &self.project.definitions.project
    }

    /// Takes splits over. When this returns, where they begin is remembered durably.
    pub(super) async fn assign(&mut self, splits: &[AssignedSplit]) -> Result<()> {
        let (project, pauses, board) = (Arc::clone(&self.project), self.pauses(), self.board.clone());
        let mut first = Vec::new();
        let resumes = splits.iter().map(|assigned| (assigned.split.clone(), assigned.resume.clone())).collect();
        for index in 0..self.lanes.len() {
            let wanted = self.assign_windows(index, &resumes).await?;
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            let view = Arc::clone(&lane.view);
            let ends = if view.offline {
                retry("log", pauses, &board, || async { project.offline.ends(&view.log()).await }).await?.0
            } else {
                BTreeMap::new()
            };
            let dead_log = dead::log_of(&view);
            let dead_ends = retry("log", pauses, &board, || project.offline.ends(&dead_log)).await?.0;
            for AssignedSplit { split, resume } in splits {
                let views = [Arc::clone(&view)];
                let name = &project.definitions.project;
                let load = || load_split(project.online.as_ref(), name, &views, split);
                let checkpoint = retry("checkpoint", pauses, &board, load).await?.0.pop().flatten();
                let dead_end = dead_ends.get(split).map_or(Position::START, |end| end.through.clone());
                let mut state =
                    SplitState::new(&view, checkpoint.as_ref(), ends.get(split), dead_end, resume, wanted.get(split));
                if checkpoint.is_none() {
                    if view.offline && state.log_end < *resume {
                        // The log has to know as well where the view began, before the checkpoint does.
                        let due = Due {
                            lane: 0,
                            split: split.clone(),
                            log: view.log(),
                            piece: Piece::empty(&view),
                            end: state.log_end.clone(),
                            through: resume.clone(),
                            newest: None,
                        };
                        state.log_end = publish(&project, &board, pauses, due).await?.0;
                    }
                    first.push(state.progress().to_row(&view, split)?);
                }
                lane.splits.insert(split.clone(), state);
            }
        }
        if !first.is_empty() {
            self.put_checkpoints(first).await?;
            self.sync_online().await?;
        }
        self.report();
        Ok(())
    }

    /// Gives splits up without writing what is not written.
    pub(super) fn forget(&mut self, splits: &[SplitId]) {
        for lane in &mut self.lanes {
            lane.splits.retain(|split, _| !splits.contains(split));
            if let Some(windows) = &mut lane.windows {
                windows.forget(splits);
            }
        }
    }

    /// Takes a batch: its rows are written by the next [`Sink::flush`]. Gives back the number of rows and the first
    /// dead letter that was new.
    pub(super) fn accept(&mut self, prepared: Prepared) -> Result<(usize, Option<DeadLetter>)> {
        let now = self.project.clock.now();
        let delivery = Delivery { batch: &prepared.batch, tombstones: &prepared.tombstones, now };
        let mut rows = 0;
        let mut first_dead = None;
        for (lane, part) in self.lanes.iter_mut().zip(prepared.parts) {
            let (count, dead) = lane.accept(&delivery, part)?;
            rows += count;
            first_dead = first_dead.or(dead);
        }
        Ok((rows, first_dead))
    }

    /// No more will come of a split.
    pub(super) fn end(&mut self, split: &SplitId) {
        for lane in &mut self.lanes {
            if let Some(state) = lane.splits.get_mut(split) {
                state.ended = true;
            }
        }
    }

    /// Writes what was accepted to the online store: one call for each view.
    pub(super) async fn flush(&mut self) -> Result<()> {
        let pauses = self.pauses();
        for lane in &mut self.lanes {
            let mut pending = Vec::new();
            for (split, state) in &mut lane.splits {
                if !state.pending.is_empty() {
                    pending.push((split.clone(), std::mem::take(&mut state.pending)));
                }
            }
            if pending.is_empty() {
                continue;
            }
            if let Some(windows) = &mut lane.windows {
                let calls = Calls::patient(&self.project.online, pauses, &self.board);
                for (split, pieces) in &pending {
                    let Some(piece) = Piece::join(pieces)? else { continue };
                    let retries = windows.take(&calls, split, &piece).await?;
                    if let Some(state) = lane.splits.get_mut(split) {
                        state.counts.retries += retries;
                    }
                }
                let retries = windows.flush(&calls).await?;
                if let Some((_, state)) = lane.splits.iter_mut().next() {
                    state.counts.retries += retries;
                }
                self.unsynced = true;
                continue;
            }
            let encoder = Arc::clone(&lane.encoder);
            let splits = blocking(move || {
                pending
                    .into_iter()
                    .map(|(split, pieces)| {
                        let rows = match Piece::join(&pieces)? {
                            Some(piece) => encoder.encode(&piece.into_view_rows(&split))?,
                            None => Vec::new(),
                        };
                        Ok((split, rows))
                    })
                    .collect::<Result<Vec<_>>>()
            })
            .await?;
            let rows = splits.iter().flat_map(|(_, rows)| rows.iter().cloned()).collect::<Vec<_>>();
            let online = self.project.online.as_ref();
            let (put, retries) =
                retry("online store", pauses, &self.board, || online.put(&lane.table, rows.clone())).await?;
            self.unsynced = true;
            let stale = match splits.as_slice() {
                _ if put.stale == 0 => Vec::new(),
                [(split, _)] => vec![(split.clone(), put.stale)],
                _ => retry("online store", pauses, &self.board, || stale(online, &lane.table, &splits)).await?.0,
            };
            for (split, state) in &mut lane.splits {
                if splits.iter().any(|(written, _)| written == split) {
                    state.counts.retries += retries;
                }
                state.counts.stale += stale.iter().find(|(lost, _)| lost == split).map_or(0, |(_, count)| *count);
            }
        }
        Ok(())
    }

    /// Whether logs or dead letters hold more in memory than they may, so that [`Sink::sync`] should not wait.
    pub(super) fn is_full(&self) -> bool {
        let states = self.lanes.iter().flat_map(|lane| lane.splits.values());
        let (mut log, mut dead) = (0, 0);
        for state in states {
            if state.buffer_bytes >= self.tuning.log_piece_bytes {
                return true;
            }
            log += state.buffer_bytes;
            dead += state.dead.iter().map(|letter| letter.raw.len() + letter.metadata.len() + 256).sum::<usize>();
        }
        log >= self.tuning.log_buffer_bytes || dead >= self.tuning.log_piece_bytes
    }

    /// Publishes what is due of logs and dead letters (or all of it), makes the online store durable, then writes the
    /// checkpoints that speak of it. Gives back how far each split is durable everywhere.
    pub(super) async fn sync(&mut self, all: bool) -> Result<BTreeMap<SplitId, Progress>> {
        self.look_at_epochs().await?;
        self.publish_logs(all).await?;
        self.publish_dead(all).await?;
        if self.unsynced {
            self.sync_online().await?;
        }
        let mut rows = Vec::new();
        let mut written: Vec<(usize, SplitId, Checkpoint)> = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            for (split, state) in &lane.splits {
                if let Some(checkpoint) = state.checkpoint() {
                    rows.push(checkpoint.to_row(&lane.view, split)?);
                    written.push((index, split.clone(), checkpoint));
                }
            }
        }
        if !rows.is_empty() {
            self.note_progress(&written).await?;
            self.put_checkpoints(rows).await?;
            if all {
                self.sync_online().await?;
            }
        }
        for (index, split, checkpoint) in written {
            if let Some(state) = self.lanes.get_mut(index).and_then(|lane| lane.splits.get_mut(&split)) {
                state.saved(&checkpoint);
            }
        }
        let commits = self.durable();
        self.report();
        // What is over needs no memory.
        let over = commits.iter().filter(|(_, progress)| **progress == Progress::End);
        let over = over.map(|(split, _)| split.clone()).collect::<Vec<_>>();
        self.forget(&over);
        Ok(commits)
    }

    /// How far each split is durable in every view.
    fn durable(&self) -> BTreeMap<SplitId, Progress> {
        let splits = self.lanes.iter().flat_map(|lane| lane.splits.keys()).collect::<BTreeSet<_>>();
        let mut out = BTreeMap::new();
        for split in splits {
            let states = self.lanes.iter().filter_map(|lane| Some((&lane.view, lane.splits.get(split)?)));
            let states = states.collect::<Vec<_>>();
            let progress = if states.iter().all(|(_, state)| state.ended_saved) {
                Progress::End
            } else {
                let lowest = states.iter().map(|(view, state)| state.durable(view)).min();
                Progress::Through(lowest.unwrap_or(Position::START))
            };
            out.insert(split.clone(), progress);
        }
        out
    }

    /// Whether every lane has looked at all of `split` up to `end`.
    pub(super) fn has_reached(&self, split: &SplitId, end: &Position) -> bool {
        self.lanes.iter().all(|lane| lane.splits.get(split).is_some_and(|state| state.judged >= *end || state.ended))
    }

    fn report(&mut self) {
        for lane in &mut self.lanes {
            for (split, state) in &mut lane.splits {
                let progress = state.progress();
                if state.changed || progress.ended {
                    self.board.split(&lane.view, split, &progress, lane.threshold, state.lag);
                    state.changed = false;
                }
            }
        }
    }

    async fn put_checkpoints(&mut self, rows: Vec<OnlineRow>) -> Result<()> {
        let table = checkpoints_table(self.name());
        let online = self.project.online.as_ref();
        retry("checkpoint", self.pauses(), &self.board, || online.put(&table, rows.clone())).await?;
        self.unsynced = true;
        Ok(())
    }

    pub(super) async fn sync_online(&mut self) -> Result<()> {
        retry("online store", self.pauses(), &self.board, || self.project.online.sync()).await?;
        self.unsynced = false;
        Ok(())
    }

    pub(super) async fn publish_logs(&mut self, all: bool) -> Result<()> {
        // Where memory is short, the buffers that hold at least an equal share of it are written.
        let buffers = self.lanes.iter().flat_map(|lane| lane.splits.values()).map(|state| state.buffer_bytes);
        let (count, total) = buffers.filter(|bytes| *bytes > 0).fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
        let crowded = total >= self.tuning.log_buffer_bytes;
        let mut due = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.view.offline) {
            for (split, state) in &mut lane.splits {
                let old = state.buffer_since.is_some_and(|since| since.elapsed() >= self.tuning.log_interval);
                let large = state.buffer_bytes >= self.tuning.log_piece_bytes
                    || (crowded && state.buffer_bytes.saturating_mul(count) >= total);
                if state.logged <= state.log_end || !(all || old || large || state.ended) {
                    continue;
                }
                let pieces = std::mem::take(&mut state.buffer);
                state.buffer_bytes = 0;
                state.buffer_since = None;
                due.push(Due {
                    lane: index,
                    split: split.clone(),
                    log: lane.view.log(),
                    piece: Piece::join(&pieces)?.unwrap_or_else(|| Piece::empty(&lane.view)),
                    end: state.log_end.clone(),
                    through: state.logged.clone(),
                    newest: state.newest,
                });
            }
        }
        for (lane, split, end, retries) in self.publish_each(due).await? {
            if let Some(state) = self.lanes.get_mut(lane).and_then(|lane| lane.splits.get_mut(&split)) {
                state.log_end = end;
                state.counts.retries += retries;
                state.changed = true;
            }
        }
        Ok(())
    }

    async fn publish_dead(&mut self, all: bool) -> Result<()> {
        let mut due = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            for (split, state) in &mut lane.splits {
                let old = state.dead_since.is_some_and(|since| since.elapsed() >= self.tuning.dead_letter_interval);
                if state.dead.is_empty() || !(all || old || state.ended || state.dead.len() >= 10_000) {
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
                    piece,
                    end: state.dead_end.clone(),
                    through: state.judged.clone(),
                    newest: None,
                });
            }
        }
        for (lane, split, end, retries) in self.publish_each(due).await? {
            if let Some(state) = self.lanes.get_mut(lane).and_then(|lane| lane.splits.get_mut(&split)) {
                state.dead_end = end;
                state.counts.retries += retries;
            }
        }
        Ok(())
    }

    async fn publish_each(&self, due: Vec<Due>) -> Result<Vec<(usize, SplitId, Position, u64)>> {
        let pauses = self.pauses();
        futures::stream::iter(due.into_iter().map(|due| async move {
            let (lane, split) = (due.lane, due.split.clone());
            let (end, retries) = publish(&self.project, &self.board, pauses, due).await?;
            Ok((lane, split, end, retries))
        }))
        .buffer_unordered(PUBLISHED_AT_ONCE)
        .try_collect()
        .await
    }
}

/// Appends a piece to a log, as much of it as is not there yet. Gives back the log's new end.
async fn publish(project: &Project, board: &Board, pauses: Pauses, due: Due) -> Result<(Position, u64)> {
    let Due { split, log, mut piece, mut end, through, newest, .. } = due;
    let is_view = log.view != dead::DEAD_LETTERS;
    let mut retries = 0;
    let mut waits = pauses.iter();
    while end < through {
        piece = piece.after(&end);
        // Dead letters are rows of their log already.
        let rows = if is_view { log_rows(&piece.clone().into_view_rows(&split))? } else { piece.rows.clone() };
        let range = LogRange { after: end.clone(), through: through.clone() };
        let metadata = newest.map(|newest| (NEWEST_EVENT.to_owned(), newest.to_string())).into_iter().collect();
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

/// How many of each split's rows lost to others: those whose version is not the stored one, and lower.
async fn stale(
    online: &dyn headwater_core::OnlineStore,
    table: &str,
    splits: &[(SplitId, Vec<OnlineRow>)],
) -> Result<Vec<(SplitId, u64)>> {
    let mut out = Vec::new();
    for (split, rows) in splits {
        let keys = rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
        let stored = online.get(table, &keys).await?;
        let lost = rows
            .iter()
            .zip(&stored)
            .filter(|(row, stored)| stored.as_ref().is_some_and(|stored| stored.version > row.version));
        out.push((split.clone(), lost.count() as u64));
    }
    Ok(out)
}
