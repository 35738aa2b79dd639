//! Builds of epochs from history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_core::{Error, Micros, Position, Result, SplitId};
use tokio::time::Instant;

use super::history::{LogRows, Ranges};
use super::lanes::GRACE;
use super::writer::Writer;
use super::{Calls, current, fingerprint, latest_built, load, reads_again, serve};
use crate::ingest::checkpoint;
use crate::ingest::retry::retry;
use crate::ingest::worker::Group;
use crate::project::Project;
use crate::store::batch::{BatchRows, Scanned};
use crate::view::View;
use crate::windows::epoch::lease::{Lease, Wanted};
use crate::windows::epoch::{
    BuildProgress, Epoch, EpochEntry, EpochState, Epochs, SplitProgress, next_id, table, tables_prefix,
};

/// How often a build says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How much longer than a job's window rows those of a build may be held: they are written once if all fit.
const BUILD_SHARE: usize = 4;

/// Where log and batch rows meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFrom {
    /// Just after the newest batch row, now at the latest; the beginning of time where there is none.
    AfterNewest,
    /// Here.
    At(Option<Micros>),
}

/// A build to be made.
pub(crate) struct Build<'a> {
    pub(crate) project: &'a Project,
    pub(crate) view: &'a Arc<View>,
    pub(crate) calls: &'a Calls,
    /// The first batch row to look at, inclusive.
    pub(crate) start: Option<Micros>,
    pub(crate) log_from: LogFrom,
    /// What a job may hold of window rows.
    pub(crate) cache_bytes: usize,
    /// Is told how far it is.
    pub(crate) report: Option<&'a (dyn Fn(BuildProgress) + Send + Sync)>,
}

/// What a build read and wrote.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) epoch: Epoch,
    /// Batch rows that count.
    pub(crate) rows: u64,
    /// Batch rows that belong to nobody.
    pub(crate) skipped: u64,
    /// Window rows written.
    pub(crate) written: u64,
    /// Why there are no batch rows, where there are none.
    pub(crate) note: Option<String>,
}

