//! A stream that delivers the same records in another way: in other batches, split by split in another turn, and again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::FutureExt;
use headwater_core::stream::{
    AssignedSplit, Payload, Progress, ReaderContext, SchemaRegistry, SplitInfo, StreamBatch, StreamCapabilities,
    StreamEvent, StreamReader, StreamSource,
};
use headwater_core::{Position, Result, SplitId};

use crate::Random;

/// A stream whose readers deliver what another stream's deliver, in as unkind a way as the contract allows: batches are
/// cut at random places, some without records; splits take turns at random; and now and then a split is revoked and
/// assigned again, to be read on behind its checkpoint, so that what was delivered since comes again.
///
/// With [`ShuffledStream::repeating`] also in a way that the contract forbids and an engine should bear: batches that
/// were delivered before come again without notice, between the others.
///
/// Equal seeds give equal deliveries where the inner stream's are equal and commits fall alike. It keeps everything in
/// memory that it has delivered.
#[derive(Debug, Clone)]
pub struct ShuffledStream {
    inner: Arc<dyn StreamSource>,
    seed: u64,
    repeating: bool,
}

impl ShuffledStream {
    /// Wraps a stream.
    pub fn new(inner: Arc<dyn StreamSource>, seed: u64) -> Self {
        Self { inner, seed, repeating: false }
    }

