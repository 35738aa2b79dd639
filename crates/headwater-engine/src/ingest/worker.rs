//! One reader and what becomes of its records.
//!
//! ```text
//! reader.next() ─► decode, transform, cast, check ─► queue (bounded in bytes) ─► micro-batch ─► put ─► sync ─► commit
//! └────────────── reading task ────────────────┘                                └────── writing task ──────┘
//! ```
//!
//! The writing task takes whatever waits in the queue, and [one write](super::write) after the other holds what came while
//! the one before was under way: a record that comes alone is written at once, and under load micro-batches grow by
//! themselves.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use headwater_core::stream::{ReaderContext, StreamBatch, StreamEvent, StreamReader, StreamSource};
use headwater_core::{Error, Micros, Result};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::checkpoint::GroupCheckpoints;
use super::dead::{DeadLetter, Undertaker};
use super::decode::{Decoder, Writers, pick};
use super::lane::{Lane, Part, Piece};
use super::retry::{Pauses, retry};
use super::sink::{Prepared, Sink};
use super::status::Board;
use super::targets::Targets;
use super::transform::to_view;
use super::writing::{Commits, Item, Writer};
use super::{Tuning, computed, tombstones, windows};
use crate::project::Project;
use crate::rows::Serving;
use crate::view::View;

/// Views that are read together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) project: Arc<Project>,
    pub(super) source: String,
    pub(super) stream: Arc<dyn StreamSource>,
    pub(super) decoder: Arc<Decoder>,
    pub(super) views: Vec<Arc<View>>,
    pub(super) checkpoints: Arc<GroupCheckpoints>,
    /// The name under which readers share the stream.
    pub(super) id: String,
    pub(super) settings: headwater_core::definitions::StreamSettings,
    pub(super) board: Board,
    pub(super) tuning: Tuning,
    /// Stop when the ends of all splits are reached.
    pub(super) until_caught_up: bool,
    /// These views do not serve yet.
    pub(super) catching_up: bool,
    /// Give the views over to another group when they have caught up.
    pub(super) joins: bool,
    /// When the definitions were applied.
    pub(super) applied: Micros,
}

/// Why a worker has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was told to.
    Stopped,
    /// It has read what it was to read.
    Finished,
    /// Its views have caught up and may join others.
    CaughtUp,
}

/// Reads until told to stop, finished, caught up, or failed. Dropping the future stops at once, like a crash.
pub(super) async fn run(group: Arc<Group>, mut stop: watch::Receiver<bool>) -> Result<Outcome> {
    let pauses = group.tuning.pauses();
    let targets = if group.until_caught_up || group.catching_up {
        let discover = || group.stream.discover();
        Some(Targets::new(&retry("source", pauses, &group.board, discover).await?.0))
    } else {
        None
    };
    let building = tokio::select! {
        building = windows::prepare(&group) => building?,
        () = told_to(&mut stop) => return Ok(Outcome::Stopped),
    };
    let subscribe = || group.stream.subscribe(context(&group));
    let mut reader = tokio::select! {
        reader = retry("source", pauses, &group.board, subscribe) => reader?.0,
        () = told_to(&mut stop) => return Ok(Outcome::Stopped),
    };
    let (items, queue) = mpsc::channel(64);
    let (arrived, mut arrival) = watch::channel(None);
    let commits = Arc::new(Commits::default());
    let sink = sink(&group)?;
    let mut writer = Writer {
        group: Arc::clone(&group),
        sink,
        targets,
        arrived,
        commits: Arc::clone(&commits),
        building: JoinSet::new(),
        stop: stop.clone(),
    };
    for view in building {
        let group = Arc::clone(&group);
        writer.building.spawn(async move { windows::build_for_job(&group, &view).await });
    }
    // Dropped with this future, and the writing task with it.
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(queue));

    let reading = Reading { group: &group, items, commits: &commits };
    let outcome = reading.run(reader.as_mut(), &mut stop, &mut arrival).await;
    // The queue is closed now: the writing task writes what is left.
    let written = match writing.join_next().await {
        Some(Ok(written)) => written,
        Some(Err(panic)) => Err(Error::unexpected("the writing task died").with_source(panic)),
        None => Ok(()),
    };
    if written.is_ok() {
        commits.hand_over(reader.as_mut()).await;
    }
    if let Err(error) = reader.close().await {
        tracing::warn!(%error, "the reader did not leave in good order");
    }
    // What the writing task met comes first: the reading task then only noticed that it is gone.
    written?;
    let outcome = outcome?;
    if outcome == Outcome::Finished && group.catching_up {
        serve(&group).await?;
    }
    Ok(outcome)
}

fn context(group: &Group) -> ReaderContext {
    ReaderContext {
        group: group.id.clone(),
        start: group.settings.start,
        checkpoints: Arc::<GroupCheckpoints>::clone(&group.checkpoints),
        buffer_bytes: group.tuning.queue_bytes,
        batch_records: group.tuning.batch_records,
        refresh: Duration::from_secs(10),
        clock: Arc::clone(&group.project.clock),
    }
}

