//! Epochs: builds of the window state of a view's generation.
//!
//! A build begins with the batch rows before one instant, `log_from`, and goes on with the stream's events from it on. A
//! later `materialize` or a changed aggregation makes another epoch beside the one that serves, from history, and takes
//! over when every split has caught up; then the older one is dropped.
//!
//! All is kept in the online store, where the greater version stays and nothing can be compared and set. So there is a
//! row for each thing that one writer alone writes, and versions only grow:
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `{project}/_epochs` | view, generation, `e`, epoch | the epoch: building, or catching up ([`EpochEntry`]) |
//! | | view, generation, `p`, epoch, split | how far the epoch has the split ([`SplitProgress`]) |
//! | | view, generation, `s` | the epoch that serves: of two the later stays, whoever writes last |
//! | | view, generation, `l`, holder | whoever builds ([`lease::Lease`]) |
//! | `{project}/{view}/{generation}/{epoch}` | entity key, split ([`push_split`]) | a window row; its version is the position it is complete up to |
//! | | 0, split | nothing; its version is the position up to which the split was written to it ([`written`]) |

pub(crate) mod lease;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use headwater_core::online::OnlineRow;
use headwater_core::{Error, ErrorKind, Micros, OnlineStore, Position, Result, SplitId};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Windows;

const FORMAT_VERSION: u32 = 1;

/// A build of a view's window state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    /// Its name. Of two the later is the greater.
    pub(crate) id: String,
    /// The generation of the rows that it is made of.
    pub(crate) generation: String,
    /// Names its set of aggregations: [`Windows::fingerprint`].
    pub(crate) fingerprint: String,
    /// The aggregations that its rows hold, which may be older than those that are applied.
    pub(crate) windows: Windows,
    /// Batch rows count before this time, events of the stream from it on; `None` = the beginning of time: no batch row
    /// counts.
    pub(crate) log_from: Option<Micros>,
    /// The first batch row that was looked at, inclusive; `None` = from the beginning.
    pub(crate) start: Option<Micros>,
    /// When its build began.
    pub(crate) created: Micros,
    /// It was built for training sets alone, and has no window rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) without_rows: bool,
}

/// How far an epoch is, as long as it does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EpochState {
    /// Its rows are being made of history. Where its builder died, it is thrown away.
    Building,
    /// It has all of history up to the positions of its splits; jobs bring it up to theirs.
    CatchingUp,
}

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct BuildProgress {
    /// Pieces of history that are done.
    pub(crate) done: u64,
    /// Pieces in all.
    pub(crate) total: u64,
    /// Rows read.
    pub(crate) rows: u64,
}

/// How far an epoch has a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SplitProgress {
    /// Everything up to here is in its rows, durably.
    pub(crate) through: Position,
    /// The newest event time up to `through`, where a worker has read so far: what the watermark follows from in a view
    /// without a log.
    pub(crate) newest: Option<Micros>,
    /// A worker writes the split's events to it as they come.
    pub(crate) caught_up: bool,
}

/// An epoch with what is known of its build.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EpochEntry {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// What it is about.
    pub(crate) state: EpochState,
    /// How far its build is.
    pub(crate) progress: BuildProgress,
    /// How far its splits are.
    pub(crate) splits: BTreeMap<SplitId, SplitProgress>,
}

/// The epochs of a view's generation.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Epochs {
    /// The one that reads go to, and since when.
    pub(crate) serving: Option<(Epoch, Micros)>,
    /// All that there are, oldest first, the serving one too.
    pub(crate) all: Vec<EpochEntry>,
}

impl Epochs {
    /// The entry of this epoch.
    pub(crate) fn entry(&self, id: &str) -> Option<&EpochEntry> {
        self.all.iter().find(|entry| entry.epoch.id == id)
    }

    /// Whether this one has all of history, and none that has it is later of the same aggregations.
    pub(crate) fn is_latest(&self, entry: &EpochEntry) -> bool {
        let mut same = self.all.iter().filter(|other| other.epoch.fingerprint == entry.epoch.fingerprint);
        let latest = same.rfind(|other| other.state == EpochState::CatchingUp);
        latest.is_some_and(|latest| latest.epoch.id == entry.epoch.id)
    }

