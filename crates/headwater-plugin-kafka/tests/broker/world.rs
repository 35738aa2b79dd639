//! Brokers, topics and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{
    Checkpoints, FixedCheckpoints, Payload, Progress, ReaderContext, StartPosition, StreamEvent,
};
use headwater_core::time::{ManualClock, SystemClock};
use headwater_core::{Position, SplitId, StreamReader, StreamSource};
use headwater_plugin_kafka::PLUGIN;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

static TOPICS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Broker {
    pub(crate) servers: String,
}

/// Fails the test unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}
pub(crate) use ensure;

impl Broker {
    pub(crate) fn new(servers: String) -> Self {
        Self { servers }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers).set("linger.ms", "0");
        client
    }

    fn admin(&self) -> Outcome<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// A topic's name that no other test has.
    pub(crate) fn name(&self) -> String {
        format!("broker-{}-{}", std::process::id(), TOPICS.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Outcome {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for made in self.admin()?.create_topics([&new], &options).await? {
            made.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        Ok(())
    }

    pub(crate) async fn grow(&self, topic: &str, partitions: usize) -> Outcome {
        let grown = NewPartitions::new(topic, partitions);
        for made in self.admin()?.create_partitions([&grown], &AdminOptions::new()).await? {
            made.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes a topic and waits until it is gone.
    pub(crate) async fn delete(&self, topic: &str) -> Outcome {
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for gone in admin.delete_topics(&[topic], &options).await? {
            gone.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        Ok(())
    }

    /// Removes the records of partition 0 before `offset`, as retention would.
    pub(crate) async fn delete_before(&self, topic: &str, offset: i64) -> Outcome {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset))?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        self.admin()?.delete_records(&list, &options).await?;
        Ok(())
    }

    /// Appends these values to a partition.
    pub(crate) async fn produce(&self, topic: &str, partition: i32, values: &[String]) -> Outcome {
        // A record that is sent again keeps its place, and comes once; in a partition that was just made as well.
        let mut client = self.client();
        client.set("enable.idempotence", "true").set("max.in.flight.requests.per.connection", "1");
        let producer: FutureProducer = client.create()?;
        let mut sent = Vec::new();
        for value in values {
            let record = FutureRecord::<(), String>::to(topic).partition(partition).payload(value);
            sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
        }
        for delivery in sent {
            delivery.await?.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    /// The source of a topic, with more options.
    pub(crate) fn source(&self, topic: &str, more: Value) -> Outcome<Arc<dyn StreamSource>> {
        let mut options = json!({"bootstrap_servers": self.servers, "topic": topic, "revoke_timeout": "2s"});
        for (key, value) in more.as_object().into_iter().flatten() {
            options[key] = value.clone();
        }
        let options = options.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let config = Config { name: "source `tested`".into(), options, base_dir: ".".into() };
        let context = OpenContext { project: "tests".into(), clock: Arc::new(ManualClock::new(0)), source: None };
        let role = PLUGIN.stream.ok_or("no stream role")?;
        Ok((role.open)(&config, &context)?)
    }

    /// A reader of the topic.
    pub(crate) async fn reader(&self, topic: &str, more: Value, setup: &Setup) -> Outcome<Reader> {
        let reader = self.source(topic, more)?.subscribe(setup.context(topic)).await?;
        Ok(Reader {
            reader,
            assigned: BTreeMap::new(),
            records: Vec::new(),
            through: BTreeMap::new(),
            lost: BTreeMap::new(),
            revoked: Vec::new(),
        })
    }
}

/// Values that tell records apart.
pub(crate) fn values(label: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{label} {number}")).collect()
}

pub(crate) fn split(partition: u32) -> SplitId {
    SplitId::new(partition.to_be_bytes().to_vec())
}

/// What a reader is given.
pub(crate) struct Setup {
    pub(crate) group: &'static str,
    pub(crate) start: StartPosition,
    pub(crate) buffer_bytes: usize,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
}

impl Setup {
    /// From the beginning, with nothing read before.
    pub(crate) fn fresh() -> Self {
        Self::with(FixedCheckpoints::default())
    }

    pub(crate) fn with(checkpoints: impl Checkpoints + 'static) -> Self {
        Self {
            group: "tests.group",
            start: StartPosition::Earliest,
            buffer_bytes: 16 << 20,
            checkpoints: Arc::new(checkpoints),
        }
    }

    fn context(&self, topic: &str) -> ReaderContext {
        ReaderContext {
            group: format!("{}.{topic}", self.group),
            start: self.start,
            checkpoints: Arc::clone(&self.checkpoints),
            buffer_bytes: self.buffer_bytes,
            batch_records: 1000,
            refresh: Duration::from_millis(200),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Checkpoints of partition 0, with the notes of others.
pub(crate) fn resumed(notes: &FixedCheckpoints, through: u64) -> FixedCheckpoints {
    let splits = BTreeMap::from([(split(0), Progress::Through(Position::from_u64(through)))]);
    FixedCheckpoints { splits, notes: Arc::clone(&notes.notes) }
}

/// A reader with what it has told.
pub(crate) struct Reader {
    pub(crate) reader: Box<dyn StreamReader>,
    pub(crate) assigned: BTreeMap<SplitId, Position>,
    pub(crate) records: Vec<(SplitId, Option<Vec<u8>>, RecordBatch)>,
    pub(crate) through: BTreeMap<SplitId, Position>,
    /// What has lost records, and up to where.
    pub(crate) lost: BTreeMap<SplitId, Position>,
    /// The splits that went, and whether they were lost by then.
    pub(crate) revoked: Vec<(SplitId, bool)>,
}

impl Reader {
    /// The next event.
    pub(crate) async fn next(&mut self) -> Outcome {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::time::timeout_at(until, self.reader.next()).await;
            match event.map_err(|_| format!("no event within {PATIENCE:?}"))? {
                Ok(Some(event)) => return self.note(event),
                Ok(None) => return Err("the reader has ended".into()),
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes all that is ready; gives the bytes of its batches.
    pub(crate) async fn ready(&mut self) -> Outcome<usize> {
        let mut events = Vec::new();
        while let Ok(event) = tokio::time::timeout(Duration::ZERO, self.reader.next()).await {
            events.push(event?.ok_or("the reader has ended")?);
        }
        let mut bytes = 0;
        for event in events {
            if let StreamEvent::Batch(batch) = &event {
                bytes += batch.bytes();
            }
            self.note(event)?;
        }
        Ok(bytes)
    }

    fn note(&mut self, event: StreamEvent) -> Outcome {
        match event {
            StreamEvent::Assigned(splits) => {
                self.assigned.extend(splits.into_iter().map(|assigned| (assigned.split, assigned.resume)));
            }
            StreamEvent::Batch(batch) => {
                let metadata = batch.metadata.as_ref().ok_or("a batch without metadata")?;
                let Payload::Encoded(values) = &batch.payload else { return Err("columns".into()) };
                for row in 0..values.len() {
                    let value = values.is_valid(row).then(|| values.value(row).to_vec());
                    self.records.push((batch.split.clone(), value, metadata.slice(row, 1)));
                }
                if batch.lost {
                    self.lost.insert(batch.split.clone(), batch.through.clone());
                }
                self.through.insert(batch.split, batch.through);
            }
            StreamEvent::Revoked { splits, deadline } => {
                for split in splits {
                    self.assigned.remove(&split);
                    self.revoked.push((split, deadline.is_none()));
                }
            }
            StreamEvent::SplitEnded(split) => return Err(format!("{split} has ended").into()),
        }
        Ok(())
    }

    /// Reads until it is so.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&Self) -> bool) -> Outcome {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            ensure!(tokio::time::Instant::now() < until, "not within {PATIENCE:?}: {:?}", self.assigned);
            self.next().await?;
        }
        Ok(())
    }

    /// The next error, passing or not.
    pub(crate) async fn fault(&mut self) -> Outcome<headwater_core::Error> {
        loop {
            match tokio::time::timeout(PATIENCE, self.reader.next()).await? {
                Err(error) => return Ok(error),
                Ok(Some(event)) => self.note(event)?,
                Ok(None) => return Err("the reader has ended".into()),
            }
        }
    }

    /// The error that the reader ends with.
    pub(crate) async fn error(&mut self) -> Outcome<headwater_core::Error> {
        loop {
            match tokio::time::timeout(PATIENCE, self.reader.next()).await? {
                Err(error) if !error.is_retryable() => return Ok(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(Some(event)) => self.note(event)?,
                Ok(None) => return Err("the reader has ended".into()),
            }
        }
    }

    /// Each record's value, null or not, and what came beside it.
    pub(crate) fn values_and_metadata(&self) -> impl Iterator<Item = (Option<&[u8]>, &RecordBatch)> {
        self.records.iter().map(|(_, value, metadata)| (value.as_deref(), metadata))
    }

    /// The values that came of a partition, as text; nothing where one is null.
    pub(crate) fn values(&self, partition: u32) -> Vec<&str> {
        let of = split(partition);
        let values = self.records.iter().filter(|(split, ..)| *split == of).map(|(_, value, _)| value.as_deref());
        values.map(|value| std::str::from_utf8(value.unwrap_or_default()).unwrap_or_default()).collect()
    }

    pub(crate) async fn commit(&mut self, partition: u32, through: u64) -> Outcome {
        let commit = (split(partition), Progress::Through(Position::from_u64(through)));
        Ok(self.reader.commit(&[commit]).await?)
    }

    pub(crate) async fn close(self) -> Outcome {
        Ok(self.reader.close().await?)
    }
}
