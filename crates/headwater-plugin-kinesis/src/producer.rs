//! The producer: fills a stream, for examples, tests and small programs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use headwater_core::options::{Config, Options};
use headwater_core::plugin::OpenContext;
use headwater_core::stream::ProducerRecord;
use headwater_core::{Error, ErrorKind, Result, StreamProducer};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::client::Stream;
use crate::config::KinesisConfig;
use crate::error::{IN_USE, code, kinesis};
use crate::pace::{LONGEST, pauses};

/// Kinesis takes so many records in one call,
const CALL_RECORDS: usize = 500;
/// and so many bytes.
const CALL_BYTES: usize = 5_000_000;
/// How long a stream may take to become active.
const ACTIVATION: Duration = Duration::from_secs(120);

/// Sends records to the source's stream, and makes the stream, with one shard, where there is none.
///
/// Records of one key keep their order: no two of them are in one call, where Kinesis may take the second and refuse the
/// first. What a shard refuses because it gets too much is sent again, without end.
#[derive(Debug)]
pub struct KinesisProducer {
    config: KinesisConfig,
    stream: OnceCell<Stream>,
}

impl KinesisProducer {
    /// Checks the options. Connects with the first record.
    ///
    /// # Errors
    /// `Invalid` for options that are wrong.
    pub fn open(config: &Config, _: &OpenContext) -> Result<Self> {
        let name = &config.name;
        let config = KinesisConfig::from_config(config)?;
        config.validate(name)?;
        Ok(Self { config, stream: OnceCell::new() })
    }

    async fn stream(&self) -> Result<&Stream> {
        self.stream
            .get_or_try_init(|| async {
                let stream = Stream::connect(&self.config).await?;
                let until = Instant::now() + ACTIVATION;
                loop {
                    match stream.describe().await {
                        Ok(facts) if facts.active => return Ok(stream),
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::NotFound => self.make(&stream).await?,
                        Err(error) => return Err(error),
                    }
                    if Instant::now() >= until {
                        let message = format!("the stream `{}` is not active in time", self.config.name());
                        return Err(Error::new(ErrorKind::Unavailable, message).with_plugin("kinesis"));
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            })
            .await
    }

    async fn make(&self, stream: &Stream) -> Result<()> {
        let made = stream.client.create_stream().stream_name(self.config.name()).shard_count(1).send().await;
        match made {
            Ok(_) => Ok(()),
            // Somebody else was first.
            Err(error) if code(&error) == Some(IN_USE) => Ok(()),
            Err(error) => Err(kinesis(error, format_args!("make the stream `{}`", self.config.name()))),
        }
    }
}

#[async_trait]
impl StreamProducer for KinesisProducer {
    async fn send(&self, records: Vec<ProducerRecord>) -> Result<()> {
        let mut waiting = Waiting::new(records)?;
        let stream = self.stream().await?;
        let mut waits = pauses();
        while let Some((keys, entries)) = waiting.next_call()? {
            let request = stream.client.put_records().set_records(Some(entries));
            let request = request.set_stream_name(stream.name.clone()).set_stream_arn(stream.arn.clone());
            let refused = match request.send().await {
                Ok(answer) => {
                    let results = answer.records.into_iter().map(|result| result.error_code);
                    waiting.sent(&keys, results.collect())
                }
                Err(error) => {
                    let error = kinesis(error, "send records");
                    // Whatever else went wrong, the records may be stored already.
                    if error.kind() != ErrorKind::Throttled {
                        return Err(error);
                    }
                    true
                }
            };
            if refused {
                sleep(waits.next().unwrap_or(LONGEST)).await;
            } else {
                waits = pauses();
            }
        }
        Ok(())
    }
}

/// Records that are not stored yet, by key, each key's in order.
struct Waiting(BTreeMap<String, VecDeque<Bytes>>);

impl Waiting {
    fn new(records: Vec<ProducerRecord>) -> Result<Self> {
        let mut waiting: BTreeMap<String, VecDeque<Bytes>> = BTreeMap::new();
        for record in records {
            let key =
                String::from_utf8(record.key.to_vec()).ok().filter(|key| (1..=256).contains(&key.chars().count()));
            let key = key.ok_or_else(|| {
                let key = String::from_utf8_lossy(&record.key).into_owned();
                Error::invalid(format!("`{key}` is no partition key: text of 1 to 256 characters"))
                    .with_plugin("kinesis")
            })?;
            waiting.entry(key).or_default().push_back(record.value);
        }
        Ok(Self(waiting))
    }

    /// The first record of each of the next keys, as many as one call takes.
    fn next_call(&self) -> Result<Option<(Vec<String>, Vec<PutRecordsRequestEntry>)>> {
        let (mut keys, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (key, records) in &self.0 {
            let Some(record) = records.front() else { continue };
            bytes += key.len() + record.len();
            if entries.len() == CALL_RECORDS || (bytes > CALL_BYTES && !entries.is_empty()) {
                break;
            }
            let entry = PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(record.to_vec())).build();
            entries.push(entry.map_err(|error| {
                Error::unexpected("a record is not complete").with_source(error).with_plugin("kinesis")
            })?);
            keys.push(key.clone());
        }
        Ok((!keys.is_empty()).then_some((keys, entries)))
    }

    /// Forgets what is stored: the records without an error. Whether there were others.
    fn sent(&mut self, keys: &[String], errors: Vec<Option<String>>) -> bool {
        let mut errors = errors.into_iter();
        let mut refused = false;
        for key in keys {
            // A result that is missing says nothing of its record.
            if errors.next().is_none_or(|error| error.is_some()) {
                refused = true;
                continue;
            }
            if let Some(records) = self.0.get_mut(key) {
                records.pop_front();
                if records.is_empty() {
                    self.0.remove(key);
                }
            }
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> ProducerRecord {
        ProducerRecord { key: key.to_owned().into(), value: value.to_owned().into() }
    }

    #[test]
    fn a_call_holds_one_record_of_a_key_and_refused_ones_come_again() {
        let records = vec![record("a", "1"), record("b", "2"), record("a", "3")];
        let mut waiting = Waiting::new(records).unwrap();
        let data = |waiting: &Waiting| {
            let call = waiting.next_call().unwrap();
            call.map(|(_, entries)| entries.iter().map(|entry| entry.data().as_ref().to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(data(&waiting), Some(vec![b"1".to_vec(), b"2".to_vec()]));
        let keys = ["a".to_owned(), "b".to_owned()];
        assert!(waiting.sent(&keys, vec![Some("ProvisionedThroughputExceededException".into()), None]));
        assert_eq!(data(&waiting), Some(vec![b"1".to_vec()]));
        assert!(!waiting.sent(&keys[..1], vec![None]));
        assert_eq!(data(&waiting), Some(vec![b"3".to_vec()]));
        assert!(waiting.sent(&keys[..1], vec![]));
        assert!(!waiting.sent(&keys[..1], vec![None]));
        assert_eq!(data(&waiting), None);
    }

    #[test]
    fn calls_are_bounded() {
        let waiting = Waiting::new((0..600).map(|key| record(&key.to_string(), "x")).collect()).unwrap();
        assert_eq!(waiting.next_call().unwrap().unwrap().1.len(), CALL_RECORDS);
        let large = "x".repeat(2_000_000);
        let waiting = Waiting::new((0..5).map(|key| record(&key.to_string(), &large)).collect()).unwrap();
        assert_eq!(waiting.next_call().unwrap().unwrap().1.len(), 2);
        let error = Waiting::new(vec![record("", "x")]).err().unwrap();
        assert!(error.to_string().contains("is no partition key"), "{error}");
    }
}
