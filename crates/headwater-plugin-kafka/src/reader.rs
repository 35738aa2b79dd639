//! One member of the group, as the engine sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use headwater_core::stream::{Progress, ReaderContext, StreamEvent};
use headwater_core::{Error, Result, SplitId, StreamReader};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::Offset;

use crate::client;
use crate::config::KafkaConfig;
use crate::error::kafka;
use crate::queue::{Acknowledged, Queue};
use crate::splits::{next_offset, partition};
use crate::stream::blocking;
use crate::worker::{Member, Worker};

/// Reads the partitions that the group gives this member.
///
/// A thread polls librdkafka all the time, so that rebalances and heartbeats go on whatever the engine does; what it has
/// read waits in a queue bounded in bytes, and while the queue is full the partitions are paused.
pub(crate) struct KafkaStreamReader {
    config: Arc<KafkaConfig>,
    consumer: Arc<BaseConsumer<Member>>,
    queue: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
    to_acknowledge: Option<Arc<Acknowledged>>,
}

impl std::fmt::Debug for KafkaStreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaStreamReader").field("topic", &self.config.topic).finish_non_exhaustive()
    }
}

impl KafkaStreamReader {
    pub(crate) fn subscribe(config: Arc<KafkaConfig>, context: ReaderContext) -> Result<Self> {
        let mut client = client::consumer(&config, &context.group, context.buffer_bytes);
        client.set("topic.metadata.refresh.interval.ms", context.refresh.as_millis().max(10).to_string());
        let queue = Arc::new(Queue::default());
        let member = Member::new(Arc::clone(&config), context.clone(), Arc::clone(&queue));
        let consumer: BaseConsumer<Member> =
            client.create_with_context(member).map_err(|error| kafka(error, "make a consumer"))?;
        consumer.subscribe(&[&config.topic]).map_err(|error| kafka(error, "subscribe to the topic"))?;
        let consumer = Arc::new(consumer);
        let worker = Worker::new(Arc::clone(&consumer), Arc::clone(&queue), &context);
        let thread = std::thread::Builder::new()
            .name(format!("kafka {}", config.topic))
            .spawn(move || worker.run())
            .map_err(|error| Error::unexpected("cannot start a thread").with_source(error))?;
        Ok(Self { config, consumer, queue, thread: Some(thread), to_acknowledge: None })
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
        let owned = self.consumer.context().owned();
        let mut offsets = TopicPartitionList::new();
        for (split, progress) in commits {
            let (Some(partition), Progress::Through(position)) = (partition(split), progress) else { continue };
            let Some(offset) = next_offset(position).filter(|_| owned.contains(&partition)) else { continue };
            offsets
                .add_partition_offset(&self.config.topic, partition, Offset::Offset(offset))
                .map_err(|error| kafka(error, "commit offsets"))?;
        }
        if offsets.count() == 0 {
            return Ok(());
        }
        self.consumer.commit(&offsets, CommitMode::Async).map_err(|error| kafka(error, "commit offsets"))
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.queue.close();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // The thread leaves the group on its way out; a broker that is away must not keep a stop waiting for long.
        let ended = blocking(move || {
            thread.join().map_err(|_| Error::unexpected("the polling thread panicked").with_plugin("kafka"))
        });
        match tokio::time::timeout(Duration::from_secs(10), ended).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(headwater_core::ErrorKind::Unavailable, "the group was not left in 10 s")
                .with_plugin("kafka")),
        }
    }
}
