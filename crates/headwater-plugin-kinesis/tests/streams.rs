//! What only whole streams show: shards that are split and merged, faults, aggregates, large records, access.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)] // Everything here is a test or helps one.

mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{
    AssignedSplit, Checkpoints, Payload, ProducerRecord, Progress, ReaderContext, StartPosition, StreamEvent,
    StreamReader, StreamSource,
};
use headwater_core::time::SystemClock;
use headwater_core::{ErrorKind, Result, SplitId};
use headwater_plugin_kinesis::PLUGIN;
use headwater_testkit::Random;
use headwater_testkit::stream::stream_context;

use server::{Server, Stream, options};

/// How long a reader may say nothing while something is to come.
const PATIENCE: Duration = Duration::from_secs(300);

/// The engine's checkpoints and notes.
#[derive(Debug, Default)]
struct Ledger {
    splits: Mutex<BTreeMap<SplitId, Progress>>,
    notes: Mutex<BTreeMap<String, Bytes>>,
}

#[async_trait]
impl Checkpoints for Ledger {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        Ok(self.splits.lock().unwrap().get(split).cloned())
    }

    async fn started(&self) -> Result<bool> {
        Ok(!self.splits.lock().unwrap().is_empty())
    }

    async fn noted(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.notes.lock().unwrap().get(name).cloned())
    }

    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()> {
        self.notes.lock().unwrap().extend(notes.iter().cloned());
        Ok(())
    }
}

fn open_context() -> OpenContext {
    stream_context(Arc::new(SystemClock))
}

/// A job with its lives: what it processed, and its checkpoints.
struct Job {
    source: Arc<dyn StreamSource>,
    ledger: Arc<Ledger>,
    /// The values in the order in which they came.
    processed: Vec<String>,
    batch_records: usize,
    start: StartPosition,
}

impl Job {
    fn new(source: Arc<dyn StreamSource>) -> Self {
        Self { source, ledger: Arc::default(), processed: vec![], batch_records: 7, start: StartPosition::Earliest }
    }

    async fn subscribe(&self) -> Result<Box<dyn StreamReader>> {
        let context = ReaderContext {
            group: "tests.job".into(),
            start: self.start,
            checkpoints: Arc::<Ledger>::clone(&self.ledger),
            buffer_bytes: 4 << 20,
            batch_records: self.batch_records,
            refresh: Duration::from_millis(100),
            clock: Arc::new(SystemClock),
        };
        loop {
            match self.source.subscribe(context.clone()).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                subscribed => return subscribed,
            }
        }
    }

    /// Reads until so many values are processed, or so many events have come; then dies.
    async fn live(&mut self, values: usize, mut events: usize) -> Result<()> {
        let mut reader = self.subscribe().await?;
        while self.processed.len() < values && events > 0 {
            let next = tokio::time::timeout(PATIENCE, reader.next());
            let next = next.await.unwrap_or_else(|_| {
                let have = self.processed.len();
                panic!("nothing came, with {have} of {values} values: {reader:?}, {:?}", self.ledger)
            });
            let event = match next {
                Ok(event) => event,
                Err(error) if error.is_retryable() => continue,
                Err(error) => return Err(error),
            };
            events -= 1;
            let commits = self.process(event);
            self.ledger.splits.lock().unwrap().extend(commits.iter().cloned());
            reader.commit(&commits).await?;
        }
        Ok(())
    }

    fn process(&mut self, event: Option<StreamEvent>) -> Vec<(SplitId, Progress)> {
        match event {
            Some(StreamEvent::Assigned(splits)) => {
                let commit = |AssignedSplit { split, resume }| (split, Progress::Through(resume));
                splits.into_iter().map(commit).collect()
            }
            Some(StreamEvent::Batch(batch)) => {
                let Payload::Encoded(values) = &batch.payload else { panic!("rows") };
                let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap()).into_owned();
                self.processed.extend(values.iter().map(text));
                vec![(batch.split, Progress::Through(batch.through))]
            }
            Some(StreamEvent::SplitEnded(split)) => vec![(split, Progress::End)],
            Some(StreamEvent::Revoked { .. }) | None => panic!("nothing is revoked, and the stream has no end"),
        }
    }

    /// The numbers that came for each key, in their order.
    fn by_key(&self) -> BTreeMap<String, Vec<usize>> {
        let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for value in &self.processed {
            let (key, number) = value.split_once(':').unwrap();
            keys.entry(key.to_owned()).or_default().push(number.parse().unwrap());
        }
        keys
    }
}

