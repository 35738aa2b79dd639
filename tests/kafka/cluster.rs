//! The cluster, its topics, and a producer that goes on in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headwater_tests::drivers::Event;
use headwater_tests::wait_for;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::message::{DeliveryResult, Message, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;
use xtask::services::Kafka;

/// How long anything may take before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const NODES: usize = 2;

/// Two nodes of Apache Kafka.
pub(crate) struct Cluster {
    pub(crate) kafka: Kafka,
    runtime: Runtime,
    admin: AdminClient<DefaultClientContext>,
    topics: usize,
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let kafka = Kafka::start(folder.path(), NODES)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let admin = runtime.block_on(async { client(&kafka).create() }).map_err(|error| error.to_string())?;
        Ok(Self { kafka, runtime, admin, topics: 0, _folder: folder })
    }

    /// Starts the nodes that are down.
    pub(crate) fn restore(&mut self) {
        for node in 1..=NODES {
            if self.kafka.pid(node).is_none() {
                self.kafka.start_node(node).unwrap();
            }
        }
        wait_for("both brokers", PATIENCE, || {
            let metadata = self.admin.inner().fetch_metadata(None, Duration::from_secs(5));
            metadata.is_ok_and(|metadata| metadata.brokers().len() == NODES)
        });
    }

    /// A new topic with a replica of each partition on both nodes.
    pub(crate) fn topic(&mut self, partitions: i32) -> String {
        self.topic_with(partitions, &[("retention.ms", "-1")])
    }

    /// The same of one partition, of which the last record of a key is kept, and what nobody has looked through yet.
    pub(crate) fn compacted_topic(&mut self) -> String {
        let settings = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "50"),
            ("min.cleanable.dirty.ratio", "0.0"),
            ("min.compaction.lag.ms", "0"),
            ("max.compaction.lag.ms", "1"),
        ];
        self.topic_with(1, &settings)
    }

    fn topic_with(&mut self, partitions: i32, settings: &[(&str, &str)]) -> String {
        self.topics += 1;
        let name = format!("events-{}", self.topics);
        self.make(&name, partitions, settings);
        name
    }

    /// As [`topic`](Self::topic), of this name.
    pub(crate) fn named_topic(&self, name: &str, partitions: i32) {
        self.make(name, partitions, &[("retention.ms", "-1")]);
    }

    fn make(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(2));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let made = self.runtime.block_on(self.admin.create_topics([&topic], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    /// Appends a record.
    pub(crate) fn put<P: ToBytes + ?Sized>(&self, record: FutureRecord<'_, str, P>) {
        self.put_all([record]);
    }

    /// Appends records, one after the other.
    pub(crate) fn put_all<'a, P: ToBytes + ?Sized + 'a>(
        &self,
        records: impl IntoIterator<Item = FutureRecord<'a, str, P>>,
    ) {
        self.runtime.block_on(async {
            let producer: FutureProducer = client(&self.kafka).create().unwrap();
            for record in records {
                producer.send(record, PATIENCE).await.map_err(|(error, _)| error).unwrap();
            }
        });
    }

    /// Appends a record in a transaction that is aborted.
    pub(crate) fn abort(&self, record: FutureRecord<'_, str, String>) {
        self.begin(record).abort_transaction(PATIENCE).unwrap();
    }

    /// Appends a record in a transaction that is still open; who has the producer ends it.
    pub(crate) fn begin(&self, record: FutureRecord<'_, str, String>) -> FutureProducer {
        let producer: FutureProducer = self
            .runtime
            .block_on(async { client(&self.kafka).set("transactional.id", record.topic).create() })
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        self.runtime.block_on(producer.send(record, PATIENCE)).map_err(|(error, _)| error).unwrap();
        producer
    }

    /// Deletes a topic, and makes another one of the same name.
    pub(crate) fn make_anew(&self, name: &str, partitions: i32) {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for gone in self.runtime.block_on(self.admin.delete_topics(&[name], &options)).unwrap() {
            gone.unwrap();
        }
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(2)).set("retention.ms", "-1");
        wait_for("the name to be free", PATIENCE, || {
            let made = self.runtime.block_on(self.admin.create_topics([&topic], &options)).unwrap();
            made.iter().all(Result::is_ok)
        });
    }

    /// Removes the records of partition 0 before an offset, as retention does.
    pub(crate) fn delete_before(&self, topic: &str, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
        let deleted = self.runtime.block_on(self.admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
        deleted.elements().iter().for_each(|one| one.error().unwrap());
    }

    /// The offsets of the records in partition 0.
    pub(crate) fn offsets(&self, topic: &str) -> Vec<i64> {
        let mut config = client(&self.kafka);
        config.set("group.id", "offsets").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut beginning = TopicPartitionList::new();
        beginning.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&beginning).unwrap();
        let begin = Instant::now();
        let mut offsets = Vec::new();
        while begin.elapsed() < PATIENCE {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => offsets.push(message.offset()),
                Some(Err(KafkaError::PartitionEOF(_))) => return offsets,
                Some(Err(_)) | None => {}
            }
        }
        panic!("waited {PATIENCE:?} for the end of {topic}, with {offsets:?}");
    }

    /// Adds partitions.
    pub(crate) fn grow(&self, topic: &str, partitions: usize) {
        let grown = NewPartitions::new(topic, partitions);
        let made = self.runtime.block_on(self.admin.create_partitions([&grown], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    /// How many of a topic's partitions a node leads.
    pub(crate) fn led_by(&self, topic: &str, node: i32) -> usize {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5));
        metadata.map_or(0, |metadata| {
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            partitions.filter(|partition| partition.leader() == node).count()
        })
    }

    /// How many members of a group have partitions, when no rebalance is under way.
    pub(crate) fn members(&self, group: &str) -> usize {
        let Ok(groups) = self.admin.inner().fetch_group_list(Some(group), Duration::from_secs(5)) else { return 0 };
        let stable = groups.groups().iter().filter(|group| group.state() == "Stable");
        // Behind the version of the format stands the count of topics.
        let has_some = |member: &&GroupMemberInfo| {
            member.assignment().and_then(|assigned| assigned.get(2..6)).is_some_and(|topics| topics != [0; 4])
        };
        stable.map(|group| group.members().iter().filter(has_some).count()).sum()
    }
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", kafka.bootstrap_servers()).set("topic.metadata.refresh.interval.ms", "500");
    client
}

