//! The options of `type: file`.

use std::path::{Path, PathBuf};

use headwater_core::options::{Config, Duration, OptionType, OptionValue};
use headwater_core::plugin::OpenContext;
use headwater_core::{Error, Result};
use serde_json::Value;

headwater_core::options! {
    /// Options of a stream source (and its producer) of `type: file`.
    pub struct FileStreamConfig {
        /// A local file or a directory of files, each of which is one split.
        path: String,
        /// Keep reading: files that grow, and files that are added to a directory. Without it a run reads what is
        /// there and finishes.
        follow: bool = false,
        /// How the files are written. By default the file's extension tells; for a directory, or an unknown extension:
        /// `ndjson` where the source has a `record_format`, else `parquet`.
        format: Option<StreamFormat> = None,
        /// How often `follow` looks for what was added.
        poll_interval: Duration = Duration(250_000),
    }
}

headwater_core::options! {
    /// Options of a batch source of `type: file`.
    pub struct FileBatchConfig {
        /// A file, a directory of files, or a URL of either: `file://…`, `s3://bucket/…`.
        path: String,
        /// How the files are written. By default their extension tells.
        format: Option<BatchFormat> = None,
        /// What separates the fields of a CSV line: one ASCII character.
        delimiter: String = String::from(","),
    }
}

/// How the files of a stream are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamFormat {
    /// One JSON value per line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// How the files of a table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchFormat {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values under a header line.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

impl OptionValue for StreamFormat {
    const KIND: OptionType = OptionType::OneOf(&["ndjson", "parquet"]);

    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("ndjson") => Ok(Self::Ndjson),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(format!("expected {}, found `{value}`", Self::KIND.describe())),
        }
    }
}

impl OptionValue for BatchFormat {
    const KIND: OptionType = OptionType::OneOf(&["parquet", "csv", "ndjson"]);

    fn read(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("parquet") => Ok(Self::Parquet),
            Some("csv") => Ok(Self::Csv),
            Some("ndjson") => Ok(Self::Ndjson),
            _ => Err(format!("expected {}, found `{value}`", Self::KIND.describe())),
        }
    }
}

impl StreamFormat {
    /// The format that a file name's extension tells.
    pub fn of_name(name: &str) -> Option<Self> {
        match BatchFormat::of_name(name)? {
            BatchFormat::Parquet => Some(Self::Parquet),
            BatchFormat::Ndjson => Some(Self::Ndjson),
            BatchFormat::Csv => None,
        }
    }
}

impl BatchFormat {
    /// The format that a file name's extension tells.
    pub fn of_name(name: &str) -> Option<Self> {
        let extension = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "parquet" | "pq" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Its word in a definition file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }
}

impl FileStreamConfig {
    /// The local path that is meant.
    pub(crate) fn local_path(&self, config: &Config) -> Result<PathBuf> {
        if self.path.is_empty() {
            return Err(Error::invalid(format!("{}: option `path` is empty", config.name)));
        }
        let resolved = config.resolve(&self.path);
        if resolved.contains("://") {
            return Err(Error::unsupported(format!(
                "{}: a stream of type `file` reads local paths, and `{}` is a URL; URLs work for batch sources",
                config.name, self.path
            )));
        }
        Ok(PathBuf::from(resolved))
    }

    /// The format that options, extension and record format tell, in this order.
    pub(crate) fn stream_format(&self, config: &Config, context: &OpenContext) -> Result<StreamFormat> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        if BatchFormat::of_name(&self.path) == Some(BatchFormat::Csv) {
            return Err(Error::unsupported(format!(
                "{}: a stream of type `file` reads NDJSON and Parquet, and `{}` is a CSV file; it can be a batch source",
                config.name, self.path
            )));
        }
        let encoded = context.source.as_ref().is_some_and(|source| source.record_format.is_some());
        let otherwise = if encoded { StreamFormat::Ndjson } else { StreamFormat::Parquet };
        Ok(StreamFormat::of_name(&self.path).unwrap_or(otherwise))
    }
}
