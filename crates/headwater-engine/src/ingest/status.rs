//! What a job says of itself, to its own process and to others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::stream::Lag;
use headwater_core::{Error, Micros, OnlineStore, Position, Result, SplitId};
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Checkpoint};
use crate::project::Project;
use crate::rows::jobs_table;
use crate::view::View;

/// A job that was not heard of for this long is not running any more.
const HEARTBEAT_EXPIRES: Micros = 30_000_000;

/// Whether a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It reads.
    Running,
    /// It was told to stop, or has finished what it was to read.
    Stopped,
    /// It met an error that no retry helps.
    Failed,
    /// It said that it runs, and then nothing more: it was killed, or its machine was lost.
    Lost,
}

/// What was counted since a view first read a split. A record that is read again after a restart counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of the view.
    pub rows: u64,
    /// Rows older than the watermark.
    pub late: u64,
    /// Events older than a windowed view's `log_from`, which change no window: batch rows stand for their time.
    #[serde(default)]
    pub before_log_from: u64,
    /// Rows that lost to a newer row in the online store.
    pub stale: u64,
    /// Records in the dead letters.
    pub dead_lettered: u64,
    /// Null records.
    pub tombstones: u64,
    /// Calls of a store that were repeated after a temporary error.
    pub retries: u64,
}

/// How far a reader was behind the end of a split when it last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LagStatus {
    /// Records.
    pub records: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
    /// Microseconds.
    pub time_us: Option<i64>,
}

impl From<Lag> for LagStatus {
    fn from(lag: Lag) -> Self {
        let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Self { records: lag.records, bytes: lag.bytes, time_us: lag.time.map(micros) }
    }
}

/// One split of one view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// The view.
    pub view: String,
    /// Its generation.
    pub generation: String,
    /// The split, in its text form.
    pub split: String,
    /// The last position that is dealt with, as hexadecimal bytes.
    pub position: String,
    /// The same as a number, where the source counts.
    pub offset: Option<u64>,
    /// The split is closed and all of it is dealt with.
    pub ended: bool,
    /// How far behind the reader is.
    pub lag: Option<LagStatus>,
    /// Events older than this are late: the newest event time minus the source's threshold.
    pub watermark: Option<Micros>,
    /// The newest event time.
    pub newest_event: Option<Micros>,
    /// The present minus the newest event time, in microseconds.
    pub freshness: Option<Micros>,
    /// When the source stored the newest record that is dealt with, where its records say (`__timestamp`).
    #[serde(default)]
    pub newest_arrival: Option<Micros>,
    /// The present minus that, in microseconds: unlike `lag` it grows while nothing can be read, and while nothing comes.
    #[serde(default)]
    pub age: Option<Micros>,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The source that it reads.
    pub source: String,
    /// Which worker this is.
    pub worker: String,
    /// Whether it runs.
    pub state: JobState,
    /// Why it does not.
    pub reason: Option<String>,
    /// When it started.
    pub started_at: Micros,
    /// When it last said so.
    pub heartbeat: Micros,
    /// The definitions that it runs with, as the caller named them.
    pub definitions: String,
    /// Calls that were repeated after a temporary error, of sources and stores.
    pub retries: u64,
    /// The latest temporary error, while it lasts.
    pub retrying: Option<String>,
    /// Its splits.
    pub splits: Vec<SplitStatus>,
}

/// What the parts of a running job write to and its handle reads.
#[derive(Debug, Clone)]
pub(super) struct Board(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    status: JobStatus,
    splits: BTreeMap<(String, String, SplitId), SplitStatus>,
    changed: bool,
}

