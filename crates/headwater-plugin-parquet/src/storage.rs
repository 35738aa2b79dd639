//! Where files lie: a local folder or an object store, behind the few operations that a log needs.
//!
//! Both offer the same three guarantees: `create` publishes a whole file under a name that was free, `replace` puts a
//! whole file in the place of exactly the one that the caller has seen, and what either has done survives a loss of
//! power when it returns.

mod local;
mod remote;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use headwater_core::{Error, ErrorKind, Result};
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use local::Local;
use remote::Remote;

/// Tells one content of a path from another.
pub(crate) type Tag = String;

/// Read with the end of a file, so that most footers come with one read.
const FOOTER_BYTES: usize = 32 * 1024;

/// A file that was listed.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Relative to the storage's root, with `/`.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) tag: Tag,
}

/// The root of all logs.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    Local(Local),
    Remote(Remote),
}

/// Keeps others from compacting while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<std::fs::File>,
}

impl Storage {
    /// Files under `root`, which need not exist.
    pub(crate) fn local(root: PathBuf) -> Self {
        Self::Local(Local::new(root))
    }

    /// Objects whose names begin with `prefix`.
    pub(crate) fn remote(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self::Remote(Remote::new(store, prefix))
    }

    /// Every file below a folder, in no order; none where there is no such folder.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        match self {
            Self::Local(local) => local.list(folder).await,
            Self::Remote(remote) => remote.list(folder).await,
        }
    }

    /// The names of the folders in a folder; the root is `""`.
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        match self {
            Self::Local(local) => local.folders(folder).await,
            Self::Remote(remote) => remote.folders(folder).await,
        }
    }

    /// Opens a file; `None` where there is none.
    pub(crate) async fn open(&self, path: &str) -> Result<Option<Input>> {
        match self {
            Self::Local(local) => local.open(path).await,
            Self::Remote(remote) => remote.open(path).await,
        }
    }

    /// A whole file with its tag; `None` where there is none.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<(Bytes, Tag)>> {
        let Some(input) = self.open(path).await? else { return Ok(None) };
        let bytes = input.read(0..input.size).await?;
        Ok(Some((bytes, input.tag)))
    }

    /// Publishes a file under a name that is free; `false` where it is taken.
    pub(crate) async fn create(&self, path: &str, bytes: Bytes) -> Result<bool> {
        match self {
            Self::Local(local) => local.create(path, bytes).await,
            Self::Remote(remote) => remote.create(path, bytes).await,
        }
    }

    /// Puts a file in the place of the one with this tag; `false` where another is there, or none. In a local folder
    /// the caller holds the [`Lock`].
    pub(crate) async fn replace(&self, path: &str, tag: &Tag, bytes: Bytes) -> Result<bool> {
        match self {
            Self::Local(local) => local.replace(path, tag, bytes).await,
            Self::Remote(remote) => remote.replace(path, tag, bytes).await,
        }
    }

    /// Deletes a file, if it is there.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.delete(path).await,
            Self::Remote(remote) => remote.delete(path).await,
        }
    }

    /// Deletes a folder with all that is in it, if it is there.
    pub(crate) async fn remove(&self, folder: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.remove(folder).await,
            Self::Remote(remote) => remote.remove(folder).await,
        }
    }

    /// Deletes what writers that are gone have left unpublished below a folder.
    pub(crate) async fn clean(&self, folder: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.clean(folder).await,
            // An object appears whole or not at all.
            Self::Remote(_) => Ok(()),
        }
    }

    /// Takes the lock of a folder that exists; `None` while another holds it. It ends with its holder, however that
    /// ends. Object stores have none: there, `replace` alone keeps writers apart.
    pub(crate) async fn lock(&self, folder: &str) -> Result<Option<Lock>> {
        match self {
            Self::Local(local) => Ok(local.lock(folder).await?.map(|file| Lock { _file: Some(file) })),
            Self::Remote(_) => Ok(Some(Lock { _file: None })),
        }
    }

    /// What to call a path in messages.
    pub(crate) fn describe(&self, path: &str) -> String {
        match self {
            Self::Local(local) => local.absolute(path).display().to_string(),
            Self::Remote(remote) => remote.object(path).to_string(),
        }
    }

    /// Lets this many more steps pass that change the storage, and fails ever after, as if the process had ended.
    #[cfg(test)]
    pub(crate) fn crash_after(&mut self, steps: usize) {
        let crash = Crash::after(steps);
        match self {
            Self::Local(local) => local.crash = crash,
            Self::Remote(remote) => remote.crash = crash,
        }
    }
}

/// A file open for reading. What is read through it is of one content, even if the path is given another meanwhile.
#[derive(Clone)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) tag: Tag,
    content: Content,
}

#[derive(Clone)]
enum Content {
    File(local::Handle),
    Object(remote::Handle),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("name", &self.name).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Input {
    /// Some bytes of it. `Conflict` where the content is gone because the path has been given another.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.size {
            return Err(crate::error::corrupt(
                format!("the file refers to bytes {}..{} of its {}", range.start, range.end, self.size),
                &self.name,
            ));
        }
        match &self.content {
            Content::File(handle) => handle.read(&self.name, range).await,
            Content::Object(handle) => handle.read(range).await,
        }
    }
}

impl AsyncFileReader for Input {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.read(range).await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let this = &*self;
            // Column chunks that lie close together come with one read.
            object_store::coalesce_ranges(
                &ranges,
                |range| this.read(range),
                object_store::OBJECT_STORE_COALESCE_DEFAULT,
            )
            .await
            .map_err(|error: Error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(|error| {
            let message = "a call did not finish";
            Error::new(ErrorKind::Unexpected, message).with_plugin("parquet").with_source(error)
        })?,
        // Another executor: its thread waits.
        Err(_) => work(),
    }
}

/// Where tests end a process: before any step that changes the storage. Outside of tests every step passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crash {
    #[cfg(test)]
    left: Option<Arc<std::sync::atomic::AtomicUsize>>,
}

impl Crash {
    #[cfg(test)]
    fn after(steps: usize) -> Self {
        Self { left: Some(Arc::new(std::sync::atomic::AtomicUsize::new(steps))) }
    }

    #[cfg(test)]
    fn step(&self) -> Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let passed = |left: usize| left.checked_sub(1);
        match &self.left {
            Some(left) if left.fetch_update(SeqCst, SeqCst, passed).is_err() => Err(Error::unexpected("crashed")),
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    fn step(&self) -> Result<()> {
        Ok(())
    }
}
