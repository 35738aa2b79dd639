//! Finds shards, hands them out in their order, and runs a task for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_kinesis::types::ChildShard;
use headwater_core::stream::{AssignedSplit, OnPositionLost, Progress, ReaderContext, StreamEvent};
use headwater_core::{Error, ErrorKind, Position, Result, SplitId};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::batch::BatchBuilder;
use crate::client::{Facts, Listed, Stream};
use crate::cursor::Cursor;
use crate::delivery::Delivery;
use crate::ends::Ends;
use crate::fan_out::{self, FanOut};
use crate::leases::Leases;
use crate::pace::Trouble;
use crate::polling;
use crate::position::Place;
use crate::queue::Queue;
use crate::shards::Shards;
use crate::starts::Starts;

/// What the reader, its coordinator and the shards' tasks have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stream: Stream,
    pub(crate) facts: Facts,
    /// The group as a consumer of the stream; without it shards are polled.
    pub(crate) fan_out: Option<FanOut>,
    pub(crate) on_position_lost: OnPositionLost,
    pub(crate) context: ReaderContext,
    pub(crate) queue: Arc<Queue>,
    news: Mutex<News>,
    /// Those that were closed in the last listing.
    closed: Mutex<BTreeSet<String>>,
    /// When ends were last seen, by the reader that left last and by this one.
    ends: Mutex<Ends>,
    wake: Notify,
    leave: Notify,
}

/// What the coordinator has yet to look at.
#[derive(Debug, Default)]
struct News {
    /// Shards whose `End` was committed.
    finished: Vec<String>,
    /// Shards that others named as their children.
    children: Vec<Listed>,
}

impl Shared {
    pub(crate) fn new(
        stream: Stream,
        facts: Facts,
        fan_out: Option<FanOut>,
        on_position_lost: OnPositionLost,
        context: ReaderContext,
    ) -> Self {
        let queue = Queue::new(context.buffer_bytes);
        let (news, closed, ends) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (wake, leave) = (Notify::new(), Notify::new());
        Self { stream, facts, fan_out, on_position_lost, context, queue, news, closed, ends, wake, leave }
    }

    fn news(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When ends were last seen.
    pub(crate) fn ends(&self) -> std::sync::MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last listing says that nothing will be added to the shard.
    pub(crate) fn is_closed(&self, shard: &str) -> bool {
        self.closed().contains(shard)
    }

    /// The end of a split is committed.
    pub(crate) fn finished(&self, split: &SplitId) {
        if let Ok(shard) = std::str::from_utf8(split.as_bytes()) {
            self.news().finished.push(shard.to_owned());
            self.wake.notify_one();
        }
    }

    /// Tells the coordinator to leave in good order.
    pub(crate) fn leave(&self) {
        self.leave.notify_one();
    }

    /// A shard has told its children: they are known before any listing shows them.
    pub(crate) fn children(&self, children: &[ChildShard]) {
        self.news().children.extend(children.iter().map(Listed::from));
    }
}

/// Finds shards and hands them out.
#[derive(Debug)]
pub(crate) struct Coordinator {
    shared: Arc<Shared>,
    leases: Arc<dyn Leases>,
    shards: Shards,
    /// Named by their parents, and in no listing yet.
    announced: BTreeMap<String, Listed>,
    /// Where the shards begin that were there at the first start.
    starts: Option<Starts>,
    /// One for each shard that is read; gives what was handed over, and how it ended.
    tasks: JoinSet<(Delivery, Result<()>)>,
    /// Shards whose tasks ended because the server did not know something, with how far they were read and what it said.
    missing: BTreeMap<String, (Position, Error)>,
    /// Shards that were gone before they could be read, as the reader was told.
    lost: BTreeSet<String>,
}

impl Coordinator {
    pub(crate) fn new(shared: Arc<Shared>, leases: Arc<dyn Leases>) -> Self {
        let (shards, announced, tasks) = (Shards::default(), BTreeMap::new(), JoinSet::new());
        Self { shared, leases, shards, announced, starts: None, tasks, missing: BTreeMap::new(), lost: BTreeSet::new() }
    }

