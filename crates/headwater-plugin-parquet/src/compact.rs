//! Compaction: merging neighbouring pieces without taking a row from anybody.
//!
//! Files that follow one another are merged into one that takes the place of the first; each of the others is then
//! replaced by a file without rows that says where its rows are now. So no name ever becomes free again, and a writer
//! that was paused in the midst of an append cannot publish in the past.
//!
//! 1. The merged file is written under a name that nobody reads.
//! 2. A journal is created that names it and what it is to replace, by content.
//! 3. The merged file takes the place of the first file.
//! 4. The other files are emptied one by one.
//! 5. The merged file's copy and the journal are deleted.
//!
//! Before step 2 nothing has happened. From then on every step may be done again by anybody, and is: whoever finds the
//! journal finishes it. A step replaces only the very content that the journal names, so doing it late does no harm.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use headwater_core::offline::Compaction;
use headwater_core::{Error, ErrorKind, Position, Result, SplitId};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error;
use crate::file::{Footer, Moved, Piece, union, widen};
use crate::log::Log;
use crate::storage::{Tag, blocking};

/// The journal's name in the folder of a log.
pub(crate) const JOURNAL: &str = ".compaction.json";
/// What the name of a merged file that has not taken its place begins with.
const STAGED: &str = ".merged-";
const FORMAT: u32 = 1;

/// Files are merged until the next would make them larger than this. All of it is in memory for a moment.
const MERGED_BYTES: u64 = 64 * 1024 * 1024;
/// A file of this size is large enough: merging it again and again with small ones would cost more than it saves.
const LARGE_BYTES: u64 = MERGED_BYTES / 2;

#[derive(Debug, Deserialize)]
struct Version {
    format: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    format: u32,
    /// Names the merged file until it takes the first one's place, and stands in its footer.
    id: String,
    split: String,
    /// The position that the first file begins after, and the content that is to be replaced.
    first: String,
    first_tag: Tag,
    others: Vec<Other>,
}

/// A file whose rows are in the merged file.
#[derive(Debug, Serialize, Deserialize)]
struct Other {
    after: String,
    tag: Tag,
    /// Where its rows begin in the merged file.
    row: u64,
}

/// Finishes a compaction that was broken off. Leaves one alone that is under way.
pub(crate) async fn repair(log: &Log) -> Result<()> {
    if log.storage.open(&journal_path(log)).await?.is_none() {
        return Ok(());
    }
    match log.storage.lock(&log.folder).await? {
        Some(_lock) => finish(log).await,
        None => Ok(()),
    }
}

/// Merges what is worth merging.
pub(crate) async fn compact(log: &Log) -> Result<Compaction> {
    if log.list().await?.splits.is_empty() {
        return Ok(Compaction::default());
    }
    let Some(_lock) = log.storage.lock(&log.folder).await? else {
        let message = "another process is compacting the log";
        return Err(error::at(ErrorKind::Conflict, message, log.storage.describe(&log.folder)).temporary());
    };
    finish(log).await?;
    clean(log).await?;

    let mut done = Compaction::default();
    for (split, chain) in log.chains().await? {
        let pieces = u64::try_from(chain.len()).unwrap_or(u64::MAX);
        done.before += pieces;
        done.after += pieces;
        for group in plan(chain.iter().map(|footer| footer.entry.size)) {
            let group = chain.get(group).unwrap_or_default();
            if merge(log, &split, group).await? {
                done.after -= u64::try_from(group.len() - 1).unwrap_or(0);
            }
        }
    }
    Ok(done)
}

fn journal_path(log: &Log) -> String {
    format!("{}/{JOURNAL}", log.folder)
}

fn staged_path(log: &Log, id: Uuid) -> String {
    format!("{}/{STAGED}{id}", log.folder)
}

/// Neighbours that make up no more than one merged file, as ranges of `sizes`.
fn plan(sizes: impl Iterator<Item = u64>) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut group = 0..0;
    let mut bytes = 0;
    for size in sizes {
        let end = group.end;
        if size >= LARGE_BYTES {
            // A large file stays by itself.
            groups.push(std::mem::replace(&mut group, end + 1..end + 1));
            bytes = 0;
        } else if bytes + size > MERGED_BYTES {
            groups.push(std::mem::replace(&mut group, end..end + 1));
            bytes = size;
        } else {
            group.end += 1;
            bytes += size;
        }
    }
    groups.push(group);
    groups.retain(|group| group.len() > 1);
    groups
}

/// Deletes what a compaction has left that ended before it had a journal. The caller holds the lock, and there is none.
async fn clean(log: &Log) -> Result<()> {
    log.storage.clean(&log.folder).await?;
    let staged = format!("{}/{STAGED}", log.folder);
    for entry in log.storage.list(&log.folder).await? {
        if entry.path.starts_with(&staged) {
            log.storage.delete(&entry.path).await?;
        }
    }
    Ok(())
}

