//! Stores and streams that fail for a while, stall, or fail for good.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::offline::{Append, Compaction, LogEnd, LogId, LogRange};
use headwater_core::online::{OnlineRow, Put};
use headwater_core::{BatchSource, Error, ErrorKind, OfflineStore, OnlineStore, Result, SplitId};
use headwater_testkit::Random;
use tokio::sync::watch;
use tokio::time::Instant;

use super::world::*;
use crate::ingest::{JobState, checkpoint, dead_letters, jobs};

/// A store that fails once in a while, before or after it has done what was asked.
#[derive(Debug)]
pub(super) struct Flaky<S: ?Sized> {
    inner: Arc<S>,
    random: Mutex<Random>,
    /// Never for 0.
    once_in: AtomicUsize,
    /// The view whose log it does not fail with.
    spared: Option<&'static str>,
}

impl<S: ?Sized> Flaky<S> {
    fn new(inner: &Arc<S>, seed: u64, once_in: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            random: Mutex::new(Random::new(seed)),
            once_in: AtomicUsize::new(once_in),
            spared: None,
        })
    }

    fn stumble(&self) -> Result<()> {
        let once_in = self.once_in.load(Ordering::Relaxed);
        if once_in > 0 && self.random.lock().unwrap().once_in(once_in) {
            return Err(Error::new(ErrorKind::Unavailable, "the store is away"));
        }
        Ok(())
    }
}

impl Flaky<dyn OnlineStore> {
    pub(super) fn stores(world: &World, seed: u64, once_in: usize) -> (Arc<dyn OnlineStore>, Arc<dyn OfflineStore>) {
        (Flaky::new(&world.online, seed, once_in), Flaky::new(&world.offline, seed, once_in))
    }
}

#[async_trait]
impl OnlineStore for Flaky<dyn OnlineStore> {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        self.stumble()?;
        let done = self.inner.put(table, rows).await?;
        self.stumble()?;
        Ok(done)
    }

    async fn sync(&self) -> Result<()> {
        self.stumble()?;
        self.inner.sync().await
    }

    // Reads by tests and at the start of a job are none of the retried work.
    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        self.inner.get(table, keys).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        self.inner.get_prefixes(table, prefixes).await
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        self.inner.delete(table, keys).await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        self.inner.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        self.inner.tables().await
    }
}

#[async_trait]
impl OfflineStore for Flaky<dyn OfflineStore> {
    async fn append(
        &self,
        log: &LogId,
        split: &SplitId,
        rows: RecordBatch,
        range: LogRange,
        metadata: BTreeMap<String, String>,
    ) -> Result<Append> {
        if self.spared == Some(log.view.as_str()) {
            return self.inner.append(log, split, rows, range, metadata).await;
        }
        self.stumble()?;
        let done = self.inner.append(log, split, rows, range, metadata).await?;
        self.stumble()?;
        Ok(done)
    }

    async fn ends(&self, log: &LogId) -> Result<BTreeMap<SplitId, LogEnd>> {
        self.stumble()?;
        self.inner.ends(log).await
    }

    fn log(&self, log: &LogId) -> Arc<dyn BatchSource> {
        self.inner.log(log)
    }

    async fn logs(&self) -> Result<Vec<LogId>> {
        self.inner.logs().await
    }

    async fn compact(&self, log: &LogId) -> Result<Compaction> {
        self.inner.compact(log).await
    }

    async fn remove(&self, log: &LogId) -> Result<()> {
        self.inner.remove(log).await
    }
}

/// A store whose values can be made to stand still, or to fail for good.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) inner: Arc<dyn OnlineStore>,
    pub(super) open: watch::Receiver<bool>,
    pub(super) broken: bool,
}

