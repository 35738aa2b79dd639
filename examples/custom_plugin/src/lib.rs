//! A stream source of a user's own: lines from a TCP server, as `type: lines`.
//!
//! It depends on `headwater-core` alone. Its README tells how it was written.

pub mod feed;

mod connection;
mod reader;
mod source;

use std::sync::Arc;

use headwater_core::options::Options;
use headwater_core::plugin::{Plugin, Role};

pub use source::LinesStreamSource;

headwater_core::options! {
    /// Options of `type: lines`.
    pub struct LinesConfig {
        /// Where feeds are served: `host:port`.
        address: String,
        /// The feed.
        feed: String,
    }
}

/// The plugin `lines`.
pub static PLUGIN: Plugin =
    Plugin::new("lines", env!("CARGO_PKG_VERSION")).with_stream(Role::new::<LinesConfig>(|config, _| {
        Ok(Arc::new(LinesStreamSource::new(LinesConfig::from_config(config)?)))
    }));

headwater_core::register!(PLUGIN);
