#![allow(dead_code)] // No test binary uses all of it.
#![allow(clippy::unwrap_used)] // Everything here is a test or helps one.

//! A job over several lives, as the engine would have it: it dies, and goes on at its checkpoints.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use futures::FutureExt;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{
    AssignedSplit, Checkpoints, Payload, Progress, ReaderContext, StartPosition, StreamEvent, StreamReader,
    StreamSource,
};
use headwater_core::time::{Clock, SystemClock};
use headwater_core::{Micros, Position, Result, SplitId};
use headwater_testkit::stream::stream_context;

use crate::server::{Stream, shard_id};

/// How long a reader may say nothing while something is to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The engine's checkpoints and notes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    splits: Mutex<BTreeMap<SplitId, Progress>>,
    /// What there was of `splits` when a log was last published, where there is one: reading goes on there.
    logged: Mutex<Option<BTreeMap<SplitId, Progress>>>,
    notes: Mutex<BTreeMap<String, Bytes>>,
}

#[async_trait]
impl Checkpoints for Ledger {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        if let Some(logged) = &*self.logged.lock().unwrap() {
            return Ok(logged.get(split).cloned());
        }
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

pub(crate) fn open_context() -> OpenContext {
    stream_context(Arc::new(SystemClock))
}

/// A clock that is so far ahead of the server's, and counts how often it was asked.
#[derive(Debug)]
pub(crate) struct Ahead(AtomicI64, AtomicUsize);

impl Ahead {
    pub(crate) fn by(micros: Micros) -> Self {
        Self(micros.into(), 0.into())
    }

    pub(crate) fn set(&self, micros: Micros) {
        self.0.store(micros, Ordering::SeqCst);
    }

    /// Waits until it was asked twice more.
    pub(crate) async fn asked(&self) {
        let before = self.1.load(Ordering::SeqCst);
        while self.1.load(Ordering::SeqCst) < before + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Clock for Ahead {
    fn now(&self) -> Micros {
        self.1.fetch_add(1, Ordering::SeqCst);
        SystemClock.now() + self.0.load(Ordering::SeqCst)
    }
}

/// A job with its lives: what it processed, and its checkpoints.
pub(crate) struct Job {
    source: Arc<dyn StreamSource>,
    ledger: Arc<Ledger>,
    /// The values in the order in which they came.
    pub(crate) processed: Vec<String>,
    /// The splits whose batches said that records are gone, each as often as it was said where the engine writes it down:
    /// behind what it knows.
    pub(crate) lost: Vec<SplitId>,
    pub(crate) batch_records: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) refresh: Duration,
    pub(crate) start: StartPosition,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Job {
    pub(crate) fn new(source: Arc<dyn StreamSource>) -> Self {
        Self {
            source,
            ledger: Arc::default(),
            processed: vec![],
            lost: vec![],
            batch_records: 7,
            buffer_bytes: 4 << 20,
            refresh: Duration::from_millis(100),
            start: StartPosition::Earliest,
            clock: Arc::new(SystemClock),
        }
    }

    pub(crate) async fn subscribe(&self) -> Result<Box<dyn StreamReader>> {
        let context = ReaderContext {
            group: "tests.job".into(),
            start: self.start,
            checkpoints: Arc::<Ledger>::clone(&self.ledger),
            buffer_bytes: self.buffer_bytes,
            batch_records: self.batch_records,
            refresh: self.refresh,
            clock: Arc::clone(&self.clock),
        };
        loop {
            match self.source.subscribe(context.clone()).await {
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                subscribed => return subscribed,
            }
        }
    }

    /// Reads until so many values are processed, or so many events have come; then dies.
    pub(crate) async fn live(&mut self, values: usize, events: usize) -> Result<()> {
        let mut reader = self.subscribe().await?;
        self.read(&mut *reader, values, events).await
    }

    /// Reads until so many values are processed, or so many events have come.
    pub(crate) async fn read(&mut self, reader: &mut dyn StreamReader, values: usize, mut events: usize) -> Result<()> {
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
            self.take(reader, event).await?;
        }
        Ok(())
    }

    /// Publishes a log: from now on reading goes on here.
    pub(crate) fn publish(&self) {
        *self.ledger.logged.lock().unwrap() = Some(self.ledger.splits.lock().unwrap().clone());
    }

    /// The checkpoint of a shard.
    pub(crate) fn progress(&self, shard: usize) -> Option<Progress> {
        self.ledger.splits.lock().unwrap().get(&SplitId::from(shard_id(shard).as_str())).cloned()
    }

    /// Has a shard read on from here.
    pub(crate) fn resume(&self, shard: usize, position: Position) {
        let split = SplitId::from(shard_id(shard).as_str());
        self.ledger.splits.lock().unwrap().insert(split, Progress::Through(position));
    }

    /// Takes all that the reader holds ready, and gives how many bytes of values that was. On a runtime of one thread
    /// nothing else is fetched meanwhile.
    pub(crate) async fn drain(&mut self, reader: &mut dyn StreamReader) -> Result<usize> {
        let before = self.processed.len();
        while let Some(event) = reader.next().now_or_never() {
            self.take(reader, event?).await?;
        }
        Ok(self.processed.iter().skip(before).map(String::len).sum())
    }

    async fn take(&mut self, reader: &mut dyn StreamReader, event: Option<StreamEvent>) -> Result<()> {
        let commits = self.process(event);
        self.ledger.splits.lock().unwrap().extend(commits.iter().cloned());
        // An end is committed when the log has it too.
        if let Some(logged) = &mut *self.ledger.logged.lock().unwrap() {
            logged.extend(commits.iter().filter(|(_, progress)| *progress == Progress::End).cloned());
        }
        reader.commit(&commits).await
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
                let known = self.ledger.splits.lock().unwrap().get(&batch.split).cloned();
                if batch.lost
                    && known.is_none_or(|known| matches!(known, Progress::Through(known) if known < batch.through))
                {
                    self.lost.push(batch.split.clone());
                }
                vec![(batch.split, Progress::Through(batch.through))]
            }
            Some(StreamEvent::SplitEnded(split)) => vec![(split, Progress::End)],
            Some(StreamEvent::Revoked { .. }) | None => panic!("nothing is revoked, and the stream has no end"),
        }
    }

    /// The numbers that came for each key, in their order.
    pub(crate) fn by_key(&self) -> BTreeMap<String, Vec<usize>> {
        let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for value in &self.processed {
            let (key, number) = value.split_once(':').unwrap();
            keys.entry(key.to_owned()).or_default().push(number.parse().unwrap());
        }
        keys
    }
}

/// The next records of each key.
pub(crate) struct Load {
    pub(crate) keys: usize,
    pub(crate) sent: usize,
}

impl Load {
    pub(crate) async fn send(&mut self, stream: &Stream, each: usize) -> Result<()> {
        let record = |number, key| (format!("key-{key}"), format!("key-{key}:{number}").into_bytes());
        let numbers = self.sent..self.sent + each;
        let records = numbers.flat_map(|number| (0..self.keys).map(move |key| record(number, key)));
        self.sent += each;
        stream.put_keyed(records.collect()).await
    }

    pub(crate) fn total(&self) -> usize {
        self.sent * self.keys
    }

    pub(crate) fn expected(&self) -> BTreeMap<String, Vec<usize>> {
        (0..self.keys).map(|key| (format!("key-{key}"), (0..self.sent).collect())).collect()
    }
}
