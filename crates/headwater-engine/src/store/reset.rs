//! Moving where a source is read on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{BinaryArray, RecordBatch};
use bytes::Bytes;
use headwater_core::definitions::SourceKind;
use headwater_core::offline::{Append, LogEnd, LogRange};
use headwater_core::stream::{FixedCheckpoints, Progress, ReaderContext, SplitInfo, StartPosition, StreamEvent};
use headwater_core::{Error, ErrorKind, Origin, Position, Result, SplitId};
use serde::Serialize;

use super::FeatureStore;
use crate::ingest::{
    Checkpoint, Counts, JobState, Skipped, Why, forget_notes, jobs, load_checkpoints, load_notes, write_notes,
};
use crate::project::Project;
use crate::rows::{checkpoints_table, log_rows};
use crate::view::{View, ViewRows};
use crate::windows::epoch::{self, SplitProgress};

/// How long a source may take to say where its splits begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reset did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reset {
    /// The source.
    pub source: String,
    /// Its views.
    pub views: Vec<ResetView>,
}

/// What a reset did to one view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResetView {
    /// The view.
    pub view: String,
    /// The generation that its next rows belong to.
    pub generation: String,
    /// Whether it went forward or back.
    pub what: ResetKind,
    /// How many splits were moved.
    pub splits: usize,
}

/// Which way a reset went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetKind {
    /// Records were skipped.
    Forward,
    /// Records are read again, into a new generation.
    Back,
}

impl fmt::Display for ResetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward: records are skipped",
            Self::Back => "back: read again into a new generation",
        })
    }
}

/// What a source has noted, by name.
type Notes = Vec<(String, Bytes)>;

/// Where a view stands in each split.
struct Standing {
    checkpoints: BTreeMap<SplitId, Checkpoint>,
    ends: BTreeMap<SplitId, LogEnd>,
}

impl Standing {
    async fn read(project: &Project, view: &View) -> Result<Self> {
        let checkpoints = load_checkpoints(project.online.as_ref(), &project.definitions.project, view).await?;
        let ends = if view.offline { project.offline.ends(&view.log()).await? } else { BTreeMap::new() };
        Ok(Self { checkpoints, ends })
    }

    fn log_end(&self, split: &SplitId) -> Position {
        self.ends.get(split).map_or(Position::START, |end| end.through.clone())
    }

    /// Whether it stands behind one of these places.
    fn is_beyond(&self, targets: &BTreeMap<SplitId, Position>) -> bool {
        let passed = |(split, target): (&SplitId, &Position)| {
            self.checkpoints.get(split).is_some_and(|checkpoint| checkpoint.through > *target)
        };
        targets.iter().any(passed)
    }

    /// Whether it has read one of these splits to its end.
    fn has_ended(&self, targets: &BTreeMap<SplitId, Position>) -> bool {
        targets.keys().any(|split| self.checkpoints.get(split).is_some_and(|checkpoint| checkpoint.ended))
    }
}

