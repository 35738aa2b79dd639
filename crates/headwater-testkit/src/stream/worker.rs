//! A stream under test, and a reader that does its duty as the engine does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use headwater_core::stream::{
    AssignedSplit, Checkpoints, Lag, Progress, ReaderContext, StartPosition, StreamEvent, StreamReader, StreamSource,
};
use headwater_core::time::SystemClock;
use headwater_core::{Position, Result, SplitId};

use super::{Record, StreamFixture, stream_context};
use crate::clause::{applicable, ensure};
use crate::rows::bytes_of;
use crate::{Stop, Verdict};

/// How long an event that must come may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long is watched for an event that must not come.
const QUIET: Duration = Duration::from_millis(150);

/// A stream with a source opened on it, and what was produced.
pub(super) struct Harness<F: StreamFixture> {
    pub(super) fixture: Arc<F>,
    pub(super) stream: F::Stream,
    pub(super) source: Arc<dyn StreamSource>,
    /// For each split how many records it got.
    produced: BTreeMap<usize, i64>,
}

impl<F: StreamFixture> Harness<F> {
    /// A fresh stream with this many splits, each with records numbered from 1.
    pub(super) async fn with(fixture: Arc<F>, splits: &[i64]) -> Verdict<Self> {
        let stream = applicable(fixture.create(splits.len()).await)?;
        let source = fixture.open(&stream, &stream_context(Arc::new(SystemClock))).await?;
        let mut harness = Self { fixture, stream, source, produced: (0..splits.len()).map(|s| (s, 0)).collect() };
        for (split, records) in splits.iter().enumerate() {
            if *records > 0 {
                harness.produce(split, *records).await?;
            }
        }
        Ok(harness)
    }

    /// Appends the next records of a split.
    pub(super) async fn produce(&mut self, split: usize, records: i64) -> Verdict {
        self.produce_padded(split, records, 0).await
    }

    /// As [`Harness::produce`], each record with this many bytes of padding.
    pub(super) async fn produce_padded(&mut self, split: usize, records: i64, padding: usize) -> Verdict {
        let last = self.produced.get(&split).copied().unwrap_or_default();
        let records = (last + 1..=last + records).map(|n| Record { padding, ..Record::new(n) }).collect::<Vec<_>>();
        applicable(self.fixture.produce(&self.stream, split, &records).await)?;
        self.produced.insert(split, last + i64::try_from(records.len())?);
        Ok(())
    }

    /// Adds a split.
    pub(super) async fn add_split(&mut self) -> Verdict<usize> {
        let split = applicable(self.fixture.add_split(&self.stream).await)?;
        self.produced.insert(split, 0);
        Ok(split)
    }

    /// Ends a split and gives its children.
    pub(super) async fn end_split(&mut self, split: usize) -> Verdict<Vec<usize>> {
        let children = applicable(self.fixture.end_split(&self.stream, split).await)?;
        self.produced.extend(children.iter().map(|child| (*child, 0)));
        Ok(children)
    }

    pub(super) fn split(&self, index: usize) -> SplitId {
        self.fixture.split(&self.stream, index)
    }

    /// The numbers of all records of each split that got any.
    pub(super) fn everything(&self) -> BTreeMap<SplitId, Vec<i64>> {
        let filled = self.produced.iter().filter(|(_, last)| **last > 0);
        filled.map(|(split, last)| (self.split(*split), (1..=*last).collect())).collect()
    }

    /// A reader of the group.
    pub(super) async fn worker(&self, setup: &Setup) -> Verdict<Worker<F>> {
        let reader = applicable(self.source.subscribe(setup.context()).await)?;
        Ok(Worker {
            fixture: Arc::clone(&self.fixture),
            bounded: self.source.capabilities().bounded,
            reader: Some(reader),
            ledger: Arc::clone(&setup.ledger),
            log: Vec::new(),
            dutiful: true,
        })
    }

    /// Skips the clause for a bounded stream.
    pub(super) fn unbounded(&self) -> Verdict {
        if self.source.capabilities().bounded {
            return Err(Stop::Skipped("the stream is bounded".into()));
        }
        Ok(())
    }
}

/// What a group of readers is given.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) group: String,
    pub(super) start: StartPosition,
    pub(super) ledger: Arc<Ledger>,
    pub(super) buffer_bytes: usize,
    pub(super) batch_records: usize,
}