#[async_trait]
impl OnlineStore for Gate {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        if table.contains("values") {
            if self.broken {
                return Err(Error::new(ErrorKind::PermissionDenied, "the store is read-only"));
            }
            let mut open = self.open.clone();
            open.wait_for(|open| *open).await.unwrap();
        }
        self.inner.put(table, rows).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        self.inner.get(table, keys).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        self.inner.get_prefixes(table, prefixes).await
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        self.inner.delete(table, keys).await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        self.inner.drop_table(table).await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        self.inner.tables().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_errors_are_tried_again_and_counted() {
    let mut world = World::new();
    for index in 0..200 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    (world.online, world.offline) = Flaky::stores(&world, 3, 2);
    world.stream.script.lock().unwrap().fail_once_in = 3;
    let mut job = world.start().await;
    job.wait().await.unwrap();
    assert_eq!(world.log().await.len(), 200);
    let status = job.status();
    assert_eq!(status.state, JobState::Stopped);
    assert!(status.retries > 0);
    assert!(status.splits[0].counts.retries > 0);
    assert_eq!(status.retrying, None, "it is over");
    assert_eq!(jobs(&world.project()).await.unwrap()[0].state, JobState::Stopped, "others know that it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_a_reader_repeats_by_itself_are_counted_once() {
    let world = World::new();
    for index in 0..200 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    world.stream.script.lock().unwrap().repeated = 7;
    let mut job = world.start().await;
    job.wait().await.unwrap();
    assert_eq!(job.status().retries, 7);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_away_for_long_is_asked_again_soon() {
    let mut world = World::new();
    world.stream.event("a", 1, 10, 1.0);
    world.stream.script.lock().unwrap().fail_once_in = 1;
    let minute = Duration::from_secs(60);
    (world.options.tuning.first_pause, world.options.tuning.longest_pause) = (minute, minute);
    let mut job = world.start().await;
    world.until("it fails", || async { job.status().retrying.is_some() }).await;
    world.stream.script.lock().unwrap().fail_once_in = 0;
    let back = Instant::now();
    job.wait().await.unwrap();
    assert!(back.elapsed() < Duration::from_secs(3), "it was asked after {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_fresh_while_dead_letters_cannot_be_published() {
    let mut world = World::new();
    let inner = Arc::clone(&world.offline);
    let offline = Flaky::new(&inner, 0, 0);
    world.offline = Arc::<Flaky<dyn OfflineStore>>::clone(&offline);
    world.options.tuning.stop_timeout = Duration::from_millis(50);
    world.stream.script.lock().unwrap().follow = true;
    let is_served = async |rows| world.online().await.len() == rows;
    world.stream.event("a", 1, 10, 1.0);
    let mut job = world.start().await;
    world.until("the first is served", || is_served(1)).await;
    offline.once_in.store(1, Ordering::Relaxed);
    world.stream.add("a", "nonsense");
    world.stream.event("a", 2, 10, 1.0);
    world.until("the log is tried again", || async { job.status().retrying.is_some() }).await;
    // Longer than dead letters wait for others.
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.stream.event("a", 3, 10, 1.0);
    world.until("what comes meanwhile is served", || is_served(3)).await;
    job.stop().await.unwrap();
    world.offline = inner;
    world.stream.script.lock().unwrap().follow = false;
    world.run().await;
    assert_eq!(world.log().await.len(), 3);
    assert_eq!(dead_letters(&world.project()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_published_while_dead_letters_cannot_be() {
    let mut world = World::new();
    let inner = Arc::clone(&world.offline);
    let once_in = AtomicUsize::new(0);
    let random = Mutex::new(Random::new(0));
    let offline = Arc::new(Flaky { inner: Arc::clone(&inner), random, once_in, spared: Some("values") });
    world.offline = Arc::<Flaky<dyn OfflineStore>>::clone(&offline);
    world.options.tuning.stop_timeout = Duration::from_millis(50);
    world.stream.script.lock().unwrap().follow = true;
    world.stream.event("a", 1, 10, 1.0);
    let mut job = world.start().await;
    world.until("the first is logged", || async { world.log().await.len() == 1 }).await;
    offline.once_in.store(1, Ordering::Relaxed);
    world.stream.add("a", "nonsense");
    world.until("a cut is held up", || async { job.status().retrying.is_some() }).await;
    world.stream.event("a", 2, 10, 1.0);
    world.until("what comes meanwhile is logged", || async { world.log().await.len() == 2 }).await;
    job.stop().await.unwrap();
    world.offline = inner;
    world.stream.script.lock().unwrap().follow = false;
    world.run().await;
    assert_eq!(world.log().await.len(), 2);
    assert_eq!(dead_letters(&world.project()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_saves_no_checkpoint_of_dead_letters_that_are_not_published() {
    let mut world = World::new();
    let mut view = view("values", "g1");
    view.offline = false;
    world.views = vec![view.into()];
    let (online, inner) = (Arc::clone(&world.online), Arc::clone(&world.offline));
    let (open, gate) = watch::channel(true);
    world.online = Arc::new(Gate { inner: Arc::clone(&online), open: gate, broken: false });
    let offline = Flaky::new(&inner, 0, 0);
    world.offline = Arc::<Flaky<dyn OfflineStore>>::clone(&offline);
    world.options.tuning.stop_timeout = Duration::from_millis(200);
    world.stream.script.lock().unwrap().follow = true;
    world.stream.event("a", 1, 10, 1.0);
    let mut job = world.start().await;
    world.until("the first is served", || async { world.online().await.len() == 1 }).await;
    open.send_replace(false);
    world.stream.event("a", 2, 10, 1.0);
    world.until("a write is stalled", || async { open.receiver_count() > 1 }).await;
    world.stream.add("a", "nonsense");
    // A cut is due, and so is the letter.
    tokio::time::sleep(Duration::from_millis(20)).await;
    offline.once_in.store(1, Ordering::Relaxed);
    let opened = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        open.send_replace(true);
    };
    futures::join!(async { job.stop().await.unwrap() }, opened);
    (world.online, world.offline) = (online, inner);
    world.stream.script.lock().unwrap().follow = false;
    world.run().await;
    assert_eq!(dead_letters(&world.project()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_job_that_has_finished_says_of_no_trouble() {
    let world = World::new();
    world.stream.script.lock().unwrap().follow = true;
    world.stream.event("a", 1, 10, 1.0);
    let mut job = world.start().await;
    world.until("it is served", || async { world.online().await.len() == 1 }).await;
    world.stream.script.lock().unwrap().fail_once_in = 1;
    world.stream.more.notify_one();
    world.until("it fails", || async { job.status().retrying.is_some() }).await;
    {
        let mut script = world.stream.script.lock().unwrap();
        (script.follow, script.fail_once_in) = (false, 0);
    }
    job.wait().await.unwrap();
    assert_eq!(job.status().retrying, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_store_bounds_what_is_read() {
    let mut world = World::new();
    for index in 0..20_000 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    let (open, gate) = watch::channel(false);
    world.online = Arc::new(Gate { inner: Arc::clone(&world.online), open: gate, broken: false });
    world.options.tuning.queue_bytes = 64 << 10;
    world.options.tuning.micro_batch_rows = 1_000;
    world.options.tuning.batch_records = 50;
    let mut job = world.start().await;
    // It reads until the queue is full, and then nothing more.
    let last = world.read_until_still().await;
    assert!(last < 3_000, "{last} records were read into a stalled store");
    assert_eq!(job.status().state, JobState::Running);
    open.send_replace(true);
    job.wait().await.unwrap();
    assert_eq!(world.log().await.len(), 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_store_bounds_what_is_read_of_records_that_nobody_can_use() {
    let mut world = World::new();
    world.stream.event("a", 1, 10, 1.0);
    for _ in 0..5_000 {
        world.stream.add("a", "nonsense");
    }
    let (open, gate) = watch::channel(false);
    world.online = Arc::new(Gate { inner: Arc::clone(&world.online), open: gate, broken: false });
    world.options.tuning.queue_bytes = 64 << 10;
    world.options.tuning.log_piece_bytes = 16 << 10;
    world.options.tuning.batch_records = 50;
    let mut job = world.start().await;
    let last = world.read_until_still().await;
    assert!(last < 800, "{last} records were read into a stalled store");
    open.send_replace(true);
    job.wait().await.unwrap();
    assert_eq!(dead_letters(&world.project()).await.unwrap().len(), 5_000);
    assert_eq!(world.online().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_a_stalled_job_takes_bounded_time_and_loses_nothing() {
    let mut world = World::new();
    let inner = Arc::clone(&world.online);
    for index in 0..100 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    let (open, gate) = watch::channel(false);
    world.online = Arc::new(Gate { inner: Arc::clone(&inner), open: gate, broken: false });
    world.options.tuning.stop_timeout = Duration::from_millis(50);
    let mut job = world.start().await;
    // The gate holds one receiver, and each call that stands before it another.
    world.until("a write is stalled", || async { open.receiver_count() > 1 }).await;
    job.stop().await.unwrap();
    let status = job.status();
    assert_eq!(status.state, JobState::Stopped);
    assert!(status.reason.unwrap().contains("will be read again"));
    world.online = inner;
    world.run().await;
    assert_eq!(world.log().await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_came_due_in_a_write_is_saved_when_that_has_landed() {
    let mut world = World::new();
    world.stream.event("a", 1, 10, 1.0);
    world.stream.script.lock().unwrap().follow = true;
    let (open, gate) = watch::channel(true);
    world.online = Arc::new(Gate { inner: Arc::clone(&world.online), open: gate, broken: false });
    world.options.tuning.sync_interval = Duration::from_secs(4);
    let saved = async |through| {
        let checkpoints = checkpoint::load(world.online.as_ref(), "test", &world.views[0]).await.unwrap();
        checkpoints.values().any(|checkpoint| checkpoint.through.to_u64() == Some(through))
    };
    let mut job = world.start().await;
    world.until("the first is saved", || saved(1)).await;
    open.send_replace(false);
    world.stream.event("a", 1, 20, 2.0);
    world.until("a write is stalled", || async { open.receiver_count() > 1 }).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    open.send_replace(true);
    let landed = Instant::now();
    world.until("the second is saved", || saved(2)).await;
    assert!(landed.elapsed() < Duration::from_secs(1), "it waited for the next one for {:?}", landed.elapsed());
    job.stop().await.unwrap();
}

#[tokio::test]
async fn a_permanent_error_fails_the_job_and_says_why() {
    let mut world = World::new();
    world.stream.event("a", 1, 10, 1.0);
    let (_open, gate) = watch::channel(true);
    world.online = Arc::new(Gate { inner: Arc::clone(&world.online), open: gate, broken: true });
    let mut job = world.start().await;
    let error = job.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(job.wait().await.unwrap_err().kind(), ErrorKind::PermissionDenied, "it can be asked again");
    assert_eq!(job.status().state, JobState::Failed);
    let told = jobs(&world.project()).await.unwrap();
    assert_eq!(told[0].state, JobState::Failed, "other processes know");
    assert!(told[0].reason.as_ref().unwrap().contains("the store is read-only"), "{told:?}");
}

#[tokio::test]
async fn stop_writes_publishes_and_commits_what_was_read() {
    let mut world = World::new();
    world.options.tuning.log_interval = Duration::from_secs(3_600);
    world.stream.script.lock().unwrap().follow = true;
    world.stream.event("a", 1, 10, 1.0);
    let mut job = world.start().await;
    world.until("the row is served", || async { world.online().await.len() == 1 }).await;
    assert_eq!(world.log().await.len(), 0, "a piece is published after a while only");
    job.stop().await.unwrap();
    assert_eq!(world.log().await.len(), 1);
    let committed = world.stream.committed.lock().unwrap().values().cloned().collect::<Vec<_>>();
    let all = headwater_core::stream::Progress::Through(headwater_core::Position::from_u64(1));
    assert_eq!(committed, [all]);
}