impl Build<'_> {
    fn name(&self) -> &str {
        &self.project.definitions.project
    }

    /// Asks for the right to build.
    pub(crate) fn wanted(project: &Project, view: &View, expires: Duration) -> Wanted {
        Wanted {
            online: Arc::clone(&project.online),
            project: project.definitions.project.clone(),
            view: view.name.clone(),
            generation: view.generation.clone(),
            expires,
        }
    }

    /// Builds an epoch: the batch rows before `log_from`, then what the log has published from it on. It is catching up
    /// then, durably; where none serves it is the one.
    ///
    /// What other builds have left unfinished is removed. One that has all of history stays, as the jobs may be about to
    /// let it serve: this one takes over after it. Older ones that wait behind it will not serve.
    ///
    /// # Errors
    /// `Data` where a batch row cannot be used; `Conflict` where the lease was lost; those of the stores.
    pub(crate) async fn run(&self, lease: &Lease) -> Result<Built> {
        let (project, view) = (self.project, self.view);
        let online = project.online.as_ref();
        let windows = view.windows.as_ref().ok_or_else(|| Error::unexpected("a view without windows has no epochs"))?;
        let epochs = self.calls.run(|| load(project, view)).await?.0;
        let is_over = |entry: &&EpochEntry| {
            let waits = entry.epoch.id.as_str() > epochs.serving_id();
            entry.state == EpochState::Building || waits && !epochs.is_latest(entry)
        };
        let (over, kept) = epochs.all.iter().partition::<Vec<_>, _>(is_over);
        for entry in over {
            self.calls.run(|| entry.epoch.remove(online, self.name(), &view.name)).await?;
        }
        // No lane looks after the epochs of a view that is not served online.
        if !view.online {
            self.calls.run(|| remove_outdated(project, view, &epochs, GRACE)).await?;
        }
        self.remove_orphans(&kept).await?;
        let log_from = match self.log_from {
            LogFrom::At(time) => time,
            LogFrom::AfterNewest => {
                let bounds = view.batch_bounds(project).await?;
                // What lies after now may still come by the stream.
                bounds.map(|(_, newest)| newest.saturating_add(1).min(project.clock.now()))
            }
        };
        let epoch = Epoch {
            id: next_id(&epochs),
            generation: view.generation.clone(),
            fingerprint: windows.fingerprint.clone(),
            windows: windows.as_ref().clone(),
            log_from,
            start: self.start,
            created: project.clock.now(),
            without_rows: !view.online,
        };
        let mut built = Built { epoch, rows: 0, skipped: 0, written: 0, note: None };
        let mut progress = Progress { build: self, said: None, now: BuildProgress::default() };
        progress.say(&built.epoch).await?;
        let mut bases = BTreeMap::new();
        if view.online {
            let budget = self.cache_bytes.saturating_mul(BUILD_SHARE);
            let mut writer = Writer::new(self.name(), view, &built.epoch, budget, true)?;
            self.batch(&mut writer, &mut built, &mut progress).await?;
            if view.offline {
                bases = self.log(&mut writer, &mut built, &mut progress).await?;
            }
            built.written += writer.flush(self.calls).await?;
        }
        self.calls.sync().await?;
        lease.check().await?;
        let base = |through| SplitProgress { through, newest: None, caught_up: false };
        let splits = bases.into_iter().map(|(split, through)| (split, base(through))).collect::<Vec<_>>();
        let epoch = &built.epoch;
        self.calls.run(|| epoch.write_progress(online, self.name(), &view.name, splits.clone())).await?;
        let done = EpochState::CatchingUp;
        self.calls.run(|| epoch.write(online, self.name(), &view.name, done, progress.now)).await?;
        // Who was away between the two has written of rows that others have thrown away.
        if let Err(error) = lease.check().await {
            self.calls.run(|| epoch.remove(online, self.name(), &view.name)).await?;
            return Err(error);
        }
        // Training sets read history where it lies: of theirs no split has to catch up.
        if !view.online || epochs.serving.is_none() && !reads_again(project, view, &epochs).await? {
            self.calls.run(|| epoch.serve(online, self.name(), &view.name, project.clock.now())).await?;
        }
        self.calls.sync().await?;
        Ok(built)
    }

    /// The batch rows from `start` to `log_from`.
    async fn batch(&self, writer: &mut Writer, built: &mut Built, progress: &mut Progress<'_>) -> Result<()> {
        // Without batch rows there is no time to begin at, and so none that count.
        let Some(log_from) = built.epoch.log_from else { return Ok(()) };
        let Some(end) = log_from.checked_sub(1) else { return Ok(()) };
        let mut batch = match BatchRows::open(self.project, self.view, self.start, Some(end)).await? {
            Ok(batch) => batch,
            Err(none) => {
                built.note = Some(none);
                return Ok(());
            }
        };
        while let Some(scanned) = batch.next().await? {
            if let Scanned::Rows(rows) = scanned {
                writer.take(self.calls, vec![(rows, None)]).await?;
                if writer.is_full() {
                    built.written += writer.flush(self.calls).await?;
                }
            }
            progress.now = BuildProgress { done: batch.done as u64, total: batch.total() as u64, rows: batch.read };
            progress.say(&built.epoch).await?;
        }
        (built.rows, built.skipped) = (batch.rows, batch.skipped);
        Ok(())
    }

    /// What the log has published. Gives back up to where. Splits that are over are folded into the batch rows: no more
    /// comes of them, and a read has fewer rows to merge.
    async fn log(
        &self,
        writer: &mut Writer,
        built: &mut Built,
        progress: &mut Progress<'_>,
    ) -> Result<BTreeMap<SplitId, Position>> {
        let (project, view) = (self.project, self.view);
        let checkpoints = checkpoint::load(project.online.as_ref(), self.name(), view).await?;
        let ends = project.offline.ends(&view.log()).await?;
        let ends = ends.into_iter().map(|(split, end)| (split, end.through)).collect::<BTreeMap<_, _>>();
        let over = checkpoints.iter().filter(|(split, checkpoint)| {
            checkpoint.ended && ends.get(split).is_some_and(|end| *end >= checkpoint.through)
        });
        let over = over.map(|(split, _)| split.clone()).collect::<BTreeSet<_>>();
        let ranges = ends.iter().map(|(split, end)| (split.clone(), (Position::START, end.clone())));
        let mut rows = LogRows::open(project, view, built.epoch.log_from, ranges.collect()).await?;
        let before = progress.now;
        while let Some((split, some)) = rows.next().await? {
            writer.take(self.calls, vec![(some, (!over.contains(&split)).then_some(&split))]).await?;
            if writer.is_full() {
                built.written += writer.flush(self.calls).await?;
            }
            progress.now = BuildProgress {
                done: before.done + rows.done as u64,
                total: before.total + rows.total() as u64,
                rows: before.rows + rows.read,
            };
            progress.say(&built.epoch).await?;
        }
        Ok(ends)
    }

    /// Removes tables that belong to no epoch: those of writers that did not know yet that theirs was gone.
    async fn remove_orphans(&self, epochs: &[&EpochEntry]) -> Result<()> {
        let prefix = tables_prefix(self.name(), &self.view.name, &self.view.generation);
        let own = epochs.iter().map(|entry| table(self.name(), &self.view.name, &entry.epoch));
        let own = own.collect::<BTreeSet<_>>();
        for found in self.project.online.tables().await? {
            if found.starts_with(&prefix) && !own.contains(&found) {
                self.project.online.drop_table(&found).await?;
            }
        }
        Ok(())
    }
}

