//! One member of the group, as the engine sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use headwater_core::stream::{Progress, ReaderContext, StreamEvent};
use headwater_core::{Error, ErrorKind, Result, SplitId, StreamReader};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::Offset;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::client;
use crate::config::KafkaConfig;
use crate::error::kafka;
use crate::mark::Mark;
use crate::member::Member;
use crate::queue::{Acknowledged, Queue};
use crate::splits::{next_offset, partition};
use crate::stream::{blocking, first_partitions};
use crate::worker::Worker;

/// How often committed records are marked. The first ones of a partition are marked at once.
const MARK_INTERVAL: Duration = Duration::from_secs(5);
/// How long leaving may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last marks may take: the next reader finds older ones.
const LAST_MARKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the partitions that the group gives this member.
///
/// A thread polls librdkafka all the time, so that rebalances and heartbeats go on whatever the engine does; what it has
/// read waits in a queue bounded in bytes, and while the queue is full the partitions are paused.
pub(crate) struct KafkaStreamReader {
    config: Arc<KafkaConfig>,
    context: ReaderContext,
    consumer: Arc<BaseConsumer<Member>>,
    queue: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
    to_acknowledge: Option<Arc<Acknowledged>>,
    marking: Marking,
}

/// Marks of committed records on their way to the notes.
#[derive(Default)]
struct Marking {
    pending: BTreeMap<i32, Mark>,
    /// When marks were last given away, for the partitions that have one.
    last: BTreeMap<i32, Instant>,
    task: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for KafkaStreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaStreamReader").field("topic", &self.config.topic).finish_non_exhaustive()
    }
}

impl KafkaStreamReader {
    /// Joins the group, and starts to read. Blocks until a broker has told of the topic.
    pub(crate) fn subscribe(config: Arc<KafkaConfig>, context: ReaderContext, runtime: Handle) -> Result<Self> {
        let client = client::consumer(&config, &context.group, context.buffer_bytes, context.refresh);
        let queue = Arc::new(Queue::default());
        let member = Member::new(Arc::clone(&config), context.clone(), Arc::clone(&queue), runtime);
        let consumer: BaseConsumer<Member> =
            client.create_with_context(member).map_err(|error| kafka(error, "make a consumer"))?;
        let consumer = Arc::new(consumer);
        consumer.context().belongs_to(&consumer);
        // A topic that is not there is told at once, and not when the group has been joined.
        first_partitions(&consumer, &config.topic)?;
        consumer.subscribe(&[&config.topic]).map_err(|error| kafka(error, "subscribe to the topic"))?;
        let worker = Worker::new(Arc::clone(&consumer), Arc::clone(&queue), &context);
        let thread = std::thread::Builder::new()
            .name(format!("kafka {}", config.topic))
            .spawn(move || worker.run())
            .map_err(|error| Error::unexpected("cannot start a thread").with_plugin("kafka").with_source(error))?;
        let marking = Marking::default();
        Ok(Self { config, context, consumer, queue, thread: Some(thread), to_acknowledge: None, marking })
    }

    /// Notes marks that are due, beside what goes on: a store that is slow holds nothing up.
    fn mark(&mut self) {
        if self.marking.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let now = Instant::now();
        let last = &mut self.marking.last;
        let is_due = |number: &i32| last.get(number).is_none_or(|last| now.duration_since(*last) >= MARK_INTERVAL);
        let due: Vec<i32> = self.marking.pending.keys().copied().filter(is_due).collect();
        if due.is_empty() {
            return;
        }
        last.extend(due.iter().map(|number| (*number, now)));
        let notes = due.iter().filter_map(|number| Some((*number, self.marking.pending.remove(number)?))).collect();
        self.marking.task = Some(tokio::spawn(note(self.context.clone(), notes)));
    }
}

async fn note(context: ReaderContext, marks: Vec<(i32, Mark)>) {
    let notes: Vec<_> = marks.into_iter().map(|(number, mark)| (Mark::name(number), mark.to_note())).collect();
    if let Err(error) = context.checkpoints.note(&notes).await {
        // An older mark stays, and serves as well.
        tracing::warn!(%error, "committed records were not marked");
    }
}

impl Drop for KafkaStreamReader {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[async_trait]
impl StreamReader for KafkaStreamReader {
    async fn next(&mut self) -> Result<Option<StreamEvent>> {
        if let Some(acknowledged) = self.to_acknowledge.take() {
            self.queue.acknowledge(&acknowledged);
        }
        self.queue.next(&mut self.to_acknowledge).await.transpose()
    }

    async fn commit(&mut self, commits: &[(SplitId, Progress)]) -> Result<()> {
        let member = Arc::clone(self.consumer.context());
        let mut offsets = TopicPartitionList::new();
        for (split, progress) in commits {
            let (Some(partition), Progress::Through(position)) = (partition(split), progress) else { continue };
            let Some(offset) = next_offset(position) else { continue };
            let Some(mark) = member.committed(partition, offset) else { continue };
            self.marking.pending.extend(mark.map(|mark| (partition, mark)));
            offsets
                .add_partition_offset(&self.config.topic, partition, Offset::Offset(offset))
                .map_err(|error| kafka(error, "commit offsets"))?;
        }
        self.mark();
        if offsets.count() == 0 {
            return Ok(());
        }
        self.consumer.commit(&offsets, CommitMode::Async).map_err(|error| kafka(error, "commit offsets"))
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.queue.close();
        let marks: Vec<(i32, Mark)> = std::mem::take(&mut self.marking.pending).into_iter().collect();
        let (context, task, thread) = (self.context.clone(), self.marking.task.take(), self.thread.take());
        // The thread has to drop the last one: that leaves the group, and waits for it.
        drop(self);
        let last_marks = async {
            if let Some(task) = task {
                drop(task.await);
            }
            if !marks.is_empty() {
                note(context, marks).await;
            }
        };
        if tokio::time::timeout(LAST_MARKS_TIMEOUT, last_marks).await.is_err() {
            tracing::warn!("the last committed records were not marked in time");
        }
        let Some(thread) = thread else { return Ok(()) };
        // A broker that is away must not keep a stop waiting for long.
        let ended = blocking(move || {
            thread.join().map_err(|_| Error::unexpected("the polling thread panicked").with_plugin("kafka"))
        });
        let left = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
        left.unwrap_or_else(|_| {
            let message = format!("the group was not left in {} s", CLOSE_TIMEOUT.as_secs());
            Err(Error::new(ErrorKind::Unavailable, message).with_plugin("kafka"))
        })
    }
}
