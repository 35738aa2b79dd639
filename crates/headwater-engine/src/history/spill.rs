//! Sorted runs of rows in a temporary file, and their merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use headwater_core::{Error, ErrorKind, Micros, Result};

use super::memory::Budget;
use super::row::Row;

/// Where there are so many runs, the shorter half of them is merged into one, so that their buffers stay few.
const MOST_RUNS: usize = 64;
/// The most and the fewest rows that a run's buffer holds.
const BUFFER_ROWS: (usize, usize) = (32_768, 128);

/// Runs of rows on disk, each in order of visibility.
#[derive(Debug)]
pub(super) struct Runs {
    by_created: bool,
    folder: Option<PathBuf>,
    buffer_rows: usize,
    /// Unlinked as soon as it is made: it vanishes with its last handle, also when the process is killed.
    file: Option<File>,
    end: u64,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    /// The part of the file that is not in the buffer yet.
    unread: std::ops::Range<u64>,
    buffer: Vec<Row>,
    /// The next row in the buffer.
    at: usize,
}

impl Runs {
    /// No runs. Buffers take no more than an eighth of `budget`, shared among as many as there may be.
    pub(super) fn new(by_created: bool, budget: &Budget, folder: Option<PathBuf>) -> Self {
        let rows = budget.limit() / 8 / (MOST_RUNS * Row::SIZE) as u64;
        let buffer_rows = usize::try_from(rows).unwrap_or(usize::MAX).clamp(BUFFER_ROWS.1, BUFFER_ROWS.0);
        Self { by_created, folder, buffer_rows, file: None, end: 0, runs: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Writes `rows`, which are in order.
    pub(super) fn add(&mut self, rows: &[Row]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if self.runs.len() >= MOST_RUNS {
            self.merge_shorter_half()?;
        }
        let start = self.end;
        for piece in rows.chunks(BUFFER_ROWS.0) {
            self.append(piece)?;
        }
        self.runs.push(Run { unread: start..self.end, buffer: Vec::new(), at: 0 });
        Ok(())
    }

    /// Hands over the rows of all runs and `rows`, which are in order, as one ordered sequence: those visible before
    /// `end`, which all of `rows` are; all where there is none.
    pub(super) fn merge(&mut self, rows: &[Row], end: Option<Micros>, each: &mut impl FnMut(&Row)) -> Result<()> {
        let by_created = self.by_created;
        let mut rows = rows.iter().peekable();
        if let Some(file) = &mut self.file {
            merge(&mut self.runs, file, (by_created, self.buffer_rows), end, |_, row| {
                while let Some(earlier) = rows.next_if(|own| own.visible(by_created) < row.visible(by_created)) {
                    each(earlier);
                }
                each(row);
                Ok(())
            })?;
            if self.runs.is_empty() {
                // Nothing in the file is needed any more: its space goes back.
                file.set_len(0).map_err(|error| failed("emptied", error))?;
                self.end = 0;
            }
        }
        rows.for_each(each);
        Ok(())
    }

    /// Merging always the shorter runs writes a row once for each time that the data doubles, roughly.
    fn merge_shorter_half(&mut self) -> Result<()> {
        self.runs.sort_by_key(|run| std::cmp::Reverse(run.left()));
        let mut shorter = self.runs.split_off(self.runs.len() / 2);
        let Some(file) = &mut self.file else { return Ok(()) };
        let (start, mut end, most) = (self.end, self.end, self.buffer_rows);
        let mut rows: Vec<Row> = Vec::with_capacity(most);
        merge(&mut shorter, file, (self.by_created, most), None, |file, row| {
            rows.push(*row);
            if rows.len() >= most {
                end += write(file, end, &rows)?;
                rows.clear();
            }
            Ok(())
        })?;
        end += write(file, end, &rows)?;
        self.end = end;
        self.runs.push(Run { unread: start..end, buffer: Vec::new(), at: 0 });
        Ok(())
    }

    fn append(&mut self, rows: &[Row]) -> Result<()> {
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
        self.end += write(file, self.end, rows)?;
        Ok(())
    }
}

/// Hands over the rows of `runs` that are visible before `end` as one ordered sequence, and drops runs that are done.
fn merge(
    runs: &mut Vec<Run>,
    file: &mut File,
    (by_created, buffer_rows): (bool, usize),
    end: Option<Micros>,
    mut each: impl FnMut(&mut File, &Row) -> Result<()>,
) -> Result<()> {
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (number, run) in runs.iter_mut().enumerate() {
        if let Some(row) = run.peek(file, buffer_rows)? {
            heads.push(Reverse((row.visible(by_created), number)));
        }
    }
    while let Some(mut head) = heads.peek_mut() {
        let Reverse((visible, number)) = *head;
        if end.is_some_and(|end| visible >= end) {
            break;
        }
        let run = &mut runs[number];
        if let Some(row) = run.peek(file, buffer_rows)? {
            each(file, &row)?;
            run.at += 1;
        }
        match run.peek(file, buffer_rows)? {
            Some(row) => *head = Reverse((row.visible(by_created), number)),
            None => {
                PeekMut::pop(head);
            }
        }
    }
    drop(heads);
    runs.retain(|run| !run.is_done());
    Ok(())
}

/// Writes rows at an offset. Returns their bytes.
fn write(file: &mut File, at: u64, rows: &[Row]) -> Result<u64> {
    let mut bytes = Vec::with_capacity(rows.len() * Row::BYTES);
    rows.iter().for_each(|row| row.write(&mut bytes));
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&bytes)).map_err(|error| failed("written", error))?;
    Ok(bytes.len() as u64)
}

impl Run {
    /// How many bytes of it are left, about.
    fn left(&self) -> u64 {
        self.unread.end - self.unread.start + ((self.buffer.len() - self.at) * Row::BYTES) as u64
    }

    fn is_done(&self) -> bool {
        self.at >= self.buffer.len() && self.unread.is_empty()
    }

    /// The next row, read from the file where the buffer is at its end.
    fn peek(&mut self, file: &mut File, buffer_rows: usize) -> Result<Option<Row>> {
        if self.at >= self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            let left = self.unread.end - self.unread.start;
            let length = left.min((buffer_rows * Row::BYTES) as u64);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.seek(SeekFrom::Start(self.unread.start))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|error| failed("read", error))?;
            self.unread.start += length;
            self.buffer.extend(bytes.as_chunks::<{ Row::BYTES }>().0.iter().map(Row::read));
        }
        Ok(self.buffer.get(self.at).copied())
    }
}

pub(super) fn failed(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the temporary file of a join could not be {what}"))
        .permanent()
        .with_source(error)
}
