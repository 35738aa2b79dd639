//! A member of the group: which partitions are its own, and what it does when the group's assignment changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use headwater_core::stream::{AssignedSplit, ReaderContext, StreamBatch};
use headwater_core::{Error, Result, SplitId};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use tokio::runtime::Handle;

use crate::batch::BatchBuilder;
use crate::config::KafkaConfig;
use crate::end::End;
use crate::error::kafka;
use crate::mark::{Mark, Marks};
use crate::queue::Queue;
use crate::resolve::{self, Found};
use crate::splits::{before, next_offset, split};
use crate::trouble::{Trouble, Troubled};

/// How often committed records are looked at while others are read.
const LOOK_BACK: Duration = Duration::from_secs(30);

/// What librdkafka calls back on the polling thread, and what that thread shares with the reader.
pub(crate) struct Member {
    pub(crate) config: Arc<KafkaConfig>,
    pub(crate) context: ReaderContext,
    pub(crate) queue: Arc<Queue>,
    runtime: Handle,
    /// Not held: dropping the last one leaves the group, and waits for that.
    consumer: OnceLock<Weak<BaseConsumer<Member>>>,
    state: Mutex<State>,
    trouble: Trouble,
    /// A passing fault was reported, and not yet that it has passed.
    ailing: AtomicBool,
    /// A callback ran during the last poll, so that its `None` does not mean that nothing waits.
    interrupted: AtomicBool,
    /// Somebody is finding out why an offset was out of range.
    wondering_at_offsets: AtomicBool,
    /// Somebody is finding out whether the topic is gone, or another one.
    wondering_at_topic: AtomicBool,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<i32, Partition>,
    /// How many partitions were taken over so far.
    taken: u64,
    /// What is known of partitions that are not read yet.
    found: Vec<Found>,
    join_anew: bool,
    /// When committed records were last looked at.
    looked: Option<Instant>,
}

/// A partition that was taken over, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) partition: i32,
    /// Tells it from the same partition, taken over again.
    time: u64,
}

#[derive(Default)]
struct Partition {
    time: u64,
    /// Where it is to be read on is known, and the reader has been told.
    reading: bool,
    builder: BatchBuilder,
    /// Everything before this offset has been queued for the reader, or is in `builder`.
    next: i64,
    end: End,
    marks: Marks,
    /// A record that was committed some time ago.
    anchor: Option<Mark>,
    /// The newest record that is known to be committed.
    committed: Option<Mark>,
}

impl Member {
    pub(crate) fn new(config: Arc<KafkaConfig>, context: ReaderContext, queue: Arc<Queue>, runtime: Handle) -> Self {
        Self {
            config,
            context,
            queue,
            runtime,
            consumer: OnceLock::new(),
            state: Mutex::default(),
            trouble: Trouble::default(),
            ailing: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            wondering_at_offsets: AtomicBool::new(false),
            wondering_at_topic: AtomicBool::new(false),
        }
    }

