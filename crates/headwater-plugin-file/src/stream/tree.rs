//! What lies under a stream's path.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind as IoKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use arrow::datatypes::{Schema, SchemaRef};
use headwater_core::stream::SplitInfo;
use headwater_core::{Error, ErrorKind, Micros, Position, Result, SplitId};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use super::lines;
use crate::config::StreamFormat;
use crate::error;
use crate::names;
use crate::union::Union;

/// What tells whether a file has changed since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Its length in bytes.
    pub(super) length: u64,
    /// When it was last changed.
    pub(super) modified: Option<Micros>,
    /// Device and inode, where the system has them: another number under the same name is another file.
    pub(super) inode: Option<(u64, u64)>,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().map(|time| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX),
            Err(before) => Micros::try_from(before.duration().as_micros()).map_or(Micros::MIN, |micros| -micros),
        });
        Self { length: metadata.len(), modified, inode: inode(metadata) }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// One file of the stream.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) split: SplitId,
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    /// Nothing will be added to it: a Parquet file in a directory.
    pub(super) closed: bool,
}

/// What a Parquet footer says, kept for files that have not changed.
#[derive(Debug, Clone)]
struct Footer {
    stamp: Stamp,
    rows: u64,
    schema: SchemaRef,
}

/// The path of a stream and what is known of it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    pub(super) format: StreamFormat,
    pub(super) follow: bool,
    pub(super) poll_interval: Duration,
    footers: Mutex<HashMap<PathBuf, Footer>>,
    /// The columns that were reported; every batch has them.
    schema: Mutex<Option<SchemaRef>>,
}

impl Tree {
    pub(super) fn new(root: PathBuf, format: StreamFormat, follow: bool, poll_interval: Duration) -> Self {
        Self { root, format, follow, poll_interval, footers: Mutex::default(), schema: Mutex::default() }
    }

