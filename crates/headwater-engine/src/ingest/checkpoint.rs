//! How far each split of a view is dealt with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::offline::LogEnd;
use headwater_core::online::OnlineRow;
use headwater_core::stream::{Checkpoints, Progress};
use headwater_core::{Error, ErrorKind, Micros, OnlineStore, Position, Result, SplitId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::status::Counts;
use super::windows;
use crate::project::Project;
use crate::rows::checkpoints_table;
use crate::view::View;

/// The metadata of a log's piece that holds the newest event time up to its end, in microseconds.
pub(super) const NEWEST_EVENT: &str = "newest_event_us";

const FORMAT_VERSION: u32 = 1;

/// Up to where the rows of a split are stored, durably, in a view's online table and dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Everything up to and including this position.
    pub(crate) through: Position,
    /// The split is closed and all of it is dealt with.
    pub(crate) ended: bool,
    /// Where the view began to read the split.
    pub(crate) from: Position,
    /// The newest event time up to `through`: what the watermark follows from.
    pub(crate) newest: Option<Micros>,
    /// When the source stored the newest record up to `through`, where it says.
    pub(crate) arrived: Option<Micros>,
    /// What was counted up to `through`.
    pub(crate) counts: Counts,
    /// The last records of the split that nobody has read.
    pub(crate) skipped: Option<Skipped>,
}

/// Records of a split that nobody has read: those between two positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) after: Position,
    pub(crate) to: Position,
    pub(crate) why: Why,
}

/// Why records were not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// Somebody has reset the source.
    Reset,
    /// They were gone, and the source was told to go on.
    PositionLost,
}

impl Skipped {
    /// For the metadata of the log's piece that lacks them.
    pub(crate) fn metadata(&self) -> [(String, String); 2] {
        [("skipped_after", &self.after), ("skipped_to", &self.to)].map(|(name, at)| (name.to_owned(), at.to_string()))
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, to, why } = self;
        f.write_str(match why {
            Why::Reset => "was skipped by a reset",
            Why::PositionLost => "has lost records that its source did not keep",
        })?;
        write!(f, ", after `{after}` to `{to}`")
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    through: String,
    ended: bool,
    from: String,
    newest: Option<Micros>,
    #[serde(default)]
    arrived: Option<Micros>,
    counts: Counts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<StoredSkipped>,
}

#[derive(Serialize, Deserialize)]
struct StoredSkipped {
    after: String,
    to: String,
    why: Why,
}

impl Checkpoint {
    /// The online row of this checkpoint.
    ///
    /// # Errors
    /// None in practice: those of JSON.
    pub(crate) fn to_row(&self, view: &View, split: &SplitId) -> Result<OnlineRow> {
        let stored = Stored {
            version: FORMAT_VERSION,
            through: self.through.to_string(),
            ended: self.ended,
            from: self.from.to_string(),
            newest: self.newest,
            arrived: self.arrived,
            counts: self.counts,
            skipped: self.skipped.as_ref().map(|Skipped { after, to, why }| StoredSkipped {
                after: after.to_string(),
                to: to.to_string(),
                why: *why,
            }),
        };
        let value = serde_json::to_vec(&stored)
            .map_err(|error| Error::unexpected("a checkpoint cannot be written").with_source(error))?;
        // Of two writers the one that got further stays.
        let version = [&[u8::from(self.ended)], self.through.as_bytes()].concat();
        Ok(OnlineRow { key: key(view, split), version: version.into(), value: value.into(), expiry: None })
    }

    fn from_row(row: &OnlineRow) -> Result<Self> {
        let stored: Stored = serde_json::from_slice(&row.value)
            .map_err(|error| Error::corrupt("a checkpoint cannot be read").with_source(error))?;
        if stored.version != FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::FormatVersion,
                format!("a checkpoint has format version `{}`; this release knows `{FORMAT_VERSION}`", stored.version),
            ));
        }
        Ok(Self {
            through: stored.through.parse()?,
            ended: stored.ended,
            from: stored.from.parse()?,
            newest: stored.newest,
            arrived: stored.arrived,
            counts: stored.counts,
            skipped: match stored.skipped {
                Some(StoredSkipped { after, to, why }) => Some(Skipped { after: after.parse()?, to: to.parse()?, why }),
                None => None,
            },
        })
    }
}

fn prefix(view: &View) -> Vec<u8> {
    [view.name.as_bytes(), &[0], view.generation.as_bytes(), &[0]].concat()
}

fn key(view: &View, split: &SplitId) -> Bytes {
    let mut key = prefix(view);
    key.extend_from_slice(split.as_bytes());
    key.into()
}

/// The key of a note. No view has an empty name, so that no checkpoint has such a key.
fn note_key(view: &View, name: &str) -> Bytes {
    [&[0], prefix(view).as_slice(), name.as_bytes()].concat().into()
}

/// What sources have noted for a view's generation, by name.
///
/// # Errors
/// The store's.
pub(crate) async fn load_notes(
    online: &dyn OnlineStore,
    project: &str,
    view: &View,
) -> Result<BTreeMap<String, Bytes>> {
    let prefix = note_key(view, "");
    let rows = online.get_prefixes(&checkpoints_table(project), std::slice::from_ref(&prefix)).await?;
    let note = |row: OnlineRow| (String::from_utf8_lossy(&row.key[prefix.len()..]).into_owned(), row.value);
    Ok(rows.into_iter().flatten().map(note).collect())
}