/// The next records of each key.
struct Load {
    keys: usize,
    sent: usize,
}

impl Load {
    async fn send(&mut self, stream: &Stream, each: usize) -> Result<()> {
        let record = |number, key| (format!("key-{key}"), format!("key-{key}:{number}").into_bytes());
        let numbers = self.sent..self.sent + each;
        let records = numbers.flat_map(|number| (0..self.keys).map(move |key| record(number, key)));
        self.sent += each;
        stream.put_keyed(records.collect()).await
    }

    fn total(&self) -> usize {
        self.sent * self.keys
    }

    fn expected(&self) -> BTreeMap<String, Vec<usize>> {
        (0..self.keys).map(|key| (format!("key-{key}"), (0..self.sent).collect())).collect()
    }
}

/// Two shards are split to four and merged to three, while the job runs, dies in between, and is down.
async fn reshard(server: &Server, consumer: &str, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let stream = server.create(2).await?;
    let mut job = Job::new(stream.open(consumer, &open_context())?);
    let mut load = Load { keys: 12, sent: 0 };
    load.send(&stream, 4).await?;
    job.live(load.total(), 1 + random.below(6)).await?;
    // While it is down: nobody has read all of the parents.
    stream.split(0).await?;
    load.send(&stream, 4).await?;
    job.live(load.total(), 1 + random.below(12)).await?;
    // While it runs.
    let before = load.total();
    let ((), ()) = futures::future::try_join(job.live(before + 1, usize::MAX), async {
        stream.split(1).await?;
        load.send(&stream, 4).await
    })
    .await?;
    let open = stream.open_shards().await?;
    assert_eq!(open.len(), 4);
    stream.merge(open[1], open[2]).await?;
    load.send(&stream, 4).await?;
    assert_eq!(stream.open_shards().await?.len(), 3);
    for _ in 0..4 {
        job.live(load.total(), 1 + random.below(8)).await?;
    }
    job.live(load.total(), usize::MAX).await?;
    assert_eq!(job.by_key(), load.expected(), "seed {seed}, {consumer}");
    Ok(())
}

/// Puts faults before the server, for the reader alone, so many in a hundred.
fn faults(seed: u64, percent: usize) -> impl FnOnce(axum::Router) -> axum::Router + Send + 'static {
    let random = Arc::new(Mutex::new(Random::new(seed)));
    move |app| {
        app.layer(from_fn(move |request: Request, next: Next| {
            let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
            let action = target.and_then(|target| target.split_once('.')).map(|(_, action)| action.to_owned());
            let read = ["GetRecords", "GetShardIterator", "SubscribeToShard"];
            let reads = action.as_deref().is_some_and(|action| read.contains(&action));
            let fault = {
                let mut random = random.lock().unwrap();
                let hit = random.below(100) < percent;
                (reads && hit).then(|| random.below(4))
            };
            async move {
                match fault {
                    None => next.run(request).await,
                    Some(0) => refuse(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException"),
                    Some(1) if action.as_deref() == Some("GetRecords") => {
                        refuse(StatusCode::BAD_REQUEST, "ExpiredIteratorException")
                    }
                    Some(1 | 2) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailureException"),
                    // The answer is cut off: the connection breaks in the middle of it.
                    Some(_) => {
                        let answer = next.run(request).await;
                        let broken = Err::<Bytes, _>(std::io::Error::other("broken off"));
                        let body = futures::stream::iter([Ok(Bytes::from_static(b"{")), broken]);
                        Response::from_parts(answer.into_parts().0, Body::from_stream(body))
                    }
                }
            }
        }))
    }
}

