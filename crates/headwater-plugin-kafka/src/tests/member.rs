//! A member of a group on the mock cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::stream::{Checkpoints, FixedCheckpoints, Progress, ReaderContext, StartPosition, StreamEvent};
use headwater_core::time::SystemClock;
use headwater_core::{Position, SplitId};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList, statistics};
use tokio::sync::Semaphore;

use super::*;
use crate::client;
use crate::member::Member;
use crate::queue::Queue;
use crate::worker::Worker;

fn member(servers: &str, checkpoints: Arc<dyn Checkpoints>) -> Member {
    let context = ReaderContext {
        group: "group".into(),
        start: StartPosition::Earliest,
        checkpoints,
        buffer_bytes: 1 << 20,
        batch_records: 1,
        refresh: Duration::from_secs(1),
        clock: Arc::new(SystemClock),
    };
    let options = json!({"bootstrap_servers": servers, "topic": "drivers"});
    let options = Arc::new(KafkaConfig::from_config(&config(options)).unwrap());
    Member::new(options, context, Arc::new(Queue::default()), tokio::runtime::Handle::current())
}

/// The consumer of such a member.
fn consumer(servers: &str, checkpoints: Arc<dyn Checkpoints>) -> Arc<BaseConsumer<Member>> {
    let member = member(servers, checkpoints);
    let client = client::consumer(&member.config, "group", 1 << 20, Duration::from_secs(1));
    let consumer: Arc<BaseConsumer<Member>> = Arc::new(client.create_with_context(member).unwrap());
    consumer.context().belongs_to(&consumer);
    consumer
}

/// A member of a group with its polling thread. The topic has two partitions.
struct Working {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    consumer: Arc<BaseConsumer<Member>>,
    queue: Arc<Queue>,
    thread: std::thread::JoinHandle<()>,
}

impl Working {
    /// Does something with the consumer before it subscribes.
    fn begin(checkpoints: Arc<dyn Checkpoints>, first: impl FnOnce(&BaseConsumer<Member>)) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("drivers", 2, 1).unwrap();
        let consumer = consumer(&cluster.bootstrap_servers(), checkpoints);
        let (queue, context) = (Arc::clone(&consumer.context().queue), consumer.context().context.clone());
        first(&consumer);
        consumer.subscribe(&["drivers"]).unwrap();
        let worker = Worker::new(Arc::clone(&consumer), Arc::clone(&queue), &context);
        let thread = std::thread::spawn(move || worker.run());
        Self { _cluster: cluster, consumer, queue, thread }
    }

    /// What librdkafka reads, and from where.
    fn read(&self) -> Vec<(i32, Offset)> {
        let assigned = self.consumer.assignment().unwrap();
        assigned.elements().iter().map(|one| (one.partition(), one.offset())).collect()
    }

    async fn next(&self) -> headwater_core::Result<StreamEvent> {
        tokio::time::timeout(Duration::from_secs(30), self.queue.next(&mut None)).await.unwrap().unwrap()
    }

    async fn end(self) {
        self.queue.close();
        drop(self.consumer);
        tokio::task::spawn_blocking(move || self.thread.join()).await.unwrap().unwrap();
    }
}

/// A poll that ends with nothing says that nothing waits, and gaps are stepped over, unless something that librdkafka
/// puts before the records has ended it.
#[tokio::test]
async fn whatever_comes_ahead_of_records_interrupts_a_poll() {
    let member = member("localhost:9092", Arc::new(FixedCheckpoints::default()));
    for call in [
        |member: &Member| member.log(RDKafkaLogLevel::Error, "FAIL", "a connection was closed"),
        |member: &Member| member.stats(rdkafka::Statistics::default()),
    ] {
        member.begin_poll();
        assert!(!member.was_interrupted());
        call(&member);
        assert!(member.was_interrupted());
    }
}

