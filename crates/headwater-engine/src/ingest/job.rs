//! A job: one source, feeding all its views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_core::definitions::{SourceKind, StreamSettings};
use headwater_core::{Error, ErrorKind, Position, Result, SplitId, StreamSource};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::IngestOptions;
use super::checkpoint::{self, Checkpoint, GroupCheckpoints};
use super::decode::Decoder;
use super::retry::retry;
use super::status::{self, Board, JobState, JobStatus};
use super::windows;
use super::worker::{self, Group, Outcome};
use crate::project::Project;
use crate::rows::Serving;
use crate::view::View;

/// A job says that it is alive at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A view that has caught up in less is read with the others from then on: so long they wait for it at the most, about.
const NEAR: Duration = Duration::from_secs(10);

/// Starts feeding the views of `source`. The job keeps the definitions that `project` has now.
///
/// # Errors
/// `NotFound` for an unknown source; `Invalid` where it is no stream or feeds no view; `Unsupported` where its plugin or
/// record format is not in this build; else those of opening the source. What fails later shows in the status and is
/// what [`JobHandle::wait`] returns.
pub async fn start(project: Arc<Project>, source: &str, options: IngestOptions) -> Result<JobHandle> {
    let stream = project.stream_source(source)?;
    start_with(project, source, stream, options).await
}

/// As [`start`], with the stream given.
pub(crate) async fn start_with(
    project: Arc<Project>,
    source: &str,
    stream: Arc<dyn StreamSource>,
    options: IngestOptions,
) -> Result<JobHandle> {
    let definition = project.source(source)?.clone();
    let SourceKind::Stream(settings) = &definition.kind else {
        return Err(Error::invalid(format!("source `{source}` is not a stream: there is nothing to ingest")));
    };
    let views = project.views.iter().filter(|view| view.stream.as_ref().is_some_and(|input| input.source == source));
    let views = views.cloned().collect::<Vec<_>>();
    let Some(input) = views.first().and_then(|view| view.stream.as_ref()) else {
        return Err(Error::invalid(format!("no stream feature view has the source `{source}`: nothing to ingest")));
    };
    if views.iter().any(|view| view.stream.as_ref().is_some_and(|other| other.input != input.input)) {
        return Err(Error::unexpected(format!("the views of source `{source}` expect different columns")));
    }
    let decoder = Decoder::new(&project.definitions, &definition, stream.as_ref(), &input.input)?;
    let board = Board::new(source, &options.definitions, project.clock.now());
    let job = Job {
        settings: settings.clone(),
        source: source.to_owned(),
        stream,
        decoder: Arc::new(decoder),
        views,
        board: board.clone(),
        options,
        project: Arc::clone(&project),
    };
    match job.announce().await {
        // The job waits for its stores; only that it does so cannot be told to others yet.
        Err(error) if error.is_retryable() => tracing::warn!(%error, "the start of the job could not be recorded"),
        announced => announced?,
    }
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(job.run(stopped));
    Ok(JobHandle { project, board, stop, task, outcome: None })
}

/// A running job. Dropping the handle ends the job at once, as a crash would: what it has not published is read again.
#[derive(Debug)]
pub struct JobHandle {
    project: Arc<Project>,
    board: Board,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
    outcome: Option<std::result::Result<(), (ErrorKind, String)>>,
}

impl JobHandle {
    /// What the job says of itself now.
    pub fn status(&self) -> JobStatus {
        self.board.status(self.project.clock.now())
    }

    /// Stops reading, writes and publishes what was read, commits, and waits until that is done; at most
    /// [`Tuning::stop_timeout`](super::Tuning::stop_timeout). What is not done by then is read again by the next job.
    ///
    /// # Errors
    /// The error that the job failed with, if it did.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.wait().await
    }

    /// Waits until the job has stopped, finished or failed. Dropping the future stops nothing; it can be called again.
    ///
    /// # Errors
    /// The error that the job failed with, if it did.
    pub async fn wait(&mut self) -> Result<()> {
        if let Some(outcome) = &self.outcome {
            return outcome.clone().map_err(|(kind, message)| Error::new(kind, message));
        }
        let outcome = match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::unexpected("the job died").with_source(error)),
        };
        self.outcome = Some(outcome.as_ref().copied().map_err(|error| (error.kind(), error.to_string())));
        outcome
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Job {
    project: Arc<Project>,
    source: String,
    settings: StreamSettings,
    stream: Arc<dyn StreamSource>,
    decoder: Arc<Decoder>,
    views: Vec<Arc<View>>,
    board: Board,
    options: IngestOptions,
}

