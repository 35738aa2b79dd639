//! Fills a topic with driver records that are the same in every run, but for their times: they lie in the day before the run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_core::time::{Clock, SystemClock};
use headwater_testkit::Random;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::Options;
use crate::project::Driver;

const DAY: usize = 86_400_000_000;

/// What became of the records.
#[derive(Default)]
struct Deliveries {
    stored: AtomicUsize,
    error: Mutex<Option<KafkaError>>,
}

/// The context of the producer.
struct Counting(Arc<Deliveries>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        match delivery {
            Ok(_) => {
                self.0.stored.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => *self.0.error.lock().unwrap() = Some(error.clone()),
        }
    }
}

/// Makes a topic whose records stay, however old they say they are.
pub(crate) async fn make(topic: &str, partitions: usize) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", crate::servers());
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let new = NewTopic::new(topic, i32::try_from(partitions).unwrap(), TopicReplication::Fixed(1));
    let new = new.set("retention.ms", "-1");
    for made in admin.create_topics([&new], &AdminOptions::new()).await.unwrap() {
        made.unwrap_or_else(|(topic, error)| panic!("{topic}: {error}"));
    }
}

pub(crate) async fn run(options: &Options) {
    let (topic, records, keys) =
        (options.text("topic"), options.number("records", 2_000_000), options.number("keys", 100_000));
    make(topic, options.number("partitions", 4)).await;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", crate::servers()).set("partitioner", "murmur2_random").set("linger.ms", "50");
    // Each record once, whatever has to be sent again.
    client.set("enable.idempotence", "true");
    let deliveries = Arc::new(Deliveries::default());
    let producer: BaseProducer<Counting> = client.create_with_context(Counting(Arc::clone(&deliveries))).unwrap();
    let (begin, mut bytes) = (Instant::now(), 0);
    for (index, driver) in drivers(options.number("seed", 1) as u64, records, keys).enumerate() {
        let (key, value) = (driver.id.to_string(), driver.json());
        bytes += value.len();
        let mut record = BaseRecord::to(topic).key(&key).payload(&value);
        while let Err((error, again)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(100));
            record = again;
        }
        if index % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
    let (stored, error) = (deliveries.stored.load(Ordering::Relaxed), deliveries.error.lock().unwrap().take());
    assert_eq!(stored, records, "topic {topic} lacks records, and is of no use: {error:?}");
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{{\"what\":\"fill\",\"topic\":\"{topic}\",\"records\":{records},\"bytes_each\":{},\"wall_s\":{seconds:.1}}}",
        bytes / records.max(1)
    );
}

/// Records in order of their times, 1 % of them late, over the day that ends now.
#[allow(clippy::cast_precision_loss)] // Nine digits fit.
pub(crate) fn drivers(seed: u64, records: usize, keys: usize) -> impl Iterator<Item = Driver> {
    let micros = |value: usize| i64::try_from(value).unwrap();
    let (mut random, start) = (Random::new(seed), SystemClock.now() - micros(DAY));
    (0..records).map(move |index| {
        let mut event = start + micros(index * (DAY / records) + random.below(1_000));
        if random.below(100) == 0 {
            event = (event - micros(random.below(300_000_000))).max(start);
        }
        let mut rate = || random.below(1_000_000_000) as f64 / 1e9;
        let (conv, acc) = (rate(), rate());
        let created = event + micros(1_000 + random.below(60_000_000));
        Driver { id: random.below(keys), event, created, conv, acc, trips: random.below(1_000) }
    })
}