impl Setup {
    /// A new group that begins at the earliest record.
    pub(super) fn new(group: &str) -> Self {
        Self {
            group: format!("testkit.{group}"),
            start: StartPosition::Earliest,
            ledger: Arc::default(),
            buffer_bytes: 1 << 20,
            batch_records: 7,
        }
    }

    pub(super) fn context(&self) -> ReaderContext {
        ReaderContext {
            group: self.group.clone(),
            start: self.start,
            checkpoints: Arc::clone(&self.ledger) as Arc<dyn Checkpoints>,
            buffer_bytes: self.buffer_bytes,
            batch_records: self.batch_records,
            refresh: Duration::from_millis(20),
            clock: Arc::new(SystemClock),
        }
    }
}

/// The engine's checkpoints.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    splits: Mutex<BTreeMap<SplitId, Progress>>,
    notes: Mutex<BTreeMap<String, Bytes>>,
}

impl Ledger {
    pub(super) fn set(&self, split: &SplitId, progress: Progress) {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).insert(split.clone(), progress);
    }

    pub(super) fn get(&self, split: &SplitId) -> Option<Progress> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).get(split).cloned()
    }
}

#[async_trait]
impl Checkpoints for Ledger {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        Ok(self.get(split))
    }

    async fn started(&self) -> Result<bool> {
        Ok(!self.splits.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    async fn noted(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(notes.iter().cloned());
        Ok(())
    }
}

/// What a reader has reported, record by record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    Assigned { split: SplitId, resume: Position },
    Record { split: SplitId, position: Position, number: i64 },
    Batch { split: SplitId, records: usize, through: Position, lag: Option<Lag> },
    Revoked { split: SplitId },
    Ended { split: SplitId },
    Finished,
}

/// A reader with its log. It checkpoints and commits whatever it gets, at once, unless it is told not to.
pub(super) struct Worker<F: StreamFixture> {
    fixture: Arc<F>,
    bounded: bool,
    reader: Option<Box<dyn StreamReader>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) log: Vec<Entry>,
    /// Checkpoints and commits what it gets.
    pub(super) dutiful: bool,
}

impl<F: StreamFixture> Worker<F> {
    fn reader(&mut self) -> Verdict<&mut Box<dyn StreamReader>> {
        self.reader.as_mut().ok_or_else(|| Stop::Failed("the reader is closed".into()))
    }

    /// The next event, which must come. Gives how many entries the log grew by, none when the stream is finished.
    pub(super) async fn next(&mut self) -> Verdict<bool> {
        self.within(PATIENCE).await?.ok_or_else(|| Stop::Failed(format!("no event within {PATIENCE:?}")))
    }

    /// The next event if one comes while it is quiet: whether there was one, `Some(false)` when the stream is finished.
    pub(super) async fn glance(&mut self) -> Verdict<Option<bool>> {
        self.within(QUIET).await
    }

    async fn within(&mut self, limit: Duration) -> Verdict<Option<bool>> {
        let until = tokio::time::Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(until, self.reader()?.next()).await {
                Err(_) => return Ok(None),
                Ok(Ok(event)) => return self.note(event).await.map(Some),
                Ok(Err(error)) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Polls `next` up to `polls` times and drops it. `None` when it gave nothing.
    pub(super) async fn poll(&mut self, polls: usize) -> Verdict<Option<bool>> {
        let mut event = None;
        {
            let mut next = self.reader()?.next();
            for poll in 0..polls {
                event = (&mut next).now_or_never();
                if event.is_some() {
                    break;
                }
                // Lets what was begun in the background go on between two polls.
                if poll % 2 == 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await
                } else {
                    tokio::task::yield_now().await
                }
            }
        }
        match event {
            None => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(None)
            }
            Some(Err(error)) if error.is_retryable() => Ok(None),
            Some(event) => self.note(event?).await.map(Some),
        }
    }

