//! The writing task of a worker: what becomes of what the reading task puts into the queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_core::definitions::OnError;
use headwater_core::stream::{AssignedSplit, Progress, StreamReader};
use headwater_core::{Error, Result, SplitId};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::sink::{Prepared, Sink};
use super::targets::Targets;
use super::worker::{Group, Outcome, serve, told_to};

/// Rows that are absorbed at once: enough to keep a core busy for some milliseconds.
const ABSORBED_ROWS: usize = 32_768;

#[allow(clippy::large_enum_variant)] // Nearly all are batches, and few are in the queue.
pub(super) enum Item {
    Assigned(Vec<AssignedSplit>, oneshot::Sender<()>),
    Batch(Prepared, OwnedSemaphorePermit),
    /// Write and publish what there is of these splits, then give them up. Without `publish` they are lost already.
    Revoked {
        splits: Vec<SplitId>,
        publish: bool,
        done: oneshot::Sender<()>,
    },
    Ended(SplitId),
}

/// How far the reader may tell its source that splits are dealt with.
#[derive(Debug, Default)]
pub(super) struct Commits {
    latest: Mutex<BTreeMap<SplitId, Progress>>,
    pub(super) news: Notify,
}

impl Commits {
    fn add(&self, commits: BTreeMap<SplitId, Progress>) {
        if !commits.is_empty() {
            self.latest.lock().unwrap_or_else(PoisonError::into_inner).extend(commits);
            self.news.notify_one();
        }
    }

    pub(super) async fn hand_over(&self, reader: &mut dyn StreamReader) {
        let commits = std::mem::take(&mut *self.latest.lock().unwrap_or_else(PoisonError::into_inner));
        let commits = commits.into_iter().collect::<Vec<_>>();
        if !commits.is_empty()
            && let Err(error) = reader.commit(&commits).await
        {
            // The checkpoints are the truth; the next commit says more anyway.
            tracing::warn!(%error, "the source did not take a commit");
        }
    }
}

