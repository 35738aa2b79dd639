//! What is noted of shards: a line for each, its name and the text for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_core::{Error, Result};

use crate::position::Place;

/// Writes a note.
pub(crate) fn write<'a>(shards: impl Iterator<Item = (&'a String, String)>) -> Bytes {
    Bytes::from(shards.map(|(shard, text)| format!("{shard} {text}\n")).collect::<String>())
}

/// Reads a note, which says where shards do `what`.
///
/// # Errors
/// `Corrupt` where it is none; those of `value`.
pub(crate) fn read<T>(note: &[u8], what: &str, value: fn(&str) -> Result<T>) -> Result<BTreeMap<String, T>> {
    let damaged = || Error::corrupt(format!("the note of where shards {what} cannot be read")).with_plugin("kinesis");
    let line = |line: &str| {
        let (shard, text) = line.split_once(' ').ok_or_else(damaged)?;
        Ok((shard.to_owned(), value(text)?))
    };
    std::str::from_utf8(note).map_err(|_| damaged())?.lines().map(line).collect()
}

/// Reads a place from the text of its position.
///
/// # Errors
/// Those of a position that is none of a shard.
pub(crate) fn place(text: &str) -> Result<Place> {
    Place::of(&text.parse()?)
}