impl FeatureStore {
    /// Makes the next job of a stream source read on elsewhere: forward, skipping records, or back, reading records
    /// again into a new generation of the source's views, beside the old one, which serves until a job has caught up.
    ///
    /// # Errors
    /// `NotFound` for an unknown source; `Invalid` for one that is no stream or feeds no view; `Conflict` while a worker
    /// runs; `Unavailable` where the source does not say where its splits begin; `PositionLost` where the newest records
    /// do not lie behind what was read, and the source does not go on from there; those of source and stores. What was
    /// not moved then is moved by calling again.
    pub async fn reset(&self, source: &str, to: StartPosition) -> Result<Reset> {
        let project = self.project().await?;
        if !matches!(project.source(source)?.kind, SourceKind::Stream(_)) {
            return Err(Error::invalid(format!("source `{source}` is no stream: there is nothing to reset")));
        }
        let views = fed_by(&project, source);
        if views.is_empty() {
            return Err(Error::invalid(format!(
                "no feature view has the source `{source}`: there is nothing to reset"
            )));
        }
        refuse_while_running(&project, source).await?;
        let Starts { targets, behind, notes } = starts(&project, source, to).await?;
        // The source may have taken its time.
        refuse_while_running(&project, source).await?;

        let mut standings = Vec::with_capacity(views.len());
        for view in &views {
            standings.push(Standing::read(&project, view).await?);
        }
        let back = match to {
            // A place behind the newest record may be a time, which sorts before every record. Or the stream is another one
            // by now, where there are records again behind what had ended.
            StartPosition::Latest => {
                let doubtful = |standing: &Standing| standing.is_beyond(&targets) || standing.has_ended(&targets);
                for (view, standing) in views.iter().zip(&standings).filter(|(_, standing)| doubtful(standing)) {
                    goes_on(&project, source, view, &standing.checkpoints).await?;
                }
                false
            }
            StartPosition::Earliest | StartPosition::At(_) => standings.iter().any(|standing| {
                standing.is_beyond(&targets) || behind.iter().any(|split| standing.checkpoints.contains_key(split))
            }),
        };
        let (views, standings) = if back {
            let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
            let project = self.renew(&names).await?;
            let empty = |_: &Arc<View>| Standing { checkpoints: BTreeMap::new(), ends: BTreeMap::new() };
            let views = fed_by(&project, source);
            let standings = views.iter().map(empty).collect();
            (views, standings)
        } else {
            (views, standings)
        };
        let mut out = Reset { source: source.to_owned(), views: Vec::with_capacity(views.len()) };
        for (view, standing) in views.iter().zip(standings) {
            let splits = move_view(&project, view, standing, &targets, &notes).await?;
            let what = if back { ResetKind::Back } else { ResetKind::Forward };
            out.views.push(ResetView { view: view.name.clone(), generation: view.generation.clone(), what, splits });
        }
        project.online.sync().await?;
        Ok(out)
    }
}

async fn refuse_while_running(project: &Project, source: &str) -> Result<()> {
    let jobs = jobs(project).await?;
    match jobs.iter().find(|job| job.source == source && job.state == JobState::Running) {
        Some(job) => Err(Error::new(
            ErrorKind::Conflict,
            format!("worker `{}` of source `{source}` is running: stop it first", job.worker),
        )),
        None => Ok(()),
    }
}

fn fed_by(project: &Project, source: &str) -> Vec<Arc<View>> {
    let fed = |view: &&Arc<View>| view.stream.as_ref().is_some_and(|stream| stream.source == source);
    project.views.iter().filter(fed).cloned().collect()
}

/// Where splits would begin if they had never been read.
struct Starts {
    /// As far as a source tells before anything is read.
    targets: BTreeMap<SplitId, Position>,
    /// Those that would begin when their parents have been read.
    behind: Vec<SplitId>,
    /// What the source has noted about the beginning, which speaks of them all.
    notes: Notes,
}

async fn starts(project: &Project, name: &str, to: StartPosition) -> Result<Starts> {
    let checkpoints = FixedCheckpoints::default();
    let Asked { splits, starts, over } = ask(project, name, to, checkpoints.clone()).await?;
    let begun = |split: &SplitId| starts.contains_key(split) || over.contains(split);
    let behind = splits.into_iter().map(|info| info.split).filter(|split| !begun(split)).collect();
    let notes = std::mem::take(&mut *checkpoints.notes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Starts { targets: starts, behind, notes: notes.into_iter().collect() })
}

