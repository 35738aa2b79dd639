//! The polling thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::error::kafka;
use crate::member::Member;
use crate::queue::Queue;
use crate::resolve::Found;
use headwater_core::stream::ReaderContext;

/// How long one poll waits for a record.
const POLL: Duration = Duration::from_millis(100);
/// The same while partitions wait to be read.
const SHORT_POLL: Duration = Duration::from_millis(5);
/// How long a full queue is waited for before partitions are paused. Pausing throws away what librdkafka has fetched.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long librdkafka may take to begin with a partition before the group is joined anew.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Polls librdkafka all the time, and hands what comes to the queue.
pub(crate) struct Worker {
    consumer: Arc<BaseConsumer<Member>>,
    queue: Arc<Queue>,
    /// So much may wait when the next records are gathered: three eighths of the buffer.
    waiting_bytes: usize,
    /// So much is gathered at once: another eighth. What librdkafka may hold takes the other half.
    gathered_bytes: usize,
    batch_records: usize,
    /// Partitions that librdkafka could not begin with yet, and since when.
    refused: Vec<Found>,
    refused_since: Option<Instant>,
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
            refused: Vec::new(),
            refused_since: None,
        }
    }

    pub(crate) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.queue));
        while !self.queue.is_closed() {
            self.tend(true);
            if self.queue.has_space(self.waiting_bytes, PATIENCE) {
                self.gather();
            } else {
                self.stand_by();
            }
        }
        self.consumer.unsubscribe();
        // Dropping the consumer leaves the group, which takes its time.
    }

    /// Begins with partitions whose position is known by now, and does what others have asked for.
    fn tend(&mut self, read: bool) {
        let member = Arc::clone(self.consumer.context());
        let mut found = std::mem::take(&mut self.refused);
        found.retain(|found| member.awaits(&found.taken));
        found.extend(member.take_found());
        if !found.is_empty() {
            self.begin(&member, found, read);
        }
        if self.refused.is_empty() {
            self.refused_since = None;
        } else if self.refused_since.get_or_insert_with(Instant::now).elapsed() > BEGIN_TIMEOUT {
            self.refused_since = None;
            member.join_anew();
        }
        if member.is_to_join_anew() {
            tracing::warn!(topic = member.config.topic, "joining the group anew");
            self.consumer.unsubscribe();
            if let Err(error) = self.consumer.subscribe(&[&member.config.topic]) {
                self.queue.error(kafka(error, "subscribe to the topic"));
            }
        }
    }

    fn begin(&mut self, member: &Member, found: Vec<Found>, read: bool) {
        let topic = &member.config.topic;
        let mut positions = TopicPartitionList::new();
        for found in &found {
            let next = crate::splits::next_offset(&found.position).unwrap_or(0);
            if let Err(error) = positions.add_partition_offset(topic, found.taken.partition, Offset::Offset(next)) {
                return self.queue.error(kafka(error, "seek in a partition"));
            }
        }
        let sought = match self.consumer.seek_partitions(positions, POLL * 10) {
            Ok(sought) => sought,
            Err(error) => {
                tracing::debug!(topic, %error, "the partitions cannot be positioned yet");
                self.refused = found;
                return;
            }
        };
        let is_there = |found: &Found| {
            sought.find_partition(topic, found.taken.partition).is_some_and(|element| element.error().is_ok())
        };
        let (ready, refused): (Vec<Found>, Vec<Found>) = found.into_iter().partition(is_there);
        self.refused = refused;
        let mut list = TopicPartitionList::new();
        for found in &ready {
            list.add_partition(topic, found.taken.partition);
        }
        member.begin(ready);
        if read && list.count() > 0 {
            self.resume(&list);
        }
    }

    fn resume(&self, list: &TopicPartitionList) {
        if let Err(error) = self.consumer.resume(list) {
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
                        member.step_over_gaps();
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
        let mut list = TopicPartitionList::new();
        for (taken, _) in member.reading() {
            list.add_partition(&member.config.topic, taken.partition);
        }
        list
    }

    /// The queue is full: keep the membership, read nothing.
    fn stand_by(&mut self) {
        let member = Arc::clone(self.consumer.context());
        if let Err(error) = self.consumer.pause(&self.reading()) {
            tracing::warn!(topic = member.config.topic, %error, "partitions could not be paused");
        }
        member.forget_ends();
        while !self.queue.has_space(self.waiting_bytes.div_ceil(2), Duration::ZERO) && !self.queue.is_closed() {
            match self.consumer.poll(POLL) {
                // On its way when the pause began.
                Some(Ok(message)) => drop(member.add(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => self.report(error),
            }
            // A partition that comes now waits as well.
            self.tend(false);
        }
        member.flush();
        member.forget_ends();
        self.resume(&self.reading());
    }
}
