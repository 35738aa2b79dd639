//! The one place that turns SQLite's errors into Headwater's.

use std::path::Path;

use headwater_core::{Error, ErrorKind};
use rusqlite::{ErrorCode, ffi};

/// Maps an error of a call on the database at `path`.
pub(crate) fn map(error: rusqlite::Error, path: &Path) -> Error {
    use rusqlite::Error as Native;

    let (kind, message) = match &error {
        Native::SqliteFailure(failure, _) => classify(failure),
        Native::FromSqlConversionFailure(..)
        | Native::IntegralValueOutOfRange(..)
        | Native::Utf8Error(..)
        | Native::InvalidColumnType(..) => (ErrorKind::Corrupt, "a row does not have the form that it was written in"),
        _ => (ErrorKind::Unexpected, "sqlite failed"),
    };
    wrap(kind, message, path).with_source(error)
}

/// An error about the database file as such.
pub(crate) fn wrap(kind: ErrorKind, message: impl Into<String>, path: &Path) -> Error {
    Error::new(kind, message).with_plugin("sqlite").with_context("path", path.display())
}

/// Maps a failure to create the file's folders.
pub(crate) fn io(error: std::io::Error, path: &Path) -> Error {
    of_disk(error, "cannot create the folder of the database", path)
}

/// Maps a failure to flush what was written.
pub(crate) fn flush(error: std::io::Error, path: &Path) -> Error {
    of_disk(error, "cannot flush the database to the disk", path)
}

fn of_disk(error: std::io::Error, message: &str, path: &Path) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    wrap(kind, message, path).with_source(error)
}

fn classify(failure: &ffi::Error) -> (ErrorKind, &'static str) {
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            (ErrorKind::Unavailable, "another process has been writing to the database for too long")
        }
        ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OperationAborted
        | ErrorCode::OperationInterrupted
        | ErrorCode::OutOfMemory
        | ErrorCode::SchemaChanged => (ErrorKind::Unavailable, "sqlite could not finish the call"),
        ErrorCode::DiskFull => (ErrorKind::Unavailable, "the disk is full"),
        ErrorCode::CannotOpen => (ErrorKind::Unavailable, "the database cannot be opened"),
        // These say that the file itself is at fault, not the way to it.
        ErrorCode::SystemIoFailure
            if matches!(failure.extended_code, ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS) =>
        {
            (ErrorKind::Corrupt, "the database is damaged")
        }
        ErrorCode::SystemIoFailure => (ErrorKind::Unavailable, "the database cannot be read or written"),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => (ErrorKind::Corrupt, "the database is damaged"),
        ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::AuthorizationForStatementDenied => {
            (ErrorKind::PermissionDenied, "the database cannot be written")
        }
        ErrorCode::TooBig => (ErrorKind::Invalid, "a row is larger than sqlite can store"),
        _ => (ErrorKind::Unexpected, "sqlite failed"),
    }
}
