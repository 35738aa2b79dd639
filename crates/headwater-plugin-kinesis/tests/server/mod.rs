#![allow(dead_code)] // No test binary uses all of it.

//! Kinesis for tests: an emulator in this process, and the one that the environment names.

pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ScalingType, Shard, ShardIteratorType, StreamStatus};
use axum::Router;
use ferrokinesis::store::StoreOptions;
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::StreamSource;
use headwater_core::{Error, Result};
use headwater_plugin_kinesis::PLUGIN;

pub(crate) fn failed(error: impl std::fmt::Debug) -> Error {
    Error::unexpected(format!("{error:?}"))
}

/// An endpoint for readers, and a client that outlives the runtimes of single tests.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    handle: tokio::runtime::Handle,
    client: Client,
}

static STREAMS: AtomicU64 = AtomicU64::new(0);

impl Server {
    /// Starts the emulator on a runtime of its own; `layer` may put something before it, for readers alone.
    pub(crate) fn start(options: StoreOptions, layer: impl FnOnce(Router) -> Router + Send + 'static) -> Self {
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let (app, _store) = ferrokinesis::create_app(options);
                let plain = serve(app.clone()).await;
                let endpoint = serve(layer(app)).await;
                tell.send((endpoint, plain, tokio::runtime::Handle::current())).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        let (endpoint, plain, handle) = told.recv().expect("the server starts");
        Self::at(endpoint, &plain, handle)
    }

    /// The emulator without anything before it.
    pub(crate) fn plain() -> Self {
        Self::start(options(), |app| app)
    }

    /// The server that the environment names.
    pub(crate) fn given() -> Option<Self> {
        let endpoint = std::env::var("AWS_ENDPOINT_URL_KINESIS").ok().filter(|endpoint| !endpoint.is_empty())?;
        let (tell, told) = sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tell.send(runtime.handle().clone()).expect("somebody waits");
            runtime.block_on(std::future::pending::<()>());
        });
        Some(Self::at(endpoint.clone(), &endpoint, told.recv().expect("the runtime starts")))
    }

    fn at(endpoint: String, plain: &str, handle: tokio::runtime::Handle) -> Self {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(plain)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        Self { endpoint, handle, client: Client::from_conf(config) }
    }

    /// Runs a call on the server's runtime, which the client's connections live on.
    pub(crate) async fn call<T, F>(&self, call: impl FnOnce(Client) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.handle.spawn(call(self.client.clone())).await.expect("the call does not panic")
    }

    /// Makes a stream with a name of its own.
    pub(crate) async fn create(&self, shards: usize) -> Result<Stream> {
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        let name = format!("stream-{}-{number}", std::process::id());
        self.create_named(&name, shards).await
    }

    /// Makes a stream of this name.
    pub(crate) async fn create_named(&self, name: &str, shards: usize) -> Result<Stream> {
        let stream = self.named(name);
        let (name, shards) = (name.to_owned(), i32::try_from(shards).map_err(failed)?);
        loop {
            let name = name.clone();
            let made = self
                .call(|client| async move { client.create_stream().stream_name(name).shard_count(shards).send().await })
                .await;
            match made {
                Ok(_) => break,
                // Until the streams of tests that are over have gone.
                Err(error) if error.as_service_error().is_some_and(|error| error.is_limit_exceeded_exception()) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        stream.settle().await?;
        Ok(stream)
    }
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn open(config: &Config, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
    (PLUGIN.stream.ok_or_else(|| failed("no stream role"))?.open)(config, context)
}

impl Server {
    /// Options for this server, and others.
    pub(crate) fn config(&self, options: &[(&str, &str)]) -> Config {
        let own = [("endpoint_url", self.endpoint.as_str())];
        let options = own.iter().chain(options).map(|(key, value)| ((*key).to_owned(), (*value).into()));
        Config { name: "source `events`".into(), options: options.collect(), base_dir: ".".into() }
    }

    /// A stream of this name, which may not be there.
    pub(crate) fn named(&self, name: &str) -> Stream {
        Stream { server: self.clone(), name: name.to_owned(), ranges: Mutex::default() }
    }
}

/// What the emulator is started with.
pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 0,
        shard_limit: 100_000,
        ..StoreOptions::default()
    }
}

/// A stream of a server.
pub(crate) struct Stream {
    pub(crate) server: Server,
    pub(crate) name: String,
    /// The hash keys of each shard, by its number.
    ranges: Mutex<BTreeMap<usize, (u128, u128)>>,
}

