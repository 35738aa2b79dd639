#![doc = include_str!("../README.md")]

mod config;
mod database;
mod error;
mod online;
mod table;

use std::sync::Arc;

use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};

pub use config::SqliteConfig;
pub use online::SqliteOnlineStore;

/// The plugin `sqlite`: an online store in one file.
pub static PLUGIN: Plugin =
    Plugin::new("sqlite", env!("CARGO_PKG_VERSION")).with_online(Role::new::<SqliteConfig>(|config, context| {
        let options = SqliteConfig::from_config(config)?;
        Ok(Arc::new(SqliteOnlineStore::open(&options, config, Arc::clone(&context.clock))?))
    }));

headwater_core::register!(PLUGIN);
