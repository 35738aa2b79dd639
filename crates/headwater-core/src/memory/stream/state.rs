//! What all clones of a stream share: its splits, and the groups that read it.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};

use arrow::array::RecordBatch;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::position::{Position, SplitId};
use crate::stream::{Progress, StartPosition};
use crate::time::Micros;

#[derive(Clone)]
pub(super) enum Value {
    Encoded(Option<Bytes>),
    Row(RecordBatch),
}

#[derive(Clone)]
pub(super) struct Record {
    pub(super) key: Option<Bytes>,
    pub(super) time: Micros,
    pub(super) value: Value,
}

#[derive(Clone, Default)]
pub(super) struct Split {
    pub(super) parents: Vec<SplitId>,
    /// How many records have been trimmed.
    pub(super) trimmed: u64,
    /// The records behind those.
    pub(super) records: Vec<Record>,
    pub(super) closed: bool,
}

impl Split {
    /// How many records it ever had.
    pub(super) fn end(&self) -> u64 {
        self.trimmed + count(self.records.len())
    }

    pub(super) fn trim(&mut self, through: u64) {
        let gone = through.min(self.end()).saturating_sub(self.trimmed);
        self.records.drain(..usize::try_from(gone).unwrap_or(self.records.len()));
        self.trimmed += gone;
    }

    /// The records behind the first `read`.
    pub(super) fn behind(&self, read: u64) -> &[Record] {
        let from = usize::try_from(read.saturating_sub(self.trimmed)).unwrap_or(usize::MAX);
        self.records.get(from..).unwrap_or_default()
    }

    /// How many records lie before the start. `there` is how many there were when the group began; a split that came
    /// later begins at its beginning.
    fn start(&self, start: StartPosition, there: Option<u64>) -> u64 {
        match (start, there) {
            (StartPosition::Latest, Some(there)) => there.max(self.trimmed),
            (StartPosition::At(time), Some(_)) => {
                let before = self.records.iter().take_while(|record| record.time < time).count();
                self.trimmed + count(before)
            }
            _ => self.trimmed,
        }
    }
}

/// The readers that share the stream.
#[derive(Default)]
pub(super) struct Group {
    pub(super) members: BTreeSet<u64>,
    pub(super) owners: BTreeMap<SplitId, u64>,
    /// Splits whose `End` is committed or checkpointed.
    pub(super) ended: BTreeSet<SplitId>,
    pub(super) committed: BTreeMap<SplitId, Progress>,
    /// The splits that were there when the group first began to read, and how many records they had.
    first: BTreeMap<SplitId, u64>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) splits: BTreeMap<SplitId, Split>,
    pub(super) groups: BTreeMap<String, Group>,
    wakers: BTreeMap<u64, Waker>,
    /// Counts changes, so that a reader sees whether it has missed one.
    version: u64,
    next_reader: u64,
}

impl State {
    /// Tells all waiting readers to look again.
    pub(super) fn changed(&mut self) {
        self.version += 1;
        for (_, waker) in std::mem::take(&mut self.wakers) {
            waker.wake();
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Waits until the version is no longer `seen`.
    pub(super) fn poll_changed(&mut self, reader: u64, seen: u64, context: &Context<'_>) -> Poll<()> {
        if self.version != seen {
            return Poll::Ready(());
        }
        self.wakers.insert(reader, context.waker().clone());
        Poll::Pending
    }

    pub(super) fn append(&mut self, split: &SplitId, records: impl Iterator<Item = Record>) -> Result<()> {
        let of = self.splits.get_mut(split);
        let of = of.ok_or_else(|| Error::not_found(format!("the stream has no split `{split}`")))?;
        if of.closed {
            return Err(Error::invalid(format!("the split `{split}` is closed")));
        }
        of.records.extend(records);
        self.changed();
        Ok(())
    }

    /// Adds a reader to a group and gives it a number. A group that never read anything (`started` is false) and has no
    /// members begins now: what is there now is what `start` speaks of.
    pub(super) fn join(&mut self, group: &str, started: bool) -> u64 {
        let reader = self.next_reader;
        self.next_reader += 1;
        let group = self.groups.entry(group.to_owned()).or_default();
        if group.members.is_empty() && !started {
            let first = self.splits.iter().map(|(split, of)| (split.clone(), of.end())).collect();
            *group = Group { first, ..Group::default() };
        }
        group.members.insert(reader);
        self.changed();
        reader
    }

    /// Removes a reader; its splits are free.
    pub(super) fn leave(&mut self, group: &str, reader: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.remove(&reader);
            group.owners.retain(|_, owner| *owner != reader);
        }
        self.wakers.remove(&reader);
        self.changed();
    }

    /// Whether the split is done with, for this group.
    pub(super) fn is_ended(&self, group: &str, split: &SplitId) -> bool {
        self.groups.get(group).is_some_and(|group| group.ended.contains(split))
    }

    /// The splits that the group may read now, and whether there are some whose parents are not finished.
    pub(super) fn readable(&self, group: &str) -> (Vec<SplitId>, bool) {
        let open = self.splits.iter().filter(|(split, _)| !self.is_ended(group, split));
        let (ready, blocked): (Vec<_>, Vec<_>) = open.partition(|(_, of)| {
            of.parents.iter().all(|parent| !self.splits.contains_key(parent) || self.is_ended(group, parent))
        });
        (ready.into_iter().map(|(split, _)| split.clone()).collect(), !blocked.is_empty())
    }

    /// Where a group begins a split that has no checkpoint.
    pub(super) fn start(&self, group: &str, split: &SplitId, start: StartPosition) -> u64 {
        let there = self.groups.get(group).and_then(|group| group.first.get(split)).copied();
        self.splits.get(split).map_or(0, |of| of.start(start, there))
    }
}

/// The position of the last of `records` records.
pub(super) fn position_after(records: u64) -> Position {
    if records == 0 { Position::START } else { Position::from_u64(records) }
}

pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
