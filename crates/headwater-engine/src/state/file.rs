//! The registry file on disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use headwater_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::State;

const FORMAT: &str = "headwater-registry";
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Document<T> {
    format: String,
    version: u64,
    state: T,
}

impl State {
    /// Reads a registry file; `None` where nothing was applied yet.
    ///
    /// # Errors
    /// `FormatVersion` for a version that this release does not know, `Corrupt` for what is no registry file, else those
    /// of the file system.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error, "the registry file cannot be read", path)),
        };
        let damaged = |what: &str| Error::corrupt(format!("{what}: `{}`", path.display()));
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged("no registry file").with_source(error))?;
        if document.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(damaged("no registry file"));
        }
        match document.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(version) => {
                return Err(Error::new(
                    ErrorKind::FormatVersion,
                    format!(
                        "the registry file `{}` has format version {version}, and this release knows {VERSION}",
                        path.display()
                    ),
                ));
            }
            None => return Err(damaged("a registry file without a version")),
        }
        let document: Document<Self> =
            serde_json::from_value(document).map_err(|error| damaged("a damaged registry file").with_source(error))?;
        Ok(Some(document.state))
    }
}

/// The right to change a registry file: held by one `apply` at a time, freed on drop, and by the system when the process
/// ends.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    /// Locked for as long as it is open. It stays on disk: removing it would let two in.
    _file: File,
}

impl Lock {
    /// Takes the lock beside the registry file, creating the folder.
    ///
    /// # Errors
    /// `Conflict` while another process holds it, else those of the file system.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder(path)).map_err(|e| io(e, "the registry's folder cannot be made", path))?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&beside)
            .map_err(|error| io(error, "the registry's lock cannot be opened", &beside))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Conflict,
                format!("another process is changing the registry file `{}`", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(io(error, "the registry cannot be locked", &beside)),
        }
    }

    /// Replaces the registry file in one step: a reader sees the old one or the new one, also after a power loss.
    ///
    /// # Errors
    /// Those of the file system; the old file is still there then.
    pub(crate) fn write(&self, state: &State) -> Result<()> {
        let failed = |error: std::io::Error| io(error, "the registry file cannot be written", &self.path);
        let document = Document { format: FORMAT.to_owned(), version: VERSION, state };
        let text = serde_json::to_vec_pretty(&document)
            .map_err(|error| Error::unexpected("the registry cannot be put in words").with_source(error))?;
        let folder = folder(&self.path);
        let mut file = tempfile::Builder::new().prefix(".registry-").tempfile_in(folder).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        // The new name is only safe once the folder is.
        #[cfg(unix)]
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(())
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn io(error: std::io::Error, message: &str, path: &Path) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, message).permanent().with_context("path", path.display()).with_source(error)
}
