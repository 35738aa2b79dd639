//! Splits and the positions of records inside them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::error::{Error, Result};

/// Where a record stands inside its split: opaque bytes whose byte order is the record order.
///
/// A position always means *up to and including this record*: a checkpoint at `p` says that `p` and everything
/// before it is done, and reading resumes with the first record whose position is greater. [`Position::START`]
/// (no bytes) lies before every record.
///
/// | source | position of a record |
/// | --- | --- |
/// | Kafka | its offset, big-endian |
/// | Kinesis | its sequence number, then its sub-sequence number |
/// | file, NDJSON | the byte offset after its line, big-endian |
/// | file, Parquet | its row number counted from 1, big-endian |
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Bytes);

impl Position {
    /// Before every record of a split.
    pub const START: Self = Self(Bytes::new());

    /// A position of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// A position of eight big-endian bytes, for sources that count.
    pub fn from_u64(value: u64) -> Self {
        Self(Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    /// The number that [`Position::from_u64`] was given; `None` for other lengths; zero for [`Position::START`].
    pub fn to_u64(&self) -> Option<u64> {
        if self.0.is_empty() {
            return Some(0);
        }
        <[u8; 8]>::try_from(self.0.as_ref()).ok().map(u64::from_be_bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Position {
    /// Lowercase hexadecimal; nothing for [`Position::START`]. Its text order is the position order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_u64() {
            Some(number) => write!(f, "Position({number})"),
            None => write!(f, "Position(0x{self})"),
        }
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::data(format!("`{text}` is not a position: an even number of hexadecimal digits"));
        if !text.len().is_multiple_of(2) || !text.is_ascii() {
            return Err(wrong());
        }
        let bytes = (0..text.len())
            .step_by(2)
            .map(|at| text.as_bytes().get(at..at + 2).and_then(hex_byte))
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(wrong)?;
        Ok(Self(Bytes::from(bytes)))
    }
}

/// Names one split (partition, shard, file) of a stream: bytes in order of creation.
///
/// Its text form keeps ASCII letters, digits, `-`, `_` and dots that do not lead, and writes every other byte as
/// `%XX`, so that it is one valid path segment, reversible and distinct for distinct splits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitId(Bytes);

impl SplitId {
    /// A split of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for SplitId {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => write!(f, "{}", char::from(*byte))?,
                b'.' if index > 0 => f.write_str(".")?,
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SplitId({self})")
    }
}

impl FromStr for SplitId {
    type Err = Error;

    /// Reads the text form back.
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first != b'%' {
                bytes.push(first);
                rest = tail;
                continue;
            }
            let byte = tail
                .get(..2)
                .and_then(hex_byte)
                .ok_or_else(|| Error::data(format!("`{text}` is not a split: `%` needs two hexadecimal digits")))?;
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        }
        Ok(Self(Bytes::from(bytes)))
    }
}

/// The byte that two hexadecimal digits stand for; no signs, unlike the standard library's parser.
fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some(digit(high)? * 16 + digit(low)?),
        _ => None,
    }
}
