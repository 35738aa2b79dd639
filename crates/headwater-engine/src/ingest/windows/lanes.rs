//! The epochs that lanes write to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_core::{Micros, Position, Result, SplitId};
use tokio::time::Instant;

use super::build::{catch_up, catch_up_here, remove_outdated};
use super::history::Ranges;
use super::writer::{Changed, Writer};
use super::{Calls, Reach, has_columns, has_no_more, is_of, load};
use crate::ingest::checkpoint::{self, Checkpoint};
use crate::ingest::lane::Piece;
use crate::ingest::replay;
use crate::ingest::retry::retry;
use crate::ingest::sink::{Cut, Sink};
use crate::view::View;
use crate::windows::epoch::{self, Epoch, EpochEntry, EpochState, Epochs, SplitProgress};

/// How long a replaced epoch stays for workers that do not know yet.
pub(super) const GRACE: Micros = 10_000_000;
/// How often a stream is asked at most which splits it has.
const LIST_EVERY: Duration = Duration::from_secs(10);

/// The epochs of a windowed view that a lane writes to, oldest first.
#[derive(Debug, Default)]
pub(in crate::ingest) struct WindowLane {
    epochs: Vec<Live>,
    /// When the stream was last asked which splits it has.
    listed: Option<Instant>,
}

/// An epoch that is written to.
#[derive(Debug)]
struct Live {
    writer: Writer,
    /// For each split that it follows, up to where events are in it: they are not brought in again.
    bases: BTreeMap<SplitId, Position>,
}

impl WindowLane {
    /// The instant before which events change no window; `None` = there is none.
    pub(in crate::ingest) fn log_from(&self) -> Option<Micros> {
        self.epochs.last().and_then(|live| live.writer.epoch.log_from)
    }

    /// Brings rows to all epochs, those of each split in one piece. Gives back how often the store had to be asked again.
    pub(in crate::ingest) async fn take(&mut self, calls: &Calls, pieces: &[(SplitId, Piece)]) -> Result<u64> {
        let mut retries = 0;
        for live in &mut self.epochs {
            let rows = pieces.iter().filter_map(|(split, piece)| {
                // Of a split that it does not follow it would lack what came before, and nobody would know.
                let fresh = piece.after(live.bases.get(split)?);
                Some((fresh.into_view_rows(split), Some(split)))
            });
            retries += live.writer.take(calls, rows.collect()).await?;
        }
        Ok(retries)
    }

    /// What is to be written of what was taken, in this order: the epoch that serves is never ahead of a later one.
    pub(in crate::ingest) async fn changed(&mut self) -> Result<Vec<Changed>> {
        let mut changed = Vec::new();
        for live in self.epochs.iter_mut().rev() {
            changed.extend(live.writer.changed().await?);
        }
        Ok(changed)
    }

    /// These writes of these epochs are in the store.
    pub(in crate::ingest) fn landed(&mut self, epochs: &[(String, u64)]) {
        for live in &mut self.epochs {
            if let Some((_, number)) = epochs.iter().find(|(epoch, _)| *epoch == live.writer.epoch.id) {
                live.writer.landed(*number);
            }
        }
    }

    /// Whether rows that the store does not have take all that may lie in memory.
    pub(in crate::ingest) fn must_be_written(&self) -> bool {
        self.epochs.iter().any(|live| live.writer.must_be_written())
    }

    /// Forgets splits.
    pub(in crate::ingest) fn forget(&mut self, splits: &[SplitId]) {
        for live in &mut self.epochs {
            live.writer.forget(splits);
            live.bases.retain(|split, _| !splits.contains(split));
        }
    }

    fn knows(&self, entry: &EpochEntry) -> bool {
        self.epochs.iter().any(|live| live.writer.epoch.id == entry.epoch.id)
    }
}

/// The epochs that a job of this view writes to: the one that serves, and later ones of the same aggregations as the
/// view's.
fn wanted<'a>(view: &'a View, epochs: &'a Epochs) -> impl Iterator<Item = &'a EpochEntry> {
    epochs.all.iter().filter(|entry| {
        let serves = entry.epoch.id == epochs.serving_id();
        let later = entry.epoch.id.as_str() > epochs.serving_id();
        let same = is_of(view, &entry.epoch);
        view.online
            && !entry.epoch.without_rows
            && entry.state == EpochState::CatchingUp
            && (serves || later && same)
            && has_columns(view, &entry.epoch)
    })
}

