//! The reference of [`StreamReader`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use async_trait::async_trait;

use super::state::{Record, State, Value, count, position_after};
use super::{Shared, count_of, lock, metadata_schema};
use crate::error::{Error, ErrorKind, Result};
use crate::position::{Position, SplitId};
use crate::stream::{AssignedSplit, Lag, Payload, Progress, ReaderContext, StreamBatch, StreamEvent, StreamReader};

/// How long a revoked split's commits are taken at least.
const HANDOVER: Duration = Duration::from_secs(30);

pub(super) struct MemoryReader {
    id: u64,
    shared: Arc<Shared>,
    bounded: bool,
    context: ReaderContext,
    owned: BTreeMap<SplitId, Cursor>,
    /// Reported as revoked; the next call of `next` lets go of them.
    revoked: Vec<SplitId>,
    /// Splits whose checkpoint was looked up for an `End`.
    known: BTreeSet<SplitId>,
    /// The split of the last batch: the others come first.
    last: Option<SplitId>,
    finished: bool,
}

struct Cursor {
    /// How many records of the split have been delivered or lie before its start.
    read: u64,
    /// `SplitEnded` was reported.
    ended: bool,
}

/// What a look at the stream came to.
enum Step {
    Event(Box<StreamEvent>),
    /// These splits are claimed; their starts are to be resolved.
    Claimed(Vec<SplitId>),
    Finished,
    Wait,
}

impl MemoryReader {
    pub(super) fn new(id: u64, shared: Arc<Shared>, bounded: bool, context: ReaderContext) -> Self {
        Self {
            id,
            shared,
            bounded,
            context,
            owned: BTreeMap::new(),
            revoked: Vec::new(),
            known: BTreeSet::new(),
            last: None,
            finished: false,
        }
    }

    /// Lets go of what was revoked: being called again is the acknowledgement.
    fn acknowledge(&mut self) {
        let revoked = std::mem::take(&mut self.revoked);
        if revoked.is_empty() {
            return;
        }
        let mut state = lock(&self.shared.state);
        if let Some(group) = state.groups.get_mut(&self.context.group) {
            for split in &revoked {
                group.owners.remove(split);
            }
        }
        state.changed();
    }

    /// Looks up which splits were finished in an earlier life.
    async fn recall(&mut self) -> Result<()> {
        let splits = lock(&self.shared.state).splits.keys().cloned().collect::<Vec<_>>();
        for split in splits.into_iter().filter(|split| !self.known.contains(split)).collect::<Vec<_>>() {
            if self.context.checkpoints.resume(&split).await? == Some(Progress::End) {
                self.end(&split);
            }
            self.known.insert(split);
        }
        Ok(())
    }

    /// The split is done with: its children may be read.
    fn end(&mut self, split: &SplitId) {
        self.owned.remove(split);
        let mut state = lock(&self.shared.state);
        if let Some(group) = state.groups.get_mut(&self.context.group) {
            group.owners.remove(split);
            group.ended.insert(split.clone());
        }
        state.changed();
    }

    /// Looks at the stream once. Nothing is awaited here, so nothing can be lost on the way.
    fn step(&mut self, state: &mut State) -> Result<Step> {
        let (readable, blocked) = state.readable(&self.context.group);
        let Some(group) = state.groups.get_mut(&self.context.group) else { return Ok(Step::Finished) };
        let share = readable.len().div_ceil(group.members.len().max(1));

        // More than the share: hand over the last ones.
        let reading = self.owned.iter().filter(|(_, cursor)| !cursor.ended).map(|(split, _)| split.clone());
        let surplus = reading.skip(share).collect::<Vec<_>>();
        if !surplus.is_empty() {
            self.owned.retain(|split, _| !surplus.contains(split));
            self.revoked.clone_from(&surplus);
            return Ok(Step::Event(Box::new(StreamEvent::Revoked {
                splits: surplus,
                deadline: Some(Instant::now() + HANDOVER),
            })));
        }

        // Less: take what is free. A claim outlives a dropped future, in `owners`.
        for split in &readable {
            let mine = group.owners.values().filter(|owner| **owner == self.id).count();
            if mine < share && !group.owners.contains_key(split) {
                group.owners.insert(split.clone(), self.id);
            }
        }
        let claimed = readable.iter().filter(|split| group.owners.get(*split) == Some(&self.id));
        let claimed = claimed.filter(|split| !self.owned.contains_key(*split)).cloned().collect::<Vec<_>>();
        if !claimed.is_empty() {
            return Ok(Step::Claimed(claimed));
        }

        // The splits after the last one first, so that none starves.
        let after = |split: &SplitId| self.last.as_ref().is_some_and(|last| split > last);
        let (later, earlier): (Vec<_>, Vec<_>) = self.owned.keys().cloned().partition(after);
        for split in later.into_iter().chain(earlier) {
            if let Some(event) = self.advance(state, &split)? {
                self.last = Some(split);
                return Ok(Step::Event(Box::new(event)));
            }
        }
        if self.bounded && !blocked {
            return Ok(Step::Finished);
        }
        Ok(Step::Wait)
    }

