//! The stream source: one Kinesis data stream.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use headwater_core::options::{Config, Options};
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{ReaderContext, SplitInfo, StreamCapabilities};
use headwater_core::{Error, Result, SplitId, StreamReader, StreamSource};
use tokio::sync::OnceCell;

use crate::batch::metadata_schema;
use crate::client::Stream;
use crate::config::{Consumer, KinesisConfig};
use crate::coordinator::Shared;
use crate::fan_out;
use crate::reader::KinesisStreamReader;

/// A data stream as a stream; a shard is a split.
#[derive(Debug)]
pub struct KinesisStreamSource {
    config: KinesisConfig,
    stream: OnceCell<Stream>,
}

impl KinesisStreamSource {
    /// Checks the options. Connects to nothing yet, and looks for no credentials.
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
        self.stream.get_or_try_init(|| Stream::connect(&self.config)).await
    }
}

#[async_trait]
impl StreamSource for KinesisStreamSource {
    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities {
            bounded: false,
            splits_end: true,
            shares_splits: false,
            encoded: true,
            metadata: Some(metadata_schema()),
        }
    }

    fn identity(&self) -> String {
        format!("kinesis:{}", self.config.name())
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let listing = self.stream().await?.list().await?;
        let info = listing.into_iter().map(|listed| SplitInfo {
            split: SplitId::from(listed.shard.as_str()),
            parents: listed.parents.iter().map(|parent| SplitId::from(parent.as_str())).collect(),
            // Only reading tells where a shard ends.
            end: None,
            closed: listed.closed,
        });
        Ok(info.collect())
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        let stream = self.stream().await?.clone();
        let facts = stream.describe().await?;
        if !facts.active {
            return Err(Error::new(
                headwater_core::ErrorKind::Unavailable,
                "the stream is not active yet, or not any more",
            )
            .with_context("stream", self.config.name())
            .with_plugin("kinesis"));
        }
        let fan_out = match self.config.consumer {
            Consumer::Polling => None,
            Consumer::FanOut => Some(fan_out::register(&stream, &facts.arn, &context.group).await?),
        };
        let shared = Shared::new(stream, facts, fan_out, self.config.on_position_lost, context);
        Ok(Box::new(KinesisStreamReader::subscribe(shared).await?))
    }
}
