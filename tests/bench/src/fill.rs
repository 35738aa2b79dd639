//! Fills a topic with driver records that are the same in every run.

use std::time::{Duration, Instant};

use headwater_testkit::Random;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::Options;
use crate::project::Driver;

/// 2026-11-21T00:00:00Z.
const START: i64 = 1_795_219_200_000_000;
const DAY: usize = 86_400_000_000;

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
    let producer: BaseProducer = client.create().unwrap();
    let mut random = Random::new(options.number("seed", 1) as u64);
    let (begin, mut bytes) = (Instant::now(), 0);
    for index in 0..records {
        let driver = driver(&mut random, index, records, keys);
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
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{{\"what\":\"fill\",\"topic\":\"{topic}\",\"records\":{records},\"bytes_each\":{},\"wall_s\":{seconds:.1}}}",
        bytes / records.max(1)
    );
}

/// The record of an index.
#[allow(clippy::cast_precision_loss)] // Nine digits fit.
pub(crate) fn driver(random: &mut Random, index: usize, records: usize, keys: usize) -> Driver {
    let micros = |value: usize| i64::try_from(value).unwrap();
    let mut event = START + micros(index * (DAY / records) + random.below(1_000));
    if random.below(100) == 0 {
        event = (event - micros(random.below(300_000_000))).max(START);
    }
    let mut rate = || random.below(1_000_000_000) as f64 / 1e9;
    let (conv, acc) = (rate(), rate());
    let created = event + micros(1_000 + random.below(60_000_000));
    Driver { id: random.below(keys), event, created, conv, acc, trips: random.below(1_000) }
}