    /// The files there are, in order of their splits.
    ///
    /// # Errors
    /// `NotFound` where there is nothing at the path and it is not followed.
    pub(super) fn list(&self) -> Result<Vec<Found>> {
        let metadata = match fs::metadata(&self.root) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == IoKind::NotFound && self.follow => return Ok(Vec::new()),
            Err(e) => return Err(error::io(e, self.root.display())),
        };
        let mut found = Vec::new();
        if metadata.is_dir() {
            self.walk(&self.root, &mut Vec::new(), &mut found)?;
            found.sort_unstable_by(|a, b| a.split.cmp(&b.split));
        } else {
            let name = self.root.file_name().unwrap_or(self.root.as_os_str());
            found.push(Found {
                split: SplitId::new(name.as_encoded_bytes().to_vec()),
                path: self.root.clone(),
                stamp: Stamp::of(&metadata),
                closed: false,
            });
        }
        Ok(found)
    }

    /// Adds the data files of one directory. `prefix` is its path below the root, with `/` at its end.
    fn walk(&self, directory: &Path, prefix: &mut Vec<u8>, found: &mut Vec<Found>) -> Result<()> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // Removed since its parent was listed.
            Err(e) if e.kind() == IoKind::NotFound && !prefix.is_empty() => return Ok(()),
            Err(e) => return Err(error::io(e, directory.display())),
        };
        for entry in entries {
            let entry = entry.map_err(|e| error::io(e, directory.display()))?;
            let name = entry.file_name();
            let text = name.to_string_lossy();
            // Links to directories are not followed: they may lead in circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if names::is_data_directory(&text) {
                    let length = prefix.len();
                    prefix.extend_from_slice(name.as_encoded_bytes());
                    prefix.push(b'/');
                    self.walk(&entry.path(), prefix, found)?;
                    prefix.truncate(length);
                }
                continue;
            }
            if !names::is_data_file(&text) || StreamFormat::of_name(&text) != Some(self.format) {
                continue;
            }
            // Through `fs`, which follows links.
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => metadata,
                Ok(_) => continue,
                Err(e) if e.kind() == IoKind::NotFound => continue,
                Err(e) => return Err(error::io(e, entry.path().display())),
            };
            let split = [prefix.as_slice(), name.as_encoded_bytes()].concat();
            found.push(Found {
                split: SplitId::new(split),
                path: entry.path(),
                stamp: Stamp::of(&metadata),
                closed: self.format == StreamFormat::Parquet,
            });
        }
        Ok(())
    }

    /// The splits with their ends.
    pub(super) fn discover(&self) -> Result<Vec<SplitInfo>> {
        let mut splits = Vec::new();
        for file in self.list()? {
            let end = match self.end(&file) {
                Ok(end) => end,
                // Removed since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            splits.push(SplitInfo { split: file.split, parents: Vec::new(), end, closed: file.closed });
        }
        Ok(splits)
    }

    /// The position of the last record that a reader would deliver now; `None` for a Parquet file still being written.
    pub(super) fn end(&self, file: &Found) -> Result<Option<Position>> {
        let end = match self.format {
            StreamFormat::Ndjson => Some(lines::end(&file.path, self.follow)?),
            StreamFormat::Parquet => self.footer(file)?.map(|footer| footer.rows),
        };
        Ok(end.map(position))
    }

    /// The footer of a Parquet file; `None` while a followed file is still being written.
    fn footer(&self, file: &Found) -> Result<Option<Footer>> {
        let known = self.lock_footers().get(&file.path).cloned();
        if let Some(footer) = known.filter(|footer| footer.stamp == file.stamp) {
            return Ok(Some(footer));
        }
        let mut handle = File::open(&file.path).map_err(|e| error::io(e, file.path.display()))?;
        if self.follow && !is_complete(&mut handle).map_err(|e| error::io(e, file.path.display()))? {
            return Ok(None);
        }
        let metadata = ArrowReaderMetadata::load(&handle, ArrowReaderOptions::new())
            .map_err(|e| error::parquet(e, file.path.display()))?;
        let rows = u64::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        let footer = Footer { stamp: file.stamp, rows, schema: Arc::clone(metadata.schema()) };
        self.lock_footers().insert(file.path.clone(), footer.clone());
        Ok(Some(footer))
    }

    fn lock_footers(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Footer>> {
        // A map of plain values is whole at every moment.
        self.footers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The columns of the Parquet files that were there when it was first asked for.
    ///
    /// # Errors
    /// `NotFound` while there is no file, `Invalid` where files contradict one another.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        let mut schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = schema.as_ref() {
            return Ok(Arc::clone(schema));
        }
        let mut union = Union::default();
        let mut files = 0_usize;
        for file in self.list()? {
            if let Some(footer) = self.footer(&file)? {
                union.add(&footer.schema, &file.path.to_string_lossy())?;
                files += 1;
            }
        }
        if files == 0 {
            let message = format!("`{}` holds no Parquet file yet", self.root.display());
            return Err(Error::not_found(message).with_plugin("file"));
        }
        // Later files may lack any of the columns.
        let fields: Vec<_> = union.finish().into_iter().map(|field| field.with_nullable(true)).collect();
        let union = Arc::new(Schema::new(fields));
        *schema = Some(Arc::clone(&union));
        Ok(union)
    }
}

/// Zero, the beginning of a file, is [`Position::START`].
pub(super) fn position(value: u64) -> Position {
    if value == 0 { Position::START } else { Position::from_u64(value) }
}

/// Whether a Parquet file has been written to its end: its last bytes are the format's mark.
pub(super) fn is_complete(file: &mut File) -> std::io::Result<bool> {
    const MARK: &[u8; 4] = b"PAR1";
    let length = file.metadata()?.len();
    if length < 12 {
        return Ok(false);
    }
    let mut tail = [0_u8; 4];
    file.seek(SeekFrom::End(-4))?;
    file.read_exact(&mut tail)?;
    Ok(&tail == MARK)
}