struct Progress<'a> {
    build: &'a Build<'a>,
    said: Option<Instant>,
    now: BuildProgress,
}

impl Progress<'_> {
    /// Tells whoever asks how far the build is, now and then.
    async fn say(&mut self, epoch: &Epoch) -> Result<()> {
        if self.said.is_some_and(|said| said.elapsed() < REPORT_EVERY) {
            return Ok(());
        }
        self.said = Some(Instant::now());
        let build = self.build;
        if let Some(report) = build.report {
            report(self.now);
        }
        let online = build.project.online.as_ref();
        let write = || epoch.write(online, build.name(), &build.view.name, EpochState::Building, self.now);
        build.calls.run(write).await.map(drop)
    }
}

/// Brings the rows of these splits from the log into an epoch: those behind the first position of a range, up to the
/// second. What is in already changes nothing. Durable when it returns, and said to be.
///
/// # Errors
/// Those of the stores. It can be called again then.
pub(super) async fn catch_up(
    project: &Project,
    calls: &Calls,
    writer: &mut Writer,
    view: &Arc<View>,
    ranges: Ranges,
    caught_up: bool,
) -> Result<()> {
    let mut waits = calls.again.as_ref().map(|(pauses, _)| pauses.iter());
    loop {
        match try_catch_up(project, calls, writer, view, ranges.clone(), caught_up).await {
            Err(error) if error.is_retryable() => match (&calls.again, &mut waits) {
                (Some((pauses, board)), Some(waits)) => {
                    tracing::warn!(%error, "will be tried again");
                    board.retrying(Some(&error));
                    tokio::time::sleep(waits.next().unwrap_or(pauses.longest)).await;
                    board.retrying(None);
                }
                _ => return Err(error),
            },
            done => return done,
        }
    }
}

async fn try_catch_up(
    project: &Project,
    calls: &Calls,
    writer: &mut Writer,
    view: &Arc<View>,
    ranges: Ranges,
    caught_up: bool,
) -> Result<()> {
    let epoch = writer.epoch.clone();
    let done = |through: &Position| SplitProgress { through: through.clone(), newest: None, caught_up };
    let done = ranges.iter().map(|(split, (_, through))| (split.clone(), done(through))).collect::<Vec<_>>();
    let missing = ranges.into_iter().filter(|(_, (after, through))| after < through).collect::<Ranges>();
    if !missing.is_empty() {
        let mut rows = LogRows::open(project, view, epoch.log_from, missing).await?;
        while let Some((split, some)) = rows.next().await? {
            writer.take(calls, vec![(some, Some(&split))]).await?;
            if writer.is_full() {
                writer.flush(calls).await?;
            }
        }
        writer.flush(calls).await?;
    }
    calls.sync().await?;
    let (online, name) = (project.online.as_ref(), &project.definitions.project);
    calls.run(|| epoch.write_progress(online, name, &view.name, done.clone())).await.map(drop)
}

/// Brings an epoch up to the ends of the view's log, as far as `wanted` says of a split that it is to be. What jobs would
/// do, where none runs.
///
/// # Errors
/// Those of the stores.
pub(crate) async fn catch_up_here(
    project: &Project,
    calls: &Calls,
    view: &Arc<View>,
    epoch: &Epoch,
    cache_bytes: usize,
    wanted: impl Fn(&SplitId) -> bool,
) -> Result<()> {
    if !view.offline || !view.online {
        return Ok(());
    }
    let epochs = load(project, view).await?;
    let Some(entry) = epochs.entry(&epoch.id) else { return Ok(()) };
    let ends = project.offline.ends(&view.log()).await?;
    let behind = ends.into_iter().filter(|(split, _)| wanted(split)).filter_map(|(split, end)| {
        let base = entry.splits.get(&split).map_or(Position::START, |done| done.through.clone());
        (base < end.through).then_some((split, (base, end.through)))
    });
    let behind = behind.collect::<Ranges>();
    if behind.is_empty() {
        return Ok(());
    }
    let mut writer = Writer::new(&project.definitions.project, view, epoch, cache_bytes, false)?;
    catch_up(project, calls, &mut writer, view, behind, false).await
}