impl Stream {
    /// Waits until the stream is active and notes its shards.
    pub(crate) async fn settle(&self) -> Result<()> {
        loop {
            let name = self.name.clone();
            let answer = self
                .server
                .call(|client| async move { client.describe_stream_summary().stream_name(name).send().await })
                .await
                .map_err(failed)?;
            let status = answer.stream_description_summary.map(|summary| summary.stream_status);
            if status == Some(StreamStatus::Active) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut ranges = BTreeMap::new();
        for shard in self.shards().await? {
            let range = shard.hash_key_range().ok_or_else(|| failed("no range"))?;
            let key = |text: &str| text.parse::<u128>().map_err(failed);
            let range = (key(&range.starting_hash_key)?, key(&range.ending_hash_key)?);
            ranges.insert(number_of(&shard.shard_id)?, range);
        }
        *self.ranges.lock().expect("no test panics with it") = ranges;
        Ok(())
    }

    /// The shards as the server lists them.
    pub(crate) async fn shards(&self) -> Result<Vec<Shard>> {
        let name = self.name.clone();
        let answer =
            self.server.call(|client| async move { client.list_shards().stream_name(name).send().await }).await;
        Ok(answer.map_err(failed)?.shards.unwrap_or_default())
    }

    fn range(&self, shard: usize) -> (u128, u128) {
        self.ranges.lock().expect("no test panics with it").get(&shard).copied().unwrap_or_default()
    }

    /// Puts values into one shard, in order.
    pub(crate) async fn put(&self, shard: usize, values: &[Vec<u8>]) -> Result<()> {
        self.put_as("key", shard, values).await
    }

    /// Puts values with this key into one shard, in order, wherever the key belongs.
    pub(crate) async fn put_as(&self, key: &str, shard: usize, values: &[Vec<u8>]) -> Result<()> {
        let (start, _) = self.range(shard);
        // No more than a megabyte or so in a call.
        for values in values.chunk_by(|a, b| a.len() + b.len() < 20_000).flat_map(|values| values.chunks(100)) {
            let entry = |value: &Vec<u8>| {
                let entry = PutRecordsRequestEntry::builder().partition_key(key).explicit_hash_key(start.to_string());
                entry.data(Blob::new(value.clone())).build().map_err(failed)
            };
            let entries = values.iter().map(entry).collect::<Result<Vec<_>>>()?;
            let name = self.name.clone();
            let answer =
                self.server
                    .call(|client| async move {
                        client.put_records().stream_name(name).set_records(Some(entries)).send().await
                    })
                    .await
                    .map_err(failed)?;
            if answer.failed_record_count.unwrap_or(0) > 0 {
                return Err(failed(answer));
            }
        }
        Ok(())
    }

    /// Puts records one after another, each where its key belongs.
    pub(crate) async fn put_keyed(&self, records: Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = self.name.clone();
        self.server
            .call(|client| async move {
                for (key, value) in records {
                    let put = client.put_record().stream_name(&name).partition_key(key).data(Blob::new(value));
                    put.send().await.map_err(failed)?;
                }
                Ok(())
            })
            .await
    }

    /// The name with region and account.
    pub(crate) async fn arn(&self) -> Result<String> {
        let name = self.name.clone();
        let asked =
            self.server.call(|client| async move { client.describe_stream_summary().stream_name(name).send().await });
        let summary = asked.await.map_err(failed)?.stream_description_summary;
        Ok(summary.ok_or_else(|| failed("no summary"))?.stream_arn)
    }

    /// The sequence numbers in a shard, oldest first.
    pub(crate) async fn sequence_numbers(&self, shard: usize) -> Result<Vec<String>> {
        let (name, shard) = (self.name.clone(), shard_id(shard));
        self.server
            .call(|client| async move {
                let begin = client.get_shard_iterator().stream_name(name).shard_id(shard);
                let begin = begin.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.map_err(failed)?;
                let records = client.get_records().set_shard_iterator(begin.shard_iterator).send().await;
                let records = records.map_err(failed)?.records;
                Ok(records.into_iter().map(|record| record.sequence_number).collect())
            })
            .await
    }

    /// The names of the consumers that are registered.
    pub(crate) async fn consumers(&self) -> Result<Vec<String>> {
        let arn = self.arn().await?;
        let asked =
            self.server.call(|client| async move { client.list_stream_consumers().stream_arn(arn).send().await });
        let consumers = asked.await.map_err(failed)?.consumers.unwrap_or_default();
        Ok(consumers.into_iter().map(|consumer| consumer.consumer_name).collect())
    }

    /// Lets records be as large as any stream takes: 10 MiB.
    pub(crate) async fn take_largest(&self) -> Result<()> {
        let arn = self.arn().await?;
        self.server
            .call(|client| async move {
                client.update_max_record_size().stream_arn(arn).max_record_size_in_kib(10_240).send().await
            })
            .await
            .map_err(failed)?;
        self.settle().await
    }

    /// Sets the number of open shards.
    pub(crate) async fn resize(&self, shards: i32) -> Result<()> {
        let name = self.name.clone();
        self.server
            .call(|client| async move {
                let update = client.update_shard_count().stream_name(name).target_shard_count(shards);
                update.scaling_type(ScalingType::UniformScaling).send().await
            })
            .await
            .map_err(failed)?;
        self.settle().await
    }

    /// The open shards in the order of their hash keys, by number.
    pub(crate) async fn open_shards(&self) -> Result<Vec<usize>> {
        let closed =
            |shard: &Shard| shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_some());
        let shards = self.shards().await?;
        let open = shards.iter().filter(|shard| !closed(shard)).map(|shard| number_of(&shard.shard_id));
        let mut open = open.collect::<Result<Vec<_>>>()?;
        open.sort_by_key(|shard| self.range(*shard));
        Ok(open)
    }

