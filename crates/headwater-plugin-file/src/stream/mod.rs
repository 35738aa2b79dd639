//! Files as a stream: one file is one split.

mod lines;
mod pass;
mod reader;
mod rows;
mod tree;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::stream::{ReaderContext, SplitInfo, StreamCapabilities};
use headwater_core::{Error, Result, StreamReader, StreamSource};

use crate::config::{FileStreamConfig, StreamFormat};
use crate::error;
use reader::FileStreamReader;
use tree::Tree;

/// The NDJSON or Parquet files at a path as a stream.
#[derive(Debug)]
pub struct FileStreamSource {
    identity: String,
    tree: Arc<Tree>,
}

impl FileStreamSource {
    /// Checks the options. Nothing is read yet.
    ///
    /// # Errors
    /// `Invalid` for an empty path, `Unsupported` for a URL and for CSV.
    pub fn open(options: &FileStreamConfig, config: &Config, context: &OpenContext) -> Result<Self> {
        let root = options.local_path(config)?;
        let format = options.stream_format(config, context)?;
        if options.poll_interval.0 <= 0 {
            return Err(Error::invalid(format!("{}: option `poll_interval` must be longer than zero", config.name)));
        }
        let tree = Tree::new(root, format, options.follow, options.poll_interval.to_std());
        Ok(Self { identity: options.path.clone(), tree: Arc::new(tree) })
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Tree) -> Result<T> + Send + 'static) -> Result<T> {
        let tree = Arc::clone(&self.tree);
        tokio::task::spawn_blocking(move || work(&tree)).await.map_err(error::join)?
    }
}

#[async_trait]
impl StreamSource for FileStreamSource {
    fn capabilities(&self) -> StreamCapabilities {
        StreamCapabilities {
            bounded: !self.tree.follow,
            splits_end: self.tree.format == StreamFormat::Parquet,
            shares_splits: false,
            encoded: self.tree.format == StreamFormat::Ndjson,
            metadata: None,
        }
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    async fn schema(&self) -> Result<Option<SchemaRef>> {
        match self.tree.format {
            StreamFormat::Ndjson => Ok(None),
            StreamFormat::Parquet => self.blocking(Tree::schema).await.map(Some),
        }
    }

    async fn discover(&self) -> Result<Vec<SplitInfo>> {
        self.blocking(Tree::discover).await
    }

    async fn subscribe(&self, context: ReaderContext) -> Result<Box<dyn StreamReader>> {
        // A bounded stream that is not there is reported here; one that is followed is waited for.
        self.blocking(|tree| tree.list().map(drop)).await?;
        Ok(Box::new(FileStreamReader::new(Arc::clone(&self.tree), context)))
    }
}