/// The last of them that does not serve yet.
fn latest<'a>(view: &'a View, epochs: &'a Epochs) -> Option<&'a EpochEntry> {
    wanted(view, epochs).filter(|entry| entry.epoch.id.as_str() > epochs.serving_id()).last()
}

impl Sink {
    fn calls(&self) -> Calls {
        Calls::patient(&self.project.online, self.tuning.pauses(), &self.board)
    }

    fn windowed(&self) -> Vec<usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter(|(_, lane)| lane.windows.is_some()).map(|(index, _)| index).collect()
    }

    async fn epochs_of(&self, view: &View) -> Result<Epochs> {
        Ok(retry("online store", self.tuning.pauses(), &self.board, || load(&self.project, view)).await?.0)
    }

    /// Brings the epochs of a lane to where splits are read on, before they are. Gives back for each split how far all
    /// epochs have it: they want its events from there on.
    pub(in crate::ingest) async fn assign_windows(
        &mut self,
        index: usize,
        splits: &BTreeMap<SplitId, Position>,
    ) -> Result<BTreeMap<SplitId, SplitProgress>> {
        let mut lowest = BTreeMap::new();
        let Some(view) = self.lanes.get(index).map(|lane| Arc::clone(&lane.view)) else { return Ok(lowest) };
        let mut epochs = self.epochs_of(&view).await?;
        // Epochs that are new here are taken up for the splits that are read already, too: also those that are built
        // while others are.
        while self.finds_new(index, &view, &epochs) && self.lanes.get(index).is_some_and(|lane| !lane.splits.is_empty())
        {
            self.publish_logs().await?;
            self.take_up(index, &view, &epochs).await?;
            epochs = self.epochs_of(&view).await?;
        }
        self.revise(index, &view, &epochs, true)?;
        let (project, calls) = (Arc::clone(&self.project), self.calls());
        let Some(windows) = self.lanes.get_mut(index).and_then(|lane| lane.windows.as_mut()) else { return Ok(lowest) };
        for live in &mut windows.epochs {
            let known = epochs.entry(&live.writer.epoch.id).map(|entry| &entry.splits);
            let mut ranges = Ranges::new();
            for (split, resume) in splits {
                let done = known.and_then(|splits| splits.get(split));
                let base = done.map_or(Position::START, |done| done.through.clone());
                // Without a log, nothing can lie there that a checkpoint does not speak of.
                let after = if view.offline { base.clone() } else { resume.clone().max(base.clone()) };
                let through = base.max(resume.clone());
                let mut now = SplitProgress { through: through.clone(), newest: None, caught_up: true };
                match done.filter(|done| done.through == through && done.caught_up) {
                    Some(done) => now.newest = done.newest,
                    // A split that has nothing new has caught up, too.
                    None => drop(ranges.insert(split.clone(), (after, through.clone()))),
                }
                live.bases.insert(split.clone(), through);
                let least = lowest.entry(split.clone()).or_insert_with(|| now.clone());
                if now.through < least.through {
                    *least = now;
                }
            }
            catch_up(&project, &calls, &mut live.writer, &view, ranges, true).await?;
        }
        Ok(lowest)
    }

    /// Leaves epochs that are over, and where told to `take_up` others, those that somebody has built: the caller brings
    /// them up.
    fn revise(&mut self, index: usize, view: &Arc<View>, epochs: &Epochs, take_up: bool) -> Result<()> {
        let wanted = wanted(view, epochs).collect::<Vec<_>>();
        let windowed = self.lanes.iter().filter(|lane| lane.windows.is_some()).count().max(1);
        let budget = self.tuning.window_cache_bytes / windowed / wanted.len().max(1);
        let name = self.project.definitions.project.clone();
        let Some(windows) = self.lanes.get_mut(index).and_then(|lane| lane.windows.as_mut()) else { return Ok(()) };
        windows.epochs.retain(|live| wanted.iter().any(|entry| entry.epoch.id == live.writer.epoch.id));
        for entry in wanted {
            if take_up && !windows.knows(entry) {
                let writer = Writer::new(&name, view, &entry.epoch, budget, false)?;
                windows.epochs.push(Live { writer, bases: BTreeMap::new() });
            }
        }
        windows.epochs.sort_by(|a, b| a.writer.epoch.id.cmp(&b.writer.epoch.id));
        windows.epochs.iter_mut().for_each(|live| live.writer.set_budget(budget));
        Ok(())
    }

    /// Whether there are epochs to be taken up. Without a log a new one can only be taken up where splits are read from
    /// their beginning.
    fn finds_new(&self, index: usize, view: &View, epochs: &Epochs) -> bool {
        let known = self.lanes.get(index).and_then(|lane| lane.windows.as_ref());
        view.offline && known.is_some_and(|known| wanted(view, epochs).any(|entry| !known.knows(entry)))
    }

    /// Looks what has become of the epochs: takes up new ones, from where this worker is, makes those serve that have
    /// caught up everywhere, and removes those that are over. No write is under way. Says whether it has written all that
    /// was accepted, which it does to take up an epoch.
    pub(in crate::ingest) async fn look_at_epochs(&mut self) -> Result<bool> {
        let mut flushed = false;
        for index in self.windowed() {
            let Some(view) = self.lanes.get(index).map(|lane| Arc::clone(&lane.view)) else { continue };
            let mut epochs = self.epochs_of(&view).await?;
            if self.finds_new(index, &view, &epochs) {
                self.flush().await?;
                flushed = true;
                self.publish_logs().await?;
                self.take_up(index, &view, &epochs).await?;
                epochs = self.epochs_of(&view).await?;
            } else {
                self.revise(index, &view, &epochs, false)?;
            }
            self.switch(index, &view, &epochs).await?;
            let remove = || remove_outdated(&self.project, &view, &epochs, GRACE);
            retry("online store", self.tuning.pauses(), &self.board, remove).await?;
        }
        Ok(flushed)
    }

    /// Brings epochs that are new to this worker up to where it is. Its log is published up to there.
    async fn take_up(&mut self, index: usize, view: &Arc<View>, epochs: &Epochs) -> Result<()> {
        let before = self
            .lanes
            .get(index)
            .and_then(|lane| lane.windows.as_ref())
            .map(|windows| windows.epochs.iter().map(|live| live.writer.epoch.id.clone()).collect::<Vec<_>>());
        let before = before.unwrap_or_default();
        self.revise(index, view, epochs, true)?;
        let (project, calls) = (Arc::clone(&self.project), self.calls());
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(()) };
        let Some(windows) = lane.windows.as_mut() else { return Ok(()) };
        for live in windows.epochs.iter_mut().filter(|live| !before.contains(&live.writer.epoch.id)) {
            let known = epochs.entry(&live.writer.epoch.id).map(|entry| &entry.splits);
            let mut ranges = Ranges::new();
            for (split, state) in &mut lane.splits {
                let done = known.and_then(|splits| splits.get(split)).map(|done| done.through.clone());
                let base = done.unwrap_or(Position::START);
                let through = state.judged.clone().max(base.clone());
                ranges.insert(split.clone(), (base, through.clone()));
                live.bases.insert(split.clone(), through);
                // Rows that the others have already, this one may not: it is given everything from here on.
                if state.stored > state.judged {
                    state.stored = state.judged.clone();
                }
            }
            catch_up(&project, &calls, &mut live.writer, view, ranges, true).await?;
            tracing::info!(view = view.name, epoch = live.writer.epoch.id, "takes part in a new epoch");
        }
        Ok(())
    }

    /// Makes the latest epoch of the view's aggregations serve if every split has caught up.
    async fn switch(&mut self, index: usize, view: &Arc<View>, epochs: &Epochs) -> Result<()> {
        if !view.offline || latest(view, epochs).is_none() {
            return Ok(());
        }
        let (project, pauses) = (Arc::clone(&self.project), self.tuning.pauses());
        let (online, name) = (project.online.as_ref(), &project.definitions.project);
        let checkpoints = || checkpoint::load(online, name, view);
        let checkpoints = retry("checkpoint", pauses, &self.board, checkpoints).await?.0;
        // Loaded once more: what epochs have is written before the checkpoints, so that only who is behind looks so.
        let epochs = self.epochs_of(view).await?;
        let Some(entry) = latest(view, &epochs) else { return Ok(()) };
        // In this order, for the same reason.
        let served = self.written(view, epochs.serving.as_ref().map(|(epoch, _)| epoch)).await?;
        let written = self.written(view, Some(&entry.epoch)).await?;
        let own = self.lanes.get(index).map(|lane| &lane.splits);
        let takes_part = |split: &SplitId, checkpoint: &Checkpoint| {
            let done = entry.splits.get(split)?;
            (done.caught_up || checkpoint.ended).then_some(&done.through)
        };
        let caught_up = |split: &SplitId, checkpoint: &Checkpoint| {
            let Some(through) = takes_part(split, checkpoint) else { return false };
            // A worker that takes a split up may have to read again what was served before it died. What the stream has
            // lost of that will not come: then the end is reached before that is.
            let own = own.and_then(|own| own.get(split));
            let reach = Reach { through, written: written.get(split) };
            reach.has_all(checkpoint, served.get(split))
                || own.is_some_and(|state| state.at_end && state.judged <= *through)
        };
        // Splits that nobody reads any more are brought up by whoever looks.
        let left = checkpoints.iter().filter(|(split, checkpoint)| !caught_up(split, checkpoint));
        let left = left.collect::<Vec<_>>();
        let open = left.iter().filter(|(split, checkpoint)| !is_over(split, checkpoint));
        let open = open.map(|(split, checkpoint)| ((*split).clone(), takes_part(split, checkpoint).cloned()));
        let open = open.collect::<BTreeMap<_, _>>();
        if self.has_no_more(index, &open).await {
            let calls = self.calls();
            let cache = self.tuning.window_cache_bytes;
            let over = |split: &SplitId| left.iter().any(|(left, _)| *left == split);
            let catch_up = || catch_up_here(&project, &calls, view, &entry.epoch, cache, over);
            retry("log", pauses, &self.board, catch_up).await?;
            let now = project.clock.now();
            retry("online store", pauses, &self.board, || entry.epoch.serve(online, name, &view.name, now)).await?;
            retry("online store", pauses, &self.board, || online.sync()).await?;
            tracing::info!(view = view.name, epoch = entry.epoch.id, "the new epoch serves");
        }
        Ok(())
    }

    /// Up to where an epoch was written.
    async fn written(&self, view: &View, epoch: Option<&Epoch>) -> Result<BTreeMap<SplitId, Position>> {
        let Some(epoch) = epoch else { return Ok(BTreeMap::new()) };
        let (online, name) = (self.project.online.as_ref(), &self.project.definitions.project);
        let written = || epoch::written(online, name, &view.name, epoch);
        Ok(retry("online store", self.tuning.pauses(), &self.board, written).await?.0)
    }

    /// Has the stream asked which splits it has when this matters next, however long ago that was.
    pub(in crate::ingest) fn ask_again(&mut self) {
        for windows in self.lanes.iter_mut().filter_map(|lane| lane.windows.as_mut()) {
            windows.listed = None;
        }
    }

    /// Whether the stream [has no more](has_no_more) of these splits. It is asked now and then only: mostly another worker
    /// needs a moment.
    async fn has_no_more(&mut self, index: usize, splits: &BTreeMap<SplitId, Option<Position>>) -> bool {
        if splits.is_empty() {
            return true;
        }
        let Some(stream) = self.stream.clone() else { return false };
        let Some(windows) = self.lanes.get_mut(index).and_then(|lane| lane.windows.as_mut()) else { return false };
        if windows.listed.is_some_and(|listed| listed.elapsed() < LIST_EVERY) {
            return false;
        }
        windows.listed = Some(Instant::now());
        has_no_more(stream.as_ref(), splits).await
    }

    /// Whether no epoch is waiting to take over.
    pub(in crate::ingest) async fn epochs_are_settled(&self) -> Result<bool> {
        for lane in self.lanes.iter().filter(|lane| lane.windows.is_some() && lane.view.offline) {
            let epochs = self.epochs_of(&lane.view).await?;
            if wanted(&lane.view, &epochs).any(|entry| entry.epoch.id.as_str() > epochs.serving_id()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says how far the epochs of a lane have splits of which these checkpoints are to be written: never less than those.
    pub(in crate::ingest) async fn note_progress(&self, cut: &[Cut]) -> Result<()> {
        let (project, pauses) = (self.project.as_ref(), self.tuning.pauses());
        let (online, name) = (project.online.as_ref(), &project.definitions.project);
        for index in self.windowed() {
            let Some(lane) = self.lanes.get(index) else { continue };
            for live in lane.windows.iter().flat_map(|windows| &windows.epochs) {
                let of_epoch = |cut: &&Cut| cut.lane == index && live.bases.contains_key(&cut.split);
                let done = cut.iter().filter(of_epoch).map(|Cut { split, checkpoint, .. }| {
                    let (through, newest) = (checkpoint.through.clone(), checkpoint.newest);
                    (split.clone(), SplitProgress { through, newest, caught_up: true })
                });
                let done = done.collect::<Vec<_>>();
                let write = || live.writer.epoch.write_progress(online, name, &lane.view.name, done.clone());
                retry("online store", pauses, &self.board, write).await?;
            }
        }
        Ok(())
    }
}

/// Whether no worker reads the split: it has ended, or is a replay of dead letters.
fn is_over(split: &SplitId, checkpoint: &Checkpoint) -> bool {
    checkpoint.ended || replay::is_replay(split)
}
