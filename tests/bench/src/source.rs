//! The path of records to columns, without stores, beside what it cannot do without: a bare consumer loop, and arrow-json
//! on the same records.

use std::sync::Arc;
use std::time::Duration;

use headwater::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use headwater::arrow::json::ReaderBuilder;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;

use crate::Options;
use crate::kinesis::Kinesis;
use crate::measure::{Cost, Stretch};
use crate::throughput::ingest;
use crate::{fill, project};

const WAIT: Duration = Duration::from_secs(10);

/// Of a topic.
pub(crate) fn kafka(options: &Options, runtime: &Runtime) {
    let topic = options.text("topic");
    // Once over everything first: whoever reads first would pay for the broker's cold pages.
    let _ = consume(topic, |_| {});
    let (count, bare) = consume(topic, |_| {});
    let mut values = Vec::new();
    let _ = consume(topic, |value| {
        values.extend_from_slice(value);
        values.push(b'\n');
    });
    let json = decode(&values);
    drop(values);
    let ours = runtime.block_on(ours(&project::kafka(topic), count));
    print("kafka", count, bare, json, ours);
}

/// Of a stream that is made for it.
pub(crate) async fn kinesis(options: &Options) {
    let (count, shards) = (options.number("records", 200_000), options.number("shards", 4));
    let kinesis = Kinesis::start(shards).await;
    let writer = kinesis.writer();
    let drivers = fill::drivers(1, count, 100_000).collect::<Vec<_>>();
    for some in drivers.chunks(500) {
        writer.put(some).await;
    }
    let (values, bare) = kinesis.consume(count).await;
    let json = decode(&values);
    drop(values);
    let ours = ours(&kinesis.source("polling"), count).await;
    print("kinesis", count, bare, json, ours);
}

/// The whole path, into a view that keeps nothing.
async fn ours(source: &str, count: usize) -> Cost {
    let (_folder, store) = project::project(&project::newest(source, false, false)).await;
    let stretch = Stretch::begin();
    let rows = ingest(&store).await;
    let cost = stretch.end();
    assert_eq!(rows, count, "rows of so many records");
    cost
}

fn print(source: &str, count: usize, bare: Cost, json: Cost, ours: Cost) {
    let shown = |cost: Cost| format!("{{\"wall_s\":{:.2},\"cpu_s\":{:.2}}}", cost.wall, cost.cpu);
    println!(
        "{{\"what\":\"source\",\"source\":\"{source}\",\"records\":{count},\"bare_loop\":{},\"arrow_json\":{},\"ours\":{},\"wall_ratio\":{:.2},\"cpu_ratio\":{:.2}}}",
        shown(bare),
        shown(json),
        shown(ours),
        ours.wall / (bare.wall + json.wall),
        ours.cpu / (bare.cpu + json.cpu)
    );
}

/// A bare loop over all records of a topic, with librdkafka's defaults.
pub(crate) fn consume(topic: &str, mut each: impl FnMut(&[u8])) -> (usize, Cost) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", crate::servers()).set("group.id", "stream-bench");
    client.set("enable.auto.commit", "false");
    let stretch = Stretch::begin();
    let consumer: BaseConsumer = client.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), WAIT).unwrap();
    let mut from = TopicPartitionList::new();
    let mut total = 0;
    for partition in metadata.topics()[0].partitions() {
        let (first, end) = consumer.fetch_watermarks(topic, partition.id(), WAIT).unwrap();
        total += usize::try_from(end - first).unwrap();
        from.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    for _ in 0..total {
        let message = consumer.poll(WAIT).unwrap().unwrap();
        each(message.payload().unwrap_or_default());
    }
    (total, stretch.end())
}

/// arrow-json alone.
fn decode(values: &[u8]) -> Cost {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [
        ("driver_id", DataType::Int64),
        ("event_timestamp", time()),
        ("conv_rate", DataType::Float64),
        ("acc_rate", DataType::Float64),
        ("avg_daily_trips", DataType::Int64),
        ("created", time()),
    ];
    let fields: Vec<Field> = fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect();
    let stretch = Stretch::begin();
    let reader = ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(8_192).build(values).unwrap();
    let rows: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
    assert!(rows > 0);
    stretch.end()
}
