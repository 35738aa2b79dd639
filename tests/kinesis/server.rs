//! The emulator, its streams, and a producer that goes on in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, Shard, StreamStatus};
use axum::Router;
use ferrokinesis::store::StoreOptions;
use headwater_tests::drivers::Event;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::faults::{Faults, inject};

/// Kinesis at two addresses: one where calls fail at random, one where they do not.
pub(crate) struct Server {
    pub(crate) runtime: Runtime,
    app: Router,
    client: Client,
    plain: String,
    faulty: String,
    faults: Arc<Faults>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = StoreOptions {
            create_stream_ms: 0,
            delete_stream_ms: 0,
            update_stream_ms: 0,
            shard_limit: 1_000,
            // Short, so that it comes to several.
            subscribe_to_shard_session_ms: 2_000,
            ..StoreOptions::default()
        };
        let faults = Faults::new();
        let (app, plain, faulty, client) = runtime.block_on(async {
            let (app, _) = ferrokinesis::create_app(options);
            let before = axum::middleware::from_fn_with_state(Arc::clone(&faults), inject);
            let faulty = serve(app.clone().layer(before)).await;
            let plain = serve(app.clone()).await;
            let config = aws_sdk_kinesis::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(&plain)
                .region(Region::new("eu-west-1"))
                .credentials_provider(Credentials::new("test", "test", None, None, "test"))
                .build();
            (app, plain, faulty, Client::from_conf(config))
        });
        Self { runtime, app, client, plain, faulty, faults }
    }

    /// The same Kinesis at another address, with something before it.
    pub(crate) fn behind(&self, layer: impl FnOnce(Router) -> Router) -> String {
        self.runtime.block_on(serve(layer(self.app.clone())))
    }

    /// The endpoint where nothing fails.
    pub(crate) fn plain(&self) -> &str {
        &self.plain
    }

    /// The endpoint where calls fail.
    pub(crate) fn faulty(&self) -> &str {
        &self.faulty
    }

    /// What was injected, in words.
    pub(crate) fn injected(&self) -> String {
        let injected = self.faults.injected();
        let shown = injected.iter().map(|((operation, fault), times)| format!("{operation} {fault:?} {times}"));
        shown.collect::<Vec<_>>().join(", ")
    }

    /// Whether an operation has met every fault that it can meet.
    pub(crate) fn all_faults_met(&self, operation: &str) -> bool {
        self.faults.all_met(operation)
    }

    pub(crate) fn create(&self, stream: &str, shards: i32) {
        let create = self.client.create_stream().stream_name(stream).shard_count(shards);
        self.runtime.block_on(create.send()).unwrap();
        self.settle(stream);
    }

    /// Appends a record.
    pub(crate) fn put(&self, stream: &str, key: &str, data: Vec<u8>) {
        let put = self.client.put_record().stream_name(stream).partition_key(key).data(Blob::new(data));
        self.runtime.block_on(put.send()).unwrap();
    }

    /// The shards that take records, in order of their hash keys.
    pub(crate) fn open_shards(&self, stream: &str) -> Vec<Shard> {
        let listed = self.runtime.block_on(self.client.list_shards().stream_name(stream).send()).unwrap();
        let open = |shard: &Shard| shard.sequence_number_range().is_some_and(|r| r.ending_sequence_number().is_none());
        let mut shards: Vec<Shard> = listed.shards().iter().filter(|shard| open(shard)).cloned().collect();
        shards.sort_by_key(|shard| range(shard).0);
        shards
    }

    /// Splits the open shard of this index in its middle.
    pub(crate) fn split(&self, stream: &str, index: usize) {
        let shard = &self.open_shards(stream)[index];
        let (start, end) = range(shard);
        let middle = start + (end - start) / 2;
        let split = self.client.split_shard().stream_name(stream).shard_to_split(shard.shard_id());
        self.runtime.block_on(split.new_starting_hash_key(middle.to_string()).send()).unwrap();
        self.settle(stream);
    }

    /// Merges the open shard of this index with the next.
    pub(crate) fn merge(&self, stream: &str, index: usize) {
        let shards = self.open_shards(stream);
        let merge = self.client.merge_shards().stream_name(stream).shard_to_merge(shards[index].shard_id());
        self.runtime.block_on(merge.adjacent_shard_to_merge(shards[index + 1].shard_id()).send()).unwrap();
        self.settle(stream);
    }

    fn settle(&self, stream: &str) {
        headwater_tests::wait_for("the stream to be active", crate::PATIENCE, || {
            let asked = self.runtime.block_on(self.client.describe_stream_summary().stream_name(stream).send());
            let summary = asked.unwrap().stream_description_summary;
            summary.is_some_and(|summary| summary.stream_status == StreamStatus::Active)
        });
    }
}

/// The hash keys of a shard.
fn range(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (range.starting_hash_key.parse().unwrap(), range.ending_hash_key.parse().unwrap())
}

pub(crate) async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// Sends numbered records from a thread of its own until it is finished.
pub(crate) struct Sender {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Sender {
    /// Begins to send to a stream, about so many records a second; `event` makes the record of a number.
    pub(crate) fn start(
        server: &Server,
        stream: &str,
        rate: usize,
        event: impl Fn(usize) -> Event + Send + 'static,
    ) -> Self {
        let (client, handle, stream) = (server.client.clone(), server.runtime.handle().clone(), stream.to_owned());
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let thread = std::thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let numbers = sent..sent + rate / 20;
                let entries = numbers.map(|number| {
                    let Event { key, value } = event(number);
                    let entry = PutRecordsRequestEntry::builder().partition_key(key);
                    entry.data(Blob::new(value)).build().unwrap()
                });
                let put = client.put_records().stream_name(&stream).set_records(Some(entries.collect()));
                let answer = handle.block_on(put.send()).unwrap();
                assert_eq!(answer.failed_record_count(), Some(0));
                sent += rate / 20;
                // A twentieth of a second's records, twenty times a second.
                std::thread::sleep(Duration::from_millis(50));
            }
            sent
        });
        Self { enough, thread }
    }

    /// Stops, and says how many records there are.
    pub(crate) fn finish(self) -> usize {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