    /// Enters an event in the log, and does with it what the engine would.
    async fn note(&mut self, event: Option<StreamEvent>) -> Verdict<bool> {
        let mut commits = Vec::new();
        match event {
            None => {
                self.log.push(Entry::Finished);
                return Ok(false);
            }
            Some(StreamEvent::Assigned(splits)) => {
                for AssignedSplit { split, resume } in splits {
                    commits.push((split.clone(), Progress::Through(resume.clone())));
                    self.log.push(Entry::Assigned { split, resume });
                }
            }
            Some(StreamEvent::Batch(batch)) => {
                let numbers = self.fixture.numbers(&batch)?;
                let positions = bytes_of(&batch.positions);
                ensure!(
                    numbers.len() == positions.len() && numbers.len() == batch.payload.len(),
                    "a batch has {} records and {} positions",
                    numbers.len(),
                    positions.len()
                );
                let split = batch.split;
                for (position, number) in positions.into_iter().zip(numbers) {
                    self.log.push(Entry::Record { split: split.clone(), position, number });
                }
                commits.push((split.clone(), Progress::Through(batch.through.clone())));
                let records = batch.payload.len();
                self.log.push(Entry::Batch { split, records, through: batch.through, lag: batch.lag });
            }
            Some(StreamEvent::Revoked { splits, .. }) => {
                self.log.extend(splits.into_iter().map(|split| Entry::Revoked { split }));
            }
            Some(StreamEvent::SplitEnded(split)) => {
                commits.push((split.clone(), Progress::End));
                self.log.push(Entry::Ended { split });
            }
        }
        if self.dutiful {
            self.settle(&commits).await?;
        }
        Ok(true)
    }

    /// Checkpoints and commits.
    pub(super) async fn settle(&mut self, commits: &[(SplitId, Progress)]) -> Verdict {
        for (split, progress) in commits {
            self.ledger.set(split, progress.clone());
        }
        Ok(self.reader()?.commit(commits).await?)
    }

    /// Reads until the last of these records has come, of every split; to the end of a bounded stream.
    pub(super) async fn read(&mut self, everything: &BTreeMap<SplitId, Vec<i64>>) -> Verdict {
        let mut finished = 0;
        while !self.has_read(everything) {
            if !self.next().await? {
                finished += 1;
            }
            ensure!(finished < 100, "the stream says that it is finished, and is not");
        }
        Ok(())
    }

    /// Whether [`Worker::read`] would be done.
    pub(super) fn has_read(&self, everything: &BTreeMap<SplitId, Vec<i64>>) -> bool {
        if self.bounded {
            return self.log.last() == Some(&Entry::Finished);
        }
        everything.iter().all(|(split, numbers)| {
            let last = numbers.last().copied().unwrap_or_default();
            self.log
                .iter()
                .any(|entry| matches!(entry, Entry::Record { split: s, number, .. } if s == split && *number >= last))
        })
    }

    /// The numbers that came of each split, in the order in which they came.
    pub(super) fn numbers(&self) -> BTreeMap<SplitId, Vec<i64>> {
        let mut numbers: BTreeMap<SplitId, Vec<i64>> = BTreeMap::new();
        for entry in &self.log {
            if let Entry::Record { split, number, .. } = entry {
                numbers.entry(split.clone()).or_default().push(*number);
            }
        }
        numbers
    }

    /// The same as sets: without order and repetition.
    pub(super) fn sets(&self) -> BTreeMap<SplitId, Vec<i64>> {
        let sorted = |numbers: Vec<i64>| numbers.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        self.numbers().into_iter().map(|(split, numbers)| (split, sorted(numbers))).collect()
    }

    /// The position of each record of a split.
    pub(super) fn positions(&self, of: &SplitId) -> BTreeMap<i64, Position> {
        let mut positions = BTreeMap::new();
        for entry in &self.log {
            if let Entry::Record { split, position, number } = entry
                && split == of
            {
                positions.insert(*number, position.clone());
            }
        }
        positions
    }

    /// Whether the split was assigned.
    pub(super) fn has(&self, of: &SplitId) -> bool {
        self.log.iter().any(|entry| matches!(entry, Entry::Assigned { split, .. } if split == of))
    }

    /// Whether the split's end was reported.
    pub(super) fn has_ended(&self, of: &SplitId) -> bool {
        self.log.iter().any(|entry| matches!(entry, Entry::Ended { split } if split == of))
    }

    /// Leaves the group in good order.
    pub(super) async fn close(mut self) -> Verdict<Vec<Entry>> {
        if let Some(reader) = self.reader.take() {
            reader.close().await?;
        }
        Ok(std::mem::take(&mut self.log))
    }
}
