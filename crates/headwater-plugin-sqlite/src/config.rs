//! The options of `type: sqlite`.

use std::path::PathBuf;

use headwater_core::options::Config;
use headwater_core::{Error, Result};

headwater_core::options! {
    /// Options of `type: sqlite`.
    pub struct SqliteConfig {
        /// The database file, relative to the definition file. Created with its folders by the first write.
        path: String,
        /// Memory for cached pages of the writing connection, in bytes; each reading connection takes up to a quarter of it.
        cache_bytes: u64 = 67_108_864,
        /// How long a call waits for another process that is writing before it fails with a temporary error, in milliseconds.
        busy_timeout_ms: u64 = 10_000,
    }
}

impl SqliteConfig {
    /// The database file, resolved against the definition file's folder.
    pub(crate) fn file(&self, config: &Config) -> Result<PathBuf> {
        if self.path.is_empty() || self.path.contains("://") {
            return Err(Error::invalid(format!(
                "{}: option `path`: `{}` is not a file path such as `data/online.db`",
                config.name, self.path
            )));
        }
        Ok(PathBuf::from(config.resolve(&self.path)))
    }
}
