//! How records are fetched from a shard: how many wait, and where reading goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_core::stream::StartPosition;

use crate::faults::Faults;
use crate::job::{Job, Load, open_context};
use crate::server::wire::before;
use crate::server::{Server, Stream, options};

/// Nearly as much as the emulator takes in a record.
const LARGE: usize = 1_000_000;

fn large(number: usize) -> (String, Vec<u8>) {
    let value = format!("key-{number}:{}", number.to_string().repeat(LARGE));
    (format!("key-{number}"), value.into_bytes().into_iter().take(LARGE).collect())
}

async fn with_large_records(server: &Server, records: usize) -> Stream {
    let stream = server.create(1).await.unwrap();
    stream.put_keyed((0..records).map(large).collect()).await.unwrap();
    stream
}

fn has_large_records(job: &Job, records: usize) {
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