    /// Repeats batches without notice, too.
    #[must_use]
    pub fn repeating(mut self) -> Self {
        self.repeating = true;
        self
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StreamSource for ShuffledStream {
    fn capabilities(&self) -> StreamCapabilities {
        self.inner.capabilities()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        self.inner.schema().await
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        self.inner.discover().await
    }

    fn schemas(&self) -> Option<Arc<dyn SchemaRegistry>> {
        self.inner.schemas()
    }

    fn deletes(&self) -> bool {
        self.inner.deletes()
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        let inner = self.inner.subscribe(context.clone()).await?;
        Ok(Box::new(ShuffledReader {
            inner,
            context,
            random: Random::new(self.seed),
            repeating: self.repeating,
            splits: BTreeMap::new(),
            held: None,
            taken: None,
        }))
    }
}

#[derive(Debug)]
struct ShuffledReader {
    inner: Box<dyn StreamReader>,
    context: ReaderContext,
    random: Random,
    repeating: bool,
    splits: BTreeMap<SplitId, Pieces>,
    /// An event of the inner reader that waits until all batches before it are delivered.
    held: Option<Held>,
    /// A split that was revoked, to be assigned again.
    taken: Option<SplitId>,
}

/// What is known of a split.
#[derive(Debug, Default)]
struct Pieces {
    /// Where its assignment began.
    resume: Option<Position>,
    /// To be delivered.
    queue: VecDeque<StreamBatch>,
    /// Delivered.
    past: Vec<StreamBatch>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one of it.
enum Held {
    Event(StreamEvent),
    Finished,
}

impl ShuffledReader {
    /// Takes what the inner reader reports.
    fn receive(&mut self, event: Option<StreamEvent>) {
        match event {
            None => self.held = Some(Held::Finished),
            Some(StreamEvent::Batch(batch)) => {
                let pieces = cut(&mut self.random, &batch);
                self.splits.entry(batch.split.clone()).or_default().queue.extend(pieces);
            }
            Some(event) => self.held = Some(Held::Event(event)),
        }
    }

    /// One of the splits that have something to deliver.
    fn any_queued(&mut self) -> Option<SplitId> {
        let queued = self.splits.iter().filter(|(_, pieces)| !pieces.queue.is_empty()).map(|(split, _)| split.clone());
        let queued = queued.collect::<Vec<_>>();
        if queued.is_empty() { None } else { queued.get(self.random.below(queued.len())).cloned() }
    }

    fn deliver(&mut self, split: &SplitId) -> Option<StreamEvent> {
        let pieces = self.splits.get_mut(split)?;
        let batch = pieces.queue.pop_front()?;
        pieces.past.push(batch.clone());
        Some(StreamEvent::Batch(batch))
    }

    /// A batch of a split that was delivered before.
    fn repeat(&mut self, split: &SplitId) -> Option<StreamEvent> {
        let past = &self.splits.get(split)?.past;
        let batch = if past.is_empty() { None } else { past.get(self.random.below(past.len())) };
        batch.cloned().map(StreamEvent::Batch)
    }

    /// Gives a revoked split back: what lies behind its checkpoint comes again.
    async fn give_back(&mut self, split: SplitId) -> Result<StreamEvent> {
        let checkpoint = match self.context.checkpoints.resume(&split).await? {
            Some(Progress::Through(position)) => Some(position),
            _ => None,
        };
        self.taken = None;
        let pieces = self.splits.entry(split.clone()).or_default();
        let resume = checkpoint.or_else(|| pieces.resume.clone()).unwrap_or(Position::START);
        let again = pieces.past.iter().filter_map(|batch| behind(batch, &resume)).collect::<VecDeque<_>>();
        let waiting = std::mem::replace(&mut pieces.queue, again);
        pieces.queue.extend(waiting);
        pieces.past.retain(|batch| batch.through <= resume);
        Ok(StreamEvent::Assigned(vec![AssignedSplit { split, resume }]))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StreamReader for ShuffledReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        if let Some(split) = self.taken.clone() {
            return self.give_back(split).await.map(Some);
        }
        loop {
            let Some(split) = self.any_queued() else {
                match self.held.take() {
                    Some(Held::Finished) => {
                        self.held = Some(Held::Finished);
                        return Ok(None);
                    }
                    Some(Held::Event(event)) => {
                        match &event {
                            StreamEvent::Assigned(splits) => {
                                for AssignedSplit { split, resume } in splits {
                                    let pieces = Pieces { resume: Some(resume.clone()), ..Pieces::default() };
                                    self.splits.insert(split.clone(), pieces);
                                }
                            }
                            StreamEvent::Revoked { splits, .. } => {
                                self.splits.retain(|split, _| !splits.contains(split));
                            }
                            StreamEvent::SplitEnded(split) => {
                                self.splits.remove(split);
                            }
                            StreamEvent::Batch(_) => {}
                        }
                        return Ok(Some(event));
                    }
                    None => {
                        let event = self.inner.next().await?;
                        self.receive(event);
                        continue;
                    }
                }
            };
            // More splits to choose from, where there is more without waiting.
            if self.held.is_none()
                && self.random.once_in(2)
                && let Some(event) = self.inner.next().now_or_never()
            {
                self.receive(event?);
                continue;
            }
            if self.repeating && self.random.once_in(3) {
                let event = self.repeat(&split);
                if event.is_some() {
                    return Ok(event);
                }
            }
            if self.random.once_in(12) {
                self.taken = Some(split.clone());
                let deadline = Some(Instant::now() + Duration::from_secs(5));
                return Ok(Some(StreamEvent::Revoked { splits: vec![split], deadline }));
            }
            return Ok(self.deliver(&split));
        }
    }

    fn repeated(&self) -> u64 {
        self.inner.repeated()
    }

    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()> {
        self.inner.commit(commits).await
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.inner.close().await
    }
}

/// Cuts a batch at random places.
fn cut(random: &mut Random, batch: &StreamBatch) -> Vec<StreamBatch> {
    let records = batch.payload.len();
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < records {
        let length = (1 + random.below(records)).min(records - first);
        pieces.push(piece(batch, first, length));
        first += length;
    }
    // A last one without records, as after transaction markers.
    if records == 0 || random.once_in(4) {
        let through = batch.through.clone();
        pieces.push(StreamBatch { through, lag: batch.lag, ..piece(batch, records, 0) });
    }
    pieces
}

/// Part of a batch.
fn piece(batch: &StreamBatch, first: usize, length: usize) -> StreamBatch {
    let end = first + length;
    let last = end == batch.payload.len();
    let position = |index: usize| Position::new(batch.positions.value(index).to_vec());
    let through = match (last, end.checked_sub(1)) {
        (true, _) | (_, None) => batch.through.clone(),
        (false, Some(index)) => position(index),
    };
    let left = u64::try_from(batch.payload.len() - end).unwrap_or_default();
    let lag = batch.lag.map(|mut lag| {
        lag.records = lag.records.map(|records| records + left);
        lag
    });
    StreamBatch {
        split: batch.split.clone(),
        payload: match &batch.payload {
            Payload::Encoded(values) => Payload::Encoded(values.slice(first, length)),
            Payload::Rows(rows) => Payload::Rows(rows.slice(first, length)),
        },
        positions: batch.positions.slice(first, length),
        metadata: batch.metadata.as_ref().map(|metadata| metadata.slice(first, length)),
        through,
        lag,
        lost: batch.lost && first == 0,
    }
}

/// The part of a batch behind a position; `None` where there is none.
fn behind(batch: &StreamBatch, resume: &Position) -> Option<StreamBatch> {
    if batch.through <= *resume {
        return None;
    }
    let done = batch.positions.iter().flatten().take_while(|position| *position <= resume.as_bytes()).count();
    Some(piece(batch, done, batch.positions.len() - done))
}
