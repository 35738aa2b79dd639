//! Files as a table.

mod location;
mod parquet;
mod partitions;
mod snapshot;
mod statistics;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::batch::{Fragment, ScanRequest, ScanStream};
use headwater_core::options::Config;
use headwater_core::{BatchSource, Error, Result, SplitId};
use tokio::sync::Mutex;

use self::location::Location;
use self::snapshot::{Columns, Snapshot, Snapshots};
use crate::config::{BatchFormat, FileBatchConfig};
use crate::union::Alignment;

/// The Parquet, CSV or NDJSON files at a path as one table.
#[derive(Debug)]
pub struct FileBatchSource {
    identity: String,
    location: Location,
    format: Option<BatchFormat>,
    delimiter: u8,
    footers: parquet::Footers,
    snapshots: Mutex<Snapshots>,
}

impl FileBatchSource {
    /// Checks the options. Nothing is read yet.
    ///
    /// # Errors
    /// `Invalid` for an empty path or a delimiter that is no single ASCII character, `Unsupported` for a kind of URL
    /// that is not compiled in.
    pub fn open(options: &FileBatchConfig, config: &Config) -> Result<Self> {
        let &[delimiter] = options.delimiter.as_bytes() else {
            return Err(Error::invalid(format!(
                "{}: option `delimiter` takes one ASCII character, not `{}`",
                config.name, options.delimiter
            )));
        };
        Ok(Self {
            identity: options.path.clone(),
            location: Location::new(&options.path, config)?,
            format: options.format,
            delimiter,
            footers: parquet::Footers::default(),
            snapshots: Mutex::default(),
        })
    }

    /// The files as they are now; `None` where there are none.
    async fn snapshot(&self) -> Result<Option<Arc<Snapshot>>> {
        let Some(listing) = self.location.list().await? else { return Ok(None) };
        // Held while footers are read: whoever asks meanwhile would read the same ones.
        let mut snapshots = self.snapshots.lock().await;
        if let Some(snapshot) = snapshots.current(&listing) {
            return Ok(Some(snapshot));
        }
        let files = snapshot::choose(listing, self.format, &self.identity)?;
        if files.files.is_empty() {
            return Ok(None);
        }
        let snapshot = Snapshot::build(files, &self.footers, self.delimiter).await?;
        Ok(Some(snapshots.remember(snapshot)))
    }
}

#[async_trait]
impl BatchSource for FileBatchSource {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    async fn schema(&self) -> Result<SchemaRef> {
        match self.snapshot().await? {
            Some(snapshot) => Ok(Arc::clone(&snapshot.schema)),
            None => Err(Error::not_found(format!("`{}` holds no data files", self.identity)).with_plugin("file")),
        }
    }

    async fn fragments(&self, request: &ScanRequest) -> Result<Vec<Fragment>> {
        let Some(snapshot) = self.snapshot().await? else { return Ok(Vec::new()) };
        snapshot.check(request)?;
        let mut fragments = Vec::new();
        for (index, file) in snapshot.files.iter().enumerate() {
            if statistics::partition_excludes(&file.constants, request) {
                continue;
            }
            let token = |group: usize, first: u64| {
                let (size, modified) = (file.object.size, file.object.modified);
                Token { snapshot: snapshot.number, file: index, group, first, size, modified }
            };
            match &file.columns {
                Columns::Parquet => {
                    let footer = self.footers.get(&snapshot.store, &file.object).await?;
                    for piece in statistics::pieces(&footer, &file.constants, request) {
                        fragments.push(Fragment {
                            split: SplitId::from(file.object.relative.as_str()),
                            rows: Some(piece.rows),
                            time: piece.time,
                            token: token(piece.group, piece.first).encode(&file.object.relative),
                        });
                    }
                }
                Columns::Text(_) => fragments.push(Fragment {
                    split: SplitId::from(file.object.relative.as_str()),
                    rows: None,
                    time: statistics::constant_time(&file.constants, request),
                    token: token(0, 1).encode(&file.object.relative),
                }),
            }
        }
        Ok(fragments)
    }

    async fn read(&self, fragment: &Fragment, request: &ScanRequest) -> Result<ScanStream> {
        let (token, relative) = Token::decode(&fragment.token)?;
        let remembered = self.snapshots.lock().await.numbered(token.snapshot);
        let snapshot = match remembered {
            Some(snapshot) => Some(snapshot),
            // So many changes came in between that it was forgotten.
            None => self.snapshot().await?,
        };
        let gone = || Error::not_found(format!("`{relative}` in `{}` is no longer there", self.identity));
        let snapshot = snapshot.ok_or_else(gone)?;
        let file = snapshot.file(token.file, relative).ok_or_else(gone)?;
        if (file.object.size, file.object.modified) != (token.size, token.modified) {
            return Err(file.object.changed());
        }
        file.object.check(&snapshot.store).await?;
        let wanted = wanted(&snapshot, request)?;
        match &file.columns {
            Columns::Parquet => {
                let footer = self.footers.get(&snapshot.store, &file.object).await?;
                let alignment = Alignment::new(&wanted, footer.schema(), &file.constants, &file.object.shown);
                parquet::read(&snapshot.store, &file.object, footer, token.group, token.first, alignment)
            }
            Columns::Text(columns) => {
                let alignment = Alignment::new(&wanted, columns, &file.constants, &file.object.shown);
                text::read(&snapshot, file, columns, alignment, self.delimiter)
            }
        }
    }
}

/// The fields of the columns asked for, in the order asked for.
fn wanted(snapshot: &Snapshot, request: &ScanRequest) -> Result<Vec<FieldRef>> {
    let Some(columns) = &request.columns else { return Ok(snapshot.schema.fields().iter().cloned().collect()) };
    columns.iter().map(|name| snapshot.field(name)).collect()
}

/// What a fragment's token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    /// The snapshot in which it was listed.
    snapshot: u64,
    /// The file's index in it.
    file: usize,
    /// The row group.
    group: usize,
    /// The number of its first row.
    first: u64,
    /// The file's size and time of change.
    size: u64,
    modified: Option<i64>,
}

impl Token {
    /// Seven big-endian numbers and the file's relative path.
    fn encode(self, relative: &str) -> Bytes {
        let mut out = Vec::with_capacity(56 + relative.len());
        let modified = self.modified.unwrap_or(0).cast_unsigned();
        let known = u64::from(self.modified.is_some());
        for number in [self.snapshot, self.file as u64, self.group as u64, self.first, self.size, modified, known] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(relative.as_bytes());
        Bytes::from(out)
    }

    fn decode(bytes: &[u8]) -> Result<(Self, &str)> {
        let wrong = || Error::invalid("this fragment is not one of a source of type `file`");
        let (numbers, relative) = bytes.split_at_checked(56).ok_or_else(wrong)?;
        let mut numbers = numbers.chunks_exact(8).map(|chunk| <[u8; 8]>::try_from(chunk).map_or(0, u64::from_be_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        let (snapshot, file, group, first) = (next(), next(), next(), next());
        let (size, modified, known) = (next(), next().cast_signed(), next());
        let index = |number: u64| usize::try_from(number).map_err(|_| wrong());
        let relative = std::str::from_utf8(relative).map_err(|_| wrong())?;
        let modified = (known == 1).then_some(modified);
        Ok((Self { snapshot, file: index(file)?, group: index(group)?, first, size, modified }, relative))
    }
}