impl Job {
    async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        let outcome = self.supervise(stop).await;
        match &outcome {
            Ok(reason) => self.board.state(JobState::Stopped, reason.clone()),
            Err(error) => {
                tracing::error!(%error, source = self.source, "the job has failed");
                self.board.state(JobState::Failed, Some(error.to_string()));
            }
        }
        // Whoever asks later should know; that the job ended matters more than that it could say so.
        match tokio::time::timeout(HEARTBEAT, self.say_the_end()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the end of the job could not be recorded"),
            Err(_) => tracing::warn!("the end of the job could not be recorded: the online store does not answer"),
        }
        outcome.map(drop)
    }

    /// Records the last status, however often that takes: others would wait for a job that seems to run.
    async fn say_the_end(&self) -> Result<()> {
        let mut waits = self.options.tuning.pauses().iter();
        loop {
            let said = match self.save(true).await {
                Ok(()) => self.project.online.sync().await,
                failed => failed,
            };
            match said {
                Err(error) if error.is_retryable() => tokio::time::sleep(waits.next().unwrap_or(HEARTBEAT)).await,
                said => return said,
            }
        }
    }

    async fn save(&self, always: bool) -> Result<()> {
        let name = &self.project.definitions.project;
        self.board.save(self.project.online.as_ref(), name, self.project.clock.now(), always).await
    }

    /// Puts what earlier jobs have reached on the board, and tells others that this one runs.
    async fn announce(&self) -> Result<()> {
        status::forget(&self.project, &self.source).await?;
        let threshold = self.settings.watermark_delay_threshold.map(|threshold| threshold.0);
        for view in &self.views {
            let (online, name) = (self.project.online.as_ref(), &self.project.definitions.project);
            for (split, checkpoint) in checkpoint::load(online, name, view).await? {
                self.board.split(view, &split, &checkpoint, threshold, None);
            }
        }
        self.save(true).await
    }

    /// Runs the groups until they are done. The text says why a stop was not a clean one.
    async fn supervise(&self, mut stop: watch::Receiver<bool>) -> Result<Option<String>> {
        // Views that have come near the others. Apart they come no nearer: where nothing is in a split, each group may note
        // on its own how far it has looked.
        let mut caught_up = BTreeSet::new();
        loop {
            let groups = self.groups(&caught_up).await?;
            let begin = tokio::time::Instant::now();
            let (halt, halted) = watch::channel(false);
            let mut running = JoinSet::new();
            for group in groups {
                let (views, halted) = (group.views.clone(), halted.clone());
                running.spawn(async move { (views, worker::run(Arc::new(group), halted).await) });
            }
            let mut regroup = false;
            let mut failure = None;
            let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
            heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut last_said = tokio::time::Instant::now();
            let mut deadline: Option<tokio::time::Instant> = None;
            loop {
                tokio::select! {
                    done = running.join_next() => match done {
                        None => break,
                        Some(Ok((views, Ok(Outcome::CaughtUp)))) => {
                            if begin.elapsed() < NEAR {
                                caught_up.extend(views.iter().map(|view| view.name.clone()));
                            }
                            regroup = true;
                            halt.send_replace(true);
                        }
                        Some(Ok((_, Ok(Outcome::Finished | Outcome::Stopped)))) => {}
                        Some(Ok((_, Err(error)))) => {
                            failure.get_or_insert(error);
                            halt.send_replace(true);
                        }
                        Some(Err(panic)) => {
                            failure.get_or_insert(Error::unexpected("a worker died").with_source(panic));
                            halt.send_replace(true);
                        }
                    },
                    () = worker::told_to(&mut stop), if !*halt.borrow() => { halt.send_replace(true); }
                    () = tokio::time::sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)),
                        if deadline.is_some() =>
                    {
                        running.abort_all();
                        let waited = self.options.tuning.stop_timeout.as_secs();
                        let reason = format!("not all was written within {waited} s; the rest will be read again");
                        return failure.map_or(Ok(Some(reason)), Err);
                    }
                    _ = heartbeat.tick() => {
                        let always = last_said.elapsed() >= HEARTBEAT;
                        if always {
                            last_said = tokio::time::Instant::now();
                        }
                        // A stalled store must not keep us from stopping.
                        if let Ok(Err(error)) = tokio::time::timeout(HEARTBEAT, self.save(always)).await {
                            tracing::warn!(%error, "the status could not be saved");
                        }
                    }
                }
                if *halt.borrow() {
                    deadline.get_or_insert_with(|| tokio::time::Instant::now() + self.options.tuning.stop_timeout);
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            if !regroup || *stop.borrow() {
                return Ok(None);
            }
        }
    }

    /// Views that serve and are up to date, views that are behind, and new ones are read apart.
    async fn groups(&self, caught_up: &BTreeSet<String>) -> Result<Vec<Group>> {
        let online = self.project.online.as_ref();
        let name = &self.project.definitions.project;
        let pauses = self.options.tuning.pauses();
        let serving = retry("online store", pauses, &self.board, || Serving::read(online, name)).await?.0;
        let mut reached = Vec::with_capacity(self.views.len());
        for view in &self.views {
            let load = || checkpoint::load(online, name, view);
            reached.push(retry("checkpoint", pauses, &self.board, load).await?.0);
        }
        let mut kinds: [Vec<Arc<View>>; 3] = Default::default();
        let [serve, started, new] = &mut kinds;
        for (view, own) in self.views.iter().zip(&reached) {
            let serves = serving.get(&view.name).is_some_and(|serving| serving.generation == view.generation);
            let again = || async {
                if !windows::is_stream_alone(view) {
                    return Ok(false);
                }
                let epochs = windows::load(&self.project, view).await?;
                windows::reads_again(&self.project, view, &epochs).await
            };
            let again = retry("online store", pauses, &self.board, again).await?.0;
            // A view that has not come as far as another, in any split, would hold it up. In splits that the stream has
            // lost it comes no further.
            let ahead = ahead_of(own, &reached, caught_up.contains(&view.name));
            let is_behind = serves && !ahead.is_empty() && !windows::has_no_more(self.stream.as_ref(), &ahead).await;
            let kind = match own {
                own if own.is_empty() => &mut *new,
                _ if serves && !is_behind && !again => &mut *serve,
                _ => &mut *started,
            };
            kind.push(Arc::clone(view));
        }
        let count = kinds.iter().filter(|views| !views.is_empty()).count();
        let mut groups = Vec::with_capacity(count);
        for (kind, views) in kinds.into_iter().enumerate().filter(|(_, views)| !views.is_empty()) {
            let id = format!("{name}.{}", self.source);
            groups.push(Group {
                id: if groups.is_empty() { id } else { format!("{id}.catch-up-{kind}") },
                project: Arc::clone(&self.project),
                source: self.source.clone(),
                stream: Arc::clone(&self.stream),
                decoder: Arc::clone(&self.decoder),
                checkpoints: Arc::new(GroupCheckpoints::new(Arc::clone(&self.project), views.clone())),
                views,
                settings: self.settings.clone(),
                board: self.board.clone(),
                tuning: self.options.tuning,
                until_caught_up: self.options.until_caught_up,
                catching_up: kind > 0,
                joins: kind > 0 && count > 1,
                applied: self.options.applied,
            });
        }
        Ok(groups)
    }
}

