//! The polling thread, and what it does when the group's assignment changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_core::stream::{AssignedSplit, Lag, OnPositionLost, Progress, ReaderContext, StartPosition};
use headwater_core::{Error, ErrorKind, Position, Result, SplitId};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use tokio::runtime::Handle;

use crate::batch::BatchBuilder;
use crate::client::REQUEST_TIMEOUT;
use crate::config::KafkaConfig;
use crate::error::kafka;
use crate::queue::Queue;
use crate::splits::{before, next_offset, partition, split};

/// How long one poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// How long a full queue is waited for before partitions are paused. Pausing throws away what librdkafka has fetched.
const PATIENCE: Duration = Duration::from_millis(500);

/// What librdkafka calls back on the polling thread.
pub(crate) struct Member {
    config: Arc<KafkaConfig>,
    context: ReaderContext,
    runtime: Handle,
    queue: Arc<Queue>,
    state: Mutex<MemberState>,
}

#[derive(Default)]
struct MemberState {
    partitions: BTreeMap<i32, PartitionState>,
    /// A callback ran during the last poll, so that its `None` does not mean that nothing waits.
    interrupted: bool,
    /// The stream was read before this reader, or by it.
    started: bool,
}

struct PartitionState {
    builder: BatchBuilder,
    /// Everything before this offset has been queued for the reader.
    next: i64,
    /// The end that statistics named since the queue was last seen empty.
    end: Option<i64>,
    /// The high watermark that statistics named last.
    high: Option<i64>,
}