    /// Tells it of the consumer whose context it is.
    pub(crate) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        let _ = self.consumer.set(Arc::downgrade(consumer));
    }

    /// The consumer, while there is one.
    pub(crate) fn consumer(&self) -> Option<Arc<BaseConsumer<Self>>> {
        self.consumer.get().and_then(Weak::upgrade)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets that a callback ran.
    pub(crate) fn begin_poll(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
    }

    /// Whether a callback ran since.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Whether the partition is still the one that was taken over, and waits to be read.
    pub(crate) fn awaits(&self, taken: &Taken) -> bool {
        let state = self.state();
        state.partitions.get(&taken.partition).is_some_and(|one| one.time == taken.time && !one.reading)
    }

    /// Where partitions are to be read on, for the polling thread.
    pub(crate) fn found(&self, found: Vec<Found>) {
        self.state().found.extend(found);
    }

    /// Takes what was found of partitions that still wait.
    pub(crate) fn take_found(&self) -> Vec<Found> {
        let found = std::mem::take(&mut self.state().found);
        found.into_iter().filter(|found| self.awaits(&found.taken)).collect()
    }

    /// Whether a partition waits to be read.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state().partitions.values().any(|partition| !partition.reading)
    }

    /// The partitions that are this member's, read or not.
    pub(crate) fn taken(&self) -> Vec<i32> {
        self.state().partitions.keys().copied().collect()
    }

    /// The partitions that are read, each with its next offset.
    pub(crate) fn reading(&self) -> Vec<(Taken, i64)> {
        let state = self.state();
        let reading = state.partitions.iter().filter(|(_, one)| one.reading);
        reading.map(|(&partition, one)| (Taken { partition, time: one.time }, one.next)).collect()
    }

    pub(crate) fn join_anew(&self) {
        self.wondering_at_offsets.store(false, Ordering::Relaxed);
        self.state().join_anew = true;
    }

    /// Whether the group is to be joined anew; once.
    pub(crate) fn is_to_join_anew(&self) -> bool {
        std::mem::take(&mut self.state().join_anew)
    }

    /// These partitions are read from now on: tells the reader, before their first record comes.
    pub(crate) fn begin(&self, found: Vec<Found>) {
        let mut state = self.state();
        let (mut assigned, mut lost) = (Vec::with_capacity(found.len()), Vec::new());
        for Found { taken, position, lost: has_lost, anchor } in found {
            let (Some(one), Some(next)) = (state.partitions.get_mut(&taken.partition), next_offset(&position)) else {
                continue;
            };
            one.reading = true;
            one.next = next;
            one.end.forget();
            one.anchor = anchor;
            let split = split(taken.partition);
            if has_lost {
                let nothing = BatchBuilder::empty(split.clone(), position.clone(), None);
                lost.push(StreamBatch { lost: true, ..nothing });
            }
            assigned.push(AssignedSplit { split, resume: position });
        }
        if !assigned.is_empty() {
            self.queue.assigned(assigned);
        }
        // There may be no record that could say so.
        lost.into_iter().for_each(|batch| self.queue.batch(batch));
    }

    /// Adds a record; gives its size, nothing where it is somebody else's or was read before.
    pub(crate) fn add(&self, message: &BorrowedMessage<'_>) -> usize {
        let mut state = self.state();
        let Some(partition) = state.partitions.get_mut(&message.partition()) else { return 0 };
        if !partition.reading || message.offset() < partition.next {
            return 0;
        }
        partition.next = message.offset() + 1;
        partition.end.record();
        partition.builder.add(message)
    }

    /// librdkafka has come to the end of a partition.
    pub(crate) fn at_end(&self, number: i32) {
        if let Some(partition) = self.state().partitions.get_mut(&number) {
            partition.end.come();
        }
    }

    /// librdkafka has thrown away what it had fetched: what it said of ends speaks of records that are yet to come.
    pub(crate) fn forget_ends(&self) {
        self.state().partitions.values_mut().for_each(|partition| partition.end.forget());
    }

    /// Hands everything that was gathered to the reader.
    pub(crate) fn flush(&self) {
        let mut state = self.state();
        for (&number, partition) in &mut state.partitions {
            let Some((mut batch, mark)) = partition.builder.finish(split(number)) else { continue };
            partition.marks.push(mark);
            batch.lag = partition.end.lag(partition.next);
            self.queue.batch(batch);
        }
    }

    /// Nothing waits in librdkafka: the ends that it named before have been reached.
    pub(crate) fn reach_ends(&self) {
        self.state().partitions.values_mut().for_each(|partition| partition.end.reach());
    }

    /// Goes on behind what holds no record.
    fn step_over_gaps(&self, state: &mut State) {
        for (&number, partition) in &mut state.partitions {
            if let Some(end) = partition.end.step_over(partition.next).filter(|_| partition.reading) {
                partition.next = end;
                self.queue.batch(BatchBuilder::empty(split(number), before(end), partition.end.lag(end)));
            }
        }
    }

    /// The next offset up to which a partition of this member's is committed, and the mark of a record before it.
    pub(crate) fn committed(&self, number: i32, next: i64) -> Option<Option<Mark>> {
        let mut state = self.state();
        let partition = state.partitions.get_mut(&number).filter(|one| one.reading)?;
        let mark = partition.marks.committed(next);
        partition.committed = mark.or(partition.committed);
        partition.anchor = partition.anchor.or(mark);
        Some(mark)
    }

    /// Reports a fault of librdkafka's.
    pub(crate) fn report(&self, error: KafkaError) {
        self.ailing.store(true, Ordering::Relaxed);
        self.queue.error(self.trouble.explain(error, "read the topic"));
    }

    /// Says that a fault has passed, where it has. Else a topic to which nothing is added would seem to ail for ever: librdkafka
    /// reports no connection that is good again.
    fn recover(&self, told: &Statistics, partitions: &BTreeMap<i32, Partition>) {
        let is_up = |id: i32| told.brokers.values().any(|broker| broker.nodeid == id && broker.state == "UP");
        let topic = told.topics.get(&self.config.topic);
        let leader = |number: &i32| topic.and_then(|topic| topic.partitions.get(number)).map(|told| told.leader);
        let well = match partitions.is_empty() {
            true => told.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP"),
            false => partitions.keys().all(|number| leader(number).is_some_and(is_up)),
        };
        if well && self.ailing.swap(false, Ordering::Relaxed) {
            // An event that changes nothing.
            self.queue.assigned(Vec::new());
        }
    }

    /// Finds out why librdkafka asked for an offset that is not there, unless somebody does so already.
    pub(crate) fn wonder_at_offsets(&self, consumer: &BaseConsumer<Self>) {
        if !self.wondering_at_offsets.swap(true, Ordering::Relaxed) {
            self.runtime.spawn(resolve::out_of_range(Arc::clone(consumer.context())));
        }
    }

    /// Finds out whether the topic is gone or another one, unless somebody does so already.
    pub(crate) fn wonder_at_topic(&self, consumer: &BaseConsumer<Self>) {
        self.once(consumer, resolve::doubtful_topic);
    }

    /// Looks whether the topic is still the one that was read, unless somebody does so already.
    fn look_back(&self, consumer: &BaseConsumer<Self>) {
        self.once(consumer, resolve::look_back);
    }

    fn once<F: Future<Output = ()> + Send + 'static>(
        &self,
        consumer: &BaseConsumer<Self>,
        look: impl FnOnce(Arc<Self>) -> F,
    ) {
        if self.wondering_at_topic.swap(true, Ordering::Relaxed) {
            return;
        }
        let member = Arc::clone(consumer.context());
        let looking = look(Arc::clone(&member));
        self.runtime.spawn(async move {
            looking.await;
            member.wondering_at_topic.store(false, Ordering::Relaxed);
        });
    }

    /// Of each partition that is read a record that was committed some time ago, and the newest one that was.
    pub(crate) fn anchors(&self) -> BTreeMap<i32, (Mark, Option<Mark>)> {
        let state = self.state();
        let reading = state.partitions.iter().filter(|(_, one)| one.reading);
        reading.filter_map(|(number, one)| Some((*number, (one.anchor?, one.committed)))).collect()
    }

    /// These records are of the topic that was read all the time.
    pub(crate) fn anchored(&self, marks: impl Iterator<Item = (i32, Mark)>) {
        let mut state = self.state();
        for (number, mark) in marks {
            if let Some(partition) = state.partitions.get_mut(&number) {
                partition.anchor = Some(mark);
            }
        }
    }

    /// Takes partitions over. librdkafka is not told to read them yet: what is to be known of them is asked outside of the
    /// callback, because the group waits for this one.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let mut taken = Vec::new();
        {
            let mut state = self.state();
            for partition in list.elements().iter().map(|element| element.partition()) {
                state.taken += 1;
                let time = state.taken;
                state.partitions.insert(partition, Partition { time, ..Partition::default() });
                taken.push(Taken { partition, time });
            }
        }
        if let Err(error) = self.take_up(consumer, &[]) {
            return self.queue.error(error);
        }
        if !taken.is_empty() {
            self.runtime.spawn(resolve::resolve(Arc::clone(consumer.context()), taken));
        }
    }

    /// Has librdkafka read these partitions beside those that it reads.
    ///
    /// Not before their position is known: a partition that is taken over paused and has to seek depends on orders that
    /// librdkafka may lose.
    ///
    /// # Errors
    /// A permanent one: the group takes the partitions for read from then on, and they are not.
    pub(crate) fn take_up(&self, consumer: &BaseConsumer<Self>, found: &[Found]) -> Result<()> {
        self.add_to_read(consumer, found).map_err(|error| {
            Error::unexpected("the Kafka client does not take over what the group has given it")
                .with_plugin("kafka")
                .with_source(error)
        })
    }

    fn add_to_read(&self, consumer: &BaseConsumer<Self>, found: &[Found]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for Found { taken, position, .. } in found {
            let next = next_offset(position).unwrap_or(0);
            list.add_partition_offset(&self.config.topic, taken.partition, Offset::Offset(next))?;
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            // All at once, and those that are read begin again behind what was taken from librdkafka.
            RebalanceProtocol::Eager | RebalanceProtocol::None => {
                for (taken, next) in self.reading() {
                    list.add_partition_offset(&self.config.topic, taken.partition, Offset::Offset(next))?;
                }
                self.forget_ends();
                consumer.assign(&list)
            }
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let numbers = list.elements().iter().map(|element| element.partition()).collect::<Vec<_>>();
        let read = self.list(self.let_go(&numbers, consumer.assignment_lost()));
        // Paused, it would stay so when it comes back.
        let done = consumer.resume(&read).and_then(|()| match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&read),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        });
        if let Err(error) = done {
            self.queue.error(kafka(error, "hand over partitions"));
        }
    }

    /// Gives those of the partitions that are read, of which librdkafka knows as well.
    fn let_go(&self, numbers: &[i32], lost: bool) -> Vec<i32> {
        let mut known = Vec::with_capacity(numbers.len());
        let mut state = self.state();
        for number in numbers {
            match state.partitions.get_mut(number) {
                // What was gathered and not yet queued goes: the next owner reads it.
                Some(gone) if gone.reading => {
                    gone.builder = BatchBuilder::default();
                    gone.end.forget();
                    known.push(*number);
                }
                // The reader has not heard of it yet.
                Some(_) => drop(state.partitions.remove(number)),
                None => {}
            }
        }
        drop(state);
        if !known.is_empty() {
            let splits: Vec<SplitId> = known.iter().copied().map(split).collect();
            // Still owned while the engine finishes: its last commits are taken.
            self.queue.revoke(&splits, (!lost).then(|| self.config.revoke_timeout.to_std()));
            let mut state = self.state();
            for number in &known {
                state.partitions.remove(number);
            }
        }
        known
    }

    /// Partitions of the topic, as librdkafka wants them.
    pub(crate) fn list(&self, numbers: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for number in numbers {
            list.add_partition(&self.config.topic, number);
        }
        list
    }
}