fn refuse(status: StatusCode, code: &str) -> Response {
    let body = format!(r#"{{"__type":"{code}","message":"injected"}}"#);
    (status, [("content-type", "application/x-amz-json-1.1")], body).into_response()
}

#[tokio::test]
async fn reshards_lose_and_double_nothing_and_keep_the_order_of_a_key() {
    let server = Server::plain();
    for seed in 0..3 {
        reshard(&server, "polling", seed).await.unwrap();
        reshard(&server, "fan_out", seed).await.unwrap();
    }
}

#[tokio::test]
async fn faults_change_nothing_while_polling() {
    let server = Server::start(options(), faults(1, 30));
    for seed in 10..13 {
        reshard(&server, "polling", seed).await.unwrap();
    }
}

#[tokio::test]
async fn faults_and_short_sessions_change_nothing_with_subscriptions() {
    let mut options = options();
    options.subscribe_to_shard_session_ms = 700;
    let server = Server::start(options, faults(2, 20));
    reshard(&server, "fan_out", 20).await.unwrap();
}

#[tokio::test]
async fn the_shard_count_is_changed_while_the_job_runs_and_while_it_is_down() {
    let server = Server::plain();
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(2).await.unwrap();
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        let mut load = Load { keys: 8, sent: 0 };
        load.send(&stream, 3).await.unwrap();
        job.live(load.total(), 3).await.unwrap();
        stream.resize(4).await.unwrap();
        load.send(&stream, 3).await.unwrap();
        let before = load.total();
        let ((), ()) = futures::future::try_join(job.live(before + 1, usize::MAX), async {
            stream.resize(3).await?;
            load.send(&stream, 3).await
        })
        .await
        .unwrap();
        job.live(load.total(), usize::MAX).await.unwrap();
        // The emulator does not say whose children these shards are, so their order is not looked at.
        let mut by_key = job.by_key();
        by_key.values_mut().for_each(|numbers| numbers.sort_unstable());
        assert_eq!(by_key, load.expected(), "{consumer}");
    }
}

/// The aggregates that another library made (PyPI aws-kinesis-agg 1.2.3, of 600 bytes at the most), one in a line with
/// the key to send it by. They hold the records `{"number":0}` to `{"number":59}`.
fn aggregates() -> Vec<(String, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = include_str!("kpl.txt").lines().filter_map(|line| line.split_once(' '));
    lines.map(|(key, hex)| (key.to_owned(), hex.as_bytes().chunks(2).map(byte).collect())).collect()
}

