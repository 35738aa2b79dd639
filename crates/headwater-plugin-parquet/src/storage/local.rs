//! A local folder.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use headwater_core::{ErrorKind, Result};
use uuid::Uuid;

use super::{Content, Crash, Entry, Input, Tag, blocking};
use crate::error;

/// What an unpublished file's name ends with. It begins with a dot, which readers of whole folders pass over.
const UNPUBLISHED: &str = ".tmp";
/// What a folder is renamed to before its contents are deleted.
const REMOVED: &str = ".removed-";

#[derive(Debug, Clone)]
pub(crate) struct Local {
    root: PathBuf,
    pub(super) crash: Crash,
}

impl Local {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, crash: Crash::default() }
    }

    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Runs `work` on the absolute path, where it may block.
    async fn run<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&Path, &Crash) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (path, crash) = (self.absolute(path), self.crash.clone());
        blocking(move || work(&path, &crash)).await
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let relative = folder.to_owned();
        self.run(folder, move |folder, _| {
            let mut entries = Vec::new();
            let mut pending = vec![(folder.to_owned(), relative)];
            while let Some((folder, relative)) = pending.pop() {
                for (name, path) in children(&folder)? {
                    let relative = format!("{relative}/{name}");
                    match fs::metadata(&path) {
                        Ok(metadata) if metadata.is_dir() => pending.push((path, relative)),
                        Ok(metadata) => {
                            entries.push(Entry { path: relative, size: metadata.len(), tag: tag(&metadata) });
                        }
                        // Deleted since it was listed.
                        Err(error) if error.kind() == Io::NotFound => {}
                        Err(error) => return Err(error::io(error, path.display())),
                    }
                }
            }
            Ok(entries)
        })
        .await
    }

    pub(super) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.run(folder, |folder, _| {
            Ok(children(folder)?.into_iter().filter(|(_, path)| path.is_dir()).map(|(name, _)| name).collect())
        })
        .await
    }

    pub(super) async fn open(&self, path: &str) -> Result<Option<Input>> {
        self.run(path, |path, _| {
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
            match opened {
                Ok((metadata, file)) => Ok(Some(Input {
                    name: path.display().to_string(),
                    size: metadata.len(),
                    tag: tag(&metadata),
                    content: Content::File(Handle(Arc::new(Mutex::new(file)))),
                })),
                Err(error) if error.kind() == Io::NotFound => Ok(None),
                Err(error) => Err(error::io(error, path.display())),
            }
        })
        .await
    }

    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<bool> {
        self.run(path, move |path, crash| {
            let native = |error| error::io(error, path.display());
            let folder = parent(path)?;
            create_folders(folder, crash)?;
            // The file stays open, and with it its lock, until it has its name.
            let (unpublished, _file) = write_unpublished(path, &bytes, crash)?;
            crash.step()?;
            let created = match fs::hard_link(&unpublished, path) {
                Ok(()) => true,
                Err(error) if error.kind() == Io::AlreadyExists => false,
                Err(error) => return Err(native(error)),
            };
            crash.step()?;
            fs::remove_file(&unpublished).map_err(native)?;
            crash.step()?;
            sync_folder(folder)?;
            Ok(created)
        })
        .await
    }

    pub(super) async fn replace(&self, path: &str, tag_seen: &Tag, bytes: Bytes) -> Result<bool> {
        let tag_seen = tag_seen.clone();
        self.run(path, move |path, crash| {
            match fs::metadata(path) {
                Ok(metadata) if tag(&metadata) == tag_seen => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == Io::NotFound => return Ok(false),
                Err(error) => return Err(error::io(error, path.display())),
            }
            let (unpublished, _file) = write_unpublished(path, &bytes, crash)?;
            crash.step()?;
            fs::rename(&unpublished, path).map_err(|error| error::io(error, path.display()))?;
            crash.step()?;
            sync_folder(parent(path)?)?;
            Ok(true)
        })
        .await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.run(path, |path, crash| {
            crash.step()?;
            match fs::remove_file(path) {
                Ok(()) => sync_folder(parent(path)?),
                Err(error) if error.kind() == Io::NotFound => Ok(()),
                Err(error) => Err(error::io(error, path.display())),
            }
        })
        .await
    }

    /// The folder is renamed first, so that nobody sees a part of it.
    pub(super) async fn remove(&self, folder: &str) -> Result<()> {
        self.run(folder, |folder, crash| {
            let parent = parent(folder)?;
            crash.step()?;
            match fs::rename(folder, parent.join(format!("{REMOVED}{}", Uuid::new_v4()))) {
                Ok(()) => sync_folder(parent)?,
                Err(error) if error.kind() == Io::NotFound => {}
                Err(error) => return Err(error::io(error, folder.display())),
            }
            // With it go those that a process left when it ended here.
            for (name, path) in children(parent)? {
                if name.starts_with(REMOVED) {
                    crash.step()?;
                    match fs::remove_dir_all(&path) {
                        Err(error) if error.kind() != Io::NotFound => return Err(error::io(error, path.display())),
                        _ => {}
                    }
                }
            }
            // Fails where other folders are in it, and then it is to stay.
            let _ = fs::remove_dir(parent);
            Ok(())
        })
        .await
    }

    pub(super) async fn clean(&self, folder: &str) -> Result<()> {
        self.run(folder, |folder, crash| {
            let mut pending = vec![folder.to_owned()];
            while let Some(folder) = pending.pop() {
                for (name, path) in children(&folder)? {
                    if path.is_dir() {
                        pending.push(path);
                    } else if name.starts_with('.') && name.ends_with(UNPUBLISHED) {
                        remove_unpublished(&path, crash)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn lock(&self, folder: &str) -> Result<Option<File>> {
        self.run(&format!("{folder}/.lock"), |path, _| {
            let native = |error| error::io(error, path.display());
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(native)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(native(error)),
            }
        })
        .await
    }
}

/// A file that stays open: a path that is given another content keeps the old one readable here.
#[derive(Clone)]
pub(super) struct Handle(Arc<Mutex<File>>);

impl Handle {
    pub(super) async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let (file, name) = (Arc::clone(&self.0), name.to_owned());
        blocking(move || {
            let native = |error| error::io(error, &name);
            let length = usize::try_from(range.end - range.start)
                .map_err(|error| error::corrupt("the file is larger than memory", &name).with_source(error))?;
            let mut bytes = vec![0; length];
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(range.start)).map_err(native)?;
            file.read_exact(&mut bytes).map_err(native)?;
            Ok(Bytes::from(bytes))
        })
        .await
    }
}

/// What is in a folder, by name; nothing where there is no folder. Names that are not UTF-8 are not ours.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let native = |error| error::io(error, folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == Io::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(native(error)),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.map_err(native)?;
        if let Ok(name) = entry.file_name().into_string() {
            children.push((name, entry.path()));
        }
    }
    Ok(children)
}

