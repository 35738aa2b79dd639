//! Where rows end: online store, log, dead letters, checkpoints, in the order that makes each record count once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_core::online::OnlineRow;
use headwater_core::stream::{AssignedSplit, Progress, StreamBatch};
use headwater_core::{Error, Position, Result, SplitId, StreamSource};
use tokio::task::{JoinError, JoinSet};

use super::Tuning;
use super::checkpoint::{Checkpoint, load_split};
use super::dead::{self, DeadLetter};
use super::lane::{Delivery, Lane, Part, Piece, SplitState};
use super::publish::{Due, Published, publish};
use super::retry::{Pauses, retry};
use super::status::Board;
use super::write::Written;
use crate::project::Project;
use crate::rows::checkpoints_table;

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
    /// What the lanes are fed from; `None` where it is no stream.
    pub(super) stream: Option<Arc<dyn StreamSource>>,
    pub(super) board: Board,
    pub(super) tuning: Tuning,
    /// Rows were put that may not survive a loss of power.
    pub(super) unsynced: bool,
    /// How many rows were absorbed for the next write.
    pub(super) absorbed: usize,
    /// The write to the online store that is under way: one at most.
    pub(super) writing: JoinSet<Result<Vec<Written>>>,
    /// A cut is to be taken with the next write.
    pub(super) cut_is_due: bool,
    /// The checkpoints of what is written when the write that is under way has landed.
    pub(super) cut: Option<Vec<Cut>>,
    /// The checkpoints of what is being made durable. One cut at most is taken or here.
    pub(super) syncing_cut: Option<Vec<Cut>>,
    /// What makes a cut durable; from when it is taken on, its dead letters.
    pub(super) syncing: JoinSet<Result<Vec<Published>>>,
    /// The pieces of logs that are being published.
    pub(super) publishing: JoinSet<Result<Vec<Published>>>,
}

/// How a task of the sink has ended.
pub(super) type Ended<T> = std::result::Result<Result<T>, JoinError>;

/// How far a split is in a lane, at one instant.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) lane: usize,
    pub(super) split: SplitId,
    pub(super) checkpoint: Checkpoint,
}

impl Sink {
    pub(super) fn new(project: Arc<Project>, lanes: Vec<Lane>, board: Board, tuning: Tuning) -> Self {
        Self {
            project,
            lanes,
            stream: None,
            board,
            tuning,
            unsynced: false,
            absorbed: 0,
            writing: JoinSet::new(),
            cut_is_due: false,
            cut: None,
            syncing_cut: None,
            syncing: JoinSet::new(),
            publishing: JoinSet::new(),
        }
    }

    pub(super) fn pauses(&self) -> Pauses {
        self.tuning.pauses()
    }

    fn name(&self) -> &str {
        &self.project.definitions.project
    }

