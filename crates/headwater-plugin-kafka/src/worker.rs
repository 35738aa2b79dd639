//! The polling thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::kafka;
use crate::member::Member;
use crate::queue::Queue;
use headwater_core::stream::ReaderContext;

/// How long one poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// The same while partitions wait to be read.
const SHORT_POLL: Duration = Duration::from_millis(5);
/// How long a full queue is waited for before partitions are paused. Pausing throws away what librdkafka has fetched.
const PATIENCE: Duration = Duration::from_millis(500);
/// What was resumed is resumed once more after so long.
const RESUME_AGAIN: Duration = Duration::from_secs(1);

/// Polls librdkafka all the time, and hands what comes to the queue.
pub(crate) struct Worker {
    consumer: Arc<BaseConsumer<Member>>,
    queue: Arc<Queue>,
    /// So much may wait when the next records are gathered: three eighths of the buffer.
    waiting_bytes: usize,
    /// So much is gathered at once: another eighth. What librdkafka may hold takes the other half.
    gathered_bytes: usize,
    batch_records: usize,
    /// When what is read is to be resumed once more.
    resume_again: Option<Instant>,
}

/// Says that the thread has ended, however it did.
struct Ending(Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Worker {
    pub(crate) fn new(consumer: Arc<BaseConsumer<Member>>, queue: Arc<Queue>, context: &ReaderContext) -> Self {
        Self {
            consumer,
            queue,
            waiting_bytes: (context.buffer_bytes / 8 * 3).max(1),
            gathered_bytes: context.buffer_bytes / 8,
            batch_records: context.batch_records.max(1),
            resume_again: None,
        }
    }

    pub(crate) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.queue));
        while !self.queue.is_closed() {
            self.join_anew_if_asked();
            if self.queue.has_space(self.waiting_bytes, PATIENCE) {
                self.begin();
                self.resume_once_more();
                self.gather();
            } else {
                self.stand_by();
            }
        }
        self.consumer.unsubscribe();
        // Dropping the consumer leaves the group, which takes its time.
    }

    fn join_anew_if_asked(&self) {
        let member = self.consumer.context();
        if member.is_to_join_anew() {
            tracing::warn!(topic = member.config.topic, "joining the group anew");
            self.consumer.unsubscribe();
            if let Err(error) = self.consumer.subscribe(&[&member.config.topic]) {
                self.queue.error(kafka(error, "subscribe to the topic"));
            }
        }
    }

    /// Begins with the partitions whose position is known by now.
    fn begin(&self) {
        let member = self.consumer.context();
        // The callback that says so is on its way, and would not know any more.
        if self.consumer.assignment_lost() {
            return;
        }
        let found = member.take_found();
        if found.is_empty() {
            return;
        }
        match member.take_up(&self.consumer, &found) {
            Ok(()) => member.begin(found),
            Err(error) => self.queue.error(error),
        }
    }

    /// Resumes what was paused once more. librdkafka loses an order where it gives one itself, for a rebalance, at that
    /// moment, and nothing tells; what is not paused is not touched.
    fn resume_once_more(&mut self) {
        if self.resume_again.take_if(|due| *due <= Instant::now()).is_some() {
            self.resume();
        }
    }

    fn resume(&self) {
        if let Err(error) = self.consumer.resume(&self.reading()) {
            self.queue.error(kafka(error, "resume partitions"));
        }
    }

    /// Takes what is there, up to a batch, and hands it over at once.
    fn gather(&self) {
        let member = self.consumer.context();
        let mut wait = if member.is_waiting() { SHORT_POLL } else { POLL };
        let (mut records, mut bytes) = (0, 0);
        loop {
            member.begin_poll();
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    bytes += member.add(&message);
                    records += 1;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => member.at_end(partition),
                Some(Err(error)) => self.report(error),
                None => {
                    let empty = !member.was_interrupted();
                    member.flush();
                    if empty {
                        member.reach_ends();
                    }
                    return;
                }
            }
            wait = Duration::ZERO;
            if records >= self.batch_records || bytes >= self.gathered_bytes {
                return member.flush();
            }
        }
    }

    fn report(&self, error: KafkaError) {
        let member = self.consumer.context();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset) => member.wonder_at_offsets(&self.consumer),
            // Metadata may be older than what the group has agreed on.
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => member.wonder_at_topic(&self.consumer),
            _ => member.report(error),
        }
    }

    /// The partitions that are read.
    fn reading(&self) -> TopicPartitionList {
        let member = self.consumer.context();
        member.list(member.reading().into_iter().map(|(taken, _)| taken.partition))
    }

    /// The queue is full: keep the membership, read nothing.
    fn stand_by(&mut self) {
        let member = Arc::clone(self.consumer.context());
        self.pause();
        while !self.queue.has_space(self.waiting_bytes.div_ceil(2), Duration::ZERO) && !self.queue.is_closed() {
            match self.consumer.poll(POLL) {
                // The order to pause was lost, as one to resume may be.
                Some(Ok(message)) => {
                    member.add(&message);
                    self.pause();
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => self.report(error),
            }
            self.join_anew_if_asked();
        }
        member.flush();
        member.forget_ends();
        self.resume();
        self.resume_again = Some(Instant::now() + RESUME_AGAIN);
    }

    fn pause(&self) {
        let member = self.consumer.context();
        if let Err(error) = self.consumer.pause(&self.reading()) {
            tracing::warn!(topic = member.config.topic, %error, "partitions could not be paused");
        }
        member.forget_ends();
    }
}
