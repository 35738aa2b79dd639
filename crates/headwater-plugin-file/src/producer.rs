//! Appends records to the stream's file.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::ProducerRecord;
use headwater_core::{Error, Result, StreamProducer};

use crate::config::{BatchFormat, FileStreamConfig, StreamFormat};
use crate::error;

/// The file that is written to where the stream is a directory.
const FILE_NAME: &str = "events.ndjson";

/// Appends NDJSON lines to the file of a stream, or to `events.ndjson` in its directory.
#[derive(Debug)]
pub struct FileProducer {
    path: PathBuf,
    /// One batch of this producer at a time, so that their lines do not mix.
    turn: Arc<Mutex<()>>,
}

impl FileProducer {
    /// Checks the options. Nothing is created before the first record.
    ///
    /// # Errors
    /// `Invalid` for an empty path, `Unsupported` for a URL and for a stream of Parquet files, to which nothing can be
    /// appended.
    pub fn open(options: &FileStreamConfig, config: &Config, context: &OpenContext) -> Result<Self> {
        let path = options.local_path(config)?;
        if options.stream_format(config, context)? == StreamFormat::Parquet {
            return Err(Error::unsupported(format!(
                "{}: records can be appended to NDJSON files, and `{}` is a stream of Parquet files",
                config.name, options.path
            )));
        }
        Ok(Self { path, turn: Arc::default() })
    }
}

#[async_trait]
impl StreamProducer for FileProducer {
    async fn send(&self, records: Vec<ProducerRecord>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(records.iter().map(|record| record.value.len() + 1).sum());
        for record in &records {
            if record.value.trim_ascii().is_empty() || record.value.contains(&b'\n') {
                let shown = String::from_utf8_lossy(record.value.get(..40).unwrap_or(&record.value)).into_owned();
                return Err(Error::invalid(format!("`{shown}` is not one line of text")).with_plugin("file"));
            }
            lines.extend_from_slice(&record.value);
            lines.push(b'\n');
        }
        let path = self.path.clone();
        let turn = Arc::clone(&self.turn);
        tokio::task::spawn_blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, lines).map_err(|e| error::io(e, path.display()))
        })
        .await
        .map_err(error::join)?
    }
}

/// Appends whole lines in one write, and returns when they are on disk.
fn append(stream: &Path, mut lines: Vec<u8>) -> io::Result<()> {
    let name = stream.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_file = BatchFormat::of_name(&name).is_some() || Path::new(&name).extension().is_some();
    let path =
        if stream.is_dir() || !(is_file || stream.is_file()) { stream.join(FILE_NAME) } else { stream.to_path_buf() };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let created = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
    if unfinished(&mut file)? {
        // What another writer left behind must not become a part of our first line.
        lines.insert(0, b'\n');
    }
    file.write_all(&lines)?;
    file.sync_data()?;
    if created {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Whether the file ends in the midst of a line.
fn unfinished(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0_u8];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Makes a new file's name durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