    /// Takes splits over. What an earlier turn of theirs has begun to write or to publish is in the stores. When this
    /// returns, where they begin is remembered durably.
    pub(super) async fn assign(&mut self, splits: &[AssignedSplit]) -> Result<()> {
        let (project, pauses, board) = (Arc::clone(&self.project), self.pauses(), self.board.clone());
        let name = &project.definitions.project;
        let mut first = Vec::new();
        for index in 0..self.lanes.len() {
            let Some(view) = self.lanes.get(index).map(|lane| Arc::clone(&lane.view)) else { continue };
            let ends = if view.offline {
                retry("log", pauses, &board, || async { project.offline.ends(&view.log()).await }).await?.0
            } else {
                BTreeMap::new()
            };
            let dead_log = dead::log_of(&view);
            let dead_ends = retry("log", pauses, &board, || project.offline.ends(&dead_log)).await?.0;
            let (mut checkpoints, mut resumes) = (BTreeMap::new(), BTreeMap::new());
            for AssignedSplit { split, resume } in splits {
                let views = [Arc::clone(&view)];
                let load = || load_split(project.online.as_ref(), name, &views, split);
                let checkpoint = retry("checkpoint", pauses, &board, load).await?.0.pop().flatten();
                // Windows take what is logged from the log, also where another view has it read again: which of it was
                // late, nobody could say.
                let logged = ends.get(split).zip(checkpoint.as_ref());
                let logged = logged.map(|(end, checkpoint)| end.through.clone().min(checkpoint.through.clone()));
                resumes.insert(split.clone(), resume.clone().max(logged.unwrap_or(Position::START)));
                checkpoints.extend(checkpoint.map(|checkpoint| (split.clone(), checkpoint)));
            }
            let wanted = self.assign_windows(index, &resumes).await?;
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            for AssignedSplit { split, resume } in splits {
                let checkpoint = checkpoints.get(split);
                let dead_end = dead_ends.get(split).map_or(Position::START, |end| end.through.clone());
                let mut state =
                    SplitState::new(&view, checkpoint, ends.get(split), dead_end, resume, wanted.get(split));
                if checkpoint.is_none() {
                    if view.offline && state.log_end < *resume {
                        // The log has to know as well where the view began, before the checkpoint does.
                        let due = Due {
                            lane: 0,
                            split: split.clone(),
                            log: view.log(),
                            pieces: vec![Piece::empty(&view)],
                            end: state.log_end.clone(),
                            through: resume.clone(),
                            newest: None,
                            skipped: None,
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
            lane.packed.retain(|split, _| !splits.contains(split));
            if let Some(windows) = &mut lane.windows {
                windows.forget(splits);
            }
        }
        for cut in [&mut self.cut, &mut self.syncing_cut].into_iter().flatten() {
            cut.retain(|cut| !splits.contains(&cut.split));
        }
    }

    /// Takes a batch: its rows are written after the next [`Sink::absorb`]. Gives back the number of rows and the first
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

    /// Waits until a write has landed, is durable, or pieces of logs are published; for ever where nothing is under way.
    /// Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// The stores', permanent ones.
    pub(super) async fn settled(&mut self) -> Result<()> {
        tokio::select! {
            Some(written) = self.writing.join_next() => self.note_written(written),
            Some(published) = self.publishing.join_next() => self.note_published(published),
            Some(synced) = self.syncing.join_next() => self.note_synced(synced),
            else => std::future::pending().await,
        }
    }

    /// No more will come of a split.
    pub(super) fn end(&mut self, split: &SplitId) {
        for lane in &mut self.lanes {
            if let Some(state) = lane.splits.get_mut(split) {
                state.ended = true;
            }
        }
    }

    /// Writes and publishes all that was accepted, makes it durable, then writes the checkpoints that speak of it. Gives
    /// back how far each split is durable everywhere.
    pub(super) async fn sync(&mut self) -> Result<BTreeMap<SplitId, Progress>> {
        // What is saved here is further than what is being synced, and than any cut: none is taken on the way, whose dead
        // letters nobody would wait for.
        self.cut_is_due = false;
        while let Some(synced) = self.syncing.join_next().await {
            self.note_synced(synced)?;
        }
        self.syncing_cut = None;
        self.flush().await?;
        self.look_at_epochs().await?;
        self.publish_logs().await?;
        self.publish_dead().await?;
        self.cut = None;
        if self.unsynced {
            self.sync_online().await?;
        }
        let commits = self.save(self.checkpoints()).await?;
        // With that an epoch may have caught up, and nobody may look any more.
        self.ask_again();
        self.look_at_epochs().await?;
        // The checkpoints too.
        self.sync_online().await?;
        Ok(commits)
    }

    /// Begins to make durable what the [cut](Sink::cut) speaks of, which is written, and to publish what is due of the
    /// logs, both beside what goes on. No write is under way.
    pub(super) async fn start_syncing(&mut self) -> Result<()> {
        if self.look_at_epochs().await? {
            // It has written everything.
            self.cut = Some(self.checkpoints());
        }
        self.start_publishing();
        self.syncing_cut = self.cut.take();
        if std::mem::take(&mut self.unsynced) {
            let (online, pauses, board) = (Arc::clone(&self.project.online), self.pauses(), self.board.clone());
            self.syncing.spawn(async move {
                retry("online store", pauses, &board, || online.sync()).await?;
                Ok(Vec::new())
            });
        }
        Ok(())
    }

    /// Notes that a part of what a cut speaks of is durable.
    fn note_synced(&mut self, synced: Ended<Vec<Published>>) -> Result<()> {
        self.note_buried(synced.map_err(|panic| Error::unexpected("syncing died").with_source(panic))??);
        Ok(())
    }

    /// Whether a cut speaks of what is durable, so that it can be saved.
    pub(super) fn is_synced(&self) -> bool {
        self.syncing_cut.is_some() && self.syncing.is_empty()
    }

    /// Writes the checkpoints of the cut that is synced. Gives back how far each split is durable everywhere.
    pub(super) async fn save_synced(&mut self) -> Result<BTreeMap<SplitId, Progress>> {
        let cut = self.syncing_cut.take().unwrap_or_default();
        self.save(cut).await
    }

    /// The checkpoints of what was accepted so far, as far as there is news.
    pub(super) fn checkpoints(&self) -> Vec<Cut> {
        let lanes = self.lanes.iter().enumerate();
        let states = lanes.flat_map(|(lane, of)| of.splits.iter().map(move |(split, state)| (lane, split, state)));
        let cuts = states.filter_map(|(lane, split, state)| {
            Some(Cut { lane, split: split.clone(), checkpoint: state.checkpoint()? })
        });
        cuts.collect()
    }

    /// Writes checkpoints of what is durable.
    async fn save(&mut self, cut: Vec<Cut>) -> Result<BTreeMap<SplitId, Progress>> {
        if !cut.is_empty() {
            let lanes = cut.iter().filter_map(|cut| Some((self.lanes.get(cut.lane)?, cut)));
            let rows = lanes.map(|(lane, cut)| cut.checkpoint.to_row(&lane.view, &cut.split));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            self.note_progress(&cut).await?;
            self.put_checkpoints(rows).await?;
        }
        for Cut { lane, split, checkpoint } in cut {
            if let Some(state) = self.lanes.get_mut(lane).and_then(|lane| lane.splits.get_mut(&split)) {
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
}
