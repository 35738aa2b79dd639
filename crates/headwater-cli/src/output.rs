//! Results on stdout, for people or for programs.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use serde::Serialize;

use crate::api::{Error, ErrorKind, Result};
use crate::args::Format;

/// Prints `value` as JSON, or the text that `text` makes of it.
pub(crate) fn print<T: Serialize + ?Sized>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::Json => line(&json(value)?),
        Format::Text => line(text().trim_end()),
    }
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the output cannot be written").permanent().with_source(error)
        }),
    }
}

/// Tells something on stderr. Nobody may be listening, which is no reason to stop.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::unexpected("the result cannot be printed").with_source(error))
}

pub(crate) fn pretty_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Error::unexpected("the result cannot be printed").with_source(error))
}

/// A table with these headings, or `none` where it has no rows.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]], none: &str) -> Result<String> {
    if rows.is_empty() {
        return Ok(none.to_owned());
    }
    let columns = headings.iter().enumerate().map(|(index, heading)| {
        let cells: StringArray = rows.iter().map(|row| row.get(index).map(String::as_str)).collect();
        (*heading, Arc::new(cells) as ArrayRef)
    });
    Ok(pretty_format_batches(&[RecordBatch::try_from_iter(columns)?])?.to_string())
}

/// Something that may not be known.
pub(crate) fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
