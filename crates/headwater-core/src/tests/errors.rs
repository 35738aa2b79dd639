//! Errors: one line for people, kinds for callers.

use std::error::Error as _;

use crate::{Error, ErrorKind};

#[test]
fn display_is_one_line_with_context_and_causes() {
    let native = std::io::Error::other("disk full");
    let error = Error::new(ErrorKind::Unavailable, "the file `a` cannot be written")
        .with_plugin("sqlite")
        .with_operation("put")
        .with_context("table", "t")
        .with_context("rows", 3)
        .with_source(native);
    assert_eq!(error.to_string(), "sqlite: the file `a` cannot be written (table: t, rows: 3): disk full");
    let debug = format!("{error:?}");
    for word in ["Unavailable", "Temporary", "plugin: sqlite", "operation: put", "table: t", "disk full"] {
        assert!(debug.contains(word), "`{word}` in `{debug}`");
    }
    assert_eq!((error.message(), error.plugin()), ("the file `a` cannot be written", Some("sqlite")));
    assert_eq!(error.source().unwrap().to_string(), "disk full");
}

#[test]
fn causes_are_printed_once() {
    let inner = Error::data("the middle").with_source(std::io::Error::other("the bottom"));
    assert_eq!(Error::invalid("the top").with_source(inner).to_string(), "the top: the middle: the bottom");
}

#[test]
fn kinds_say_whether_a_retry_can_help() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Throttled] {
        assert!(Error::new(kind, "x").is_retryable());
    }
    for kind in [ErrorKind::Invalid, ErrorKind::Conflict, ErrorKind::Corrupt, ErrorKind::PositionLost] {
        assert!(!Error::new(kind, "x").is_retryable());
    }
    assert!(Error::corrupt("x").temporary().is_retryable());
    assert!(!Error::new(ErrorKind::Throttled, "x").permanent().is_retryable());
    assert_eq!(Error::not_found("x").kind(), ErrorKind::NotFound);
}