/// Counts what was delivered.
#[derive(Default)]
struct Deliveries {
    done: AtomicU64,
    failed: AtomicU64,
}

/// The context of the producer.
struct Counting(Arc<Deliveries>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let counter = if delivery.is_ok() { &self.0.done } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends numbered records from a thread of its own until it is finished.
pub(crate) struct Sender {
    enough: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<usize>,
}

impl Sender {
    /// Begins to send to a topic, about so many records a second; `event` makes the record of a number.
    pub(crate) fn start(
        cluster: &Cluster,
        topic: &str,
        rate: usize,
        event: impl Fn(usize) -> Event + Send + 'static,
    ) -> Self {
        let deliveries = Arc::new(Deliveries::default());
        let mut config = client(&cluster.kafka);
        // Once each, whatever brokers do meanwhile, and in a partition that was just made: what is counted in the end is what
        // was sent.
        config.set("enable.idempotence", "true").set("max.in.flight.requests.per.connection", "1");
        config.set("linger.ms", "5").set("message.timeout.ms", "120000");
        let producer: BaseProducer<Counting> = config.create_with_context(Counting(Arc::clone(&deliveries))).unwrap();
        let (enough, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count, topic) = (Arc::clone(&enough), Arc::clone(&sent), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..rate.div_ceil(100) {
                    let event = event(number);
                    send(&producer, BaseRecord::to(&topic).key(&event.key).payload(&event.value));
                    number += 1;
                }
                count.store(number, Ordering::Relaxed);
                // A hundredth of a second's records, a hundred times a second.
                producer.poll(Duration::from_millis(10));
                std::thread::sleep(Duration::from_millis(9));
            }
            producer.flush(Duration::from_secs(120)).unwrap();
            let (done, failed) = (deliveries.done.load(Ordering::Relaxed), deliveries.failed.load(Ordering::Relaxed));
            assert_eq!((done, failed), (number as u64, 0), "not every record was delivered");
            number
        });
        Self { enough, sent, thread }
    }

    /// How many records it has sent; each with a lower number is on its way, if not there.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and says how many records there are; all of them are in the topic.
    pub(crate) fn finish(self) -> usize {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn send(producer: &BaseProducer<Counting>, mut record: BaseRecord<'_, String, String>) {
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                producer.poll(Duration::from_millis(50));
                record = again;
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}