/// Asks a source whether it goes on where a view stands.
///
/// # Errors
/// `PositionLost`, with what helps, where it does not; those of source and store.
async fn goes_on(
    project: &Project,
    name: &str,
    view: &View,
    checkpoints: &BTreeMap<SplitId, Checkpoint>,
) -> Result<()> {
    let progress = |checkpoint: &Checkpoint| match checkpoint.ended {
        true => Progress::End,
        false => Progress::Through(checkpoint.through.clone()),
    };
    let splits = checkpoints.iter().map(|(split, checkpoint)| (split.clone(), progress(checkpoint))).collect();
    let notes = load_notes(project.online.as_ref(), &project.definitions.project, view).await?;
    let checkpoints = FixedCheckpoints { splits, notes: Arc::new(Mutex::new(notes)) };
    match ask(project, name, StartPosition::Latest, checkpoints).await {
        Err(error) if error.kind() == ErrorKind::PositionLost => {
            let why = format!(
                "source `{name}` does not go on from where view `{}` stands, so nothing was moved; `reset` to `earliest` or \
                 to a time begins a new generation",
                view.name
            );
            Err(Error::new(ErrorKind::PositionLost, why).with_source(error))
        }
        asked => asked.map(drop),
    }
}

/// What a reader says of the splits before anything is read.
struct Asked {
    splits: Vec<SplitInfo>,
    starts: BTreeMap<SplitId, Position>,
    /// Nothing of them is to be read.
    over: BTreeSet<SplitId>,
}