/// Forgets what sources have noted for a view's generation.
///
/// # Errors
/// The store's.
pub(crate) async fn forget_notes(online: &dyn OnlineStore, project: &str, view: &View) -> Result<()> {
    let notes = load_notes(online, project, view).await?;
    let keys = notes.keys().map(|name| note_key(view, name)).collect::<Vec<_>>();
    if keys.is_empty() { Ok(()) } else { online.delete(&checkpoints_table(project), &keys).await }
}

/// Remembers what a source has noted, for the generations of these views.
///
/// # Errors
/// The store's.
pub(crate) async fn write_notes(project: &Project, views: &[Arc<View>], notes: &[(String, Bytes)]) -> Result<()> {
    let version = Bytes::copy_from_slice(&project.clock.now().max(0).to_be_bytes());
    let row = |view: &View, (name, note): &(String, Bytes)| OnlineRow {
        key: note_key(view, name),
        version: version.clone(),
        value: note.clone(),
        expiry: None,
    };
    let rows = views.iter().flat_map(|view| notes.iter().map(|note| row(view, note))).collect::<Vec<_>>();
    if !rows.is_empty() {
        project.online.put(&checkpoints_table(&project.definitions.project), rows).await?;
    }
    Ok(())
}

/// All checkpoints of a view's generation.
///
/// # Errors
/// The store's; `Corrupt` and `FormatVersion` for rows that cannot be read.
pub(crate) async fn load(
    online: &dyn OnlineStore,
    project: &str,
    view: &View,
) -> Result<BTreeMap<SplitId, Checkpoint>> {
    let prefix = Bytes::from(prefix(view));
    let length = prefix.len();
    let rows = online.get_prefixes(&checkpoints_table(project), &[prefix]).await?;
    rows.into_iter()
        .flatten()
        .map(|row| Ok((SplitId::new(row.key.slice(length..)), Checkpoint::from_row(&row)?)))
        .collect()
}

/// The checkpoint of one split in each of `views`.
///
/// # Errors
/// As [`load`].
pub(super) async fn load_split(
    online: &dyn OnlineStore,
    project: &str,
    views: &[Arc<View>],
    split: &SplitId,
) -> Result<Vec<Option<Checkpoint>>> {
    let keys = views.iter().map(|view| key(view, split)).collect::<Vec<_>>();
    let rows = online.get(&checkpoints_table(project), &keys).await?;
    rows.iter().map(|row| row.as_ref().map(Checkpoint::from_row).transpose()).collect()
}

/// What a group of views tells its reader: the lowest of their checkpoints and log ends.
#[derive(Debug)]
pub(super) struct GroupCheckpoints {
    project: Arc<Project>,
    views: Vec<Arc<View>>,
    ends: Mutex<Option<(Instant, Ends)>>,
}

type Ends = Arc<Vec<BTreeMap<SplitId, LogEnd>>>;

impl GroupCheckpoints {
    pub(super) fn new(project: Arc<Project>, views: Vec<Arc<View>>) -> Self {
        Self { project, views, ends: Mutex::new(None) }
    }

    /// The ends of the views' logs, a few seconds old at most. Ends only move on, so an older one is merely lower.
    async fn ends(&self) -> Result<Ends> {
        let cached = self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, ends)) = cached
            && at.elapsed() < Duration::from_secs(5)
        {
            return Ok(ends);
        }
        let mut ends = Vec::with_capacity(self.views.len());
        for view in &self.views {
            ends.push(if view.offline { self.project.offline.ends(&view.log()).await? } else { BTreeMap::new() });
        }
        let ends = Arc::new(ends);
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&ends)));
        Ok(ends)
    }
}

#[async_trait]
impl Checkpoints for GroupCheckpoints {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        let project = &self.project.definitions.project;
        let checkpoints = load_split(self.project.online.as_ref(), project, &self.views, split).await?;
        if checkpoints.iter().all(Option::is_none) {
            return Ok(None);
        }
        let ends = self.ends().await?;
        let mut lowest: Option<Position> = None;
        let mut all_ended = true;
        // A view without a checkpoint beside views that have one died before the first read: it begins with them.
        for ((view, checkpoint), ends) in self.views.iter().zip(&checkpoints).zip(ends.iter()) {
            let Some(checkpoint) = checkpoint else {
                all_ended = false;
                continue;
            };
            let mut through = checkpoint.through.clone();
            if view.offline {
                through = through.min(ends.get(split).map_or(Position::START, |end| end.through.clone()));
            }
            if let Some(from) = windows::again_from(&self.project, view, split, checkpoint).await? {
                through = through.min(from);
            }
            all_ended &= checkpoint.ended && through == checkpoint.through;
            lowest = Some(lowest.map_or_else(|| through.clone(), |lowest| lowest.min(through.clone())));
        }
        Ok(if all_ended { Some(Progress::End) } else { lowest.map(Progress::Through) })
    }

    async fn started(&self) -> Result<bool> {
        for view in &self.views {
            let project = &self.project.definitions.project;
            if !load(self.project.online.as_ref(), project, view).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn noted(&self, name: &str) -> Result<Option<Bytes>> {
        let table = checkpoints_table(&self.project.definitions.project);
        let keys = self.views.iter().map(|view| note_key(view, name)).collect::<Vec<_>>();
        let rows = self.project.online.get(&table, &keys).await?;
        // Views that have come together later may have noted different things at different times; the newest stands.
        let newest = rows.into_iter().flatten().max_by(|a, b| a.version.cmp(&b.version));
        Ok(newest.map(|row| row.value))
    }

    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()> {
        write_notes(&self.project, &self.views, notes).await?;
        self.project.online.sync().await
    }
}
