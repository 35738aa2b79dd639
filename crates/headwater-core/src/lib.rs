//! The vocabulary of Headwater: what plugins implement and what the engine speaks.
//!
//! Core does no I/O and starts no runtime. A plugin depends on it alone. Start with the trait you implement
//! ([`StreamSource`], [`BatchSource`], [`OnlineStore`], [`OfflineStore`], [`Transform`]), then [`plugin`].

#![deny(clippy::indexing_slicing)]

pub mod batch;
pub mod definitions;
pub mod error;
pub mod memory;
pub mod offline;
pub mod online;
pub mod options;
pub mod plugin;
pub mod position;
pub mod secret;
pub mod stream;
pub mod time;
pub mod transform;
pub mod version;

#[cfg(test)]
#[allow(clippy::indexing_slicing)] // A panic fails the test.
mod tests;

pub use batch::BatchSource;
pub use error::{Error, ErrorKind, Result};
pub use offline::OfflineStore;
pub use online::OnlineStore;
pub use plugin::{Plugin, Registry};
pub use position::{Position, SplitId};
pub use secret::Secret;
pub use stream::{StreamProducer, StreamReader, StreamSource};
pub use time::{Clock, Micros};
pub use transform::Transform;
pub use version::{Origin, RowVersion};
