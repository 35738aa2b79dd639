//! In-memory implementations of every trait: the reference that says what the contracts mean.
//!
//! They are small and plain on purpose. The conformance suites of `headwater-testkit` run against them and compare
//! other implementations with them; tests and experiments use them where nothing need outlive the process. As the
//! plugin `memory` they serve as online and offline store: `online_store: { type: memory }`.
//!
//! A clone shares its original's contents, as a second process shares a database. Nothing here needs a runtime.

mod batch;
mod offline;
mod online;
mod stream;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::options::Options;
use crate::plugin::{Plugin, Role};

pub use batch::MemoryBatchSource;
pub use offline::MemoryOfflineStore;
pub use online::MemoryOnlineStore;
pub use stream::MemoryStreamSource;

crate::options! {
    /// Options of `type: memory`: there are none. Each store that is opened begins empty and ends with the process.
    pub struct MemoryConfig {}
}

/// The plugin `memory`: an online and an offline store that end with the process.
pub static PLUGIN: Plugin = Plugin::new("memory", env!("CARGO_PKG_VERSION"))
    .with_online(Role::new::<MemoryConfig>(|config, _| {
        MemoryConfig::from_config(config)?;
        Ok(Arc::new(MemoryOnlineStore::new()))
    }))
    .with_offline(Role::new::<MemoryConfig>(|config, _| {
        MemoryConfig::from_config(config)?;
        Ok(Arc::new(MemoryOfflineStore::new()))
    }));

crate::register!(PLUGIN);

/// Locks `mutex`. A panic elsewhere leaves these maps whole, so its poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