/// Removes those of a view's epochs that were replaced at least `grace` ago: workers may write to them until they have
/// noticed. Readers look again where an epoch is replaced under them.
///
/// # Errors
/// The store's.
pub(crate) async fn remove_outdated(project: &Project, view: &View, epochs: &Epochs, grace: Micros) -> Result<()> {
    let Some((serving, since)) = &epochs.serving else { return Ok(()) };
    if project.clock.now().saturating_sub(*since) < grace {
        return Ok(());
    }
    for entry in epochs.all.iter().filter(|entry| entry.epoch.id < serving.id) {
        entry.epoch.remove(project.online.as_ref(), &project.definitions.project, &view.name).await?;
    }
    Ok(())
}

/// Sees to it that each windowed view has an epoch of its present aggregations before it is read. Where an older one
/// serves and can be kept up meanwhile, the build is left to the caller: those views are given back.
///
/// # Errors
/// As [`Build::run`].
pub(in crate::ingest) async fn prepare(group: &Group) -> Result<Vec<Arc<View>>> {
    let mut later = Vec::new();
    for view in group.views.iter().filter(|view| view.windows.is_some()) {
        let epochs = || load(&group.project, view);
        let epochs = retry("online store", group.tuning.pauses(), &group.board, epochs).await?.0;
        if current(view, &epochs).is_some() {
            // No lane looks after the epochs of a view that is not served online.
            if !view.online {
                let settle = || async {
                    serve(&group.project, view).await?;
                    remove_outdated(&group.project, view, &epochs, GRACE).await
                };
                retry("online store", group.tuning.pauses(), &group.board, settle).await?;
            }
            continue;
        }
        if is_newer(group, view, &epochs) {
            continue;
        }
        if epochs.serving.is_some() && view.offline && view.online {
            later.push(Arc::clone(view));
        } else {
            build_for_job(group, view).await?;
        }
    }
    Ok(later)
}

/// Whether the epoch that serves was built since this worker's definitions were applied, for a view that is served online
/// again, or is not any more: it is of later definitions, and not this worker's to replace.
fn is_newer(group: &Group, view: &View, epochs: &Epochs) -> bool {
    let serving = epochs.serving.as_ref().map(|(serving, _)| serving);
    serving.is_some_and(|serving| serving.without_rows == view.online && serving.created > group.applied)
}

/// Builds the epoch of the view's present aggregations, unless another worker does.
///
/// # Errors
/// As [`Build::run`].
pub(in crate::ingest) async fn build_for_job(group: &Group, view: &Arc<View>) -> Result<()> {
    // What is half built is thrown away: it is begun anew.
    let build = || try_build(group, view);
    retry("windows", group.tuning.pauses(), &group.board, build).await.map(|(done, _)| done)
}

async fn try_build(group: &Group, view: &Arc<View>) -> Result<()> {
    let project = group.project.as_ref();
    let calls = Calls::patient(&project.online, group.tuning.pauses(), &group.board);
    let there = || async {
        let epochs = calls.run(|| load(project, view)).await?.0;
        Ok(current(view, &epochs).is_some().then_some(()))
    };
    let wanted = Build::wanted(project, view, group.tuning.build_lease);
    let Ok(lease) = wanted.take(Duration::MAX, there).await? else { return Ok(()) };
    let done = build_under(&lease, group, view, &calls).await;
    let released = lease.release().await;
    done.and(released)
}

async fn build_under(lease: &Lease, group: &Group, view: &Arc<View>, calls: &Calls) -> Result<()> {
    let project = group.project.as_ref();
    let epochs = calls.run(|| load(project, view)).await?.0;
    // Another may have built it between the look and the lease.
    if current(view, &epochs).is_some() {
        return Ok(());
    }
    // Where one waits to take over, somebody has asked for its `log_from`.
    let waiting =
        latest_built(&epochs).map(|entry| &entry.epoch).find(|epoch| Some(&*epoch.fingerprint) == fingerprint(view));
    let log_from = match waiting.or(epochs.serving.as_ref().map(|(serving, _)| serving)) {
        Some(epoch) => LogFrom::At(epoch.log_from),
        None => LogFrom::AfterNewest,
    };
    let build = Build {
        project,
        view,
        calls,
        start: None,
        log_from,
        cache_bytes: group.tuning.window_cache_bytes,
        report: None,
    };
    let built = build.run(lease).await?;
    tracing::info!(view = view.name, epoch = built.epoch.id, rows = built.rows, "the windows are built");
    Ok(())
}