#[tokio::test]
async fn partitions_that_cannot_be_taken_over_end_the_reader() {
    let working = Working::begin(Arc::new(FixedCheckpoints::default()), |consumer| {
        // librdkafka takes no partition over that it has already.
        let mut there = TopicPartitionList::new();
        there.add_partition_offset("drivers", 1, Offset::End).unwrap();
        consumer.incremental_assign(&there).unwrap();
    });
    let error = loop {
        match working.next().await {
            Err(error) if !error.is_retryable() => break error,
            other => assert!(other.is_err(), "{other:?}"),
        }
    };
    assert!(error.to_string().contains("does not take over what the group has given it"), "{error}");
    working.end().await;
}

/// Statistics that name the end of partition 0.
fn told(end: i64) -> Statistics {
    let partition = statistics::Partition { eof_offset: end, ..Default::default() };
    let topic = statistics::Topic { partitions: [(0, partition)].into(), ..Default::default() };
    Statistics { topics: [("drivers".to_owned(), topic)].into(), ..Default::default() }
}

#[tokio::test]
async fn a_gap_is_stepped_over_unless_a_rebalance_has_thrown_away_what_may_fill_it() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("drivers", 1, 1).unwrap();
    let consumer = consumer(&cluster.bootstrap_servers(), Arc::new(FixedCheckpoints::default()));
    let member = Arc::clone(consumer.context());
    let queue = Arc::clone(&member.queue);
    let rebalance = |partitions: &[i32]| {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition("drivers", *partition);
        }
        member.rebalance(&consumer, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, &mut list);
    };
    rebalance(&[0]);
    let found = loop {
        let found = member.take_found();
        if !found.is_empty() {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    member.begin(found);
    let next = || async { tokio::time::timeout(Duration::from_millis(100), queue.next(&mut None)).await };
    assert!(matches!(next().await, Ok(Some(Ok(StreamEvent::Assigned(_))))));
    // The statistics name an end, nothing waits, and the next ones come.
    let steps_over = |end: i64| {
        member.at_end(0);
        member.stats(told(end));
        member.reach_ends();
    };
    steps_over(10);
    member.stats(told(10));
    let stepped = next().await.unwrap().unwrap().unwrap();
    assert!(matches!(&stepped, StreamEvent::Batch(batch) if batch.through == Position::from_u64(9)), "{stepped:?}");
    steps_over(20);
    rebalance(&[]);
    member.stats(told(20));
    let nothing = next().await;
    assert!(nothing.is_err(), "{nothing:?}");
}

/// Checkpoints that cannot be read before there is a permit for each.
#[derive(Debug)]
struct Gate(Semaphore);

#[async_trait]
impl Checkpoints for Gate {
    async fn resume(&self, _: &SplitId) -> headwater_core::Result<Option<Progress>> {
        self.0.acquire().await.unwrap().forget();
        Ok(Some(Progress::Through(Position::START)))
    }

    async fn started(&self) -> headwater_core::Result<bool> {
        Ok(true)
    }

    async fn noted(&self, _: &str) -> headwater_core::Result<Option<Bytes>> {
        Ok(None)
    }

    async fn note(&self, _: &[(String, Bytes)]) -> headwater_core::Result<()> {
        Ok(())
    }
}

/// Told to begin somewhere and to seek then, librdkafka may go back to where it was told to begin, when the answer where
/// that is comes late. What lies between is lost.
#[tokio::test]
async fn no_partition_is_read_before_its_position_is_known() {
    let gate = Arc::new(Gate(Semaphore::new(0)));
    let working = Working::begin(Arc::clone(&gate) as Arc<dyn Checkpoints>, |_| {});
    while working.consumer.context().taken().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The group has given it two, and waits for neither.
    assert_eq!(working.read(), []);
    gate.0.add_permits(2);
    let assigned = working.next().await.unwrap();
    assert!(matches!(&assigned, StreamEvent::Assigned(splits) if splits.len() == 2), "{assigned:?}");
    assert_eq!(working.read(), [(0, Offset::Offset(0)), (1, Offset::Offset(0))]);
    working.end().await;
}
