//! How records are fetched from a shard: how many wait, where reading goes on, and when it has come to the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use ferrokinesis::store::StoreOptions;
use futures::StreamExt;
use headwater_core::stream::{StartPosition, StreamEvent};
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::job::{Job, Load, open_context};
use crate::server::wire::{answer, before, body_of};
use crate::server::{Server, Stream, options};

/// Nearly as much as the emulator takes in a record.
pub(crate) const LARGE: usize = 1_000_000;

fn large(number: usize) -> (String, Vec<u8>) {
    let value = format!("key-{number}:{}", number.to_string().repeat(LARGE));
    (format!("key-{number}"), value.into_bytes().into_iter().take(LARGE).collect())
}

pub(crate) async fn with_large_records(server: &Server, records: usize) -> Stream {
    let stream = server.create(1).await.unwrap();
    stream.put_keyed((0..records).map(large).collect()).await.unwrap();
    stream
}

pub(crate) fn has_large_records(job: &Job, records: usize) {
    let expected = (0..records).map(|number| String::from_utf8(large(number).1).unwrap());
    // Not with `assert_eq`, which would print them.
    assert!(job.processed.iter().eq(expected.collect::<Vec<_>>().iter()), "the records are not what was put");
}

#[tokio::test]
async fn a_full_buffer_holds_as_much_as_it_may_and_loses_nothing() {
    let mut options = options();
    options.subscribe_to_shard_event_record_limit = 1;
    let server = Server::start(options, |app| app);
    for consumer in ["polling", "fan_out"] {
        let stream = with_large_records(&server, 12).await;
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.buffer_bytes = 5 * LARGE / 2;
        let mut reader = job.subscribe().await.unwrap();
        // More than twice as long as it takes to fill the buffer.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let held = job.drain(&mut *reader).await.unwrap();
        // What a subscription sends cannot be asked to be less than one event.
        let most = if consumer == "fan_out" { job.buffer_bytes + LARGE } else { job.buffer_bytes };
        assert!(held >= 2 * LARGE && held <= most, "{consumer}: {held} bytes");
        job.read(&mut *reader, 12, usize::MAX).await.unwrap();
        has_large_records(&job, 12);
    }
}

#[tokio::test]
async fn records_larger_than_the_buffer_come_whole() {
    let server = Server::plain();
    let stream = with_large_records(&server, 3).await;
    for consumer in ["polling", "fan_out"] {
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.buffer_bytes = LARGE / 10;
        job.live(3, usize::MAX).await.unwrap();
        has_large_records(&job, 3);
    }
}

#[tokio::test]
async fn an_iterator_that_expires_while_the_buffer_is_full_is_made_anew() {
    let mut options = options();
    options.iterator_ttl_seconds = 1;
    let expired = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&expired);
    let server = Server::start(options, move |app| {
        before(app, move |call, next| {
            let counted = Arc::clone(&counted);
            Box::pin(async move {
                let reads = call.operation == "GetRecords";
                let response = call.pass(next).await;
                *counted.lock().unwrap() += usize::from(reads && !response.status().is_success());
                response
            })
        })
    });
    let stream = with_large_records(&server, 6).await;
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.buffer_bytes = 5 * LARGE / 2;
    let mut reader = job.subscribe().await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(*expired.lock().unwrap(), 0, "the buffer is not full");
    job.read(&mut *reader, 6, usize::MAX).await.unwrap();
    has_large_records(&job, 6);
    assert!(*expired.lock().unwrap() > 0, "no iterator expired");
}

#[tokio::test]
async fn an_empty_answer_is_not_the_end() {
    // As where a shard's records lie far apart: Kinesis looks through a part of it at a time.
    let empty = Arc::new(Mutex::new(3));
    let server = Server::start(options(), move |app| {
        before(app, move |call, next| {
            let empty = call.operation == "GetRecords" && {
                let mut empty = empty.lock().unwrap();
                *empty -= i32::from(*empty >= 0);
                *empty >= 0
            };
            Box::pin(async move {
                if empty {
                    let same = call.body["ShardIterator"].clone();
                    return answer(&json!({ "Records": [], "NextShardIterator": same, "MillisBehindLatest": 60_000 }));
                }
                call.pass(next).await
            })
        })
    });
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 1, sent: 0 };
    load.send(&stream, 3).await.unwrap();
    let job = Job::new(stream.open("polling", &open_context()).unwrap());
    let mut reader = job.subscribe().await.unwrap();
    let mut read = 0;
    loop {
        let Some(StreamEvent::Batch(batch)) = reader.next().await.unwrap() else { continue };
        read += batch.payload.len();
        if batch.lag.is_some_and(|lag| lag.is_zero()) {
            break;
        }
    }
    assert_eq!(read, 3, "records that were read when the end was said to be there");
}

