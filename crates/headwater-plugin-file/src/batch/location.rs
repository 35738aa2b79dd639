//! Where a table's files lie, and which files there are.

use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use headwater_core::options::Config;
use headwater_core::{Error, ErrorKind, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error;
use crate::names;

/// A path or URL that was opened.
#[derive(Debug)]
pub(super) enum Location {
    /// In the local file system.
    Local(PathBuf),
    /// Below a prefix of an object store.
    #[cfg_attr(not(feature = "s3"), allow(dead_code))] // Built by the features that bring such a store.
    Remote {
        store: Arc<dyn ObjectStore>,
        prefix: ObjectPath,
        /// The URL up to the store's root, for messages.
        root: String,
    },
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) path: ObjectPath,
    /// Its path below the source's path; its name where the source is one file. Segments are separated by `/`.
    pub(super) relative: String,
    /// Its path or URL, for messages.
    pub(super) shown: String,
    pub(super) size: u64,
    /// When it was last changed, in nanoseconds since the epoch.
    pub(super) modified: Option<i64>,
}

/// All data files below a location, sorted by relative path.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) objects: Vec<Object>,
    /// The location is one file, which is read whatever its name is.
    pub(super) single: bool,
}

impl Location {
    pub(super) fn new(path: &str, config: &Config) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::invalid(format!("{}: option `path` is empty", config.name)));
        }
        let resolved = config.resolve(path);
        match resolved.split_once("://") {
            None => Ok(Self::Local(PathBuf::from(resolved))),
            Some(("file", local)) if local.starts_with('/') => Ok(Self::Local(PathBuf::from(local))),
            Some(("s3" | "s3a", rest)) => s3(path, rest, config),
            Some(_) => Err(Error::unsupported(format!(
                "{}: `{path}` is neither a local path nor a `file://` or `s3://` URL",
                config.name
            ))),
        }
    }

    /// The files there are; `None` where the path does not exist.
    pub(super) async fn list(&self) -> Result<Option<Listing>> {
        match self {
            Self::Local(path) => list_local(path.clone()).await,
            Self::Remote { store, prefix, root } => {
                // A whole bucket is no object.
                let single = if prefix.as_ref().is_empty() {
                    None
                } else {
                    match store.head(prefix).await {
                        Ok(meta) => Some(meta),
                        Err(object_store::Error::NotFound { .. }) => None,
                        Err(e) => return Err(error::store(e, format!("{root}{prefix}"))),
                    }
                };
                list_below(Arc::clone(store), prefix, single, root).await
            }
        }
    }
}

#[cfg(feature = "s3")]
fn s3(path: &str, rest: &str, config: &Config) -> Result<Location> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let wrong = |e: &dyn std::fmt::Display| Error::invalid(format!("{}: `{path}`: {e}", config.name));
    let store =
        object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket).build().map_err(|e| wrong(&e))?;
    let prefix = ObjectPath::parse(key.trim_end_matches('/')).map_err(|e| wrong(&e))?;
    Ok(Location::Remote { store: Arc::new(store), prefix, root: format!("s3://{bucket}/") })
}

#[cfg(not(feature = "s3"))]
fn s3(path: &str, _: &str, config: &Config) -> Result<Location> {
    Err(Error::unsupported(format!(
        "{}: `{path}` needs the cargo feature `s3`, which this build does not have",
        config.name
    )))
}

async fn list_local(path: PathBuf) -> Result<Option<Listing>> {
    let shown = path.display().to_string();
    let found = tokio::task::spawn_blocking(move || {
        let real = std::fs::canonicalize(path)?;
        let is_dir = std::fs::metadata(&real)?.is_dir();
        Ok::<_, std::io::Error>((real, is_dir))
    })
    .await
    .map_err(error::join)?;
    let (real, is_dir) = match found {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error::io(e, shown)),
    };
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
    let prefix = ObjectPath::from_absolute_path(&real).map_err(|e| error::store(e.into(), &shown))?;
    let single = if is_dir { None } else { Some(store.head(&prefix).await.map_err(|e| error::store(e, &shown))?) };
    list_below(store, &prefix, single, "/").await
}

async fn list_below(
    store: Arc<dyn ObjectStore>,
    prefix: &ObjectPath,
    single: Option<ObjectMeta>,
    root: &str,
) -> Result<Option<Listing>> {
    if let Some(meta) = single {
        let relative = meta.location.filename().unwrap_or_default().to_owned();
        return Ok(Some(Listing { store, objects: vec![object(meta, relative, root)], single: true }));
    }
    let metas: Vec<ObjectMeta> =
        store.list(Some(prefix)).try_collect().await.map_err(|e| error::store(e, format!("{root}{prefix}")))?;
    let mut objects: Vec<Object> = metas
        .into_iter()
        .filter_map(|meta| {
            let relative: Vec<String> =
                meta.location.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect();
            let (name, folders) = relative.split_last()?;
            let data = names::is_data_file(name) && folders.iter().all(|folder| names::is_data_directory(folder));
            let relative = relative.join("/");
            data.then(|| object(meta, relative, root))
        })
        .collect();
    objects.sort_unstable_by(|a, b| a.relative.cmp(&b.relative));
    Ok(Some(Listing { store, objects, single: false }))
}

fn object(meta: ObjectMeta, relative: String, root: &str) -> Object {
    Object {
        shown: format!("{root}{}", meta.location),
        path: meta.location,
        relative,
        size: meta.size,
        modified: meta.last_modified.timestamp_nanos_opt(),
    }
}

impl Object {
    /// Makes sure that the file is still the one that was listed: parts of two files make no table.
    ///
    /// # Errors
    /// `Unavailable` where it has changed: a new scan reads it as it is now.
    pub(super) async fn check(&self, store: &Arc<dyn ObjectStore>) -> Result<()> {
        let meta = store.head(&self.path).await.map_err(|e| error::store(e, &self.shown))?;
        if meta.size == self.size && meta.last_modified.timestamp_nanos_opt() == self.modified {
            return Ok(());
        }
        Err(self.changed())
    }

    /// The error of [`Object::check`].
    pub(super) fn changed(&self) -> Error {
        let message = format!("`{}` was changed while it was read", self.shown);
        Error::new(ErrorKind::Unavailable, message).with_plugin("file")
    }
}
