//! Ingestion: jobs that keep views fed from a stream.
//!
//! # Delivery
//!
//! A source delivers at least once, and every write is idempotent, so that each record counts once:
//!
//! - *newest values* are written by version, and the greater version stays;
//! - *the log* is append-only, its pieces chain by position: what stands there already is skipped, and of two writers
//!   one loses and drops what the other has written;
//! - *a checkpoint* for each view, generation and split lies beside the newest values, and is written after what it
//!   speaks of is durable: rows synced, dead letters published. Checkpoints and the logs' ends are the truth; a reader
//!   begins at the lowest of them, store and log each skip what they have. What is committed to the source only mirrors
//!   them.
//!
//! A micro-batch is written as soon as there are records, one after the other. The store is synced, and
//! checkpoints are written, at most once a second, beside what goes on: they speak of a cut, which was taken when a write
//! began that has landed since. Pieces of logs are published by size or after a minute. Between reader and
//! writer lies a queue bounded in bytes; where a store stalls, the reader is not called, and memory stays bounded.
//!
//! # Groups
//!
//! The views of a source are read by one reader. Views that do not serve yet (new ones, new generations) are read by one
//! of their own, so that those that serve stay fresh, and join it when they have caught up.

#[cfg(feature = "avro")]
mod avro;
mod cells;
mod checkpoint;
mod dead;
mod decode;
pub(crate) mod formats;
mod framing;
mod job;
mod json;
mod lane;
#[cfg(feature = "protobuf")]
mod protobuf;
mod publish;
mod replay;
mod retry;
mod sink;
mod status;
mod targets;
mod tombstones;
mod transform;
pub(crate) mod windows;
mod worker;
mod write;
mod writing;

#[cfg(test)]
mod tests;

use std::time::Duration;

use headwater_core::definitions::{Source, SourceKind};
use headwater_core::{Error, Micros, Result};

pub(crate) use checkpoint::{
    Checkpoint, Skipped, Why, forget_notes, load as load_checkpoints, load_notes, write_notes,
};
pub(crate) use dead::DEAD_LETTERS;
pub use dead::DeadLetter;
pub use job::{JobHandle, start};
pub use replay::{ListedDeadLetter, Replayed, dead_letters, replay_dead_letters};
pub use status::{Counts, JobState, JobStatus, LagStatus, SplitStatus, jobs};

/// How a job runs.
#[derive(Debug, Clone, Default)]
pub struct IngestOptions {
    /// Finish when all is read that there was at the start. Otherwise a job runs as long as its source does.
    pub until_caught_up: bool,
    /// Names the definitions that the job runs with, for its status.
    pub definitions: String,
    /// When these definitions were applied: of two generations of a view the later one serves.
    pub applied: Micros,
    /// Sizes and intervals.
    pub tuning: Tuning,
}

/// Sizes and intervals of a job. The defaults are meant to stay.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The most that waits between reader and writer, and that a reader holds ready, each.
    pub queue_bytes: usize,
    /// The most records in a batch of a reader.
    pub batch_records: usize,
    /// The most rows that a micro-batch is made of; one batch of the reader may exceed it alone.
    pub micro_batch_rows: usize,
    /// The most that rows of newest values take in memory while those before them are being written.
    pub packed_bytes: usize,
    /// A piece of a log is published when it has grown to this.
    pub log_piece_bytes: usize,
    /// The most that all logs of a job together keep in memory.
    pub log_buffer_bytes: usize,
    /// A piece of a log is published when its first row is this old.
    pub log_interval: Duration,
    /// Dead letters are published when the first is this old.
    pub dead_letter_interval: Duration,
    /// What the window rows of a job may take in memory.
    pub window_cache_bytes: usize,
    /// A worker that builds windows and was not heard of for this long is taken for dead.
    pub build_lease: Duration,
    /// How long a command that has built windows waits for jobs that get no further before it leaves the rest to them.
    pub take_over_patience: Duration,
    /// How often the online store is synced and checkpoints are written, at most.
    pub sync_interval: Duration,
    /// How long a stopping job may take to write what it has. What it does not manage is read again.
    pub stop_timeout: Duration,
    /// The first pause before a call is repeated.
    pub first_pause: Duration,
    /// The longest pause before a call is repeated.
    pub longest_pause: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            queue_bytes: 16 << 20,
            batch_records: 8_192,
            micro_batch_rows: 262_144,
            packed_bytes: 24 << 20,
            log_piece_bytes: 16 << 20,
            log_buffer_bytes: 48 << 20,
            log_interval: Duration::from_secs(60),
            dead_letter_interval: Duration::from_secs(5),
            window_cache_bytes: 160 << 20,
            build_lease: Duration::from_secs(10),
            take_over_patience: Duration::from_secs(60),
            sync_interval: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(25),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
        }
    }
}

impl Tuning {
    fn pauses(&self) -> retry::Pauses {
        retry::Pauses { first: self.first_pause, longest: self.longest_pause }
    }
}

/// A source's `watermark_delay_threshold`.
fn threshold(source: &Source) -> Option<Micros> {
    match &source.kind {
        SourceKind::Stream(settings) => settings.watermark_delay_threshold.map(|threshold| threshold.0),
        _ => None,
    }
}

/// What so few bytes need is done where they are, in tens of microseconds: to wake another thread costs more, and on a
/// busy machine it has to wait for its turn.
const SMALL: usize = 64 << 10;

/// Runs computation on so many bytes where it keeps nobody waiting.
async fn computed<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if bytes <= SMALL { work() } else { blocking(work).await }
}

/// Runs computation where it keeps nobody waiting.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::unexpected("a computation did not finish").with_source(error)),
    }
}
