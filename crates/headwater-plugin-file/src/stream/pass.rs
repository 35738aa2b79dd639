//! One pass over one file: from where the last pass ended to what is there now.

use std::path::PathBuf;

use headwater_core::SplitId;
use headwater_core::stream::StreamBatch;
use tokio::sync::mpsc;

use super::tree::Stamp;

/// What a pass is to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) split: SplitId,
    pub(super) path: PathBuf,
    /// Where the last pass ended: a byte offset, or a number of rows.
    pub(super) from: u64,
    /// The file that the last pass read, to notice that another one has taken its name.
    pub(super) inode: Option<(u64, u64)>,
    /// More may be added to the file while this reader runs.
    pub(super) follow: bool,
    pub(super) limits: Limits,
    pub(super) batches: mpsc::Sender<StreamBatch>,
}

/// How large batches get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most records in a batch.
    pub(super) records: usize,
    /// The bytes at which a batch is full; one record may exceed them alone.
    pub(super) bytes: usize,
    /// The most bytes of a line that are delivered. Longer ones are cut, so that memory and 32-bit offsets hold; what is
    /// left is no JSON value any more, and so a record that cannot be decoded.
    pub(super) line: usize,
}

/// [`Limits::line`], unless a test says otherwise.
pub(super) const LONGEST_LINE: usize = 1 << 30;

/// How many batches wait between the thread that reads and the caller.
pub(super) const READ_AHEAD: usize = 2;

impl Limits {
    /// Limits under which a batch being filled, [`READ_AHEAD`] waiting ones and the read buffer fit into `buffer_bytes`.
    pub(super) fn new(batch_records: usize, buffer_bytes: usize) -> Self {
        // Offsets are 32 bits wide, and one more record than the limit may come.
        const MOST: usize = 256 << 20;
        let bytes = (buffer_bytes / (READ_AHEAD + 2)).clamp(1, MOST);
        Self { records: batch_records.max(1), bytes, line: LONGEST_LINE }
    }
}

/// How a pass ended. Its batches have all been handed over before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Read to the end that the file had when it was opened.
    Read(Stamp),
    /// The file is still being written, and of no use until it changes.
    Unfinished(Stamp),
    /// The file is no longer there.
    Gone,
    /// Nobody waits for the batches any more.
    Dropped,
}
