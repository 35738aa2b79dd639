//! What the footer of a Parquet file tells of sizes.

use parquet::basic::Type;
use parquet::file::metadata::ColumnChunkMetaData;

/// A count as the format stores it. A negative one, which only a damaged file has, counts as none.
pub(crate) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// How much memory a column chunk takes once it is decoded: what it takes encoded tells little, because dictionaries
/// hold a repeated value once.
pub(crate) fn decoded_bytes(chunk: &ColumnChunkMetaData) -> u64 {
    let values = count(chunk.num_values());
    // An offset or a length for each value, and one bit for nulls.
    let slots = values.saturating_mul(9);
    let width = match chunk.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE | Type::INT96 => 8,
        Type::FIXED_LEN_BYTE_ARRAY => u64::try_from(chunk.column_descr().type_length()).unwrap_or(0),
        Type::BYTE_ARRAY => {
            // Old writers do not say; then repeated values are taken to be no more than four times what is stored.
            let stored = || count(chunk.uncompressed_size()).saturating_mul(4);
            return chunk.unencoded_byte_array_data_bytes().map_or_else(stored, count).saturating_add(slots);
        }
    };
    values.saturating_mul(width).saturating_add(slots)
}
