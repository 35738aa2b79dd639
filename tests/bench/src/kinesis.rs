//! Kinesis: the endpoint that the environment names, or an emulator in a process of its own, so that its work does not
//! count as that of what is measured.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    ConsumerStatus, PutRecordsRequestEntry, ShardIteratorType, StartingPosition, StreamStatus,
    SubscribeToShardEventStream,
};
use ferrokinesis::store::StoreOptions;
use tokio::time::Instant;

use crate::measure::{Arrivals, Cost, Stretch};
use crate::project::Driver;

/// Calls that Kinesis takes of a shard each second.
const PACE: Duration = Duration::from_millis(200);
/// What it gives of a shard.
const BYTES_PER_SECOND: f64 = 2e6;

/// Serves the emulator until the input ends.
pub(crate) async fn serve() {
    let options = StoreOptions {
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 0,
        shard_limit: 1_000,
        ..StoreOptions::default()
    };
    let (app, _) = ferrokinesis::create_app(options);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await.unwrap().unwrap();
}

/// A stream, and a client.
pub(crate) struct Kinesis {
    /// The emulator, if none is given. Ends with the pipe to it.
    _server: Option<Child>,
    endpoint: String,
    client: Client,
    stream: String,
}

impl Kinesis {
    pub(crate) async fn start(shards: usize) -> Self {
        let (server, endpoint) = match std::env::var("AWS_ENDPOINT_URL_KINESIS") {
            Ok(given) => (None, given),
            Err(_) => {
                let mut server = Command::new(std::env::current_exe().unwrap());
                server.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut server = server.spawn().unwrap();
                let mut endpoint = String::new();
                BufReader::new(server.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
                (Some(server), endpoint.trim().to_owned())
            }
        };
        let stream = format!("drivers-{}", std::process::id());
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&endpoint)
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        let client = Client::from_conf(config);
        let shards = i32::try_from(shards).unwrap();
        client.create_stream().stream_name(&stream).shard_count(shards).send().await.unwrap();
        let described = || client.describe_stream_summary().stream_name(&stream).send();
        while described().await.unwrap().stream_description_summary.unwrap().stream_status != StreamStatus::Active {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { _server: server, endpoint, client, stream }
    }

    /// The stream as a source. The plugin takes its credentials from the environment.
    pub(crate) fn source(&self, consumer: &str) -> String {
        format!(
            "type: kinesis\nstream_name: {}\nregion: eu-west-1\nendpoint_url: {}\nconsumer: {consumer}",
            self.stream, self.endpoint
        )
    }

    /// What puts records into the stream.
    pub(crate) fn writer(&self) -> Writer {
        Writer { client: self.client.clone(), stream: self.stream.clone() }
    }

    /// A bare subscription to each shard, as a consumer of its own: when the records come that `trips` numbers. It lasts
    /// as long as Kinesis lets a subscription last: five minutes.
    pub(crate) async fn subscribe(&self) -> Arrivals {
        let summary = self.client.describe_stream_summary().stream_name(&self.stream).send().await.unwrap();
        let stream = summary.stream_description_summary.unwrap().stream_arn;
        let made =
            self.client.register_stream_consumer().stream_arn(&stream).consumer_name("bare").send().await.unwrap();
        let consumer = made.consumer.unwrap().consumer_arn;
        let described = || self.client.describe_stream_consumer().consumer_arn(&consumer).send();
        while described().await.unwrap().consumer_description.unwrap().consumer_status != ConsumerStatus::Active {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let arrivals = Arrivals::default();
        for shard in self.client.list_shards().stream_name(&self.stream).send().await.unwrap().shards() {
            let position = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
            let subscribe = self.client.subscribe_to_shard().consumer_arn(&consumer).shard_id(&shard.shard_id);
            let mut subscription = subscribe.starting_position(position).send().await.unwrap();
            let arrivals = arrivals.clone();
            tokio::spawn(async move {
                while let Some(event) = subscription.event_stream.recv().await.unwrap() {
                    let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event else { continue };
                    arrivals.note(event.records().iter().map(|record| record.data().as_ref()));
                }
            });
        }
        arrivals
    }

    /// A bare loop over all records of the stream, of all shards at once, with five calls and 2 MB a second each.
    pub(crate) async fn consume(&self, total: usize) -> (Vec<u8>, Cost) {
        let listed = self.client.list_shards().stream_name(&self.stream).send().await.unwrap();
        let stretch = Stretch::begin();
        let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let shards = listed.shards().iter().map(|shard| {
            let (client, read) = (self.client.clone(), Arc::clone(&read));
            let iterator = client.get_shard_iterator().stream_name(&self.stream).shard_id(&shard.shard_id);
            tokio::spawn(async move { consume_shard(&client, iterator, &read, total).await })
        });
        let shards: Vec<_> = shards.collect();
        let mut values = Vec::new();
        for shard in shards {
            values.append(&mut shard.await.unwrap());
        }
        (values, stretch.end())
    }
}

async fn consume_shard(
    client: &Client,
    iterator: GetShardIteratorFluentBuilder,
    read: &std::sync::atomic::AtomicUsize,
    total: usize,
) -> Vec<u8> {
    let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let (mut iterator, mut values) = (iterator.shard_iterator, Vec::new());
    while read.load(std::sync::atomic::Ordering::Relaxed) < total {
        let begun = Instant::now();
        let answer = client.get_records().set_shard_iterator(iterator).limit(10_000).send().await.unwrap();
        let mut bytes = 0;
        for record in answer.records() {
            bytes += record.data().as_ref().len() + record.partition_key().unwrap_or_default().len();
            values.extend_from_slice(record.data().as_ref());
            values.push(b'\n');
        }
        read.fetch_add(answer.records().len(), std::sync::atomic::Ordering::Relaxed);
        iterator = answer.next_shard_iterator;
        // The emulator gives as much as it is asked for; Kinesis gives 2 MB a second of a shard.
        let paid = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        tokio::time::sleep_until(begun + paid.max(PACE)).await;
    }
    values
}

/// Puts records into the stream.
pub(crate) struct Writer {
    client: Client,
    stream: String,
}

impl Writer {
    /// Puts some, all of them.
    pub(crate) async fn put(&self, drivers: &[Driver]) {
        let entry = |driver: &Driver| {
            let entry = PutRecordsRequestEntry::builder().partition_key(driver.id.to_string());
            entry.data(Blob::new(driver.json())).build().unwrap()
        };
        let entries = drivers.iter().map(entry).collect();
        let put = self.client.put_records().stream_name(&self.stream).set_records(Some(entries));
        assert_eq!(put.send().await.unwrap().failed_record_count(), Some(0));
    }
}