    /// Works until it is told to leave, or something permanent stands in its way: then the reader is told. Dropping it
    /// stops everything at once, like a crash.
    ///
    /// # Errors
    /// Leases that could not be given back, and what could not be noted.
    pub(crate) async fn run(mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let worked = tokio::select! {
            worked = self.work() => worked,
            () = shared.leave.notified() => {
                self.tasks.shutdown().await;
                let ends = shared.ends().clone();
                let noted = ends.note(|shard| self.shards.knows(shard), &shared.context).await;
                return self.leases.release(&self.shards.held()).await.and(noted);
            }
        };
        if let Err(error) = worked {
            self.tasks.shutdown().await;
            self.shared.queue.error(error);
        }
        Ok(())
    }

    async fn work(&mut self) -> Result<()> {
        let mut trouble = Trouble::new();
        let mut look = false;
        loop {
            match self.step(look).await {
                Ok(()) => trouble.over(&self.shared.queue),
                Err(error) => {
                    trouble.wait("all", error, &self.shared.queue).await?;
                    look = true;
                    continue;
                }
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                () = shared.wake.notified() => look = false,
                () = tokio::time::sleep(shared.context.refresh) => look = true,
                Some(ended) = self.tasks.join_next() => {
                    let (delivery, result) = ended.map_err(|error| {
                        Error::unexpected("the task of a shard died").with_source(error).with_plugin("kinesis")
                    })?;
                    let shard = delivery.shard();
                    match result {
                        Ok(()) => self.end(shard),
                        Err(error) if error.kind() == ErrorKind::NotFound => {
                            self.missing.insert(shard.to_owned(), (delivery.position(), error));
                        }
                        Err(error) => return Err(error),
                    }
                    // Its children are there, whether it named them or not; or the listing tells what is missing.
                    look = true;
                }
            }
        }
    }

    /// Takes news in, looks at the stream where `look` says so, and hands out what can be read.
    pub(crate) async fn step(&mut self, look: bool) -> Result<()> {
        let News { finished, children } = std::mem::take(&mut *self.shared.news());
        self.announced.extend(children.into_iter().map(|child| (child.shard.clone(), child)));
        let finished = finished.into_iter().filter(|shard| self.shards.finished(shard)).collect::<Vec<_>>();
        if !finished.is_empty()
            && let Err(error) = self.leases.release(&finished).await
        {
            tracing::warn!(%error, "leases of finished shards were not given back");
        }
        if look || finished.iter().any(|shard| self.shards.lacks_children(shard)) {
            self.look().await?;
        }
        self.hand_out().await
    }

    async fn look(&mut self) -> Result<()> {
        let mut listing = self.shared.stream.list().await?;
        let closed = listing.iter().filter(|listed| listed.closed).map(|listed| listed.shard.clone()).collect();
        *self.shared.closed() = closed;
        let names = listing.iter().map(|listed| listed.shard.clone()).collect::<BTreeSet<_>>();
        self.announced.retain(|shard, _| !names.contains(shard));
        listing.extend(self.announced.values().cloned());
        let unknown = self.shards.unknown(&listing);
        if self.starts.is_none() {
            *self.shared.ends() = Ends::load(&self.shared.context).await?;
        }
        let mut progress = BTreeMap::new();
        for listed in &unknown {
            if let Some(known) = self.shared.context.checkpoints.resume(&SplitId::from(listed.shard.as_str())).await? {
                progress.insert(listed.shard.clone(), self.shared.ends().of(&listed.shard, known)?);
            }
        }
        if self.starts.is_none() {
            self.starts = Some(Starts::load(&self.shared.stream, &listing, &self.shared.context).await?);
        }
        let starts = self.starts.get_or_insert_default();
        self.shards.list(&listing, &progress, starts, self.shared.context.clock.now())?;
        self.look_for_missing(&listing)
    }