/// Merges one group; `false` where another compaction was faster.
async fn merge(log: &Log, split: &SplitId, group: &[Arc<Footer>]) -> Result<bool> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(false) };
    let id = Uuid::new_v4();
    let staged = staged_path(log, id);
    let piece = Piece {
        after: first.piece.after.clone(),
        through: last.piece.through.clone(),
        metadata: last.piece.metadata.clone(),
        moved: None,
        compaction: Some(id.to_string()),
    };

    let mut files = Vec::with_capacity(group.len());
    let mut others = Vec::with_capacity(group.len());
    let mut row: u64 = 0;
    for footer in group {
        let Some((bytes, tag)) = log.storage.read(&footer.entry.path).await? else { return Ok(false) };
        if tag != footer.entry.tag {
            return Ok(false);
        }
        files.push((bytes, log.storage.describe(&footer.entry.path)));
        if !Arc::ptr_eq(footer, first) {
            others.push(Other { after: footer.piece.after.to_string(), tag, row });
        }
        row = row.saturating_add(footer.rows());
    }
    let schema = union(group.iter().map(|footer| &footer.schema));
    let format = log.format;
    let merged = blocking(move || {
        let rows = files.into_iter().flat_map(|(bytes, name)| -> Box<dyn Iterator<Item = Result<_>>> {
            match read_rows(bytes, &name) {
                Ok(rows) => Box::new(rows),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        });
        let rows = rows.map(|rows| widen(&rows?, &schema));
        format.encode(&piece, &schema, rows)
    })
    .await?;

    let journal = Journal {
        format: FORMAT,
        id: id.to_string(),
        split: split.to_string(),
        first: first.piece.after.to_string(),
        first_tag: first.entry.tag.clone(),
        others,
    };
    let journal = serde_json::to_vec(&journal)
        .map_err(|error| Error::unexpected("the journal of a compaction as JSON").with_source(error))?;
    log.storage.create(&staged, merged).await?;
    if !log.storage.create(&journal_path(log), Bytes::from(journal)).await? {
        log.storage.delete(&staged).await?;
        return Ok(false);
    }
    finish(log).await?;
    Ok(true)
}

fn read_rows(bytes: Bytes, name: &str) -> Result<impl Iterator<Item = Result<arrow::array::RecordBatch>> + use<>> {
    let native = |error| error::decode(error, name);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(native)?.build().map_err(native)?;
    let name = name.to_owned();
    Ok(reader.map(move |rows| rows.map_err(|error| error::corrupt("the file is damaged", &name).with_source(error))))
}

/// Does what the journal says and has not been done yet, and deletes it. The caller holds the lock.
async fn finish(log: &Log) -> Result<()> {
    let path = journal_path(log);
    let Some((bytes, _)) = log.storage.read(&path).await? else { return Ok(()) };
    let wrong = || error::corrupt("this is no journal of a compaction", log.storage.describe(&path));
    // The version says whether the rest can be understood.
    let version: Version = serde_json::from_slice(&bytes).map_err(|error| wrong().with_source(error))?;
    if version.format != FORMAT {
        return Err(error::at(
            ErrorKind::FormatVersion,
            format!("the journal has format version `{}`; this release reads version `{FORMAT}`", version.format),
            log.storage.describe(&path),
        ));
    }
    let journal: Journal = serde_json::from_slice(&bytes).map_err(|error| wrong().with_source(error))?;
    let split: SplitId = journal.split.parse().map_err(|_| wrong())?;
    let first: Position = journal.first.parse().map_err(|_| wrong())?;
    let staged = staged_path(log, journal.id.parse().map_err(|_| wrong())?);

    if place(log, &journal, &log.file(&split, &first), &staged).await? {
        for other in &journal.others {
            let after: Position = other.after.parse().map_err(|_| wrong())?;
            empty(log, &log.file(&split, &after), other, &first).await?;
        }
    }
    log.storage.delete(&staged).await?;
    log.storage.delete(&path).await
}

/// Puts the merged file in its place. `false` where the journal is out of date, and so nothing is to be done.
async fn place(log: &Log, journal: &Journal, path: &str, staged: &str) -> Result<bool> {
    loop {
        let Some((_, footer)) = log.footers.open(&log.storage, path).await? else { return Ok(false) };
        if footer.piece.compaction.as_ref() == Some(&journal.id) {
            return Ok(true);
        }
        if footer.entry.tag != journal.first_tag {
            return Ok(false);
        }
        let Some((merged, _)) = log.storage.read(staged).await? else { return Ok(false) };
        // Where another was faster, the next look shows what it did.
        if log.storage.replace(path, &journal.first_tag, merged).await? {
            return Ok(true);
        }
    }
}

/// Replaces a file by one without rows that says where they are.
async fn empty(log: &Log, path: &str, other: &Other, first: &Position) -> Result<()> {
    let Some((_, footer)) = log.footers.open(&log.storage, path).await? else { return Ok(()) };
    if footer.entry.tag != other.tag {
        return Ok(());
    }
    let piece = Piece { moved: Some(Moved { to: first.clone(), row: other.row }), ..footer.piece.clone() };
    let bytes = log.format.encode(&piece, &footer.schema, [])?;
    log.storage.replace(path, &other.tag, bytes).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
