//! Batches in a temporary file.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use headwater_core::{Error, Result};

use crate::history::spill::failed;

/// A temporary file that grows by batches, each of them readable on its own.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: Option<PathBuf>,
    /// Unlinked as soon as it is made: it vanishes with its last handle, also when the process is killed.
    file: Option<File>,
    end: u64,
}

/// Where a batch stands in a [`Scratch`] file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    at: u64,
    bytes: usize,
    /// Its rows.
    pub(super) rows: usize,
}

impl Scratch {
    /// A file to be, in `folder`; it is made when something is written.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, file: None, end: 0 }
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<Place> {
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(batch)?;
        let bytes = writer.into_inner()?;
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let made = match &self.folder {
                    Some(folder) => tempfile::tempfile_in(folder),
                    None => tempfile::tempfile(),
                };
                none.insert(made.map_err(|error| failed("made", error))?)
            }
        };
        file.seek(SeekFrom::Start(self.end))
            .and_then(|_| file.write_all(&bytes))
            .map_err(|error| failed("written", error))?;
        let place = Place { at: self.end, bytes: bytes.len(), rows: batch.num_rows() };
        self.end += bytes.len() as u64;
        Ok(place)
    }

    pub(super) fn read(&mut self, place: &Place) -> Result<RecordBatch> {
        let nothing = || Error::unexpected("a temporary file of a join holds less than was written");
        let file = self.file.as_mut().ok_or_else(nothing)?;
        let mut bytes = vec![0; place.bytes];
        file.seek(SeekFrom::Start(place.at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| failed("read", error))?;
        let batch = StreamReader::try_new(Cursor::new(bytes), None)?.next().ok_or_else(nothing)??;
        Ok(batch)
    }
}
