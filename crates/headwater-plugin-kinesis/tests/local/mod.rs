//! What the emulator in this process does not know, shown on the server of `AWS_ENDPOINT_URL_KINESIS`: records of up to
//! 10 MiB, streams that go by their ARN everywhere, and the parents of the shards that a changed shard count makes.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_testkit::{Clause, Stop, Verdict};

use crate::job::{Job, Load, open_context};
use crate::server::{Server, failed};

type Check = fn(Server) -> BoxFuture<'static, Verdict>;

/// What is shown, the words that it is about, and how it is shown.
const CHECKS: [(&str, &str, Check); 3] = [
    (
        "kinesis-local large-records-come-whole",
        "The most that the reader may hold ready in memory, in bytes. One record may exceed it alone.",
        |server| alone(move || large(server)).boxed(),
    ),
    (
        "kinesis-local an-arn-names-the-stream",
        "Two configurations with equal identity read the same records;",
        |server| arn(server).boxed(),
    ),
    (
        "kinesis-local changed-shard-counts-keep-the-order-of-a-key",
        "a split is not handed out before `End` of all its parents is committed, or they are gone;",
        |server| resized(server).boxed(),
    ),
];

/// The names of all clauses.
pub(crate) fn names() -> impl Iterator<Item = String> {
    CHECKS.iter().map(|(name, ..)| (*name).to_owned())
}

/// The clauses on a server.
pub(crate) fn clauses(server: &Server) -> impl Iterator<Item = Clause> {
    CHECKS.iter().map(|(name, quote, check)| {
        let server = server.clone();
        Clause::new(*name, quote, move || check(server))
    })
}

/// Runs on a thread by itself, where nothing is fetched while the test does not wait.
async fn alone<F: Future<Output = Verdict>>(body: impl FnOnce() -> F + Send + 'static) -> Verdict {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(body())
    };
    tokio::task::spawn_blocking(run).await.map_err(failed)?
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::Failed(otherwise())) }
}

const MIB: usize = 1 << 20;
/// The last one shows that there is a behind. The third is what the server still hands out: by itself it takes 10 MiB too.
const SIZES: [usize; 5] = [MIB * 3 / 2, MIB * 5, MIB * 99 / 10, 20, 10];

/// A value like no other.
fn value(number: usize, size: usize) -> String {
    let pattern = format!("{number}-");
    pattern.repeat(size / pattern.len() + 1).chars().take(size).collect()
}

async fn large(server: Server) -> Verdict {
    let stream = server.create(1).await?;
    stream.take_largest().await?;
    let values = SIZES.iter().enumerate().map(|(number, size)| value(number, *size)).collect::<Vec<_>>();
    stream.put_keyed(values.iter().map(|value| ("k".to_owned(), value.clone().into_bytes())).collect()).await?;
    for consumer in ["polling", "fan_out"] {
        let mut job = Job::new(stream.open(consumer, &open_context())?);
        job.batch_records = 1;
        job.buffer_bytes = MIB;
        if consumer == "polling" {
            let mut reader = job.subscribe().await?;
            // Long enough to fetch the next one as well, if it were fetched.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let held = job.drain(&mut *reader).await?;
            ensure(held == SIZES[0], || format!("{held} bytes waited, and not just the first record"))?;
        }
        // It dies behind a large one.
        job.live(2, usize::MAX).await?;
        job.live(values.len(), usize::MAX).await?;
        let lengths = || job.processed.iter().map(String::len).collect::<Vec<_>>();
        ensure(job.processed == values, || format!("{consumer}: records of {SIZES:?} bytes came as {:?}", lengths()))?;
    }
    Ok(())
}

async fn arn(server: Server) -> Verdict {
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(2).await?;
        let mut load = Load { keys: 5, sent: 0 };
        load.send(&stream, 2).await?;
        let source = stream.open_by_arn(consumer, &open_context()).await?;
        ensure(source.discover().await?.len() == 2, || "it does not find the stream's shards".into())?;
        let mut job = Job::new(source);
        job.live(load.total(), usize::MAX).await?;
        stream.split(0).await?;
        load.send(&stream, 2).await?;
        job.live(load.total(), usize::MAX).await?;
        ensure(job.by_key() == load.expected(), || format!("{consumer}: {:?}", job.by_key()))?;
    }
    Ok(())
}

async fn resized(server: Server) -> Verdict {
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(2).await?;
        let mut job = Job::new(stream.open(consumer, &open_context())?);
        // Who polls has room for three records or so in an answer, and a parent holds many more: a child that did not
        // wait for it would be read long before its end.
        job.buffer_bytes = 4 << 10;
        let mut load = Load { keys: 12, sent: 0 };
        load.send(&stream, 4).await?;
        // It dies when it has read little of the parents.
        job.live(load.total(), 3).await?;
        stream.resize(4).await?;
        let open = stream.open_shards().await?.len();
        ensure(open == 4, || format!("{open} shards are open and not four"))?;
        load.send(&stream, 4).await?;
        // While it runs.
        let before = load.total();
        let ((), ()) = futures::future::try_join(job.live(before + 1, usize::MAX), async {
            stream.resize(3).await?;
            load.send(&stream, 4).await
        })
        .await?;
        // And while it is down: what came of a merge with what came of a split.
        let open = stream.open_shards().await?;
        ensure(open.len() == 3, || format!("{open:?} are open and not three"))?;
        stream.merge(open[0], open[1]).await?;
        load.send(&stream, 4).await?;
        // Without this the order is anybody's guess.
        let shards = stream.shards().await?;
        let first = shards.iter().filter(|shard| shard.parent_shard_id.is_none()).count();
        let merged = shards.iter().filter(|shard| shard.adjacent_parent_shard_id.is_some()).count();
        ensure(first == 2 && merged >= 2, || format!("shards lack their parents: {shards:?}"))?;
        job.live(load.total(), usize::MAX).await?;
        ensure(job.by_key() == load.expected(), || format!("{consumer}: {:?}", job.by_key()))?;
    }
    Ok(())
}
