//! Streams for the suite.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::StreamSource;
use headwater_core::{Error, Result, SplitId};
use headwater_plugin_file::PLUGIN;
use headwater_testkit::Installed;
use headwater_testkit::stream::{Record, StreamFixture};
use parquet::arrow::ArrowWriter;
use serde_json::json;
use tempfile::TempDir;

/// A way to keep a stream in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// One NDJSON file.
    File,
    /// A directory of NDJSON files.
    Directory,
    /// A directory of Parquet files.
    Parquet,
}

impl Stream {
    /// Tells the fixtures apart in the names of the clauses.
    pub(crate) fn label(self, follow: bool) -> String {
        format!("{self:?}{}", if follow { " (follow)" } else { "" })
    }
}

/// The fixture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files {
    pub(crate) files: Stream,
    pub(crate) follow: bool,
}

/// A folder and how many splits there are in it.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    splits: Mutex<usize>,
}

fn fault(error: std::io::Error) -> Error {
    Error::unexpected("cannot write").with_source(error)
}

impl Files {
    fn name(self, index: usize) -> String {
        match self.files {
            Stream::File => "events.ndjson".into(),
            Stream::Directory => format!("{index:02}.ndjson"),
            Stream::Parquet => format!("{index:02}.parquet"),
        }
    }

    fn path(self, stream: &Folder, index: usize) -> PathBuf {
        stream.folder.path().join("data").join(self.name(index))
    }

    fn append(self, stream: &Folder, index: usize, records: &[Record]) -> Result<()> {
        let path = self.path(stream, index);
        if self.files == Stream::Parquet {
            if path.exists() {
                return Err(Error::unsupported("a Parquet file is complete when it appears"));
            }
            let rows = Record::rows(records)?;
            let hidden = path.with_extension("parquet.tmp");
            let file = fs::File::create(&hidden).map_err(fault)?;
            ArrowWriter::try_new(file, rows.schema(), None)
                .and_then(|mut writer| writer.write(&rows).and_then(|()| writer.close()))
                .map_err(|e| Error::unexpected("cannot write").with_source(e))?;
            return fs::rename(hidden, path).map_err(fault);
        }
        let lines: String = records.iter().map(|record| record.json() + "\n").collect();
        let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(fault)?;
        file.write_all(lines.as_bytes()).map_err(fault)
    }
}

#[async_trait]
impl StreamFixture for Files {
    type Stream = Folder;

    async fn create(&self, splits: usize) -> Result<Folder> {
        if self.files == Stream::File && splits != 1 {
            return Err(Error::unsupported("one file is one split"));
        }
        let folder = tempfile::tempdir().map_err(fault)?;
        fs::create_dir(folder.path().join("data")).map_err(fault)?;
        let stream = Folder { folder, splits: Mutex::new(splits) };
        if self.files != Stream::Parquet {
            for index in 0..splits {
                self.append(&stream, index, &[])?;
            }
        }
        Ok(stream)
    }

    async fn open(&self, stream: &Folder, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        let options: fn(&Path) -> serde_json::Value = match self.files {
            Stream::File => |folder| json!({ "path": folder.join("data/events.ndjson"), "poll_interval": "2ms" }),
            Stream::Directory => |folder| json!({ "path": folder.join("data"), "poll_interval": "2ms" }),
            Stream::Parquet => {
                |folder| json!({ "path": folder.join("data"), "poll_interval": "2ms", "format": "parquet" })
            }
        };
        let mut config = Installed::new(&PLUGIN, options).config(stream.folder.path());
        config.options.insert("follow".into(), self.follow.into());
        let role = PLUGIN.stream.ok_or_else(|| Error::unsupported("no stream source"))?;
        (role.open)(&config, context)
    }

    // `handed_out`: nobody tells how much of a file was read. That no more is read ahead than the buffer holds is shown
    // in `src/stream/tests/follow.rs`.

    fn split(&self, _: &Folder, index: usize) -> SplitId {
        SplitId::from(self.name(index).as_str())
    }

    async fn produce(&self, stream: &Folder, split: usize, records: &[Record]) -> Result<()> {
        self.append(stream, split, records)
    }

    async fn add_split(&self, stream: &Folder) -> Result<usize> {
        if self.files == Stream::File {
            return Err(Error::unsupported("one file is one split"));
        }
        let index = {
            let mut splits = stream.splits.lock().map_err(|_| Error::unexpected("poisoned"))?;
            *splits += 1;
            *splits - 1
        };
        if self.files == Stream::Directory {
            self.append(stream, index, &[])?;
        }
        Ok(index)
    }

    async fn end_split(&self, stream: &Folder, split: usize) -> Result<Vec<usize>> {
        if self.files != Stream::Parquet {
            return Err(Error::unsupported("lines may be added to a file at any time"));
        }
        // A file with rows ends by itself.
        if !self.path(stream, split).exists() {
            self.append(stream, split, &[])?;
        }
        Ok(Vec::new())
    }
}
