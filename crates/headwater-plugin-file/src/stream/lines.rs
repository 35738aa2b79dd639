//! NDJSON: lines and their positions.
//!
//! The position of a line is the byte offset behind the newline that ends it, or that would: a last line without one
//! has the position it will have once one is added. A carriage return before the newline is no part of the line, and
//! is not counted, so that adding `\r\n` changes no position either.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use arrow::array::BinaryArray;
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use headwater_core::stream::{Lag, Payload, StreamBatch};
use headwater_core::{Error, ErrorKind, Result};
use serde::de::IgnoredAny;

use super::pass::{Limits, Outcome, Task};
use super::tree::{Stamp, position};
use crate::error;

/// How much is read from the file at once.
const READ_BYTES: usize = 1 << 20;

/// Delivers the lines behind `task.from`, up to the length that the file has when it is opened.
///
/// # Errors
/// `PositionLost` where the file no longer has the line that ended there.
pub(super) fn read(task: &Task) -> Result<Outcome> {
    let fault = |e: io::Error| error::io(e, task.path.display());
    let mut file = match File::open(&task.path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Gone),
        Err(e) => return Err(fault(e)),
    };
    let stamp = Stamp::of(&file.metadata().map_err(fault)?);
    check(task, &mut file, &stamp)?;
    let from = task.from.min(stamp.length);
    file.seek(SeekFrom::Start(from)).map_err(fault)?;
    let capacity = READ_BYTES.min(task.limits.bytes.max(4096));
    let mut lines = Lines {
        reader: BufReader::with_capacity(capacity, file.take(stamp.length - from)),
        offset: from,
        through: task.from,
        overlong: Vec::new(),
        batch: Batch::new(task.limits),
    };
    let mut reported = task.from;
    let mut behind = false;
    loop {
        let more = lines.next(task.follow).map_err(fault)?;
        if !more || lines.batch.is_full() {
            // What stays unread at the end is no complete line: nothing that could be delivered is behind.
            let lag = if more { stamp.length.saturating_sub(lines.offset) } else { 0 };
            if !lines.batch.offsets.is_empty() || lines.through > reported || behind {
                let batch = lines.batch.take(task, lines.through, lag);
                if task.batches.blocking_send(batch).is_err() {
                    return Ok(Outcome::Dropped);
                }
                reported = lines.through;
                behind = lag > 0;
            }
        }
        if !more {
            return Ok(Outcome::Read(stamp));
        }
    }
}

/// Makes sure that a line of the file ends at `task.from`.
fn check(task: &Task, file: &mut File, stamp: &Stamp) -> Result<()> {
    let lost = |why: &str| {
        let message = format!("`{}` {why}", task.path.display());
        Err(Error::new(ErrorKind::PositionLost, message)
            .with_plugin("file")
            .with_context("split", &task.split)
            .with_context("read up to byte", task.from))
    };
    if task.inode.is_some_and(|inode| stamp.inode.is_some_and(|now| now != inode)) {
        return lost("has been replaced by another file");
    }
    // One more than the length: the last line had no newline, and still has none.
    if task.from > stamp.length.saturating_add(1) || (task.from == 1 && stamp.length == 0) {
        return lost("is shorter than what was read of it");
    }
    if task.from == 0 || task.from > stamp.length {
        return Ok(());
    }
    let mut around = Vec::with_capacity(2);
    file.seek(SeekFrom::Start(task.from - 1))
        .and_then(|_| Read::by_ref(file).take(2).read_to_end(&mut around))
        .map_err(|e| error::io(e, task.path.display()))?;
    match around.as_slice() {
        [b'\n', ..] | [b'\r'] | [b'\r', b'\n'] => Ok(()),
        _ => lost("has no line that ends where reading stopped: it was rewritten, or its last line was continued"),
    }
}

struct Lines {
    reader: BufReader<Take<File>>,
    /// How far the file has been consumed.
    offset: u64,
    /// Everything up to here is in a batch, or blank.
    through: u64,
    /// Takes what is cut off a line that is too long.
    overlong: Vec<u8>,
    batch: Batch,
}