    /// The next event of one split.
    fn advance(&mut self, state: &State, split: &SplitId) -> Result<Option<StreamEvent>> {
        let (Some(cursor), Some(of)) = (self.owned.get_mut(split), state.splits.get(split)) else { return Ok(None) };
        if cursor.ended {
            return Ok(None);
        }
        if cursor.read < of.trimmed {
            return Err(Error::new(
                ErrorKind::PositionLost,
                format!("the split `{split}` begins behind {}, where it was to be read on", cursor.read),
            ));
        }
        let mut bytes = 0;
        let fits = |(index, record): &(usize, &Record)| {
            bytes += record.bytes();
            *index < self.context.batch_records.max(1) && (*index == 0 || bytes <= self.context.buffer_bytes)
        };
        let records = of.behind(cursor.read).iter().enumerate().take_while(fits).map(|(_, record)| record);
        let records = records.cloned().collect::<Vec<_>>();
        if records.is_empty() {
            cursor.ended = of.closed;
            return Ok(of.closed.then(|| StreamEvent::SplitEnded(split.clone())));
        }
        let first = cursor.read + 1;
        cursor.read += count(records.len());
        let positions = (first..=cursor.read).map(position_after).collect::<Vec<_>>();
        let (payload, metadata) = self.shared.payload(&records)?;
        Ok(Some(StreamEvent::Batch(StreamBatch {
            split: split.clone(),
            payload,
            positions: BinaryArray::from_iter_values(positions.iter().map(Position::as_bytes)),
            metadata,
            through: position_after(cursor.read),
            lag: Some(Lag { records: Some(of.end() - cursor.read), bytes: None, time: None }),
            lost: false,
        })))
    }

    /// Finds out where claimed splits are read on.
    async fn resolve(&mut self, claimed: Vec<SplitId>) -> Result<Vec<AssignedSplit>> {
        let mut resolved = Vec::new();
        for split in claimed {
            let read = match self.context.checkpoints.resume(&split).await? {
                Some(Progress::Through(position)) => count_of(&split, &position)?,
                Some(Progress::End) => {
                    self.end(&split);
                    continue;
                }
                None => lock(&self.shared.state).start(&self.context.group, &split, self.context.start),
            };
            let end = lock(&self.shared.state).splits.get(&split).map_or(0, |of| of.end());
            if read > end {
                return Err(Error::new(
                    ErrorKind::PositionLost,
                    format!("the split `{split}` ends at {end}, before {read}, where it was to be read on"),
                ));
            }
            resolved.push((split, read));
        }
        // All at once, with nothing awaited in between: a future that is dropped above has assigned nothing.
        let mut assigned = Vec::new();
        for (split, read) in resolved {
            self.owned.insert(split.clone(), Cursor { read, ended: false });
            assigned.push(AssignedSplit { split, resume: position_after(read) });
        }
        Ok(assigned)
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let value = match &self.value {
            Value::Encoded(value) => value.as_ref().map_or(0, bytes::Bytes::len),
            Value::Row(row) => row.get_array_memory_size(),
        };
        value + self.key.as_ref().map_or(0, bytes::Bytes::len)
    }
}

impl Shared {
    /// The records as a batch's payload and metadata.
    fn payload(&self, records: &[Record]) -> Result<(Payload, Option<RecordBatch>)> {
        if let Some(schema) = &self.schema {
            let rows = records.iter().filter_map(|record| match &record.value {
                Value::Row(row) => Some(row),
                Value::Encoded(_) => None,
            });
            return Ok((Payload::Rows(concat_batches(schema, rows)?), None));
        }
        let values = records.iter().map(|record| match &record.value {
            Value::Encoded(value) => value.as_ref(),
            Value::Row(_) => None,
        });
        let values = values.collect::<BinaryArray>();
        let times = TimestampMicrosecondArray::from_iter_values(records.iter().map(|record| record.time));
        let times: ArrayRef = Arc::new(times.with_timezone("UTC"));
        let keys: ArrayRef = Arc::new(records.iter().map(|record| record.key.as_ref()).collect::<BinaryArray>());
        let metadata = RecordBatch::try_new(metadata_schema(), vec![times, keys])?;
        Ok((Payload::Encoded(values), Some(metadata)))
    }
}

impl fmt::Debug for MemoryReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReader").field("id", &self.id).field("group", &self.context.group).finish_non_exhaustive()
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        lock(&self.shared.state).leave(&self.context.group, self.id);
    }
}

#[async_trait]
impl StreamReader for MemoryReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        self.acknowledge();
        while !self.finished {
            let seen = lock(&self.shared.state).version();
            self.recall().await?;
            let shared = Arc::clone(&self.shared);
            let step = self.step(&mut lock(&shared.state))?;
            match step {
                Step::Event(event) => return Ok(Some(*event)),
                Step::Claimed(claimed) => {
                    let assigned = self.resolve(claimed).await?;
                    if !assigned.is_empty() {
                        return Ok(Some(StreamEvent::Assigned(assigned)));
                    }
                }
                Step::Finished => self.finished = true,
                Step::Wait => poll_fn(|context| lock(&shared.state).poll_changed(self.id, seen, context)).await,
            }
        }
        Ok(None)
    }

    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()> {
        for (split, progress) in commits {
            let mine = {
                let mut state = lock(&self.shared.state);
                let group = state.groups.get_mut(&self.context.group);
                let group = group.filter(|group| group.owners.get(split) == Some(&self.id));
                group.map(|group| group.committed.insert(split.clone(), progress.clone())).is_some()
            };
            if mine && *progress == Progress::End {
                self.end(split);
            }
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
