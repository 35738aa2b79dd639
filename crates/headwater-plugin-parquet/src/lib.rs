#![doc = include_str!("../README.md")]

mod compact;
mod config;
mod error;
mod file;
mod log;
mod offline;
mod scan;
mod storage;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};

pub use config::{Compression, ParquetConfig};
pub use offline::ParquetOfflineStore;

/// The plugin `parquet`: an offline store of Parquet files in a folder or an object store.
pub static PLUGIN: Plugin =
    Plugin::new("parquet", env!("CARGO_PKG_VERSION")).with_offline(Role::new::<ParquetConfig>(|config, _| {
        Ok(Arc::new(ParquetOfflineStore::open(&ParquetConfig::from_config(config)?, config)?))
    }));

headwater_core::register!(PLUGIN);
