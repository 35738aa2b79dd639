//! Plugins and the registry that finds them by the `type` of a definition file.
//!
//! A plugin is one `static` built by `const fn` from names and function pointers: nothing runs before `main`.
//!
//! ```ignore
//! pub static PLUGIN: Plugin = Plugin::new("lines", env!("CARGO_PKG_VERSION"))
//!     .stream(StreamRole::new::<LinesConfig>(|config, context| open(config, context)));
//! headwater_core::register!(PLUGIN);
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::batch::BatchSource;
use crate::error::{Error, ErrorKind, Result};
use crate::offline::OfflineStore;
use crate::online::OnlineStore;
use crate::options::{Config, OptionSpec, Options};
use crate::stream::{StreamProducer, StreamSource};
use crate::time::Clock;
use crate::transform::Transform;

#[doc(hidden)]
pub use inventory as __inventory;

/// What every factory is given beside its options.
#[derive(Debug, Clone)]
pub struct OpenContext {
    /// The project.
    pub project: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What the definitions say of the source's rows; `None` for stores and transforms.
    pub source: Option<SourceContext>,
}

/// The parts of a source's definition that the engine keeps and a plugin may need.
#[derive(Debug, Clone, Default)]
pub struct SourceContext {
    /// The column with the event time.
    pub timestamp_field: String,
    /// The column with the created time.
    pub created_timestamp_column: Option<String>,
    /// How records are encoded: `json`, `avro`, `protobuf`.
    pub record_format: Option<String>,
}

/// A role that a plugin plays: its options and how to open it.
pub struct Role<T: ?Sized + 'static> {
    /// The options.
    pub options: &'static [OptionSpec],
    /// Opens it. Reads no environment and does no I/O beyond what its options need; connects lazily where it can.
    pub open: fn(&Config, &OpenContext) -> Result<Arc<T>>,
    /// Checks options without opening anything, beyond their names and types: what they must and must not say together.
    /// Definitions are checked with it, also where the plugin is not enabled.
    pub check: fn(&Config, &SourceContext) -> Result<()>,
}

impl<T: ?Sized + 'static> Role<T> {
    /// A role whose options are `O`.
    pub const fn new<O: Options>(open: fn(&Config, &OpenContext) -> Result<Arc<T>>) -> Self {
        Self { options: O::OPTIONS, open, check: check_options::<O> }
    }

    /// Checks definitions with `check`, which begins with reading the options.
    #[must_use]
    pub const fn with_check(mut self, check: fn(&Config, &SourceContext) -> Result<()>) -> Self {
        self.check = check;
        self
    }
}

fn check_options<O: Options>(config: &Config, _source: &SourceContext) -> Result<()> {
    O::from_config(config).map(drop)
}

impl<T: ?Sized + 'static> Clone for Role<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized + 'static> Copy for Role<T> {}

impl<T: ?Sized + 'static> fmt::Debug for Role<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("options", &self.options.len()).finish_non_exhaustive()
    }
}

/// Opens a transform: reads the text of a view's `transform` and refuses what no input could make right.
pub type OpenTransform = fn(&str) -> Result<Arc<dyn Transform>>;

/// One external system: its name, the same word everywhere, and the roles it plays.
#[derive(Debug)]
pub struct Plugin {
    /// The `type:` in definition files and the facade's cargo feature.
    pub name: &'static str,
    /// Its crate's version.
    pub version: &'static str,
    /// What is left of the plugin where its feature is off: it validates definitions and opens nothing.
    pub enabled: bool,
    /// Stream sources.
    pub stream: Option<Role<dyn StreamSource>>,
    /// Producers for its streams.
    pub producer: Option<Role<dyn StreamProducer>>,
    /// Batch sources.
    pub batch: Option<Role<dyn BatchSource>>,
    /// Online stores.
    pub online: Option<Role<dyn OnlineStore>>,
    /// Offline stores.
    pub offline: Option<Role<dyn OfflineStore>>,
    /// Transforms: the text of a view's `transform`, where `mode` is this plugin's name.
    pub transform: Option<OpenTransform>,
}