    /// A shard that the server does not know any more while it is read was removed by retention, unless it is listed:
    /// then it is something else that is missing.
    fn look_for_missing(&mut self, listing: &[Listed]) -> Result<()> {
        while let Some((shard, (position, error))) = self.missing.pop_first() {
            if listing.iter().any(|listed| listed.shard == shard) {
                return Err(error);
            }
            self.lost(&shard, Some(&position))?;
            self.tell_lost(&shard);
            self.end(&shard);
        }
        Ok(())
    }

    async fn hand_out(&mut self) -> Result<()> {
        let ready = self.shards.ready();
        if ready.is_empty() {
            return Ok(());
        }
        for shard in &ready {
            self.look_for_losses(shard).await?;
        }
        let mine = self.leases.take(&ready).await?;
        let (mut assigned, mut deliveries, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for shard in mine {
            let Some(place) = self.shards.read(&shard) else { continue };
            let cursor = Cursor::new(&shard, place, self.shared.facts.retention, self.shared.on_position_lost)
                .with_hash_keys(self.shards.hash_keys(&shard));
            assigned.push(AssignedSplit { split: SplitId::from(shard.as_str()), resume: cursor.position() });
            if self.shards.is_over(&shard) {
                over.push(shard);
            } else {
                deliveries.push(Delivery::new(shard, cursor, Arc::clone(&self.shared)));
            }
        }
        if assigned.is_empty() {
            return Ok(());
        }
        self.shared.queue.event(StreamEvent::Assigned(assigned));
        for shard in over {
            self.end(&shard);
        }
        for mut delivery in deliveries {
            let fan_out = self.shared.fan_out.clone();
            self.tasks.spawn(async move {
                let result = match fan_out {
                    Some(fan_out) => fan_out::read(&mut delivery, fan_out).await,
                    None => polling::read(&mut delivery).await,
                };
                (delivery, result)
            });
        }
        Ok(())
    }

    /// Reports that a shard is read to its end.
    fn end(&mut self, shard: &str) {
        self.shards.ended(shard);
        self.shared.queue.event(StreamEvent::SplitEnded(SplitId::from(shard)));
    }

    /// A parent that retention has removed before it was read to its end takes its unread records with it.
    async fn look_for_losses(&mut self, shard: &str) -> Result<()> {
        for parent in self.shards.gone_parents(shard) {
            // It may have several children.
            if self.lost.contains(&parent) {
                continue;
            }
            let split = SplitId::from(parent.as_str());
            let position = match self.shared.context.checkpoints.resume(&split).await? {
                Some(Progress::End) => continue,
                Some(Progress::Through(position)) => Some(position),
                None if self.starts.as_ref().is_some_and(|starts| starts.leave_out(&parent, shard)) => continue,
                None => None,
            };
            self.lost(&parent, position.as_ref())?;
            let resume = position.unwrap_or(Position::START);
            self.shared.queue.event(StreamEvent::Assigned(vec![AssignedSplit { split: split.clone(), resume }]));
            self.tell_lost(&parent);
            self.shared.queue.event(StreamEvent::SplitEnded(split));
            self.lost.insert(parent);
        }
        Ok(())
    }

    /// Reports that a shard is gone with what was left in it: up to a position that is greater than all, as one view may be
    /// further than another.
    fn tell_lost(&self, shard: &str) {
        let mut batch = BatchBuilder::default().finish(shard, Place::Gone.position(), None);
        batch.lost = true;
        self.shared.queue.event(StreamEvent::Batch(batch));
    }

    /// Retention has removed a shard of which this much was read.
    fn lost(&self, shard: &str, position: Option<&Position>) -> Result<()> {
        if self.shared.on_position_lost == OnPositionLost::Earliest {
            tracing::warn!(
                shard,
                position = position.map(tracing::field::display),
                "retention has removed the shard before it was read to its end: going on with its children; what was \
                 left in it is lost"
            );
            return Ok(());
        }
        let lost = Error::new(
            ErrorKind::PositionLost,
            format!(
                "retention has removed the shard `{shard}` before it was read to its end; \
                 `on_position_lost: earliest` goes on with its children"
            ),
        );
        let lost = lost.with_plugin("kinesis");
        Err(match position {
            Some(position) => lost.with_context("position", position),
            None => lost,
        })
    }
}
