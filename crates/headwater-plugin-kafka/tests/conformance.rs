//! The stream source against its contract: on librdkafka's mock cluster, and on the brokers of `KAFKA_BOOTSTRAP_SERVERS`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::StreamSource;
use headwater_core::{Error, Result, SplitId};
use headwater_plugin_kafka::PLUGIN;
use headwater_testkit::stream::{Record, StreamFixture};
use headwater_testkit::{applying, named, run, stream};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

struct Kafka {
    bootstrap_servers: String,
    admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
    mock: Option<Mock>,
    run: u32,
    topics: AtomicU64,
}

/// A mock cluster on a thread of its own: it cannot be shared between threads.
struct Mock(Mutex<SyncSender<(String, i32, SyncSender<bool>)>>);

impl Mock {
    /// Starts it; gives its address too.
    fn start() -> (Self, String) {
        let (requests, taken) = sync_channel::<(String, i32, SyncSender<bool>)>(1);
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).expect("a mock cluster");
            tell.send(cluster.bootstrap_servers()).expect("somebody waits");
            for (topic, partitions, reply) in taken {
                let made = cluster.create_topic(&topic, partitions, 1).is_ok();
                reply.send(made).expect("somebody waits");
            }
        });
        (Self(Mutex::new(requests)), told.recv().expect("the mock cluster starts"))
    }

    fn create_topic(&self, topic: &str, partitions: i32) -> bool {
        let (reply, made) = sync_channel(1);
        let requests = self.0.lock().expect("no test panics with it");
        requests.send((topic.to_owned(), partitions, reply)).is_ok() && made.recv().unwrap_or(false)
    }
}

struct Topic {
    name: String,
    partitions: AtomicU64,
}

impl Kafka {
    /// A cluster in this process.
    fn mock() -> Self {
        let (mock, bootstrap_servers) = Mock::start();
        Self::at(bootstrap_servers, Some(mock))
    }

    /// The brokers that the environment names.
    fn given() -> Option<Self> {
        std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().map(|given| Self::at(given, None))
    }

    fn at(bootstrap_servers: String, mock: Option<Mock>) -> Self {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &bootstrap_servers).set("linger.ms", "0");
        // A record that is sent again keeps its place and comes once. One request in flight is not enough for that: the
        // next one may stand behind it already, and takes its place when it fails. Nor is idempotence: a partition that
        // is so new that it refuses the first request takes the second one, and then the first one for a repetition.
        client.set("enable.idempotence", "true").set("max.in.flight.requests.per.connection", "1");
        let (admin, producer) = (client.create().expect("an admin client"), client.create().expect("a producer"));
        Self { bootstrap_servers, admin, producer, mock, run: std::process::id(), topics: AtomicU64::new(0) }
    }
}

fn failed(error: impl std::fmt::Debug) -> Error {
    Error::unexpected(format!("{error:?}"))
}

#[async_trait]
impl StreamFixture for Kafka {
    type Stream = Topic;

    async fn create(&self, splits: usize) -> Result<Topic> {
        let name = format!("conformance-{}-{}", self.run, self.topics.fetch_add(1, Ordering::Relaxed));
        let partitions = i32::try_from(splits.max(1)).map_err(failed)?;
        if splits == 0 {
            return Err(Error::unsupported("a topic has at least one partition"));
        }
        match &self.mock {
            Some(mock) if mock.create_topic(&name, partitions) => {}
            Some(_) => return Err(failed("the mock cluster made no topic")),
            None => {
                let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1))
                    // The suite's records are years old.
                    .set("retention.ms", "-1");
                for made in self.admin.create_topics([&topic], &AdminOptions::new()).await.map_err(failed)? {
                    made.map_err(failed)?;
                }
            }
        }
        Ok(Topic { name, partitions: AtomicU64::new(u64::try_from(splits).map_err(failed)?) })
    }

    async fn open(&self, topic: &Topic, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        let config = Config {
            name: "source `conformance`".into(),
            options: [
                ("bootstrap_servers".to_string(), self.bootstrap_servers.clone().into()),
                ("topic".to_string(), topic.name.clone().into()),
                ("revoke_timeout".to_string(), "2s".into()),
            ]
            .into(),
            base_dir: ".".into(),
        };
        let role = PLUGIN.stream.ok_or_else(|| failed("no stream role"))?;
        (role.open)(&config, context)
    }

    fn split(&self, _: &Topic, index: usize) -> SplitId {
        SplitId::new(u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes().to_vec())
    }

    async fn produce(&self, topic: &Topic, split: usize, records: &[Record]) -> Result<()> {
        let values: Vec<String> = records.iter().map(Record::json).collect();
        let mut sent = Vec::new();
        for (record, value) in records.iter().zip(&values) {
            let record = FutureRecord::<(), String>::to(&topic.name)
                .partition(i32::try_from(split).map_err(failed)?)
                .timestamp(record.time.div_euclid(1000))
                .payload(value);
            sent.push(self.producer.send_result(record).map_err(failed)?);
        }
        for delivery in sent {
            delivery.await.map_err(failed)?.map_err(failed)?;
        }
        Ok(())
    }

    async fn add_split(&self, topic: &Topic) -> Result<usize> {
        if self.mock.is_some() {
            return Err(Error::unsupported("the mock cluster adds no partitions"));
        }
        let index = usize::try_from(topic.partitions.fetch_add(1, Ordering::Relaxed)).map_err(failed)?;
        let grown = NewPartitions::new(&topic.name, index + 1);
        for made in self.admin.create_partitions([&grown], &AdminOptions::new()).await.map_err(failed)? {
            made.map_err(failed)?;
        }
        // The producer learns of the partition before it is asked to fill it.
        loop {
            let metadata = self.producer.client().fetch_metadata(Some(&topic.name), Duration::from_secs(10));
            let known = metadata.map_err(failed)?.topics().first().map_or(0, |topic| topic.partitions().len());
            if known > index {
                return Ok(index);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn stores_times(&self) -> bool {
        self.mock.is_none()
    }

    // `handed_out`: no broker tells what it has sent of a topic, and what librdkafka holds of it is seen by the reader
    // alone. That one which is not asked holds no more than its buffer is shown in `tests/broker/mock.rs`, and that it
    // stays in its group meanwhile in `tests/broker/group.rs`.
}

/// What does not apply to a topic: it has no end, nor have its partitions; or is not seen, as the fixture says.
const INAPPLICABLE: [&str; 8] = [
    "stream::stalled-holds-its-buffer-at-the-most",
    "stream::finishes-when-all-is-delivered",
    "stream::finished-for-ever",
    "stream::ended-after-all-records",
    "stream::parents-first",
    "stream::children-are-read",
    "stream::ended-once",
    "stream::closed-splits-are-said",
];

/// What the mock cluster cannot show besides: it adds no partitions and stores no times.
const NOT_ON_MOCK: [&str; 3] =
    ["stream::new-split-begins-at-its-beginning", "stream::start-at-a-time", "stream::stored-times-come-along"];

fn main() -> ExitCode {
    let mock = applying(stream::suite(Kafka::mock()), &[&INAPPLICABLE[..], &NOT_ON_MOCK].concat());
    let real = Kafka::given().map(|kafka| named("real", applying(stream::suite(kafka), &INAPPLICABLE)));
    if real.is_none() {
        // As the line of a test would be, for whoever counts what was not run.
        println!("test [needs kafka] the same clauses on Apache Kafka ... ignored");
    }
    run(mock.into_iter().chain(real.into_iter().flatten()))
}