/// Writes a file beside `path` under a name that no reader takes for a published one, down to the disk. Its writer holds
/// its lock, so that no one takes it for a dead writer's.
fn write_unpublished(path: &Path, bytes: &[u8], crash: &Crash) -> Result<(PathBuf, File)> {
    let native = |error| error::io(error, path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    crash.step()?;
    loop {
        let unpublished = parent(path)?.join(format!(".{name}.{}{UNPUBLISHED}", Uuid::new_v4().simple()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unpublished).map_err(native)?;
        // Where the file system has no locks, no one can clean up either.
        let locked = file.lock().is_ok();
        if locked && !unpublished.exists() {
            // Somebody was cleaning up and found it before it was locked.
            continue;
        }
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(native)?;
        return Ok((unpublished, file));
    }
}

/// Removes an unpublished file if its writer is gone.
fn remove_unpublished(path: &Path, crash: &Crash) -> Result<()> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    if file.try_lock().is_err() {
        return Ok(());
    }
    crash.step()?;
    tracing::debug!(path = %path.display(), "removing what an ended writer left unpublished");
    // The lock is held until the name is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != Io::NotFound => Err(error::io(error, path.display())),
        _ => Ok(()),
    }
}

/// Creates a folder and those above it, so that their names survive a loss of power.
fn create_folders(folder: &Path, crash: &Crash) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_folders(above, crash)?;
    }
    crash.step()?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != Io::AlreadyExists => return Err(error::io(error, folder.display())),
        _ => {}
    }
    match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => sync_folder(above),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| error::at(ErrorKind::Invalid, "the path has no parent folder", path.display()))
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere folders cannot be opened, and names are durable when the call that made them returns.
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| error::io(error, folder.display()))?;
    }
    Ok(())
}

/// A renamed file keeps its time and may have its predecessor's size, so the inode has to tell them apart.
fn tag(metadata: &Metadata) -> Tag {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{inode}-{}-{}", since.unwrap_or_default().as_nanos(), metadata.len())
}