    /// The name of the epoch that serves; nothing lies before every name.
    pub(crate) fn serving_id(&self) -> &str {
        self.serving.as_ref().map_or("", |(epoch, _)| epoch.id.as_str())
    }
}

/// The table with the epochs of a project's views.
pub(crate) fn epochs_table(project: &str) -> String {
    format!("{project}/_epochs")
}

/// The table with the window rows of an epoch.
pub(crate) fn table(project: &str, view: &str, epoch: &Epoch) -> String {
    format!("{}{}", tables_prefix(project, view, &epoch.generation), epoch.id)
}

/// The tables of all epochs of a view's generation begin with this, and no others do.
pub(crate) fn tables_prefix(project: &str, view: &str, generation: &str) -> String {
    format!("{project}/{view}/{generation}/")
}

/// Appends what makes an entity key ([`crate::rows::KeyColumns`]) the key of its window row: of a split of the stream, or
/// of the batch rows for `None`. As no entity key is a prefix of another, the entity key is the prefix of exactly the
/// entity's rows.
pub(crate) fn push_split(key: &mut Vec<u8>, split: Option<&SplitId>) {
    match split {
        None => key.push(0),
        Some(split) => {
            key.push(1);
            key.extend_from_slice(split.as_bytes());
        }
    }
}

/// Begins the keys that no entity has: those of how far splits are written.
const WRITTEN: u8 = 0;

/// The row that says up to where a split is written. It is put with the rows that it speaks of, and sorts before them.
pub(crate) fn written_row(split: &SplitId, through: &Position) -> OnlineRow {
    OnlineRow {
        key: [&[WRITTEN], split.as_bytes()].concat().into(),
        version: Bytes::copy_from_slice(through.as_bytes()),
        value: Bytes::new(),
        expiry: None,
    }
}

/// Whether a row is a window row.
pub(crate) fn is_window_row(row: &OnlineRow) -> bool {
    row.key.first() != Some(&WRITTEN)
}

/// Up to where each split was written to an epoch, and may have been read. Of a worker that was killed the checkpoints say
/// less. Nothing of splits of which nothing was written.
///
/// # Errors
/// The store's.
pub(crate) async fn written(
    online: &dyn OnlineStore,
    project: &str,
    view: &str,
    epoch: &Epoch,
) -> Result<BTreeMap<SplitId, Position>> {
    let rows = online.get_prefixes(&table(project, view, epoch), &[Bytes::from_static(&[WRITTEN])]).await?;
    let rows = rows.into_iter().flatten();
    Ok(rows.map(|row| (SplitId::new(row.key.slice(1..)), Position::new(row.version))).collect())
}

fn prefix(view: &str, generation: &str) -> Vec<u8> {
    [view.as_bytes(), &[0], generation.as_bytes(), &[0]].concat()
}

fn key(view: &str, generation: &str, rest: &[&[u8]]) -> Bytes {
    [prefix(view, generation), rest.concat()].concat().into()
}

#[derive(Serialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    value: T,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    epoch: Epoch,
    state: EpochState,
    progress: BuildProgress,
}

#[derive(Serialize, Deserialize)]
struct StoredProgress {
    through: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<Micros>,
    caught_up: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredServing {
    epoch: Epoch,
    since: Micros,
}

/// As [`StoredServing`], where the epoch is known by name.
#[derive(Deserialize)]
struct StoredSince {
    epoch: StoredName,
    since: Micros,
}

#[derive(Deserialize)]
struct StoredName {
    id: String,
}

fn encode(value: impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(&Versioned { version: FORMAT_VERSION, value })
        .map(Bytes::from)
        .map_err(|error| Error::unexpected("an epoch cannot be written").with_source(error))
}

/// What was read: a value, or the number of a version that is not known.
struct Read<T>(std::result::Result<T, u32>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Read<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version and what is of it")
            }

