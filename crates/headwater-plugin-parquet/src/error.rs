//! The one place that turns native errors into Headwater's.

use std::fmt::Display;

use headwater_core::{Error, ErrorKind};
use parquet::errors::ParquetError;

/// An error about one file or folder.
pub(crate) fn at(kind: ErrorKind, message: impl Into<String>, path: impl Display) -> Error {
    Error::new(kind, message).with_plugin("parquet").with_context("path", path)
}

/// Stored bytes that are not what was written.
pub(crate) fn corrupt(message: impl Into<String>, path: impl Display) -> Error {
    at(ErrorKind::Corrupt, message, path)
}

/// A failed call of the file system.
pub(crate) fn io(error: std::io::Error, path: impl Display) -> Error {
    use std::io::ErrorKind as Io;

    let (kind, message) = match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => (ErrorKind::PermissionDenied, "access is denied"),
        Io::InvalidFilename | Io::NotADirectory | Io::InvalidInput => {
            (ErrorKind::Invalid, "the path cannot be a file's or a folder's")
        }
        Io::UnexpectedEof => (ErrorKind::Corrupt, "the file ends too early"),
        Io::Unsupported => (ErrorKind::Unsupported, "the file system lacks hard links or locks"),
        _ => (ErrorKind::Unavailable, "the storage failed"),
    };
    at(kind, message, path).with_source(error)
}

/// A failed call of an object store.
pub(crate) fn object(error: object_store::Error, path: impl Display) -> Error {
    use object_store::Error as Native;

    let (kind, message) = match &error {
        Native::NotFound { .. } => (ErrorKind::NotFound, "the object is not there"),
        Native::Precondition { .. } | Native::NotModified { .. } | Native::AlreadyExists { .. } => {
            (ErrorKind::Conflict, "the object was changed meanwhile")
        }
        Native::PermissionDenied { .. } | Native::Unauthenticated { .. } => {
            (ErrorKind::PermissionDenied, "access is denied")
        }
        Native::NotSupported { .. } | Native::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "the object store cannot do this")
        }
        Native::InvalidPath { .. } | Native::UnknownConfigurationKey { .. } => {
            (ErrorKind::Invalid, "the object store does not take this")
        }
        _ => (ErrorKind::Unavailable, "the object store failed"),
    };
    at(kind, message, path).with_source(error)
}

/// A failure to decode a file. Errors of the storage underneath come out as they went in.
pub(crate) fn decode(error: ParquetError, path: impl Display) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => corrupt("the file is damaged", path).with_source(source),
        },
        error => corrupt("the file is damaged", path).with_source(error),
    }
}

/// A failure to encode rows.
pub(crate) fn encode(error: ParquetError) -> Error {
    Error::data("these rows cannot be written to parquet").with_plugin("parquet").with_source(error)
}