#[tokio::test]
async fn an_aggregated_stream_equals_the_plain_one() {
    let server = Server::plain();
    let plain = server.create(1).await.unwrap();
    let record = |number: usize| (format!("key-{}", number % 7), format!(r#"{{"number":{number}}}"#).into_bytes());
    plain.put_keyed((0..60).map(record).collect()).await.unwrap();
    let aggregated = server.create(1).await.unwrap();
    aggregated.put_keyed(aggregates()).await.unwrap();
    for consumer in ["polling", "fan_out"] {
        let mut of_plain = Job::new(plain.open(consumer, &open_context()).unwrap());
        of_plain.live(60, usize::MAX).await.unwrap();
        // It dies again and again, also inside of aggregates.
        let mut of_aggregated = Job::new(aggregated.open(consumer, &open_context()).unwrap());
        of_aggregated.batch_records = 5;
        while of_aggregated.processed.len() < 60 {
            of_aggregated.live(60, 3).await.unwrap();
        }
        assert_eq!(of_aggregated.processed, of_plain.processed, "{consumer}");
    }
}

#[tokio::test]
async fn large_records_come_whole() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let large =
        |number: usize| (format!("key-{number}"), format!("key-{number}:{}", "7".repeat(1_000_000)).into_bytes());
    stream.put_keyed((0..6).map(large).collect()).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.live(6, usize::MAX).await.unwrap();
    let lengths = job.processed.iter().map(String::len).collect::<Vec<_>>();
    assert_eq!(lengths, [1_000_006; 6]);
}

#[tokio::test]
async fn a_start_in_the_past_reads_all_and_what_was_decided_stays() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 3, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.start = StartPosition::At(1_600_000_000_000_000);
    job.live(load.total(), 1).await.unwrap();
    // The children's turn comes in another life, which is told another start.
    stream.split(0).await.unwrap();
    load.send(&stream, 2).await.unwrap();
    job.start = StartPosition::Latest;
    job.live(load.total(), usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
}

#[tokio::test]
async fn what_does_not_pass_stops_the_reader() {
    let deny = |app: axum::Router| {
        app.layer(from_fn(|request: Request, next: Next| async move {
            let target = request.headers().get("x-amz-target").cloned();
            match target.as_ref().and_then(|target| target.to_str().ok()) {
                Some(target) if target.ends_with(".GetRecords") => {
                    refuse(StatusCode::BAD_REQUEST, "AccessDeniedException")
                }
                _ => next.run(request).await,
            }
        }))
    };
    let server = Server::start(options(), deny);
    let stream = server.create(1).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    assert_eq!(job.live(1, usize::MAX).await.unwrap_err().kind(), ErrorKind::PermissionDenied);

    let none = stream.open_with(&[("stream_name", "none")], &open_context()).unwrap();
    assert_eq!(none.discover().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Job::new(none).subscribe().await.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn throttling_that_lasts_is_reported_and_passes() {
    let calls = Arc::new(Mutex::new(0));
    let throttle = move |app: axum::Router| {
        app.layer(from_fn(move |request: Request, next: Next| {
            let reads = request
                .headers()
                .get("x-amz-target")
                .is_some_and(|target| target.to_str().is_ok_and(|target| target.ends_with(".GetRecords")));
            let throttled = {
                let mut calls = calls.lock().unwrap();
                *calls += usize::from(reads);
                reads && *calls <= 5
            };
            async move {
                if throttled {
                    refuse(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException")
                } else {
                    next.run(request).await
                }
            }
        }))
    };
    let server = Server::start(options(), throttle);
    let stream = server.create(1).await.unwrap();
    stream.put_keyed(vec![("a".into(), b"a:0".to_vec())]).await.unwrap();
    let mut reader = Job::new(stream.open("polling", &open_context()).unwrap()).subscribe().await.unwrap();
    let mut reported = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(StreamEvent::Batch(batch))) if batch.payload.len() == 1 => break,
            Ok(_) => {}
            Err(error) => reported.push(error),
        }
    }
    assert!(!reported.is_empty());
    assert!(reported.iter().all(|error| error.kind() == ErrorKind::Throttled && error.is_retryable()), "{reported:?}");
}

#[tokio::test]
async fn a_stream_made_anew_is_refused() {
    let server = Server::plain();
    let name = format!("anew-{}", std::process::id());
    let first = server.create_named(&name, 1).await.unwrap();
    first.put_keyed(vec![("a".into(), b"a:0".to_vec())]).await.unwrap();
    let mut job = Job::new(first.open("polling", &open_context()).unwrap());
    job.live(1, usize::MAX).await.unwrap();
    first.delete().await.unwrap();
    // Kinesis tells in seconds when a stream was made.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = server.create_named(&name, 1).await.unwrap();
    second.put_keyed(vec![("a".into(), b"a:1".to_vec())]).await.unwrap();
    assert_eq!(job.live(2, usize::MAX).await.unwrap_err().kind(), ErrorKind::PositionLost);
}

#[tokio::test]
async fn the_producer_makes_the_stream_and_keeps_the_order_of_a_key() {
    let server = Server::plain();
    let stream = server.named(&format!("produced-{}", std::process::id()));
    let producer = (PLUGIN.producer.unwrap().open)(&stream.config(&[]), &open_context()).unwrap();
    let record = |key: usize, number: usize| ProducerRecord {
        key: format!("key-{key}").into(),
        value: format!("key-{key}:{number}").into(),
    };
    producer.send((0..20).flat_map(|number| (0..3).map(move |key| record(key, number))).collect()).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.live(60, usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), Load { keys: 3, sent: 20 }.expected());
    let error = producer.send(vec![ProducerRecord { key: Bytes::new(), value: Bytes::new() }]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
