//! How a topic that was made anew is told from the one that was read.
//!
//! Offsets begin at zero again in a topic of the same name, so a checkpoint alone may fit into it. A mark is what the
//! record at an offset was; it is noted beside the checkpoints, and looked at before a partition is read on.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_core::{Error, ErrorKind, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::{Value, json};

use crate::client::{self, REQUEST_TIMEOUT};
use crate::config::KafkaConfig;
use crate::error::kafka;
use crate::trouble::{Outsider, Troubled};

const FORMAT_VERSION: u64 = 1;

/// What a record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) offset: i64,
    /// Microseconds.
    timestamp: Option<i64>,
    checksum: u64,
}

impl Mark {
    pub(crate) fn new(offset: i64, timestamp: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self { offset, timestamp, checksum: checksum(key, value) }
    }

    /// The name of a partition's note.
    pub(crate) fn name(partition: i32) -> String {
        format!("kafka mark {partition}")
    }

    pub(crate) fn to_note(self) -> Bytes {
        let Self { offset, timestamp, checksum } = self;
        json!({"version": FORMAT_VERSION, "offset": offset, "timestamp": timestamp, "checksum": checksum})
            .to_string()
            .into()
    }

    pub(crate) fn from_note(note: &[u8]) -> Result<Self> {
        let note = note_object(note, FORMAT_VERSION)?;
        let number = |name: &str| note.get(name).and_then(Value::as_i64);
        match (number("offset"), note.get("checksum").and_then(Value::as_u64)) {
            (Some(offset), Some(checksum)) => Ok(Self { offset, timestamp: number("timestamp"), checksum }),
            _ => Err(Error::corrupt("the note of a committed record cannot be read").with_plugin("kafka")),
        }
    }
}

/// A note of this plugin: an object with a version.
pub(crate) fn note_object(note: &[u8], known: u64) -> Result<Value> {
    let object: Value = serde_json::from_slice(note)
        .map_err(|error| Error::corrupt("a note cannot be read").with_plugin("kafka").with_source(error))?;
    match object.get("version").and_then(Value::as_u64) {
        Some(version) if version == known => Ok(object),
        version => {
            let found = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            let message = format!("a note has format version `{found}`; this release knows `{known}`");
            Err(Error::new(ErrorKind::FormatVersion, message).with_plugin("kafka"))
        }
    }
}

/// FNV-1a over key and value; a missing one differs from an empty one.
fn checksum(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in [key, value] {
        add(u8::from(part.is_some()));
        for byte in part.map_or(0, <[u8]>::len).to_be_bytes() {
            add(byte);
        }
        part.unwrap_or_default().iter().copied().for_each(&mut add);
    }
    sum
}

/// The marks of records that were handed over and are not committed yet, one for each batch at the most.
#[derive(Debug, Default)]
pub(crate) struct Marks(VecDeque<Mark>);

impl Marks {
    const MOST: usize = 1024;

    pub(crate) fn push(&mut self, mark: Mark) {
        if self.0.len() >= Self::MOST {
            // Any committed record will do. Older ones are thinned out.
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push_back(mark);
    }

    /// The newest mark before `next`, where that is the offset up to which all is committed.
    pub(crate) fn committed(&mut self, next: i64) -> Option<Mark> {
        let mut newest = None;
        while self.0.front().is_some_and(|mark| mark.offset < next) {
            newest = self.0.pop_front();
        }
        newest
    }
}

/// Looks at the records that `marks` are of. Gives the partitions whose record is another one now; one whose record is
/// gone, by retention or compaction, is not among them. Blocks.
///
/// # Errors
/// `Unavailable` where the brokers do not answer in time.
pub(crate) fn differing(config: &KafkaConfig, group: &str, marks: &BTreeMap<i32, Mark>) -> Result<Vec<i32>> {
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let looker = looker(config, group).create_with_context(Outsider::default());
    let consumer: BaseConsumer<Outsider> = looker.map_err(|error| kafka(error, "make a client"))?;
    // This source was let in, or there would be no mark.
    consumer.context().trouble().let_in();
    let mut list = TopicPartitionList::new();
    for (partition, mark) in marks {
        list.add_partition_offset(&config.topic, *partition, Offset::Offset(mark.offset))
            .map_err(|error| kafka(error, "look at a committed record"))?;
    }
    consumer.assign(&list).map_err(|error| kafka(error, "look at a committed record"))?;
    let until = Instant::now() + REQUEST_TIMEOUT;
    let mut open = marks.clone();
    let mut differing = Vec::new();
    while !open.is_empty() {
        if Instant::now() >= until {
            let late = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
            return Err(consumer.context().trouble().explain(late, "look at a committed record"));
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let Some(mark) = open.remove(&message.partition()) else { continue };
                let timestamp = message.timestamp().to_millis().and_then(|millis| millis.checked_mul(1000));
                let found = Mark::new(message.offset(), timestamp, message.key(), message.payload());
                if found.offset == mark.offset && found != mark {
                    differing.push(message.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            // What is passing passes; what is not ends with the time.
            Some(Err(_)) | None => {}
        }
    }
    Ok(differing)
}

/// A client that reads a record or two. It bears the group's name, without which librdkafka reads nothing, and joins none.
fn looker(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut client = client::outsider(config);
    client
        .set("group.id", group)
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "latest")
        .set("isolation.level", "read_uncommitted")
        // One record of each partition is wanted, and at once: a worker that starts again waits for it.
        .set("queued.min.messages", "1")
        .set("queued.max.messages.kbytes", "1024")
        .set("fetch.message.max.bytes", "65536")
        .set("fetch.wait.max.ms", "10")
        .set("fetch.queue.backoff.ms", "1");
    client
}