            // The version comes first, so that the rest is read once, as what it is.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                match map.next_entry::<String, u32>()? {
                    Some((key, FORMAT_VERSION)) if key == "version" => {
                        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Read(Ok(value)))
                    }
                    Some((key, version)) if key == "version" => {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        Ok(Read(Err(version)))
                    }
                    _ => Err(A::Error::missing_field("version")),
                }
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    let read = serde_json::from_slice::<Read<T>>(value);
    let read = read.map_err(|error| Error::corrupt("the row of an epoch cannot be read").with_source(error))?;
    read.0.map_err(|version| {
        Error::new(
            ErrorKind::FormatVersion,
            format!("an epoch has format version `{version}`; this release knows `{FORMAT_VERSION}`"),
        )
    })
}

/// The epoch of a view's generation that reads go to; `None` where none was built: the view was never ingested and never
/// materialised.
///
/// # Errors
/// The store's; `FormatVersion` and `Corrupt` for rows that cannot be read.
pub(crate) async fn serving(
    online: &dyn OnlineStore,
    project: &str,
    view: &str,
    generation: &str,
) -> Result<Option<Epoch>> {
    let rows = online.get(&epochs_table(project), &[key(view, generation, &[b"s"])]).await?;
    let Some(row) = rows.into_iter().flatten().next() else { return Ok(None) };
    Ok(Some(decode::<StoredServing>(&row.value)?.epoch))
}

/// The name of the epoch that [`serving`] gives, as bytes, at the cost of a point read.
///
/// # Errors
/// The store's.
pub(crate) async fn serving_id(
    online: &dyn OnlineStore,
    project: &str,
    view: &str,
    generation: &str,
) -> Result<Option<Bytes>> {
    let rows = online.get(&epochs_table(project), &[key(view, generation, &[b"s"])]).await?;
    Ok(rows.into_iter().flatten().next().map(|row| row.version))
}

/// All epochs of a view's generation.
///
/// # Errors
/// As [`serving`].
pub(crate) async fn load(online: &dyn OnlineStore, project: &str, view: &str, generation: &str) -> Result<Epochs> {
    let prefix = Bytes::from(prefix(view, generation));
    let length = prefix.len();
    let rows = online.get_prefixes(&epochs_table(project), &[prefix]).await?;
    let mut out = Epochs::default();
    let mut progress: BTreeMap<String, BTreeMap<SplitId, SplitProgress>> = BTreeMap::new();
    let mut serving = None;
    for row in rows.into_iter().flatten() {
        let rest = row.key.slice(length..);
        match rest.split_first() {
            Some((b'e', _)) => {
                let StoredEntry { epoch, state, progress } = decode(&row.value)?;
                out.all.push(EpochEntry { epoch, state, progress, splits: BTreeMap::new() });
            }
            Some((b'p', name)) => {
                let stored: StoredProgress = decode(&row.value)?;
                let end = name.iter().position(|byte| *byte == 0);
                let (Some(end), Ok(through)) = (end, stored.through.parse::<Position>()) else {
                    return Err(Error::corrupt(format!("a row of table `{}` is damaged", epochs_table(project))));
                };
                let id = String::from_utf8_lossy(&name[..end]).into_owned();
                let split = SplitId::new(rest.slice(end + 2..));
                let done = SplitProgress { through, newest: stored.newest, caught_up: stored.caught_up };
                progress.entry(id).or_default().insert(split, done);
            }
            Some((b's', _)) => serving = Some(row.value),
            _ => {}
        }
    }
    out.all.sort_by(|a, b| a.epoch.id.cmp(&b.epoch.id));
    for entry in &mut out.all {
        entry.splits = progress.remove(&entry.epoch.id).unwrap_or_default();
    }
    if let Some(value) = serving {
        // The epoch is nearly always among the others, and its aggregations may be many: they are read once.
        let StoredSince { epoch: StoredName { id }, since } = decode(&value)?;
        let epoch = match out.entry(&id) {
            Some(entry) => entry.epoch.clone(),
            None => decode::<StoredServing>(&value)?.epoch,
        };
        out.serving = Some((epoch, since));
    }
    Ok(out)
}

