//! Materialisation of windowed views: a new epoch of their window state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_core::{Error, ErrorKind, Micros, Position, Result};
use tokio::time::Instant;

use super::batch::time_bounds;
use super::json::format_time;
use super::materialize::{Interval, MaterializeProgress, Materialized, Reporter};
use crate::ingest::windows::{Build, Calls, LogFrom, Reach, catch_up_here, has_no_more, load, remove_outdated};
use crate::ingest::{self, JobState, Tuning};
use crate::project::Project;
use crate::view::View;
use crate::windows::epoch::{self, BuildProgress, Epoch};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Of which batch rows an epoch is to be built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The first event time, inclusive; `None` = from the beginning.
    start: Option<Micros>,
    /// Where they end, exclusive, and the log begins.
    end: Micros,
}

/// Which batch rows an epoch of this interval is built of. Nothing is written.
///
/// # Errors
/// `Invalid`, naming what would do, where windows cannot be built of them; those of the stores.
pub(crate) async fn plan(project: &Project, view: &Arc<View>, interval: &Interval) -> Result<Plan> {
    let end = match *interval {
        Interval::Between(_, end) | Interval::Until(end) => end,
    };
    // What lies after now may still come by the stream.
    let end = end.min(project.clock.now());
    // Training sets read batch rows where they lie, all of them.
    let start = if view.online { start(project, view, interval, end).await? } else { None };
    check_log(project, view, end).await?;
    Ok(Plan { start, end })
}

/// Builds an epoch of the batch rows from the plan's start to before its end, and of the log's rows from its end on.
/// Reads go to it when all splits have caught up: by the jobs, where some run.
pub(crate) async fn materialize(
    project: &Project,
    view: &Arc<View>,
    Plan { start, end }: Plan,
    report: Option<&Reporter>,
    tuning: &Tuning,
) -> Result<Materialized> {
    let calls = Calls::once(&project.online);
    let wanted = Build::wanted(project, view, tuning.build_lease);
    let never = || async { Ok(None::<()>) };
    // Time enough to see that another builder is dead.
    let lease = match wanted.take(tuning.build_lease * 2, never).await? {
        Ok(lease) => lease,
        Err(()) => return Err(Error::unexpected("a lease was neither given nor refused")),
    };
    let name = view.name.clone();
    let told = |progress: BuildProgress| {
        if let Some(Reporter(report)) = report {
            let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let (done, total) = (count(progress.done), count(progress.total));
            report(&MaterializeProgress { view: name.clone(), done, total, rows: progress.rows });
        }
    };
    let build = Build {
        project,
        view,
        calls: &calls,
        start,
        log_from: LogFrom::At(Some(end)),
        cache_bytes: tuning.window_cache_bytes,
        report: Some(&told),
    };
    let built = build.run(&lease).await;
    lease.release().await?;
    let built = built?;
    let mut done = Materialized {
        view: view.name.clone(),
        start,
        end,
        rows: built.rows,
        written: built.written,
        skipped: built.skipped,
        note: built.note.clone(),
        ..Materialized::default()
    };
    if let Some(waiting) = take_over(project, view, &calls, &built.epoch, tuning).await? {
        done.note.get_or_insert(waiting);
    }
    // Jobs may be writing to the epoch that was replaced, and remove it themselves when they do not any more.
    if !is_fed(project, view).await? {
        remove_outdated(project, view, &load(project, view).await?, 0).await?;
    }
    Ok(done)
}

/// Where to begin: what is given, if it reaches back far enough, or else what is needed.
async fn start(project: &Project, view: &View, interval: &Interval, end: Micros) -> Result<Option<Micros>> {
    let windows = view.windows.as_ref().map(|windows| windows.features.as_slice()).unwrap_or_default();
    let starts = windows.iter().map(|feature| feature.window.map(|window| window.start(end)));
    // `None` for a lifetime: everything is needed.
    let needed = starts.collect::<Option<Vec<_>>>().and_then(|starts| starts.into_iter().min());
    let Interval::Between(start, _) = *interval else { return Ok(needed) };
    if needed.is_some_and(|needed| start <= needed) {
        return Ok(Some(start));
    }
    let Some((first, _)) = view.batch_bounds(project).await? else { return Ok(Some(start)) };
    if start <= first {
        return Ok(Some(start));
    }
    let (what, value) = match needed {
        None => ("a window without `time_window` begins with the first batch row", first),
        Some(needed) if needed < first => ("the first batch row is later than the longest window reaches", first),
        Some(needed) => ("the longest window reaches back so far", needed),
    };
    Err(Error::invalid(format!(
        "view `{}` cannot be materialised from `{}` to `{}`: {what}; begin at `{}` or earlier",
        view.name,
        format_time(start),
        format_time(end),
        format_time(value)
    )))
}

