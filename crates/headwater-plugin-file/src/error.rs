//! The one place where native errors become [`Error`]s.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use arrow::error::ArrowError;
use headwater_core::{Error, ErrorKind};
use parquet::errors::ParquetError;

const PLUGIN: &str = "file";

/// An error of the file system at `path`.
pub(crate) fn io(error: io::Error, path: impl Display) -> Error {
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("`{path}` does not exist"),
        io::ErrorKind::PermissionDenied => format!("no permission for `{path}`"),
        _ => format!("cannot access `{path}`"),
    };
    Error::new(io_kind(&error), message).with_plugin(PLUGIN).with_source(error)
}

/// An error of an object store at `path`.
pub(crate) fn store(error: object_store::Error, path: impl Display) -> Error {
    let message = match &error {
        object_store::Error::NotFound { .. } => format!("`{path}` does not exist"),
        _ => format!("cannot access `{path}`"),
    };
    Error::new(store_kind(&error), message).with_plugin(PLUGIN).with_source(error)
}

/// An error of reading the Parquet file at `path`.
pub(crate) fn parquet(error: ParquetError, path: impl Display) -> Error {
    if let ParquetError::External(inner) = &error {
        let kind = match (inner.downcast_ref::<object_store::Error>(), inner.downcast_ref::<io::Error>()) {
            (Some(error), _) => Some(store_kind(error)),
            (None, Some(error)) => Some(io_kind(error)),
            (None, None) => None,
        };
        if let Some(kind) = kind {
            return Error::new(kind, format!("cannot read `{path}`")).with_plugin(PLUGIN).with_source(error);
        }
    }
    let message = format!("`{path}` is no readable Parquet file");
    Error::corrupt(message).with_plugin(PLUGIN).with_source(error)
}

/// An error of decoding or casting what is in `path`.
pub(crate) fn decode(error: ArrowError, path: impl Display) -> Error {
    Error::data(format!("cannot decode `{path}`")).with_plugin(PLUGIN).with_source(error)
}

/// A blocking task that did not come back: it panicked, or the runtime is shutting down.
pub(crate) fn join(error: tokio::task::JoinError) -> Error {
    Error::unexpected("reading stopped").with_plugin(PLUGIN).with_source(error)
}

fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
        // What network file systems report while their server is away.
        io::ErrorKind::Interrupted
        | io::ErrorKind::TimedOut
        | io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::ResourceBusy => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

fn store_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as Store;
    match error {
        Store::NotFound { .. } => ErrorKind::NotFound,
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::PermissionDenied,
        Store::AlreadyExists { .. } | Store::Precondition { .. } => ErrorKind::Conflict,
        Store::NotSupported { .. } | Store::NotImplemented { .. } => ErrorKind::Unsupported,
        Store::InvalidPath { .. } => ErrorKind::Invalid,
        Store::Generic { store, source } => {
            let mut cause: Option<&(dyn StdError + 'static)> = Some(source.as_ref());
            while let Some(error) = cause {
                if let Some(error) = error.downcast_ref::<io::Error>() {
                    return io_kind(error);
                }
                cause = error.source();
            }
            // Without a cause below it, a remote store has given up retrying.
            if *store == "LocalFileSystem" { ErrorKind::Unexpected } else { ErrorKind::Unavailable }
        }
        _ => ErrorKind::Unexpected,
    }
}