impl Board {
    pub(super) fn new(source: &str, definitions: &str, now: Micros) -> Self {
        let status = JobStatus {
            source: source.to_owned(),
            worker: uuid::Uuid::new_v4().to_string(),
            state: JobState::Running,
            reason: None,
            started_at: now,
            heartbeat: now,
            definitions: definitions.to_owned(),
            retries: 0,
            retrying: None,
            splits: Vec::new(),
        };
        Self(Arc::new(Mutex::new(Inner { status, splits: BTreeMap::new(), changed: true })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status, as of `now`.
    pub(super) fn status(&self, now: Micros) -> JobStatus {
        let inner = self.lock();
        let mut status = inner.status.clone();
        status.heartbeat = now;
        status.splits = inner.splits.values().cloned().map(|split| fresh(split, now)).collect();
        status
    }

    pub(super) fn state(&self, state: JobState, reason: Option<String>) {
        let mut inner = self.lock();
        inner.status.state = state;
        inner.status.reason = reason;
        inner.changed = true;
    }

    pub(super) fn retrying(&self, error: Option<&Error>) {
        let mut inner = self.lock();
        if error.is_some() {
            inner.status.retries += 1;
        }
        inner.status.retrying = error.map(ToString::to_string);
        inner.changed = true;
    }

    /// Counts calls that the reader has repeated by itself.
    pub(super) fn repeated(&self, calls: u64) {
        if calls > 0 {
            let mut inner = self.lock();
            inner.status.retries += calls;
            inner.changed = true;
        }
    }

    /// Writes down how a split stands.
    pub(super) fn split(
        &self,
        view: &View,
        split: &SplitId,
        checkpoint: &Checkpoint,
        threshold: Option<Micros>,
        lag: Option<LagStatus>,
    ) {
        let mut inner = self.lock();
        inner.changed = true;
        inner.splits.insert(
            (view.name.clone(), view.generation.clone(), split.clone()),
            split_status(view, split, checkpoint, threshold, lag),
        );
    }

    /// Saves the status for other processes, if it changed since or `always`. Not durable: it is gone with what it
    /// speaks of.
    pub(super) async fn save(&self, online: &dyn OnlineStore, project: &str, now: Micros, always: bool) -> Result<()> {
        {
            let mut inner = self.lock();
            if !inner.changed && !always {
                return Ok(());
            }
            inner.changed = false;
        }
        let status = self.status(now);
        let value = serde_json::to_vec(&status)
            .map_err(|error| Error::unexpected("a status cannot be written").with_source(error))?;
        let row = OnlineRow {
            key: job_key(&status),
            version: Bytes::copy_from_slice(&(now ^ i64::MIN).to_be_bytes()),
            value: value.into(),
            expiry: None,
        };
        online.put(&jobs_table(project), vec![row]).await.map(drop)
    }
}

fn job_key(status: &JobStatus) -> Bytes {
    [status.source.as_bytes(), &[0], status.worker.as_bytes()].concat().into()
}

fn fresh(mut split: SplitStatus, now: Micros) -> SplitStatus {
    split.freshness = split.newest_event.map(|newest| now.saturating_sub(newest));
    split.age = split.newest_arrival.map(|newest| now.saturating_sub(newest));
    split
}

fn split_status(
    view: &View,
    split: &SplitId,
    checkpoint: &Checkpoint,
    threshold: Option<Micros>,
    lag: Option<LagStatus>,
) -> SplitStatus {
    SplitStatus {
        view: view.name.clone(),
        generation: view.generation.clone(),
        split: split.to_string(),
        position: checkpoint.through.to_string(),
        offset: if checkpoint.through == Position::START { Some(0) } else { checkpoint.through.to_u64() },
        ended: checkpoint.ended,
        lag,
        watermark: checkpoint.newest.map(|newest| newest.saturating_sub(threshold.unwrap_or(0))),
        newest_event: checkpoint.newest,
        freshness: None,
        newest_arrival: checkpoint.arrived,
        age: None,
        counts: checkpoint.counts,
    }
}

/// The jobs of a project, as their workers last reported them, in order of source; at most one for each worker. Splits
/// that no worker reports are added from the checkpoints, under the last job of their source, or under one that is
/// `Stopped` and was never started where there is none.
///
/// # Errors
/// The online store's; `Corrupt` for rows that cannot be read.
pub async fn jobs(project: &Project) -> Result<Vec<JobStatus>> {
    let now = project.clock.now();
    let online = project.online.as_ref();
    let rows = online.get_prefixes(&jobs_table(&project.definitions.project), &[Bytes::new()]).await?;
    let mut jobs = Vec::new();
    for row in rows.into_iter().flatten() {
        let mut job: JobStatus = serde_json::from_slice(&row.value)
            .map_err(|error| Error::corrupt("the status of a job cannot be read").with_source(error))?;
        if job.state == JobState::Running && now.saturating_sub(job.heartbeat) > HEARTBEAT_EXPIRES {
            job.state = JobState::Lost;
            job.reason = Some("it stopped without saying so".into());
        }
        job.splits = job.splits.into_iter().map(|split| fresh(split, now)).collect();
        jobs.push(job);
    }
    for view in &project.views {
        let Some(stream) = &view.stream else { continue };
        let threshold = super::threshold(project.source(&stream.source)?);
        for (split, checkpoint) in checkpoint::load(online, &project.definitions.project, view).await? {
            let name = split.to_string();
            let known = jobs.iter().any(|job| {
                job.source == stream.source
                    && job
                        .splits
                        .iter()
                        .any(|s| s.split == name && s.view == view.name && s.generation == view.generation)
            });
            if known {
                continue;
            }
            let place = match jobs.iter().rposition(|job| job.source == stream.source) {
                Some(place) => place,
                None => {
                    jobs.push(JobStatus {
                        source: stream.source.clone(),
                        worker: String::new(),
                        state: JobState::Stopped,
                        reason: None,
                        started_at: 0,
                        heartbeat: 0,
                        definitions: String::new(),
                        retries: 0,
                        retrying: None,
                        splits: Vec::new(),
                    });
                    jobs.len() - 1
                }
            };
            if let Some(job) = jobs.get_mut(place) {
                job.splits.push(fresh(split_status(view, &split, &checkpoint, threshold, None), now));
            }
        }
    }
    jobs.sort_by(|a, b| a.source.cmp(&b.source));
    Ok(jobs)
}

/// Forgets workers of `source` that do not run any more.
///
/// # Errors
/// The online store's.
pub(super) async fn forget(project: &Project, source: &str) -> Result<()> {
    let gone = jobs(project).await?;
    let gone =
        gone.iter().filter(|job| job.source == source && job.state != JobState::Running && !job.worker.is_empty());
    let keys = gone.map(job_key).collect::<Vec<_>>();
    if keys.is_empty() {
        return Ok(());
    }
    project.online.delete(&jobs_table(&project.definitions.project), &keys).await
}