impl Lines {
    /// Adds the next line to the batch, if it is not blank. False where no complete line is left.
    fn next(&mut self, follow: bool) -> io::Result<bool> {
        let start = self.offset;
        let begin = self.batch.values.len();
        let mut cut = false;
        let complete = loop {
            let mut available = self.reader.fill_buf()?;
            if available.is_empty() {
                break false;
            }
            cut = self.batch.values.len() - begin >= self.batch.limits.line;
            let target = if cut { &mut self.overlong } else { &mut self.batch.values };
            let used = available.read_until(b'\n', target)?;
            let complete = target.last() == Some(&b'\n');
            self.overlong.clear();
            self.reader.consume(used);
            self.offset += used as u64;
            if complete {
                break true;
            }
        };
        let line = self.batch.values.get(begin..).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let length = line.len();
        let deliver = if line.iter().all(u8::is_ascii_whitespace) {
            false
        } else {
            complete || (!follow && ends_by_itself(line))
        };
        if deliver {
            self.batch.values.truncate(begin + length);
            let end = if cut { self.offset } else { start + length as u64 + 1 };
            self.batch.push(end);
            self.through = end.max(self.offset);
        } else {
            if !complete && !line.is_empty() && !follow {
                tracing::warn!(offset = start, bytes = length, "an unfinished last line is left for a later run");
            }
            self.batch.values.truncate(begin);
            if complete {
                self.through = self.offset;
            }
        }
        Ok(complete)
    }
}

/// Whether no byte that could follow would change the value: a JSON object, array or string that is closed. Only then is
/// a line without a newline known to be whole.
fn ends_by_itself(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// The records that wait to be handed over.
struct Batch {
    limits: Limits,
    values: Vec<u8>,
    /// Where each value ends.
    offsets: Vec<i32>,
    positions: Vec<u8>,
}

impl Batch {
    fn new(limits: Limits) -> Self {
        Self { limits, values: Vec::new(), offsets: Vec::new(), positions: Vec::new() }
    }

    fn push(&mut self, end: u64) {
        // `is_full` keeps the values below 2 GiB: a limit of 256 MiB and one line of 1 GiB.
        self.offsets.push(i32::try_from(self.values.len()).unwrap_or(i32::MAX));
        self.positions.extend_from_slice(&end.to_be_bytes());
    }

    fn is_full(&self) -> bool {
        // 16 bytes for a value's offset, its position and the position's offset.
        self.offsets.len() >= self.limits.records || self.values.len() + 16 * self.offsets.len() >= self.limits.bytes
    }

    fn take(&mut self, task: &Task, through: u64, lag: u64) -> StreamBatch {
        // The next batch is likely to be as large.
        let (size, count) = (self.values.len().min(self.limits.bytes), self.offsets.len());
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(size));
        let ends = std::mem::replace(&mut self.offsets, Vec::with_capacity(count));
        let positions = std::mem::replace(&mut self.positions, Vec::with_capacity(8 * count));
        let mut offsets = Vec::with_capacity(ends.len() + 1);
        offsets.push(0);
        offsets.extend_from_slice(&ends);
        let values = BinaryArray::new(OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(values), None);
        StreamBatch {
            split: task.split.clone(),
            payload: Payload::Encoded(values),
            positions: fixed_positions(positions),
            metadata: None,
            through: position(through),
            lag: Some(Lag { bytes: Some(lag), ..Lag::default() }),
            lost: false,
        }
    }
}

/// Positions of eight bytes each.
pub(super) fn fixed_positions(bytes: Vec<u8>) -> BinaryArray {
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(8, bytes.len() / 8));
    BinaryArray::new(offsets, Buffer::from_vec(bytes), None)
}

/// The position that a reader would come to if it read the file now.
pub(super) fn end(path: &Path, follow: bool) -> Result<u64> {
    let fault = |e: io::Error| error::io(e, path.display());
    let mut file = File::open(path).map_err(fault)?;
    let length = file.metadata().map_err(fault)?.len();
    let newline = last_newline(&mut file, length).map_err(fault)?;
    if follow || newline == length || length - newline > super::pass::LONGEST_LINE as u64 {
        return Ok(newline);
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(newline))
        .and_then(|_| Read::by_ref(&mut file).take(length - newline).read_to_end(&mut tail))
        .map_err(fault)?;
    let line = tail.strip_suffix(b"\r").unwrap_or(&tail);
    Ok(if ends_by_itself(line) { length.max(newline + line.len() as u64 + 1) } else { newline })
}

/// The offset behind the last newline before `end`; zero where there is none.
fn last_newline(file: &mut File, mut end: u64) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        chunk.clear();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