/// Refuses an end that the log cannot go on from.
async fn check_log(project: &Project, view: &View, end: Micros) -> Result<()> {
    if view.offline {
        let log = project.offline.log(&view.log());
        return match time_bounds(log.as_ref(), &view.event_time).await? {
            Some((first, _)) if end < first => Err(Error::invalid(format!(
                "view `{}` cannot be materialised up to `{}`: its log begins with an event of `{}`, and batch rows and log \
                 have to meet; end at `{}` or later",
                view.name,
                format_time(end),
                format_time(first),
                format_time(first)
            ))),
            _ => Ok(()),
        };
    }
    let checkpoints = ingest::load_checkpoints(project.online.as_ref(), &project.definitions.project, view).await?;
    if checkpoints.is_empty() {
        return Ok(());
    }
    let epochs = load(project, view).await?;
    let since = epochs.serving.and_then(|(epoch, _)| epoch.log_from);
    let since = since.map_or_else(|| "the beginning".to_owned(), |time| format!("`{}`", format_time(time)));
    Err(Error::invalid(format!(
        "view `{}` has been ingested and has no log to build its windows from again: events of the stream count from \
         {since} on, and that stays so. With `offline: true` a view can be materialised at any time",
        view.name
    )))
}

/// Waits until reads go to the epoch, or does what is needed for that where no job runs. Gives back in words what is
/// still to be waited for.
async fn take_over(
    project: &Project,
    view: &Arc<View>,
    calls: &Calls,
    epoch: &Epoch,
    tuning: &Tuning,
) -> Result<Option<String>> {
    let mut seen = None;
    let mut since = Instant::now();
    loop {
        let epochs = load(project, view).await?;
        if epochs.serving_id() >= epoch.id.as_str() {
            return Ok(None);
        }
        let Some(entry) = epochs.entry(&epoch.id) else {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("the windows of view `{}` are being built again by somebody else", view.name),
            ));
        };
        if !is_fed(project, view).await? {
            catch_up_here(project, calls, view, epoch, tuning.window_cache_bytes, |_| true).await?;
            if !has_all(project, view, epoch).await? {
                let waits = "the windows are built, and serve as soon as a job has caught up with them: the last one \
                             ended before its log had all that it served";
                return Ok(Some(waits.into()));
            }
            let (online, name) = (project.online.as_ref(), &project.definitions.project);
            epoch.serve(online, name, &view.name, project.clock.now()).await?;
            online.sync().await?;
            return Ok(None);
        }
        if seen.as_ref() != Some(&entry.splits) {
            seen = Some(entry.splits.clone());
            since = Instant::now();
        }
        if since.elapsed() >= tuning.take_over_patience {
            return Ok(Some("the windows are built, and serve as soon as the jobs have caught up with them".into()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether an epoch that was brought up to the ends of the view's log has everything that was served and can still be had:
/// a job that was killed publishes no more, and what it did not is read from the stream again.
async fn has_all(project: &Project, view: &View, epoch: &Epoch) -> Result<bool> {
    if !view.offline {
        return Ok(true);
    }
    let ends = project.offline.ends(&view.log()).await?;
    let (online, name) = (project.online.as_ref(), &project.definitions.project);
    let checkpoints = ingest::load_checkpoints(online, name, view).await?;
    let served = match load(project, view).await?.serving {
        Some((serving, _)) => epoch::written(online, name, &view.name, &serving).await?,
        None => BTreeMap::new(),
    };
    let written = epoch::written(online, name, &view.name, epoch).await?;
    let lacking = checkpoints.iter().filter_map(|(split, checkpoint)| {
        let through = ends.get(split).map_or(Position::START, |end| end.through.clone());
        let reach = Reach { through: &through, written: written.get(split) };
        let has_all = reach.has_all(checkpoint, served.get(split));
        (!has_all).then(|| (split.clone(), Some(through)))
    });
    let lacking = lacking.collect::<BTreeMap<_, _>>();
    let Some(input) = view.stream.as_ref().filter(|_| !lacking.is_empty()) else { return Ok(lacking.is_empty()) };
    match project.stream_source(&input.source) {
        Ok(stream) => Ok(has_no_more(stream.as_ref(), &lacking).await),
        Err(error) => {
            tracing::warn!(%error, "the stream does not say which splits it has");
            Ok(false)
        }
    }
}

/// Whether a job runs that feeds the view.
async fn is_fed(project: &Project, view: &View) -> Result<bool> {
    let Some(stream) = &view.stream else { return Ok(false) };
    let jobs = ingest::jobs(project).await?;
    Ok(jobs.iter().any(|job| job.source == stream.source && job.state == JobState::Running))
}