impl Troubled for Member {
    fn trouble(&self) -> &Trouble {
        &self.trouble
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // Lines come ahead of records that were there before them, too.
        self.interrupted.store(true, Ordering::Relaxed);
        self.trouble.log(facility, line);
        crate::trouble::log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        // They come ahead of records that were there before them.
        self.interrupted.store(true, Ordering::Relaxed);
        let mut fewer = false;
        let mut state = self.state();
        self.step_over_gaps(&mut state);
        for (number, told) in statistics.topics.get(&self.config.topic).iter().flat_map(|topic| &topic.partitions) {
            let Some(partition) = state.partitions.get_mut(number) else { continue };
            // A topic does not lose its newest records, so this may be another one. librdkafka reads on in it all the same,
            // and says nothing where it has as many records as were read.
            fewer |= partition.end.told(told);
        }
        let now = Instant::now();
        let look = now.duration_since(*state.looked.get_or_insert(now)) >= LOOK_BACK;
        if look {
            state.looked = Some(now);
        }
        self.recover(&statistics, &state.partitions);
        drop(state);
        match self.consumer() {
            Some(consumer) if fewer => self.wonder_at_topic(&consumer),
            Some(consumer) if look => self.look_back(&consumer),
            _ => {}
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.error(&error, reason);
        // The end of a partition comes as an error, too.
        if !matches!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::PartitionEOF)) {
            tracing::warn!(topic = self.config.topic, %error, reason, "the Kafka client reports");
        }
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.interrupted.store(true, Ordering::Relaxed);
        // For the time of a rebalance librdkafka pauses what it reads, also what stays.
        self.forget_ends();
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.interrupted.store(true, Ordering::Relaxed);
        if let Err(error) = result {
            tracing::warn!(topic = self.config.topic, %error, "offsets were not committed");
        }
    }
}