impl Member {
    pub(crate) fn new(config: Arc<KafkaConfig>, context: ReaderContext, queue: Arc<Queue>) -> Self {
        Self { config, context, runtime: Handle::current(), queue, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions that are this member's.
    pub(crate) fn owned(&self) -> BTreeSet<i32> {
        self.state().partitions.keys().copied().collect()
    }

    fn add(&self, message: &BorrowedMessage<'_>) -> usize {
        let mut state = self.state();
        // A record of a partition that has just gone is somebody else's.
        let Some(partition) = state.partitions.get_mut(&message.partition()) else { return 0 };
        if message.offset() < partition.next {
            return 0;
        }
        partition.next = message.offset() + 1;
        partition.builder.add(message)
    }

    /// Hands everything that was gathered to the reader.
    fn flush(&self) {
        let mut state = self.state();
        for (&number, partition) in &mut state.partitions {
            if let Some(mut batch) = partition.builder.finish(split(number)) {
                batch.lag = partition.high.map(|high| lag(high, partition.next));
                self.queue.batch(batch);
            }
        }
    }

    /// Nothing waits in librdkafka: the ends that it named before have been reached.
    fn step_over_gaps(&self) {
        let mut state = self.state();
        for (&number, partition) in &mut state.partitions {
            let Some(end) = partition.end.take() else { continue };
            if end > partition.next {
                partition.next = end;
                self.queue.batch(BatchBuilder::empty(split(number), before(end), Some(lag(end, end))));
            }
        }
    }

    /// Where each partition is to be read on.
    fn resolve(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) -> Result<Vec<(i32, Position)>> {
        let started = {
            let known = self.state().started;
            known || self.ask(self.context.checkpoints.started())?
        };
        let mut resolved = Vec::with_capacity(partitions.len());
        for &number in partitions {
            let name = split(number);
            let checkpoint = self.ask(self.context.checkpoints.resume(&name))?;
            let (low, high) = consumer
                .fetch_watermarks(&self.config.topic, number, REQUEST_TIMEOUT)
                .map_err(|error| kafka(error, "ask for the ends of a partition"))?;
            let position = match checkpoint {
                Some(Progress::Through(position)) => self.resume(number, position, low, high)?,
                Some(Progress::End) => before(high),
                None if started => before(low),
                None => match self.context.start {
                    StartPosition::Earliest => before(low),
                    StartPosition::Latest => before(high),
                    StartPosition::At(time) => before(self.offset_at(consumer, number, time)?.unwrap_or(high)),
                },
            };
            resolved.push((number, position));
        }
        self.state().started = true;
        Ok(resolved)
    }

    /// A checkpoint against what the partition holds now.
    fn resume(&self, number: i32, position: Position, low: i64, high: i64) -> Result<Position> {
        let Some(next) = next_offset(&position) else {
            return Err(Error::corrupt(format!("the checkpoint `{position}` is no offset"))
                .with_plugin("kafka")
                .with_context("partition", number));
        };
        let lost = if next < low {
            format!("retention has removed the records from offset {next} to {low} of partition {number}")
        } else if next > high {
            format!(
                "partition {number} ends at offset {high}, before the checkpoint at {next}: the topic was re-created"
            )
        } else {
            return Ok(position);
        };
        match self.config.on_position_lost {
            OnPositionLost::Fail => Err(Error::new(
                ErrorKind::PositionLost,
                format!("{lost}; `on_position_lost: earliest` would go on at the oldest record"),
            )
            .with_plugin("kafka")),
            OnPositionLost::Earliest => {
                tracing::error!(topic = self.config.topic, "{lost}; going on at offset {low}");
                Ok(before(low))
            }
        }
    }

    fn offset_at(&self, consumer: &BaseConsumer<Self>, number: i32, time: i64) -> Result<Option<i64>> {
        let mut asked = TopicPartitionList::new();
        // Kafka's times are milliseconds: the first one that is not before `time`.
        let millis = time.div_euclid(1000) + i64::from(time.rem_euclid(1000) != 0);
        asked
            .add_partition_offset(&self.config.topic, number, Offset::Offset(millis))
            .and_then(|()| consumer.offsets_for_times(asked, REQUEST_TIMEOUT))
            .map_err(|error| kafka(error, "ask for the offset of a time"))?
            .find_partition(&self.config.topic, number)
            .map_or(Ok(None), |found| match found.offset() {
                Offset::Offset(offset) => Ok(Some(offset)),
                _ => Ok(None),
            })
    }

    /// Waits for an answer of the engine, `revoke_timeout` at the most: the group waits for us meanwhile.
    fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        let patience = self.config.revoke_timeout.to_std();
        self.runtime.block_on(async {
            tokio::time::timeout(patience, question).await.map_err(|_| {
                Error::new(ErrorKind::Unavailable, "the checkpoints could not be read in time").with_plugin("kafka")
            })?
        })
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let numbers: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let mut wait = Duration::from_millis(100);
        let resolved = loop {
            match self.resolve(consumer, &numbers) {
                Ok(resolved) => break resolved,
                Err(error) => {
                    let passing = error.is_retryable();
                    self.queue.error(error);
                    if !passing || self.queue.is_closed() {
                        break Vec::new();
                    }
                    self.queue.wait_closed(wait);
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
            }
        };
        let mut positioned = TopicPartitionList::new();
        let mut assigned = Vec::new();
        let mut state = self.state();
        for (number, position) in resolved {
            let Some(next) = next_offset(&position) else { continue };
            if let Err(error) = positioned.add_partition_offset(&self.config.topic, number, Offset::Offset(next)) {
                self.queue.error(kafka(error, "take over a partition"));
                continue;
            }
            let builder = BatchBuilder::default();
            state.partitions.insert(number, PartitionState { builder, next, end: None, high: None });
            assigned.push(AssignedSplit { split: split(number), resume: position });
        }
        drop(state);
        if !assigned.is_empty() {
            self.queue.assigned(assigned);
        }
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&positioned),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&positioned),
        };
        if let Err(error) = done {
            self.queue.error(kafka(error, "take over partitions"));
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let splits: Vec<SplitId> = list.elements().iter().map(|element| split(element.partition())).collect();
        self.let_go(&splits, consumer.assignment_lost());
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        };
        if let Err(error) = done {
            self.queue.error(kafka(error, "hand over partitions"));
        }
    }

    fn let_go(&self, splits: &[SplitId], lost: bool) {
        let mut state = self.state();
        // What was gathered and not yet queued goes: the next owner reads it.
        for number in splits.iter().filter_map(partition) {
            if let Some(gone) = state.partitions.get_mut(&number) {
                gone.builder = BatchBuilder::default();
                gone.end = None;
            }
        }
        drop(state);
        // Still owned while the engine finishes: its last commits are taken.
        self.queue.revoke(splits, (!lost).then(|| self.config.revoke_timeout.to_std()));
        let mut state = self.state();
        for number in splits.iter().filter_map(partition) {
            state.partitions.remove(&number);
        }
    }

    /// Retention has overtaken the reader: which partitions, and what to do.
    fn overtaken(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        let reading: Vec<(i32, i64)> =
            self.state().partitions.iter().map(|(&number, state)| (number, state.next)).collect();
        for (number, next) in reading {
            let (low, high) = consumer
                .fetch_watermarks(&self.config.topic, number, REQUEST_TIMEOUT)
                .map_err(|error| kafka(error, "ask for the ends of a partition"))?;
            if next >= low && next <= high {
                continue;
            }
            let position = self.resume(number, before(next), low, high)?;
            let offset = next_offset(&position).unwrap_or(low);
            consumer
                .seek(&self.config.topic, number, Offset::Offset(offset), REQUEST_TIMEOUT)
                .map_err(|error| kafka(error, "go on at the oldest record"))?;
            if let Some(partition) = self.state().partitions.get_mut(&number) {
                partition.next = offset;
            }
            self.queue.batch(BatchBuilder::empty(split(number), position, None));
        }
        Ok(())
    }
}

