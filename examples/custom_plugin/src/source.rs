//! The stream source: a feed is a stream, each of its channels a split.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use headwater_core::definitions::timestamp_type;
use headwater_core::stream::{METADATA_TIMESTAMP, ReaderContext, SplitInfo, StreamCapabilities};
use headwater_core::{Position, Result, SplitId, StreamReader, StreamSource};

use crate::LinesConfig;
use crate::connection::channels;
use crate::reader::LinesReader;

/// A feed of lines as a stream. The number of a line in its channel, counted from 1, is its position.
#[derive(Debug)]
pub struct LinesStreamSource {
    config: Arc<LinesConfig>,
}

impl LinesStreamSource {
    /// A source with these options. Connects to nothing yet.
    pub fn new(config: LinesConfig) -> Self {
        Self { config: Arc::new(config) }
    }
}

/// The position of a line; of none, where no line was read.
pub(crate) fn position(number: u64) -> Position {
    if number == 0 { Position::START } else { Position::from_u64(number) }
}

/// What is known of a line beside its text: when it was stored.
pub(crate) fn metadata() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(METADATA_TIMESTAMP, timestamp_type(), false)]))
}

#[async_trait]
impl StreamSource for LinesStreamSource {
    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities {
            bounded: false,
            splits_end: false,
            shares_splits: false,
            encoded: true,
            metadata: Some(metadata()),
        }
    }

    fn identity(&self) -> String {
        format!("lines:{}", self.config.feed)
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        Ok(None)
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        let channels = channels(&self.config).await?.into_iter();
        Ok(channels
            .map(|(channel, newest)| SplitInfo {
                split: SplitId::from(channel.as_str()),
                parents: Vec::new(),
                end: Some(position(newest)),
                closed: false,
            })
            .collect())
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        Ok(Box::new(LinesReader::new(Arc::clone(&self.config), context)))
    }
}