/// Removes all epochs of a view's generation, which is not read any more.
///
/// # Errors
/// The store's. What is left then is removed by calling again.
pub(crate) async fn remove_all(online: &dyn OnlineStore, project: &str, view: &str, generation: &str) -> Result<()> {
    let of_generation = tables_prefix(project, view, generation);
    for found in online.tables().await?.iter().filter(|table| table.starts_with(&of_generation)) {
        online.drop_table(found).await?;
    }
    let rows = online.get_prefixes(&epochs_table(project), &[Bytes::from(prefix(view, generation))]).await?;
    let keys = rows.into_iter().flatten().map(|row| row.key).collect::<Vec<_>>();
    if keys.is_empty() { Ok(()) } else { online.delete(&epochs_table(project), &keys).await }
}

/// Names the next epoch after `epochs`. Two builders that know the same ones give different names.
pub(crate) fn next_id(epochs: &Epochs) -> String {
    let number = |id: &str| id.split('-').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    let greatest = epochs.all.iter().map(|entry| entry.epoch.id.as_str()).chain([epochs.serving_id()]);
    let next = greatest.map(number).max().unwrap_or(0) + 1;
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    format!("{next:010}-{}", nonce.get(..8).unwrap_or(&nonce))
}

impl Epoch {
    /// Writes how its build is getting on. Only its builder does so. Durable after `sync`.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn write(
        &self,
        online: &dyn OnlineStore,
        project: &str,
        view: &str,
        state: EpochState,
        progress: BuildProgress,
    ) -> Result<()> {
        let mut version = vec![u8::from(state == EpochState::CatchingUp)];
        version.extend_from_slice(&progress.rows.to_be_bytes());
        let row = OnlineRow {
            key: key(view, &self.generation, &[b"e", self.id.as_bytes()]),
            version: version.into(),
            value: encode(StoredEntry { epoch: self.clone(), state, progress })?,
            expiry: None,
        };
        online.put(&epochs_table(project), vec![row]).await.map(drop)
    }

    /// Writes how far it has these splits. What it says is durable by then.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn write_progress(
        &self,
        online: &dyn OnlineStore,
        project: &str,
        view: &str,
        splits: impl IntoIterator<Item = (SplitId, SplitProgress)>,
    ) -> Result<()> {
        let rows = splits.into_iter().map(|(split, done)| {
            // Of two writers the one that got further stays; once a worker writes a split, it does.
            let version = [&[u8::from(done.caught_up)], done.through.as_bytes()].concat();
            let stored =
                StoredProgress { through: done.through.to_string(), newest: done.newest, caught_up: done.caught_up };
            Ok(OnlineRow {
                key: key(view, &self.generation, &[b"p", self.id.as_bytes(), &[0], split.as_bytes()]),
                version: version.into(),
                value: encode(stored)?,
                expiry: None,
            })
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        if rows.is_empty() { Ok(()) } else { online.put(&epochs_table(project), rows).await.map(drop) }
    }

    /// Makes reads go to it, unless they go to a later one. Durable after `sync`.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn serve(&self, online: &dyn OnlineStore, project: &str, view: &str, now: Micros) -> Result<()> {
        let row = OnlineRow {
            key: key(view, &self.generation, &[b"s"]),
            version: Bytes::copy_from_slice(self.id.as_bytes()),
            value: encode(StoredServing { epoch: self.clone(), since: now })?,
            expiry: None,
        };
        online.put(&epochs_table(project), vec![row]).await.map(drop)
    }

    /// Removes it and its rows. The caller guarantees that it does not serve.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn remove(&self, online: &dyn OnlineStore, project: &str, view: &str) -> Result<()> {
        online.drop_table(&table(project, view, self)).await?;
        let of_splits = key(view, &self.generation, &[b"p", self.id.as_bytes(), &[0]]);
        let rows = online.get_prefixes(&epochs_table(project), &[of_splits]).await?;
        let mut keys: Vec<Bytes> = rows.into_iter().flatten().map(|row| row.key).collect();
        keys.push(key(view, &self.generation, &[b"e", self.id.as_bytes()]));
        online.delete(&epochs_table(project), &keys).await
    }
}

#[cfg(test)]
mod tests;