fn lag(high: i64, next: i64) -> Lag {
    Lag { records: u64::try_from(high.saturating_sub(next)).ok(), bytes: None, time: None }
}

impl ClientContext for Member {
    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.config.topic) else { return };
        let mut state = self.state();
        for (number, told) in &topic.partitions {
            if let Some(partition) = state.partitions.get_mut(number) {
                partition.end = Some(told.eof_offset).filter(|&end| end >= 0);
                let high = if told.ls_offset >= 0 { told.ls_offset } else { told.hi_offset };
                partition.high = Some(high).filter(|&high| high >= 0);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(topic = self.config.topic, %error, reason, "the Kafka client reports");
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.state().interrupted = true;
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }

    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, _: &TopicPartitionList) {
        self.state().interrupted = true;
        if let Err(error) = result {
            tracing::warn!(topic = self.config.topic, %error, "offsets were not committed");
        }
    }
}

/// The polling thread.
pub(crate) struct Worker {
    consumer: Arc<BaseConsumer<Member>>,
    queue: Arc<Queue>,
    buffer_bytes: usize,
    batch_records: usize,
}

impl Worker {
    pub(crate) fn new(consumer: Arc<BaseConsumer<Member>>, queue: Arc<Queue>, context: &ReaderContext) -> Self {
        Self {
            consumer,
            queue,
            // The other half waits in librdkafka.
            buffer_bytes: context.buffer_bytes / 2,
            batch_records: context.batch_records.max(1),
        }
    }

    pub(crate) fn run(self) {
        while !self.queue.is_closed() {
            if !self.queue.has_space(self.buffer_bytes, PATIENCE) {
                self.stand_by();
                continue;
            }
            self.gather();
        }
        self.consumer.unsubscribe();
        self.queue.end();
    }

    /// Takes what is there, up to a batch, and hands it over at once.
    fn gather(&self) {
        let member = self.consumer.context();
        member.state().interrupted = false;
        let mut wait = POLL;
        let (mut records, mut bytes) = (0, 0);
        loop {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    bytes += member.add(&message);
                    records += 1;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.report(error),
                None => {
                    member.flush();
                    if records == 0 && !member.state().interrupted {
                        member.step_over_gaps();
                    }
                    return;
                }
            }
            wait = Duration::ZERO;
            if records >= self.batch_records || bytes >= self.buffer_bytes {
                member.flush();
                return;
            }
        }
    }

    fn report(&self, error: KafkaError) {
        let member = self.consumer.context();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            if let Err(error) = member.overtaken(&self.consumer) {
                self.queue.error(error);
            }
            return;
        }
        self.queue.error(kafka(error, "read the topic"));
    }

    /// The queue is full: keep the membership, read nothing.
    fn stand_by(&self) {
        let member = self.consumer.context();
        let paused = match self.consumer.assignment() {
            Ok(assignment) if self.consumer.pause(&assignment).is_ok() => assignment,
            _ => return,
        };
        while !self.queue.has_space(self.buffer_bytes / 2, Duration::ZERO) && !self.queue.is_closed() {
            match self.consumer.poll(POLL) {
                // On its way when the pause began.
                Some(Ok(message)) => {
                    member.add(&message);
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => self.report(error),
            }
        }
        member.flush();
        if let Err(error) = self.consumer.resume(&paused) {
            self.queue.error(kafka(error, "resume partitions"));
        }
    }
}
