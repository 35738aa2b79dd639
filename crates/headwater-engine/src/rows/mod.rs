//! How the engine lays out online rows: table names, entity keys, packed values.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `{project}/{view}/{generation}` | an entity key ([`KeyColumns`]) | a packed row ([`RowEncoder`]) |
//! | `{project}/_checkpoints` | view, generation, split | how far the split's rows are stored |
//! | `{project}/_serving` | view | the generation that reads go to ([`Serving`]) |
//! | `{project}/_materialized` | view, generation | how far its batch source is in the table |
//! | `{project}/_jobs` | source | the heartbeat of a running worker |
//!
//! A tombstone is a packed row without values: it wins or loses by its version like any other, and reads as no row.
//!
//! A project's name holds no `/`, so `{project}/` is a prefix of its tables alone.

mod decode;
mod encode;
mod key;
mod log;
mod materialized;
mod serving;
#[cfg(test)]
mod tests;

pub(crate) use decode::{Builder, Reader, RowDecoder};
pub(crate) use encode::{RowEncoder, Values};
pub(crate) use key::KeyColumns;
pub(crate) use log::{LOG_ORDINAL, log_rows};
pub(crate) use materialized::{read_materialized, write_materialized};
pub(crate) use serving::Serving;

/// The table with the newest values of a view's generation.
pub(crate) fn values_table(project: &str, view: &str, generation: &str) -> String {
    format!("{project}/{view}/{generation}")
}

/// The table with the checkpoints of a project's views.
pub(crate) fn checkpoints_table(project: &str) -> String {
    format!("{project}/_checkpoints")
}

/// The table that says which generation of a view serves.
pub(crate) fn serving_table(project: &str) -> String {
    format!("{project}/_serving")
}

/// The table with the heartbeats of running workers.
pub(crate) fn jobs_table(project: &str) -> String {
    format!("{project}/_jobs")
}

/// The table that says how far views' batch sources have been materialised.
pub(crate) fn materialized_table(project: &str) -> String {
    format!("{project}/_materialized")
}

/// Every table of a project begins with this, and no other project's does.
pub(crate) fn table_prefix(project: &str) -> String {
    format!("{project}/")
}

/// The first byte of every packed row and entity key.
const FORMAT_VERSION: u8 = 1;

/// The first byte of a row that says that its entity is gone. The event time follows, and nothing else.
const TOMBSTONE: u8 = 2;

/// The column of rows and of their log that says which of them are tombstones: `boolean`, never null. Only rows of
/// sources that delete have it. A tombstone has its keys and its event time, and null everywhere else.
pub(crate) const DELETED: &str = "_deleted";

/// What a value in a key or a packed row is. The numbers are on disk.
mod tag {
    use headwater_core::definitions::ValueType;

    pub(super) const NULL: u8 = 0;
    pub(super) const LIST: u8 = 0x80;

    /// The tag of a type: lists are their element's with the high bit set.
    pub(super) fn of(value_type: &ValueType) -> u8 {
        match value_type {
            ValueType::Bytes => 1,
            ValueType::String => 2,
            ValueType::Int32 => 3,
            ValueType::Int64 => 4,
            ValueType::Float32 => 5,
            ValueType::Float64 => 6,
            ValueType::Bool => 7,
            ValueType::UnixTimestamp => 8,
            ValueType::Array(inner) => LIST | of(inner),
        }
    }
}

/// A feature's name as a row knows it: FNV-1a, 32 bits. [`RowEncoder::new`] refuses a view in which two names meet.
fn name_hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Appends `length` in groups of seven bits, the lowest first.
fn push_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
}