fn sink(group: &Group) -> Result<Sink> {
    let name = &group.project.definitions.project;
    let lanes = group.views.iter().map(|view| {
        let mut lane = Lane::new(name, &group.source, view)?;
        lane.threshold = group.settings.watermark_delay_threshold.map(|threshold| threshold.0);
        lane.late = group.settings.late_events;
        Ok(lane)
    });
    let lanes = lanes.collect::<Result<Vec<_>>>()?;
    let mut sink = Sink::new(Arc::clone(&group.project), lanes, group.board.clone(), group.tuning);
    sink.stream = Some(Arc::clone(&group.stream));
    Ok(sink)
}

/// Makes the group's views serve.
pub(super) async fn serve(group: &Group) -> Result<()> {
    let online = group.project.online.as_ref();
    for view in &group.views {
        let of_epoch = || windows::serve(&group.project, view);
        retry("online store", group.tuning.pauses(), &group.board, of_epoch).await?;
        let serving = Serving { view: view.name.clone(), generation: view.generation.clone(), applied: group.applied };
        let write = || serving.write(online, &group.project.definitions.project);
        retry("online store", group.tuning.pauses(), &group.board, write).await?;
    }
    retry("online store", group.tuning.pauses(), &group.board, || online.sync()).await?;
    Ok(())
}

/// Decodes a batch and makes rows of each view of it.
pub(super) fn prepare(
    source: &str,
    decoder: &Decoder,
    writers: &Writers,
    views: &[Arc<View>],
    skew: Option<Micros>,
    now: Micros,
    batch: StreamBatch,
) -> Result<Prepared> {
    let decoded = decoder.decode(&batch, writers)?;
    let mut parts = Vec::with_capacity(views.len());
    for view in views {
        let done = to_view(view, &decoded.rows, decoder.unit(), skew)?;
        let row_positions = pick(&batch.positions, decoded.records.as_ref())?;
        let positions = pick(&row_positions, done.inputs.as_ref())?;
        let undertaker = Undertaker { source, view, batch: &batch, now };
        let mut dead = Vec::with_capacity(decoded.failures.len() + done.failures.len());
        for failure in &decoded.failures {
            dead.push(undertaker.bury(failure.row, &failure.reason)?);
        }
        for failure in &done.failures {
            dead.push(undertaker.bury(decoded.record(failure.row), &failure.reason)?);
        }
        let mut piece = Piece { rows: done.rows, positions, ordinals: done.ordinals };
        if decoder.deletes() {
            let (with_tombstones, failures) = tombstones::add(view, &batch, &decoded.tombstones, piece)?;
            piece = with_tombstones;
            for failure in failures {
                dead.push(undertaker.bury(failure.row, &failure.reason)?);
            }
        }
        dead.sort_by(|a, b| a.position.cmp(&b.position));
        parts.push(Part { piece, dead });
    }
    Ok(Prepared { batch, tombstones: decoded.tombstones, parts })
}

/// How long the reader is left alone at most after a temporary error, but for the jitter. It goes on by itself: what it
/// has fetched and the splits that it has to let go wait for the next call.
const LONGEST_READING_PAUSE: Duration = Duration::from_secs(1);

/// The reading task.
struct Reading<'a> {
    group: &'a Arc<Group>,
    items: mpsc::Sender<Item>,
    commits: &'a Commits,
}

