//! The options of `type: parquet`.

use headwater_core::options::{OptionType, OptionValue};
use serde_json::Value;

/// How column chunks are compressed. Every reader reads all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard, level 1: small files, nearly as fast as Snappy.
    Zstd,
    /// Snappy: the fastest to write.
    Snappy,
    /// None.
    None,
}

impl OptionValue for Compression {
    const KIND: OptionType = OptionType::OneOf(&["zstd", "snappy", "none"]);

    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("zstd") => Ok(Self::Zstd),
            Some("snappy") => Ok(Self::Snappy),
            Some("none") => Ok(Self::None),
            _ => Err(format!("expected {}, found `{value}`", Self::KIND.describe())),
        }
    }
}

headwater_core::options! {
    /// Options of `type: parquet`.
    pub struct ParquetConfig {
        /// The folder of the logs, relative to the definition file, or an `s3://bucket/prefix` URL. Created by the first write.
        path: String,
        /// How files are compressed.
        compression: Compression = Compression::Zstd,
        /// The most rows in one row group, the unit that scans prune and read.
        row_group_rows: u64 = 131_072,
    }
}
