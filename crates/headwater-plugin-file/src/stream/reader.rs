//! The reader: lists files, asks for checkpoints, and runs one pass after another on a blocking thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use headwater_core::stream::{AssignedSplit, Progress, ReaderContext, StartPosition, StreamBatch, StreamEvent};
use headwater_core::{Error, Position, Result, SplitId, StreamReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pass::{Limits, Outcome, READ_AHEAD, Task};
use super::tree::{Found, Stamp, Tree};
use super::{lines, rows};
use crate::config::StreamFormat;
use crate::error;

/// A file that was listed, with what is needed to begin it.
#[derive(Debug)]
struct Listed {
    file: Found,
    /// Its end, where the start position asks for it.
    end: Option<Position>,
}

/// The files there are.
#[derive(Debug)]
struct Listing {
    files: VecDeque<Listed>,
    /// How long it took to list them.
    took: Duration,
}

/// What the reader knows of a split.
#[derive(Debug)]
struct Split {
    file: Found,
    /// Everything up to here has been handed out.
    read: u64,
    /// What the file looked like when the last pass ended.
    seen: Option<Stamp>,
    /// Waits in the queue.
    queued: bool,
    /// Its end has been reported, or is checkpointed.
    ended: bool,
}

/// The pass that is under way.
#[derive(Debug)]
struct Pass {
    split: SplitId,
    batches: mpsc::Receiver<StreamBatch>,
    task: JoinHandle<Result<Outcome>>,
}

/// Reads all files of a stream. State changes only after an `await` has given its result, so a dropped `next` loses
/// nothing: what was under way is kept in the reader and goes on.
#[derive(Debug)]
pub(super) struct FileStreamReader {
    tree: Arc<Tree>,
    context: ReaderContext,
    limits: Limits,
    splits: BTreeMap<SplitId, Split>,
    /// Splits that have, or may have, something to read.
    queue: VecDeque<SplitId>,
    pass: Option<Pass>,
    listing: Option<JoinHandle<Result<Listing>>>,
    /// Files that were listed and whose checkpoints have not been asked for.
    listed: VecDeque<Listed>,
    assigned: Vec<AssignedSplit>,
    /// The first listing has been dealt with.
    assigned_first: bool,
    /// Whether the stream was read before this reader.
    started: Option<bool>,
    listed_at: Instant,
    listing_took: Duration,
    finished: bool,
}

impl FileStreamReader {
    pub(super) fn new(tree: Arc<Tree>, context: ReaderContext) -> Self {
        Self {
            tree,
            limits: Limits::new(context.batch_records, context.buffer_bytes),
            context,
            splits: BTreeMap::new(),
            queue: VecDeque::new(),
            pass: None,
            listing: None,
            listed: VecDeque::new(),
            assigned: Vec::new(),
            assigned_first: false,
            started: None,
            listed_at: Instant::now(),
            listing_took: Duration::ZERO,
            finished: false,
        }
    }

    async fn advance(&mut self) -> Result<Option<StreamEvent>> {
        loop {
            if self.finished {
                return Ok(None);
            }
            if let Some(event) = self.next_of_pass().await? {
                return Ok(Some(event));
            }
            if let Some(event) = self.look_for_files().await? {
                return Ok(Some(event));
            }
            if self.start_pass() {
                continue;
            }
            if !self.tree.follow {
                self.finished = true;
                return Ok(None);
            }
            tokio::time::sleep_until(self.next_listing()).await;
        }
    }

    /// Hands over what the pass under way has read; nothing where there is none (any more).
    async fn next_of_pass(&mut self) -> Result<Option<StreamEvent>> {
        let Some(pass) = &mut self.pass else { return Ok(None) };
        if let Some(batch) = pass.batches.recv().await {
            if let Some(split) = self.splits.get_mut(&batch.split) {
                split.read = batch.through.to_u64().unwrap_or(split.read);
            }
            return Ok(Some(StreamEvent::Batch(batch)));
        }
        let outcome = (&mut pass.task).await;
        let name = pass.split.clone();
        self.pass = None;
        let outcome = outcome.map_err(error::join)?;
        let Some(split) = self.splits.get_mut(&name) else { return Ok(None) };
        match outcome {
            Ok(Outcome::Read(stamp)) => {
                split.seen = Some(stamp);
                split.ended = split.file.closed;
                Ok(split.ended.then_some(StreamEvent::SplitEnded(name)))
            }
            Ok(Outcome::Unfinished(stamp)) => {
                split.seen = Some(stamp);
                Ok(None)
            }
            Ok(Outcome::Gone | Outcome::Dropped) => Ok(None),
            Err(error) => {
                if error.is_retryable() && !split.queued {
                    split.queued = true;
                    self.queue.push_front(name);
                }
                Err(error)
            }
        }
    }

    /// Lists the files when it is time, and assigns those that are new.
    async fn look_for_files(&mut self) -> Result<Option<StreamEvent>> {
        let due = !self.assigned_first || (self.tree.follow && Instant::now() >= self.next_listing());
        if self.listing.is_none() && self.listed.is_empty() && self.assigned.is_empty() && due {
            let tree = Arc::clone(&self.tree);
            let start = if self.assigned_first { StartPosition::Earliest } else { self.context.start };
            self.listing = Some(tokio::task::spawn_blocking(move || list(&tree, start)));
        }
        if let Some(listing) = &mut self.listing {
            let listed = listing.await;
            self.listing = None;
            let Listing { files, took } = listed.map_err(error::join)??;
            self.listed = files;
            self.listing_took = took;
            if self.listed.is_empty() {
                self.finish_listing();
            }
        }
        if self.listed.is_empty() {
            return Ok(None);
        }
        let started = match self.started {
            Some(started) => started,
            None => *self.started.insert(self.context.checkpoints.started().await?),
        };
        while let Some(listed) = self.listed.front() {
            let known = self.splits.contains_key(&listed.file.split);
            let resume = if known { None } else { self.context.checkpoints.resume(&listed.file.split).await? };
            if let Some(listed) = self.listed.pop_front() {
                if known { self.refresh(listed.file) } else { self.add(listed, resume, started)? }
            }
        }
        self.finish_listing();
        let assigned = std::mem::take(&mut self.assigned);
        Ok((!assigned.is_empty()).then_some(StreamEvent::Assigned(assigned)))
    }

    fn finish_listing(&mut self) {
        self.assigned_first = true;
        self.listed_at = Instant::now();
    }

    /// When to look for files again: while there is plenty to read, or so many files that looking takes long, less
    /// often.
    fn next_listing(&self) -> Instant {
        let refresh = self.context.refresh;
        let idle = self.tree.poll_interval.max(10 * self.listing_took).min(refresh);
        let pause = if self.queue.is_empty() { idle } else { refresh };
        self.listed_at + pause.max(Duration::from_millis(1))
    }

    /// Queues a known split whose file has changed.
    fn refresh(&mut self, file: Found) {
        let Some(split) = self.splits.get_mut(&file.split) else { return };
        let changed = split.seen != Some(file.stamp);
        if changed && !split.queued && !split.ended {
            split.queued = true;
            self.queue.push_back(file.split.clone());
        }
        split.file = file;
    }

    /// Takes a new split, unless its end is checkpointed.
    fn add(&mut self, listed: Listed, resume: Option<Progress>, started: bool) -> Result<()> {
        let Listed { file, end } = listed;
        let name = file.split.clone();
        let ended = resume == Some(Progress::End);
        let from = match resume {
            Some(Progress::Through(position)) => position,
            Some(Progress::End) => Position::START,
            // What appears later, or was added between two runs, begins at its beginning.
            None if started || self.assigned_first => Position::START,
            None => end.unwrap_or(Position::START),
        };
        let Some(read) = from.to_u64() else {
            let message = format!("`{from}` is no position in a file: it has eight bytes");
            return Err(Error::invalid(message).with_plugin("file").with_context("split", &name));
        };
        if !ended {
            self.assigned.push(AssignedSplit { split: name.clone(), resume: from });
            self.queue.push_back(name.clone());
        }
        self.splits.insert(name, Split { file, read, seen: None, queued: !ended, ended });
        Ok(())
    }

    /// Starts to read the next split of the queue. False where there is none.
    fn start_pass(&mut self) -> bool {
        let Some(name) = self.queue.pop_front() else { return false };
        let Some(split) = self.splits.get_mut(&name) else { return true };
        split.queued = false;
        let (sender, batches) = mpsc::channel(READ_AHEAD);
        let task = Task {
            split: name.clone(),
            path: split.file.path.clone(),
            from: split.read,
            inode: split.seen.and_then(|seen| seen.inode),
            follow: self.tree.follow,
            limits: self.limits,
            batches: sender,
        };
        let tree = Arc::clone(&self.tree);
        let task = tokio::task::spawn_blocking(move || match tree.format {
            StreamFormat::Ndjson => lines::read(&task),
            StreamFormat::Parquet => match tree.schema() {
                Ok(schema) => rows::read(&task, &schema),
                // The only file, and still being written.
                Err(e) if e.kind() == headwater_core::ErrorKind::NotFound => Ok(Outcome::Gone),
                Err(e) => Err(e),
            },
        });
        self.pass = Some(Pass { split: name, batches, task });
        true
    }
}

/// Lists the files; with their ends, or those of old files, where `start` asks for them.
fn list(tree: &Tree, start: StartPosition) -> Result<Listing> {
    let begun = Instant::now();
    let files = tree.list()?;
    let took = begun.elapsed();
    let files: Result<VecDeque<Listed>> = files
        .into_iter()
        .map(|file| {
            let behind = match start {
                StartPosition::Earliest => false,
                StartPosition::Latest => true,
                // A file that was last changed before holds nothing that was stored at that time or later.
                StartPosition::At(time) => file.stamp.modified.is_some_and(|modified| modified < time),
            };
            let end = if behind { tree.end(&file)? } else { None };
            Ok(Listed { file, end })
        })
        .collect();
    Ok(Listing { files: files?, took })
}

#[async_trait]
impl StreamReader for FileStreamReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        let event = self.advance().await;
        if event.as_ref().is_err_and(|error| !error.is_retryable()) {
            self.finished = true;
        }
        event
    }

    async fn commit(&mut self, _: &[(SplitId, Progress)]) -> Result<()> {
        // Files keep no record of their readers.
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        // The pass under way ends at its next batch, which nobody takes any more.
        Ok(())
    }
}