impl Plugin {
    /// A plugin without roles.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            enabled: true,
            stream: None,
            producer: None,
            batch: None,
            online: None,
            offline: None,
            transform: None,
        }
    }

    /// Says whether the plugin can open anything in this build.
    #[must_use]
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Adds stream sources.
    #[must_use]
    pub const fn with_stream(mut self, role: Role<dyn StreamSource>) -> Self {
        self.stream = Some(role);
        self
    }

    /// Adds producers.
    #[must_use]
    pub const fn with_producer(mut self, role: Role<dyn StreamProducer>) -> Self {
        self.producer = Some(role);
        self
    }

    /// Adds batch sources.
    #[must_use]
    pub const fn with_batch(mut self, role: Role<dyn BatchSource>) -> Self {
        self.batch = Some(role);
        self
    }

    /// Adds online stores.
    #[must_use]
    pub const fn with_online(mut self, role: Role<dyn OnlineStore>) -> Self {
        self.online = Some(role);
        self
    }

    /// Adds offline stores.
    #[must_use]
    pub const fn with_offline(mut self, role: Role<dyn OfflineStore>) -> Self {
        self.offline = Some(role);
        self
    }

    /// Adds transforms.
    #[must_use]
    pub const fn with_transform(mut self, open: OpenTransform) -> Self {
        self.transform = Some(open);
        self
    }

    /// The names of its roles, for listings.
    pub fn roles(&self) -> Vec<&'static str> {
        [
            ("stream source", self.stream.is_some()),
            ("producer", self.producer.is_some()),
            ("batch source", self.batch.is_some()),
            ("online store", self.online.is_some()),
            ("offline store", self.offline.is_some()),
            ("transform", self.transform.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
        .collect()
    }
}

/// What `inventory` collects: a reference, so that the facade's list and the inventory speak of the same address.
#[derive(Debug)]
#[doc(hidden)]
pub struct Registered(pub &'static Plugin);

inventory::collect!(Registered);

/// Makes a plugin known to [`Registry::global`] in every binary that links it.
#[macro_export]
macro_rules! register {
    ($plugin:path) => {
        $crate::plugin::__inventory::submit! { $crate::plugin::Registered(&$plugin) }
    };
}

/// The plugins of a process, by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    plugins: BTreeMap<&'static str, &'static Plugin>,
}

impl Registry {
    /// No plugins: for tests, and wherever the linker must not decide.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every plugin that is linked in and registered with [`register!`](crate::register!).
    ///
    /// # Errors
    /// `Conflict` where two plugins claim one name.
    pub fn global() -> Result<Self> {
        let mut registry = Self::empty();
        for registered in inventory::iter::<Registered> {
            registry.add(registered.0)?;
        }
        Ok(registry)
    }

    /// Adds a plugin; the same one twice counts once.
    ///
    /// # Errors
    /// `Conflict` where another plugin has its name.
    pub fn add(&mut self, plugin: &'static Plugin) -> Result<()> {
        match self.plugins.insert(plugin.name, plugin) {
            Some(other) if !std::ptr::eq(other, plugin) => Err(Error::new(
                ErrorKind::Conflict,
                format!("two plugins are called `{}`: versions {} and {}", plugin.name, other.version, plugin.version),
            )),
            _ => Ok(()),
        }
    }

    /// Adds a plugin to a registry that is being put together.
    ///
    /// # Errors
    /// As [`Registry::add`].
    pub fn with(mut self, plugin: &'static Plugin) -> Result<Self> {
        self.add(plugin)?;
        Ok(self)
    }

    /// The plugins, sorted by name.
    pub fn plugins(&self) -> impl Iterator<Item = &'static Plugin> + '_ {
        self.plugins.values().copied()
    }

    /// The plugin of this name, whether it is enabled or not.
    pub fn plugin(&self, name: &str) -> Option<&'static Plugin> {
        self.plugins.get(name).copied()
    }

    /// The plugin of this name, if it can open things and plays the role that `role` picks.
    ///
    /// # Errors
    /// `Unsupported`, listing what is compiled in and which feature would add a known plugin.
    pub fn role<R>(&self, name: &str, what: &str, role: impl Fn(&'static Plugin) -> Option<R>) -> Result<R> {
        let known = || {
            let names = self
                .plugins()
                .filter(|plugin| plugin.enabled && role(plugin).is_some())
                .map(|plugin| format!("`{}`", plugin.name))
                .collect::<Vec<_>>();
            if names.is_empty() { "none".into() } else { names.join(", ") }
        };
        match self.plugin(name) {
            Some(plugin) if !plugin.enabled => Err(Error::unsupported(format!(
                "this build has no {what} `{name}`: build with the cargo feature `{name}`; compiled in are {}",
                known()
            ))),
            Some(plugin) => role(plugin)
                .ok_or_else(|| Error::unsupported(format!("`{name}` is no {what}; compiled in are {}", known()))),
            None => {
                Err(Error::unsupported(format!("there is no {what} of type `{name}`; compiled in are {}", known())))
            }
        }
    }
}