/// The writing task.
pub(super) struct Writer {
    pub(super) group: Arc<Group>,
    pub(super) sink: Sink,
    pub(super) targets: Option<Targets>,
    pub(super) arrived: watch::Sender<Option<Outcome>>,
    pub(super) commits: Arc<Commits>,
    /// Epochs that are built while the stream is read.
    pub(super) building: JoinSet<Result<()>>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Writer {
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Item>) -> Result<()> {
        let interval = self.group.tuning.sync_interval;
        let mut next_sync = Instant::now() + interval;
        let mut next = None;
        loop {
            let has_room = self.sink.has_room();
            let item = match next.take() {
                Some(item) => Some(item),
                None => tokio::select! {
                    settled = self.sink.settled() => {
                        settled?;
                        self.go_on().await?;
                        continue;
                    }
                    item = queue.recv(), if has_room => item,
                    () = sleep_until(next_sync) => {
                        self.sync_soon().await?;
                        next_sync = Instant::now() + interval;
                        continue;
                    }
                },
            };
            match item {
                None => break,
                Some(Item::Batch(prepared, permit)) => {
                    let mut permits = vec![permit];
                    let mut rows = self.accept(prepared)?;
                    // Whatever waits, within reason.
                    while rows < ABSORBED_ROWS.min(self.group.tuning.micro_batch_rows) {
                        match queue.try_recv() {
                            Ok(Item::Batch(prepared, permit)) => {
                                rows += self.accept(prepared)?;
                                permits.push(permit);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.sink.absorb().await?;
                    self.write().await?;
                }
                Some(Item::Assigned(splits, done)) => {
                    // What an earlier turn of these splits has begun to write is to be seen.
                    self.sink.flush().await?;
                    self.sink.settle_logs().await?;
                    self.sink.assign(&splits).await?;
                    let _ = done.send(());
                }
                Some(Item::Revoked { splits, publish, done }) => {
                    if publish {
                        self.sync().await?;
                    }
                    self.sink.forget(&splits);
                    let _ = done.send(());
                }
                Some(Item::Ended(split)) => {
                    self.sink.end(&split);
                    if let Some(targets) = &mut self.targets {
                        targets.ended(&split);
                    }
                }
            }
            if self.sink.logs_are_large() {
                self.sink.start_publishing();
            }
            if Instant::now() >= next_sync || self.sink.dead_letters_are_large() {
                self.sync_soon().await?;
                next_sync = Instant::now() + interval;
            } else {
                self.look_around(false).await?;
            }
        }
        let commits = self.sink.sync().await?;
        self.commits.add(commits);
        // Who was not told to stop does what it has begun.
        while !self.building.is_empty() && !*self.stop.borrow() {
            tokio::select! {
                Some(built) = self.building.join_next() => finished(built)?,
                () = told_to(&mut self.stop) => {}
            }
            self.sink.sync().await?;
        }
        Ok(())
    }

    fn accept(&mut self, prepared: Prepared) -> Result<usize> {
        if let Some(targets) = &mut self.targets {
            targets.read(&prepared.batch);
        }
        let (rows, dead) = self.sink.accept(prepared)?;
        match dead {
            Some(letter) if self.group.settings.on_error == OnError::Fail => Err(Error::data(format!(
                "view `{}` cannot use the record at position `{}` of split `{}`: {}",
                letter.view, letter.position, letter.split, letter.reason
            ))),
            _ => Ok(rows),
        }
    }

    /// Takes a cut with the next write, and has it saved when that has landed.
    async fn sync_soon(&mut self) -> Result<()> {
        self.sink.cut_is_due = true;
        self.write().await?;
        // A cut waits until its dead letters are published, for however long that takes. Logs do not wait with it.
        if self.sink.syncing_cut.is_some() {
            self.sink.start_publishing();
        }
        Ok(())
    }

    /// Does what waited for a write to land, or for what it has written to be durable.
    async fn go_on(&mut self) -> Result<()> {
        if self.sink.is_synced() {
            self.save().await?;
        }
        if !self.sink.is_writing() {
            if self.sink.cut.is_some() {
                self.start_syncing().await?;
            }
            self.write().await?;
        }
        Ok(())
    }

    /// Begins the next write, unless one is under way. Where nothing is to be written, a cut that was due speaks of what
    /// is written already.
    async fn write(&mut self) -> Result<()> {
        self.sink.write().await?;
        if self.sink.is_writing() || self.sink.cut.is_none() { Ok(()) } else { self.start_syncing().await }
    }

    async fn start_syncing(&mut self) -> Result<()> {
        self.look_at_builds()?;
        self.sink.start_syncing().await?;
        // Nothing was to be synced.
        if self.sink.is_synced() { self.save().await } else { Ok(()) }
    }

    async fn save(&mut self) -> Result<()> {
        let commits = self.sink.save_synced().await?;
        self.commits.add(commits);
        self.look_around(true).await
    }

    async fn sync(&mut self) -> Result<()> {
        self.look_at_builds()?;
        let commits = self.sink.sync().await?;
        self.commits.add(commits);
        self.look_around(true).await
    }

    fn look_at_builds(&mut self) -> Result<()> {
        while let Some(built) = self.building.try_join_next() {
            finished(built)?;
        }
        Ok(())
    }

    /// Looks whether all that was to be reached is. Splits of other workers only show in the checkpoints: those are
    /// asked where `thoroughly`.
    async fn look_around(&mut self, thoroughly: bool) -> Result<()> {
        let Some(targets) = &mut self.targets else { return Ok(()) };
        if !targets.are_reached(&self.sink, thoroughly, &self.group).await? {
            return Ok(());
        }
        // An epoch that is being built is to serve by then.
        if self.group.until_caught_up && !(self.building.is_empty() && self.sink.epochs_are_settled().await?) {
            return Ok(());
        }
        self.targets = None;
        if self.group.until_caught_up {
            self.arrived.send_replace(Some(Outcome::Finished));
            return Ok(());
        }
        self.sink.flush().await?;
        self.sink.sync_online().await?;
        serve(&self.group).await?;
        if self.group.joins {
            self.arrived.send_replace(Some(Outcome::CaughtUp));
        }
        Ok(())
    }
}

/// What became of a build.
fn finished(built: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    built.map_err(|panic| Error::unexpected("a build of windows died").with_source(panic))?
}
