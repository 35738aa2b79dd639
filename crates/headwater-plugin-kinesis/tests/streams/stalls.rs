//! What stands still: a buffer that stays full, a call that is never answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::job::{Job, Load, open_context};
use crate::reading::{LARGE, has_large_records, noting, sessions, with_large_records};
use crate::server::wire::before;
use crate::server::{Server, options};

/// More than wait between the emulator and a reader that takes nothing.
const RECORDS: usize = 12;

/// Takes nothing for so long from a buffer that the first record fills, then everything. Gives where the subscriptions
/// to the shard began.
async fn stands_still(session_ms: u64, stall: Duration) -> Vec<Value> {
    let mut options = sessions(session_ms);
    options.subscribe_to_shard_event_record_limit = 1;
    let (server, subscriptions) = noting(options, None);
    let stream = with_large_records(&server, RECORDS).await;
    let mut job = Job::new(stream.open("fan_out", &open_context()).unwrap());
    job.buffer_bytes = LARGE / 2;
    let mut reader = job.subscribe().await.unwrap();
    tokio::time::sleep(stall).await;
    assert_eq!(subscriptions.lock().unwrap().len(), 1, "subscriptions while there is no room");
    job.read(&mut *reader, RECORDS, usize::MAX).await.unwrap();
    has_large_records(&job, RECORDS);
    let subscriptions = subscriptions.lock().unwrap();
    subscriptions.iter().map(|(.., position)| position.clone()).collect()
}

#[tokio::test]
async fn a_full_buffer_is_not_taken_for_silence() {
    // The watchdog waits for 30 s. Had it counted these, there would be another subscription as soon as there is room.
    let begun = stands_still(300_000, Duration::from_secs(35)).await;
    assert_eq!(begun.len(), 1, "{begun:?}");
}

#[tokio::test]
async fn a_subscription_that_ends_while_the_buffer_is_full_is_continued_where_it_ended() {
    // Longer than a subscription, and than the five seconds between two: another one could have been made meanwhile. The
    // first one's last records are never sent. The next one has time for all: the emulator sends four or five a second,
    // and begins with the first.
    let begun = stands_still(4_000, Duration::from_secs(6)).await;
    assert!(begun.len() > 1, "{begun:?}");
    assert!(begun[1..].iter().all(|position| position["Type"] == "AT_SEQUENCE_NUMBER"), "{begun:?}");
}

/// A server that never answers one call of a reader: the one before which so many of its kind were answered.
fn without_answer(operation: &'static str, answered: usize) -> Server {
    let calls = AtomicUsize::new(0);
    Server::start(options(), move |app| {
        before(app, move |call, next| {
            let is_left = call.operation == operation && calls.fetch_add(1, Ordering::Relaxed) == answered;
            Box::pin(async move {
                if is_left {
                    std::future::pending::<()>().await;
                }
                call.pass(next).await
            })
        })
    })
}

async fn goes_on_without_answer(consumer: &str, operation: &'static str, answered: usize) {
    let server = without_answer(operation, answered);
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 6, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
    let mut reader = job.subscribe().await.unwrap();
    // Whatever stands still, these shards have to be found and read too.
    stream.split(0).await.unwrap();
    load.send(&stream, 2).await.unwrap();
    job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected(), "{operation}");
    assert_eq!(reader.repeated(), 1, "{operation} calls that were repeated");
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_given_up_and_made_again() {
    // Each is given up after 30 s, and the job waits for 60. The first listing is made before there is a reader.
    // At once: most of the time is waited.
    futures::join!(
        goes_on_without_answer("polling", "GetRecords", 0),
        goes_on_without_answer("polling", "ListShards", 1),
        goes_on_without_answer("fan_out", "SubscribeToShard", 0),
    );
}