/// When shards were asked for records, and when the answer was ready.
type Asked = Arc<Mutex<BTreeMap<String, Vec<(Instant, Instant)>>>>;

#[tokio::test]
async fn a_shard_is_asked_five_times_a_second_at_the_most_however_far_behind_it_is() {
    let asked = Asked::default();
    let shared = Arc::clone(&asked);
    let server = Server::start(options(), move |app| {
        before(app, move |call, next| {
            let asked = Arc::clone(&shared);
            Box::pin(async move {
                let shard = call.shard().filter(|_| call.operation == "GetRecords");
                let arrived = Instant::now();
                let response = call.pass(next).await;
                if let Some((_, shard)) = shard {
                    asked.lock().unwrap().entry(shard).or_default().push((arrived, Instant::now()));
                }
                response
            })
        })
    });
    let stream = server.create(2).await.unwrap();
    let records = (0..12).map(|number| number.to_string().into_bytes()).collect::<Vec<_>>();
    for shard in [0, 1] {
        stream.put(shard, &records).await.unwrap();
    }
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    // An answer has room for one record.
    job.buffer_bytes = 1 << 10;
    let begun = Instant::now();
    job.live(2 * records.len(), usize::MAX).await.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for (shard, calls) in &*asked {
        // Seconds that begin when nothing is under way: what arrives in them was sent in them, however slow the way is.
        let seconds = std::iter::once(begun).chain(calls.iter().map(|(_, answered)| *answered));
        let calls_in = |second: Instant| {
            let second = second..second + Duration::from_secs(1);
            calls.iter().filter(|(arrived, _)| second.contains(arrived)).count()
        };
        let most = seconds.map(calls_in).max().unwrap();
        assert!((3..=5).contains(&most), "{most} calls for {shard} in a second: {calls:?}");
    }
}

#[tokio::test]
async fn two_megabytes_a_second_are_taken_of_a_shard_at_the_most() {
    // When records were asked for, when the answer was ready, and how many there were.
    let asked: Arc<Mutex<Vec<(Instant, Instant, u32)>>> = Arc::default();
    let shared = Arc::clone(&asked);
    let server = Server::start(options(), move |app| {
        before(app, move |call, next| {
            let asked = Arc::clone(&shared);
            Box::pin(async move {
                let reads = call.operation == "GetRecords";
                let arrived = Instant::now();
                let response = call.pass(next).await;
                if !reads {
                    return response;
                }
                match body_of(response).await {
                    Ok(body) => {
                        let records = body["Records"].as_array().unwrap().len();
                        asked.lock().unwrap().push((arrived, Instant::now(), records.try_into().unwrap()));
                        answer(&body)
                    }
                    Err(refused) => refused,
                }
            })
        })
    });
    let stream = with_large_records(&server, 6).await;
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    // Room for far more than there is: nothing but the limit holds it up.
    job.buffer_bytes = 64 << 20;
    job.live(6, usize::MAX).await.unwrap();
    has_large_records(&job, 6);
    let asked = asked.lock().unwrap();
    let mut paid = 0_u32;
    for calls in asked.windows(2) {
        let [(_, answered, records), (arrived, ..)] = calls else { panic!("{calls:?}") };
        // A megabyte each. The next call is sent when that is paid for, however late it then arrives.
        let due = Duration::from_millis(500) * *records;
        let passed = arrived.duration_since(*answered);
        assert!(passed + Duration::from_millis(10) >= due, "{passed:?} after {records} records: {asked:?}");
        paid += *records;
    }
    assert!(paid >= 3, "too little to see it: {asked:?}");
}

/// Whether a sequence number is not greater than another.
pub(crate) fn up_to(number: &Value, last: &str) -> bool {
    let number = number.as_str().unwrap();
    (number.len(), number) <= (last.len(), last)
}

#[tokio::test]
async fn the_newest_records_of_many_shards_are_found_amid_faults() {
    let faults = Faults::new(3, 30);
    let server = Server::start(options(), faults.layer());
    let stream = server.create(12).await.unwrap();
    let mut load = Load { keys: 40, sent: 0 };
    load.send(&stream, 1).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.start = StartPosition::Latest;
    let mut reader = job.subscribe().await.unwrap();
    load.send(&stream, 1).await.unwrap();
    job.read(&mut *reader, 40, usize::MAX).await.unwrap();
    assert!(job.by_key().values().all(|numbers| *numbers == [1]), "{:?}", job.by_key());
    assert_eq!(job.by_key().len(), 40);
}

