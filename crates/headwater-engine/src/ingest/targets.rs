//! What has to be read before a job, or a view, counts as caught up: the ends that splits had when it started.

use std::collections::BTreeMap;

use headwater_core::stream::{Checkpoints, Progress, SplitInfo, StreamBatch};
use headwater_core::{Position, Result, SplitId};

use super::retry::retry;
use super::sink::Sink;
use super::worker::Group;

#[derive(Debug)]
enum Target {
    /// Everything up to here.
    Position(Position),
    /// All of it: the split was closed, and its source cannot say where it ends.
    End,
    /// Until the reader has found nothing more.
    Nothing,
}

/// The splits that are not there yet.
#[derive(Debug)]
pub(super) struct Targets(BTreeMap<SplitId, Target>);

impl Targets {
    /// The ends of `splits`.
    pub(super) fn new(splits: &[SplitInfo]) -> Self {
        let targets = splits.iter().map(|info| {
            let target = match &info.end {
                Some(end) => Target::Position(end.clone()),
                None if info.closed => Target::End,
                None => Target::Nothing,
            };
            (info.split.clone(), target)
        });
        Self(targets.collect())
    }

    /// Notes how far behind the reader was when it read this.
    pub(super) fn read(&mut self, batch: &StreamBatch) {
        if let Some(target @ Target::Nothing) = self.0.get_mut(&batch.split)
            && batch.lag.is_some_and(|lag| lag.is_zero())
        {
            *target = Target::Position(batch.through.clone());
        }
    }

    /// Notes that a split is over.
    pub(super) fn ended(&mut self, split: &SplitId) {
        self.0.remove(split);
    }

    /// Whether all are reached: by this worker, or (asked only where `thoroughly`) by the
    /// checkpoints and logs of others.
    ///
    /// # Errors
    /// The online store's.
    pub(super) async fn are_reached(&mut self, sink: &Sink, thoroughly: bool, group: &Group) -> Result<bool> {
        self.0.retain(|split, target| match target {
            Target::Position(end) => *end != Position::START && !sink.has_reached(split, end),
            Target::End | Target::Nothing => true,
        });
        if thoroughly {
            let mut reached = Vec::new();
            for (split, target) in &self.0 {
                let load = || group.checkpoints.resume(split);
                let (progress, _) = retry("checkpoint", group.tuning.pauses(), &group.board, load).await?;
                let is_there = match (progress, target) {
                    (Some(Progress::End), _) => true,
                    (Some(Progress::Through(through)), Target::Position(end)) => through >= *end,
                    _ => false,
                };
                if is_there {
                    reached.push(split.clone());
                }
            }
            self.0.retain(|split, _| !reached.contains(split));
        }
        Ok(self.0.is_empty())
    }
}
