//! Jobs, their status, and their dead letters.

use std::sync::Arc;

use headwater_core::definitions::SourceKind;
use headwater_core::{ErrorKind, Micros, Result};
use serde::Serialize;

use super::FeatureStore;
use crate::ingest::windows::is_of;
use crate::ingest::{self, IngestOptions, JobHandle, JobStatus, ListedDeadLetter, Replayed};
use crate::rows::{Serving, read_materialized};
use crate::view::View;
use crate::windows::epoch::{self, EpochState, Epochs};

/// How a project stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The project.
    pub project: String,
    /// Where the definitions that the store was opened with differ from those that it works on.
    pub warnings: Vec<String>,
    /// Its views.
    pub views: Vec<ViewStatus>,
    /// Its jobs, as their workers last reported them.
    pub jobs: Vec<JobStatus>,
}

/// How a view stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewStatus {
    /// The view.
    pub view: String,
    /// The generation of its rows.
    pub generation: String,
    /// The generation that reads go to; `None` where it was never built up.
    pub serving: Option<String>,
    /// The source that feeds it.
    pub source: String,
    /// How far its batch source was materialised.
    pub materialized_to: Option<Micros>,
    /// The state of its windows; `None` of a view without aggregations.
    pub windows: Option<WindowStatus>,
    /// What is worth knowing beside that, in words.
    pub notes: Vec<String>,
}

/// How the state of a view's windows stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowStatus {
    /// The epoch that reads go to; `None` where none was built yet.
    pub epoch: Option<String>,
    /// Batch rows count before this time, events of the stream from it on; `None` = the beginning of time, or no epoch.
    pub log_from: Option<Micros>,
    /// Whether it is of the aggregations that are applied.
    pub current: bool,
    /// The epoch that is to take over.
    pub next: Option<NextEpoch>,
}

/// How far an epoch is that is to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextEpoch {
    /// The epoch.
    pub epoch: String,
    /// Where its batch rows and events meet.
    pub log_from: Option<Micros>,
    /// Whether all of history is in it, and only the jobs have to catch up.
    pub built: bool,
    /// Pieces of history that are done.
    pub done: u64,
    /// Pieces in all.
    pub total: u64,
    /// Rows read for it.
    pub rows: u64,
    /// Splits that have caught up.
    pub splits_caught_up: u64,
    /// Splits in all.
    pub splits: u64,
}

impl WindowStatus {
    fn new(epochs: &Epochs, view: &View) -> Self {
        let serving = epochs.serving.as_ref().map(|(epoch, _)| epoch);
        // One of other aggregations, which were applied for a while, will never serve.
        let next = epochs.all.iter().rev().filter(|entry| is_of(view, &entry.epoch));
        let next = next.take_while(|entry| entry.epoch.id.as_str() > epochs.serving_id()).next();
        Self {
            epoch: serving.map(|epoch| epoch.id.clone()),
            log_from: serving.and_then(|epoch| epoch.log_from),
            current: serving.is_some_and(|epoch| is_of(view, epoch)),
            next: next.map(|entry| NextEpoch {
                epoch: entry.epoch.id.clone(),
                log_from: entry.epoch.log_from,
                built: entry.state == EpochState::CatchingUp,
                done: entry.progress.done,
                total: entry.progress.total,
                rows: entry.progress.rows,
                splits_caught_up: entry.splits.values().filter(|split| split.caught_up).count() as u64,
                splits: entry.splits.len() as u64,
            }),
        }
    }
}

impl FeatureStore {
    /// Starts a job that feeds the views of a stream source. It keeps the definitions that are applied now.
    ///
    /// # Errors
    /// As [`crate::ingest::start`].
    pub async fn ingest(&self, source: &str, options: IngestOptions) -> Result<JobHandle> {
        let current = self.current().await?;
        let options = IngestOptions { definitions: current.fingerprint.clone(), applied: current.applied, ..options };
        ingest::start(Arc::clone(&current.project), source, options).await
    }

    /// The stream sources that feed views: what there is to ingest.
    ///
    /// # Errors
    /// As [`FeatureStore::project`].
    pub async fn stream_sources(&self) -> Result<Vec<String>> {
        let project = self.project().await?;
        let feeds = |name: &str| {
            project.views.iter().any(|view| view.stream.as_ref().is_some_and(|stream| stream.source == name))
        };
        let sources = project.definitions.sources.iter();
        let streams = sources.filter(|source| matches!(source.kind, SourceKind::Stream(_)) && feeds(&source.name));
        Ok(streams.map(|source| source.name.clone()).collect())
    }

    /// How the project stands: its views, and every job that was heard of.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn status(&self) -> Result<Status> {
        let current = self.current().await?;
        let project = &current.project;
        let (online, name) = (project.online.as_ref(), &project.definitions.project);
        let serving = Serving::read(online, name).await?;
        let jobs = ingest::jobs(project).await?;
        let mut views = Vec::with_capacity(project.views.len());
        for view in &project.views {
            let serving = serving.get(&view.name).map(|serving| serving.generation.clone());
            let mut notes = Vec::new();
            if let Some(serving) = serving.as_ref().filter(|serving| **serving != view.generation) {
                let until = if project.fed_by_job(view) { "a job has caught up" } else { "it is materialised" };
                notes.push(format!("generation `{serving}` serves until {until}"));
            }
            if let Some(batch) = &view.batch {
                let source = project.batch_source(&batch.source)?;
                match source.schema().await {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        notes.push(format!("batch source `{}` does not exist, so it has no rows", batch.source));
                    }
                    Err(error) => notes.push(format!("batch source `{}` cannot be read: {error}", batch.source)),
                }
            }
            for (split, checkpoint) in ingest::load_checkpoints(online, name, view).await? {
                notes.extend(checkpoint.skipped.map(|skipped| format!("split `{split}` {skipped}")));
            }
            let running = jobs.iter().filter(|job| {
                job.state == ingest::JobState::Running
                    && view.stream.as_ref().is_some_and(|stream| stream.source == job.source)
            });
            for job in running {
                if job.definitions != current.fingerprint {
                    notes.push(format!("the job of `{}` runs with older definitions; start it again", job.source));
                }
            }
            let windows = match &view.windows {
                Some(_) => {
                    let epochs = epoch::load(online, name, &view.name, &view.generation).await?;
                    Some(WindowStatus::new(&epochs, view))
                }
                None => None,
            };
            let source = view.stream.as_ref().map(|stream| &stream.source);
            views.push(ViewStatus {
                view: view.name.clone(),
                generation: view.generation.clone(),
                serving,
                source: source.or(view.batch.as_ref().map(|batch| &batch.source)).cloned().unwrap_or_default(),
                materialized_to: read_materialized(online, name, &view.name, &view.generation).await?,
                windows,
                notes,
            });
        }
        Ok(Status { project: name.clone(), warnings: current.warnings.clone(), views, jobs })
    }

    /// The records that could not be used, and whether each has been brought in since.
    ///
    /// # Errors
    /// As [`crate::ingest::dead_letters`].
    pub async fn dead_letters(&self) -> Result<Vec<ListedDeadLetter>> {
        ingest::dead_letters(&self.project().await?).await
    }

    /// Feeds dead letters to their views again, as these are defined now: those of a source, or of all.
    ///
    /// # Errors
    /// As [`crate::ingest::replay_dead_letters`].
    pub async fn replay_dead_letters(&self, source: Option<&str>) -> Result<Replayed> {
        ingest::replay_dead_letters(&self.project().await?, source).await
    }
}