async fn ask(project: &Project, name: &str, start: StartPosition, checkpoints: FixedCheckpoints) -> Result<Asked> {
    let source = project.stream_source(name)?;
    let splits = source.discover().await?;
    let mut starts = BTreeMap::new();
    let ended = checkpoints.splits.iter().filter(|(_, progress)| **progress == Progress::End);
    let mut over = ended.map(|(split, _)| split.clone()).collect::<BTreeSet<_>>();
    let mut reader = source
        .subscribe(ReaderContext {
            group: format!("{}.{name}.reset", project.definitions.project),
            start,
            checkpoints: Arc::new(checkpoints),
            buffer_bytes: 1 << 20,
            batch_records: 1,
            refresh: Duration::from_secs(10),
            clock: Arc::clone(&project.clock),
        })
        .await?;
    let listen = async {
        while splits.iter().any(|info| is_awaited(info, &splits, &starts, &over)) {
            match reader.next().await? {
                Some(StreamEvent::Assigned(assigned)) => {
                    starts.extend(assigned.into_iter().map(|split| (split.split, split.resume)));
                }
                // Nothing of it is to be read: its children begin now.
                Some(StreamEvent::SplitEnded(split)) => {
                    reader.commit(&[(split.clone(), Progress::End)]).await?;
                    over.insert(split);
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    };
    let answered = tokio::time::timeout(PATIENCE, listen).await;
    if let Err(error) = reader.close().await {
        tracing::warn!(%error, "the reader did not leave in good order");
    }
    let late = || {
        let why = format!("source `{name}` did not say within {} s where its splits begin", PATIENCE.as_secs());
        Error::new(ErrorKind::Unavailable, why)
    };
    answered.map_err(|_| late())?.map(|()| Asked { splits, starts, over })
}

/// Whether a split's beginning will be told without its parents being read: they are gone, or over.
fn is_awaited(
    info: &SplitInfo,
    splits: &[SplitInfo],
    starts: &BTreeMap<SplitId, Position>,
    over: &BTreeSet<SplitId>,
) -> bool {
    let is_open = |parent: &SplitId| splits.iter().any(|info| info.split == *parent) && !over.contains(parent);
    let is_told = starts.contains_key(&info.split) || over.contains(&info.split);
    !is_told && !info.parents.iter().any(is_open)
}

/// Says that the windows of a view have everything up to `targets`: nothing more comes of what was skipped.
async fn skip_in_windows(project: &Project, view: &View, targets: &BTreeMap<SplitId, Position>) -> Result<()> {
    let (online, name) = (project.online.as_ref(), &project.definitions.project);
    for entry in epoch::load(online, name, &view.name, &view.generation).await?.all {
        let behind = targets.iter().filter_map(|(split, target)| {
            let known = entry.splits.get(split)?;
            let skipped = SplitProgress { through: target.clone(), ..known.clone() };
            (known.through < *target).then(|| (split.clone(), skipped))
        });
        let behind = behind.collect::<Vec<_>>();
        entry.epoch.write_progress(online, name, &view.name, behind).await?;
    }
    Ok(())
}

/// Moves a view on to `targets`: first its log, so that a checkpoint never speaks of what the log lacks.
async fn move_view(
    project: &Project,
    view: &Arc<View>,
    standing: Standing,
    targets: &BTreeMap<SplitId, Position>,
    notes: &[(String, Bytes)],
) -> Result<usize> {
    // What the source noted speaks of where it has been; what it notes of a first start there, of where it is to go.
    forget_notes(project.online.as_ref(), &project.definitions.project, view).await?;
    write_notes(project, std::slice::from_ref(view), notes).await?;
    let mut rows = Vec::new();
    for (split, target) in targets {
        let log_end = standing.log_end(split);
        let before = standing.checkpoints.get(split);
        let after = before.map_or_else(|| log_end.clone(), |before| before.through.clone());
        let skipped = Skipped { after, to: target.clone(), why: Why::Reset };
        if view.offline && log_end < *target {
            let mut metadata = standing.ends.get(split).map(|end| end.metadata.clone()).unwrap_or_default();
            metadata.extend(Skipped { after: log_end.clone(), ..skipped.clone() }.metadata());
            let nothing = log_rows(&ViewRows {
                rows: RecordBatch::new_empty(view.schema()),
                origin: Origin::Stream,
                split: split.clone(),
                positions: BinaryArray::from(Vec::<&[u8]>::new()),
                ordinals: None,
            })?;
            let range = LogRange { after: log_end, through: target.clone() };
            match project.offline.append(&view.log(), split, nothing, range, metadata).await? {
                Append::Published => {}
                Append::Conflict => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("somebody else writes split `{split}` of view `{}`: stop it first", view.name),
                    ));
                }
            }
        }
        if before.is_none_or(|before| before.through < *target) {
            let checkpoint = Checkpoint {
                through: target.clone(),
                ended: false,
                from: before.map_or_else(|| target.clone(), |before| before.from.clone()),
                newest: before.and_then(|before| before.newest),
                arrived: before.and_then(|before| before.arrived),
                counts: before.map_or_else(Counts::default, |before| before.counts),
                skipped: before.map(|_| skipped),
            };
            rows.push(checkpoint.to_row(view, split)?);
        }
    }
    let moved = rows.len();
    // With a log, windows get from there what it has of what is skipped: the next job brings them up to the checkpoint.
    if moved > 0 && view.windows.is_some() && !view.offline {
        skip_in_windows(project, view, targets).await?;
    }
    if moved > 0 {
        project.online.put(&checkpoints_table(&project.definitions.project), rows).await?;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_awaited_where_its_parents_are_gone_or_over() {
        let split = |name: &str, parents: &[&str]| SplitInfo {
            split: SplitId::from(name),
            parents: parents.iter().map(|parent| SplitId::from(*parent)).collect(),
            end: None,
            closed: false,
        };
        let splits = [split("a", &["gone"]), split("b", &["a"]), split("c", &["a", "gone"])];
        let awaited = |starts: &[&str], over: &[&str]| {
            let starts = starts.iter().map(|name| (SplitId::from(*name), Position::START)).collect();
            let over = over.iter().map(|name| SplitId::from(*name)).collect();
            let awaited = splits.iter().filter(|info| is_awaited(info, &splits, &starts, &over));
            awaited.map(|info| info.split.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(awaited(&[], &[]), ["a"]);
        assert!(awaited(&["a"], &[]).is_empty(), "what is left of `a` is read before its children");
        assert_eq!(awaited(&["a"], &["a"]), ["b", "c"]);
        assert_eq!(awaited(&["a", "b"], &["a"]), ["c"]);
    }
}
