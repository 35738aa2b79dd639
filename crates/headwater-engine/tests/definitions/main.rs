//! Definition files as users write them, right and wrong.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod right;
mod windows;
mod wrong;

use std::path::Path;
use std::sync::Arc;

use headwater_core::definitions::Definitions;
use headwater_core::memory::{MemoryBatchSource, MemoryOfflineStore, MemoryOnlineStore, MemoryStreamSource};
use headwater_core::options::{OptionType, OptionValue, Options};
use headwater_core::plugin::Role;
use headwater_core::transform::Identity;
use headwater_core::{Plugin, Registry, Secret};
use headwater_engine::definitions::{DefinitionErrors, parse};
use serde_json::Value;

/// The file that every wrong one is an edit of.
const BASE: &str = include_str!("base.yaml");

headwater_core::options! {
    /// The options of a stream of files.
    struct StreamConfig {
        /// The files.
        path: String,
        /// Whether to go on.
        follow: bool = false,
    }
}

headwater_core::options! {
    /// The options of a table in files.
    struct TableConfig {
        /// The files.
        path: String,
        /// What they are.
        format: Option<Format> = None,
    }
}

headwater_core::options! {
    /// The options of a store.
    struct StoreConfig {
        /// The folder or file.
        path: String,
        /// Memory to use.
        cache_bytes: u64 = 1_024,
        /// What lets one in.
        password: Option<Secret> = None,
    }
}

/// A word among options.
#[derive(Debug, Clone)]
struct Format;

impl OptionValue for Format {
    const KIND: OptionType = OptionType::OneOf(&["parquet", "csv", "ndjson"]);

    fn read(value: &Value) -> Result<Self, String> {
        Self::KIND.check(value).map(|()| Self)
    }
}

// Plugins with the names and roles of those that a user has, opening memory: no test here reads a file.
static FILE: Plugin = Plugin::new("file", "0")
    .with_stream(Role::new::<StreamConfig>(|config, _| {
        let options = StreamConfig::from_config(config)?;
        Ok(Arc::new(MemoryStreamSource::new(options.path)))
    }))
    .with_batch(Role::new::<TableConfig>(|config, _| {
        let options = TableConfig::from_config(config)?;
        Ok(Arc::new(MemoryBatchSource::new(options.path)))
    }));
static SQLITE: Plugin =
    Plugin::new("sqlite", "0").with_online(Role::new::<StoreConfig>(|_, _| Ok(Arc::new(MemoryOnlineStore::new()))));
static PARQUET: Plugin =
    Plugin::new("parquet", "0").with_offline(Role::new::<StoreConfig>(|_, _| Ok(Arc::new(MemoryOfflineStore::new()))));
static SQL: Plugin = Plugin::new("sql", "0").with_transform(|_| Ok(Arc::new(Identity)));

fn registry() -> Registry {
    let plugins = [&FILE, &headwater_plugin_kafka::PLUGIN, &headwater_plugin_kinesis::PLUGIN, &PARQUET, &SQL, &SQLITE];
    plugins.into_iter().fold(Registry::empty(), |registry, plugin| registry.with(plugin).unwrap())
}

fn read(text: &str) -> Result<Definitions, DefinitionErrors> {
    parse(text, Path::new("."), &registry())
}