#[tokio::test]
async fn a_start_at_the_latest_comes_about_while_records_keep_coming() {
    // Before each answer with records another one arrives.
    let busy: Arc<OnceLock<Stream>> = Arc::default();
    let shared = Arc::clone(&busy);
    let arrived = AtomicUsize::new(0);
    let server = Server::start(options(), move |app| {
        before(app, move |call, next| {
            let busy = Arc::clone(&shared);
            let number = (call.operation == "GetRecords").then(|| arrived.fetch_add(1, Ordering::Relaxed));
            Box::pin(async move {
                if let (Some(number), Some(stream)) = (number, busy.get()) {
                    let record = ("key-0".to_owned(), format!("key-0:{number}").into_bytes());
                    stream.put_keyed(vec![record]).await.unwrap();
                }
                call.pass(next).await
            })
        })
    });
    let stream = server.create(1).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.start = StartPosition::Latest;
    assert!(busy.set(stream).is_ok());
    let subscribed = tokio::time::timeout(Duration::from_secs(20), job.subscribe()).await;
    let mut reader = subscribed.expect("the newest record is found").unwrap();
    job.read(&mut *reader, 3, usize::MAX).await.unwrap();
    // The first one was the newest.
    assert!(job.by_key()["key-0"].iter().copied().eq(1..=job.processed.len()), "{:?}", job.processed);
}

/// What the emulator is started with, for subscriptions that last so long.
pub(crate) fn sessions(session_ms: u64) -> StoreOptions {
    StoreOptions { subscribe_to_shard_session_ms: session_ms, ..options() }
}

/// When subscriptions were asked for and answered, and where they were to begin.
type Subscriptions = Arc<Mutex<Vec<(Instant, Instant, Value)>>>;

/// A server that notes subscriptions. The first one of all sends `pieces` of its answer and then nothing for ever, where
/// that is told.
pub(crate) fn noting(options: StoreOptions, pieces: Option<usize>) -> (Server, Subscriptions) {
    let subscriptions = Subscriptions::default();
    let noted = Arc::clone(&subscriptions);
    let server = Server::start(options, move |app| {
        before(app, move |call, next| {
            let noted = Arc::clone(&noted);
            Box::pin(async move {
                if call.operation != "SubscribeToShard" {
                    return call.pass(next).await;
                }
                let (asked, position) = (Instant::now(), call.body["StartingPosition"].clone());
                let (parts, body) = call.pass(next).await.into_parts();
                let mut noted = noted.lock().unwrap();
                let silent = pieces.filter(|_| noted.is_empty());
                noted.push((asked, Instant::now(), position));
                let body = match silent {
                    Some(pieces) => {
                        let begun = body.into_data_stream().take(pieces);
                        Body::from_stream(begun.chain(futures::stream::pending()))
                    }
                    None => body,
                };
                Response::from_parts(parts, body)
            })
        })
    });
    (server, subscriptions)
}

#[tokio::test]
async fn a_subscription_that_ends_is_continued_where_it_ended_and_not_too_soon() {
    let (server, subscriptions) = noting(sessions(300), None);
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 1, sent: 0 };
    load.send(&stream, 3).await.unwrap();
    let last = stream.sequence_numbers(0).await.unwrap().pop().unwrap();
    let mut job = Job::new(stream.open("fan_out", &open_context()).unwrap());
    let mut reader = job.subscribe().await.unwrap();
    job.read(&mut *reader, 3, usize::MAX).await.unwrap();
    // By now it is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.send(&stream, 3).await.unwrap();
    job.read(&mut *reader, 6, usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
    let subscriptions = subscriptions.lock().unwrap();
    let [(_, answered, first), (asked, _, second), ..] = subscriptions.as_slice() else {
        panic!("{subscriptions:?}");
    };
    assert_eq!(first["Type"], "TRIM_HORIZON");
    assert_eq!(second["Type"], "AT_SEQUENCE_NUMBER");
    assert!(!up_to(&second["SequenceNumber"], &last), "it begins with what was read: {second}, {last}");
    // Kinesis takes one subscription to a shard in this time.
    assert!(asked.duration_since(*answered) >= Duration::from_secs(5), "{subscriptions:?}");
}

async fn gives_up_a_silent_subscription(pieces: usize) {
    let (server, subscriptions) = noting(sessions(300_000), Some(pieces));
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 1, sent: 0 };
    load.send(&stream, 3).await.unwrap();
    let mut job = Job::new(stream.open("fan_out", &open_context()).unwrap());
    let mut reader = job.subscribe().await.unwrap();
    job.read(&mut *reader, 3, usize::MAX).await.unwrap();
    load.send(&stream, 3).await.unwrap();
    job.read(&mut *reader, 6, usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
    assert_eq!(subscriptions.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_subscription_that_is_or_has_gone_silent_is_given_up() {
    // Nothing at all, and what begins an answer with the first event. At once: most of the time is waited.
    futures::join!(gives_up_a_silent_subscription(0), gives_up_a_silent_subscription(2));
}