    /// Splits a shard in the middle; gives the numbers of the children.
    pub(crate) async fn split(&self, shard: usize) -> Result<Vec<usize>> {
        let (start, end) = self.range(shard);
        let middle = start + (end - start) / 2 + 1;
        let before = self.shards().await?.len();
        let (name, id) = (self.name.clone(), shard_id(shard));
        self.server
            .call(|client| async move {
                let split = client.split_shard().stream_name(name).shard_to_split(id);
                split.new_starting_hash_key(middle.to_string()).send().await
            })
            .await
            .map_err(failed)?;
        self.settle().await?;
        Ok(vec![before, before + 1])
    }

    /// Merges two neighbours; gives the number of the child.
    pub(crate) async fn merge(&self, one: usize, other: usize) -> Result<usize> {
        let before = self.shards().await?.len();
        let (name, one, other) = (self.name.clone(), shard_id(one), shard_id(other));
        self.server
            .call(|client| async move {
                client.merge_shards().stream_name(name).shard_to_merge(one).adjacent_shard_to_merge(other).send().await
            })
            .await
            .map_err(failed)?;
        self.settle().await?;
        Ok(before)
    }

    /// Opens the source, as a process would that finds the stream.
    pub(crate) fn open(&self, consumer: &str, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        self.open_with(&[("consumer", consumer)], context)
    }

    /// Options for the stream by its name, and others.
    pub(crate) fn config(&self, options: &[(&str, &str)]) -> Config {
        self.server.config(&[&[("stream_name", self.name.as_str())], options].concat())
    }

    /// Deletes the stream and waits until it is gone.
    pub(crate) async fn delete(&self) -> Result<()> {
        let name = self.name.clone();
        self.server
            .call(|client| async move {
                client
                    .delete_stream()
                    .stream_name(&name)
                    .enforce_consumer_deletion(true)
                    .send()
                    .await
                    .map_err(failed)?;
                while client.describe_stream_summary().stream_name(&name).send().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(())
            })
            .await
    }

    /// Opens the source with more options.
    pub(crate) fn open_with(&self, options: &[(&str, &str)], context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        open(&self.config(options), context)
    }

    /// Opens the source by the stream's ARN alone, which says its region too.
    pub(crate) async fn open_by_arn(&self, consumer: &str, context: &OpenContext) -> Result<Arc<dyn StreamSource>> {
        let arn = self.arn().await?;
        open(&self.server.config(&[("stream_arn", &arn), ("consumer", consumer)]), context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (client, name) = (self.server.client.clone(), self.name.clone());
        let delete = client.delete_stream().stream_name(name).enforce_consumer_deletion(true);
        self.server.handle.spawn(async move { drop(delete.send().await) });
    }
}

/// The name of the shard with this number.
pub(crate) fn shard_id(shard: usize) -> String {
    format!("shardId-{shard:012}")
}

fn number_of(shard: &str) -> Result<usize> {
    shard.trim_start_matches("shardId-").parse().map_err(failed)
}
