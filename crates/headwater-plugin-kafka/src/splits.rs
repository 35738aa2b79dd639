//! Partitions and offsets as splits and positions.

use bytes::Bytes;
use headwater_core::{Position, SplitId};

/// The split of a partition: its number, big-endian.
pub(crate) fn split(partition: i32) -> SplitId {
    SplitId::new(Bytes::copy_from_slice(&partition.to_be_bytes()))
}

/// The partition of a split, if it is one of ours.
pub(crate) fn partition(split: &SplitId) -> Option<i32> {
    <[u8; 4]>::try_from(split.as_bytes()).ok().map(i32::from_be_bytes)
}

/// The position that says: everything before `offset` is done.
pub(crate) fn before(offset: i64) -> Position {
    match u64::try_from(offset - 1) {
        Ok(last) => Position::from_u64(last),
        Err(_) => Position::START,
    }
}

/// The offset to read on from, after `position`; `None` where the position is none of Kafka's.
pub(crate) fn next_offset(position: &Position) -> Option<i64> {
    if *position == Position::START {
        return Some(0);
    }
    position.to_u64().and_then(|last| i64::try_from(last).ok()).and_then(|last| last.checked_add(1))
}
