//! What only whole streams show: shards that are split and merged, faults, aggregates, large records, access.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)] // Everything here is a test or helps one.

mod access;
mod faults;
#[path = "../job/mod.rs"]
mod job;
mod lost;
mod reading;
#[path = "../server/mod.rs"]
mod server;
mod shards;
mod stalls;

use headwater_core::ErrorKind;
use std::time::Duration;

use axum::body::Bytes;
use headwater_core::Result;
use headwater_core::stream::{ProducerRecord, Progress};
use headwater_plugin_kinesis::PLUGIN;
use headwater_testkit::Random;

use faults::Faults;
use job::{Job, Load, open_context};
use server::{Server, options};

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

#[tokio::test]
async fn reshards_lose_and_double_nothing_and_keep_the_order_of_a_key() {
    let server = Server::plain();
    // All at once: most of the time is waited.
    let seeds = (0..3).flat_map(|seed| ["polling", "fan_out"].map(|consumer| (consumer, seed)));
    futures::future::try_join_all(seeds.map(|(consumer, seed)| reshard(&server, consumer, seed))).await.unwrap();
}

/// Two shards are merged, and what came of them with a third one, under a reader that lives on.
async fn merge_while_read(server: &Server, consumer: &str) -> Result<()> {
    let stream = server.create(3).await?;
    let mut job = Job::new(stream.open(consumer, &open_context())?);
    // Two dozen records fill it, and the second of the first two parents holds 42: while nobody takes any, it is not
    // read to its end. A child that did not wait for both would come among the rest, three records at a time.
    job.buffer_bytes = 4 << 10;
    let mut load = Load { keys: 12, sent: 0 };
    load.send(&stream, 6).await?;
    let mut reader = job.subscribe().await?;
    job.read(&mut *reader, usize::MAX, 3).await?;
    let merged = stream.merge(0, 1).await?;
    load.send(&stream, 3).await?;
    // And once more, amid reading.
    let total = load.total() + 3 * load.keys;
    let ((), ()) = futures::future::try_join(job.read(&mut *reader, total, usize::MAX), async {
        stream.merge(merged, 2).await?;
        load.send(&stream, 3).await
    })
    .await?;
    assert_eq!(job.by_key(), load.expected(), "{consumer}");
    let mut parents = (0..4).map(|shard| job.progress(shard));
    assert!(parents.all(|progress| progress == Some(Progress::End)), "{consumer}: a child came before their ends");
    Ok(())
}

#[tokio::test]
async fn merges_under_a_living_reader_keep_the_order_of_a_key() {
    let mut options = options();
    // As few as an answer to who polls has room for.
    options.subscribe_to_shard_event_record_limit = 3;
    let server = Server::start(options, |app| app);
    let consumers = ["polling", "fan_out"].map(|consumer| merge_while_read(&server, consumer));
    futures::future::try_join_all(consumers).await.unwrap();
}

#[tokio::test]
async fn faults_change_nothing_while_polling() {
    let faults = Faults::new(1, 30);
    let server = Server::start(options(), faults.layer());
    // All at once: most of the time is waited.
    futures::future::try_join_all((10..13).map(|seed| reshard(&server, "polling", seed))).await.unwrap();
    faults.all_met("GetRecords");
    faults.all_met("GetShardIterator");
}

#[tokio::test]
async fn faults_and_short_sessions_change_nothing_with_subscriptions() {
    let mut options = options();
    options.subscribe_to_shard_session_ms = 700;
    let faults = Faults::new(2, 20);
    let server = Server::start(options, faults.layer());
    futures::future::try_join_all((20..23).map(|seed| reshard(&server, "fan_out", seed))).await.unwrap();
    faults.all_met("SubscribeToShard");
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
        // The emulator does not say whose children these shards are, so their order is not looked at here: it is on
        // kinesis-local.
        let mut by_key = job.by_key();
        by_key.values_mut().for_each(|numbers| numbers.sort_unstable());
        assert_eq!(by_key, load.expected(), "{consumer}");
    }
}

/// The aggregates that another library made (PyPI aws-kinesis-agg 1.2.3, of 600 bytes at the most), one in a line with
/// the key to send it by. They hold the records `{"number":0}` to `{"number":59}`. Made by `tests/make_kpl.py`.
fn aggregates() -> Vec<(String, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = include_str!("../kpl.txt").lines().filter_map(|line| line.split_once(' '));
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
async fn what_the_kpl_sends_again_elsewhere_is_left_out_and_what_others_send_once_is_not() {
    let server = Server::plain();
    let stream = server.create(2).await.unwrap();
    let aggregates = aggregates().into_iter().map(|(_, aggregate)| aggregate).collect::<Vec<_>>();
    // The hash keys of some records belong to one shard, those of others to the other one.
    for shard in [0, 1] {
        stream.put_as("a", shard, &aggregates).await.unwrap();
    }
    stream.put_as("key-0", 1, &aggregates).await.unwrap();
    for shard in [0, 1] {
        stream.put(shard, &[b"last".to_vec()]).await.unwrap();
    }
    let once = (0..60).map(|number| format!(r#"{{"number":{number}}}"#)).chain(["last".to_owned()]);
    let mut twice = once.flat_map(|value| [value.clone(), value]).collect::<Vec<_>>();
    twice.sort_unstable();
    for consumer in ["polling", "fan_out"] {
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.live(twice.len(), usize::MAX).await.unwrap();
        job.processed.sort_unstable();
        assert_eq!(job.processed, twice, "{consumer}");
    }
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
