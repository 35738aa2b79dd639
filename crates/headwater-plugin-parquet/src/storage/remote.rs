//! An object store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use headwater_core::Result;
use object_store::path::Path;
use object_store::{
    Error as Native, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::{Content, Crash, Entry, Input, Tag};
use crate::error;

#[derive(Debug, Clone)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    pub(super) crash: Crash,
}

impl Remote {
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { store, prefix, crash: Crash::default() }
    }

    pub(super) fn object(&self, path: &str) -> Path {
        // Names are made of characters that need no further encoding; what is odd in the prefix gets encoded.
        Path::parse(format!("{}{path}", self.prefix)).unwrap_or_else(|_| Path::from(format!("{}{path}", self.prefix)))
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let root = self.object(folder);
        let outer = root.as_ref().len() - folder.len();
        self.store
            .list(Some(&root))
            .map(|object| {
                let object = object.map_err(|error| error::object(error, &root))?;
                let path = object.location.as_ref().get(outer..).unwrap_or_default().to_owned();
                Ok(Entry { path, size: object.size, tag: object.e_tag.unwrap_or_default() })
            })
            .try_collect()
            .await
    }

    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let root = self.object(folder);
        let listed = self.store.list_with_delimiter(Some(&root)).await.map_err(|error| error::object(error, &root))?;
        Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    pub(super) async fn open(&self, path: &str) -> Result<Option<Input>> {
        let object = self.object(path);
        match self.store.head(&object).await {
            Ok(meta) => Ok(Some(Input {
                name: object.to_string(),
                size: meta.size,
                tag: meta.e_tag.clone().unwrap_or_default(),
                content: Content::Object(Handle { store: Arc::clone(&self.store), object, e_tag: meta.e_tag }),
            })),
            Err(Native::NotFound { .. }) => Ok(None),
            Err(error) => Err(error::object(error, object)),
        }
    }

    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<bool> {
        self.put(path, bytes, PutMode::Create).await
    }

    pub(super) async fn replace(&self, path: &str, tag: &Tag, bytes: Bytes) -> Result<bool> {
        let seen = UpdateVersion { e_tag: Some(tag.clone()), version: None };
        self.put(path, bytes, PutMode::Update(seen)).await
    }

    async fn put(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<bool> {
        self.crash.step()?;
        let object = self.object(path);
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&object, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(true),
            Err(Native::AlreadyExists { .. } | Native::Precondition { .. } | Native::NotFound { .. }) => Ok(false),
            Err(error) => Err(error::object(error, object)),
        }
    }

    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.crash.step()?;
        let object = self.object(path);
        match self.store.delete(&object).await {
            Ok(()) | Err(Native::NotFound { .. }) => Ok(()),
            Err(error) => Err(error::object(error, object)),
        }
    }

    /// From the last name to the first, so that what is left at any time is a beginning of each split.
    pub(super) async fn remove(&self, folder: &str) -> Result<()> {
        let mut entries = self.list(folder).await?;
        entries.sort_by(|a, b| b.path.cmp(&a.path));
        for entry in entries {
            self.delete(&entry.path).await?;
        }
        Ok(())
    }
}

/// An object as it was when it was opened.
#[derive(Clone)]
pub(super) struct Handle {
    store: Arc<dyn ObjectStore>,
    object: Path,
    e_tag: Option<String>,
}

impl Handle {
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let native = |error| error::object(error, &self.object);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let options = GetOptions { if_match: self.e_tag.clone(), range: Some(range.into()), ..GetOptions::default() };
        self.store.get_opts(&self.object, options).await.map_err(native)?.bytes().await.map_err(native)
    }
}