/// The splits in which others have come further than a view, with where it is itself. Of one that has come near them, those
/// alone that it has not begun: read with the others it would begin where they are.
fn ahead_of(
    own: &BTreeMap<SplitId, Checkpoint>,
    reached: &[BTreeMap<SplitId, Checkpoint>],
    near: bool,
) -> BTreeMap<SplitId, Option<Position>> {
    let others = reached.iter().flatten();
    let ahead = others.filter(|(split, other)| own.get(split).is_none_or(|own| !near && own.through < other.through));
    let through = |split| own.get(split).map_or(Position::START, |own| own.through.clone());
    ahead.map(|(split, _)| (split.clone(), Some(through(split)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_has_come_near_others_still_has_to_begin_what_they_have_begun() {
        let read = |splits: &[(&str, u64)]| {
            let checkpoint = |through| Checkpoint {
                through: Position::from_u64(through),
                ended: false,
                from: Position::START,
                newest: None,
                arrived: None,
                counts: status::Counts::default(),
                skipped: None,
            };
            let splits = splits.iter().map(|(split, through)| (SplitId::from(*split), checkpoint(*through)));
            splits.collect::<BTreeMap<_, _>>()
        };
        let (own, others) = (read(&[("a", 1), ("b", 5)]), [read(&[("a", 2), ("b", 4), ("c", 1)])]);
        let ahead = |near| {
            let ahead = ahead_of(&own, &others, near);
            ahead.into_iter().map(|(split, at)| (split.to_string(), at.unwrap())).collect::<Vec<_>>()
        };
        let (a, c) = (("a".to_owned(), Position::from_u64(1)), ("c".to_owned(), Position::START));
        assert_eq!(ahead(false), [a, c.clone()]);
        assert_eq!(ahead(true), [c]);
    }
}
