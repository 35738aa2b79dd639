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
use crate::measure::{Cost, Stretch};
use crate::project::{definitions, kafka, project};
use crate::throughput::ingest;

const WAIT: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &Options, runtime: &Runtime) {
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
    let (rows, ours) = runtime.block_on(async {
        let definitions = definitions(&kafka(topic), false, false);
        let (_folder, store) = project(&definitions).await;
        let stretch = Stretch::begin();
        let rows = ingest(&store).await;
        (rows, stretch.end())
    });
    let shown = |cost: Cost| format!("{{\"wall_s\":{:.2},\"cpu_s\":{:.2}}}", cost.wall, cost.cpu);
    println!(
        "{{\"what\":\"source\",\"records\":{count},\"rows\":{rows:.0},\"bare_loop\":{},\"arrow_json\":{},\"source\":{},\"wall_ratio\":{:.2},\"cpu_ratio\":{:.2}}}",
        shown(bare),
        shown(json),
        shown(ours),
        ours.wall / (bare.wall + json.wall),
        ours.cpu / (bare.cpu + json.cpu)
    );
}

/// A bare loop over all records of a topic, with librdkafka's defaults.
fn consume(topic: &str, mut each: impl FnMut(&[u8])) -> (usize, Cost) {
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
