//! The stream source: one topic.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use headwater_core::options::{Config, Options};
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{ReaderContext, SchemaRegistry, SplitInfo, StreamCapabilities};
use headwater_core::{Error, Result, StreamReader, StreamSource};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use tokio::runtime::Handle;

use crate::batch::metadata_schema;
use crate::client::{self, REQUEST_TIMEOUT};
use crate::config::{KafkaConfig, Tombstones};
use crate::error::kafka;
use crate::reader::KafkaStreamReader;
use crate::registry::ConfluentRegistry;
use crate::splits::{before, split};
use crate::trouble::{Outsider, Troubled, listen};

/// A topic as a stream; a partition is a split.
#[derive(Debug)]
pub struct KafkaStreamSource {
    config: Arc<KafkaConfig>,
    registry: Option<Arc<ConfluentRegistry>>,
}

impl KafkaStreamSource {
    /// Checks the options. Connects to nothing yet.
    ///
    /// # Errors
    /// `Invalid` for options that are wrong or that librdkafka refuses.
    pub fn open(config: &Config, _: &OpenContext) -> Result<Self> {
        let config = KafkaConfig::from_config(config)?;
        client::check(&config)?;
        let registry = ConfluentRegistry::open(&config)?.map(Arc::new);
        Ok(Self { config: Arc::new(config), registry })
    }
}

#[async_trait]
impl StreamSource for KafkaStreamSource {
    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities {
            bounded: false,
            splits_end: false,
            shares_splits: true,
            encoded: true,
            metadata: Some(metadata_schema()),
        }
    }

    fn identity(&self) -> String {
        format!("kafka:{}", self.config.topic)
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let config = Arc::clone(&self.config);
        blocking(move || {
            let client = client::outsider(&config);
            let consumer: BaseConsumer<Outsider> =
                client.create_with_context(Outsider::default()).map_err(|error| kafka(error, "make a client"))?;
            let mut splits = Vec::new();
            for partition in first_partitions(&consumer, &config.topic)? {
                let (_, end) =
                    consumer.fetch_watermarks(&config.topic, partition, REQUEST_TIMEOUT).map_err(|error| {
                        listen(&consumer);
                        let trouble = consumer.context().trouble();
                        trouble.explain(error, "ask for the end of a partition").with_context("partition", partition)
                    })?;
                splits.push(SplitInfo {
                    split: split(partition),
                    parents: Vec::new(),
                    end: Some(before(end)),
                    closed: false,
                });
            }
            Ok(splits)
        })
        .await
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        let (config, runtime) = (Arc::clone(&self.config), Handle::current());
        Ok(Box::new(blocking(move || KafkaStreamReader::subscribe(config, context, runtime)).await?))
    }

    fn schemas(&self) -> Option<Arc<dyn SchemaRegistry>> {
        self.registry.clone().map(|registry| registry as Arc<dyn SchemaRegistry>)
    }

    fn deletes(&self) -> bool {
        self.config.tombstones == Tombstones::Delete
    }
}

/// The partitions that the topic has now, in order.
pub(crate) fn partitions<C: Troubled>(consumer: &BaseConsumer<C>, topic: &str) -> Result<Vec<i32>> {
    let trouble = consumer.context().trouble();
    let metadata =
        consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|error| trouble.explain(error, PARTITIONS))?;
    trouble.let_in();
    numbers(&metadata, topic)
}

/// The same as the first question of a client, which nobody polls yet: one that is refused is told so soon.
pub(crate) fn first_partitions<C: Troubled>(consumer: &BaseConsumer<C>, topic: &str) -> Result<Vec<i32>> {
    let trouble = consumer.context().trouble();
    let ask = |timeout| {
        consumer.fetch_metadata(Some(topic), timeout).map_err(|error| {
            listen(consumer);
            trouble.explain(error, PARTITIONS)
        })
    };
    let soon = REQUEST_TIMEOUT / 5;
    let metadata = match ask(soon) {
        Err(error) if error.is_retryable() => ask(REQUEST_TIMEOUT - soon)?,
        told => told?,
    };
    trouble.let_in();
    numbers(&metadata, topic)
}

/// What is being done when the partitions are asked for.
const PARTITIONS: &str = "ask for a topic's partitions";

fn numbers(metadata: &Metadata, topic: &str) -> Result<Vec<i32>> {
    let missing = || Error::not_found(format!("there is no topic `{topic}`")).with_plugin("kafka");
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(missing)?;
    if let Some(code) = found.error() {
        let code = rdkafka::error::RDKafkaErrorCode::from(code);
        return Err(kafka(rdkafka::error::KafkaError::MetadataFetch(code), PARTITIONS).with_context("topic", topic));
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
    if partitions.is_empty() {
        return Err(missing());
    }
    partitions.sort_unstable();
    Ok(partitions)
}

/// Runs a call of librdkafka that waits for brokers where waiting does no harm.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(|error| {
        Error::unexpected("a call of the Kafka client panicked").with_source(error).with_plugin("kafka")
    })?
}
