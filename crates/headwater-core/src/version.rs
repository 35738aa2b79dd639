//! The one order in which rows of an entity replace one another.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::position::{Position, SplitId};
use crate::time::Micros;

/// Which way a row came in. Among rows of equal event and created time the later origin wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// Read from the batch source.
    Batch = 0,
    /// Read from the stream.
    Stream = 1,
    /// Given by a caller: `push`, `write_to_online_store`, `write_to_offline_store`.
    Push = 2,
}

/// The version of a row: (event time, created time, origin, split, position, ordinal). The greater wins, in every
/// store, inside and across batches, and in the point-in-time join.
///
/// An absent or null created time is lowest. For batch rows split and position are file path and row number. The
/// ordinal counts the rows that a transform made of one record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowVersion {
    /// When it happened.
    pub event_time: Micros,
    /// When the row was made, if the source says so.
    pub created: Option<Micros>,
    /// Which way it came in.
    pub origin: Origin,
    /// The split it was read from.
    pub split: SplitId,
    /// Its place in the split.
    pub position: Position,
    /// Which of the rows that came of the record at `position`.
    pub ordinal: u32,
}

impl RowVersion {
    /// The version as bytes whose `memcmp` order is the order of versions.
    ///
    /// Layout: event time as big-endian i64 with its sign bit flipped; `0` for an absent created time, else `1` and
    /// the time likewise; origin; split and position, each with `00` escaped as `00 ff` and ended by `00 00`;
    /// ordinal as big-endian u32.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(26 + self.split.as_bytes().len() + self.position.as_bytes().len() + 8);
        encode_version(
            &mut out,
            self.event_time,
            self.created,
            self.origin,
            self.split.as_bytes(),
            self.position.as_bytes(),
            self.ordinal,
        );
        Bytes::from(out)
    }

    /// Reads back what [`RowVersion::encode`] wrote.
    ///
    /// # Errors
    /// `Corrupt` where the bytes are no version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = || Error::corrupt("these bytes are no row version");
        let mut rest = bytes;
        let event_time = take_time(&mut rest).ok_or_else(wrong)?;
        let created = match take(&mut rest, 1).ok_or_else(wrong)? {
            [0] => None,
            [1] => Some(take_time(&mut rest).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        let origin = match take(&mut rest, 1).ok_or_else(wrong)? {
            [0] => Origin::Batch,
            [1] => Origin::Stream,
            [2] => Origin::Push,
            _ => return Err(wrong()),
        };
        let split = SplitId::new(take_escaped(&mut rest).ok_or_else(wrong)?);
        let position = Position::new(take_escaped(&mut rest).ok_or_else(wrong)?);
        let ordinal = <[u8; 4]>::try_from(rest).map(u32::from_be_bytes).map_err(|_| wrong())?;
        Ok(Self { event_time, created, origin, split, position, ordinal })
    }
}

/// Appends an encoded [`RowVersion`] to `out` without building one first: for loops over columns.
pub fn encode_version(
    out: &mut Vec<u8>,
    event_time: Micros,
    created: Option<Micros>,
    origin: Origin,
    split: &[u8],
    position: &[u8],
    ordinal: u32,
) {
    out.extend_from_slice(&ordered(event_time));
    match created {
        None => out.push(0),
        Some(created) => {
            out.push(1);
            out.extend_from_slice(&ordered(created));
        }
    }
    out.push(origin as u8);
    push_escaped(out, split);
    push_escaped(out, position);
    out.extend_from_slice(&ordinal.to_be_bytes());
}

fn ordered(time: Micros) -> [u8; 8] {
    (time ^ i64::MIN).to_be_bytes()
}

fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn take_time(rest: &mut &[u8]) -> Option<Micros> {
    let bytes = <[u8; 8]>::try_from(take(rest, 8)?).ok()?;
    Some(i64::from_be_bytes(bytes) ^ i64::MIN)
}

fn take_escaped(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        match take(rest, 1)? {
            [0] => match take(rest, 1)? {
                [0] => return Some(out),
                [0xff] => out.push(0),
                _ => return None,
            },
            other => out.extend_from_slice(other),
        }
    }
}
