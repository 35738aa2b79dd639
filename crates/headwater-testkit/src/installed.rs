//! Fixtures made of a plugin and its options.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use headwater_core::options::Config;
use headwater_core::plugin::OpenContext;
use headwater_core::{Clock, Error, OfflineStore, OnlineStore, Plugin, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::offline::OfflineFixture;
use crate::online::OnlineFixture;

/// A plugin that keeps everything in one folder, opened through its factories as a definition file would open it.
///
/// It is a fixture for online and offline stores. Fresh storage is a temporary folder.
#[derive(Debug, Clone, Copy)]
pub struct Installed {
    plugin: &'static Plugin,
    options: fn(&Path) -> Value,
}

impl Installed {
    /// `plugin` with the options, a JSON object, that keep its data in the given folder.
    pub fn new(plugin: &'static Plugin, options: fn(&Path) -> Value) -> Self {
        Self { plugin, options }
    }

    /// The plugin.
    pub fn plugin(&self) -> &'static Plugin {
        self.plugin
    }

    /// What a factory is given for this folder.
    pub fn config(&self, folder: &Path) -> Config {
        let options = match (self.options)(folder) {
            Value::Object(options) => options.into_iter().collect::<BTreeMap<_, _>>(),
            _ => BTreeMap::new(),
        };
        Config { name: format!("`{}` under test", self.plugin.name), options, base_dir: folder.to_owned() }
    }

    /// Opens its online store on this folder.
    ///
    /// # Errors
    /// `Unsupported` where it has none, else the factory's.
    pub fn online(&self, folder: &Path, context: &OpenContext) -> Result<Arc<dyn OnlineStore>> {
        let role = self.plugin.online.ok_or_else(|| self.no("online store"))?;
        (role.open)(&self.config(folder), context)
    }

    /// Opens its offline store on this folder.
    ///
    /// # Errors
    /// `Unsupported` where it has none, else the factory's.
    pub fn offline(&self, folder: &Path, context: &OpenContext) -> Result<Arc<dyn OfflineStore>> {
        let role = self.plugin.offline.ok_or_else(|| self.no("offline store"))?;
        (role.open)(&self.config(folder), context)
    }

    fn no(&self, role: &str) -> Error {
        Error::unsupported(format!("`{}` is no {role}", self.plugin.name))
    }
}

/// What a factory is given besides its options, with this clock.
pub fn context(clock: Arc<dyn Clock>) -> OpenContext {
    OpenContext { project: "testkit".into(), clock, source: None }
}

fn folder() -> Result<TempDir> {
    tempfile::tempdir().map_err(|error| Error::unexpected("no temporary folder").with_source(error))
}

#[async_trait]
impl OnlineFixture for Installed {
    type Storage = TempDir;

    async fn create(&self) -> Result<TempDir> {
        folder()
    }

    async fn open(&self, storage: &TempDir, context: &OpenContext) -> Result<Arc<dyn OnlineStore>> {
        self.online(storage.path(), context)
    }
}

#[async_trait]
impl OfflineFixture for Installed {
    type Storage = TempDir;

    async fn create(&self) -> Result<TempDir> {
        folder()
    }

    async fn open(&self, storage: &TempDir, context: &OpenContext) -> Result<Arc<dyn OfflineStore>> {
        self.offline(storage.path(), context)
    }
}