impl Reading<'_> {
    async fn run(
        self,
        reader: &mut dyn StreamReader,
        stop: &mut watch::Receiver<bool>,
        arrival: &mut watch::Receiver<Option<Outcome>>,
    ) -> Result<Outcome> {
        let kibibytes = u32::try_from(self.group.tuning.queue_bytes / 1024).unwrap_or(u32::MAX).max(1);
        let room = Arc::new(Semaphore::new(kibibytes as usize));
        let Pauses { first, longest } = self.group.tuning.pauses();
        let pauses = Pauses { first: first.min(LONGEST_READING_PAUSE), longest: longest.min(LONGEST_READING_PAUSE) };
        let mut waits = pauses.iter();
        let mut pause: Option<Instant> = None;
        let mut troubled = false;
        // What the reader has repeated by itself, as far as it is counted.
        let mut repeated = 0;
        // One batch is being prepared while the next event is awaited.
        let mut preparing: JoinSet<Result<Prepared>> = JoinSet::new();
        let mut waiting: Option<StreamEvent> = None;
        let mut finished = false;
        loop {
            self.group.board.repeated(reader.repeated().saturating_sub(repeated));
            repeated = reader.repeated();
            if preparing.is_empty() {
                match waiting.take() {
                    Some(StreamEvent::Batch(batch)) => self.prepare(&mut preparing, batch),
                    Some(event) => self.pass_on(event).await,
                    None if finished => return Ok(Outcome::Finished),
                    None => {}
                }
            }
            tokio::select! {
                biased;
                () = told_to(stop) => return Ok(Outcome::Stopped),
                outcome = arrived(arrival) => return Ok(outcome),
                () = self.items.closed() => return Err(Error::unexpected("the writing task is gone")),
                () = self.commits.news.notified() => self.commits.hand_over(reader).await,
                Some(prepared) = preparing.join_next(), if !preparing.is_empty() => {
                    let prepared = prepared
                        .map_err(|panic| Error::unexpected("preparing a batch failed").with_source(panic))??;
                    if !self.send(prepared, &room, kibibytes, reader, stop).await {
                        return Ok(Outcome::Stopped);
                    }
                }
                () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => pause = None,
                event = reader.next(), if waiting.is_none() && !finished && pause.is_none() => match event {
                    Ok(event) => {
                        finished = event.is_none();
                        waiting = event;
                        if troubled {
                            troubled = false;
                            waits = pauses.iter();
                            self.group.board.retrying(None);
                        }
                    }
                    Err(error) if error.is_retryable() => {
                        tracing::warn!(%error, "reading will be tried again");
                        troubled = true;
                        self.group.board.retrying(Some(&error));
                        pause = Some(Instant::now() + waits.next().unwrap_or(pauses.longest));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    fn prepare(&self, preparing: &mut JoinSet<Result<Prepared>>, batch: StreamBatch) {
        let group = Arc::clone(self.group);
        let make = |group: Arc<Group>, writers: Writers, batch: StreamBatch| {
            move || {
                let now = group.project.clock.now();
                let skew = Some(group.settings.max_future_skew.0);
                prepare(&group.source, &group.decoder, &writers, &group.views, skew, now, batch)
            }
        };
        let bytes = batch.bytes();
        preparing.spawn(async move {
            let writers = match group.decoder.writers(&batch) {
                Some(writers) => writers,
                None => {
                    let ask = || group.decoder.ask(&batch);
                    retry("schema registry", group.tuning.pauses(), &group.board, ask).await?.0
                }
            };
            computed(bytes, make(group, writers, batch)).await
        });
    }

    /// Waits for room in the queue, and meanwhile goes on telling the source what is done. False when told to stop.
    async fn send(
        &self,
        prepared: Prepared,
        room: &Arc<Semaphore>,
        most: u32,
        reader: &mut dyn StreamReader,
        stop: &mut watch::Receiver<bool>,
    ) -> bool {
        let rows = prepared.parts.iter().map(|part| part.piece.rows.get_array_memory_size()).sum::<usize>();
        // Each with its metadata, they are larger than the records that they are made of.
        let letters = prepared.parts.iter().flat_map(|part| &part.dead).map(DeadLetter::bytes).sum::<usize>();
        let bytes = prepared.batch.bytes() + rows + letters;
        // A batch larger than the whole queue goes alone.
        let share = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).clamp(1, most);
        let mut send = pin!(async {
            if let Ok(permit) = Arc::clone(room).acquire_many_owned(share).await {
                // Fails where the writing task is gone, which the caller notices.
                let _ = self.items.send(Item::Batch(prepared, permit)).await;
            }
        });
        loop {
            tokio::select! {
                biased;
                () = told_to(stop) => return false,
                () = &mut send => return true,
                () = self.items.closed() => return true,
                () = self.commits.news.notified() => self.commits.hand_over(reader).await,
            }
        }
    }

    /// Hands an event that is no batch to the writing task and waits until it is dealt with.
    async fn pass_on(&self, event: StreamEvent) {
        let (done, told) = oneshot::channel();
        let (item, deadline) = match event {
            StreamEvent::Assigned(splits) if splits.is_empty() => return,
            StreamEvent::Assigned(splits) => (Item::Assigned(splits, done), None),
            StreamEvent::Revoked { splits, deadline } => {
                let publish = deadline.is_some();
                (Item::Revoked { splits, publish, done }, deadline)
            }
            StreamEvent::SplitEnded(split) => {
                let _ = self.items.send(Item::Ended(split)).await;
                return;
            }
            StreamEvent::Batch(_) => return,
        };
        if self.items.send(item).await.is_ok() {
            match deadline {
                Some(deadline) => drop(tokio::time::timeout_at(deadline.into(), told).await),
                None => drop(told.await),
            }
        }
    }
}

/// Waits to be told to stop.
pub(super) async fn told_to(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody can tell any more.
        std::future::pending::<()>().await;
    }
}

/// Waits until the writing task says that all is reached.
async fn arrived(arrival: &mut watch::Receiver<Option<Outcome>>) -> Outcome {
    loop {
        if let Some(outcome) = *arrival.borrow_and_update() {
            return outcome;
        }
        if arrival.changed().await.is_err() {
            // The writing task is gone: others notice.
            std::future::pending::<()>().await;
        }
    }
}
